//! The simulation of many nodes, with few of them: that it runs, and that what it counts is what the protocol says.

#[path = "../benches/scale/wire.rs"]
mod wire;
#[path = "../benches/scale/world.rs"]
mod world;

use std::time::Duration;

use world::{Phase, Plan, run};

#[test]
fn rosters_agree_in_each_phase_and_notes_are_as_many_as_rooms_ask_for() {
    let plan = Plan { nodes: 3, sessions: 300, members: 3, spread: 3, churn: 20, seconds: 5 };
    let mut told = 0;
    let phases = run(plan, |_| told += 1).expect("rosters agree");
    assert_eq!((phases.len(), told), (5, 5));
    assert!(phases.iter().all(|Phase { cpu, memory, .. }| !cpu.is_zero() && *memory > 0), "{phases:?}");
    assert_eq!(phases.last().map(|phase| phase.name), Some("a node is lost"));
    let [seated, bus, quiet, churn, loss] = phases.try_into().expect("five");
    assert!(seated.notes.is_empty() && seated.agreed.is_none(), "{seated:?}");
    // Each of 3 pairs of nodes shares 100 rooms, of which each tells the other in two parts.
    assert_eq!(bus.notes["roster"], 3 * 100 * 2 * 2, "{bus:?}");
    // Within a few beats.
    assert!(bus.took + bus.agreed.expect("there is a bus") < Duration::from_secs(3), "{bus:?}");
    // Beats alone: one a second from each node to two others.
    assert!(quiet.notes.is_empty() && (54..=66).contains(&quiet.bus.delivered), "{quiet:?}");
    // Whoever leaves was alone in the room at its node, and who comes opens it again: two other nodes hear of each.
    let (left, asked) = (churn.notes["gone"], churn.notes["enter"]);
    assert!((180..=200).contains(&left) && left == asked, "{churn:?}");
    assert_eq!(churn.notes["joined"], asked, "{churn:?}");
    assert_eq!((churn.bus.dropped, churn.again), (0, 0), "{churn:?}");
    // Seats are kept for half a minute after the node was heard the last time.
    let lost = loss.took + loss.agreed.expect("there is a bus");
    assert!((29..=32).contains(&lost.as_secs()), "{loss:?}");
}
