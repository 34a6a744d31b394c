//! A member that sees what a room is told of others, and when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wigwag::client::{Connection, Event, Via};

use crate::support::within;

/// What polls of these tests ask the server to wait, so that nobody waits for a poller for long.
pub(crate) const POLL: Duration = Duration::from_secs(2);

/// What a machine that has much else to do may add to a time that is promised.
pub(crate) const LATE: Duration = Duration::from_secs(1);

/// Headers that make a long poll one of [`POLL`].
pub(crate) fn short_polls() -> HeaderMap {
    let wait = HeaderValue::try_from(format!("wait={}", POLL.as_secs())).expect("ASCII");
    HeaderMap::from_iter([(HeaderName::from_static("prefer"), wait)])
}

/// Messages that a watcher has received and nobody has asked it for; those of a full room.
const HEARD: usize = 1024;

/// One session on one transport. A task of its own reads it all the time, as a client must that wants to be taken for alive.
pub(crate) struct Watcher {
    /// The `joined` with which it began.
    pub(crate) joined: Value,
    heard: mpsc::Receiver<Heard>,
    to_say: mpsc::Sender<Value>,
}

/// A message, and when it came.
pub(crate) type Heard = (Instant, Value);

impl Watcher {
    /// Joins, telling the others over which transport.
    pub(crate) async fn join(mut connection: Connection, via: Via) -> Self {
        let join = json!({"type": "join", "metadata": {"via": via.name()}});
        within(connection.send(&join.to_string())).await.expect("sent");
        let (heard_by_task, heard) = mpsc::channel(HEARD);
        let (to_say, said) = mpsc::channel(1);
        tokio::spawn(carry(connection, heard_by_task, said));
        let mut watcher = Watcher { joined: Value::Null, heard, to_say };
        watcher.joined = watcher.next().await.1;
        assert_eq!(watcher.joined["type"], "joined", "{}", watcher.joined);
        watcher
    }

    /// Its peer id.
    pub(crate) fn id(&self) -> &str {
        self.joined["self"]["peer"].as_str().expect("a peer id")
    }

    /// The next message; those of the transport's own (`ping`) are left out. Cancel safe.
    pub(crate) async fn next(&mut self) -> Heard {
        within(self.heard.recv()).await.expect("the connection holds")
    }

    /// As [`next`](Self::next), but the connection may end.
    pub(crate) async fn recv(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    pub(crate) async fn say(&self, message: Value) {
        within(self.to_say.send(message)).await.expect("the connection holds");
    }

    /// As [`say`](Self::say), but the connection may end.
    pub(crate) async fn try_say(&self, message: Value) {
        // What was heard tells whether it has.
        let _ = self.to_say.send(message).await;
    }

    /// Reads until `count` peers have joined; over which transports, by their ids.
    pub(crate) async fn meet(&mut self, count: usize) -> HashMap<String, Via> {
        let mut met = HashMap::new();
        while met.len() < count {
            let (_, message) = self.next().await;
            assert_eq!(message["type"], "peerJoined", "{message}");
            let via = Via::ALL.into_iter().find(|via| message["metadata"]["via"] == via.name());
            met.insert(text(&message["peer"]), via.expect("it told"));
        }
        met
    }

    /// Reads until each of `peers` has been told to be gone for good, and nothing else; when that was.
    pub(crate) async fn mourn(&mut self, peers: &HashMap<String, Via>) -> Vec<Fate> {
        let mut away = HashMap::new();
        let mut fates = Vec::new();
        while fates.len() < peers.len() {
            let (now, message) = self.next().await;
            let peer = text(&message["peer"]);
            match message["type"].as_str() {
                Some("peerAway") => assert!(away.insert(peer, now).is_none(), "away already: {message}"),
                Some("peerLeft") => {
                    assert_eq!(message["reason"], "timeout");
                    let away = away.remove(&peer).unwrap_or_else(|| panic!("left without having been away: {message}"));
                    let via = *peers.get(&peer).unwrap_or_else(|| panic!("a stranger: {message}"));
                    fates.push(Fate { via, away, left: now });
                }
                _ => panic!("neither away nor left: {message}"),
            }
        }
        fates
    }

    /// Goes on for as long as the connection holds, whether anything is heard or not.
    pub(crate) async fn live(mut self) {
        while self.heard.recv().await.is_some() {}
    }
}

/// Reads `connection` until it ends or nobody wants to hear of it any more, acknowledging what comes. When nothing can be sent any
/// more, what has come before can still be read.
async fn carry(mut connection: Connection, heard: mpsc::Sender<Heard>, mut said: mpsc::Receiver<Value>) {
    loop {
        let to_send = tokio::select! {
            event = connection.recv() => {
                let Ok(Event::Message(text) | Event::Datagram(text)) = event else { return };
                let message: Value = serde_json::from_str(&text).expect("JSON");
                let seq = message["seq"].as_u64().filter(|seq| seq.is_multiple_of(16));
                if message["type"] != "ping" && heard.send((Instant::now(), message)).await.is_err() {
                    return;
                }
                seq.map(|seq| json!({"type": "ack", "seq": seq}))
            }
            message = said.recv(), if !said.is_closed() => message,
            () = heard.closed() => return,
        };
        if let Some(message) = to_send
            && connection.send(&message.to_string()).await.is_err()
        {
            said.close();
        }
    }
}

/// When others heard of a client's end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fate {
    pub(crate) via: Via,
    pub(crate) away: Instant,
    pub(crate) left: Instant,
}

impl Fate {
    /// Holds it against promise 4 of the protocol, for a client that died at `died`: away within two heartbeats (a poller: plus
    /// its wait), left when the window ends.
    pub(crate) fn check(self, died: Instant, heartbeat: Duration, window: Duration) {
        let Fate { via, away, left } = self;
        let promised = 2 * heartbeat + if via.is_long_poll() { POLL } else { Duration::ZERO };
        let (away_after, kept) = (away - died, left - away);
        assert!(away_after <= promised + LATE, "{via:?} was away after {away_after:?} instead of {promised:?}");
        // Both were seen by the same watcher, and either perhaps late.
        let bounds = window.saturating_sub(LATE)..=window + LATE;
        assert!(bounds.contains(&kept), "{via:?} was kept for {kept:?} instead of {window:?}");
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}
