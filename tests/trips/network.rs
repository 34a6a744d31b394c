//! A network in lockstep: whatever both ends have said arrives together, one way later. So the number of ways that something takes is
//! the number of times that one end waits for the other, on a machine of any speed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep_until};

/// What one way takes, counted from the last word that goes with it.
const ONE_WAY: Duration = Duration::from_millis(50);

/// How often everything else in this thread has its turn, without anything more being said, before what was said arrives. Both ends
/// live in this thread, so that this is what they need, and not a time.
const TURNS: usize = 100;

/// What has been sent and has not arrived.
enum Parcel {
    /// The first packet of TCP's handshake; this is where the client's connection ends.
    Syn(TcpStream),
    /// The second one. The client says nothing before.
    SynAck(OwnedReadHalf, Arc<Writer>),
    Bytes(Arc<Writer>, Vec<u8>),
    Datagram(Arc<UdpSocket>, SocketAddr, Vec<u8>),
}

type Writer = tokio::sync::Mutex<OwnedWriteHalf>;

/// Bytes of one way, up to the server and down to the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) up: usize,
    pub(crate) down: usize,
}

#[derive(Default)]
struct State {
    sent: Vec<Parcel>,
    next: Way,
    ways: Vec<Way>,
}

#[derive(Default)]
struct Air {
    state: Mutex<State>,
    spoken: Notify,
}

/// A way to a server and back.
pub(crate) struct Network {
    /// Where its TCP port seems to be.
    pub(crate) tcp: SocketAddr,
    /// Where its UDP port seems to be.
    pub(crate) udp: SocketAddr,
    air: Arc<Air>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Network {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
        let air = Arc::new(Air::default());
        Network {
            tcp: listener.local_addr().expect("bound"),
            udp: socket.local_addr().expect("bound"),
            tasks: vec![
                tokio::spawn(Arc::clone(&air).carry(server)),
                tokio::spawn(Arc::clone(&air).take_connections(listener)),
                tokio::spawn(Arc::clone(&air).take_datagrams(socket, server)),
            ],
            air,
        }
    }

    /// The ways so far.
    pub(crate) fn ways(&self) -> Vec<Way> {
        self.air.state.lock().ways.clone()
    }

    /// Waits until nobody says anything any more.
    pub(crate) async fn silence(&self) {
        self.air.settle().await;
        while !self.air.state.lock().sent.is_empty() {
            tokio::time::sleep(ONE_WAY).await;
            self.air.settle().await;
        }
    }
}

impl Air {
    fn say(&self, parcel: Parcel, is_up: bool) {
        let mut state = self.state.lock();
        let bytes = match &parcel {
            Parcel::Syn(_) | Parcel::SynAck(..) => 0,
            Parcel::Bytes(_, bytes) | Parcel::Datagram(_, _, bytes) => bytes.len(),
        };
        *if is_up { &mut state.next.up } else { &mut state.next.down } += bytes;
        state.sent.push(parcel);
        self.spoken.notify_one();
    }

    /// Delivers what was said, one way after the other, as long as anything is said.
    async fn carry(self: Arc<Self>, server: SocketAddr) {
        loop {
            // A permit may be left of what has gone with the way before.
            while self.state.lock().sent.is_empty() {
                self.spoken.notified().await;
            }
            self.settle().await;
            let sent = {
                let mut state = self.state.lock();
                let way = std::mem::take(&mut state.next);
                state.ways.push(way);
                std::mem::take(&mut state.sent)
            };
            for parcel in sent {
                self.deliver(parcel, server).await;
            }
        }
    }

    /// Waits until both ends wait.
    async fn settle(&self) {
        let said = || self.state.lock().sent.len();
        let mut before = said();
        let mut until = Instant::now() + ONE_WAY;
        loop {
            sleep_until(until).await;
            for _ in 0..TURNS {
                yield_now().await;
            }
            let now = said();
            if now == before {
                return;
            }
            (before, until) = (now, Instant::now() + ONE_WAY);
        }
    }

    async fn deliver(self: &Arc<Self>, parcel: Parcel, server: SocketAddr) {
        match parcel {
            Parcel::Syn(client) => {
                let stream = TcpStream::connect(server).await.expect("the server listens");
                for stream in [&client, &stream] {
                    stream.set_nodelay(true).expect("an option");
                }
                let (client_reads, client_writes) = client.into_split();
                let (server_reads, server_writes) = stream.into_split();
                tokio::spawn(Arc::clone(self).take_bytes(server_reads, Arc::new(client_writes.into()), false));
                self.say(Parcel::SynAck(client_reads, Arc::new(server_writes.into())), false);
            }
            Parcel::SynAck(client, server) => {
                tokio::spawn(Arc::clone(self).take_bytes(client, server, true));
            }
            // Whoever is gone misses nothing.
            Parcel::Bytes(to, bytes) => drop(to.lock().await.write_all(&bytes).await),
            Parcel::Datagram(socket, to, bytes) => drop(socket.send_to(&bytes, to).await),
        }
    }

    async fn take_connections(self: Arc<Self>, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            self.say(Parcel::Syn(client), true);
        }
    }

    async fn take_bytes(self: Arc<Self>, mut from: OwnedReadHalf, to: Arc<Writer>, is_up: bool) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            self.say(Parcel::Bytes(Arc::clone(&to), buffer[..read].to_vec()), is_up);
        }
    }

    async fn take_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>, server: SocketAddr) {
        let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok((read, client)) = socket.recv_from(&mut buffer).await {
            let outside = match clients.get(&client) {
                Some(outside) => Arc::clone(outside),
                None => {
                    let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
                    tokio::spawn(Arc::clone(&self).take_answers(Arc::clone(&outside), Arc::clone(&socket), client));
                    clients.insert(client, Arc::clone(&outside));
                    outside
                }
            };
            self.say(Parcel::Datagram(outside, server, buffer[..read].to_vec()), true);
        }
    }

    async fn take_answers(self: Arc<Self>, outside: Arc<UdpSocket>, socket: Arc<UdpSocket>, client: SocketAddr) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read) = outside.recv(&mut buffer).await {
            self.say(Parcel::Datagram(Arc::clone(&socket), client, buffer[..read].to_vec()), false);
        }
    }
}
