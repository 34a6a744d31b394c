//! The wire contract `wigwag.v1` as types: names, codes, limits and messages.
//!
//! Nothing in here does I/O, reads a clock or draws a random number. Bytes that came from a client go through
//! [`Request::parse`], bytes that go to one come from [`Body`] and [`notice`]; what lies between are plain values that
//! `room` and `seat` decide upon. `docs/protocol.md` is the reference that this module follows.

mod code;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod grant;
mod ids;
mod json;
mod limits;
mod media;
mod milestone;
mod request;
mod server;
mod transport;
mod waiting;

pub use code::{Code, Refusal};
pub use grant::{Claim, Grant, Invitation, Rights, Shown};
pub use ids::{InvalidRoomName, JoinKey, NodeId, PeerId, RoomName, Ticket, Token};
pub(crate) use json::compact;
pub use limits::Limits;
pub use media::Checks;
pub use milestone::{CandidateType, Milestone, Reached};
pub use request::{Command, Invalid, Invite, Join, Moderate, Outbound, PayloadKind, Recipient, Request, Resume, Step};
pub use server::{
    Body, Frame, Joined, Kind, LeftReason, Member, Metadata, PeerInfo, PeerState, Picture, Presence, Resumed, RoomInfo,
    notice,
};
pub use transport::Transport;
pub use waiting::{Newcomers, WaitingRoom};

/// The protocol's name and version: WebSocket subprotocol, WebTransport application protocol, discovery.
pub const PROTOCOL: &str = "wigwag.v1";

/// The path under which every room lives, on every transport.
pub const ROOMS_PATH: &str = "/v1/rooms/";
