//! `wigwag token`: makes tokens, and shows what stands in one.

use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use http::Uri;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{End, keys, print};
use crate::auth::{self, Claims, KeySource, Names, RoomPattern, Signer, Verifier};
use crate::config::Span;
use crate::error::StartError;
use crate::protocol::{Limits, RoomName, Token};

/// What `token` is told.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Sign with this key: a private key in PEM, or a secret as JSON Web Key
    #[arg(long, value_name = "FILE", required_unless_present = "inspect")]
    key: Option<PathBuf>,
    /// A room it is for; each * stands for any characters; may be given again
    #[arg(long, value_name = "ROOM", required_unless_present = "inspect")]
    room: Vec<String>,
    /// Who it is for (sub); told to others as user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// What it allows; may be given again [default: join, publish and message]
    #[arg(long, value_name = "GRANT", value_delimiter = ',')]
    grant: Vec<GrantName>,
    /// How long it is good
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    lifetime: Span,
    /// Make it an invitation: anybody can take a seat with it, so many times [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    uses: Option<u64>,
    /// Print the link to the page of this server, with the token where browsers keep it to themselves
    #[arg(long, value_name = "https://HOST")]
    link: Option<Uri>,
    /// Metadata that it vouches for: a JSON object whose members win over the client's own
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Make no token: read one from standard input, and show what stands in it
    #[arg(long, conflicts_with_all = ["key", "room", "user", "grant", "lifetime", "uses", "link", "metadata"])]
    inspect: bool,
    /// With --inspect: say whether these keys verify it, as --token-keys of serve does
    #[arg(long, value_name = "FILE|env:VARIABLE|https://URL", requires = "inspect")]
    keys: Option<KeySource>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GrantName {
    Join,
    Publish,
    Message,
    Moderate,
}

pub(super) fn run(args: &TokenArgs) -> Result<(), End> {
    if args.inspect {
        return inspect(args.keys.as_ref());
    }
    let path = args.key.as_ref().ok_or_else(|| StartError::new("--key is missing"))?;
    let signer = Signer::parse(&keys::read_private(path)?)?;
    let rooms = args.room.iter().cloned().map(RoomPattern).collect();
    let names = args.grant.iter().filter_map(|grant| Some(grant.to_possible_value()?.get_name().to_owned()));
    let claims = Claims {
        sub: args.user.clone(),
        grants: (!args.grant.is_empty()).then(|| names.collect()),
        metadata: args.metadata.as_deref().map(object).transpose()?,
        ..Claims::lasting(args.lifetime.0, Names::Many(rooms))
    };
    let claims = match args.uses {
        Some(uses) => claims.for_seats(uses)?,
        None => claims,
    };
    let token = signer.sign(&claims)?;
    match &args.link {
        Some(server) => print(&format!("{}\n", link(server, &args.room, &token)?)),
        None => print(&format!("{token}\n")),
    }
}

/// A link to the page with room and token. What stands behind the `#` goes to no server and into no log of one.
fn link(server: &Uri, rooms: &[String], token: &str) -> Result<String, StartError> {
    let (Some(scheme @ ("https" | "http")), Some(authority)) = (server.scheme_str(), server.authority()) else {
        return Err(StartError::new("--link must be the server's URL, like https://signal.example.org"));
    };
    match rooms {
        [room] => {
            let room = RoomName::parse(room)
                .map_err(|error| StartError::new(format_args!("--link leads into one room: {error}")))?;
            Ok(format!("{scheme}://{authority}/?room={room}#token={token}"))
        }
        _ => Err(StartError::new("--link leads into one room: give one --room")),
    }
}

fn object(text: &str) -> Result<Box<RawValue>, StartError> {
    let right = || StartError::new("--metadata must be a JSON object, like '{\"name\":\"Alice\"}'");
    let value: Box<RawValue> = serde_json::from_str(text).map_err(|_| right())?;
    if value.get().starts_with('{') { Ok(value) } else { Err(right()) }
}

/// Never from an argument: other users of the machine can see those.
fn inspect(keys: Option<&KeySource>) -> Result<(), End> {
    let mut text = String::new();
    std::io::stdin()
        .take(64 * 1024)
        .read_to_string(&mut text)
        .map_err(|_| StartError::new("standard input is not text"))?;
    let token = text.trim();
    let mut shown = parts(token)?;
    if let Some(keys) = keys {
        let verdict = verdict(keys.clone(), token, &shown["claims"])?;
        shown["verdict"] = json!(verdict);
    }
    print(&format!("{shown:#}\n"))
}

/// Header and claims, as they stand there, unverified.
fn parts(token: &str) -> Result<Value, StartError> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let part = |text: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
    let mut split = token.split('.');
    let (header, claims) = (split.next().and_then(part), split.next().and_then(part));
    let (Some(header), Some(claims)) = (header, claims) else {
        return Err(StartError::new(
            "this is no JSON Web Token: give one on standard input, like wigwag token … | wigwag token --inspect",
        ));
    };
    let date = |name: &str| {
        let seconds = claims[name].as_i64()?;
        OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
    };
    Ok(json!({ "header": header, "notBefore": date("nbf"), "expires": date("exp"), "claims": claims }))
}

/// What a server with these keys would say, in the first room that the token names.
fn verdict(keys: KeySource, token: &str, claims: &Value) -> Result<String, End> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::new)?;
    runtime.block_on(async {
        let policy = auth::Policy { keys, issuer: None, audience: None, invite_key: None };
        let verifier = Verifier::load(policy, &Limits::default()).await?;
        let room = claims["room"].as_str().or(claims["room"][0].as_str()).unwrap_or("demo").replace('*', "x");
        let room = RoomName::parse(&room).map_err(|error| StartError::new(format_args!("its room: {error}")))?;
        Ok(match verifier.explain(&Token::new(token), &room) {
            None => format!("valid for room {room}"),
            Some(fault) => format!("refused: {fault}"),
        })
    })
}
