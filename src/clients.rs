//! Who the clients are, and how much each may ask of the server: token buckets and counts for each client address.
//!
//! The table is bounded. An address is forgotten when nothing of it is open and its buckets are full again, as it is then like one
//! never seen; when new ones need its place, also before, the most rested first. So the table holds [`MOST_ADDRESSES`] and
//! those that have something open, which other limits bound; an address costs at most 160 bytes, the whole table 10 MiB.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use parking_lot::{Mutex, RwLock};

mod address;
mod bucket;
mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

pub use address::ClientAddress;
pub use bucket::Quota;
use bucket::{Bucket, nanoseconds};
use forwarded::contains;
pub use forwarded::{ForwardedHeader, Malformed};

/// Addresses that are remembered though nothing of theirs is open.
pub const MOST_ADDRESSES: usize = 65_536;

/// Few enough to cost nothing when empty; all connections of an address meet in one, for the time of a look.
const SHARDS: usize = 64;

/// Whoever has as much open as it may is told to come back after this time; when something will close, nobody knows.
const OPEN_WAIT: Duration = Duration::from_secs(5);

/// What the operator has said about client addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Proxies whose word on the client's address is taken.
    pub trusted: Vec<IpNet>,
    /// Where it stands in requests.
    pub header: ForwardedHeader,
    /// Whether TCP connections begin with a PROXY protocol header, of a trusted proxy.
    pub proxy_protocol: bool,
    /// Clients that are not limited.
    pub exempt: Vec<IpNet>,
    /// What every other one may ask for.
    pub limits: Limits,
}

impl Default for Policy {
    fn default() -> Self {
        let v4 = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).expect("a prefix");
        let v6 = Ipv6Net::new(Ipv6Addr::LOCALHOST, 128).expect("a prefix");
        Policy {
            trusted: Vec::new(),
            header: ForwardedHeader::default(),
            proxy_protocol: false,
            exempt: vec![v4.into(), v6.into()],
            limits: Limits::default(),
        }
    }
}

/// What one client address may ask for. The defaults are meant for a campus behind one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// New connections.
    pub connections: Quota,
    /// Sessions that join, or move to another transport.
    pub joins: Quota,
    /// Bad tokens and tickets.
    pub failures: Quota,
    /// Lines and datagrams of all sessions together, without `ack` and `ping`.
    pub messages: Quota,
    /// Bytes of them, with `ack` and `ping`.
    pub bytes: Quota,
    /// Connections open at once.
    pub open_connections: u32,
    /// Sessions with a transport at once.
    pub sessions: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let in_seconds = |amount, seconds| Quota { amount, per: Duration::from_secs(seconds) };
        Limits {
            connections: in_seconds(2000, 10),
            joins: in_seconds(2000, 10),
            failures: in_seconds(3000, 60),
            messages: in_seconds(50_000, 10),
            bytes: in_seconds(128 * 1024 * 1024, 10),
            open_connections: 4096,
            sessions: 4096,
        }
    }
}

/// What there was too much of from one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// New connections.
    Connections,
    /// Connections at once.
    OpenConnections,
    /// New sessions.
    Joins,
    /// Bad tokens and tickets.
    Failures,
    /// Messages.
    Messages,
    /// Bytes of messages.
    Bytes,
    /// Sessions at once.
    Sessions,
}

impl Limit {
    /// Each of them.
    pub const ALL: [Limit; 7] = [
        Limit::Connections,
        Limit::OpenConnections,
        Limit::Joins,
        Limit::Failures,
        Limit::Messages,
        Limit::Bytes,
        Limit::Sessions,
    ];

    /// The limit's name in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Connections => "address-connections",
            Limit::OpenConnections => "address-open-connections",
            Limit::Joins => "address-joins",
            Limit::Failures => "address-failures",
            Limit::Messages => "address-messages",
            Limit::Bytes => "address-bytes",
            Limit::Sessions => "address-sessions",
        }
    }

    fn excess(self) -> impl FnOnce(Duration) -> Excess {
        move |wait| Excess { limit: self, wait }
    }

    /// For the client's developer.
    pub fn describe(self) -> &'static str {
        match self {
            Limit::Connections => "too many new connections from this address",
            Limit::OpenConnections => "too many connections from this address",
            Limit::Joins => "too many new sessions from this address",
            Limit::Failures => "too many bad tokens and tickets from this address",
            Limit::Messages => "too many messages from this address",
            Limit::Bytes => "too many bytes from this address",
            Limit::Sessions => "too many sessions from this address",
        }
    }
}

/// More than one address may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", .limit.describe())]
pub struct Excess {
    /// Of what.
    pub limit: Limit,
    /// When to try again.
    pub wait: Duration,
}

/// All addresses that are known at the moment.
#[derive(Debug)]
pub struct Clients {
    /// Whoever is known already keeps the one that it met.
    common: RwLock<Arc<Common>>,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<ClientAddress, Arc<Account>>;

/// Static after construction.
#[derive(Debug)]
struct Common {
    policy: Policy,
    /// The buckets' clock counts from here.
    begin: Instant,
}

impl Common {
    fn now(&self) -> u64 {
        nanoseconds(self.begin.elapsed())
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        contains(&self.policy.exempt, address)
    }
}

/// What is known of one address. Locked for a few instructions at a time.
#[derive(Debug, Default)]
struct Account(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connections: Bucket,
    joins: Bucket,
    failures: Bucket,
    messages: Bucket,
    bytes: Bucket,
    open_connections: u32,
    sessions: u32,
}

impl Clients {
    /// Nobody yet.
    pub fn new(policy: Policy) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let common = RwLock::new(Arc::new(Common { policy, begin: Instant::now() }));
        Clients { common, hasher: RandomState::new(), shards }
    }

    /// Another policy, for connections and requests from now on; what addresses have asked for is not forgotten.
    pub fn change(&self, policy: Policy) {
        let mut common = self.common.write();
        *common = Arc::new(Common { policy, begin: common.begin });
    }

    fn common(&self) -> Arc<Common> {
        Arc::clone(&self.common.read())
    }

    /// Whether a proxy at this address is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        contains(&self.common.read().policy.trusted, peer.to_canonical())
    }

    /// Who sent a request that came from `peer`.
    ///
    /// # Errors
    /// `peer` is a trusted proxy and its header says nothing that could be understood.
    pub fn of_request(&self, peer: IpAddr, headers: &HeaderMap) -> Result<Client, Malformed> {
        let common = self.common();
        let policy = &common.policy;
        Ok(self.client(policy.header.client(peer, headers, &policy.trusted)?))
    }

    /// A connection that has come from `peer`, counted as open until it drops. One of a trusted proxy carries many clients, and
    /// is not counted.
    ///
    /// # Errors
    /// The address has too many, or has opened too many.
    pub fn connect(&self, peer: IpAddr) -> Result<Place, Excess> {
        if self.trusts(peer) {
            return Ok(Place::uncounted());
        }
        self.client(peer).connect()
    }

    /// Whether a connection from `peer` would be let in, where it is not proven that it comes from there. Nothing is counted:
    /// the address may be somebody else's.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn may_connect(&self, peer: IpAddr) -> Result<(), Excess> {
        let (peer, common) = (peer.to_canonical(), self.common());
        if self.trusts(peer) || common.is_exempt(peer) {
            return Ok(());
        }
        let account = self.shard(peer.into()).lock().get(&peer.into()).map(Arc::clone);
        account.map_or(Ok(()), |account| account.0.lock().may_connect(&common.policy.limits, common.now()))
    }

    /// Addresses that are remembered.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The client at an address.
    pub fn client(&self, address: IpAddr) -> Client {
        let (address, common) = (address.to_canonical(), self.common());
        if common.is_exempt(address) {
            return Client { address, known: None };
        }
        let mut shard = self.shard(address.into()).lock();
        if shard.len() >= MOST_ADDRESSES / SHARDS && !shard.contains_key(&address.into()) {
            make_room(&mut shard, common.now());
        }
        let account = Arc::clone(shard.entry(address.into()).or_default());
        Client { address, known: Some(Known { account, common }) }
    }

    fn shard(&self, address: ClientAddress) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(address) as usize % SHARDS]
    }
}

/// Forgets whoever is like one never seen and, where these are few, the most rested of the others; a quarter at least, so that a
/// flood of new addresses does not look at all of them each time. Those with something open stay.
fn make_room(shard: &mut Shard, now: u64) {
    // Nobody but the table has it, and only under the shard's lock does anybody get it from there.
    let is_closed = |account: &Arc<Account>| Arc::strong_count(account) == 1;
    let rested_at = |account: &Arc<Account>| account.0.lock().rested_at();
    let mut closed: Vec<u64> = shard.values().filter(|account| is_closed(account)).map(rested_at).collect();
    let quarter = shard.len() / 4;
    let forget_until = if closed.len() <= quarter { u64::MAX } else { now.max(*closed.select_nth_unstable(quarter).1) };
    shard.retain(|_, account| !is_closed(account) || rested_at(account) > forget_until);
}

impl State {
    /// When all buckets will be full.
    fn rested_at(&self) -> u64 {
        let buckets = [self.connections, self.joins, self.failures, self.messages, self.bytes];
        buckets.iter().map(Bucket::full_at).max().unwrap_or_default()
    }

    fn may_connect(&self, limits: &Limits, now: u64) -> Result<(), Excess> {
        below(self.open_connections, limits.open_connections, Limit::OpenConnections)?;
        self.connections.look(limits.connections, 1, now).map_err(Limit::Connections.excess())
    }

    fn connect(&mut self, limits: &Limits, now: u64) -> Result<(), Excess> {
        below(self.open_connections, limits.open_connections, Limit::OpenConnections)?;
        self.connections.take(limits.connections, 1, now).map_err(Limit::Connections.excess())?;
        self.open_connections += 1;
        Ok(())
    }

    fn message(&mut self, limits: &Limits, bytes: usize, counts: bool, now: u64) -> Result<(), Excess> {
        self.bytes.take(limits.bytes, bytes as u64, now).map_err(Limit::Bytes.excess())?;
        self.messages.take(limits.messages, u64::from(counts), now).map_err(Limit::Messages.excess())
    }
}

fn below(open: u32, most: u32, limit: Limit) -> Result<(), Excess> {
    if open < most { Ok(()) } else { Err(Excess { limit, wait: OPEN_WAIT }) }
}

/// One client, as far as it is known.
#[derive(Debug, Clone)]
pub struct Client {
    address: IpAddr,
    /// `None` where nothing is limited.
    known: Option<Known>,
}

#[derive(Debug, Clone)]
struct Known {
    account: Arc<Account>,
    common: Arc<Common>,
}

impl Client {
    /// Its address in full.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether it may show another token or ticket.
    ///
    /// # Errors
    /// Too many of the last were bad.
    pub fn may_try(&self) -> Result<(), Excess> {
        self.with(|state, limits, now| state.failures.look(limits.failures, 1, now).map_err(Limit::Failures.excess()))
    }

    /// A token or ticket was bad.
    pub fn failed(&self) {
        // When the bucket is empty, nothing is left to be taken away.
        let _ = self.with(|state, limits, now| state.failures.take(limits.failures, 1, now));
    }

    /// A session joins, or moves to another transport.
    ///
    /// # Errors
    /// Too many have.
    pub fn join(&self) -> Result<(), Excess> {
        self.with(|state, limits, now| state.joins.take(limits.joins, 1, now).map_err(Limit::Joins.excess()))
    }

    /// A session has a transport until what is returned drops.
    ///
    /// # Errors
    /// Too many have.
    pub fn session(&self) -> Result<Place, Excess> {
        self.with(|state, limits, _| {
            below(state.sessions, limits.sessions, Limit::Sessions)?;
            state.sessions += 1;
            Ok(())
        })?;
        Ok(Place { known: self.known.clone(), free: |state| state.sessions -= 1 })
    }

    /// A line or datagram of so many bytes has come; `counts` is false where it is no message of the application's.
    ///
    /// # Errors
    /// There were too many, or too many bytes.
    pub fn message(&self, bytes: usize, counts: bool) -> Result<(), Excess> {
        self.with(|state, limits, now| state.message(limits, bytes, counts, now))
    }

    fn connect(&self) -> Result<Place, Excess> {
        self.with(State::connect)?;
        Ok(Place { known: self.known.clone(), free: |state| state.open_connections -= 1 })
    }

    /// An address that is not limited has nothing to look at.
    fn with<E>(&self, act: impl FnOnce(&mut State, &Limits, u64) -> Result<(), E>) -> Result<(), E> {
        let Some(Known { account, common }) = &self.known else { return Ok(()) };
        let now = common.now();
        act(&mut account.0.lock(), &common.policy.limits, now)
    }
}

/// One thing that is open, counted until it drops.
#[derive(Debug)]
pub struct Place {
    known: Option<Known>,
    free: fn(&mut State),
}

impl Place {
    fn uncounted() -> Self {
        Place { known: None, free: |_| {} }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(known) = &self.known {
            (self.free)(&mut known.account.0.lock());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(limits: Limits) -> Clients {
        Clients::new(Policy { exempt: Vec::new(), limits, ..Policy::default() })
    }

    fn few() -> Limits {
        let quota = |amount| Quota { amount, per: Duration::from_secs(3600) };
        Limits {
            connections: quota(3),
            joins: quota(3),
            failures: quota(2),
            messages: quota(4),
            bytes: quota(1000),
            open_connections: 2,
            sessions: 2,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn excess<T>(result: Result<T, Excess>) -> Option<Limit> {
        result.err().map(|excess| excess.limit)
    }

    #[test]
    fn each_limit_is_the_addresss_own() {
        let clients = limited(few());
        let (client, other) = (clients.client(ip("192.0.2.1")), clients.client(ip("192.0.2.2")));
        assert!((0..3).all(|_| client.join().is_ok()));
        assert_eq!(excess(client.join()), Some(Limit::Joins));
        assert!(other.join().is_ok());
        assert!(client.may_try().is_ok());
        (0..3).for_each(|_| client.failed());
        assert_eq!(excess(client.may_try()), Some(Limit::Failures));
        assert!((0..4).all(|_| client.message(10, true).is_ok()));
        assert_eq!(excess(client.message(10, true)), Some(Limit::Messages));
        assert!(client.message(10, false).is_ok(), "a ping is no message");
        assert_eq!(excess(client.message(941, false)), Some(Limit::Bytes));
        assert!(other.message(1000, true).is_ok());
    }

    #[test]
    fn what_is_open_is_counted_until_it_closes() {
        let clients = limited(few());
        let address = ip("2001:db8::1");
        let (first, _second) = (clients.connect(address).unwrap(), clients.connect(ip("2001:db8::2")).unwrap());
        assert_eq!(excess(clients.connect(address)), Some(Limit::OpenConnections));
        assert_eq!(excess(clients.may_connect(address)), Some(Limit::OpenConnections));
        drop(first);
        drop(clients.connect(address).unwrap());
        assert_eq!(excess(clients.connect(address)), Some(Limit::Connections));
        assert_eq!(excess(clients.may_connect(address)), Some(Limit::Connections));
        let client = clients.client(address);
        let (one, _two) = (client.session().unwrap(), client.session().unwrap());
        assert_eq!(excess(client.session()), Some(Limit::Sessions));
        drop(one);
        assert!(client.session().is_ok());
    }

    #[test]
    fn looking_counts_and_remembers_nothing() {
        let clients = limited(few());
        assert!((0..100).all(|_| clients.may_connect(ip("192.0.2.1")).is_ok()));
        assert_eq!(clients.count(), 0);
    }

    #[test]
    fn loopback_is_not_limited_unless_it_is_said_and_connections_of_proxies_are_not() {
        let clients = Clients::new(Policy { limits: few(), ..Policy::default() });
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let client = clients.client(ip(address));
            assert!((0..100).all(|_| client.join().is_ok() && client.message(9999, true).is_ok()));
        }
        assert_eq!(clients.count(), 0);
        let trusted = vec!["192.0.2.0/24".parse().unwrap()];
        let clients = Clients::new(Policy { trusted, limits: few(), ..Policy::default() });
        let places: Vec<_> = (0..100).map_while(|_| clients.connect(ip("192.0.2.9")).ok()).collect();
        assert_eq!(places.len(), 100);
        let proxy = clients.of_request(ip("192.0.2.9"), &HeaderMap::new()).unwrap();
        assert_eq!((0..100).filter(|_| proxy.join().is_ok()).count(), 3, "what it asks for itself is limited");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_neither_who_is_here_nor_who_is_tired_first() {
        let clients = limited(few());
        let (here, tired) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let place = clients.connect(here).unwrap();
        (0..2).for_each(|_| clients.client(tired).failed());
        for number in 0..2 * MOST_ADDRESSES as u32 {
            clients.client(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        }
        assert!(clients.count() <= MOST_ADDRESSES, "{}", clients.count());
        assert_eq!(excess(clients.client(tired).may_try()), Some(Limit::Failures));
        // Now that all are tired, the least tired go.
        for number in 0..2 * MOST_ADDRESSES as u32 {
            clients.client(IpAddr::from((0x0b00_0000 + number).to_be_bytes())).failed();
        }
        assert!(clients.count() <= MOST_ADDRESSES, "{}", clients.count());
        let second = clients.connect(here).unwrap();
        assert_eq!(excess(clients.connect(here)), Some(Limit::OpenConnections));
        drop((place, second));
    }

    #[test]
    fn an_address_costs_as_little_as_the_documentation_says() {
        let table_slot = size_of::<(ClientAddress, Arc<Account>)>() + 1;
        let shared = 2 * size_of::<usize>();
        // A table is at least seven sixteenths full.
        assert!(table_slot * 16 / 7 + shared + size_of::<Account>() <= 160);
    }
}
