//! Logs: to standard error, as text or JSON.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, Settings, Sources};
use crate::error::StartError;

/// Begins to log.
///
/// # Errors
/// A filter that is none.
pub(super) fn start(settings: &Settings, sources: &Sources) -> Result<(), StartError> {
    let wanted = settings.log.as_deref().unwrap_or("info");
    let filter = EnvFilter::builder().parse(wanted).map_err(|error| {
        StartError::new(format_args!(
            "{} is {wanted}: {error}; write a level (error, warn, info, debug, trace) or a list like wigwag=debug,info",
            sources.name("log")
        ))
    })?;
    // Below info, libraries log what passes through them, and that is other people's.
    let capped = filter_fn(|metadata| is_ours(metadata.target()) || *metadata.level() <= LevelFilter::INFO);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match settings.log_format.unwrap_or_default() {
        LogFormat::Text => layer.with_ansi(colours()).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter.and(capped)));
    subscriber.try_init().map_err(StartError::new)
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix("wigwag").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// See <https://no-color.org>.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
