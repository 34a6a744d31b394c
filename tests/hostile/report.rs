//! Progress while a scenario runs, and the lines that `scripts/hostile` shows when all have.

use std::fmt::Display;
use std::io::Write as _;

use super::network;

/// Says what goes on.
pub(crate) fn progress(what: impl Display) {
    println!("  {what}");
}

/// Begins a scenario, and its part of the report.
pub(crate) fn scenario(title: impl Display) {
    println!("\n{title}");
    append(&format!("{title}\n"));
}

/// One line of the scenario's result.
pub(crate) fn line(text: impl Display) {
    append(&format!("  {text}\n"));
}

/// Ends a scenario that went as it should.
pub(crate) fn passed() {
    progress("passed");
    append("  passed\n\n");
}

fn append(text: &str) {
    let file = std::fs::File::options().create(true).append(true).open(network::dir().join("report"));
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the report can be written");
}
