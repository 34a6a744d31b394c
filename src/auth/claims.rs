//! What stands in a token.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::Fault;
use crate::protocol::{Grant, Invitation, Limits, Rights, RoomName};

/// The most that a `sub` may have: it is told to every member of the room.
const MAX_USER: usize = 256;

/// The most that a `jti` may have: the server remembers those of invitations.
const MAX_ID: usize = 128;

/// The claims that are read; others are ignored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// Who it is; told to others as `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Not good before, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Not good from then on, in seconds since 1970.
    pub exp: u64,
    /// The token's own id; needed where there is `uses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// How many seats may be taken with it, from 1; without it any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// The rooms it is for.
    pub room: Names<RoomPattern>,
    /// `join`, `publish`, `message`, `moderate`; without it, all but the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<String>>,
    /// Members of the metadata object that win over the client's own.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object")]
    pub metadata: Option<Box<RawValue>>,
    /// Limits, named as in `joined.limits`; only those that are narrower than the server's count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Narrower>,
}

impl Claims {
    /// What they allow in `room`.
    pub(super) fn grant(self, room: &RoomName, limits: &Arc<Limits>) -> Result<Grant, Fault> {
        if !self.room.any(|pattern| pattern.matches(room.as_str())) {
            return Err(Fault::OtherRoom);
        }
        if self.sub.as_ref().is_some_and(|sub| sub.len() > MAX_USER || sub.chars().any(char::is_control)) {
            return Err(Fault::Malformed);
        }
        let invitation = self.uses.map(|uses| invitation(self.jti, uses)).transpose()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_secs(self.exp).checked_sub(now).filter(|left| !left.is_zero());
        let left = left.ok_or(Fault::Expired)?;
        Ok(Grant {
            user: self.sub.map(Arc::from),
            rights: self.grants.map_or(Rights::MEMBER, |grants| rights(&grants)),
            metadata: self.metadata,
            limits: self.limits.map_or_else(|| Arc::clone(limits), |narrower| Arc::new(narrower.of(limits))),
            // Too far away to be reckoned with is never.
            expires: Instant::now().checked_add(left),
            invitation,
        })
    }
}

fn invitation(id: Option<String>, uses: u64) -> Result<Invitation, Fault> {
    match id {
        Some(id) if uses > 0 && (1..=MAX_ID).contains(&id.len()) => Ok(Invitation { id: id.into(), uses }),
        _ => Err(Fault::Uncountable),
    }
}

/// Unknown names grant nothing.
fn rights(grants: &[String]) -> Rights {
    let has = |name: &str| grants.iter().any(|grant| grant == name);
    Rights { join: has("join"), publish: has("publish"), message: has("message"), moderate: has("moderate") }
}

fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    let text = crate::protocol::compact(raw.get()).map_err(serde::de::Error::custom)?;
    if !text.starts_with('{') {
        return Err(serde::de::Error::custom("metadata must be an object"));
    }
    RawValue::from_string(text.into_owned()).map(Some).map_err(serde::de::Error::custom)
}

/// One or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Names<T> {
    /// A single one.
    One(T),
    /// A list of them.
    Many(Vec<T>),
}

impl<T> Names<T> {
    fn any(&self, fits: impl Fn(&T) -> bool) -> bool {
        match self {
            Names::One(one) => fits(one),
            Names::Many(many) => many.iter().any(fits),
        }
    }
}

/// A room's name, in which each `*` stands for any characters, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoomPattern(pub String);

impl RoomPattern {
    /// Whether `name` fits. Takes time proportional to both lengths' product at the worst, which tokens keep small.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // The last star, and where in the name what follows it was last tried.
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            if pattern.get(p) == Some(&b'*') {
                retry = Some((p, n));
                p += 1;
            } else if pattern.get(p) == Some(&name[n]) {
                (p, n) = (p + 1, n + 1);
            } else if let Some((star, tried)) = retry {
                retry = Some((star, tried + 1));
                (p, n) = (star + 1, tried + 1);
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }
}

/// Limits that a token may set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Narrower {
    data_bytes: Option<usize>,
    sdp_bytes: Option<usize>,
    candidate_bytes: Option<usize>,
    metadata_bytes: Option<usize>,
    messages_per_second: Option<u32>,
    burst: Option<u32>,
    peers: Option<usize>,
}

impl Narrower {
    fn of(&self, wide: &Limits) -> Limits {
        Limits {
            data_bytes: least(self.data_bytes, wide.data_bytes),
            sdp_bytes: least(self.sdp_bytes, wide.sdp_bytes),
            candidate_bytes: least(self.candidate_bytes, wide.candidate_bytes),
            metadata_bytes: least(self.metadata_bytes, wide.metadata_bytes),
            messages_per_second: least(self.messages_per_second, wide.messages_per_second).max(1),
            burst: least(self.burst, wide.burst).max(1),
            peers: least(self.peers, wide.peers),
            ..wide.clone()
        }
    }
}

fn least<T: Ord>(narrow: Option<T>, wide: T) -> T {
    match narrow {
        Some(narrow) => narrow.min(wide),
        None => wide,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let fits = |pattern: &str, name: &str| RoomPattern(pattern.into()).matches(name);
        for (pattern, name) in [
            ("demo", "demo"),
            ("*", "anything"),
            ("team-*", "team-"),
            ("team-*", "team-7"),
            ("*-7", "team-7"),
            ("a*b*c", "a-b-b-c"),
            ("a**c", "abc"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("demo", "demo2"),
            ("demo2", "demo"),
            ("", "demo"),
            ("team-*", "tea"),
            ("*-7", "team-8"),
            ("a*b*c", "a-c-b"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_token_narrows_limits_and_never_widens_them() {
        let wide = Limits::default();
        let narrower: Narrower =
            serde_json::from_str(r#"{"dataBytes":10,"peers":1000,"burst":0,"queueBytes":1}"#).expect("limits");
        let limits = narrower.of(&wide);
        assert_eq!((limits.data_bytes, limits.burst), (10, 1));
        assert_eq!(Limits { data_bytes: wide.data_bytes, burst: wide.burst, ..limits }, wide);
    }
}
