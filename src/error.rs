//! Why the server did not start.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// A mistake in the configuration or in what it points at, which keeps the server from starting, or a fault that may have
/// passed at the next attempt.
///
/// Its text is always one line, for whoever typed the command: what is wrong, where, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct StartError {
    text: String,
    /// The setting whose value is wrong by itself.
    setting: Option<String>,
    /// Whether the same settings may do at another time.
    passing: bool,
}

impl StartError {
    /// An error with this text; control characters (of a path, of another program's message) become spaces.
    pub fn new(text: impl Display) -> Self {
        let text = text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        StartError { text, setting: None, passing: false }
    }

    /// Lays it to the charge of one setting alone: another value of that makes it good.
    pub fn about(self, setting: &str) -> Self {
        StartError { setting: Some(setting.to_owned()), ..self }
    }

    /// The setting whose value is wrong by itself, if it is that.
    pub fn setting(&self) -> Option<&str> {
        self.setting.as_deref()
    }

    /// Says that nothing need be wrong with the settings: it may have passed when the server is started again.
    pub fn passing(self) -> Self {
        StartError { passing: true, ..self }
    }

    /// Whether it may have passed when the server is started again.
    pub fn is_passing(&self) -> bool {
        self.passing
    }

    /// An address that cannot be listened on. `protocol` is `TCP` or `UDP`, `flag` the option that chooses the address. It may
    /// be had later: the network is not up, or the program that has it ends. A right that is missing does not come by itself.
    pub fn listen(protocol: &str, address: SocketAddr, flag: &str, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => format!("choose another with {flag}, or stop the program that has it"),
            io::ErrorKind::AddrNotAvailable => format!("this machine has no such address; choose another with {flag}"),
            io::ErrorKind::PermissionDenied if address.port() < 1024 => {
                format!("ports below 1024 need CAP_NET_BIND_SERVICE; grant it or choose another with {flag}")
            }
            _ => format!("choose another with {flag}"),
        };
        let passing = error.kind() != io::ErrorKind::PermissionDenied;
        let text = format_args!("cannot listen on {address} ({protocol}): {}; {remedy}", plainly(error));
        StartError { passing, ..StartError::new(text) }
    }

    /// A file that cannot be read, written or made (`doing`), and what to do about it.
    pub fn file(doing: &str, path: &Path, error: &io::Error, remedy: &str) -> Self {
        StartError::new(format_args!("cannot {doing} {}: {}; {remedy}", path.display(), plainly(error)))
    }
}

/// The system's words for an error, without capital and number.
fn plainly(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut rest = text.chars();
    rest.next().map(|first| first.to_lowercase().chain(rest).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_and_says_what_to_do() {
        let address = "127.0.0.1:4433".parse().unwrap();
        let taken = io::Error::from_raw_os_error(98);
        assert!(StartError::listen("TCP", address, "--listen", &taken).is_passing());
        let forbidden = io::ErrorKind::PermissionDenied.into();
        assert!(!StartError::listen("TCP", address, "--listen", &forbidden).is_passing());
        assert_eq!(
            StartError::listen("TCP", address, "--listen", &taken).to_string(),
            "cannot listen on 127.0.0.1:4433 (TCP): address already in use; choose another with --listen, \
             or stop the program that has it"
        );
        let missing = io::Error::from_raw_os_error(2);
        let error = StartError::file("read", Path::new("a\nb"), &missing, "check --key");
        assert_eq!(error.to_string(), "cannot read a b: no such file or directory; check --key");
    }
}
