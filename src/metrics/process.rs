//! What the system knows of this process, under the names that Prometheus' own libraries give it.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Read anew whenever somebody asks; what cannot be read is left out.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// In seconds since 1970. Read once, by whoever asks first: were the clock set meanwhile, it would look like another process.
    #[cfg(target_os = "linux")]
    started: std::sync::OnceLock<Option<f64>>,
}

impl Collector for Process {
    #[cfg(target_os = "linux")]
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value.map(ConstGauge::new) {
            Some(gauge) => gauge.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                prometheus_client::metrics::MetricType::Gauge,
            )?),
            None => Ok(()),
        };
        let stat = linux::Stat::read();
        gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes",
            stat.as_ref().map(|stat| stat.resident_bytes),
        )?;
        let started = *self.started.get_or_init(|| stat.as_ref()?.started_at());
        gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds", started)?;
        gauge("process_open_fds", "Number of open file descriptors", linux::open_files())?;
        gauge("process_max_fds", "Maximum number of open file descriptors", linux::most_files())?;
        let Some(stat) = stat else { return Ok(()) };
        let (name, help) = ("process_cpu_seconds", "Total user and system CPU time spent in seconds");
        let counter = prometheus_client::metrics::MetricType::Counter;
        ConstCounter::new(stat.cpu_seconds).encode(encoder.encode_descriptor(name, help, None, counter)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn encode(&self, _: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::time::{SystemTime, UNIX_EPOCH};

    use rustix::param::{clock_ticks_per_second, page_size};
    use rustix::process::{Resource, getrlimit};
    use rustix::time::{ClockId, clock_gettime};

    /// Of /proc/self/stat (proc(5)).
    pub(super) struct Stat {
        pub(super) cpu_seconds: f64,
        pub(super) resident_bytes: f64,
        /// Since the system's start.
        started_seconds: f64,
    }

    impl Stat {
        pub(super) fn read() -> Option<Stat> {
            Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)
        }

        /// The second field, the program's name, may hold anything; what follows its last bracket are numbers.
        fn parse(text: &str) -> Option<Stat> {
            let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
            // The first of these is the third field.
            let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
            let ticks = clock_ticks_per_second() as f64;
            Some(Stat {
                cpu_seconds: (number(14)? + number(15)?) / ticks,
                started_seconds: number(22)? / ticks,
                resident_bytes: number(24)? * page_size() as f64,
            })
        }

        /// By the clocks: /proc/stat, which has the system's start, is hidden from services that see processes alone.
        pub(super) fn started_at(&self) -> Option<f64> {
            let running = clock_gettime(ClockId::Boottime);
            let age = running.tv_sec as f64 + running.tv_nsec as f64 / 1e9 - self.started_seconds;
            Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64() - age)
        }
    }

    pub(super) fn open_files() -> Option<f64> {
        // One of them is the directory itself.
        Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
    }

    pub(super) fn most_files() -> Option<f64> {
        getrlimit(Resource::Nofile).current.map(|most| most as f64)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_name_with_brackets_and_spaces_is_no_field() {
            let mut fields: Vec<String> = (3..=24).map(|field| field.to_string()).collect();
            (fields[14 - 3], fields[15 - 3]) = ("150".into(), "50".into());
            let stat = Stat::parse(&format!("7 (a) b) () {}\n", fields.join(" "))).unwrap();
            assert!((stat.cpu_seconds * clock_ticks_per_second() as f64 - 200.0).abs() < 1e-6);
            assert!((stat.resident_bytes - 24.0 * page_size() as f64).abs() < 1e-6);
            assert!(Stat::parse("7 (a) R 1").is_none());
        }

        #[test]
        fn the_start_is_when_the_process_was_started() {
            let started = Stat::read().unwrap().started_at().unwrap();
            let mut later = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            let stat = fs::read_to_string(format!("/proc/{}/stat", later.id())).unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            later.kill().unwrap();
            later.wait().unwrap();
            // Ticks are a hundredth of a second.
            let child = Stat::parse(&stat).unwrap().started_at().unwrap();
            assert!((child - now).abs() < 5.0, "{child} is not {now}");
            assert!(started <= child && started > child - 86_400.0, "{started}, {child}");
        }
    }
}
