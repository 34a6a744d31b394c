//! A cluster whose nodes are drained and replaced one after the other, while members talk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use wigwag::client::session::{Event, Options, Sender, Session};
use wigwag::client::{Endpoint, Request, Via};
use wigwag::config::Config;
use wigwag::protocol::RoomName;

use super::linked;
use super::moves::{key, sharing};
use super::nats::{Nats, policy};
use crate::native::{hasty, join};
use crate::relay::discovery;
use crate::support::{TestServer, config, within};

const MEMBERS: usize = 6;

/// The last number of each member.
const END: u64 = u64::MAX;

/// A balancer that knows which nodes take new connections, and gives each to the next of them.
struct Spread {
    address: SocketAddr,
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Spread {
    async fn over(nodes: &[TestServer]) -> Self {
        let targets = Arc::new(Mutex::new(nodes.iter().map(|node| node.addresses.plain[0]).collect::<Vec<_>>()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let task = tokio::spawn(Self::spread(listener, Arc::clone(&targets)));
        Spread { address, targets, task }
    }

    async fn spread(listener: TcpListener, targets: Arc<Mutex<Vec<SocketAddr>>>) {
        let turn = AtomicUsize::new(0);
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let target = {
                let targets = targets.lock();
                targets[turn.fetch_add(1, Ordering::Relaxed) % targets.len()]
            };
            connections.spawn(async move {
                if let Ok(mut node) = TcpStream::connect(target).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
                }
            });
        }
    }

    /// Where clients are told to go.
    async fn discovery(&self) -> (Endpoint, JoinHandle<()>) {
        let url = format!("ws://{}/v1/rooms/{{room}}", self.address);
        discovery(json!({"protocol": "wigwag.v1", "transports": [{"type": "websocket", "url": url}]})).await
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a member has said that was accepted: to whom, or to all. The key is the number.
type Accepted = BTreeMap<u64, Option<String>>;

/// Says numbers, to all and to one other in turns, until it is told to stop; then the last one, to all.
async fn talk(sender: Sender, others: Vec<String>, stop: Arc<AtomicBool>) -> Accepted {
    let mut accepted = Accepted::new();
    let mut said = 0;
    loop {
        let ends = stop.load(Ordering::Relaxed);
        said += 1;
        let number = if ends { END } else { said };
        let to = others.get(number as usize % (2 * others.len())).filter(|_| !ends).cloned();
        let request = match &to {
            Some(to) => Request::message(to, &number),
            None => Request::broadcast(&number),
        };
        let answer = sender.send(request.expect("JSON")).await.expect("open");
        let answer = within(answer).await;
        if answer.is_ok() {
            accepted.insert(number, to);
            if ends {
                assert!(accepted.len() as u64 >= said / 10 * 9, "{} of {said} are accepted", accepted.len());
                return accepted;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a member has heard when all others have said their last.
async fn listen(mut session: Session, own: String) -> (Session, BTreeMap<String, Vec<u64>>) {
    let mut heard: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    while ended.len() < MEMBERS - 1 {
        match within(session.next()).await.expect("the session goes on") {
            Event::Message { from, data } => {
                let number = data.read::<u64>().expect("a number");
                if number == END {
                    ended.insert(from.clone());
                }
                heard.entry(from).or_default().push(number);
            }
            // An acknowledgement may have overtaken the `resume` that was sent before it: there is a whole picture then.
            Event::Joined(joined) if joined.own.peer == own && joined.lost == Some(0) => {}
            event @ (Event::Joined(_) | Event::PeerJoined(_) | Event::PeerLeft { .. } | Event::Closed(_)) => {
                panic!("nobody comes or goes, and nothing is lost: {event:?}");
            }
            _ => {}
        }
    }
    (session, heard)
}

#[tokio::test]
async fn each_node_is_drained_and_replaced_and_the_members_talk_on() {
    let nats = Nats::start(&[]).await;
    let change = |config| Config { drain: Duration::from_secs(2), ..config };
    let mut nodes: Vec<TestServer> = sharing::<3>(&nats, change).await.into();
    let spread = Spread::over(&nodes).await;
    let (place, _task) = spread.discovery().await;
    let room = RoomName::parse("r").expect("a name");
    let mut sessions = Vec::new();
    for _ in 0..MEMBERS {
        let options = Options::at(place.clone(), room.clone(), nodes[0].trust.clone());
        let options = Options { timing: hasty(), ..options.transports([Via::WebSocketH1]) };
        sessions.push(join(options).await);
    }
    let ids: Vec<String> = sessions.iter().map(|(_, joined)| joined.own.peer.clone()).collect();
    // Whoever came first has yet to hear of the others.
    let mut members = Vec::new();
    let stop = Arc::new(AtomicBool::new(false));
    for (at, (mut session, _)) in sessions.into_iter().enumerate() {
        for _ in at + 1..MEMBERS {
            crate::native::wait_for(&mut session, |event| matches!(event, Event::PeerJoined(_)).then_some(())).await;
        }
        members.push(session);
    }
    let mut talkers = Vec::new();
    let mut listeners = Vec::new();
    for (session, id) in members.into_iter().zip(&ids) {
        let others = ids.iter().filter(|other| *other != id).cloned().collect();
        talkers.push(tokio::spawn(talk(session.sender(), others, Arc::clone(&stop))));
        listeners.push(tokio::spawn(listen(session, id.clone())));
    }
    for _ in 0..nodes.len() {
        let old = nodes.remove(0);
        spread.targets.lock().retain(|target| *target != old.addresses.plain[0]);
        old.stop().await;
        let mut cluster = policy(&nats.url());
        cluster.key = Some(key());
        let new = TestServer::start_with(change(Config { cluster: Some(cluster), ..config() })).await;
        nodes.push(new);
        for node in &nodes {
            linked(node, 2).await;
        }
        spread.targets.lock().push(nodes[2].addresses.plain[0]);
    }
    stop.store(true, Ordering::Relaxed);
    let mut accepted = BTreeMap::new();
    for (talker, id) in talkers.into_iter().zip(&ids) {
        accepted.insert(id.clone(), within(talker).await.expect("it talks"));
    }
    let mut open = Vec::new();
    for (listener, id) in listeners.into_iter().zip(&ids) {
        let (session, heard) = within(listener).await.expect("it listens");
        open.push(session);
        for (other, said) in accepted.iter().filter(|(other, _)| *other != id) {
            let heard = &heard[other];
            assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "once and in order: {heard:?}");
            let meant = said.iter().filter(|(_, to)| to.as_ref().is_none_or(|to| to == id)).map(|(number, _)| *number);
            let missing: Vec<u64> = meant.filter(|number| !heard.contains(number)).collect();
            assert!(missing.is_empty(), "what was accepted is lost: {missing:?}");
        }
    }
    assert!(accepted.values().all(|said| said.len() > 30), "they have talked");
}
