//! The commands of the pages for those who use wigwag are run as they stand there, in order, page by page.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::cli::Shell;
use crate::support::{TestServer, config, within};

/// Addresses that the pages name; the test's server listens elsewhere.
const ADMIN: &str = "http://127.0.0.1:9433";
const SECURE: &str = "https://localhost:4433";

/// Those with commands.
const PAGES: [&str; 4] = ["operations.md", "deploying.md", "troubleshooting.md", "migrating.md"];

/// What stands between "```sh" and "```".
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("\n```sh\n").skip(1);
    blocks.map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned()).collect()
}

/// Has a shell run it beside the program, in a directory of its own.
async fn run(shell: &Shell, ca: &Path, script: &str) {
    let program = Path::new(env!("CARGO_BIN_EXE_wigwag"));
    let path = format!(
        "{}:{}",
        program.parent().expect("a directory").display(),
        std::env::var("PATH").expect("there is a path")
    );
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).env("PATH", path);
    // The system trusts the server, as it would one of an operator's.
    command.env("SSL_CERT_FILE", ca).current_dir(shell.dir.path());
    let output = within(command.stdin(Stdio::null()).kill_on_drop(true).output()).await.expect("bash runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{script}\n{said}");
}

async fn run_page(name: &str, least: usize) -> Shell {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let commands = commands(&fs::read_to_string(page).expect("readable"));
    assert!(commands.len() >= least, "{name} has {} commands", commands.len());
    let mut settings = config();
    settings.admin = Some("127.0.0.1:0".parse().expect("an address"));
    let server = TestServer::start_with(settings).await;
    let admin = format!("http://{}", server.addresses.admin.expect("an admin listener"));
    let secure = format!("https://localhost:{}", server.addresses.secure[0].port());
    let shell = Shell::new();
    for script in commands {
        run(&shell, &server.ca, &script.replace(ADMIN, &admin).replace(SECURE, &secure)).await;
    }
    server.stop().await;
    shell
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_on_operations_says_to_type_works() {
    let shell = run_page("operations.md", 3).await;
    #[cfg(unix)]
    for file in ["keys/token-signing.pem", "certs/localhost.pem"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(shell.dir.path().join(file)).expect("it was made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file} is its maker's alone");
    }
}

/// The shell of whoever pastes a command must be there afterwards.
#[test]
fn no_command_of_the_pages_ends_the_shell() {
    for name in PAGES {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        for script in commands(&fs::read_to_string(page).expect("readable")) {
            let words: Vec<_> = script.split_whitespace().collect();
            assert!(!words.contains(&"exit") && !words.contains(&"exec"), "{name}: {script}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_on_deploying_says_to_type_works() {
    run_page("deploying.md", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_on_troubleshooting_says_to_type_works() {
    run_page("troubleshooting.md", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_on_migrating_says_to_type_works() {
    run_page("migrating.md", 1).await;
}

/// Settings, metrics and files that the pages name are there.
#[test]
fn the_pages_name_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = include_str!("../wigwag.example.toml");
    for name in PAGES {
        let page = fs::read_to_string(root.join("docs").join(name)).expect("readable");
        let end = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
        for flag in page.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.strip_prefix("--")) {
            let flag = flag.split(end).next().unwrap_or_default().trim_end_matches('-');
            // Those of other commands, cargo's among them, and a beginning that several have.
            let known = example.contains(&format!("\n#{flag} ")) || ["via", "address", "features"].contains(&flag);
            assert!(known, "{name} names --{flag}");
        }
        for file in page.split('`').skip(1).step_by(2).filter(|quoted| quoted.starts_with("packaging/")) {
            assert!(root.join(file).is_file(), "{name} names {file}");
        }
        for link in page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            assert!(link.is_empty() || root.join("docs").join(link).is_file(), "{name} leads to {link}");
        }
    }
}
