//! The program as its users meet it: what it prints, what it refuses, and with which exit code.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use http::HeaderMap;
use rustls::RootCertStore;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use wigwag::client::{Connection, Endpoint, Event, Trust, Via};
use wigwag::protocol::RoomName;

/// Far beyond what any of these takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Listens on free ports only, so that tests can run side by side.
pub(crate) const FREE: [&str; 6] = ["--listen", "127.0.0.1:0", "--plain", "off", "--admin", "off"];

/// The program in an empty directory and an environment without settings.
pub(crate) struct Shell {
    pub(crate) dir: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Shell { dir: TempDir::new().expect("a directory"), environment: Vec::new() }
    }

    fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.environment.push((variable, value.to_owned()));
        self
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("writable");
        path.to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wigwag"));
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WIGWAG_")) {
            command.env_remove(variable);
        }
        command.args(args).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.dir.path()).kill_on_drop(true).stdin(Stdio::null());
        command
    }

    pub(crate) async fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        timeout(PATIENCE, self.command(args).output()).await.expect("it ends by itself").expect("it runs")
    }

    /// Runs what must be refused as a mistake; returns the one line that says why.
    pub(crate) async fn refused<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        self.ends_with(2, args).await
    }

    /// Runs what cannot be done now, and may be done later; returns the one line that says why.
    async fn put_off<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        self.ends_with(1, args).await
    }

    /// Runs what must end with this exit code and one line, which is returned.
    async fn ends_with<S: AsRef<OsStr>>(&self, code: i32, args: &[S]) -> String {
        let output = self.run(args).await;
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(output.stdout.is_empty());
        assert!(
            said.starts_with("wigwag: ") && said.ends_with('\n') && said.lines().count() == 1,
            "not one line: {said}"
        );
        said
    }

    /// Where the certificates are by these arguments.
    async fn certs_dir<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        let output = self.run(args).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json["ca"].as_str().and_then(|ca| ca.strip_suffix("/ca.pem")).expect("a CA").to_owned()
    }

    /// Starts the server and waits until it is ready; returns the line of its banner that holds `word`, too.
    pub(crate) async fn serve(&self, args: &[&str], word: &str) -> (Child, String) {
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await.expect("UTF-8") {
                if line.contains(word) {
                    return line;
                }
            }
            panic!("it ended before it was ready");
        };
        let line = timeout(PATIENCE, listening).await.expect("it becomes ready");
        (child, line)
    }

    /// A certificate and its key in one file, as an operator would have them.
    async fn certificate(&self) -> String {
        self.run(&["certs"]).await;
        self.dir.path().join("certs/localhost.pem").to_str().expect("UTF-8").to_owned()
    }
}

pub(crate) fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test]
async fn wrong_flags_and_values_are_refused() {
    let shell = Shell::new();
    contains(&shell.refused(&["--lisen", "127.0.0.1:1"]).await, &["--lisen", "--listen"]);
    contains(&shell.refused(&["serve", "now"]).await, &["unexpected argument 'now'"]);
    contains(&shell.refused(&["--heartbeat", "soon"]).await, &["'soon'", "--heartbeat", "500ms"]);
    contains(&shell.refused(&["--max-frame", "1KB"]).await, &["'1KB'", "--max-frame", "160KiB"]);
    contains(&shell.refused(&["--heartbeat", "0s"]).await, &["--heartbeat", "from 100ms to 10m"]);
    contains(&shell.refused(&["--log", "wigwag=loud"]).await, &["--log is wigwag=loud", "debug"]);
    contains(&shell.refused(&["--origin", "https://a.example/page"]).await, &["--origin", "no path"]);
    contains(&shell.refused(&["--cert", "cert.pem"]).await, &["--cert is cert.pem", "--key"]);
}

#[tokio::test]
async fn a_bad_value_of_the_environment_is_laid_to_the_environments_charge() {
    let shell = Shell::new().with("WIGWAG_HEARTBEAT", "soon");
    contains(&shell.refused(&FREE).await, &["'soon' for WIGWAG_HEARTBEAT", "500ms"]);
    contains(&shell.refused(&["--heartbeat", "late"]).await, &["'late' for '--heartbeat"]);
    let shell = Shell::new().with("WIGWAG_HEARTBEAT", "0s");
    contains(&shell.refused(&FREE).await, &["WIGWAG_HEARTBEAT is 0ms: "]);
    let shell = Shell::new().with("WIGWAG_NO_H2", "perhaps");
    contains(&shell.refused(&FREE).await, &["'perhaps' for WIGWAG_NO_H2", "true, false"]);
}

#[tokio::test]
async fn a_bad_file_is_refused_with_its_line() {
    let shell = Shell::new();
    let with = |content: &str| ["--config".to_owned(), shell.write("wigwag.toml", content)];
    contains(
        &shell.refused(&with("heartbeat = '3s'\nlisen = '127.0.0.1:1'")).await,
        &["wigwag.toml:2: ", "`lisen`", "`listen`"],
    );
    contains(&shell.refused(&with("\n\nheartbeat = 'soon'")).await, &["wigwag.toml:3: ", "'soon'", "500ms"]);
    contains(&shell.refused(&with("heartbeat = 10")).await, &["wigwag.toml:1: ", "'10'", "a unit"]);
    contains(&shell.refused(&with("listen = ['127.0.0.1']")).await, &["wigwag.toml:1: ", "127.0.0.1:4433"]);
    contains(&shell.refused(&with("no-h3 = 'yes'")).await, &["wigwag.toml:1: ", "true or false"]);
    contains(&shell.refused(&with("heartbeat = ")).await, &["wigwag.toml:1: "]);
    contains(&shell.refused(&with("heartbeat = '0s'")).await, &["wigwag.toml:1: heartbeat is 0ms: "]);
    contains(&shell.refused(&["--config", "missing.toml"]).await, &["missing.toml: no such file", "--config"]);
}

#[tokio::test]
async fn the_example_file_passes_its_own_check() {
    let shell = Shell::new();
    let example = shell.run(&["config", "example"]).await;
    assert!(example.status.success());
    let text = String::from_utf8(example.stdout).unwrap();
    let mut check =
        shell.command(&["config", "check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let checked = timeout(PATIENCE, check.wait_with_output()).await.unwrap().unwrap();
    assert!(checked.status.success());
    contains(&String::from_utf8(checked.stdout).unwrap(), &["standard input is right; settings in it: 0"]);
}

#[tokio::test]
async fn a_check_tells_every_wrong_value_of_a_file_in_order_and_what_is_at_odds() {
    let shell = Shell::new().with("WIGWAG_HEARTBEAT", "soon");
    let file = shell.write(
        "w.toml",
        "heartbeat = '0s'\nmax-pers = 3\ncert = 'a.pem'\norigin = ['https://a.example/page']\nmax-frame = 'much'\nrate = 0\n\
         cluster = 'redis://a'\ncluster-name = 'a.b'\ncluster-timeout = '1ms'\nturn-secret = ''\nlog = 'wigwag=loud'\nburst = 0\n",
    );
    let output = shell.run(&["config", "check", &file]).await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = said.lines().map(|line| line.replace(&file, "w.toml")).collect();
    assert_eq!(
        lines,
        [
            "wigwag: w.toml:1: heartbeat is 0ms: it must be from 100ms to 10m",
            "wigwag: w.toml:2: unknown key `max-pers`; did you mean `max-peers`?",
            "wigwag: w.toml:4: origin is https://a.example/page: write it as browsers send it, like https://app.example.org or \
             http://localhost:3000 (no path, no wildcard), or null",
            "wigwag: w.toml:5: max-frame: invalid value 'much': write a whole number of bytes, KiB or MiB, like 4096, 160KiB or 1MiB",
            "wigwag: w.toml:6: rate is 0: it must be from 1 to 1000000",
            "wigwag: w.toml:7: cluster is redis://a: write it as nats://HOST:4222, or tls://HOST:4222 for an encrypted connection",
            "wigwag: w.toml:8: cluster-name is a.b: write 1 to 64 of A-Z a-z 0-9 - _",
            "wigwag: w.toml:9: cluster-timeout is 1ms: it must be from 1s to 1m",
            "wigwag: w.toml:10: turn-secret is : name a file, or env:VARIABLE",
            "wigwag: w.toml:11: log is wigwag=loud: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \
             \"info\", \"debug\", \"trace\", or a number 0-5; write a level (error, warn, info, debug, trace) or a list like \
             wigwag=debug,info",
            "wigwag: w.toml:12: burst is 0: it must be from 1 to 1000000",
            "wigwag: w.toml:3: cert is a.pem: its private key is missing: give --key too",
        ]
    );
    shell.write("w.toml", "heartbeat = '5s'\nmax-peers = 3\n");
    let output = shell.run(&["config", "check", &file]).await;
    contains(&String::from_utf8(output.stdout).unwrap(), &["w.toml is right; settings in it: 2"]);
    contains(&shell.refused(&["config", "check", "missing.toml"]).await, &["missing.toml: no such file"]);
    contains(&shell.refused(&["config"]).await, &["example", "check"]);
}

#[tokio::test]
async fn flags_go_before_the_environment_before_the_file_before_the_default() {
    let shell = Shell::new();
    let file = shell.write("wigwag.toml", "certs-dir = 'from-file'\nmax-frame = 163840\norigin = 'https://a.example'");
    assert_eq!(shell.certs_dir(&["certs", "--json"]).await, "certs");
    let from_file = ["certs", "--json", "--config", &file];
    assert_eq!(shell.certs_dir(&from_file).await, "from-file");
    let shell = shell.with("WIGWAG_CERTS_DIR", "from-environment");
    assert_eq!(shell.certs_dir(&from_file).await, "from-environment");
    let typed = ["certs", "--json", "--config", &file, "--certs-dir", "from-flag"];
    assert_eq!(shell.certs_dir(&typed).await, "from-flag");
    let shell = Shell::new().with("WIGWAG_CONFIG", &file);
    assert_eq!(shell.certs_dir(&["certs", "--json"]).await, "from-file");
}

#[tokio::test]
async fn other_machines_are_served_only_when_that_is_meant() {
    let shell = Shell::new();
    contains(&shell.refused(&["--listen", "0.0.0.0:0"]).await, &["0.0.0.0:0", "--open and --dev-certs"]);
    contains(&shell.refused(&["--listen", "0.0.0.0:0", "--open"]).await, &["--acme-domain, or --dev-certs"]);
    contains(&shell.refused(&["--plain", "[::]:0", "--open"]).await, &["--plain-behind-proxy", "secure context"]);
    contains(&shell.refused(&["--admin", "0.0.0.0:0"]).await, &["--admin-exposed"]);
    assert!(!shell.dir.path().join("certs").exists(), "nothing is made before the settings are right");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_flag() {
    let shell = Shell::new();
    // Where no other test listens. UDP is taken with TCP: every QUIC client has some port of every address.
    let host = if cfg!(target_os = "linux") { "127.0.0.2:0" } else { "127.0.0.1:0" };
    let both = || {
        let tcp = std::net::TcpListener::bind(host).unwrap();
        let address = tcp.local_addr().unwrap();
        std::net::UdpSocket::bind(address).map(|udp| (tcp, udp, address.to_string()))
    };
    let (tcp, _udp, address) = std::iter::repeat_with(both).flatten().next().unwrap();
    for flag in ["--listen", "--plain", "--admin"] {
        let mut args = FREE;
        let place = args.iter().position(|arg| *arg == flag).unwrap();
        args[place + 1] = &address;
        let expected = format!(
            "wigwag: cannot listen on {address} (TCP): address already in use; choose another with {flag}, \
             or stop the program that has it\n"
        );
        assert_eq!(shell.put_off(&args).await, expected);
    }
    drop(tcp);
    let said = shell.put_off(&["--listen", &address, "--plain", "off", "--admin", "off"]).await;
    contains(&said, &["(UDP): address already in use", "--listen"]);
}

/// A supervisor starts the server again then: the exit code is not that of a mistake.
#[tokio::test]
async fn what_may_be_there_a_little_later_is_no_mistake() {
    let shell = Shell::new();
    // Of a network that is for documents.
    let absent = ["--listen", "192.0.2.1:4433", "--plain", "off", "--admin", "off", "--open", "--dev-certs"];
    contains(&shell.put_off(&absent).await, &["192.0.2.1:4433", "no such address", "--listen"]);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/jwks.json", nobody.local_addr().unwrap());
    drop(nobody);
    let keys = [&["--token-keys", &url, "--token-keys-private"][..], &FREE].concat();
    contains(&shell.put_off(&keys).await, &["cannot fetch the token keys", &url, "cannot connect"]);
    // What the settings themselves name stays a mistake.
    let spoilt = shell.write("ca.pem", "no certificate");
    contains(&shell.refused(&[&keys[..], &["--token-keys-ca", &spoilt]].concat()).await, &["cannot read", "ca.pem"]);
}

#[tokio::test]
async fn certificates_and_keys_that_cannot_be_used_are_refused() {
    let shell = Shell::new();
    let good = shell.certificate().await;
    let other_shell = Shell::new();
    let other = other_shell.certificate().await;
    let garbage = shell.write("garbage.pem", "-----BEGIN PRIVATE KEY-----\n!!\n");
    private(Path::new(&garbage));
    let directory = shell.dir.path().to_str().unwrap();
    for (cert, key, expected) in [
        ("missing.pem", good.as_str(), "missing.pem: no such file or directory; check --cert"),
        (&good, "missing.pem", "missing.pem: no such file or directory; check --key"),
        (&good, directory, "is a directory; check --key"),
        (&garbage, &good, "holds no certificate"),
        (&good, &garbage, "holds no private key"),
        (&good, &other, "does not belong to the certificate"),
    ] {
        let said = shell.refused(&["--cert", cert, "--key", key]).await;
        contains(&said, &[expected, "--"]);
    }
}

/// Settings that lead to a secret: in the file `secret.pem`, whatever kind it is.
#[cfg(unix)]
async fn secrets(shell: &Shell) -> [(Vec<String>, Vec<u8>); 3] {
    let key = shell.certificate().await;
    let symmetric = br#"{"kty":"oct","k":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"}"#;
    let args = |args: &[&str]| args.iter().map(|&arg| arg.to_owned()).collect();
    [
        (args(&["--cert", &key, "--key", "secret.pem"]), fs::read(&key).expect("readable")),
        (args(&["--token-keys", "secret.pem"]), symmetric.to_vec()),
        (args(&["--ice-server", "turn:a.example", "--turn-secret", "secret.pem"]), b"north".repeat(8)),
    ]
}

#[cfg(unix)]
#[tokio::test]
async fn secrets_open_to_every_user_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let shell = Shell::new();
    for (args, content) in secrets(&shell).await {
        let path = shell.write("secret.pem", content);
        for mode in [0o644, 0o602, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said = shell.refused(&[&args.iter().map(String::as_str).collect::<Vec<_>>()[..], &FREE].concat()).await;
            let mode = format!("{mode:04o}");
            contains(&said, &["secret.pem is open to every user", &mode, "chmod 600 secret.pem"]);
        }
    }
    // The chain is no secret.
    let good = shell.certificate().await;
    let chain = shell.write("chain.pem", fs::read(&good).unwrap());
    fs::set_permissions(&chain, fs::Permissions::from_mode(0o644)).unwrap();
    let (_server, _) = shell.serve(&[&["--cert", &chain, "--key", &good][..], &FREE].concat(), "listening").await;
}

#[cfg(unix)]
#[tokio::test]
async fn secrets_open_to_their_group_are_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let shell = Shell::new();
    for (args, content) in secrets(&shell).await {
        let path = shell.write("secret.pem", content);
        for (mode, is_warned_of) in [(0o640, true), (0o600, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let args = [&args.iter().map(String::as_str).collect::<Vec<_>>()[..], &FREE].concat();
            let (mut server, _) = shell.serve(&args, "listening").await;
            server.kill().await.unwrap();
            let mut said = String::new();
            server.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
            let warned = said.lines().any(|line| line.contains("WARN") && line.contains("open to its group"));
            assert_eq!(warned, is_warned_of, "{mode:04o}: {said}");
        }
    }
}

#[cfg(unix)]
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the test's own file");
}

#[cfg(not(unix))]
fn private(_: &Path) {}

#[tokio::test]
async fn a_directory_that_cannot_hold_certificates_is_refused() {
    let shell = Shell::new();
    let file = shell.write("file", "");
    let below = format!("{file}/certs");
    contains(&shell.refused(&["--certs-dir", &below]).await, &["file/certs: not a directory", "--certs-dir"]);
    contains(&shell.refused(&["certs", "--certs-dir", &below]).await, &["--certs-dir"]);
    let shell = Shell::new();
    fs::create_dir(shell.dir.path().join("certs")).unwrap();
    shell.write("certs/ca.pem", "spoilt");
    contains(&shell.refused(&FREE).await, &["certs/ca.pem is no PEM certificate", "trusted again"]);
}

#[tokio::test]
async fn certs_shows_every_certificate_and_how_to_trust_the_ca() {
    let shell = Shell::new();
    let output = shell.run(&["certs", "--json", "--name", "desk.test"]).await;
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let entries = json["certificates"].as_array().unwrap();
    let roles: Vec<_> = entries.iter().map(|entry| entry["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["ca", "tls", "webtransport", "webtransport-next"]);
    assert_eq!(json["development"], true);
    assert_eq!(entries[1]["names"], serde_json::json!(["127.0.0.1", "::1", "desk.test", "localhost"]));
    for entry in entries {
        assert!(shell.dir.path().join(entry["path"].as_str().unwrap()).is_file());
        assert_eq!(entry["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(entry["sha256Base64"].as_str().unwrap().len(), 44);
        assert!(entry["notBefore"].as_str().unwrap() < entry["notAfter"].as_str().unwrap());
    }

    let output = shell.run(&["certs"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    for entry in entries {
        for field in ["path", "sha256", "sha256Base64", "notAfter", "subject"] {
            contains(&text, &[entry[field].as_str().unwrap()]);
        }
    }
    let ca = shell.dir.path().join("certs/ca.pem");
    contains(&text, &["nssdb", "Firefox", "update-ca-certificates", "update-ca-trust", "macOS", "Windows", "curl"]);
    contains(&text, &[ca.to_str().unwrap()]);
}

#[tokio::test]
async fn certs_shows_the_operators_own_certificate() {
    let shell = Shell::new();
    let file = shell.certificate().await;
    let output = shell.run(&["certs", "--json", "--cert", &file, "--key", &file]).await;
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["development"], false);
    assert_eq!(json["ca"], Value::Null);
    assert_eq!(json["certificates"][0]["role"], "server");
    assert_eq!(json["certificates"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn help_and_version_are_answers() {
    let shell = Shell::new();
    for (args, expected) in [
        (&["--help"][..], "wigwag certs"),
        (&["serve", "--help"], "WIGWAG_MAX_FRAME"),
        (&["certs", "--help"], "--certs-dir"),
        (&["help", "serve"], "Beyond this machine"),
        (&["--version"], concat!("wigwag ", env!("CARGO_PKG_VERSION"))),
    ] {
        let output = shell.run(args).await;
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}");
        contains(&String::from_utf8(output.stdout).unwrap(), &[expected]);
    }
    let output = shell.run(&["certs", "--help"]).await;
    assert!(!String::from_utf8(output.stdout).unwrap().contains("--heartbeat"), "certs has no use for it");
}

#[tokio::test]
async fn completions_and_manual_pages_know_every_command() {
    let shell = Shell::new();
    let help = String::from_utf8(shell.run(&["--help"]).await.stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What follows a name stands further in.
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let commands: Vec<_> = names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help").collect();
    assert!(commands.contains(&"serve") && commands.contains(&"man"), "{help}");
    for name in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = String::from_utf8(shell.run(&["completions", name]).await.stdout).unwrap();
        contains(&script, &commands);
        contains(&script, &["max-frame", "waiting-room"]);
    }
    let pages = shell.dir.path().join("man");
    fs::create_dir(&pages).unwrap();
    assert!(shell.run(&["man", "man"]).await.status.success());
    for command in commands {
        let page = fs::read_to_string(pages.join(format!("wigwag-{command}.1"))).unwrap();
        contains(&page, &[".SH NAME", ".SH SYNOPSIS"]);
    }
    let main = String::from_utf8(shell.run(&["man"]).await.stdout).unwrap();
    assert_eq!(main, fs::read_to_string(pages.join("wigwag.1")).unwrap());
    contains(&shell.refused(&["man", "missing"]).await, &["missing: no such file or directory; name a directory"]);
    contains(&shell.refused(&["completions", "csh"]).await, &["csh", "bash"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_supervisor_is_told_when_the_server_is_ready_and_when_it_stops() {
    let shell = Shell::new();
    let path = shell.dir.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let told = async || {
        let mut state = [0; 64];
        let length = timeout(PATIENCE, socket.recv(&mut state)).await.expect("it is told").unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    };
    let shell = shell.with("NOTIFY_SOCKET", path.to_str().unwrap());
    let (mut server, _) = shell.serve(&FREE, "listening").await;
    assert_eq!(told().await, "READY=1");
    signal(&server, "TERM").await;
    assert_eq!(told().await, "STOPPING=1");
    assert_eq!(timeout(PATIENCE, server.wait()).await.expect("it ends").unwrap().code(), Some(0));
}

#[cfg(unix)]
pub(crate) async fn signal(server: &Child, name: &str) {
    let pid = server.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().await.expect("kill runs").success());
}

#[cfg(unix)]
#[tokio::test]
async fn a_signal_drains_and_ends_in_good_order() {
    for name in ["TERM", "INT"] {
        let shell = Shell::new();
        let args = [&FREE[..], &["--log-format", "json"]].concat();
        let (mut server, listening) = shell.serve(&args, "listening").await;
        assert!(!listening.contains("127.0.0.1:0"), "the real port is told: {listening}");
        signal(&server, name).await;
        let status = timeout(PATIENCE, server.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(0));
        let mut log = String::new();
        server.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
        let drained = log.lines().filter(|line| line.contains("draining")).count();
        assert_eq!(drained, 1, "{log}");
        for line in log.lines() {
            let event: Value = serde_json::from_str(line).expect("every line of the log is JSON");
            assert!(event["level"].is_string());
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_signal_does_not_wait_for_sessions() {
    let shell = Shell::new();
    let args = ["--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0", "--admin", "off", "--drain", "1h"];
    let (mut server, line) = shell.serve(&args, "unencrypted").await;
    let address: SocketAddr = line.rsplit(' ').next().unwrap().parse().unwrap();
    let endpoint = Endpoint { encrypted: false, host: "127.0.0.1".into(), port: address.port() };
    let trust = Trust::new(RootCertStore::empty(), vec![]).unwrap();
    let room = RoomName::parse("demo").unwrap();
    let headers = HeaderMap::new();
    let open = Connection::open(&endpoint, &room, Via::WebSocketH1, &trust, &headers);
    let mut session = timeout(PATIENCE, open).await.unwrap().unwrap();
    session.send(r#"{"type":"join"}"#).await.unwrap();
    hears(&mut session, "joined").await;

    signal(&server, "TERM").await;
    hears(&mut session, "goAway").await;
    signal(&server, "TERM").await;
    hears(&mut session, "closed").await;
    let status = timeout(PATIENCE, server.wait()).await.expect("it ends an hour early").unwrap();
    assert_eq!(status.code(), Some(0));
}

/// Waits for a message of this type.
#[cfg(unix)]
async fn hears(session: &mut Connection, wanted: &str) {
    loop {
        match timeout(PATIENCE, session.recv()).await.expect("it comes").expect("the connection holds") {
            Event::Message(text) if text.contains(&format!("\"type\":\"{wanted}\"")) => return,
            Event::Message(_) => {}
            other => panic!("{wanted} did not come, but {other:?}"),
        }
    }
}

/// A peer in the terminal, with what it prints and what is typed.
struct Terminal {
    child: Child,
    printed: Lines<BufReader<ChildStdout>>,
    typed: Option<ChildStdin>,
}

impl Terminal {
    fn join(shell: &Shell, args: &[&str]) -> Self {
        let mut command = shell.command(&[&["join"], args].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let printed = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let typed = child.stdin.take();
        Terminal { child, printed, typed }
    }

    /// Waits for a line with `part` in it.
    async fn prints(&mut self, part: &str) -> String {
        let mut printed = Vec::new();
        let found = timeout(PATIENCE, async {
            while let Some(line) = self.printed.next_line().await.expect("UTF-8") {
                if line.contains(part) {
                    return line;
                }
                printed.push(line);
            }
            String::new()
        });
        let found = found.await.unwrap_or_default();
        assert!(!found.is_empty(), "{part} is not in: {printed:#?}");
        found
    }

    async fn types(&mut self, line: &str) {
        let typed = self.typed.as_mut().expect("open");
        typed.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }

    /// Ends the input and waits for the end; the exit code, and what was complained about.
    async fn ends(mut self) -> (Option<i32>, String) {
        drop(self.typed.take());
        self.ended().await
    }

    async fn ended(mut self) -> (Option<i32>, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("it ran");
        let mut said = String::new();
        self.child.stderr.take().expect("it is piped").read_to_string(&mut said).await.expect("UTF-8");
        (status.code(), said)
    }
}

/// A server for terminals, and its URL.
async fn serve_plain(shell: &Shell, port: u16) -> (Child, String) {
    let plain = format!("127.0.0.1:{port}");
    let args = ["--listen", "127.0.0.1:0", "--plain", &plain, "--admin", "off", "--drain", "100ms"];
    let (server, line) = shell.serve(&args, "unencrypted").await;
    let address: SocketAddr = line.rsplit(' ').next().expect("an address").parse().expect("an address");
    (server, format!("http://{address}"))
}

#[tokio::test]
async fn terminals_talk_and_leave_when_all_that_was_typed_is_answered() {
    let shell = Shell::new();
    let (_server, url) = serve_plain(&shell, 0).await;
    let mut alice = Terminal::join(&shell, &["demo", "--server", &url, "--name", "Alice"]);
    contains(&alice.prints("joined demo").await, &["over webtransport", "Alice", "nobody else"]);
    let mut bob =
        Terminal::join(&shell, &["demo", "--server", &url, "--name", "Bob", "--json", "--via", "websocket-h1"]);
    let joined: Value = serde_json::from_str(&bob.prints("joined").await).expect("JSON");
    assert_eq!((&joined["transport"], joined.get("ticket")), (&Value::from("websocket-h1"), None));
    alice.prints("Bob").await;
    for number in 0..100 {
        bob.types(&format!("number {number}")).await;
    }
    bob.types(r#"{"type":"message","to":"nobody","data":1}"#).await;
    let (code, said) = bob.ends().await;
    assert_eq!(code, Some(4), "{said}");
    contains(&said, &["line 101 was refused: peerGone"]);
    for number in 0..100 {
        alice.prints(&format!(": number {number}")).await;
    }
    alice.prints("left (left)").await;
    assert_eq!(alice.ends().await.0, Some(0));
}

#[tokio::test]
async fn refusals_and_unreachable_servers_have_exit_codes_of_their_own() {
    let shell = Shell::new();
    contains(&shell.refused(&["join", "no room"]).await, &["no room: ", "A-Z a-z 0-9"]);
    contains(&shell.refused(&["join", "demo", "--via", "pigeon"]).await, &["pigeon", "long-poll"]);
    let output = shell.run(&["join", "demo", "--server", "http://127.0.0.1:1"]).await;
    assert_eq!(output.status.code(), Some(1));
    contains(&String::from_utf8(output.stderr).expect("UTF-8"), &["wigwag: cannot join demo at http://127.0.0.1:1"]);

    let args = ["--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0", "--admin", "off", "--max-peers", "1"];
    let (_server, line) = shell.serve(&args, "unencrypted").await;
    let url = format!("http://{}", line.rsplit(' ').next().expect("an address"));
    contains(&shell.refused(&["join", "demo", "--server", &url, "--via", "websocket-h2"]).await, &["no TLS address"]);
    let mut alice = Terminal::join(&shell, &["demo", "--server", &url]);
    alice.prints("joined").await;
    let (code, said) = Terminal::join(&shell, &["demo", "--server", &url]).ended().await;
    assert_eq!(code, Some(3));
    contains(&said, &["wigwag: the server refuses: roomFull"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_terminal_outlives_its_server_and_ctrl_c_leaves() {
    let shell = Shell::new();
    let (mut server, url) = serve_plain(&shell, 0).await;
    let port = url.rsplit(':').next().expect("a port").parse().expect("a number");
    let mut alice = Terminal::join(&shell, &["demo", "--server", &url, "--via", "websocket-h1"]);
    alice.prints("joined").await;
    server.kill().await.expect("it ran");
    alice.prints("no connection").await;
    let (_server, _) = serve_plain(&shell, port).await;
    alice.prints("joined demo over websocket-h1").await;
    let mut bob = Terminal::join(&shell, &["demo", "--server", &url, "--name", "Bob"]);
    alice.prints("Bob").await;
    bob.types("still there?").await;
    alice.prints(": still there?").await;
    signal(&bob.child, "INT").await;
    bob.prints("left").await;
    assert_eq!(bob.ended().await.0, Some(0));
    alice.prints("left (left)").await;
}

/// Keys, a token made with them, a server that asks for it, and a peer that shows it.
#[tokio::test]
async fn keys_and_tokens_are_made_and_serve() {
    let shell = Shell::new();
    let text = |output: Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for (algorithm, private) in
        [("EdDSA", "token-signing.pem"), ("es256", "token-signing.pem"), ("HS256", "token-secret.json")]
    {
        let dir = algorithm;
        let said = text(shell.run(&["keys", "--algorithm", algorithm, "--out", dir]).await);
        let private = format!("{dir}/{private}");
        assert!(said.contains(&private), "{said}");
        let line = said.lines().find(|line| line.starts_with("wigwag serve")).expect("how to go on");
        let keys = line.rsplit(' ').next().expect("not empty").to_owned();
        let token = text(shell.run(&["token", "--key", &private, "--room", "de*", "--user", "alice"]).await);
        let file = shell.write("token.txt", &token);
        let mut inspect = shell.command(&["token", "--inspect", "--keys", &keys]);
        inspect.stdin(fs::File::open(&file).expect("there"));
        let shown: Value = serde_json::from_str(&text(inspect.output().await.expect("it runs"))).expect("JSON");
        assert_eq!(shown["verdict"], "valid for room dex", "{shown}");
        assert_eq!(shown["claims"]["sub"], "alice");
        contains(
            &shell.refused(&["keys", "--algorithm", algorithm, "--out", dir]).await,
            &["is there already", "--out"],
        );
    }
    let rsa = include_str!("tokens/rsa.pem");
    let path = shell.write("rsa.pem", rsa);
    contains(&shell.refused(&["keys", "--from", &path]).await, &["open to every user", "chmod 600"]);
    let published = shell.run(&["keys", "--from", "EdDSA/token-signing.pem"]).await;
    assert_eq!(text(published), fs::read_to_string(shell.dir.path().join("EdDSA/token-keys.json")).expect("there"));
    contains(&shell.refused(&["keys", "--algorithm", "RS256"]).await, &["openssl genrsa"]);
    contains(&shell.refused(&["token", "--key", &path]).await, &["--room"]);
    contains(&shell.refused(&["token", "--inspect"]).await, &["no JSON Web Token"]);
}

#[tokio::test]
async fn a_guest_waits_until_a_moderator_admits_it_and_the_exit_code_says_if_not() {
    let shell = Shell::new();
    let made = |output: Output| String::from_utf8(output.stdout).expect("UTF-8");
    shell.run(&["keys", "--out", "keys"]).await;
    let token = ["token", "--key", "keys/token-signing.pem", "--room", "demo"];
    let guest = made(shell.run(&[&token[..], &["--grant", "message", "--uses", "2"]].concat()).await);
    shell.write("guest.txt", &guest);
    let moderator = made(shell.run(&[&token[..], &["--grant", "join,message,moderate"]].concat()).await);
    let keys = ["--token-keys", "keys/token-keys.json", "--invite-key", "keys/token-signing.pem"];
    let listen = ["--listen", "127.0.0.1:0", "--plain", "127.0.0.1:0", "--admin", "off", "--drain", "100ms"];
    let (_server, line) = shell.serve(&[&listen[..], &keys].concat(), "unencrypted").await;
    let url = format!("http://{}", line.rsplit(' ').next().expect("an address"));

    let mut alice = Terminal::join(&shell, &["demo", "--server", &url, "--token", moderator.trim()]);
    alice.prints("joined demo").await;
    let come = ["demo", "--server", &url, "--token-file", "guest.txt", "--name", "Gina"];
    let mut gina = Terminal::join(&shell, &come);
    gina.types("hello").await;
    drop(gina.typed.take());
    gina.prints("waiting to be admitted").await;
    let admit = |knock: &str| knock[knock.find('{').expect("how to")..=knock.find('}').expect("how to")].to_owned();
    let knock = alice.prints("Gina").await;
    alice.types(&admit(&knock)).await;
    gina.prints("joined demo").await;
    alice.prints(": hello").await;
    assert_eq!(gina.ended().await.0, Some(0));

    let mut gina = Terminal::join(&shell, &come);
    gina.prints("waiting to be admitted").await;
    let knock = alice.prints("waits to be admitted").await;
    alice.types(&admit(&knock).replace("admit", "refuse")).await;
    let (code, said) = gina.ended().await;
    assert_eq!(code, Some(3), "{said}");
    contains(&said, &["forbidden", "did not admit"]);
    let (code, said) = Terminal::join(&shell, &come).ended().await;
    assert_eq!(code, Some(3), "{said}");
    contains(&said, &["invitation has been used"]);

    alice.types(r#"{"type":"invite","uses":1,"grants":["join"]}"#).await;
    let invitation = alice.prints("an invitation, good for 3600 s").await;
    let invitation = invitation.rsplit(' ').next().expect("a token");
    Terminal::join(&shell, &["demo", "--server", &url, "--token", invitation]).prints("joined demo").await;

    let link = made(shell.run(&[&token[..], &["--link", "https://signal.example.org"]].concat()).await);
    assert!(link.starts_with("https://signal.example.org/?room=demo#token=ey"), "{link}");
    let nowhere = ["token", "--key", "keys/token-signing.pem", "--room", "de*", "--link", "https://signal.example.org"];
    contains(&shell.refused(&nowhere).await, &["--link leads into one room"]);
    contains(&shell.refused(&["--waiting-room", "everyone"]).await, &["--waiting-room", "--token-keys"]);
    contains(&shell.refused(&["--invite-key", "x.pem"]).await, &["--invite-key", "--token-keys"]);
}

#[tokio::test]
async fn keys_and_secrets_that_cannot_be_used_are_refused_at_the_start() {
    let shell = Shell::new();
    let with = |keys: &str| {
        [&["serve", "--token-keys", keys][..], &FREE].concat().iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()
    };
    contains(&shell.refused(&with("missing.json")).await, &["missing.json", "wigwag keys"]);
    contains(&shell.refused(&with("http://id.example.org/")).await, &["https only"]);
    contains(&shell.refused(&with("env:NOT_SET_ANYWHERE")).await, &["NOT_SET_ANYWHERE is not set"]);
    for (content, why) in [
        ("nonsense", "write a JSON Web Key"),
        (r#"{"keys":[]}"#, "there is none"),
        (r#"{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}"#, "at least 32 bytes"),
        (include_str!("tokens/rsa.pem"), "private key"),
    ] {
        let file = shell.write("keys.json", content);
        contains(&shell.refused(&with(&file)).await, &["keys.json", why]);
    }
    let secret = shell.write("secret.json", r#"{"kty":"oct","k":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"}"#);
    contains(&shell.refused(&with(&secret)).await, &["open to every user", "chmod 600"]);
    contains(&shell.refused(&["--ice-server", "turn:a.example"]).await, &["--turn-secret"]);
    contains(&shell.refused(&["--ice-server", "turn://a.example"]).await, &["write stun:HOST"]);
    contains(&shell.refused(&["--turn-secret", "x"]).await, &["turn:HOST"]);
    let unset = ["--ice-server", "turn:a.example", "--turn-secret", "env:NOT_SET_ANYWHERE"];
    contains(&shell.refused(&[&unset[..], &FREE].concat()).await, &["NOT_SET_ANYWHERE", "static-auth-secret"]);
    contains(&shell.refused(&["--token-issuer", "x"]).await, &["--token-keys"]);
    contains(&shell.refused(&["--token-keys", &secret, "--open"]).await, &["give one of them"]);
    contains(&shell.refused(&["--token-keys", &secret, "--token-keys-private"]).await, &["keys at a URL"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn each_round_of_idle_sessions_has_a_server_of_its_own() {
    let shell = Shell::new();
    let line = [
        "bench",
        "idle",
        "--via",
        "websocket-h1",
        "--rounds",
        "3",
        "--time",
        "50ms",
        "--clients",
        "100",
        "--json",
        "-",
    ];
    let output = shell.run(&line).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // Two servers of three have nothing to take again if they are one.
    assert!(report["results"][0]["memoryKib"].as_f64() > Some(5.0), "{report}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn load_that_is_ended_leaves_nothing_behind() {
    let shell = Shell::new();
    let line = ["bench", "relay", "--via", "websocket-h1", "--time", "60s", "--rounds", "1"];
    let mut bench = shell.command(&line).env("TMPDIR", shell.dir.path()).spawn().expect("it runs");
    let id = bench.id().expect("it runs");
    let servers = || fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("Linux");
    let keys = || fs::read_dir(shell.dir.path()).expect("readable").count();
    let looked = async {
        while servers().is_empty() || keys() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, looked).await.expect("it starts a server");
    let server = servers();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(id.cast_signed()).expect("an id"),
        rustix::process::Signal::TERM,
    )
    .expect("it runs");
    assert_eq!(timeout(PATIENCE, bench.wait()).await.expect("it ends").expect("it ran").code(), Some(1));
    assert!(!fs::exists(format!("/proc/{}", server.trim())).expect("readable"), "the server runs on");
    assert_eq!(keys(), 0, "keys are left");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn load_is_put_on_a_server_of_its_own_and_compared() {
    let shell = Shell::new();
    let line = ["bench", "relay", "setup", "resume", "--via", "webtransport,websocket-h1", "--rounds", "1"];
    let small = ["--time", "50ms", "--clients", "8", "--json", "run.json"];
    let output = shell.run(&[&line[..], &small].concat()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value =
        serde_json::from_slice(&fs::read(shell.dir.path().join("run.json")).expect("written")).expect("JSON");
    let results = report["results"].as_array().expect("an array");
    assert_eq!(results.len(), 6, "{report}");
    for line in results {
        assert!(line["cpuMicros"].as_f64() > Some(0.0) && line["latency"]["max"].as_f64() > Some(0.0), "{line}");
    }
    let again = ["--time", "50ms", "--clients", "8", "--vs", "run.json"];
    let output = shell.run(&[&line[..], &again].concat()).await;
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(table.lines().filter(|line| line.ends_with(" %")).count(), 6, "{table}");
    contains(&shell.refused(&["bench", "--vs", "missing.json"]).await, &["--vs missing.json"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_nodes_are_measured_beside_one_and_beside_nats_alone() {
    let shell = Shell::new();
    let line = ["bench", "cluster", "--via", "websocket-h1", "--rounds", "1", "--time", "50ms"];
    let output = shell.run(&[&line[..], &["--json", "-"]].concat()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let results = report["results"].as_array().expect("an array");
    let names: Vec<_> = results.iter().map(|line| line["workload"].as_str().expect("a name")).collect();
    assert_eq!(names, ["nats-request", "one-node", "two-nodes", "two-nodes-ok", "durable-ok"]);
    for line in &results[2..] {
        let shares = line["shares"].as_array().expect("an array");
        assert_eq!(shares.len(), 3, "{report}");
        assert!(shares.iter().all(|share| share["cpuMicros"].as_f64() > Some(0.0)), "{report}");
    }
    contains(
        &shell.refused(&["bench", "cluster", "--server", "https://localhost", "--process", "1"]).await,
        &["leave --server out"],
    );
    let nowhere = shell.run(&[&line[..], &["--nats", "nats://127.0.0.1:1"]].concat()).await;
    contains(&String::from_utf8_lossy(&nowhere.stderr), &["cannot connect to nats://127.0.0.1:1"]);
}
