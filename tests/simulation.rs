//! Rooms, seats and client state machines under hostile transports, all chance from one seed.
//!
//! The real hub runs on a clock that stands still unless the simulation moves it: a little, just to a deadline, or far beyond
//! all of them. Around it are clients as the protocol describes them, who come over every kind of transport and change it as
//! they like. Whatever is on the way can be late, lost or overtaken, requests doubled too; transports stall, go on delivering
//! after a takeover, and break at every possible point: before a request arrived, after it was handled, before its answer was
//! read.
//!
//! Half of the rooms have a waiting room, for guests or for everyone: clients knock and get better tokens, moderators admit,
//! refuse and leave, places and time run out.
//!
//! Throughout must hold:
//! - no hole in `seq`, none of the room's changes told twice;
//! - a seat is given to whoever shows its ticket until its window ends, and to nobody afterwards; a join key is good until a
//!   ticket was shown;
//! - bounded memory: no queue ever holds more than its limit, answers aside, which have one too;
//! - nobody is in the room, heard there or told of it, who has to wait and was not admitted; no more wait than may, and not longer.
//!
//! At the end every client is let through, and then must hold:
//! - no double, no strangers, order per pair: what a client's application got from another is a growing sequence of numbers;
//! - no silent loss: a directed message answered `ok` was delivered, one never delivered was answered `error`, unless the
//!   recipient was told by `lost` or its seat was given up;
//! - one order of presence: `revision` grows, and all rosters equal the room;
//! - every moderator knows who waits; who was admitted has heard it, who was refused is not in by the same knock;
//! - no ghosts: who left or timed out is in no roster, and when nobody comes back the room ends with the last window.

use std::sync::Arc;
use std::time::Duration;

use world::{LONGEST_POLL, WINDOW, World, pass};

mod client;
mod link;
mod world;

fn run(seed: u64) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(seed);
        let hub = Arc::clone(&world.hub);
        let clock = tokio::spawn(async move { hub.keep_time().await });
        tokio::task::yield_now().await;
        let outcome = std::panic::AssertUnwindSafe(async {
            for _ in 0..world.rng.usize(50..500) {
                world.step().await;
            }
            world.settle();
            world.check();
            for who in 0..world.clients.len() {
                world.hang_up_all(who, |_| true);
            }
            pass(LONGEST_POLL + WINDOW + Duration::from_secs(1)).await;
            assert_eq!(world.hub.room_count(), 0, "a ghost keeps the room");
        });
        let outcome = futures_util::FutureExt::catch_unwind(outcome).await;
        clock.abort();
        if let Err(panic) = outcome {
            world.log.iter().flatten().for_each(|line| eprintln!("{line}"));
            eprintln!("the simulation failed with WIGWAG_SIM_SEED={seed} (WIGWAG_SIM_LOG=1 prints what happened)");
            std::panic::resume_unwind(panic);
        }
    });
}

/// `WIGWAG_SIM_SEEDS` sets how many, `WIGWAG_SIM_SEED` runs one alone.
#[test]
fn sessions_survive_whatever_their_transports_do() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("WIGWAG_SIM_SEED") {
        return run(seed);
    }
    for seed in 0..number("WIGWAG_SIM_SEEDS").unwrap_or(2_000) {
        run(seed);
    }
}
