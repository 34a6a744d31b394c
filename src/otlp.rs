//! Sends [`traces`](crate::traces) to an OpenTelemetry collector: OTLP over HTTP, as protobuf, in batches, again for a while if it is
//! away.
//!
//! One task does so. Nobody waits for it: what it does not get rid of in time fills the queue, and the rest is counted.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use percent_encoding::percent_decode_str;
use prost::Message as _;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use crate::config::Otlp;
use crate::error::StartError;
use crate::metrics::{Metrics, Told};
use crate::post::{LAST_WORDS, Place, Tried, Tries};
use crate::signal::Signal;
use crate::traces::{Queue, Traces};

/// Spans in one request.
const BATCH: usize = 512;

/// How long spans gather after the last request, unless there is a batch of them sooner.
const GATHER: Duration = Duration::from_secs(1);

/// How long a batch is tried for. Spans that come meanwhile wait in the queue.
const LATEST: Duration = Duration::from_secs(30);

/// What is appended to the endpoint.
const PATH: &str = "/v1/traces";

/// What the headers must be.
const HEADERS: &str = "a list like authorization=Bearer%20…,x-tenant=one";

/// Sends spans.
pub struct Export {
    queue: Queue,
    /// What is being sent.
    batch: Vec<SpanData>,
    resource: ResourceAttributesWithSchema,
    place: Place,
    headers: HeaderMap,
    /// When spans need gather no longer.
    due: Instant,
    sent: Told,
    failed: Told,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The way from spans to the collector. `node` is what this start of the server is called.
///
/// # Errors
/// Headers or a CA that cannot be read, or a URL that leads nowhere.
pub fn open(policy: &Otlp, node: String, metrics: &Metrics) -> Result<(Traces, Export), StartError> {
    let path = format!("{}{PATH}", policy.endpoint.path().trim_end_matches('/'));
    let place = Place::of(&policy.endpoint, path, policy.ca.as_deref(), ["--otlp-endpoint", "--otlp-ca"])?;
    let resource = resource(node);
    let (traces, queue) = Traces::open(policy.one_in, resource.clone(), metrics);
    let export = Export {
        queue,
        batch: Vec::with_capacity(BATCH),
        resource: (&resource).into(),
        place,
        headers: headers(policy)?,
        due: Instant::now(),
        sent: metrics.spans("sent"),
        failed: metrics.spans("failed"),
    };
    Ok((traces, export))
}

/// What sends the spans. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say more of it, or otherwise, as everywhere.
fn resource(node: String) -> Resource {
    let builder = Resource::builder_empty().with_service_name("wigwag").with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node),
    ]);
    let builder = builder.with_detector(Box::new(opentelemetry_sdk::resource::EnvResourceDetector::new()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => builder.with_service_name(name),
        _ => builder,
    }
    .build()
}

fn headers(policy: &Otlp) -> Result<HeaderMap, StartError> {
    let mut headers = match &policy.headers {
        Some(source) => {
            let text = source.read("--otlp-headers", HEADERS)?;
            listed(&text).ok_or_else(|| StartError::new(format_args!("--otlp-headers: it must be {HEADERS}")))?
        }
        None => HeaderMap::new(),
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    Ok(headers)
}

/// Headers in the form of `OTEL_EXPORTER_OTLP_HEADERS`: names and percent-encoded values. Values show in no log.
fn listed(text: &str) -> Option<HeaderMap> {
    let header = |item: &str| {
        let (name, value) = item.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let mut value = HeaderValue::try_from(&*value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name.trim()).ok()?, value))
    };
    text.split(',').filter(|item| !item.trim().is_empty()).map(header).collect()
}

impl Export {
    /// Sends spans until there will be no more, which `over` says, and then what is left, as far as there is time.
    pub async fn run(mut self, over: Arc<Signal>) {
        let too_late = async {
            over.raised().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = self.send_all(&over) => return,
            () = too_late => {}
        }
        let left = self.batch.len() + self.queue.len();
        warn!(spans = left, "the server ends before the collector had all traces");
        self.failed.count(left as u64);
    }

    async fn send_all(&mut self, over: &Signal) {
        loop {
            self.gather(over).await;
            if self.batch.is_empty() {
                return;
            }
            self.send(over).await;
            self.due = Instant::now() + GATHER;
        }
    }

    /// Waits for a batch, or for less of one when it is due. Empty when all is over.
    async fn gather(&mut self, over: &Signal) {
        while self.batch.len() < BATCH {
            let room = BATCH - self.batch.len();
            tokio::select! {
                // What has ended before the end comes first.
                biased;
                _ = self.queue.recv_many(&mut self.batch, room) => {}
                () = sleep_until(self.due), if !self.batch.is_empty() => return,
                () = over.raised() => return,
            }
        }
    }

    async fn send(&mut self, over: &Signal) {
        let spans = self.batch.len();
        let rejected = self.deliver(over).await;
        self.sent.count((spans - rejected) as u64);
        self.failed.count(rejected as u64);
        self.batch.clear();
    }

    /// Tries until the collector has the batch, will not have it, or it is too late. Returns how many spans it has not.
    async fn deliver(&mut self, over: &Signal) -> usize {
        let spans = self.batch.len();
        let resource_spans = group_spans_by_resource_and_scope(self.batch.clone(), &self.resource);
        let body: bytes::Bytes = ExportTraceServiceRequest { resource_spans }.encode_to_vec().into();
        let mut tries = Tries::begin(LATEST, over);
        loop {
            let why = match self.place.post(&self.headers, body.clone()).await {
                Ok(response) => match judge(response.status(), response.body()) {
                    Tried::Taken(0) => return 0,
                    Tried::Taken(rejected) => {
                        warn!(rejected, "the collector does not take all traces");
                        return rejected.min(spans);
                    }
                    Tried::Refused(status) => {
                        warn!(%status, spans, "the collector does not take traces");
                        return spans;
                    }
                    Tried::Failed(why) => why,
                },
                Err(why) => why,
            };
            debug!(why, "traces are not taken");
            if !tries.wait().await {
                warn!(why, spans, "traces could not be sent in time");
                return spans;
            }
        }
    }
}

/// What an answer means (OTLP, "OTLP/HTTP Response"); where it is taken, how many spans were not.
fn judge(status: StatusCode, body: &[u8]) -> Tried<usize> {
    match status {
        StatusCode::OK => {
            let partial = ExportTraceServiceResponse::decode(body).ok().and_then(|response| response.partial_success);
            let rejected = partial.map_or(0, |partial| partial.rejected_spans);
            Tried::Taken(usize::try_from(rejected).unwrap_or(0))
        }
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Tried::Failed(status.to_string()),
        // Redirects among them: who is told was decided by the operator.
        status => Tried::Refused(status),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn headers_are_written_as_everywhere() {
        let headers = listed("authorization=Bearer%20a%3Db, x-tenant = one ,").unwrap();
        assert_eq!(
            (&headers["authorization"], &headers["x-tenant"]),
            (&"Bearer a=b".parse().unwrap(), &"one".parse().unwrap())
        );
        assert!(!format!("{headers:?}").contains("Bearer"));
        for wrong in ["authorization", "a b=c", "a=%0a", "a=%ff", "=b"] {
            assert_eq!(listed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert_eq!(judge(StatusCode::OK, b""), Tried::Taken(0));
        let partial = ExportTracePartialSuccess { rejected_spans: 2, error_message: String::new() };
        let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(judge(StatusCode::OK, &body), Tried::Taken(2));
        for passing in [429, 502, 503, 504] {
            assert!(matches!(judge(StatusCode::from_u16(passing).unwrap(), b""), Tried::Failed(_)), "{passing}");
        }
        for lasting in [204, 302, 400, 401, 404, 500] {
            assert!(matches!(judge(StatusCode::from_u16(lasting).unwrap(), b""), Tried::Refused(_)), "{lasting}");
        }
    }
}
