//! The settings of a server that runs, read again: what can change does, and the log names what cannot.

use tracing::{info, warn};

use super::log::Control;
use crate::config::{RELOADED, Settings, Sources};
use crate::error::StartError;
use crate::server::Reloader;

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
        match changed {
            Ok((now, later)) if now.is_empty() && later.is_empty() => info!("the settings are as they were"),
            Ok((now, later)) => {
                if !now.is_empty() {
                    info!(settings = now.join(", "), "changed settings are in effect");
                }
                if !later.is_empty() {
                    warn!(settings = later.join(", "), "changed settings wait for a restart");
                }
            }
            Err(error) => warn!(%error, "the settings cannot be used; those in use stay"),
        }
    }

    /// Returns the names of the settings that have changed, and of those that wait for a restart.
    fn change(&mut self, reloader: &Reloader) -> Result<(Vec<String>, Vec<String>), StartError> {
        let (settings, sources) = self.sources.read_again()?;
        settings.resolve(&sources)?;
        let changes = self.running.changes(&settings);
        let (now, later): (Vec<_>, Vec<_>) = changes.into_iter().partition(|key| RELOADED.contains(&key.as_str()));
        let changed = now.iter().try_fold(self.running.clone(), |running, key| running.with(key, &settings));
        let changed = changed.ok_or_else(|| StartError::new("they cannot be joined to those in use"))?;
        // Checked before anything takes effect; with the settings that wait they may have been right, and not without.
        let config = changed.resolve(&sources)?;
        self.log.apply(&changed, &sources)?;
        reloader.apply(&config);
        (self.running, self.sources) = (changed, sources);
        Ok((now, later))
    }
}
