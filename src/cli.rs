//! The command line: what was typed becomes a [`Command`], and a command runs.
//!
//! Whatever goes wrong is one line on standard error that begins with `wigwag: `. The exit code is 0 after an orderly end,
//! 1 after a fault while running or one at the start that may pass, and 2 after a mistake in what was typed or in what it points
//! at; `join` has more. `config check` says every wrong value, a line each.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser};

mod banner;
#[cfg(target_os = "linux")]
mod bench;
mod certs;
mod config;
mod descriptors;
mod join;
mod keys;
mod log;
mod pages;
mod reload;
mod serve;
mod supervisor;
mod token;
mod why;

pub use banner::banner;

use crate::config::{Settings, Sources};
use crate::error::StartError;

/// Something to be done.
#[derive(Debug)]
pub enum Command {
    /// Run the server.
    Serve(Settings, Sources),
    /// Show the certificates.
    Certs(Settings, Sources, certs::Form),
    /// Print or check a file of settings.
    Config(config::ConfigArgs),
    /// Be a peer in a room.
    Join(join::JoinArgs),
    /// Put load on a server and measure what it costs.
    #[cfg(target_os = "linux")]
    Bench(Box<bench::BenchArgs>),
    /// Make keys for tokens.
    Keys(keys::KeysArgs),
    /// Make or show a token.
    Token(Box<token::TokenArgs>),
    /// Explain a call that has not come about.
    Why(why::WhyArgs),
    /// Print a shell's completions.
    Completions(pages::CompletionsArgs),
    /// Print or write manual pages.
    Man(pages::ManArgs),
}

/// Why the program ends before it has done what it was told, or without being told anything.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// `--help` or `--version` was asked for.
    #[error("{0}")]
    Answered(clap::Error),
    /// A mistake in what was typed, or in what it points at.
    #[error(transparent)]
    Mistake(StartError),
    /// All that is wrong with a file, where it was asked for.
    #[error("{} mistakes", .0.len())]
    Mistakes(Vec<StartError>),
    /// A fault while running, or one at the start that may pass.
    #[error(transparent)]
    Fault(#[from] anyhow::Error),
    /// Something that scripts may want to tell apart; the command's help explains the exit code.
    #[error("{0}")]
    Told(String, u8),
    /// The same where all has been said on standard output.
    #[error("exit code {0}")]
    Quiet(u8),
}

impl From<StartError> for End {
    fn from(error: StartError) -> Self {
        if error.is_passing() { End::Fault(error.into()) } else { End::Mistake(error) }
    }
}

impl End {
    /// Says it where it belongs and turns it into the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            End::Answered(text) => text.print().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
            End::Mistake(error) => {
                eprintln!("wigwag: {error}");
                ExitCode::from(2)
            }
            End::Mistakes(errors) => {
                for error in errors {
                    eprintln!("wigwag: {error}");
                }
                ExitCode::from(2)
            }
            End::Fault(error) => {
                eprintln!("wigwag: {}", StartError::new(format_args!("{error:#}")));
                ExitCode::FAILURE
            }
            End::Told(message, code) => {
                eprintln!("wigwag: {}", StartError::new(message));
                ExitCode::from(*code)
            }
            End::Quiet(code) => ExitCode::from(*code),
        }
    }
}

/// A WebRTC signaling server: WebTransport, WebSocket over HTTP/2 and HTTP/1.1 behind one room core
#[derive(Debug, Parser)]
#[command(name = "wigwag", version, subcommand_required = true)]
#[command(override_usage = "wigwag [COMMAND] [OPTIONS]", after_help = ABOUT_SETTINGS)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CliCommand {
    /// Run the server; this is also what happens without a command
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(CommonArgs),
    /// Show the certificates, made if missing, and how to make browsers and systems trust them
    #[command(after_help = CERTS_EXAMPLES)]
    Certs(CertsArgs),
    /// Print a file of settings to begin with, or check one
    #[command(arg_required_else_help = false, after_help = CONFIG_EXAMPLES)]
    Config(config::ConfigArgs),
    /// Join a room from the terminal: prints what happens, says what is typed
    #[command(after_help = JOIN_EXAMPLES)]
    Join(join::JoinArgs),
    /// Measure what a server costs under load: processor time, latency, memory
    #[cfg(target_os = "linux")]
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Box<bench::BenchArgs>),
    /// Explain why a call has not come about, as far as the server can tell
    #[command(after_help = WHY_EXAMPLES)]
    Why(why::WhyArgs),
    /// Make a token that lets somebody in, or show what stands in one
    #[command(after_help = TOKEN_EXAMPLES)]
    Token(Box<token::TokenArgs>),
    /// Make the keys that tokens are signed with and verified by
    #[command(after_help = KEYS_EXAMPLES)]
    Keys(keys::KeysArgs),
    /// Print what a shell needs to complete wigwag's commands and options
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(pages::CompletionsArgs),
    /// Print wigwag's manual page, or write all of them
    #[command(after_help = MAN_EXAMPLES)]
    Man(pages::ManArgs),
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// Read settings from this TOML file: the long options without their dashes, max-frame = "160KiB"
    #[arg(long, env = "WIGWAG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct CertsArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const ABOUT_SETTINGS: &str = "\
Examples:
  wigwag                  serve this machine: http://localhost:8080 and https://localhost:4433
  wigwag join demo        be a peer in the room demo, from the terminal
  wigwag certs            see the development certificates, learn how to trust them
  wigwag serve --help     see every setting
  wigwag --cert fullchain.pem --key privkey.pem --listen 0.0.0.0:443 --open

A setting comes from the command line, else from the environment, else from the file named by
--config, else from its default. Its name is the same everywhere: --max-frame, WIGWAG_MAX_FRAME,
max-frame.";

const SERVE_EXAMPLES: &str = "\
Examples:
  wigwag --plain off --admin off
  wigwag --listen 0.0.0.0:4433 --name 192.168.1.7 --open --dev-certs
  wigwag --cert fullchain.pem --key privkey.pem --listen 0.0.0.0:443,[::]:443 --open
  WIGWAG_LOG=wigwag=debug wigwag --config wigwag.toml

Times are written 500ms, 10s, 2m, 1h; sizes 4096, 160KiB, 1MiB. A list is given by repeating its
option, by commas, or in the file as [\"a\", \"b\"].

SIGHUP has certificates, token keys, the TURN secret and the file of settings read again; see 'wigwag config example' for
what takes effect then. Ctrl-C or SIGTERM drains: sessions are told to move, then the server ends. A second one ends it at
once. The exit code is 0 after an orderly end, 2 after a mistake in the settings, and 1 after a fault,
also one that may have passed at the next start: an address that cannot be had, keys that cannot be fetched.";

const CERTS_EXAMPLES: &str = "\
Examples:
  wigwag certs --name desk.local
  wigwag certs --certs-dir /var/lib/wigwag/certs
  wigwag certs --json | jq -r '.certificates[].sha256'";

const CONFIG_EXAMPLES: &str = "\
Examples:
  wigwag config example > wigwag.toml
  wigwag config check wigwag.toml && systemctl reload wigwag

Each mistake is a line on standard error with the file and its line; the exit code is 2 then. Flags and
the environment are left out, and files that settings name are not opened.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  wigwag completions bash > ~/.local/share/bash-completion/completions/wigwag
  wigwag completions fish > ~/.config/fish/completions/wigwag.fish
  wigwag completions zsh > ~/.zfunc/_wigwag";

const MAN_EXAMPLES: &str = "\
Examples:
  wigwag man | man -l -
  wigwag man ~/.local/share/man/man1";

const WHY_EXAMPLES: &str = "\
Examples:
  wigwag why demo
  wigwag why demo --admin http://10.0.0.5:9433 --admin-token /etc/wigwag/admin-token
  wigwag why demo --json > demo.json
  wigwag why --recording demo.json

The server's admin listener is asked what has happened in the room: who came and went, which offers,
answers and candidates went where, and what clients tell of ICE and media. A room is known for
--timeline-keep after it has ended; what --json prints can be saved, and explained at any time.

The exit code is 0 when every pair has exchanged offer, answer and candidates, so that the trouble lies
with ICE, TURN or the media, or is connected; 1 when the server cannot be asked; 2 after a mistake in
what was typed; 3 when something is missing or has failed, which is named; 4 when the room is not known;
5 when no two peers have been in it at once.";

const KEYS_EXAMPLES: &str = "\
Examples:
  wigwag keys                       an Ed25519 key pair in keys/
  wigwag keys --algorithm HS256     one secret, for an application that signs and a server that trusts it
  wigwag keys --from token.pem > token-keys.json";

const TOKEN_EXAMPLES: &str = "\
Examples:
  wigwag token --key keys/token-signing.pem --room demo --user alice
  wigwag token --key keys/token-signing.pem --room 'team-*' --grant join,publish,message,moderate --for 8h
  wigwag token --inspect --keys keys/token-keys.json < token.txt";

#[cfg(target_os = "linux")]
const BENCH_EXAMPLES: &str = "\
Examples:
  wigwag bench
  wigwag bench relay fan-out --via websocket-h2,webtransport
  wigwag bench --json before.json; …; wigwag bench --vs before.json
  wigwag bench idle --clients 15000 --time 10m --rounds 1

Each workload has a server of its own, this program, on the first processor; the load has the others.
Shown are medians of the server's processor time for one message, delivery, call or session, read
from the system, so that what else the machine does disturbs it little; and how long each took in
all rounds. What paced sends counts from when it was due. Measure with a release build.";

const JOIN_EXAMPLES: &str = "\
Examples:
  wigwag join demo
  wigwag join demo --via websocket-h2 --server https://localhost:4433
  echo hello | wigwag join demo --json

A typed line goes to the whole room; a line that begins with { is sent as it is, as a message of the
protocol without its id. When the connection is lost, the session looks for another by itself and goes
on where it was; what is typed meanwhile is sent then. The end of the input leaves the room when all
that was typed has been answered; Ctrl-C or SIGTERM leaves it at once.

The exit code is 0 after leaving in order, 1 when the server cannot be reached, 2 after a mistake in
what was typed, 3 when the server has refused or ended the session, and 4 after leaving in order when
it had refused a line.";

/// Settings without which `certs` makes no difference are not worth its help page; they are read all the same, as the file
/// and the environment are shared with `serve`.
const CERTS_SETTINGS: [&str; 6] = ["config", "json", "cert", "key", "certs_dir", "name"];

/// Reads the command line and the environment.
///
/// # Errors
/// A request for help or the version, or a mistake.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, End> {
    let args = with_command(args.into_iter().collect());
    let mut command = command();
    let matches = command.try_get_matches_from_mut(&args).map_err(|error| refuse(error, &command, &args))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| refuse(error, &command, &args))?;
    let (_, matches) = matches.subcommand().expect("clap has required a command");
    let gather = |common: &CommonArgs| Settings::gather(matches, common.config.as_deref());
    Ok(match cli.command {
        CliCommand::Serve(common) => {
            let (settings, sources) = gather(&common)?;
            Command::Serve(settings, sources)
        }
        CliCommand::Certs(CertsArgs { common, json }) => {
            let (settings, sources) = gather(&common)?;
            Command::Certs(settings, sources, if json { certs::Form::Json } else { certs::Form::Text })
        }
        CliCommand::Config(args) => Command::Config(args),
        CliCommand::Join(join) => Command::Join(join),
        #[cfg(target_os = "linux")]
        CliCommand::Bench(bench) => Command::Bench(bench),
        CliCommand::Keys(keys) => Command::Keys(keys),
        CliCommand::Token(token) => Command::Token(token),
        CliCommand::Why(args) => Command::Why(args),
        CliCommand::Completions(args) => Command::Completions(args),
        CliCommand::Man(args) => Command::Man(args),
    })
}

fn command() -> clap::Command {
    Cli::command().mut_subcommand("serve", |serve| serve.mut_args(|arg| arg.hide_env_values(true))).mut_subcommand(
        "certs",
        |certs| {
            certs.mut_args(|arg| {
                let shown = CERTS_SETTINGS.contains(&arg.get_id().as_str());
                arg.hide_env_values(true).hide(!shown)
            })
        },
    )
}

/// Does what the command says.
///
/// # Errors
/// What kept it from being done.
pub fn run(command: Command) -> Result<(), End> {
    match command {
        Command::Serve(settings, sources) => serve::run(&settings, &sources),
        Command::Certs(settings, sources, form) => certs::run(&settings, &sources, form),
        Command::Config(args) => config::run(&args),
        Command::Join(args) => join::run(&args),
        #[cfg(target_os = "linux")]
        Command::Bench(args) => bench::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
    }
}

/// Options alone are meant for `serve`.
fn with_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let first = args.get(1).and_then(|arg| arg.to_str());
    let about_all = matches!(first, Some("-h" | "--help" | "-V" | "--version"));
    if first.is_none_or(|first| first.starts_with('-')) && !about_all {
        args.insert(args.len().min(1), "serve".into());
    }
    args
}

fn refuse(error: clap::Error, command: &clap::Command, args: &[OsString]) -> End {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => End::Answered(error),
        _ => End::Mistake(StartError::new(one_line(&error, command, args))),
    }
}

/// What clap says in a paragraph and tips, in one line; a value of the environment is laid to the environment's charge.
fn one_line(error: &clap::Error, command: &clap::Command, args: &[OsString]) -> String {
    let text = error.render().to_string();
    let lines =
        text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let mut said = String::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (separator, line) = match line.strip_prefix("tip: ") {
            Some(tip) => ("; ", tip),
            None => (" ", line),
        };
        if !said.is_empty() {
            said.push_str(separator);
        }
        said.push_str(line.trim_start_matches("error: "));
    }
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return said };
    let flag = option.split([' ', '=', '[']).next().unwrap_or_default();
    let typed = |arg: &OsString| arg.to_str().is_some_and(|arg| arg == flag || arg.starts_with(&format!("{flag}=")));
    let variable = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .find(|arg| arg.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long)))
        .and_then(|arg| arg.get_env())
        .and_then(|variable| variable.to_str());
    match variable {
        Some(variable) if !args.iter().any(typed) => said.replace(&format!("'{option}'"), variable),
        _ => said,
    }
}

/// Prints to standard output; a reader that has gone away wanted no more.
fn print(text: &str) -> Result<(), End> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(End::Fault(anyhow::Error::new(error).context("cannot print")))
        }
        _ => Ok(()),
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn told_to_stop() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = tokio::signal::ctrl_c() => return,
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

#[cfg(test)]
mod tests;
