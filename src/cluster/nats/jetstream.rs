//! Logs of seats in a stream of JetStream: a subject for each seat, written under the condition that its last record is the known one
//! (`Nats-Expected-Last-Subject-Sequence`), replaced by a roll-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::{CreateStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RawMessageErrorKind};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::{Name, PAYLOAD};
use crate::cluster::store::{Doing, Failure, Log, PATIENCE, Store};
use crate::protocol::PeerId;

/// How often it is looked whether the stream is there, and while it is not.
const LOOK: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(1)];

/// What is written about a seat is kept for so long beside the resume window, if it is not written again.
const MORE_AGE: Duration = Duration::from_secs(600);

/// What a message may have beside its payload: headers and their names.
const HEADERS: usize = 512;

/// How seats are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    /// At how many servers of NATS.
    pub replicas: usize,
    /// Bytes of all of them together.
    pub bytes: usize,
}

impl Default for Durable {
    fn default() -> Self {
        Durable { replicas: 1, bytes: 1024 * 1024 * 1024 }
    }
}

/// The stream.
#[derive(Debug)]
pub(super) struct JetStream {
    context: Context,
    client: Client,
    config: Config,
    /// What subjects begin with.
    prefix: String,
    is_there: AtomicBool,
}

impl JetStream {
    pub(super) fn new(client: Client, name: &Name, durable: Durable, keep: Duration) -> Self {
        let mut context = jetstream::new(client.clone());
        context.set_timeout(PATIENCE);
        let config = Config {
            name: format!("{name}-seats"),
            subjects: vec![format!("{name}.seat.*")],
            max_bytes: i64::try_from(durable.bytes).unwrap_or(i64::MAX),
            max_age: keep + MORE_AGE,
            // What was stored stays stored: whoever comes when there is no room is told so.
            discard: DiscardPolicy::New,
            num_replicas: durable.replicas,
            allow_rollup: true,
            ..Config::default()
        };
        JetStream { context, client, config, prefix: format!("{name}.seat."), is_there: AtomicBool::new(false) }
    }

    /// Makes the stream where there is none, and looks whether it is there. Runs until it is dropped.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut told = false;
        loop {
            match self.context.get_or_create_stream(self.config.clone()).await {
                Ok(_) => {
                    if !self.is_there.swap(true, Ordering::Relaxed) {
                        info!(stream = %self.config.name, "sessions outlive their node: JetStream keeps them");
                    }
                    told = false;
                }
                // It may be there again at once. Until then what is to be stored is refused.
                Err(error) if matches!(error.kind(), CreateStreamErrorKind::TimedOut) => debug!(%error, "JetStream"),
                Err(error) => {
                    let is_connected = self.client.connection_state() == async_nats::connection::State::Connected;
                    if is_connected {
                        self.is_there.store(false, Ordering::Relaxed);
                    }
                    if is_connected && !std::mem::replace(&mut told, true) {
                        warn!(%error, "JetStream keeps no sessions: until it does, those of a node that is lost end with it; check NATS (jetstream {{}}) and --cluster-durable");
                    }
                }
            }
            sleep(LOOK[usize::from(!self.is_there())]).await;
        }
    }

    fn subject(&self, peer: PeerId) -> String {
        format!("{}{peer}", self.prefix)
    }

    async fn publish(&self, peer: PeerId, last: u64, record: Bytes, all: bool) -> Result<u64, Failure> {
        let message = PublishMessage::build().payload(record).expected_last_subject_sequence(last);
        let message = if all { message.header("Nats-Rollup", "sub") } else { message };
        let failed = |kind| match kind {
            PublishErrorKind::WrongLastSequence => Failure::Overtaken,
            _ => Failure::Unreachable,
        };
        let sent = self.context.send_publish(self.subject(peer), message).await;
        let stored = sent.map_err(|error| failed(error.kind()))?.await;
        stored.map(|ack| ack.sequence).map_err(|error| {
            debug!(%error, "JetStream has not stored a record");
            failed(error.kind())
        })
    }

    async fn collect(&self, peer: PeerId) -> Result<Log, Failure> {
        let stream = self.context.get_stream_no_info(&self.config.name).await.map_err(|_| Failure::Unreachable)?;
        let (subject, mut log) = (self.subject(peer), Log::default());
        loop {
            let next = stream.raw_message_builder().sequence(log.last + 1).next_by_subject(subject.clone());
            match next.send().await {
                Ok(message) => {
                    log.records.push(message.payload);
                    log.last = message.sequence;
                }
                Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => return Ok(log),
                Err(error) => {
                    debug!(%error, "JetStream does not tell what it has");
                    return Err(Failure::Unreachable);
                }
            }
        }
    }
}

impl Store for JetStream {
    fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    fn largest(&self) -> usize {
        let most = match self.client.max_payload() {
            0 => PAYLOAD,
            most => most,
        };
        most.saturating_sub(HEADERS)
    }

    fn append(&self, peer: PeerId, last: u64, record: Bytes, all: bool) -> Doing<'_, Result<u64, Failure>> {
        Box::pin(async move {
            let done = timeout(PATIENCE, self.publish(peer, last, record, all)).await;
            done.unwrap_or(Err(Failure::Unreachable))
        })
    }

    fn read(&self, peer: PeerId) -> Doing<'_, Result<Log, Failure>> {
        Box::pin(async move { timeout(PATIENCE, self.collect(peer)).await.unwrap_or(Err(Failure::Unreachable)) })
    }

    fn forget(&self, peer: PeerId, until: u64) -> Doing<'_, ()> {
        Box::pin(async move {
            let purge = async {
                let stream = self.context.get_stream_no_info(&self.config.name).await.ok()?;
                stream.purge().sequence(until + 1).filter(self.subject(peer)).await.ok()
            };
            let _ = timeout(PATIENCE, purge).await;
        })
    }
}
