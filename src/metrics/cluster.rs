//! What a node of a cluster tells of the others.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::cluster::Cluster;
use crate::cluster::store::{Counts, Desk};

/// What the cluster is when somebody asks.
#[derive(Debug)]
pub(super) struct Collected(pub(super) Arc<Cluster>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let status = self.0.status();
        let gauges = [
            ("wigwag_cluster_connected", "Whether NATS is connected", usize::from(self.0.is_connected())),
            ("wigwag_cluster_nodes", "Other nodes that are heard of", status.nodes),
            ("wigwag_cluster_links", "Links to other nodes that are up", status.links),
            ("wigwag_cluster_unacknowledged_bytes", "Bytes on their way to other nodes", status.bytes),
            ("wigwag_cluster_unanswered", "Messages whose receipt another node owes", status.pending),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        if let Some(desk) = self.0.desk() {
            tell_of_store(desk, &mut encoder)?;
        }
        let again = ConstCounter::new(status.again);
        let help = "Notes sent to other nodes again, because they were not acknowledged in time";
        again.encode(encoder.encode_descriptor(
            "wigwag_cluster_retransmissions",
            help,
            None,
            again.metric_type(),
        )?)?;
        let help = "Notes sent to other nodes, by kind";
        let mut sent = encoder.encode_descriptor("wigwag_cluster_notes", help, None, again.metric_type())?;
        for (kind, count) in status.sent {
            ConstCounter::new(count).encode(sent.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }
}

/// Where seats outlive their node.
fn tell_of_store(desk: &Desk, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let is_there = usize::from(desk.store().is_some());
    let gauges = [
        ("wigwag_cluster_durable", "Whether JetStream keeps sessions beyond the loss of their node", is_there),
        ("wigwag_cluster_unstored_bytes", "Bytes of payloads that wait to be stored", desk.waiting()),
    ];
    for (name, help, value) in gauges {
        let gauge = ConstGauge::new(value as i64);
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
    }
    let Counts { stored, failed, restored, dropped } = desk.counts();
    let kinds = [("stored", stored), ("failed", failed)];
    let counter = ConstCounter::new(0_u64);
    let help = "Records of sessions for JetStream, by what has become of them";
    let mut records = encoder.encode_descriptor("wigwag_cluster_records", help, None, counter.metric_type())?;
    for (outcome, count) in kinds {
        ConstCounter::new(count).encode(records.encode_family(&[("outcome", outcome)])?)?;
    }
    let help = "Sessions that have outlived their node: that go on here, or elsewhere as this one was taken for lost";
    let mut seats = encoder.encode_descriptor("wigwag_cluster_restored", help, None, counter.metric_type())?;
    for (place, count) in [("here", restored), ("elsewhere", dropped)] {
        ConstCounter::new(count).encode(seats.encode_family(&[("place", place)])?)?;
    }
    Ok(())
}
