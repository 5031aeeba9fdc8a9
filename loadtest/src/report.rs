//! What a run found, as text and as JSON.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// A server busy for less than this share of a core was waiting for its clients.
const BUSY_ENOUGH: f64 = 0.95;

/// Figures of one measured window.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) messages: u64,
    pub(crate) elapsed: Duration,
    pub(crate) server_cpu: Option<Duration>,
    pub(crate) client_cpu: Duration,
    pub(crate) server_rss: Option<u64>,
    pub(crate) latencies: Histogram<u64>,
    pub(crate) problem_count: u64,
    pub(crate) problems: Vec<String>,
}

impl Report {
    fn per_message_us(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.messages.max(1) as f64
    }

    fn share(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// The client, not the server, set the pace.
    fn is_client_bound(&self) -> bool {
        self.server_cpu.is_some_and(|cpu| self.share(cpu) < BUSY_ENOUGH)
    }

    fn latency_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    /// All figures; durations in the unit their name ends with.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "messages": self.messages,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "messages_per_s": self.messages as f64 / self.elapsed.as_secs_f64(),
            "latency_us": {
                "p50": self.latency_us(0.5),
                "p90": self.latency_us(0.9),
                "p99": self.latency_us(0.99),
                "p99.9": self.latency_us(0.999),
                "max": self.latencies.max() as f64 / 1e3,
            },
            "server_cpu_us_per_message": self.server_cpu.map(|cpu| self.per_message_us(cpu)),
            "server_cpu_share": self.server_cpu.map(|cpu| self.share(cpu)),
            "server_rss_bytes": self.server_rss,
            "client_cpu_us_per_message": self.per_message_us(self.client_cpu),
            "client_cpu_share": self.share(self.client_cpu),
            "client_bound": self.is_client_bound(),
            "problem_count": self.problem_count,
            "problems": self.problems,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed = self.elapsed.as_secs_f64();
        let rate = self.messages as f64 / elapsed;
        writeln!(f, "messages      {} in {elapsed:.2} s = {rate:.0} /s", self.messages)?;
        write!(f, "latency       ")?;
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            write!(f, "{name} {:.1} us  ", self.latency_us(quantile))?;
        }
        writeln!(f, "max {:.1} us", self.latencies.max() as f64 / 1e3)?;
        if let Some(cpu) = self.server_cpu {
            writeln!(f, "server CPU    {:.3} us/message, {:.2} cores", self.per_message_us(cpu), self.share(cpu))?;
        }
        let cpu = self.client_cpu;
        writeln!(f, "client CPU    {:.3} us/message, {:.2} cores", self.per_message_us(cpu), self.share(cpu))?;
        if let Some(bytes) = self.server_rss {
            writeln!(f, "server memory {:.1} MiB resident", bytes as f64 / (1024.0 * 1024.0))?;
        }
        if self.is_client_bound() {
            writeln!(f, "warning: the server was not busy; compare CPU per message, not messages per second")?;
        }
        write!(f, "problems      {}", self.problem_count)?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}
