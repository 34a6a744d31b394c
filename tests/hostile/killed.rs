//! Clients whose process is killed: the kernel closes their TCP connections, and nobody their QUIC ones.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use wigwag::client::{Connection, Endpoint, Trust, Via};
use wigwag::config::Config;
use wigwag::protocol::RoomName;

use super::process::{gauges, metrics_at};
use super::watcher::{Watcher, short_polls};
use crate::support::{TestServer, authority, config, within};

const HEARTBEAT: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(2);

/// Says that a victim has joined everywhere.
const READY: &str = "every session has joined";
/// Where a victim finds its [`Orders`].
const ORDERS: &str = "WIGWAG_TEST_VICTIM";

/// What a victim is to do: join each room over each transport, `each` times.
#[derive(Serialize, Deserialize)]
struct Orders {
    server: SocketAddr,
    ca: PathBuf,
    hashes: Vec<[u8; 32]>,
    rooms: Vec<String>,
    each: usize,
}

/// A process of its own that holds sessions until it is killed: this test, started again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process to be killed, which other tests start"]
async fn victim() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&orders).expect("orders");
    let trust = Trust::new(authority(&orders.ca), orders.hashes).expect("TLS 1.3");
    let endpoint = Endpoint { encrypted: true, host: orders.server.ip().to_string(), port: orders.server.port() };
    // A few at a time: the deadline of each is not about how many there are.
    let turns = Semaphore::new(16);
    let join = async |room: &str, via: Via| {
        let _turn = turns.acquire().await.expect("open");
        let room = RoomName::parse(room).expect("a room name");
        let connection = within(Connection::open(&endpoint, &room, via, &trust, &short_polls())).await;
        let joined = Watcher::join(connection.expect("the transport opens"), via).await;
        // Whoever waits for all of them sees that it goes on.
        println!("joined over {}", via.name());
        joined
    };
    let places = orders.rooms.iter().flat_map(|room| Via::ALL.map(|via| (room, via)));
    let places = places.flat_map(|place| std::iter::repeat_n(place, orders.each));
    let joined = join_all(places.map(|(room, via)| join(room, via))).await;
    println!("{READY}");
    let live = join_all(joined.into_iter().map(Watcher::live));
    let (mut orphaned, mut byte) = (tokio::io::stdin(), [0]);
    tokio::select! {
        _ = live => {}
        // Should nobody be there any more to kill it, the pipe ends.
        _ = orphaned.read(&mut byte) => {}
    }
}

/// Starts a victim and waits until it has joined everywhere.
async fn victim_of(server: &TestServer, rooms: Vec<String>, each: usize) -> Child {
    let orders = Orders {
        server: server.addresses.secure[0],
        ca: server.ca.clone(),
        hashes: server.trust.hashes.clone(),
        rooms,
        each,
    };
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--ignored", "--nocapture", "--exact", "hostile::killed::victim"]);
    command.env(ORDERS, serde_json::to_string(&orders).expect("JSON"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("it runs");
    let mut said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    loop {
        let line = within(said.next_line()).await.expect("UTF-8").expect("the victim joins");
        if line.contains(READY) {
            return child;
        }
    }
}

/// Kills it as `kill -9` does; returns when that was.
async fn kill(mut victim: Child) -> Instant {
    let died = Instant::now();
    victim.kill().await.expect("a child of ours");
    died
}

fn mortal() -> Config {
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let mut config = Config { heartbeat: HEARTBEAT, resume_window: WINDOW, admin: Some(loopback), ..config() };
    // Hundreds are opened by one process, which may be slow to say its first word on each where others need the machine.
    config.limits.first_message_ms = 60_000;
    config
}

#[tokio::test]
async fn a_killed_client_is_away_within_two_heartbeats_and_left_when_its_window_ends() {
    let server = TestServer::start_with(mortal()).await;
    let mut watcher = Watcher::join(server.connect(Via::WebSocketH2, "demo").await, Via::WebSocketH2).await;
    let victim = victim_of(&server, vec!["demo".into()], 1).await;
    let names = watcher.meet(Via::ALL.len()).await;
    let died = kill(victim).await;
    for fate in watcher.mourn(&names).await {
        fate.check(died, HEARTBEAT, WINDOW);
    }
}

#[tokio::test]
async fn five_hundred_sessions_killed_at_once_leave_no_ghost() {
    const ROOMS: usize = 20;
    const EACH: usize = 5;
    let server = TestServer::start_with(mortal()).await;
    let admin = server.addresses.admin.expect("it has one");
    let admin = Endpoint { encrypted: false, host: admin.ip().to_string(), port: admin.port() };
    let rooms: Vec<String> = (0..ROOMS).map(|number| format!("room-{number}")).collect();
    // In every second room somebody stays.
    let stay = rooms.iter().step_by(2).zip([Via::WebTransport, Via::WebSocketH2, Via::WebSocketH1].iter().cycle());
    let mut survivors =
        join_all(stay.map(async |(room, via)| Watcher::join(server.connect(*via, room).await, *via).await)).await;
    let there = async || (server.context.hub.room_count(), gauges(&metrics_at(&admin).await));
    let before = there().await;
    assert_eq!(before.0, survivors.len(), "a room for each survivor");

    let victim = victim_of(&server, rooms.clone(), EACH).await;
    let all = EACH * Via::ALL.len();
    let met = join_all(survivors.iter_mut().map(|survivor| survivor.meet(all))).await;
    assert_ne!(there().await, before, "500 sessions make a difference");
    let died = kill(victim).await;
    let mourning = survivors.iter_mut().zip(&met).map(|(survivor, names)| survivor.mourn(names));
    for fate in join_all(mourning).await.into_iter().flatten() {
        fate.check(died, HEARTBEAT, WINDOW);
    }

    // Where nobody stayed, the last may have gone a moment later than the last that somebody heard of.
    let mut now = there().await;
    while now != before && died.elapsed() < 3 * (2 * HEARTBEAT + WINDOW) {
        now = there().await;
    }
    assert_eq!(now, before, "rooms and what the gauges count");
    for (number, room) in rooms.iter().enumerate() {
        let newcomer = Watcher::join(server.connect(Via::WebSocketH1, room).await, Via::WebSocketH1).await;
        let there: Vec<&str> = newcomer.joined["peers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|peer| peer["peer"].as_str())
            .collect();
        let stayed = (number % 2 == 0).then(|| survivors[number / 2].id());
        assert_eq!(there, Vec::from_iter(stayed), "in {room}");
    }
}
