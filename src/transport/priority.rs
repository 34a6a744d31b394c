//! How urgent a request is to its client (RFC 9218).

use http::HeaderMap;

/// From 0, the most urgent, to 7; 3 where the client says nothing that can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Urgency(u8);

impl Urgency {
    /// Reads the `priority` field. `i` (incremental) changes nothing: all answers of one urgency go side by side.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all("priority").iter().filter_map(|line| line.to_str().ok());
        let members = lines.flat_map(|line| line.split(',')).map(str::trim);
        // Of members of one name the last counts (RFC 9651, 3.2).
        let urgency = members.filter_map(|member| member.strip_prefix("u=")).next_back().and_then(|value| {
            let value = value.split(';').next().unwrap_or_default().trim_end();
            value.parse().ok().filter(|urgency| value.len() == 1 && *urgency <= 7)
        });
        Urgency(urgency.unwrap_or(3))
    }

    /// What is handed to HTTP/2 at a time, which gives each stream with something to send one turn after the other: an
    /// answer that is asked for in the background has the smaller turns.
    pub(super) fn turn_bytes(self) -> usize {
        match self.0 {
            0..=3 => 16 * 1024,
            4..=5 => 8 * 1024,
            _ => 4 * 1024,
        }
    }

    /// The priority of a QUIC stream, on which the higher one goes first. Sessions and control streams have 0.
    pub(super) fn quic(self) -> i32 {
        -1 - i32::from(self.0)
    }
}

/// Whatever the client says, its answers go behind sessions, and none waits for ever.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_in_range(headers: &HeaderMap) {
    let urgency = Urgency::of(headers);
    assert!((-8..=-1).contains(&urgency.quic()) && urgency.turn_bytes() >= 4 * 1024);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn urgency_is_read_and_what_is_malformed_is_as_if_it_were_not_there() {
        for (field, wanted) in [
            ("u=0", 0),
            ("u=7, i", 7),
            ("i, u=5", 5),
            ("i=?1,u=2;x=y", 2),
            ("u=1, u=6", 6),
            ("", 3),
            ("i", 3),
            ("u=8", 3),
            ("u=-1", 3),
            ("u=+1", 3),
            ("u=01", 3),
            ("u", 3),
            ("u=high", 3),
            ("urgency=1", 3),
            ("=,;u", 3),
        ] {
            let headers =
                HeaderMap::from_iter([(http::HeaderName::from_static("priority"), HeaderValue::from_static(field))]);
            assert_eq!(Urgency::of(&headers), Urgency(wanted), "{field}");
        }
        assert_eq!(Urgency::of(&HeaderMap::new()), Urgency(3));
    }

    #[test]
    fn whatever_is_asked_for_goes_behind_sessions_and_the_less_urgent_behind_the_more() {
        assert!((0..=7).all(|urgency| Urgency(urgency).quic() < 0));
        assert!((0..7).all(|urgency| Urgency(urgency).quic() > Urgency(urgency + 1).quic()));
        assert!((0..7).all(|urgency| Urgency(urgency).turn_bytes() >= Urgency(urgency + 1).turn_bytes()));
    }
}
