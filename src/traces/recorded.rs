//! Spans that are recorded, and the queue in which they wait to be sent.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::request::Parts;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanProcessor};
use tokio::sync::mpsc;

use super::parent;
use crate::metrics::{Metrics, Told};
use crate::protocol::{Outbound, PeerId, RoomName, Transport};

/// How many spans wait to be sent.
const QUEUE: usize = 4096;

/// Where spans come out that have ended.
pub type Queue = mpsc::Receiver<SpanData>;

/// Begins spans, where they are recorded. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces(Option<SdkTracer>);

/// One step of a trace; it ends with the last of its clones if not before. An empty one is not recorded, nor is any step of it.
#[derive(Debug, Clone, Default)]
pub struct Span(Option<Arc<Recorded>>);

#[derive(Debug)]
struct Recorded {
    tracer: SdkTracer,
    /// The span, as its children want it.
    context: Context,
}

/// Something that is being read, and may be a description.
#[derive(Debug)]
pub struct Description(Option<Reading>);

#[derive(Debug)]
struct Reading {
    tracer: SdkTracer,
    parent: Context,
    since: SystemTime,
    transport: Transport,
}

impl Traces {
    /// None are recorded.
    pub const NONE: Traces = Traces(None);

    /// Records one trace in `one_in`, and each whose parent is recorded, as what `resource` says.
    pub fn open(one_in: u32, resource: Resource, metrics: &Metrics) -> (Self, Queue) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let of_others = Sampler::TraceIdRatioBased(1.0 / f64::from(one_in));
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(of_others)))
            .with_resource(resource)
            .with_span_processor(Enqueue { queue: sender, dropped: metrics.spans("dropped") })
            .build();
        (Traces(Some(provider.tracer("wigwag"))), queue)
    }

    /// A client asks for a session, and did so at `begun`.
    pub fn opening(&self, parts: &Parts, transport: Transport, begun: Instant) -> Span {
        let Some(tracer) = &self.0 else { return Span::NONE };
        let builder = tracer
            .span_builder("open")
            .with_kind(SpanKind::Server)
            .with_start_time(ago(begun.elapsed()))
            .with_attributes([KeyValue::new("wigwag.transport", transport.name())]);
        Span::begin(tracer, builder, &remote(parts))
    }

    /// What another request's head says that it belongs to. It is not recorded itself.
    pub fn request(&self, parts: &Parts) -> Span {
        let parent = self.0.as_ref().zip(parent::of(parts));
        Span(parent.map(|(tracer, parent)| {
            Arc::new(Recorded { tracer: tracer.clone(), context: Context::new().with_remote_span_context(parent) })
        }))
    }

    /// A description has come from another node, for `to`. Empty where that node records none: `parent` is what it says by
    /// [`Span::traceparent`].
    pub fn arrival(&self, parent: Option<&str>, room: &RoomName, to: PeerId) -> Span {
        let Some((tracer, parent)) = self.0.as_ref().zip(parent.and_then(parent::parse)) else { return Span::NONE };
        let builder = tracer
            .span_builder("arrive")
            .with_kind(SpanKind::Server)
            .with_attributes([room_attribute(room), peer_attribute(to)]);
        Span::begin(tracer, builder, &Context::new().with_remote_span_context(parent))
    }

    /// A message of a client's begins to be read; `of` is the request or session that it is part of.
    pub fn read(&self, of: &Span, transport: Transport) -> Description {
        Description(self.0.as_ref().map(|tracer| {
            let parent = of.0.as_ref().map_or_else(Context::new, |parent| parent.context.clone());
            Reading { tracer: tracer.clone(), parent, since: SystemTime::now(), transport }
        }))
    }
}

impl Span {
    /// Not recorded.
    pub const NONE: Span = Span(None);

    fn begin(tracer: &SdkTracer, builder: SpanBuilder, parent: &Context) -> Self {
        let span = builder.start_with_context(tracer, parent);
        let recorded = span.is_recording();
        Span(recorded.then(|| Arc::new(Recorded { tracer: tracer.clone(), context: parent.with_span(span) })))
    }

    /// A part of it that begins now.
    #[must_use]
    pub fn step(&self, name: &'static str) -> Span {
        let Some(recorded) = &self.0 else { return Span::NONE };
        let builder = recorded.tracer.span_builder(name).with_kind(SpanKind::Internal);
        Span::begin(&recorded.tracer, builder, &recorded.context)
    }

    /// What another node is told, that what it does may be beneath this one: a `traceparent`. `None` if this one is not recorded. The
    /// state beside it (`tracestate`) stays here: it may be as long as a small description.
    pub fn traceparent(&self) -> Option<String> {
        let recorded = self.0.as_ref()?;
        let span = recorded.context.span();
        let (trace, span) = (span.span_context().trace_id(), span.span_context().span_id());
        Some(format!("00-{trace}-{span}-01"))
    }

    /// Names the room.
    pub fn is_in(&self, room: &RoomName) {
        self.set(|| room_attribute(room));
    }

    /// Names the peer whose it is.
    pub fn is_of(&self, peer: PeerId) {
        self.set(|| peer_attribute(peer));
    }

    /// Says how a session came to be on its transport.
    pub fn is_by(&self, how: &'static str) {
        self.set(|| KeyValue::new("wigwag.how", how));
    }

    /// Nothing more is to be said of it. It ends, unless it has or somebody else has more to say.
    pub fn done(self) {}

    /// It ends now, with this outcome.
    pub fn end(&self, outcome: &'static str) {
        self.set(|| outcome_attribute(outcome));
        if let Some(recorded) = &self.0 {
            recorded.context.span().end();
        }
    }

    /// It ends now, for this reason.
    pub fn fail(&self, reason: &'static str) {
        if let Some(recorded) = &self.0 {
            recorded.context.span().set_status(Status::error(reason));
        }
        self.end(reason);
    }

    fn set(&self, attribute: impl FnOnce() -> KeyValue) {
        if let Some(recorded) = &self.0 {
            recorded.context.span().set_attribute(attribute());
        }
    }
}

impl Description {
    /// It has been read and goes from `from` to another peer. Empty for whatever is no offer or answer.
    #[must_use]
    pub fn span(self, room: &RoomName, from: PeerId, outbound: &Outbound<'_>) -> Span {
        let Some(step) = outbound.step.filter(|step| !step.is_candidate()) else { return Span::NONE };
        let bytes = i64::try_from(outbound.payload.len()).unwrap_or(i64::MAX);
        self.begin(room, from, [KeyValue::new("wigwag.type", step.name()), KeyValue::new("wigwag.bytes", bytes)])
    }

    /// It is none that could be relayed, for this reason.
    pub fn fail(self, room: &RoomName, from: PeerId, reason: &'static str) {
        self.begin(room, from, []).fail(reason);
    }

    fn begin<const N: usize>(self, room: &RoomName, from: PeerId, attributes: [KeyValue; N]) -> Span {
        let Some(Reading { tracer, parent, since, transport }) = self.0 else { return Span::NONE };
        let known = [KeyValue::new("wigwag.transport", transport.name()), room_attribute(room), peer_attribute(from)];
        let builder = tracer.span_builder("relay").with_kind(SpanKind::Server).with_start_time(since);
        Span::begin(&tracer, builder.with_attributes(known.into_iter().chain(attributes)), &parent)
    }
}

fn room_attribute(room: &RoomName) -> KeyValue {
    KeyValue::new("wigwag.room", room.to_string())
}

fn peer_attribute(peer: PeerId) -> KeyValue {
    KeyValue::new("wigwag.peer", peer.to_string())
}

fn outcome_attribute(outcome: &'static str) -> KeyValue {
    KeyValue::new("wigwag.outcome", outcome)
}

fn remote(parts: &Parts) -> Context {
    parent::of(parts).map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent))
}

fn ago(time: Duration) -> SystemTime {
    SystemTime::now().checked_sub(time).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Puts spans that have ended into the queue. Never waits: what finds it full is left out and counted.
#[derive(Debug)]
struct Enqueue {
    queue: mpsc::Sender<SpanData>,
    dropped: Told,
}

impl SpanProcessor for Enqueue {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.dropped.count(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_nobody_waits() {
        let metrics = Metrics::default();
        let (traces, mut queue) = Traces::open(1, Resource::builder_empty().build(), &metrics);
        let (parts, ()) = Request::new(()).into_parts();
        for _ in 0..QUEUE + 3 {
            traces.opening(&parts, Transport::WebTransport, Instant::now()).end("begun");
        }
        let line = "wigwag_spans_total{outcome=\"dropped\"} 3";
        assert!(metrics.encode().unwrap().lines().any(|known| known == line));
        assert_eq!(queue.len(), QUEUE);
        assert_eq!(queue.try_recv().unwrap().name, "open");
    }

    #[test]
    fn a_span_ends_once_though_nobody_says_so() {
        let (traces, mut queue) = Traces::open(1, Resource::builder_empty().build(), &Metrics::default());
        let (parts, ()) = Request::new(()).into_parts();
        let span = traces.opening(&parts, Transport::WebTransport, Instant::now());
        let again = span.clone();
        span.done();
        assert!(queue.try_recv().is_err(), "it goes on");
        again.end("begun");
        again.done();
        assert_eq!(queue.len(), 1);
    }
}
