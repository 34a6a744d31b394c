//! A server that is told to stop while it is in use, and started again on the same addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use wigwag::client::Via;

use super::client::{Client, Event};
use super::network::{self, Link};
use super::process::ServerProcess;
use super::report;
use super::watcher::Watcher;
use crate::support::within;

/// What the server gives its sessions to go.
const DRAIN: Duration = Duration::from_secs(10);
/// Pairs over each transport that reconnect by themselves.
const PAIRS: usize = 30;
/// Pairs over each transport that stay where they are until the server closes them, and write everything down.
const WITNESSES: usize = 4;
/// How often each session says something to its partner.
const RATE: Duration = Duration::from_secs(1);
/// The same for witnesses.
const WITNESS_RATE: Duration = Duration::from_millis(20);
/// Talk before the signal.
const BEFORE: Duration = Duration::from_secs(3);
/// After the restart, everybody must be back within this time.
const BACK: Duration = Duration::from_secs(60);
/// Of the time in which sessions come back, as it is shown and judged.
const STEP: Duration = Duration::from_millis(500);
/// Not more than this part of all sessions may come back within a step.
const STORM: f64 = 0.25;
/// Joins at once; whoever is told to connect does not come alone.
const AT_ONCE: usize = 16;

/// What was said on one side of a pair of witnesses: every message with its number, in the order in which it came.
struct Record {
    partner: String,
    heard: Vec<Value>,
}

/// Talks to `partner` until the server ends the transport.
async fn testify(mut witness: Watcher, partner: String) -> Record {
    let mut heard = Vec::new();
    let mut ticks = interval(WITNESS_RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number: u64 = 0;
    loop {
        tokio::select! {
            message = witness.recv() => match message {
                Some((_, message)) => heard.push(message),
                None => return Record { partner, heard },
            },
            _ = ticks.tick() => {
                number += 1;
                // When the transport has ended, that is what is heard next.
                witness.try_say(json!({"type": "message", "id": number, "to": partner, "data": number})).await;
            }
        }
    }
}

/// What became of the messages from `from` to `to`.
#[derive(Debug, Default, Clone, Copy)]
struct Account {
    /// Answered `ok`.
    accepted: usize,
    delivered: usize,
    /// Accepted after the sender had been told that its partner was away.
    told: usize,
    /// Accepted for a poller after its last poll.
    unpolled: usize,
    /// Accepted, not delivered, and the sender knew nothing.
    lost: usize,
}

impl Account {
    fn of(from: &Record, to: &Record, via: Via) -> Self {
        let messages = to.heard.iter().filter(|heard| heard["type"] == "message");
        let delivered: Vec<u64> = messages.filter_map(|heard| heard["data"].as_u64()).collect();
        assert!(delivered.is_sorted_by(|one, next| one < next), "each message once and in order: {delivered:?}");
        let mut account = Account { delivered: delivered.len(), ..Account::default() };
        let mut away = false;
        for heard in &from.heard {
            match (heard["type"].as_str(), heard["id"].as_u64()) {
                (Some("peerAway" | "peerLeft"), _) if heard["peer"] == *from.partner => away = true,
                (Some("peerBack"), _) if heard["peer"] == *from.partner => away = false,
                (Some("ok"), Some(id)) => {
                    account.accepted += 1;
                    let is_last = delivered.last().is_none_or(|last| *last < id);
                    match delivered.binary_search(&id) {
                        Ok(_) => {}
                        Err(_) if away => account.told += 1,
                        // Its transport is its polls: the last one's answer closes it.
                        Err(_) if is_last && via.is_long_poll() => account.unpolled += 1,
                        Err(_) => account.lost += 1,
                    }
                }
                _ => {}
            }
        }
        account
    }
}

impl std::iter::Sum for Account {
    fn sum<I: Iterator<Item = Account>>(accounts: I) -> Account {
        accounts.fold(Account::default(), |sum, one| Account {
            accepted: sum.accepted + one.accepted,
            delivered: sum.delivered + one.delivered,
            told: sum.told + one.told,
            unpolled: sum.unpolled + one.unpolled,
            lost: sum.lost + one.lost,
        })
    }
}

/// What happens to a session when its server goes and comes again, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It is told to go elsewhere.
    Told,
    /// Its transport is gone.
    Cut,
    /// It is in its room again.
    Back,
    /// It hears its partner there.
    Heard,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::Told, Stage::Cut, Stage::Back, Stage::Heard];
}

/// Lives through the restart as an application would, telling when it comes to each stage.
async fn live(via: Via, mut client: Client, stages: mpsc::Sender<(Via, Stage, Instant)>) {
    let mut reached: BTreeSet<Stage> = BTreeSet::new();
    let mut partner = client.joined.peers.first().map(|peer| peer.peer.clone());
    let mut number = 0;
    let mut ticks = interval(RATE);
    loop {
        let stage = tokio::select! {
            event = client.next() => match event {
                Event::Joined(joined) => {
                    partner = joined.peers.first().map(|peer| peer.peer.clone());
                    Stage::Back
                }
                Event::Resumed { .. } => Stage::Back,
                Event::PeerJoined(peer) => {
                    partner = Some(peer.peer);
                    continue;
                }
                Event::GoAway { .. } => Stage::Told,
                Event::Reconnecting { .. } => Stage::Cut,
                Event::Message { .. } if reached.contains(&Stage::Back) => Stage::Heard,
                Event::Closed(closed) => panic!("it does not come back: {closed}"),
                _ => continue,
            },
            _ = ticks.tick() => {
                if let Some(partner) = &partner {
                    number += 1;
                    client.tell(partner, number).await;
                }
                continue;
            }
        };
        if reached.insert(stage) {
            stages.send((via, stage, Instant::now())).await.expect("somebody counts");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs network namespaces: scripts/hostile"]
async fn accepted_messages_are_delivered_until_the_end_and_sessions_come_back_in_their_own_time() {
    let sessions = 2 * PAIRS * Via::ALL.len();
    report::scenario(format_args!("A server with {sessions} sessions is stopped within {DRAIN:?} and started again"));
    let args = ["--drain", "10s"];
    network::reset().await;
    let server = ServerProcess::start(&args).await;
    let (stages, mut reached) = mpsc::channel(Stage::ALL.len() * sessions);
    let _living = everybody_talks(&server, &stages).await;
    let witnesses = witnesses(&server).await;
    report::progress("all have joined and talk");
    sleep(BEFORE).await;

    let signal = Instant::now();
    server.terminate().await;
    assert!(server.ended().await.success(), "it ends in good order");
    report::progress(format_args!("the server has ended after {:.1} s", signal.elapsed().as_secs_f64()));
    let server = ServerProcess::start(&args).await;
    let restart = signal.elapsed();
    report::progress(format_args!("and started again after {:.1} s", restart.as_secs_f64()));

    let mut times: BTreeMap<Stage, Vec<Duration>> = BTreeMap::new();
    let mut early: Vec<Via> = Vec::new();
    let count = async {
        while times.get(&Stage::Heard).map_or(0, Vec::len) < sessions {
            let (via, stage, at) = reached.recv().await.expect("they live");
            if stage == Stage::Cut && at - signal < DRAIN {
                early.push(via);
            }
            times.entry(stage).or_default().push(at - signal);
        }
    };
    let all = timeout(BACK, count).await;
    let busiest = tell_times(&times, restart);
    all.expect("everybody is back and hears its partner");
    let most = (sessions as f64 * STORM) as usize;
    report::line(format_args!("at most {busiest} of {sessions} came back within {STEP:?}; {most} would be a storm"));
    let of = |via: Via| early.iter().filter(|lost| **lost == via).count();
    let early: Vec<_> = Via::ALL.iter().map(|via| format!("{} {}", via.name(), of(*via))).collect();
    report::line(format_args!("transports lost before the drain time was over: {}", early.join(", ")));
    tell_accounts(witnesses).await;
    assert!(busiest <= most, "a storm: {busiest} sessions within {STEP:?}");
    drop(server);
    report::passed();
}

/// Pairs over all transports, who come back by themselves.
async fn everybody_talks(server: &ServerProcess, stages: &mpsc::Sender<(Via, Stage, Instant)>) -> JoinSet<()> {
    let turns = Semaphore::new(AT_ONCE);
    let places = Via::ALL.into_iter().flat_map(|via| (0..2 * PAIRS).map(move |number| (via, number / 2)));
    let joining = places.map(async |(via, pair)| {
        let _turn = turns.acquire().await.expect("open");
        (via, Client::join(server, Link::Calm, via, &format!("{}-{pair}", via.name())).await)
    });
    join_all(joining).await.into_iter().map(|(via, client)| live(via, client, stages.clone())).collect()
}

/// Pairs over all transports who write down what they hear until the server ends their transport.
async fn witnesses(server: &ServerProcess) -> Vec<(Via, JoinHandle<(Record, Record)>)> {
    let mut witnesses = Vec::new();
    for via in Via::ALL {
        for number in 0..WITNESSES {
            let room = format!("witnesses-{}-{number}", via.name());
            let join = async || Watcher::join(server.connect(Link::Calm, via, &room).await, via).await;
            let (one, other) = (join().await, join().await);
            let (id, other_id) = (one.id().to_owned(), other.id().to_owned());
            let pair = async move { tokio::join!(testify(one, other_id), testify(other, id)) };
            witnesses.push((via, tokio::spawn(pair)));
        }
    }
    witnesses
}

async fn tell_accounts(witnesses: Vec<(Via, JoinHandle<(Record, Record)>)>) {
    report::line(format_args!(
        "{:<14} {:>9} {:>10} {:>14} {:>17} {:>5}",
        "transport", "accepted", "delivered", "known as away", "after last poll", "lost"
    ));
    let mut accounts: Vec<(Via, Account)> = Vec::new();
    for (via, pair) in witnesses {
        let (one, other) = within(pair).await.expect("a record");
        for record in [&one, &other] {
            let last = record.heard.last().expect("something was heard");
            let is_goodbye = last["type"] == "closed" && last["code"] == "goingAway";
            // Between two polls nobody can be told.
            assert!(is_goodbye || via.is_long_poll(), "the last word over {via:?} is {last}");
        }
        accounts.extend([Account::of(&one, &other, via), Account::of(&other, &one, via)].map(|account| (via, account)));
    }
    for via in Via::ALL {
        let Account { accepted, delivered, told, unpolled, lost } =
            accounts.iter().filter(|(of, _)| *of == via).map(|(_, account)| *account).sum();
        let name = via.name();
        report::line(format_args!("{name:<14} {accepted:>9} {delivered:>10} {told:>14} {unpolled:>17} {lost:>5}"));
    }
    let lost: Vec<_> = accounts.iter().filter(|(_, account)| account.lost > 0).collect();
    assert!(lost.is_empty(), "accepted, not delivered, and nobody told: {lost:?}");
}

/// How many sessions came to which stage when; returns the most that were back within one step.
fn tell_times(times: &BTreeMap<Stage, Vec<Duration>>, restart: Duration) -> usize {
    const WIDTH: usize = 24;
    let stages = [(Stage::Told, "told to go"), (Stage::Cut, "transport lost"), (Stage::Back, "back in its room")];
    let bucket = |at: &Duration| at.as_millis() / STEP.as_millis();
    let counts = stages.map(|(stage, _)| {
        let mut counts: BTreeMap<u128, usize> = BTreeMap::new();
        for at in times.get(&stage).into_iter().flatten() {
            *counts.entry(bucket(at)).or_default() += 1;
        }
        counts
    });
    let most = counts.iter().flat_map(BTreeMap::values).max().copied().unwrap_or(1);
    let cells = stages.map(|(_, title)| format!("{title:<width$}", width = WIDTH + 5));
    report::line(format_args!("{:>10}  {}", "", cells.join("")));
    let last = counts.iter().filter_map(|counts| counts.keys().last()).max().copied().unwrap_or(0);
    for at in 0..=last {
        let cells = counts.each_ref().map(|counts| {
            let count = counts.get(&at).copied().unwrap_or(0);
            let bar = "█".repeat((count * WIDTH).div_ceil(most));
            format!("{:<width$}", if count > 0 { format!("{bar} {count}") } else { String::new() }, width = WIDTH + 5)
        });
        let mark = if at == bucket(&restart) { "  the server is there again" } else { "" };
        let seconds = (STEP * at as u32).as_secs_f64();
        report::line(format_args!("{seconds:>8.1} s  {}{mark}", cells.join("")).to_string().trim_end());
    }
    counts[2].values().max().copied().unwrap_or(0)
}
