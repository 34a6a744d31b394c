//! The server's process, seen from outside: how much processor time it took, and how much memory it has.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

/// How many ports are tried for a server.
const SERVER_PORTS: u16 = 8192;
/// Those below are not everybody's.
const UNPRIVILEGED: u16 = 1024;

/// A process under measurement.
#[derive(Debug)]
pub struct Process {
    id: u32,
    /// Where it was started by us; ends with this.
    child: Option<Child>,
}

impl Process {
    /// One that runs already.
    ///
    /// # Errors
    /// If there is none, or the system does not tell how it fares (Linux does).
    pub fn running(id: u32) -> Result<Self> {
        let process = Process { id, child: None };
        process.cpu().with_context(|| format!("cannot look at the process {id}"))?;
        Ok(process)
    }

    /// Starts one on the first processor alone and moves this process to the others, so that load and server do not take each other's
    /// time. With a single processor they share it. Its standard output is not shown.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let (first, others) = split(&processors()?);
        // A child inherits the processors of its parent: set before, no thread of its is ever elsewhere.
        sched_setaffinity(None, &first)?;
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        sched_setaffinity(None, &others)?;
        let child = started.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Process { id: child.id(), child: Some(child) })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Looks whether a process that was started has ended.
    ///
    /// # Errors
    /// If it has.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        ended.map_or(Ok(()), |status| bail!("the server has ended: {status}"))
    }

    /// The processor time of its threads so far, as exact as the scheduler has it. Threads that have ended do not count.
    ///
    /// # Errors
    /// If it has ended.
    pub fn cpu(&self) -> Result<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.id)).context("the server has ended")? {
            let text = match fs::read_to_string(task?.path().join("schedstat")) {
                Ok(text) => text,
                // The thread has ended since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            nanos += text.split(' ').next().unwrap_or_default().parse::<u64>().context("schedstat")?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// If it has ended.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).context("the server has ended")?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(kib.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The processors that this process was given. Asked for once: after the first start, its own are the others alone.
fn processors() -> io::Result<CpuSet> {
    static PROCESSORS: OnceLock<CpuSet> = OnceLock::new();
    if let Some(known) = PROCESSORS.get() {
        return Ok(*known);
    }
    let given = sched_getaffinity(None)?;
    Ok(*PROCESSORS.get_or_init(|| given))
}

/// A free port of loopback, for TCP and UDP, below those that the system gives to clients: none of them can take it before the server has.
///
/// # Errors
/// If there is none, or the system does not tell (Linux does).
pub fn free_port() -> Result<u16> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let clients = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let end: u16 = clients.split_whitespace().next().context("ip_local_port_range")?.parse()?;
    // Runs side by side begin at different ones.
    let begin = std::process::id() as u16;
    (0..SERVER_PORTS)
        .map(|_| end.saturating_sub(1 + begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % SERVER_PORTS))
        .find(|port| *port >= UNPRIVILEGED && is_free((Ipv4Addr::LOCALHOST, *port)))
        .with_context(|| format!("none of the {SERVER_PORTS} ports below {end} is free"))
}

fn is_free(address: (Ipv4Addr, u16)) -> bool {
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

/// The first processor, and the others, or the same one if there are none.
fn split(all: &CpuSet) -> (CpuSet, CpuSet) {
    let mut numbers = (0..CpuSet::MAX_CPU).filter(|number| all.is_set(*number));
    let (mut first, mut others) = (CpuSet::new(), *all);
    if let Some(number) = numbers.next() {
        first.set(number);
        others.unset(number);
    }
    if others.count() == 0 { (first, first) } else { (first, others) }
}

/// A directory of the measured server's own, for this user alone; gone with what is returned.
///
/// # Errors
/// If it cannot be made.
pub fn temporary_dir() -> Result<TempDir> {
    tempfile::Builder::new().prefix("wigwag-bench-").tempdir().context("cannot make a directory for the server")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processors_of(id: u32) -> CpuSet {
        sched_getaffinity(rustix::process::Pid::from_raw(id.cast_signed())).expect("runs")
    }

    #[test]
    fn each_server_has_the_first_processor_and_the_load_never_moves_there() {
        // A thread of its own, as it is moved to other processors.
        let started = std::thread::spawn(|| {
            let given = sched_getaffinity(None).expect("Linux");
            let servers = [(); 2].map(|()| Process::start(Command::new("sleep").arg("60")).expect("sleep"));
            let (first, others) = split(&given);
            assert_eq!(servers.each_ref().map(|server| processors_of(server.id())), [first, first]);
            assert_eq!(sched_getaffinity(None).expect("Linux"), others);
        });
        started.join().expect("no assertion fails");
    }

    #[test]
    fn no_port_is_given_out_twice_nor_one_of_a_client() {
        let (one, other) = (free_port().expect("a port"), free_port().expect("another port"));
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a port");
        assert!(one != other && one.max(other) < client.port());
    }
}
