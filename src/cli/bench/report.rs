//! The result as text and as JSON.

use std::time::Duration;

use framewire::endpoint::Size;
use serde_json::{Value, json};

use super::{Row, Transport, machine::Machine};
use crate::cli::quantity::grouped;

/// Everything that was measured, and on what.
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) size: usize,
    pub(super) window: usize,
    pub(super) duration: Duration,
    pub(super) awake: bool,
    pub(super) rows: Vec<(Transport, Row)>,
}

/// A line of the table that TurboMCP's authors publish, for scale.
pub(super) struct Published {
    pub(super) name: &'static str,
    pub(super) messages_per_second: f64,
    pub(super) latency_us: f64,
    pub(super) rss_mb: f64,
}

/// TurboMCP 3.6, the table in the README of its transport crate. It names no machine, message size or window.
pub(super) const PUBLISHED: [Published; 3] = [
    Published { name: "stdio", messages_per_second: 50_000.0, latency_us: 100.0, rss_mb: 2.0 },
    Published { name: "unix", messages_per_second: 45_000.0, latency_us: 200.0, rss_mb: 3.0 },
    Published { name: "tcp", messages_per_second: 30_000.0, latency_us: 500.0, rss_mb: 5.0 },
];

impl Row {
    pub(super) fn json(&self) -> Value {
        json!({
            "messages_per_second": self.messages_per_second.round(),
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "cpu_us_per_message": self.cpu_us_per_message,
            "peak_rss_bytes": self.peak_rss_bytes,
        })
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            messages_per_second: value.get("messages_per_second")?.as_f64()?,
            p50_us: value.get("p50_us")?.as_f64()?,
            p99_us: value.get("p99_us")?.as_f64()?,
            cpu_us_per_message: value.get("cpu_us_per_message")?.as_f64(),
            peak_rss_bytes: value.get("peak_rss_bytes")?.as_u64(),
        })
    }
}

impl Report {
    /// One line about the machine, one about the load.
    pub(super) fn header(&self) -> [String; 2] {
        let Machine { cpu, cores, system } = &self.machine;
        let awake = if self.awake { "cores kept awake" } else { "cores may sleep" };
        [
            format!("framewire {} on {cpu}, {cores} cores, {system}", env!("CARGO_PKG_VERSION")),
            format!(
                "messages of {} bytes, one per line (over WebSocket, one per frame); {} under way, then 1; {:?} each; {awake}",
                self.size, self.window, self.duration
            ),
        ]
    }

    /// A table for people.
    pub(super) fn text(&self) -> String {
        let [machine, load] = self.header();
        let mut text = format!("{machine}\n{load}\n\n");
        text.push_str(
            "transport    messages/s    p50 µs    p99 µs    server CPU µs/message    peak RSS MB\n",
        );
        for (transport, row) in &self.rows {
            let cpu = row.cpu_us_per_message.map_or("-".to_owned(), |cpu| format!("{cpu:.3}"));
            let rss = row.peak_rss_bytes.map_or("-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6));
            text.push_str(&format!(
                "{:<10} {:>12} {:>9.1} {:>9.1} {cpu:>24} {rss:>14}\n",
                transport.name(),
                grouped(row.messages_per_second),
                row.p50_us,
                row.p99_us
            ));
        }
        text.push_str("\nmemory: both ends in one process. For scale, published by TurboMCP's authors, without machine,\n");
        text.push_str("size or window, not measured here:\n");
        for line in &PUBLISHED {
            text.push_str(&format!(
                "{:<10} {:>12} {:>9.1} {:>9} {:>24} {:>14.1}\n",
                line.name,
                grouped(line.messages_per_second),
                line.latency_us,
                "-",
                "-",
                line.rss_mb
            ));
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// The same for programs.
    pub(super) fn json(&self) -> String {
        let Machine { cpu, cores, system } = &self.machine;
        let rows: serde_json::Map<String, Value> =
            self.rows.iter().map(|(transport, row)| (transport.name().to_owned(), row.json())).collect();
        let published: serde_json::Map<String, Value> = PUBLISHED
            .iter()
            .map(|line| {
                let row = json!({
                    "messages_per_second": line.messages_per_second,
                    "latency_us": line.latency_us,
                    "rss_bytes": line.rss_mb * 1e6,
                });
                (line.name.to_owned(), row)
            })
            .collect();
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "machine": { "cpu": cpu, "cores": cores, "system": system },
            "size": self.size,
            "size_text": Size(self.size).to_string(),
            "window": self.window,
            "seconds": self.duration.as_secs_f64(),
            "cores_kept_awake": self.awake,
            "transports": rows,
            "published_by_turbomcp": published,
        });
        format!("{report:#}")
    }
}
