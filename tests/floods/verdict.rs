//! What each flood is judged by, and its row of the table that `scripts/floods` prints.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::offender::Fates;
use super::pair::Talk;

/// The pair may wait twice as long as beside the reading port.
const SLOWER: u32 = 2;

/// And so long in any case: on a shared machine one turn of another process takes more than a message does.
const FLOOR: Duration = Duration::from_millis(20);

/// Memory by which the server may have grown since a first, short flood of the same kind.
pub(super) const MEMORY_KEPT: u64 = 8 * 1024 * 1024;

/// Who gets rid of less than this part of what a port takes that only reads has been slowed down.
const SLOWED: f64 = 0.5;

/// One flood at one target.
pub(super) struct Act {
    /// Processors that the server kept busy.
    pub(super) cpu: f64,
    pub(super) pair: Talk,
    pub(super) fates: Arc<Fates>,
    /// Requests that were refused on connections that stayed open.
    pub(super) refused: u64,
    /// What the target took.
    pub(super) bytes_a_second: f64,
    /// The server's memory at its most.
    pub(super) peak: u64,
}

/// Everything seen of one flood.
pub(super) struct Seen {
    pub(super) baseline: Act,
    pub(super) at_server: Act,
    /// The server's resident memory, after a first, short flood and after this one.
    pub(super) before: u64,
    pub(super) after: u64,
    /// By how much it was above what it is at rest at its most, in either flood, and by how much it may be, where that is told.
    pub(super) grown: u64,
    pub(super) most: Option<u64>,
}

/// Adds the row, and fails if anything is not as it should be.
pub(super) fn judge(name: &str, seen: &Seen) {
    let Seen { baseline, at_server, before, after, grown, most: may_grow } = seen;
    let (cuts, age) = at_server.fates.cut();
    let refused = at_server.fates.refused() as u64 + at_server.refused;
    let part = at_server.bytes_a_second / baseline.bytes_a_second.max(1.0);
    let mut fate = String::new();
    if cuts > 0 {
        write!(fate, "cut after {}, {cuts} times", time(age)).expect("a String");
    }
    if refused > 0 {
        write!(fate, "{}refused {refused} times", if cuts > 0 { "; " } else { "" }).expect("a String");
    }
    if fate.is_empty() {
        let kib = baseline.bytes_a_second / 1024.0;
        write!(fate, "slowed to {:.1} % of {kib:.0} KiB a second", part * 100.0).expect("a String");
    }
    let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    row(&format!(
        "| {name} | {:.0} % | {} | {} | {fate} | {:.0} / {:.0} / {:.0} MiB |",
        at_server.cpu * 100.0,
        time(at_server.pair.p99),
        time(baseline.pair.p99),
        mib(*before),
        mib(at_server.peak),
        mib(*after),
    ));
    assert!(
        cuts > 0 || refused > 0 || part < SLOWED,
        "{name}: the offender is neither cut off, refused nor slowed down ({part:.2})"
    );
    let most = (baseline.pair.p99 * SLOWER).max(FLOOR);
    let (p99, longest) = (at_server.pair.p99, at_server.pair.longest);
    assert!(p99 <= most, "{name}: the honest pair waits {p99:?} (p99; at most {longest:?}), and may wait {most:?}");
    if let Some(may_grow) = may_grow {
        assert!(grown <= may_grow, "{name}: memory grows by {:.0} MiB, and may by {:.0}", mib(*grown), mib(*may_grow));
    }
    assert!(*after <= before + MEMORY_KEPT, "{name}: {:.0} MiB of memory do not come back", mib(after - before));
}

fn time(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

fn row(text: &str) {
    println!("  {text}");
    let path = std::env::var("WIGWAG_FLOODS_REPORT").expect("scripts/floods runs this");
    let file = File::options().create(true).append(true).open(path);
    file.and_then(|mut file| writeln!(file, "{text}")).expect("the report can be written");
}
