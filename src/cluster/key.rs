//! The key that all nodes of a cluster share, by which each knows the tickets that the others have written.

use std::fmt;

use ring::hmac;
use subtle::ConstantTimeEq as _;

use crate::error::StartError;
use crate::protocol::{NodeId, RoomName, Ticket};
use crate::secret::SecretSource;

/// Characters of a key, at least: as many as 128 random bits take in hexadecimal.
const SHORTEST: usize = 32;

/// Seals tickets, so that a forged one costs no other node anything.
pub struct Key(hmac::Key);

/// It must not show in a log.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// Reads the key.
    ///
    /// # Errors
    /// There is none, it is too short, or every user of the machine can read it.
    pub fn load(source: &SecretSource) -> Result<Self, StartError> {
        let text =
            source.read("--cluster-key", "the same at every node, such as what 'openssl rand -hex 32' prints")?;
        if text.len() < SHORTEST {
            let least = format_args!("--cluster-key: the key must have {SHORTEST} characters or more, at random");
            return Err(StartError::new(least));
        }
        Ok(Self::new(text.as_bytes()))
    }

    /// Takes the key itself.
    pub fn new(secret: &[u8]) -> Self {
        Key(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The ticket with the proof that this node has written it for a seat in this room.
    pub fn seal(&self, ticket: Ticket, room: &RoomName, node: NodeId) -> Ticket {
        ticket.sealed(node, |content| self.sign(room, content))
    }

    /// Which node has written a ticket; `None` if none of the cluster has, or for another room.
    pub fn opens(&self, ticket: &Ticket, room: &RoomName) -> Option<NodeId> {
        let (node, seal) = ticket.home()?;
        let genuine: bool = self.sign(room, &ticket.content(node)).ct_eq(&seal).into();
        genuine.then_some(node)
    }

    fn sign(&self, room: &RoomName, content: &[u8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.0);
        // What comes before the name has a fixed length, so that nothing can be moved from one to the other.
        context.update(b"wigwag ticket");
        context.update(content);
        context.update(room.as_str().as_bytes());
        let mut seal = [0; 16];
        seal.copy_from_slice(&context.sign().as_ref()[..16]);
        seal
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::protocol::PeerId;

    #[test]
    fn a_ticket_opens_with_the_key_and_for_the_room_for_which_it_was_sealed() {
        let (key, other) = (Key::new(b"one"), Key::new(b"two"));
        let room = |name| RoomName::parse(name).expect("a name");
        let node = NodeId::new(NonZeroU64::new(7).expect("not zero"));
        let ticket = Ticket::new(PeerId::new(uuid::Uuid::from_u128(1)), [9; 16]);
        let sealed = key.seal(ticket, &room("a"), node);
        let read = Ticket::parse(&sealed.to_text()).expect("a ticket");
        assert_eq!(key.opens(&read, &room("a")), Some(node));
        assert_eq!(key.opens(&read, &room("b")), None);
        assert_eq!(other.opens(&read, &room("a")), None);
        assert_eq!(key.opens(&ticket, &room("a")), None, "it has no seal");
    }
}
