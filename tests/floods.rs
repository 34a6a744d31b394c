//! One client that floods the server in every way there is, beside an honest pair that talks.
//!
//! Each flood runs three times: against a port that only reads and throws away, to see what the machine's load alone does to
//! the pair; against the server for a short time, to see what memory it then keeps; and against the server again, which is what
//! is judged. All are ignored unless `scripts/floods` runs them, and fail when the offender is neither cut off nor slowed down,
//! when the pair waits longer than beside the reading port, or when memory does not come back.

mod http1;
mod http2;
mod offender;
mod pair;
mod quic;
mod reading;
mod scene;
mod slow;
mod verdict;
mod websocket;

use std::future::Future;

use offender::{End, Target};

/// One flood: `attack` opens one connection to its target, does its worst, and returns when it has been refused or cut off.
/// It is begun again for as long as the flood lasts, on `connections` connections at once.
fn flood<A, F>(name: &'static str, connections: usize, attack: A)
where
    A: Fn(Target) -> F + Send + Sync + 'static,
    F: Future<Output = End> + Send + 'static,
{
    flood_within(name, connections, None, attack);
}

/// The same, and at its most the server may take so many bytes of memory more than at rest, where this is told.
fn flood_within<A, F>(name: &'static str, connections: usize, most: Option<u64>, attack: A)
where
    A: Fn(Target) -> F + Send + Sync + 'static,
    F: Future<Output = End> + Send + 'static,
{
    let mut scene = scene::Scene::set();
    let attack = std::sync::Arc::new(attack);
    let at_rest = scene.server.memory().expect("it runs");
    println!("  {name}: at a port that only reads");
    let baseline = scene.act(scene.reading(), connections, &attack, scene::seconds());
    // The allocator keeps some of what was in use once. What grows from there on is not let go of.
    let first = scene.act(scene.target(), connections, &attack, scene::FIRST);
    let before = scene.memory_settles();
    println!("  {name}: at the server");
    let at_server = scene.act(scene.target(), connections, &attack, scene::seconds());
    let after = scene.memory_returns(before);
    let grown = first.peak.max(at_server.peak).saturating_sub(at_rest);
    verdict::judge(name, &verdict::Seen { baseline, at_server, before, after, grown, most });
}
