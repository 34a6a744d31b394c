//! The text format that Prometheus has always read (0.0.4), made from OpenMetrics: the same samples, but a counter is called by
//! its sample's name, and there are neither info metrics nor an end mark.

/// Rewrites the names in what describes metrics; samples are the same in both.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // HELP comes before TYPE, and its name depends on that.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|described| described.split_once(' '))
        {
            let (name, kind) = match kind {
                "counter" => (format!("{name}_total"), "counter"),
                "info" => (format!("{name}_info"), "gauge"),
                _ => (name.to_owned(), kind),
            };
            if let Some((_, help)) = help.take() {
                text += &format!("# HELP {name} {help}\n");
            }
            text += &format!("# TYPE {name} {kind}\n");
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_called_as_their_samples_and_infos_are_gauges() {
        let open_metrics = "# HELP a_b What happened, TYPE or not.\n# TYPE a_b counter\na_b_total{c=\"d\"} 1\n# HELP e Info.\n\
                            # TYPE e info\ne_info{v=\"1\"} 1\n# HELP t Time.\n# TYPE t histogram\n# UNIT t seconds\n\
                            t_bucket{le=\"1.0\"} 2\n# EOF\n";
        assert_eq!(
            classic(open_metrics),
            "# HELP a_b_total What happened, TYPE or not.\n# TYPE a_b_total counter\na_b_total{c=\"d\"} 1\n# HELP e_info Info.\n\
             # TYPE e_info gauge\ne_info{v=\"1\"} 1\n# HELP t Time.\n# TYPE t histogram\nt_bucket{le=\"1.0\"} 2\n"
        );
    }
}
