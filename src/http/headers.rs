//! Header fields of every response: what a page of ours may do, who may use the answer, and where HTTP/3 is.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALT_SVC, CONTENT_SECURITY_POLICY, DATE, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue};

use super::Advertised;
use crate::origin::origin_of;
use crate::transport::{HttpVersion, Via};

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// Calls need these three; nothing else is asked of the browser, and embedded frames get none.
const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self)";

/// How long a browser may remember that HTTP/3 is there, in seconds.
const ALT_SVC_AGE: u32 = 86_400;

/// For a year from each answer on, this host is asked over TLS only (RFC 6797). Subdomains are not ours to speak for.
const STRICT_TRANSPORT: &str = "max-age=31536000";

/// The fields, made once.
#[derive(Debug, Clone)]
pub(super) struct Headers {
    advertised: Arc<Advertised>,
    policy: HeaderValue,
    plain_policy: HeaderValue,
    alt_svc: HeaderValue,
}

impl Headers {
    pub(super) fn new(advertised: Arc<Advertised>) -> Self {
        let alt_svc = format!("h3=\":{}\"; ma={ALT_SVC_AGE}", advertised.port);
        Headers {
            policy: policy(&advertised, None),
            plain_policy: policy(&advertised, advertised.plain_port),
            alt_svc: HeaderValue::try_from(alt_svc).expect("digits are a header value"),
            advertised,
        }
    }

    /// HTTP/3 is offered where a browser could take it up: not while QUIC's certificate is one that only WebTransport
    /// accepts, by its hash; a browser would try, fail and remember.
    fn offers_http3(&self, via: Via) -> bool {
        via.encrypted && via.version != HttpVersion::H3 && self.advertised.quic && *self.advertised.verifiable.borrow()
    }

    /// Never with certificates of our own making: a browser that keeps to it lets nobody past a certificate that it does not
    /// trust, and keeps other servers of this host from plaintext.
    fn insists_on_tls(&self, via: Via) -> bool {
        via.encrypted && self.advertised.hashes.borrow().is_empty()
    }
}

/// A page may load from its own origin only, and connect to what discovery names.
///
/// IPv6 addresses cannot be written in a policy (CSP 3, 2.3.1): a page opened by one has no other origin than its own.
fn policy(advertised: &Advertised, plain_port: Option<u16>) -> HeaderValue {
    let mut connect = String::from("'self'");
    for name in advertised.names.iter().filter(|name| !name.contains(':')) {
        for (scheme, port) in [("https", Some(advertised.port)), ("wss", Some(advertised.port)), ("ws", plain_port)] {
            if let Some(port) = port {
                let _ = write!(connect, " {}", origin_of(scheme, name, port));
            }
        }
    }
    let policy = format!(
        "default-src 'self'; connect-src {connect}; img-src 'self' data: blob:; media-src 'self' blob: mediastream:; \
         object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("names of certificates are ASCII")
}

/// Adds the fields to a response.
pub(super) async fn add(
    State(headers): State<Headers>,
    Extension(via): Extension<Via>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let mut response = next.run(request).await;
    let taken = begun.elapsed();
    let fields = response.headers_mut();
    let policy = if via.encrypted { &headers.policy } else { &headers.plain_policy };
    fields.insert(CONTENT_SECURITY_POLICY, policy.clone());
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    fields.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    fields.insert(PERMISSIONS_POLICY, HeaderValue::from_static(PERMISSIONS));
    // Whoever may read an answer may use it as well.
    let anybody = fields.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|origin| origin == "*");
    fields.insert(RESOURCE_POLICY, HeaderValue::from_static(if anybody { "cross-origin" } else { "same-origin" }));
    fields.insert(SERVER_TIMING, server_timing(taken));
    if headers.insists_on_tls(via) {
        fields.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(STRICT_TRANSPORT));
    }
    if headers.offers_http3(via) {
        fields.insert(ALT_SVC, headers.alt_svc.clone());
    }
    // RFC 9110, 6.6.1; only HTTP/1.1's library adds it by itself.
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        fields.insert(DATE, date);
    }
    response
}

/// How long the answer took to make, in milliseconds, for the browser's developer tools (Server Timing, 3).
fn server_timing(taken: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("app;dur={:.3}", taken.as_secs_f64() * 1000.0)).expect("digits are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::watch;

    fn headers(hashes: Vec<[u8; 32]>, verifiable: bool, quic: bool) -> Headers {
        let names = vec!["localhost".into(), "::1".into()];
        let (hashes, verifiable) = (watch::channel(hashes).1, watch::channel(verifiable).1);
        Headers::new(Arc::new(Advertised { names, port: 443, quic, hashes, verifiable, plain_port: Some(8080) }))
    }

    fn via(version: HttpVersion, encrypted: bool) -> Via {
        let address = ([127, 0, 0, 1], 1).into();
        Via { version, remote: address, local: address, encrypted }
    }

    #[test]
    fn a_page_may_connect_to_what_discovery_names() {
        let headers = headers(vec![], true, true);
        let connect = |policy: &HeaderValue| {
            let policy = policy.to_str().unwrap().to_owned();
            policy.split("; ").find(|directive| directive.starts_with("connect-src")).unwrap().to_owned()
        };
        assert_eq!(connect(&headers.policy), "connect-src 'self' https://localhost wss://localhost");
        assert_eq!(
            connect(&headers.plain_policy),
            "connect-src 'self' https://localhost wss://localhost ws://localhost:8080"
        );
    }

    #[test]
    fn http3_is_offered_only_where_a_browser_could_take_it_up() {
        let verifiable = headers(vec![[0; 32]], true, true);
        assert_eq!(verifiable.alt_svc, "h3=\":443\"; ma=86400");
        assert!(verifiable.offers_http3(via(HttpVersion::H2, true)));
        assert!(verifiable.offers_http3(via(HttpVersion::H1, true)));
        assert!(!verifiable.offers_http3(via(HttpVersion::H3, true)), "it is there already");
        assert!(!verifiable.offers_http3(via(HttpVersion::H1, false)), "the page's origin is another one");
        let by_hash = headers(vec![[0; 32]], false, true);
        assert!(!by_hash.offers_http3(via(HttpVersion::H2, true)), "a certificate that nobody signed");
        assert!(!headers(vec![], true, false).offers_http3(via(HttpVersion::H2, true)), "no QUIC");
    }

    #[test]
    fn tls_is_insisted_on_with_the_operators_certificate_only() {
        let operators = headers(vec![], true, true);
        for version in [HttpVersion::H1, HttpVersion::H2, HttpVersion::H3] {
            assert!(operators.insists_on_tls(via(version, true)));
        }
        assert!(!operators.insists_on_tls(via(HttpVersion::H1, false)), "not heeded in plaintext (RFC 6797, 7.2)");
        assert!(!headers(vec![[0; 32]], true, true).insists_on_tls(via(HttpVersion::H2, true)), "made for development");
    }

    #[test]
    fn timing_is_in_milliseconds() {
        assert_eq!(server_timing(Duration::from_micros(1_234)), "app;dur=1.234");
    }
}
