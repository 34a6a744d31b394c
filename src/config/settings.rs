//! What was typed: on the command line, in the environment, in a file.
#![allow(rustdoc::broken_intra_doc_links, reason = "the help texts are doc comments, and `[::1]` is an address")]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use serde::{Deserialize, Serialize};
use toml::Table;

use super::file::{self, File};
use super::units::{Address, CandidateKind, HeaderName, Listen, Network, Rate, Size, Span, one_or_many};
use crate::error::StartError;
use crate::protocol::Newcomers;

/// Everything that can be set. A setting has one name: the flag `--max-frame` is `WIGWAG_MAX_FRAME` in the environment and
/// `max-frame` in the file. What is set nowhere is `None`; [`Settings::resolve`] knows the defaults.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[group(skip)]
pub struct Settings {
    /// Listen here for QUIC (UDP) and TLS (TCP); may be given again [default: 127.0.0.1:4433,[::1]:4433]
    #[arg(long, env = "WIGWAG_LISTEN", value_name = "ADDRESS:PORT", value_delimiter = ',', help_heading = LISTENING)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub listen: Option<Vec<Address>>,

    /// Listen here for unencrypted HTTP/1.1, or off; may be given again [default: 127.0.0.1:8080,[::1]:8080]
    #[arg(long, env = "WIGWAG_PLAIN", value_name = "ADDRESS:PORT|off", value_delimiter = ',', help_heading = LISTENING)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub plain: Option<Vec<Listen>>,

    /// Serve health, metrics, and the page and API for operators here, or off [default: 127.0.0.1:9433]
    #[arg(long, env = "WIGWAG_ADMIN", value_name = "ADDRESS:PORT|off", help_heading = LISTENING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<Listen>,

    /// Ask for this token, as Authorization: Bearer, before telling metrics or anything of rooms; health needs none
    #[arg(long, env = "WIGWAG_ADMIN_TOKEN", value_name = "FILE|env:VARIABLE", help_heading = LISTENING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token: Option<String>,

    /// Tell operators clients' whole addresses, and not only whether they are public or private
    #[arg(long, env = "WIGWAG_ADMIN_ADDRESSES", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = LISTENING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_addresses: Option<bool>,

    /// Switch HTTP/3 and WebTransport off
    #[arg(long, env = "WIGWAG_NO_H3", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = LISTENING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_h3: Option<bool>,

    /// Switch HTTP/2 off; HTTP/1.1 stays
    #[arg(long, env = "WIGWAG_NO_H2", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = LISTENING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_h2: Option<bool>,

    /// Take TLS 1.2 as well as 1.3, for clients and proxies that know nothing newer; it costs them one round trip more
    #[arg(long, env = "WIGWAG_TLS12", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = LISTENING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls12: Option<bool>,

    /// Let pages of this origin in, beside the server's own; may be given again
    #[arg(long, env = "WIGWAG_ORIGIN", value_name = "https://HOST", value_delimiter = ',', help_heading = LISTENING)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub origin: Option<Vec<String>>,

    /// Serve the page and files of this directory in place of the page that is built in; wigwag.js and call.js stay
    #[arg(long, env = "WIGWAG_WEB", value_name = "DIR", value_parser = path, help_heading = LISTENING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web: Option<PathBuf>,

    /// Ask for tokens signed by these keys: a JSON Web Key set or a public key in PEM, in a file, in a variable, or at a URL
    #[arg(long, env = "WIGWAG_TOKEN_KEYS", value_name = "FILE|env:VARIABLE|https://URL", help_heading = TOKENS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_keys: Option<String>,

    /// Tokens must be of this issuer (iss)
    #[arg(long, env = "WIGWAG_TOKEN_ISSUER", value_name = "TEXT", help_heading = TOKENS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_issuer: Option<String>,

    /// Tokens must be for this audience (aud)
    #[arg(long, env = "WIGWAG_TOKEN_AUDIENCE", value_name = "TEXT", help_heading = TOKENS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_audience: Option<String>,

    /// Trust this CA, PEM, for the URL of --token-keys, beside the system's
    #[arg(long, env = "WIGWAG_TOKEN_KEYS_CA", value_name = "FILE", value_parser = path, help_heading = TOKENS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_keys_ca: Option<PathBuf>,

    /// Let the URL of --token-keys be at a private address
    #[arg(long, env = "WIGWAG_TOKEN_KEYS_PRIVATE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = TOKENS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_keys_private: Option<bool>,

    /// Let moderators make invitations, signed with this private key, whose public half is among --token-keys
    #[arg(long, env = "WIGWAG_INVITE_KEY", value_name = "FILE", value_parser = path, help_heading = TOKENS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite_key: Option<PathBuf>,

    /// Who waits until a moderator admits them: guests, whose token is without the join grant, or everyone who does not
    /// moderate [default: guests]
    #[arg(long, env = "WIGWAG_WAITING_ROOM", value_name = "off|guests|everyone", help_heading = TOKENS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_room: Option<Newcomers>,

    /// How many may wait at once, for each room; fewer where a queue has no room to tell a moderator of all of them [default: 32]
    #[arg(long, env = "WIGWAG_MAX_WAITING", value_name = "N", help_heading = TOKENS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<u64>,

    /// Turn away whom nobody has admitted within this time [default: 10m]
    #[arg(long, env = "WIGWAG_WAITING_TIME", value_name = "TIME", help_heading = TOKENS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_time: Option<Span>,

    /// Tell clients of this STUN or TURN server; may be given again
    #[arg(long, env = "WIGWAG_ICE_SERVER", value_name = "stun:HOST|turn:HOST", value_delimiter = ',', help_heading = ICE)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub ice_server: Option<Vec<String>>,

    /// Make TURN credentials with this secret, which the TURN servers know too (coturn: static-auth-secret)
    #[arg(long, env = "WIGWAG_TURN_SECRET", value_name = "FILE|env:VARIABLE", help_heading = ICE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_secret: Option<String>,

    /// TURN credentials are good for this long, and renewed before [default: 1h]
    #[arg(long, env = "WIGWAG_TURN_LIFETIME", value_name = "TIME", help_heading = ICE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_lifetime: Option<Span>,

    /// Relay session descriptions and candidates without looking whether they are well-formed
    #[arg(long, env = "WIGWAG_NO_VALIDATION", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = ICE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_validation: Option<bool>,

    /// Leave out candidates with private addresses, or with multicast DNS names; may be given again
    #[arg(long, env = "WIGWAG_DROP_CANDIDATES", value_name = "private|mdns", value_delimiter = ',', help_heading = ICE)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub drop_candidates: Option<Vec<CandidateKind>>,

    /// Certificate chain, PEM, the server's own first; read again when it changes
    #[arg(long, env = "WIGWAG_CERT", value_name = "FILE", value_parser = path, help_heading = CERTIFICATES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,

    /// Private key of the certificate, PEM, readable by its owner only
    #[arg(long, env = "WIGWAG_KEY", value_name = "FILE", value_parser = path, help_heading = CERTIFICATES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,

    /// Where development certificates are kept when there is no --cert; made if missing [default: certs]
    #[arg(long, env = "WIGWAG_CERTS_DIR", value_name = "DIR", value_parser = path, help_heading = CERTIFICATES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certs_dir: Option<PathBuf>,

    /// One more name or address of this server; development certificates always have localhost, 127.0.0.1 and ::1
    #[arg(long, env = "WIGWAG_NAME", value_name = "HOST", value_delimiter = ',', help_heading = CERTIFICATES)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub name: Option<Vec<String>>,

    /// Get a certificate for this name by ACME, which asks it at port 443 (TLS-ALPN-01), and renew it; may be given again
    #[arg(long, env = "WIGWAG_ACME_DOMAIN", value_name = "NAME", value_delimiter = ',', help_heading = CERTIFICATES)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub acme_domain: Option<Vec<String>>,

    /// Agree to the terms of service of the authority that --acme-directory names, without which it issues nothing
    #[arg(long, env = "WIGWAG_ACME_AGREE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = CERTIFICATES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_agree: Option<bool>,

    /// Where the authority may reach the operator; may be given again
    #[arg(long, env = "WIGWAG_ACME_CONTACT", value_name = "mailto:ADDRESS", value_delimiter = ',', help_heading = CERTIFICATES)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub acme_contact: Option<Vec<String>>,

    #[allow(rustdoc::bare_urls, reason = "the example of the settings shows it as it is")]
    /// The directory of the authority [default: https://acme-v02.api.letsencrypt.org/directory]
    #[arg(long, env = "WIGWAG_ACME_DIRECTORY", value_name = "https://URL", help_heading = CERTIFICATES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_directory: Option<String>,

    /// Trust this CA, PEM, for the URL of --acme-directory, beside the system's
    #[arg(long, env = "WIGWAG_ACME_CA", value_name = "FILE", value_parser = path, help_heading = CERTIFICATES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_ca: Option<PathBuf>,

    /// Where the account and the certificate are kept; made if missing [default: acme]
    #[arg(long, env = "WIGWAG_ACME_DIR", value_name = "DIR", value_parser = path, help_heading = CERTIFICATES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_dir: Option<PathBuf>,

    /// Be reachable from other machines although anyone may then enter any room
    #[arg(long, env = "WIGWAG_OPEN", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = BEYOND)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,

    /// Show development certificates to other machines, which do not trust them
    #[arg(long, env = "WIGWAG_DEV_CERTS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = BEYOND)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev_certs: Option<bool>,

    /// Serve --plain to other machines, for a proxy that ends TLS in front; by itself it is no secure context, and browsers
    /// give its pages neither camera nor WebTransport
    #[arg(long, env = "WIGWAG_PLAIN_BEHIND_PROXY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = BEYOND)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_behind_proxy: Option<bool>,

    /// Serve --admin to other machines without --admin-token: whoever reaches it may read it, remove peers and stop the server
    #[arg(long, env = "WIGWAG_ADMIN_EXPOSED", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = BEYOND)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_exposed: Option<bool>,

    /// Ping after this silence; a client silent for two heartbeats is away [default: 10s]
    #[arg(long, env = "WIGWAG_HEARTBEAT", value_name = "TIME", help_heading = SESSIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Span>,

    /// Keep the seat of a client that lost its transport for this long [default: 30s]
    #[arg(long, env = "WIGWAG_RESUME_WINDOW", value_name = "TIME", help_heading = SESSIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_window: Option<Span>,

    /// Give sessions this long to move elsewhere when the server stops [default: 10s]
    #[arg(long, env = "WIGWAG_DRAIN", value_name = "TIME", help_heading = SESSIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Span>,

    /// A transport's first message must come within this time [default: 5s]
    #[arg(long, env = "WIGWAG_FIRST_MESSAGE_TIMEOUT", value_name = "TIME", help_heading = SESSIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_message_timeout: Option<Span>,

    /// Members of a room [default: 64]
    #[arg(long, env = "WIGWAG_MAX_PEERS", value_name = "N", help_heading = SESSIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_peers: Option<u64>,

    /// Rooms at once [default: 65536]
    #[arg(long, env = "WIGWAG_MAX_ROOMS", value_name = "N", help_heading = SESSIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rooms: Option<u64>,

    /// Messages a second that a session may send for long [default: 200]
    #[arg(long, env = "WIGWAG_RATE", value_name = "N", help_heading = SESSIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,

    /// Messages that a session may send at once [default: 1000]
    #[arg(long, env = "WIGWAG_BURST", value_name = "N", help_heading = SESSIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,

    /// One line or frame from a client [default: 160KiB]
    #[arg(long, env = "WIGWAG_MAX_FRAME", value_name = "SIZE", help_heading = SIZES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_frame: Option<Size>,

    /// The data of a message [default: 64KiB]
    #[arg(long, env = "WIGWAG_MAX_DATA", value_name = "SIZE", help_heading = SIZES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_data: Option<Size>,

    /// The SDP of a description [default: 128KiB]
    #[arg(long, env = "WIGWAG_MAX_SDP", value_name = "SIZE", help_heading = SIZES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sdp: Option<Size>,

    /// An ICE candidate [default: 4KiB]
    #[arg(long, env = "WIGWAG_MAX_CANDIDATE", value_name = "SIZE", help_heading = SIZES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_candidate: Option<Size>,

    /// A peer's metadata [default: 4KiB]
    #[arg(long, env = "WIGWAG_MAX_METADATA", value_name = "SIZE", help_heading = SIZES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_metadata: Option<Size>,

    /// What may wait for a client that does not read [default: 1MiB]
    #[arg(long, env = "WIGWAG_MAX_QUEUE", value_name = "SIZE", help_heading = SIZES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue: Option<Size>,

    /// How many messages may wait for it [default: 2048]
    #[arg(long, env = "WIGWAG_MAX_QUEUE_MESSAGES", value_name = "N", help_heading = SIZES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue_messages: Option<u64>,

    /// Connections at once, TCP and QUIC together [default: 16384]
    #[arg(long, env = "WIGWAG_MAX_CONNECTIONS", value_name = "N", help_heading = CONNECTIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u64>,

    /// Requests and streams at once on one connection [default: 256]
    #[arg(long, env = "WIGWAG_MAX_STREAMS", value_name = "N", help_heading = CONNECTIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<u64>,

    /// The headers of a request [default: 16KiB]
    #[arg(long, env = "WIGWAG_MAX_HEADERS", value_name = "SIZE", help_heading = CONNECTIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_headers: Option<Size>,

    /// TLS and QUIC handshakes must be done within this time [default: 5s]
    #[arg(long, env = "WIGWAG_HANDSHAKE_TIMEOUT", value_name = "TIME", help_heading = CONNECTIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_timeout: Option<Span>,

    /// The head of a request must be whole within this time [default: 5s]
    #[arg(long, env = "WIGWAG_REQUEST_TIMEOUT", value_name = "TIME", help_heading = CONNECTIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Span>,

    /// Close a connection without requests after this time [default: 1m]
    #[arg(long, env = "WIGWAG_IDLE_TIMEOUT", value_name = "TIME", help_heading = CONNECTIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,

    /// A closing transport has this long for its last words [default: 2s]
    #[arg(long, env = "WIGWAG_CLOSE_TIMEOUT", value_name = "TIME", help_heading = CONNECTIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_timeout: Option<Span>,

    /// Validate QUIC addresses by Retry above this many unfinished handshakes; 0 is always [default: 256]
    #[arg(long, env = "WIGWAG_RETRY_ABOVE", value_name = "N", help_heading = CONNECTIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_above: Option<u64>,

    /// Sessions that may open in a second; the others are told when to come back [default: 1000]
    #[arg(long, env = "WIGWAG_SESSIONS_PER_SECOND", value_name = "N", help_heading = CONNECTIONS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_per_second: Option<u64>,

    /// Believe this proxy, or these, about clients' addresses; may be given again
    #[arg(long, env = "WIGWAG_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',', help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub trusted_proxy: Option<Vec<Network>>,

    /// Where trusted proxies tell the client's address; the other header is the client's own [default: x-forwarded-for]
    #[arg(long, env = "WIGWAG_PROXY_HEADER", value_name = "forwarded|x-forwarded-for", help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_header: Option<HeaderName>,

    /// TCP connections begin with a PROXY protocol header, version 1 or 2, of a trusted proxy; others are closed
    #[arg(long, env = "WIGWAG_PROXY_PROTOCOL", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<bool>,

    /// Do not limit clients of these addresses; may be given again [default: 127.0.0.0/8,::1/128]
    #[arg(long, env = "WIGWAG_EXEMPT_ADDRESS", value_name = "CIDR", value_delimiter = ',', help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub exempt_address: Option<Vec<Network>>,

    /// Connections that an address (of IPv6 a /64) may open in a time, at once or spread [default: 2000/10s]
    #[arg(long, env = "WIGWAG_ADDRESS_CONNECTIONS", value_name = "N/TIME", help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_connections: Option<Rate>,

    /// Sessions that it may open, or move to another transport [default: 2000/10s]
    #[arg(long, env = "WIGWAG_ADDRESS_JOINS", value_name = "N/TIME", help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_joins: Option<Rate>,

    /// Bad tokens and tickets that it may show [default: 3000/1m]
    #[arg(long, env = "WIGWAG_ADDRESS_FAILURES", value_name = "N/TIME", help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_failures: Option<Rate>,

    /// Messages that all its sessions together may send [default: 50000/10s]
    #[arg(long, env = "WIGWAG_ADDRESS_MESSAGES", value_name = "N/TIME", help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_messages: Option<Rate>,

    /// Bytes that its messages may have [default: 128MiB/10s]
    #[arg(long, env = "WIGWAG_ADDRESS_BYTES", value_name = "SIZE/TIME", help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_bytes: Option<Rate>,

    /// Connections that it may have open [default: 4096]
    #[arg(long, env = "WIGWAG_MAX_ADDRESS_CONNECTIONS", value_name = "N", help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_address_connections: Option<u64>,

    /// Sessions that it may have open [default: 4096]
    #[arg(long, env = "WIGWAG_MAX_ADDRESS_SESSIONS", value_name = "N", help_heading = CLIENTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_address_sessions: Option<u64>,

    /// Be a node of a cluster: share rooms with the other nodes that this NATS server connects; may be given again
    #[arg(long, env = "WIGWAG_CLUSTER", value_name = "nats://HOST|tls://HOST", value_delimiter = ',', help_heading = CLUSTER)]
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub cluster: Option<Vec<String>>,

    /// Tell clusters apart that use the same NATS servers [default: wigwag]
    #[arg(long, env = "WIGWAG_CLUSTER_NAME", value_name = "NAME", help_heading = CLUSTER)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,

    /// Connect to NATS as the user of this credentials file, readable by its owner only
    #[arg(long, env = "WIGWAG_CLUSTER_CREDENTIALS", value_name = "FILE", value_parser = path, help_heading = CLUSTER)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_credentials: Option<PathBuf>,

    /// Trust this CA, PEM, for tls:// in --cluster, beside the system's
    #[arg(long, env = "WIGWAG_CLUSTER_CA", value_name = "FILE", value_parser = path, help_heading = CLUSTER)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_ca: Option<PathBuf>,

    /// Tell a sender that a peer cannot be reached when its node has not answered for this long [default: 5s]
    #[arg(long, env = "WIGWAG_CLUSTER_TIMEOUT", value_name = "TIME", help_heading = CLUSTER)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_timeout: Option<Span>,

    /// Let sessions go on at any node: 32 random characters or more, the same at all nodes, in a file or env:VARIABLE
    #[arg(long, env = "WIGWAG_CLUSTER_KEY", value_name = "FILE|env:VARIABLE", help_heading = CLUSTER)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_key: Option<String>,

    /// Let sessions outlive a node that is lost: keep them, and what is said to one peer alone, in JetStream of the same NATS; needs
    /// --cluster-key
    #[arg(long, env = "WIGWAG_CLUSTER_DURABLE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = CLUSTER)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_durable: Option<bool>,

    /// Keep them at so many servers of NATS [default: 1]
    #[arg(long, env = "WIGWAG_CLUSTER_REPLICAS", value_name = "N", help_heading = CLUSTER)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_replicas: Option<u64>,

    /// Bytes of all that is kept in JetStream; beyond, senders are told that the peer's queue is full [default: 1GiB]
    #[arg(long, env = "WIGWAG_CLUSTER_STORE", value_name = "SIZE", help_heading = CLUSTER)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_store: Option<Size>,

    /// Record so many events of each room (who came and went, which offers, answers and candidates went where), for `wigwag why`
    /// and the admin page; 0 records nothing [default: 512]
    #[arg(long, env = "WIGWAG_TIMELINE_EVENTS", value_name = "N", help_heading = TIMELINES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline_events: Option<u64>,

    /// All of that together takes no more than this; rooms that ended first are forgotten first [default: 64MiB]
    #[arg(long, env = "WIGWAG_TIMELINE_MEMORY", value_name = "SIZE", help_heading = TIMELINES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline_memory: Option<Size>,

    /// Keep that of a room for so long after it has ended [default: 15m]
    #[arg(long, env = "WIGWAG_TIMELINE_KEEP", value_name = "TIME", help_heading = TIMELINES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline_keep: Option<Span>,

    /// POST what happens in rooms (opened, ended; peers joined, away, back, left) to this URL of the application's, as JSON
    #[arg(long, env = "WIGWAG_WEBHOOK", value_name = "https://URL", help_heading = WEBHOOK)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,

    /// Sign what is posted with this secret, which the application knows too
    #[arg(long, env = "WIGWAG_WEBHOOK_SECRET", value_name = "FILE|env:VARIABLE", help_heading = WEBHOOK)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<String>,

    /// Events that wait while the application is slow or away; what is too much it is told the number of [default: 10000]
    #[arg(long, env = "WIGWAG_WEBHOOK_QUEUE", value_name = "N", help_heading = WEBHOOK)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_queue: Option<u64>,

    /// Trust this CA, PEM, for the URL of --webhook, beside the system's
    #[arg(long, env = "WIGWAG_WEBHOOK_CA", value_name = "FILE", value_parser = path, help_heading = WEBHOOK)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_ca: Option<PathBuf>,

    /// Send traces to this OpenTelemetry collector (OTLP over HTTP; /v1/traces is added): how sessions came about, and what became of
    /// descriptions; needs a program that was built with --features otlp
    #[arg(long, env = "WIGWAG_OTLP_ENDPOINT", value_name = "http://HOST|https://HOST", help_heading = TRACES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,

    /// Show the collector these headers, a list like authorization=Bearer%20…,x-tenant=one
    #[arg(long, env = "WIGWAG_OTLP_HEADERS", value_name = "FILE|env:VARIABLE", help_heading = TRACES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_headers: Option<String>,

    /// Trust this CA, PEM, for the URL of --otlp-endpoint, beside the system's
    #[arg(long, env = "WIGWAG_OTLP_CA", value_name = "FILE", value_parser = path, help_heading = TRACES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_ca: Option<PathBuf>,

    /// Record one trace in so many, 1 for all; those that a client's traceparent asks for come on top [default: 10]
    #[arg(long, env = "WIGWAG_OTLP_ONE_IN", value_name = "N", help_heading = TRACES)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_one_in: Option<u64>,

    /// What to log, as level or as target=level list; libraries never go below info [default: info]
    #[arg(long, env = "WIGWAG_LOG", value_name = "FILTER", help_heading = LOGS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,

    /// How to log, to standard error [default: text]
    #[arg(long, env = "WIGWAG_LOG_FORMAT", value_name = "text|json", hide_possible_values = true, help_heading = LOGS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

const LISTENING: &str = "Listening";
const TOKENS: &str = "Tokens";
const ICE: &str = "STUN and TURN";
const CERTIFICATES: &str = "Certificates";
const BEYOND: &str = "Beyond this machine";
const SESSIONS: &str = "Sessions";
const SIZES: &str = "Sizes";
const CONNECTIONS: &str = "Connections";
const CLIENTS: &str = "Client addresses";
const CLUSTER: &str = "Cluster";
const TIMELINES: &str = "Timelines of rooms";
const WEBHOOK: &str = "Webhook";
const TRACES: &str = "Traces";
const LOGS: &str = "Logs";

/// What takes effect when the settings are read again, for what begins from then on. All else waits for a restart.
pub const RELOADED: [&str; 13] = [
    "origin",
    "sessions-per-second",
    "trusted-proxy",
    "proxy-header",
    "exempt-address",
    "address-connections",
    "address-joins",
    "address-failures",
    "address-messages",
    "address-bytes",
    "max-address-connections",
    "max-address-sessions",
    "log",
];

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Where each setting came from, so that an error can name what was really typed, and the file can be read again.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    command_line: BTreeSet<String>,
    environment: BTreeSet<String>,
    /// What was set by these two.
    typed: Box<Settings>,
    file: Option<PathBuf>,
    /// As errors call it.
    file_name: String,
    /// The line of each key in it.
    lines: BTreeMap<String, usize>,
}

/// As text: a path in a file could not be anything else, and one name must mean the same everywhere.
fn path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(PathBuf::from(text))
}

impl Settings {
    /// What was typed on the command line, else in the environment, else in `file`.
    ///
    /// # Errors
    /// A file that cannot be read, or with an unknown key or a bad value in it.
    pub fn gather(matches: &ArgMatches, file: Option<&Path>) -> Result<(Settings, Sources), StartError> {
        let typed = Settings::from_arg_matches(matches).map_err(StartError::new)?;
        let mut sources = Sources { typed: Box::new(typed), file: file.map(Path::to_owned), ..Sources::default() };
        for id in matches.ids() {
            match matches.value_source(id.as_str()) {
                Some(ValueSource::CommandLine) => sources.command_line.insert(id.as_str().replace('_', "-")),
                Some(ValueSource::EnvVariable) => sources.environment.insert(id.as_str().replace('_', "-")),
                _ => continue,
            };
        }
        sources.read_again()
    }

    /// Every wrong key and value in the text of a file which is called `name`, in the order of its lines, and then the first two
    /// settings that are at odds. Flags and the environment count for nothing. Returns how many settings it has if nothing is wrong.
    ///
    /// # Errors
    /// At least one mistake.
    pub fn check(name: &str, text: &str) -> Result<usize, Vec<StartError>> {
        let (file, mut mistakes) = File::parse(name, text);
        let sources = Sources { file_name: name.to_owned(), lines: file.lines, ..Sources::default() };
        let resolve = |table: &Table| table.clone().try_into::<Settings>().map_err(StartError::new)?.resolve(&sources);
        let mut sound = Table::new();
        for (key, value) in file.table {
            // A setting by itself may be at odds with a default, which is no mistake yet.
            match resolve(&Table::from_iter([(key.clone(), value.clone())])) {
                Err(mistake) if mistake.setting() == Some(&key) => {
                    mistakes.push((sources.lines.get(&key).copied().unwrap_or_default(), mistake));
                }
                _ => drop(sound.insert(key, value)),
            }
        }
        mistakes.sort_by_key(|(line, _)| *line);
        let mut mistakes: Vec<_> = mistakes.into_iter().map(|(_, mistake)| mistake).collect();
        mistakes.extend(resolve(&sound).err());
        if mistakes.is_empty() { Ok(sound.len()) } else { Err(mistakes) }
    }

    /// The names of the settings that mean something else in `newer`.
    pub fn changes(&self, newer: &Settings) -> Vec<String> {
        let (Ok(old), Ok(new)) = (Table::try_from(self), Table::try_from(newer)) else { return Vec::new() };
        let is_changed =
            |key: &String| old.get(key) != new.get(key) && self.with(key, newer).is_none_or(|with| with.differs(self));
        file::keys().into_iter().filter(is_changed).collect()
    }

    /// These, but one of `newer`; `None` if that cannot be.
    pub fn with(&self, key: &str, newer: &Settings) -> Option<Settings> {
        let mut table = Table::try_from(self).ok()?;
        table.remove(key);
        table.extend(Table::try_from(newer).ok()?.remove_entry(key));
        table.try_into().ok()
    }

    /// Whether the server would do anything in another way. To spell a default out changes nothing.
    fn differs(&self, other: &Settings) -> bool {
        let meant = |settings: &Settings| settings.resolve(&Sources::default()).ok();
        let logs = |settings: &Settings| {
            (settings.log.clone().unwrap_or_else(|| "info".to_owned()), settings.log_format.unwrap_or_default())
        };
        meant(self).is_none() || meant(self) != meant(other) || logs(self) != logs(other)
    }
}

impl Sources {
    /// Reads the file again, if there is one: what was typed goes before it as at the start.
    ///
    /// # Errors
    /// A file that cannot be read, or with an unknown key or a bad value in it: the first of them.
    pub fn read_again(&self) -> Result<(Settings, Sources), StartError> {
        let mut sources = self.clone();
        let Some(path) = &self.file else { return Ok(((*self.typed).clone(), sources)) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| StartError::file("read the settings", path, &error, "check --config"))?;
        sources.file_name = path.display().to_string();
        let (File { mut table, lines }, wrong) = File::parse(&sources.file_name, &text);
        if let Some((_, first)) = wrong.into_iter().next() {
            return Err(first);
        }
        sources.lines = lines;
        // Only what was typed is in `typed`: defaults come last, so that none of them can cover the file.
        table.extend(Table::try_from(&self.typed).map_err(StartError::new)?);
        let settings =
            table.try_into().map_err(|error| StartError::new(format_args!("{}: {error}", path.display())))?;
        Ok((settings, sources))
    }

    /// That the value of `key` cannot be, and why.
    pub fn refuse(&self, key: &str, value: impl Display, why: impl Display) -> StartError {
        match self.line_in_file(key) {
            Some(line) => StartError::new(format_args!("{}:{line}: {key} is {value}: {why}", self.file_name)),
            None => StartError::new(format_args!("{} is {value}: {why}", self.name(key))),
        }
    }

    /// On which line of the file it is set, if what is typed does not go before that.
    fn line_in_file(&self, key: &str) -> Option<usize> {
        let typed = self.command_line.contains(key) || self.environment.contains(key);
        self.lines.get(key).copied().filter(|_| !typed)
    }

    /// The name under which `key` was set: `--max-frame`, `WIGWAG_MAX_FRAME`, or `max-frame in wigwag.toml:3`.
    pub fn name(&self, key: &str) -> String {
        if self.command_line.contains(key) {
            return format!("--{key}");
        }
        if self.environment.contains(key) {
            return format!("WIGWAG_{}", key.to_ascii_uppercase().replace('-', "_"));
        }
        match self.line_in_file(key) {
            Some(line) => format!("{key} in {}:{line}", self.file_name),
            None => format!("--{key}"),
        }
    }
}
