//! How much has been said, and how long it took: sums over all labels, read from the text that Prometheus is told.

use std::collections::BTreeMap;

/// Counted since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traffic {
    /// Messages received from clients.
    pub messages: u64,
    /// Of those messages whose relaying was timed, how many took no longer than so many seconds; the last are all of them, under infinity as text.
    pub relayed: Vec<(String, u64)>,
}

impl Traffic {
    pub(super) fn read(text: &str) -> Self {
        let mut traffic = Traffic::default();
        // In the order of the limits, which their text does not have.
        let mut relayed: BTreeMap<u64, (String, u64)> = BTreeMap::new();
        for line in text.lines() {
            if line.starts_with("wigwag_messages_total{") {
                traffic.messages += value(line);
            } else if line.starts_with("wigwag_relay_duration_seconds_bucket{")
                && let Some(limit) = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next())
            {
                let micros = limit.parse::<f64>().map_or(u64::MAX, |seconds| (seconds * 1e6) as u64);
                relayed.entry(micros).or_insert_with(|| (limit.to_owned(), 0)).1 += value(line);
            }
        }
        traffic.relayed = relayed.into_values().collect();
        traffic
    }
}

fn value(line: &str) -> u64 {
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::metrics::Metrics;
    use crate::protocol::Transport;

    #[test]
    fn messages_and_times_are_summed_over_transports() {
        let metrics = Metrics::default();
        metrics.message(Transport::WebTransport, "join");
        metrics.message(Transport::WebSocketH2, "message");
        metrics.relayed(Transport::WebTransport, Duration::from_micros(70));
        metrics.relayed(Transport::WebSocketH2, Duration::from_millis(300));
        let traffic = metrics.traffic();
        assert_eq!(traffic.messages, 2);
        let counts: Vec<u64> = traffic.relayed.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts.first(), Some(&0));
        assert_eq!(traffic.relayed.get(1), Some(&("0.0001".to_owned(), 1)));
        assert_eq!(traffic.relayed.last(), Some(&("+Inf".to_owned(), 2)));
        assert!(counts.is_sorted(), "{:?}", traffic.relayed);
    }
}
