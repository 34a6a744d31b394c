//! The two links that `scripts/hostile` has made between this namespace and the server's.

use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Command;
use wigwag::client::Endpoint;

/// Where a server in its namespace listens, on both links.
pub(crate) const PORT: u16 = 4433;

/// A link, by the name that its device has at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// On which bad things happen.
    Hostile,
    /// On which nothing happens, so that it can be seen what others hear of it.
    Calm,
}

impl Link {
    pub(crate) fn device(self) -> &'static str {
        match self {
            Link::Hostile => "hostile",
            Link::Calm => "calm",
        }
    }

    /// The server's address on it.
    pub(crate) fn server(self) -> &'static str {
        match self {
            Link::Hostile => "192.0.2.1",
            Link::Calm => "198.51.100.1",
        }
    }

    pub(crate) fn endpoint(self) -> Endpoint {
        Endpoint { encrypted: true, host: self.server().into(), port: PORT }
    }
}

/// A variable that the script sets.
fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this by scripts/hostile"))
}

/// The server's namespace.
pub(crate) fn server_namespace() -> String {
    told("WIGWAG_HOSTILE_SERVER")
}

/// For how long packets are to be lost.
pub(crate) fn seconds() -> u64 {
    told("WIGWAG_HOSTILE_SECONDS").parse().expect("a number")
}

/// Where files may be left until the script ends.
pub(crate) fn dir() -> PathBuf {
    told("WIGWAG_HOSTILE_DIR").into()
}

/// Runs `words` here.
pub(crate) async fn run(words: &str) -> String {
    let mut parts = words.split_whitespace();
    let mut command = Command::new(parts.next().expect("a command"));
    let output = command.args(parts).output().await.unwrap_or_else(|error| panic!("{words}: {error}"));
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs `words` in the server's namespace.
async fn run_at_server(words: &str) -> String {
    run(&format!("ip netns exec {} {words}", server_namespace())).await
}

/// Packets that came to the two ends of the hostile link while it lost some.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Packets {
    pub(crate) arrived: u64,
    pub(crate) dropped: u64,
}

/// Makes both links what they were when the script had made them, whatever an earlier scenario has left.
pub(crate) async fn reset() {
    calm_down().await;
    change_address("192.0.2.2").await;
}

/// From now on, the hostile link loses `percent` of its packets, in both directions.
pub(crate) async fn lose(percent: u32) {
    treat(&["counter", &format!("numgen random mod 100 < {percent} counter drop")]).await;
}

/// From now on, nothing passes the hostile link.
pub(crate) async fn vanish() {
    treat(&["counter drop"]).await;
}

/// Has packets that come to either end of the hostile link treated by `rules` alone.
async fn treat(rules: &[&str]) {
    calm_down().await;
    for rule in rules {
        let words = format!("nft add rule inet hostile input iifname {} {rule}", Link::Hostile.device());
        run(&words).await;
        run_at_server(&words).await;
    }
}

/// The hostile link loses nothing any more. Returns what it has lost.
pub(crate) async fn calm_down() -> Packets {
    let mut packets = Packets::default();
    let list = "nft -j list chain inet hostile input";
    for listed in [run(list).await, run_at_server(list).await] {
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let expressions =
            listed["nftables"].as_array().into_iter().flatten().filter_map(|one| one["rule"]["expr"].as_array());
        for rule in expressions {
            let drops = rule.iter().any(|expression| expression.get("drop").is_some());
            let count: u64 = rule.iter().filter_map(|expression| expression["counter"]["packets"].as_u64()).sum();
            *(if drops { &mut packets.dropped } else { &mut packets.arrived }) += count;
        }
    }
    run("nft flush chain inet hostile input").await;
    run_at_server("nft flush chain inet hostile input").await;
    packets
}

/// Gives the hostile link's client end `new` instead of all addresses that it has. As on a device that changes its network, there
/// is a moment without any.
pub(crate) async fn change_address(new: &str) {
    let device = Link::Hostile.device();
    run(&format!("ip address flush dev {device}")).await;
    run(&format!("ip address add {new}/24 dev {device}")).await;
    let left = run(&format!("ip -4 -brief address show dev {device}")).await;
    assert_eq!(left.split_whitespace().skip(2).collect::<Vec<_>>(), [format!("{new}/24")], "the only address");
}
