//! `wigwag certs`: what certificates there are, and how to make others trust them.

use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{End, log, print};
use crate::config::{Protocols, Settings, Sources};
use crate::tls::{Certificates, Entry, Role};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people, with instructions.
    Text,
    /// For programs.
    Json,
}

pub(super) fn run(settings: &Settings, sources: &Sources, form: Form) -> Result<(), End> {
    let source = settings.certificate_source(sources)?;
    log::start(settings, sources)?;
    let (certificates, _) = Certificates::load(&source, Protocols { h3: true, h2: true, tls12: false })?;
    let text = match form {
        Form::Text => as_text(&certificates),
        Form::Json => format!("{:#}\n", as_json(&certificates)),
    };
    print(&text)
}

fn as_json(certificates: &Certificates) -> Value {
    let entries: Vec<_> = certificates.entries().iter().map(entry_as_json).collect();
    json!({
        "development": certificates.is_development(),
        "names": certificates.names(),
        "ca": certificates.ca_path(),
        "certificates": entries,
    })
}

fn entry_as_json(entry: &Entry) -> Value {
    json!({
        "role": match entry.role {
            Role::Server => "server",
            Role::DevelopmentCa => "ca",
            Role::DevelopmentTls => "tls",
            Role::WebTransport => "webtransport",
            Role::WebTransportNext => "webtransport-next",
        },
        "path": entry.path,
        "subject": entry.facts.subject,
        "names": entry.facts.names,
        "notBefore": date(entry.facts.not_before),
        "notAfter": date(entry.facts.not_after),
        "sha256": hex(&entry.sha256),
        "sha256Base64": STANDARD.encode(entry.sha256),
    })
}

fn as_text(certificates: &Certificates) -> String {
    let mut text = String::new();
    for entry in certificates.entries() {
        write_entry(&mut text, entry).expect("a String takes everything");
    }
    match certificates.ca_path() {
        Some(ca) => text.push_str(&how_to_trust(&std::path::absolute(ca).unwrap_or(ca.to_owned()))),
        None if certificates.entries().is_empty() => {
            text.push_str("There is none yet: the server orders it by ACME when it runs.\n");
        }
        None if certificates.challenges().is_some() => {
            text.push_str("It serves TCP and QUIC alike, and the server orders the next by ACME in time.\n");
        }
        None => text.push_str("These serve TCP and QUIC alike, and are read again when the files change.\n"),
    }
    text
}

fn write_entry(text: &mut String, entry: &Entry) -> std::fmt::Result {
    let role = match entry.role {
        Role::Server => "TLS and QUIC",
        Role::DevelopmentCa => "development CA, the one to trust",
        Role::DevelopmentTls => "TLS, signed by the CA",
        Role::WebTransport => "QUIC now, accepted by its hash",
        Role::WebTransportNext => "QUIC next, announced already",
    };
    let facts = &entry.facts;
    writeln!(text, "{} ({role})", entry.path.display())?;
    writeln!(text, "  subject  {}", facts.subject)?;
    if !facts.names.is_empty() {
        let names: Vec<_> = facts.names.iter().map(String::as_str).collect();
        writeln!(text, "  names    {}", names.join(", "))?;
    }
    writeln!(text, "  valid    {} to {}", date(facts.not_before), date(facts.not_after))?;
    writeln!(text, "  sha-256  {}", hex(&entry.sha256))?;
    writeln!(text, "           {}\n", STANDARD.encode(entry.sha256))
}

/// Commands that can be pasted.
fn how_to_trust(ca: &Path) -> String {
    let ca = quoted(ca);
    format!(
        "\
No trust is needed for http://localhost or for WebTransport, whose certificate browsers accept by its hash.
For https:// without a warning, trust the CA. It can sign for private names and networks, and for what --name asked, only.

  Chrome, Chromium on Linux (package libnss3-tools or nss-tools)
    mkdir -p ~/.pki/nssdb && certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n wigwag -i {ca}
  Firefox
    Settings > Privacy & Security > View Certificates > Authorities > Import, \"identify websites\"; or with PROFILE from
    about:profiles: certutil -d sql:PROFILE -A -t C,, -n wigwag -i {ca}
  Debian, Ubuntu
    sudo cp {ca} /usr/local/share/ca-certificates/wigwag.crt && sudo update-ca-certificates
  Fedora, RHEL
    sudo cp {ca} /etc/pki/ca-trust/source/anchors/wigwag.pem && sudo update-ca-trust
  macOS (Safari, Chrome)
    sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {ca}
  Windows (Edge, Chrome), as administrator
    certutil -addstore -f Root {ca}
  curl, Node.js
    curl --cacert {ca} https://localhost:4433/v1/discovery
    NODE_EXTRA_CA_CERTS={ca} node client.js
"
    )
}

/// For a shell, where the path needs it.
pub(super) fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    match path.chars().all(|c| c.is_alphanumeric() || "/._-:\\".contains(c)) {
        true => path,
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

fn date(date: OffsetDateTime) -> String {
    date.format(&Rfc3339).expect("a certificate's years have four digits")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}
