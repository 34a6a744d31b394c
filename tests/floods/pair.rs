//! Two who talk, on a thread of their own: one over WebTransport, the other over a WebSocket on HTTP/2.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc as channel;
use tokio::time::{MissedTickBehavior, interval};
use wigwag::client::session::{Event, Options, Session};
use wigwag::client::{Endpoint, Request, Trust, Via};
use wigwag::protocol::RoomName;

use crate::support::within;

/// Where they talk; the offender may come in.
pub(super) const ROOM: &str = "honest";

/// How often one says something to the other.
const EVERY: Duration = Duration::from_millis(10);

/// How long messages took.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) p99: Duration,
    pub(super) longest: Duration,
}

/// The pair; ends with its handle.
pub(super) struct Pair {
    peer: String,
    thread: Option<thread::JoinHandle<()>>,
    orders: channel::Sender<Order>,
    talks: mpsc::Receiver<Talk>,
}

enum Order {
    Begin,
    End,
    Stop,
}

impl Pair {
    /// Both join, and say something to one another from now on.
    pub(super) fn start(server: Endpoint, trust: Trust) -> Self {
        let (orders, wanted) = channel::channel(4);
        let (told, talks) = mpsc::sync_channel(1);
        let (ready, joined) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (receiver, peer) = join(&server, &trust, Via::WebSocketH2).await;
                let (sender, _) = join(&server, &trust, Via::WebTransport).await;
                ready.send(peer.clone()).expect("whoever started this waits");
                talk(sender, receiver, &peer, wanted, told).await;
            });
        });
        let peer = joined.recv().expect("both join");
        Pair { peer, thread: Some(thread), orders, talks }
    }

    /// The id of the one who listens.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// From now on it is measured how long messages take.
    pub(super) fn begin(&self) {
        self.orders.blocking_send(Order::Begin).expect("the pair lives");
    }

    /// What was measured since.
    pub(super) fn end(&self) -> Talk {
        self.orders.blocking_send(Order::End).expect("the pair lives");
        self.talks.recv_timeout(Duration::from_secs(60)).expect("the pair hears one another")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // A pair that has failed has said so.
        let _ = self.orders.blocking_send(Order::Stop);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

async fn join(server: &Endpoint, trust: &Trust, via: Via) -> (Session, String) {
    let room = RoomName::parse(ROOM).expect("a room name");
    let options = Options::at(server.clone(), room, trust.clone()).transports([via]);
    let mut session = within(Session::connect(options)).await.expect("it joins");
    match within(session.next()).await {
        Some(Event::Joined(joined)) => (session, joined.own.peer),
        other => panic!("not joined but {other:?}"),
    }
}

/// Every message is one number, and its place in `sent` when it went.
async fn talk(
    mut sender: Session,
    mut receiver: Session,
    peer: &str,
    mut orders: channel::Receiver<Order>,
    told: mpsc::SyncSender<Talk>,
) {
    let mut sent = Vec::new();
    let mut took = Vec::new();
    let mut from = 0;
    let mut ending = false;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Begin) => from = sent.len(),
                Some(Order::End) => ending = true,
                Some(Order::Stop) | None => return,
            },
            _ = ticks.tick(), if !ending => {
                sent.push(Instant::now());
                let message = Request::message(peer, &(sent.len() - 1)).expect("JSON");
                drop(sender.send(message).await.expect("the session lives"));
            }
            event = sender.next() => stays(event.expect("the session lives")),
            event = receiver.next() => match event.expect("the session lives") {
                Event::Message { data, .. } => if let Ok(number) = data.read::<usize>() {
                    took.push(sent[number].elapsed());
                },
                event => stays(event),
            },
        }
        if ending && took.len() == sent.len() {
            ending = false;
            told.send(summary(&took[from..])).expect("whoever asked waits");
        }
    }
}

/// Whatever the offender does, nobody honest loses a transport.
fn stays(event: Event) {
    let lost = matches!(event, Event::Reconnecting { .. } | Event::Closed(_));
    assert!(!lost, "an honest session has lost its transport: {event:?}");
}

fn summary(took: &[Duration]) -> Talk {
    let mut took = took.to_vec();
    took.sort_unstable();
    Talk { p99: took[took.len() * 99 / 100], longest: took[took.len() - 1] }
}
