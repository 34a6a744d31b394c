//! What an application may ask of the server.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::message::Payload;

/// A request: a message of the protocol's without its `id`, which the session gives it.
///
/// ```
/// use wigwag::client::Request;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let hello = Request::broadcast(&"hello")?;
/// let answer = Request::message("0197…a1", &serde_json::json!({"volume": 0.5}))?;
/// let raw = Request::from_json(r#"{"type":"kick","peer":"0197…a1"}"#)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    kind: String,
    fields: BTreeMap<String, Payload>,
}

impl Request {
    /// Any JSON to everybody in the room.
    ///
    /// # Errors
    /// If `data` cannot be JSON.
    pub fn broadcast(data: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        Request::new("message").with("data", data)
    }

    /// Any JSON to one peer.
    ///
    /// # Errors
    /// If `data` cannot be JSON.
    pub fn message(to: &str, data: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        Request::broadcast(data)?.with("to", to)
    }

    /// An offer, an answer or a rollback to one peer: an RTCSessionDescriptionInit.
    ///
    /// # Errors
    /// If `description` cannot be JSON.
    pub fn description(to: &str, description: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        Request::new("description").with("to", to)?.with("description", description)
    }

    /// A candidate to one peer: an RTCIceCandidateInit, or `None` where there are no more.
    ///
    /// # Errors
    /// If `candidate` cannot be JSON.
    pub fn candidate(to: &str, candidate: Option<&(impl Serialize + ?Sized)>) -> Result<Self, serde_json::Error> {
        Request::new("candidate").with("to", to)?.with("candidate", &candidate)
    }

    /// Replaces one's own metadata, which must be a JSON object.
    ///
    /// # Errors
    /// If `metadata` cannot be JSON.
    pub fn metadata(metadata: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        Request::new("metadata").with("metadata", metadata)
    }

    /// Renews the session's token.
    ///
    /// # Errors
    /// None that a string can bring.
    pub fn token(token: &str) -> Result<Self, serde_json::Error> {
        Request::new("token").with("token", token)
    }

    /// Asks for fresh TURN credentials, which come as an event.
    pub fn ice_servers() -> Self {
        Request::new("iceServers")
    }

    /// Leaves the room.
    pub fn leave() -> Self {
        Request::new("leave")
    }

    /// Any request as the protocol writes it. An `id` in it is left out.
    ///
    /// # Errors
    /// If it is not a JSON object with a `type`.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let mut fields: BTreeMap<String, Payload> = serde_json::from_str(text)?;
        fields.remove("id");
        let kind = fields.remove("type").map(|kind| kind.read::<String>()).transpose()?;
        let kind = kind.ok_or_else(|| <serde_json::Error as serde::de::Error>::missing_field("type"))?;
        Ok(Request { kind, fields })
    }

    fn new(kind: &str) -> Self {
        Request { kind: kind.to_owned(), fields: BTreeMap::new() }
    }

    fn with(mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        self.fields.insert(name.to_owned(), Payload::of(value)?);
        Ok(self)
    }

    /// The request's type, as `message`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// One of its fields, as `data`.
    pub fn field(&self, name: &str) -> Option<&Payload> {
        self.fields.get(name)
    }

    /// Lets a `message` get lost: it is sent at once or not at all, by datagram where there is one, and never answered.
    pub fn ephemeral(mut self) -> Self {
        self.fields.insert("ephemeral".to_owned(), Payload::of(&true).expect("a boolean is JSON"));
        self
    }

    /// Whether it may get lost.
    pub fn is_ephemeral(&self) -> bool {
        self.kind == "message" && self.fields.get("ephemeral").is_some_and(|ephemeral| ephemeral.json() == "true")
    }

    /// The request's line, under an id where it is to be answered.
    pub(super) fn line(&self, id: Option<u64>) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            r#type: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<u64>,
            #[serde(flatten)]
            fields: &'a BTreeMap<String, Payload>,
        }
        let line = Line { r#type: &self.kind, id, fields: &self.fields };
        serde_json::to_string(&line).expect("names are strings and payloads are JSON")
    }
}

/// What it says must not show in a log.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_the_protocol_has_it() {
        let candidate = Request::candidate("b", None::<&str>).expect("JSON");
        assert_eq!(candidate.line(Some(7)), r#"{"type":"candidate","id":7,"candidate":null,"to":"b"}"#);
        let raw = Request::from_json(r#"{"id":99,"data":{"n":1e400},"type":"message"}"#).expect("a request");
        assert_eq!(raw.line(Some(1)), r#"{"type":"message","id":1,"data":{"n":1e400}}"#);
        assert!(!raw.is_ephemeral() && raw.ephemeral().is_ephemeral());
        assert!(Request::from_json(r#"{"data":1}"#).is_err());
        assert!(Request::from_json("[]").is_err());
    }
}
