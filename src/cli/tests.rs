use super::*;
use crate::config::Config;

fn parse_line(line: &str) -> Result<Command, End> {
    parse(line.split_whitespace().map(OsString::from))
}

fn served(line: &str) -> Config {
    match parse_line(line).unwrap() {
        Command::Serve(settings, sources) => settings.resolve(&sources).unwrap(),
        other => panic!("{line} does not serve: {other:?}"),
    }
}

fn mistake(line: &str) -> String {
    match parse_line(line) {
        Err(End::Mistake(error)) => error.to_string(),
        other => panic!("{line} is no mistake: {other:?}"),
    }
}

#[test]
fn the_word_serve_may_be_left_out() {
    assert_eq!(served("wigwag"), Config::default());
    assert_eq!(served("wigwag --heartbeat 3s"), served("wigwag serve --heartbeat 3s"));
    assert_ne!(served("wigwag --heartbeat 3s"), Config::default());
    assert!(matches!(parse_line("wigwag --help"), Err(End::Answered(_))));
    assert!(matches!(parse_line("wigwag --version"), Err(End::Answered(_))));
    assert!(matches!(parse_line("wigwag certs --json"), Ok(Command::Certs(_, _, certs::Form::Json))));
}

/// Each default stands in a help text and in `Config::default`: setting it must change nothing.
#[test]
fn the_defaults_that_help_tells_are_the_defaults() {
    let command = command();
    let serve = command.find_subcommand("serve").unwrap();
    let mut told = 0;
    for arg in serve.get_arguments() {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, default)) = help.split_once("[default: ") else { continue };
        let default = default.strip_suffix(']').unwrap();
        let long = arg.get_long().unwrap();
        let without = match long.split_once('-') {
            Some(("cluster", _)) => "wigwag --cluster nats://host",
            Some(("webhook", _)) => "wigwag --webhook https://host --webhook-secret env:X",
            Some(("acme", _)) => "wigwag --acme-domain host --acme-agree",
            _ => "wigwag",
        };
        let line = format!("{without} --{long} {default}");
        assert_eq!(served(&line), served(without), "{line}");
        told += 1;
    }
    assert_eq!(told, 54, "every setting with a default tells it");
}

/// After a change of the settings: `wigwag config example > wigwag.example.toml`.
#[test]
fn the_example_file_tells_every_setting_and_is_valid() {
    let file = include_str!("../../wigwag.example.toml");
    assert!(file == config::example(), "the file is not what `wigwag config example` prints");
    let set: String = file.lines().map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line))).collect();
    let set: String =
        set.lines().filter(|line| !line.starts_with([' ', '#'])).map(|line| format!("{line}\n")).collect();
    let settings: Settings = toml::from_str(&set).unwrap();
    let told = toml::Table::try_from(&settings).unwrap().len();
    assert_eq!(told, command().find_subcommand("serve").unwrap().get_arguments().count() - 1, "all but --config");
    let unset = Settings {
        acme_domain: None,
        acme_contact: None,
        acme_directory: None,
        acme_ca: None,
        acme_dir: None,
        admin_token: None,
        cluster: None,
        cluster_name: None,
        cluster_credentials: None,
        cluster_ca: None,
        cluster_timeout: None,
        cluster_key: None,
        cluster_durable: None,
        cluster_replicas: None,
        cluster_store: None,
        web: None,
        cert: None,
        key: None,
        name: None,
        origin: None,
        token_keys: None,
        token_issuer: None,
        token_audience: None,
        token_keys_ca: None,
        invite_key: None,
        ice_server: None,
        turn_secret: None,
        drop_candidates: None,
        trusted_proxy: None,
        webhook: None,
        webhook_secret: None,
        webhook_queue: None,
        webhook_ca: None,
        otlp_endpoint: None,
        otlp_headers: None,
        otlp_ca: None,
        otlp_one_in: None,
        ..settings
    };
    assert_eq!(unset.resolve(&Sources::default()).unwrap(), Config::default());
}

#[test]
fn every_setting_reads_the_variable_of_its_name() {
    let command = command();
    let with_settings = command.get_subcommands().filter(|command| ["serve", "certs"].contains(&command.get_name()));
    for arg in with_settings.flat_map(clap::Command::get_arguments) {
        let Some(long) = arg.get_long().filter(|long| !["help", "json"].contains(long)) else { continue };
        let variable = format!("WIGWAG_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env(), Some(variable.as_ref()));
    }
    command.debug_assert();
}

#[test]
fn mistakes_are_one_line_that_names_what_was_typed() {
    assert_eq!(
        mistake("wigwag --lisen 127.0.0.1:1"),
        "unexpected argument '--lisen' found; a similar argument exists: '--listen'"
    );
    assert_eq!(
        mistake("wigwag --heartbeat=soon"),
        "invalid value 'soon' for '--heartbeat <TIME>': write a whole number and a unit, like 500ms, 10s, 2m or 1h"
    );
    assert_eq!(
        mistake("wigwag --listen localhost:4433"),
        "invalid value 'localhost:4433' for '--listen <ADDRESS:PORT>': write an IP address and a port, \
         like 127.0.0.1:4433 or [::1]:4433"
    );
    assert_eq!(mistake("wigwag sevre"), "unrecognized subcommand 'sevre'; a similar subcommand exists: 'serve'");
    assert!(mistake("wigwag --cert").starts_with("a value is required for '--cert <FILE>'"));
    assert!(mistake("wigwag --log-format xml").contains("invalid value 'xml'"));
}

mod banner {
    use super::super::banner;
    use crate::config::Protocols;
    use crate::running::Running;

    fn development() -> Running {
        Running {
            listen: vec!["127.0.0.1:4433".parse().unwrap(), "[::1]:4433".parse().unwrap()],
            plain: vec!["127.0.0.1:8080".parse().unwrap()],
            admin: Some("127.0.0.1:9433".parse().unwrap()),
            protocols: Protocols { h3: true, h2: true, tls12: false },
            names: vec!["localhost".into()],
            ca: Some("/var/lib/my certs/ca.pem".into()),
            has_certificate: true,
        }
    }

    #[test]
    fn development_points_at_the_page_that_needs_no_trust() {
        let text = banner(&development());
        assert!(text.contains("http://localhost:8080/"), "{text}");
        for word in [
            "WebTransport",
            "127.0.0.1:4433, [::1]:4433",
            "wigwag certs --certs-dir '/var/lib/my certs'\n",
            "for a phone",
            "http://127.0.0.1:9433/",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let elsewhere = banner(&Running { ca: Some("certs/ca.pem".into()), ..development() });
        let here = std::env::current_dir().unwrap().join("certs");
        assert!(elsewhere.contains(&format!("--certs-dir {}\n", super::super::certs::quoted(&here))), "{elsewhere}");
    }

    #[test]
    fn production_points_at_its_name_and_speaks_of_no_trust() {
        let production = Running {
            listen: vec!["0.0.0.0:443".parse().unwrap()],
            names: vec!["signal.example.org".into()],
            protocols: Protocols { h3: false, h2: true, tls12: false },
            admin: None,
            ca: None,
            ..development()
        };
        let text = banner(&production);
        assert!(text.contains("https://signal.example.org/\n"), "{text}");
        for word in ["WebTransport", "certificates", "phone", "admin"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
        let text = banner(&Running { has_certificate: false, ..production });
        assert!(text.contains("the first is ordered by ACME"), "{text}");
    }
}

#[test]
fn what_is_reloaded_are_settings() {
    let command = command();
    let serve = command.find_subcommand("serve").unwrap();
    for key in crate::config::RELOADED {
        assert!(serve.get_arguments().any(|arg| arg.get_long() == Some(key)), "{key}");
    }
}
