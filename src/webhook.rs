//! Tells the operator's application what happens in rooms: signed requests to a URL of its own, in order, again until they are taken
//! or it is too late.
//!
//! [`hooks`] brings what has happened; one task tells it, in batches.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ring::hmac;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::config::Webhook;
use crate::error::StartError;
use crate::hooks::{self, Happening, Hook, Missed, What};
use crate::metrics::Metrics;
use crate::post::{LAST_WORDS, Place, Tried, Tries};
use crate::signal::Signal;

/// Events in one request.
const BATCH: usize = 100;

/// How long a batch is tried for; what happened before is no news then.
const LATEST: Duration = Duration::from_secs(300);

/// Says whose request it is: the time of the try in seconds since 1970, and the HMAC-SHA256 (RFC 2104) of that, a dot and the body.
const SIGNATURE: HeaderName = HeaderName::from_static("wigwag-signature");
/// The same for each try of a batch.
const DELIVERY: HeaderName = HeaderName::from_static("wigwag-delivery");

/// What the secret must be.
const SECRET: &str = "what the application checks signatures with, long and random";

/// Tells the application.
pub struct Delivery {
    queue: mpsc::Receiver<Happening>,
    missed: Missed,
    /// What is being told.
    batch: Vec<Happening>,
    /// This start of the server.
    node: String,
    place: Place,
    key: hmac::Key,
    metrics: Metrics,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The way from rooms to the application. `node` is what this start of the server is called.
///
/// # Errors
/// A secret or a CA that cannot be read, or a URL that leads nowhere.
pub fn open(policy: &Webhook, node: String, metrics: &Metrics) -> Result<(Hook, Delivery), StartError> {
    let secret = policy.secret.read("--webhook-secret", SECRET)?;
    let path = policy.url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let place = Place::of(&policy.url, path, policy.ca.as_deref(), ["--webhook", "--webhook-ca"])?;
    let (hook, queue, missed) = hooks::open(policy.queue, metrics);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let metrics = metrics.clone();
    let batch = Vec::with_capacity(BATCH);
    let delivery = Delivery { queue, missed, batch, node, place, key, metrics };
    Ok((hook, delivery))
}

impl Delivery {
    /// Tells the application until nothing happens any more, which `over` says, and then what is left, as far as there is time.
    pub async fn run(mut self, over: Arc<Signal>) {
        let too_late = async {
            over.raised().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = self.tell_all(&over) => return,
            () = too_late => {}
        }
        let left = self.batch.len() + self.queue.len();
        warn!(events = left, "the server ends before the webhook could be told all that has happened");
        self.metrics.told("failed").count(left as u64);
    }

    async fn tell_all(&mut self, over: &Signal) {
        self.batch.push(Happening::now(None, None, What::ServerStarted));
        loop {
            self.tell(over).await;
            tokio::select! {
                // What has happened before the end comes first.
                biased;
                count = self.queue.recv_many(&mut self.batch, BATCH) => if count == 0 { break },
                () = over.raised() => break,
            }
        }
        self.batch.push(Happening::now(None, None, What::ServerStopped));
        self.tell(over).await;
    }

    async fn tell(&mut self, over: &Signal) {
        let (events, missed) = (self.batch.len() as u64, self.missed.count());
        if missed > 0 {
            warn!(missed, "the application was not told all that has happened, and is told so");
        }
        if self.deliver(missed, over).await {
            self.metrics.told("delivered").count(events);
            self.missed.told(missed);
        } else {
            self.metrics.told("failed").count(events);
            self.missed.add(events);
        }
        self.batch.clear();
    }

    /// Tries until the application has the batch, and how many were `missed` before, will not have it, or it is too late. Returns
    /// whether it has.
    async fn deliver(&mut self, missed: u64, over: &Signal) -> bool {
        let (body, delivery) = (body(&self.node, &self.batch, missed), Uuid::now_v7());
        let mut tries = Tries::begin(LATEST, over);
        loop {
            let why = match self.attempt(&body, delivery).await {
                Tried::Taken(()) => return true,
                Tried::Refused(status) => {
                    warn!(%status, "the application does not take what the webhook tells");
                    return false;
                }
                Tried::Failed(why) => why,
            };
            debug!(why, "the webhook is not taken");
            if !tries.wait().await {
                warn!(why, "the webhook could not be told in time");
                return false;
            }
        }
    }

    async fn attempt(&mut self, body: &str, delivery: Uuid) -> Tried<()> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(SIGNATURE, signature(&self.key, hooks::now_ms() / 1000, body));
        headers.insert(DELIVERY, HeaderValue::try_from(delivery.to_string()).expect("a UUID is a header value"));
        let answered = self.place.post(&headers, body.to_owned().into()).await;
        match answered.map(|response| response.status()) {
            Err(why) => Tried::Failed(why),
            Ok(status) if status.is_success() => Tried::Taken(()),
            Ok(status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)) => {
                Tried::Failed(status.to_string())
            }
            Ok(status) if status.is_server_error() => Tried::Failed(status.to_string()),
            // Redirects among them: who is told of rooms was decided by the operator.
            Ok(status) => Tried::Refused(status),
        }
    }
}

fn body(node: &str, batch: &[Happening], missed: u64) -> String {
    #[derive(Serialize)]
    struct Events<'a> {
        node: &'a str,
        events: &'a [Happening],
        #[serde(skip_serializing_if = "is_none")]
        missed: u64,
    }
    serde_json::to_string(&Events { node, events: batch, missed }).expect("names and numbers are JSON")
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

fn signature(key: &hmac::Key, seconds: u64, body: &str) -> HeaderValue {
    let tag = hmac::sign(key, format!("{seconds}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(format!("t={seconds},v1={hex}")).expect("digits are a header value")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;
    use crate::post::{FIRST_PAUSE, LONGEST_PAUSE, PATIENCE};
    use crate::protocol::RoomName;
    use crate::secret::SecretSource;

    /// Takes a connection and reads what is posted on it.
    async fn posted(listener: &TcpListener) -> (TcpStream, String) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        while !text.ends_with('}') {
            let mut some = [0; 1024];
            let count = stream.read(&mut some).await.unwrap();
            text.push_str(std::str::from_utf8(&some[..count]).unwrap());
        }
        (stream, text)
    }

    fn told(listener: &TcpListener) -> (Metrics, Hook, Delivery) {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "secret").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let policy = Webhook { url, secret: SecretSource::File(secret.path().into()), queue: 5, ca: None };
        let metrics = Metrics::default();
        let (hook, delivery) = open(&policy, "node".into(), &metrics).unwrap();
        (metrics, hook, delivery)
    }

    /// The clock stands still, but where everybody waits it goes to the next deadline.
    #[tokio::test(start_paused = true)]
    async fn an_application_that_never_answers_is_told_again_until_it_is_too_late() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (metrics, hook, delivery) = told(&listener);
        let over = Arc::new(Signal::default());
        let telling = tokio::spawn(delivery.run(Arc::clone(&over)));
        let (begun, mut kept) = (Instant::now(), Vec::new());
        for wait in [Duration::ZERO, PATIENCE + FIRST_PAUSE, PATIENCE + 2 * FIRST_PAUSE] {
            let before = Instant::now();
            let (stream, text) = posted(&listener).await;
            assert!(text.contains("serverStarted"), "{text}");
            let waited = before.elapsed();
            assert!(waited >= wait && waited < wait + Duration::from_secs(1), "{waited:?} and not {wait:?}");
            kept.push(stream);
        }
        // What happens meanwhile is told when the first batch has been given up.
        hook.tell(&RoomName::parse("demo").unwrap(), None, What::RoomOpened);
        let next = loop {
            let (stream, text) = posted(&listener).await;
            kept.push(stream);
            if !text.contains("serverStarted") {
                break text;
            }
        };
        assert!(
            begun.elapsed() > LATEST - LONGEST_PAUSE && begun.elapsed() < LATEST + 2 * PATIENCE,
            "{:?}",
            begun.elapsed()
        );
        assert!(next.contains("roomOpened") && next.ends_with(r#""missed":1}"#), "{next}");
        over.raise();
        telling.await.unwrap();
        let failed = "wigwag_webhook_events_total{outcome=\"failed\"} 2";
        assert!(metrics.encode().unwrap().lines().any(|line| line == failed));
    }

    #[test]
    fn a_signature_is_what_another_tool_computes() {
        // printf '1700000000.{"events":[]}' | openssl dgst -sha256 -hmac secret
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let made = signature(&key, 1_700_000_000, r#"{"events":[]}"#);
        assert_eq!(
            made.to_str().unwrap(),
            "t=1700000000,v1=3947de27ec923573170fccda604ddfb25583ff98dc51e96cca2e11c59545026a"
        );
    }
}
