//! Logs: to standard error, as text or JSON.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{Filter, Layer, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, Settings, Sources};
use crate::error::StartError;

/// Changes what is logged, while it is.
#[derive(Clone)]
pub(super) struct Control(Handle<Wanted, Registry>);

type Wanted = Box<dyn Filter<Registry> + Send + Sync>;

/// Begins to log.
///
/// # Errors
/// A filter that is none.
pub(super) fn start(settings: &Settings, sources: &Sources) -> Result<Control, StartError> {
    let (filter, control) = reload::Layer::new(filter(settings, sources)?);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match settings.log_format.unwrap_or_default() {
        LogFormat::Text => layer.with_ansi(colours()).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
    subscriber.try_init().map_err(StartError::new)?;
    Ok(Control(control))
}

impl Control {
    /// Logs what these settings ask for, from now on.
    ///
    /// # Errors
    /// A filter that is none.
    pub(super) fn apply(&self, settings: &Settings, sources: &Sources) -> Result<(), StartError> {
        self.0.reload(filter(settings, sources)?).map_err(StartError::new)
    }
}

fn filter(settings: &Settings, sources: &Sources) -> Result<Wanted, StartError> {
    let nats = settings.log.as_deref().is_some_and(|wanted| wanted.contains("async_nats"));
    Ok(Box::new(capped(settings.log_filter(sources)?, nats)))
}

/// What was asked for, but of libraries nothing below info: there they log what passes through them, and that is other
/// people's. NATS's tells of each attempt to connect, what is said once without it; whoever wants that (`nats`) names it.
fn capped<S: Subscriber>(wanted: EnvFilter, nats: bool) -> impl Filter<S> {
    let capped = filter_fn(move |metadata| {
        let target = metadata.target();
        is_ours(target) || *metadata.level() <= LevelFilter::INFO && (nats || !target.starts_with("async_nats"))
    });
    wanted.and(capped)
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix("wigwag").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// See <https://no-color.org>.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::sync::Arc;

    use tracing::{debug, info, trace};

    use super::*;

    fn logged(wanted: &str) -> String {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let layer = tracing_subscriber::fmt::layer().with_writer(file.clone()).with_ansi(false);
        let settings = Settings { log: Some(wanted.to_owned()), ..Settings::default() };
        let wanted = filter(&settings, &Sources::default()).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(wanted));
        tracing::subscriber::with_default(subscriber, || {
            trace!(target: "wigwag::hub", "ours");
            debug!(target: "wigwagging", "theirs at debug");
            debug!(target: "h2", "theirs at debug");
            info!(target: "h2", "theirs at info");
            info!(target: "async_nats::connector", "of NATS");
        });
        let (mut file, mut text) = (file.as_ref(), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn libraries_never_log_below_info() {
        for wanted in ["trace", "wigwag=trace,h2=trace,wigwagging=trace"] {
            let text = logged(wanted);
            assert!(text.contains("ours") && text.contains("theirs at info") && !text.contains("at debug"), "{text}");
        }
        assert!(!logged("trace").contains("of NATS") && logged("async_nats=info").contains("of NATS"));
        assert_eq!(logged("error"), "");
    }
}
