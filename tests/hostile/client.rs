//! A client that comes back by itself, as applications have it, held to one transport.

use wigwag::client::session::{Joined, Options, Session};
use wigwag::client::{Request, Via};
use wigwag::protocol::RoomName;

pub(crate) use wigwag::client::session::Event;

use super::network::Link;
use super::process::ServerProcess;
use crate::support::within;

/// A session over one transport.
pub(crate) struct Client {
    session: Session,
    /// The picture with which it began.
    pub(crate) joined: Box<Joined>,
}

impl Client {
    /// Joins `room` over `link`; the first event is what comes after `joined`.
    pub(crate) async fn join(server: &ServerProcess, link: Link, via: Via, room: &str) -> Self {
        let room = RoomName::parse(room).expect("a room name");
        let options = Options::at(link.endpoint(), room, server.trust.clone()).transports([via]);
        let mut session = within(Session::connect(options)).await.expect("it joins");
        match within(session.next()).await {
            Some(Event::Joined(joined)) => Client { session, joined },
            other => panic!("not joined but {other:?}"),
        }
    }

    /// Its peer id.
    pub(crate) fn peer(&self) -> &str {
        &self.joined.own.peer
    }

    /// What happens next. Cancel safe.
    pub(crate) async fn next(&mut self) -> Event {
        self.session.next().await.expect("`closed` comes before the end")
    }

    /// Sends `number` to another; a refusal comes as an event.
    pub(crate) async fn tell(&self, to: &str, number: usize) {
        let request = Request::message(to, &number).expect("JSON");
        drop(within(self.session.send(request)).await.expect("the session lives"));
    }
}
