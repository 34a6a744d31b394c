//! What the process tells whoever supervises it, by systemd's protocol (sd_notify(3)): that it is ready, and that it stops.

use tracing::warn;

/// Tells it, if anybody wants to know: `NOTIFY_SOCKET` says where.
#[cfg(unix)]
pub(super) fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&path, state) {
        warn!(%error, state, "the supervisor at NOTIFY_SOCKET could not be told");
    }
}

#[cfg(unix)]
fn send(path: &std::ffi::OsStr, state: &str) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match path.as_bytes() {
        // A name beside the file system.
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not keep the server from serving.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(not(unix))]
pub(super) fn tell(_: &str) {}
