//! `wigwag keys`: keys that tokens are signed with, and verified by.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{End, print};
use crate::auth::{Algorithm, Signer, SigningKey};
use crate::error::StartError;
use crate::files;

/// What `keys` is told.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// How tokens will be signed; HS256 has one secret that both signs and verifies
    #[arg(long, value_name = "ALGORITHM", default_value = "EdDSA", ignore_case = true)]
    algorithm: Algorithm,
    /// Write the keys into this directory; made if missing
    #[arg(long, value_name = "DIR", default_value = "keys")]
    out: PathBuf,
    /// Make no key: print what verifies the tokens of this private one (PEM)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["algorithm", "out"])]
    from: Option<PathBuf>,
}

pub(super) fn run(args: &KeysArgs) -> Result<(), End> {
    if let Some(path) = &args.from {
        let signer = Signer::parse(&read_private(path)?)?;
        return print(&signer.public);
    }
    let key = SigningKey::generate(args.algorithm)?;
    let (private, public) = (args.out.join(private_name(args.algorithm)), args.out.join("token-keys.json"));
    files::create_dir(&args.out)
        .map_err(|error| StartError::file("make", &args.out, &error, "choose another with --out"))?;
    for path in [&private, &public] {
        if path.exists() {
            let why = format_args!(
                "{} is there already; tokens signed with it would be worth nothing without it: remove it \
                                    yourself, or choose another place with --out",
                path.display()
            );
            return Err(StartError::new(why).into());
        }
    }
    let both = args.algorithm == Algorithm::Hs256;
    write(&private, &key.private, true)?;
    if !both {
        write(&public, &key.public, false)?;
    }
    let verifying = if both { &private } else { &public };
    print(&format!(
        "{private}  signs tokens; keep it to yourself\n{verifying}  verifies them\n\n\
         wigwag serve --token-keys {verifying}\nwigwag token --key {private} --room demo --user alice\n",
        private = private.display(),
        verifying = verifying.display(),
    ))
}

fn private_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Hs256 => "token-secret.json",
        _ => "token-signing.pem",
    }
}

fn write(path: &Path, text: &str, private: bool) -> Result<(), StartError> {
    files::write(path, text.as_bytes(), private)
        .map_err(|error| StartError::file("write", path, &error, "choose another place with --out"))
}

/// A private key's text; refused where others can read it.
pub(super) fn read_private(path: &Path) -> Result<String, StartError> {
    let bytes = files::read_private(path, "name a private key; wigwag keys makes one")?;
    String::from_utf8(bytes).map_err(|_| StartError::new(format_args!("{} is not text", path.display())))
}
