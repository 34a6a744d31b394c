//! The settings of a server that runs, read again: what can change does, and the log names what cannot.

use tracing::{info, warn};

use super::log::Control;
use crate::config::{RELOADED, Settings, Sources};
use crate::error::StartError;
use crate::server::Reloader;

/// The names of the settings that have changed.
struct Changes {
    /// In effect from now on.
    now: Vec<String>,
    /// They wait for a restart.
    later: Vec<String>,
    /// They could be in effect, but do not go with those in use, whose change waits for a restart.
    held: Vec<String>,
}

/// What the server was started with, as far as nothing has changed it since.
pub(super) struct Reload {
    running: Settings,
    sources: Sources,
    log: Control,
}

impl Reload {
    pub(super) fn new(settings: &Settings, sources: &Sources, log: Control) -> Self {
        Reload { running: settings.clone(), sources: sources.clone(), log }
    }

    /// Reads the settings again. If anything is wrong with them, all stay as they were.
    pub(super) fn settings(&mut self, reloader: &Reloader) {
        let changed = self.change(reloader);
        reloader.note_settings(changed.is_ok());
        let Changes { now, later, held } = match changed {
            Ok(changes) => changes,
            Err(error) => return warn!(%error, "the settings cannot be used; those in use stay"),
        };
        if now.is_empty() && later.is_empty() {
            info!("the settings are as they were");
        }
        if !now.is_empty() {
            info!(settings = now.join(", "), "changed settings are in effect");
        }
        if !held.is_empty() {
            warn!(settings = held.join(", "), "changed settings wait for a restart with those that they depend on");
        }
        if !later.is_empty() {
            warn!(settings = later.join(", "), "changed settings wait for a restart");
        }
    }

    fn change(&mut self, reloader: &Reloader) -> Result<Changes, StartError> {
        let (settings, sources) = self.sources.read_again()?;
        settings.resolve(&sources)?;
        let (wanted, later): (Vec<_>, Vec<_>) =
            self.running.changes(&settings).into_iter().partition(|key| RELOADED.contains(&key.as_str()));
        // Checked before anything takes effect: with the settings that wait they are right, and may not be without.
        let with = |keys: &[String]| {
            let joined = keys.iter().try_fold(self.running.clone(), |running, key| running.with(key, &settings))?;
            let config = joined.resolve(&sources).ok()?;
            Some((joined, config))
        };
        let (now, held) = if with(&wanted).is_some() { (wanted, Vec::new()) } else { fitting(wanted, with) };
        let (changed, config) = with(&now).ok_or_else(|| StartError::new("they cannot be joined to those in use"))?;
        self.log.apply(&changed, &sources)?;
        reloader.apply(&config);
        (self.running, self.sources) = (changed, sources);
        Ok(Changes { now, later, held })
    }
}

/// Those of `wanted` that can be in use together, one after another, and those that cannot.
fn fitting<T>(wanted: Vec<String>, with: impl Fn(&[String]) -> Option<T>) -> (Vec<String>, Vec<String>) {
    let (mut fit, mut held) = (Vec::new(), Vec::new());
    for key in wanted {
        fit.push(key);
        if with(&fit).is_none() {
            held.extend(fit.pop());
        }
    }
    (fit, held)
}
