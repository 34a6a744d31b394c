//! Clients whose network is gone from one moment to the next: no FIN, no RST, nothing.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use wigwag::client::Via;

use super::network::{self, Link};
use super::process::{ServerProcess, gauges};
use super::report;
use super::watcher::Watcher;
use crate::support::within;

const HEARTBEAT: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(3);
/// Sessions over each transport.
const EACH: usize = 5;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs network namespaces: scripts/hostile"]
async fn a_client_whose_network_vanishes_is_away_within_two_heartbeats_and_left_when_its_window_ends() {
    report::scenario(format_args!(
        "The network of {} sessions vanishes (heartbeat {HEARTBEAT:?}, resume window {WINDOW:?})",
        EACH * Via::ALL.len()
    ));
    network::reset().await;
    let server = ServerProcess::start(&["--heartbeat", "2s", "--resume-window", "3s", "--idle-timeout", "5s"]).await;
    let mut watcher = Watcher::join(server.connect(Link::Calm, Via::WebSocketH2, "demo").await, Via::WebSocketH2).await;
    let before = gauges(&server.metrics().await);
    let clients = Via::ALL.iter().flat_map(|via| std::iter::repeat_n(*via, EACH));
    let joining = clients.map(async |via| Watcher::join(server.connect(Link::Hostile, via, "demo").await, via).await);
    let clients = join_all(joining).await;
    let met = watcher.meet(clients.len()).await;
    report::progress("all have joined; now every packet is dropped");
    let living: Vec<_> = clients.into_iter().map(|client| tokio::spawn(client.live())).collect();
    network::vanish().await;
    let died = Instant::now();
    let fates = watcher.mourn(&met).await;
    report::line(format_args!("{:<14} {:>22} {:>22}", "transport", "peerAway after (s)", "peerLeft after (s)"));
    for via in Via::ALL {
        let of_via = fates.iter().filter(|fate| fate.via == via);
        let (mut away, mut left) = (Vec::new(), Vec::new());
        for fate in of_via {
            fate.check(died, HEARTBEAT, WINDOW);
            away.push((fate.away - died).as_secs_f64());
            left.push((fate.left - died).as_secs_f64());
        }
        report::line(format_args!("{:<14} {:>22} {:>22}", via.name(), range(away), range(left)));
    }
    // Connections that no session was using close when they have been idle for long enough.
    within(async { while gauges(&Box::pin(server.metrics()).await) != before {} }).await;
    living.into_iter().for_each(|client| client.abort());
    network::calm_down().await;
    report::passed();
}

fn range(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} to {:.2}", values[0], values[values.len() - 1])
}
