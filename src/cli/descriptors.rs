//! File descriptors: every TCP connection is one, and a server that has run out of them can neither accept nor read its own
//! certificate.

use tracing::{debug, warn};

use crate::config::Config;
use crate::error::StartError;

/// What is left for everything that is no client's connection: listeners, the operator's tools, certificates, keys, files of a
/// page, the log.
const RESERVE: usize = 256;

/// Fewer connections than that are no server.
const LEAST_CONNECTIONS: usize = 32;

/// Raises the number of files that this process may open as far as the system allows, and lets no more TCP connections in than
/// that is good for, less a reserve. QUIC connections share a socket, so they have `--max-connections` for themselves.
///
/// # Errors
/// The system allows too few.
pub(super) fn provide(config: &mut Config) -> Result<(), StartError> {
    let Some(files) = raise() else { return Ok(()) };
    let most = connections(files)?;
    if most < config.connections.connections {
        warn!(
            connections = most,
            files,
            "fewer TCP connections than --max-connections, for the limit of open files; raise it (ulimit -Hn, LimitNOFILE=)"
        );
        config.connections.tcp_connections = most;
    } else {
        debug!(files, "open files");
    }
    Ok(())
}

fn connections(files: usize) -> Result<usize, StartError> {
    files.checked_sub(RESERVE).filter(|most| *most >= LEAST_CONNECTIONS).ok_or_else(|| {
        let least = RESERVE + LEAST_CONNECTIONS;
        StartError::new(format_args!(
            "this process may open {files} files: at least {least} are needed; raise the limit (ulimit -Hn, LimitNOFILE=)"
        ))
    })
}

/// How many files may be open, now that the limit is as high as it may be. `None` where there is no limit, or no telling.
#[cfg(unix)]
pub(super) fn raise() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum })
    {
        debug!(%error, "the limit of open files stays as it is");
    }
    getrlimit(Resource::Nofile).current.map(|files| usize::try_from(files).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
pub(super) fn raise() -> Option<usize> {
    debug!("no limit of open files is known here");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_left_and_too_few_are_refused() {
        assert_eq!(connections(1024).unwrap(), 768);
        assert_eq!(connections(RESERVE + LEAST_CONNECTIONS).unwrap(), LEAST_CONNECTIONS);
        for files in [0, 100, RESERVE, RESERVE + LEAST_CONNECTIONS - 1] {
            assert!(connections(files).unwrap_err().to_string().contains("at least 288 are needed"));
        }
    }
}
