//! What can be measured: names, units and what is better. Owns the closed set that scenarios and results speak of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Figures of one measurement.
pub(crate) type Figures = BTreeMap<Figure, f64>;

/// One thing that is measured; its name in files is in kebab case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    /// CPU time of the proxy, user and system, for one request.
    CpuPerRequest,
    /// The same for one connection with what is asked on it.
    CpuPerConnection,
    /// The same for 10^9 bytes.
    CpuPerGigabyte,
    /// Context switches of the proxy for one request.
    SwitchesPerRequest,
    /// System calls of the proxy for one request, counted in a run of its own.
    SyscallsPerRequest,
    /// Answers in a second.
    RequestsPerSecond,
    /// Connections opened and answered in a second.
    ConnectionsPerSecond,
    /// 10^9 bytes in a second.
    GigabytesPerSecond,
    /// Half of the answers took at most this.
    LatencyP50,
    /// 90 of 100 answers took at most this.
    LatencyP90,
    /// 99 of 100 answers took at most this.
    LatencyP99,
    /// What an answer took on average.
    LatencyMean,
    /// No answer took longer.
    LatencyMost,
    /// The most answers in a second that still come in time.
    KneeRate,
    /// Median at half of the knee's rate, from the intended time of sending.
    LatencyP50AtHalfKnee,
    /// 99th percentile at half of the knee's rate, from the intended time of sending.
    LatencyP99AtHalfKnee,
    /// How late the generator itself sent, 99th percentile.
    GeneratorLag,
    /// Private dirty memory of the proxy for one open connection.
    MemoryPerConnection,
    /// Private dirty memory of the proxy after the load.
    PrivateMemory,
    /// Context switches of the proxy in a second in which nothing is sent.
    WakeupsWhileIdle,
    /// Connections that were open.
    OpenConnections,
    /// Connections of the most chosen backend minus those of the least chosen one.
    Spread,
    /// Coefficient of variation of requests by backend.
    Unevenness,
    /// Connections or requests that failed.
    Failed,
    /// Changes of the manifests while the load ran.
    Edits,
    /// Scrapes of the proxy's metrics while the load ran.
    Scrapes,
    /// Size of one of them.
    KibPerScrape,
}

impl Figure {
    /// As a column's head, with its unit.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::CpuPerRequest => "CPU per request, µs",
            Self::CpuPerConnection => "CPU per connection, µs",
            Self::CpuPerGigabyte => "CPU per GB, s",
            Self::SwitchesPerRequest => "context switches per request",
            Self::SyscallsPerRequest => "system calls per request",
            Self::RequestsPerSecond => "requests/s",
            Self::ConnectionsPerSecond => "connections/s",
            Self::GigabytesPerSecond => "GB/s",
            Self::LatencyP50 => "p50, µs",
            Self::LatencyP90 => "p90, µs",
            Self::LatencyP99 => "p99, µs",
            Self::LatencyMean => "mean, µs",
            Self::LatencyMost => "longest, µs",
            Self::KneeRate => "knee, requests/s",
            Self::LatencyP50AtHalfKnee => "p50 at half the knee, µs",
            Self::LatencyP99AtHalfKnee => "p99 at half the knee, µs",
            Self::GeneratorLag => "generator's lag p99, µs",
            Self::MemoryPerConnection => "memory per connection, KiB",
            Self::PrivateMemory => "private memory, MiB",
            Self::WakeupsWhileIdle => "wake-ups/s while idle",
            Self::OpenConnections => "connections open",
            Self::Spread => "most minus least, connections",
            Self::Unevenness => "variation of requests",
            Self::Failed => "failed",
            Self::Edits => "edits",
            Self::Scrapes => "scrapes",
            Self::KibPerScrape => "KiB per scrape",
        }
    }

    /// The name in files.
    pub(crate) fn name(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|name| name.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// Whether it is the proxy's own, so that a client without a proxy has none.
    pub(crate) const fn is_of_the_proxy(self) -> bool {
        matches!(
            self,
            Self::CpuPerRequest
                | Self::CpuPerConnection
                | Self::CpuPerGigabyte
                | Self::SwitchesPerRequest
                | Self::SyscallsPerRequest
                | Self::MemoryPerConnection
                | Self::PrivateMemory
                | Self::WakeupsWhileIdle
                | Self::Edits
                | Self::Scrapes
                | Self::KibPerScrape
        )
    }
}

impl Figure {
    /// Whether a ratio of two of them means something: counts that should be zero or are given have none.
    pub(crate) const fn is_compared(self) -> bool {
        !matches!(
            self,
            Self::Spread
                | Self::Failed
                | Self::Edits
                | Self::OpenConnections
                | Self::GeneratorLag
                | Self::Scrapes
                | Self::KibPerScrape
        )
    }
}

/// A count as a figure; exact below 2^53.
pub(crate) fn number(count: u64) -> f64 {
    // f64 has no conversion from u64; two halves are exact for any count that is met here.
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_a_count_beyond_32_bits_is_exact() {
        assert!((number(5_000_000_001) - 5_000_000_001.0).abs() < f64::EPSILON);
    }

    #[test]
    fn figure_name_is_kebab_case_and_read_back() {
        assert_eq!(Figure::CpuPerRequest.name(), "cpu-per-request");
        let read: Figure = serde_json::from_str("\"latency-p99-at-half-knee\"").unwrap();
        assert_eq!(read, Figure::LatencyP99AtHalfKnee);
    }
}
