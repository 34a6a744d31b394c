//! `wigwag config`: a file of settings to begin with, and what is wrong with one.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{End, print};
use crate::config::{RELOADED, Settings};
use crate::error::StartError;

/// What to do with a file of settings.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a file with every setting, its default and what it does
    Example,
    /// Tell every wrong key and value of a file, and the first settings in it that are at odds
    Check {
        /// The file, or - for standard input
        #[arg(env = "WIGWAG_CONFIG", hide_env_values = true)]
        file: PathBuf,
    },
}

pub(super) fn run(args: &ConfigArgs) -> Result<(), End> {
    match &args.action {
        Action::Example => print(&example()),
        Action::Check { file } => check(file),
    }
}

fn check(file: &Path) -> Result<(), End> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let text = text_of(file)
        .map_err(|error| StartError::file("read", file, &error, "name a file, or - for standard input"))?;
    match Settings::check(&name, &text) {
        Ok(set) => print(&format!("{name} is right; settings in it: {set}\n")),
        Err(mistakes) => Err(End::Mistakes(mistakes)),
    }
}

fn text_of(file: &Path) -> std::io::Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// Every setting with its help, defaults told but not set.
pub(super) fn example() -> String {
    let mut text = String::from(
        "# Settings of wigwag, for `wigwag --config wigwag.toml`. What stands here are the defaults, or examples where there\n\
         # is none. The command line and the environment go before this file; paths are relative to where wigwag is started.\n\
         #\n\
         # SIGHUP has wigwag read this file again, and certificates, token keys and the TURN secret with it. What takes effect\n\
         # then, for what begins from then on:\n",
    );
    for line in RELOADED.chunks(5) {
        text += &format!("#   {}\n", line.join(", "));
    }
    text += "# All else waits for a restart; the log names what was changed of it.\n";
    let command = super::command();
    let serve = command.find_subcommand("serve").expect("there is one");
    let mut heading = None;
    for arg in serve.get_arguments() {
        let Some(long) = arg.get_long().filter(|long| !["help", "config"].contains(long)) else { continue };
        if heading != arg.get_help_heading() {
            heading = arg.get_help_heading();
            text += &format!("\n## {}\n", heading.unwrap_or_default());
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let (help, default) = help.split_once(" [default: ").unwrap_or((&help, ""));
        text += &format!("\n# {help}\n#{long} = {}\n", toml_value(arg, default.trim_end_matches(']')));
    }
    text
}

/// The default, or an example of what kind of value is expected.
fn toml_value(arg: &clap::Arg, default: &str) -> String {
    let value_name = arg.get_value_names().map_or("", |names| names[0].as_str());
    match (value_name, default) {
        ("BOOL", _) => "false".to_owned(),
        ("N", number) => number.to_owned(),
        ("FILE", _) => format!("\"{}.pem\"", arg.get_long().unwrap_or_default()),
        ("TEXT", _) => {
            format!("\"{}\"", if arg.get_long() == Some("token-issuer") { "https://id.example.org" } else { "wigwag" })
        }
        ("stun:HOST|turn:HOST", _) => "[\"turn:turn.example.org:3478?transport=udp\"]".to_owned(),
        ("nats://HOST|tls://HOST", _) => "[\"nats://nats.example.org:4222\"]".to_owned(),
        ("private|mdns", _) => "[\"private\", \"mdns\"]".to_owned(),
        ("FILE|env:VARIABLE", _) => {
            let long = arg.get_long().unwrap_or_default();
            format!("\"env:{}\"", long.to_ascii_uppercase().replace('-', "_"))
        }
        ("FILE|env:VARIABLE|https://URL", _) => "\"keys/token-keys.json\"".to_owned(),
        ("mailto:ADDRESS", _) => "[\"mailto:ops@example.org\"]".to_owned(),
        ("HOST" | "NAME", "") => "[\"signal.example.org\"]".to_owned(),
        ("https://URL", "") => "\"https://app.example.org/wigwag\"".to_owned(),
        ("http://HOST|https://HOST", _) => "\"http://localhost:4318\"".to_owned(),
        ("https://HOST", _) => "[\"https://app.example.org\"]".to_owned(),
        ("CIDR", "") => "[\"10.0.0.0/8\"]".to_owned(),
        ("DIR", "") => "\"web\"".to_owned(),
        (_, list) if list.contains(',') => format!("{:?}", list.split(',').collect::<Vec<_>>()),
        (_, text) => format!("{text:?}"),
    }
}
