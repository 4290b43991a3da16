//! A scenario as data: what load goes through whom, what is measured, and what it must not exceed. Owns the form of the
//! files and what makes one senseless; starts nothing.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use portico_core::object::Protocol;
use serde::{Deserialize, Serialize};

use crate::{churn::Edit, dns::Fixture, figure::Figure, http2::Asked, stats::Estimate};

/// One file of `scenarios/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// What it tells, for the page.
    pub(crate) about: String,
    /// What is done.
    pub(crate) load: Load,
    /// How many backends.
    pub(crate) backends: u8,
    /// Further Services in portico's manifests that nobody uses, so that what it tells of itself has a size.
    #[serde(rename = "extra-services", default, skip_serializing_if = "is_zero")]
    pub(crate) extra_services: u16,
    /// What proxies take the bytes for.
    #[serde(default, skip_serializing_if = "Layer::is_tcp")]
    pub(crate) layer: Layer,
    /// Threads or processes of each proxy.
    #[serde(default = "two")]
    pub(crate) threads: u8,
    /// Who is compared.
    pub(crate) contestants: Vec<Contestant>,
    /// The figure of the client straight at a backend that must not move; without one there is no such client.
    pub(crate) control: Option<Figure>,
    /// What is shown, in this order.
    pub(crate) figures: Vec<Figure>,
    /// What is promised.
    #[serde(default)]
    pub(crate) bars: Vec<Bar>,
    /// Rounds, unless the command line says otherwise.
    #[serde(default = "five")]
    pub(crate) rounds: u16,
    /// Seconds of one measurement, unless the command line says otherwise.
    #[serde(default = "three")]
    pub(crate) seconds: f64,
}

/// What one range of addresses has room for.
const MOST_EXTRA: u16 = 3000;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
const fn is_zero(count: &u16) -> bool {
    *count == 0
}

const fn two() -> u8 {
    2
}

const fn five() -> u16 {
    5
}

const fn three() -> f64 {
    3.0
}

/// What a proxy forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layer {
    /// Connections.
    #[default]
    Tcp,
    /// Requests.
    Http,
    /// Requests, on connections of HTTP/2 on both sides.
    Http2,
}

impl Layer {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
    const fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp)
    }
}

/// What the clients do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub(crate) enum Load {
    /// Requests on connections that stay open, each as soon as the last is answered; by `wrk` where it is installed.
    Requests {
        /// Open connections.
        connections: u16,
    },
    /// Requests on connections of HTTP/2 that stay open, by `h2load`.
    Streams {
        /// Open connections.
        connections: u16,
        /// Requests of each that are on their way at a time.
        streams: u16,
        /// Bytes of the message of a unary call of gRPC, for which the backend has as many; without, a page is asked for.
        message: Option<u16>,
    },
    /// Connections with a number of requests each, one after the other; who answers is counted.
    Sessions {
        /// At a time.
        clients: u16,
        /// On one connection.
        requests: u32,
    },
    /// One connection, as many bytes to the backend as go through; the backend says how many came.
    Bulk {},
    /// Connections that were used once and then stay open.
    Idle {
        /// As many, if the limit of descriptors allows.
        connections: u32,
    },
    /// Requests at intended times, at rising shares of what goes through at most.
    Sweep {
        /// Open connections.
        connections: u16,
        /// Shares of the highest rate, in per cent, rising.
        shares: Vec<u16>,
        /// A rate holds if the 99th percentile is at most this.
        limit_ms: u32,
    },
    /// Requests at intended times at one rate, after as many as go through.
    Steady {
        /// Open connections.
        connections: u16,
        /// In a second, on all of them.
        rate: u32,
    },
    /// Connections with one request while the manifests are edited.
    Churn {
        /// At a time.
        clients: u16,
        /// In a second.
        edits_per_second: u16,
        /// Again and again in this order.
        edits: Vec<Edit>,
    },
    /// Datagrams to an echo and back.
    Udp {
        /// Sockets, each with a thread.
        clients: u16,
        /// Datagrams of each that are on their way at a time.
        window: u16,
    },
    /// Queries for names of Services, by `dnsperf`; server and generator have a core each.
    Dns {
        /// Sockets.
        clients: u16,
        /// Queries that are on their way at a time, on all of them.
        outstanding: u16,
        /// Services that every server knows.
        services: u16,
    },
    /// Queries at one rate, while in the middle everything is declared anew.
    DnsReload {
        /// Sockets.
        clients: u16,
        /// In a second.
        rate: u32,
        /// Services that are asked for.
        services: u16,
        /// Headless Services beside them, each with an endpoint that becomes another one.
        headless: u16,
        /// A query that has no answer by then has failed.
        limit_ms: u16,
    },
}

const DATAGRAMS: &[Figure] = &[
    Figure::CpuPerRequest,
    Figure::SwitchesPerRequest,
    Figure::SyscallsPerRequest,
    Figure::RequestsPerSecond,
    Figure::Failed,
];

/// Of loads that say how long answers took on average and at most.
const MEANS: &[Figure] = &[
    Figure::CpuPerRequest,
    Figure::SwitchesPerRequest,
    Figure::SyscallsPerRequest,
    Figure::RequestsPerSecond,
    Figure::LatencyMean,
    Figure::LatencyMost,
    Figure::PrivateMemory,
    Figure::Failed,
];

impl Load {
    /// Of the Service that is loaded.
    pub(crate) const fn protocol(&self) -> Protocol {
        match self {
            Self::Udp { .. } => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }

    /// The names that are asked for, with addresses that begin so; of DNS only.
    pub(crate) const fn fixture(&self, range: [u8; 2]) -> Option<Fixture> {
        match self {
            Self::Dns { services, .. } => Some(Fixture::new(range, *services, 0)),
            Self::DnsReload {
                services, headless, ..
            } => Some(Fixture::new(range, *services, *headless)),
            _ => None,
        }
    }

    /// What each request of HTTP/2 is; of such a load only.
    pub(crate) const fn asked(&self) -> Option<Asked> {
        match self {
            Self::Streams { message: None, .. } => Some(Asked::Page),
            Self::Streams {
                message: Some(bytes),
                ..
            } => Some(Asked::Call { bytes: *bytes }),
            _ => None,
        }
    }

    /// Whether a contestant does what it asks for.
    const fn is_for(&self, contestant: Contestant) -> bool {
        use Contestant as C;
        match self {
            Self::Udp { .. } => matches!(contestant, C::Portico | C::Nginx),
            Self::Streams { .. } => matches!(contestant, C::Portico | C::Nginx | C::Envoy),
            Self::Dns { .. } => contestant.answers_names() || matches!(contestant, C::Portico),
            Self::DnsReload { .. } => matches!(contestant, C::Portico),
            _ => !contestant.answers_names() && !matches!(contestant, C::Envoy),
        }
    }

    fn check(&self, threads: u8) -> anyhow::Result<()> {
        if let Self::Dns { services, .. } | Self::DnsReload { services, .. } = self {
            ensure!(
                (1..=MOST_EXTRA).contains(services),
                "1 to {MOST_EXTRA} Services that are asked for"
            );
        }
        ensure!(
            !matches!(self, Self::Dns { .. }) || threads == 1,
            "one thread, since each server has one core"
        );
        Ok(())
    }

    /// The figures that it gives.
    fn gives(&self) -> &'static [Figure] {
        use Figure as F;
        match self {
            Self::Requests { .. } => &[
                F::CpuPerRequest,
                F::SwitchesPerRequest,
                F::SyscallsPerRequest,
                F::RequestsPerSecond,
                F::LatencyP50,
                F::LatencyP99,
                F::Failed,
            ],
            Self::Streams { .. } => MEANS,
            Self::Sessions { .. } => &[
                F::CpuPerRequest,
                F::CpuPerConnection,
                F::SwitchesPerRequest,
                F::RequestsPerSecond,
                F::ConnectionsPerSecond,
                F::LatencyP50,
                F::LatencyP99,
                F::Spread,
                F::Unevenness,
                F::Failed,
            ],
            Self::Bulk {} => &[F::CpuPerGigabyte, F::GigabytesPerSecond],
            Self::Idle { .. } => &[
                F::MemoryPerConnection,
                F::WakeupsWhileIdle,
                F::OpenConnections,
                F::Failed,
            ],
            Self::Sweep { .. } => &[
                F::RequestsPerSecond,
                F::KneeRate,
                F::LatencyP50AtHalfKnee,
                F::LatencyP99AtHalfKnee,
                F::GeneratorLag,
                F::Failed,
            ],
            Self::Steady { .. } => &[
                F::RequestsPerSecond,
                F::LatencyP50,
                F::LatencyP90,
                F::LatencyP99,
                F::GeneratorLag,
                F::Scrapes,
                F::KibPerScrape,
                F::Failed,
            ],
            Self::Churn { .. } => &[
                F::CpuPerConnection,
                F::ConnectionsPerSecond,
                F::LatencyP50,
                F::LatencyP99,
                F::Edits,
                F::Failed,
            ],
            Self::Udp { .. } => DATAGRAMS,
            Self::Dns { .. } | Self::DnsReload { .. } => MEANS,
        }
    }
}

impl Contestant {
    /// Whether it is this project, in whatever shape.
    pub(crate) const fn is_portico(self) -> bool {
        matches!(
            self,
            Self::Portico | Self::PorticoRandom | Self::PorticoScraped
        )
    }

    /// Whether it is a server of names and nothing else.
    pub(crate) const fn answers_names(self) -> bool {
        matches!(
            self,
            Self::Knot | Self::Unbound | Self::Dnsmasq | Self::Hickory
        )
    }
}

/// Who takes part. `Direct` is the control and stands in no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contestant {
    /// The client straight at the first backend.
    Direct,
    /// This project.
    Portico,
    /// This project with `portico.dev/balance: random`.
    PorticoRandom,
    /// This project while its metrics are scraped ten times a second.
    PorticoScraped,
    /// `HAProxy` in TCP mode.
    Haproxy,
    /// nginx, its stream module for connections.
    Nginx,
    /// Envoy.
    Envoy,
    /// Knot DNS with zones of its own.
    Knot,
    /// unbound with local data.
    Unbound,
    /// dnsmasq with records of its own.
    Dnsmasq,
    /// Hickory DNS with zones of its own.
    Hickory,
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Portico => "portico",
            Self::PorticoRandom => "portico, random",
            Self::PorticoScraped => "portico, scraped",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::Knot => "Knot DNS",
            Self::Unbound => "unbound",
            Self::Dnsmasq => "dnsmasq",
            Self::Hickory => "Hickory DNS",
        })
    }
}

/// A promise: the median of a figure, or of its ratio in the same round, is within a bound, or its interval includes a
/// value, so that no difference from it is seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Bar {
    /// What.
    pub(crate) figure: Figure,
    /// Whose.
    pub(crate) of: Contestant,
    /// Relative to whom; without one the figure itself.
    pub(crate) against: Option<Contestant>,
    /// Upper bound.
    pub(crate) at_most: Option<f64>,
    /// Lower bound.
    pub(crate) at_least: Option<f64>,
    /// Value that the interval includes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) includes: Option<f64>,
}

impl Bar {
    /// Whether what was measured keeps it.
    pub(crate) fn is_met(&self, measured: Estimate) -> bool {
        match self.includes {
            Some(value) => (measured.low..=measured.high).contains(&value),
            None => self.is_within(measured.median),
        }
    }

    /// Whether the interval lies on both sides of a bound.
    pub(crate) fn is_close(&self, measured: Estimate) -> bool {
        self.includes.is_none() && self.is_within(measured.low) != self.is_within(measured.high)
    }

    fn is_within(&self, value: f64) -> bool {
        self.at_most.is_none_or(|bound| value <= bound)
            && self.at_least.is_none_or(|bound| value >= bound)
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.figure.name(), self.of)?;
        if let Some(against) = self.against {
            write!(f, " against {against}")?;
        }
        if let Some(bound) = self.at_most {
            write!(f, " <= {bound}")?;
        }
        if let Some(bound) = self.at_least {
            write!(f, " >= {bound}")?;
        }
        if let Some(value) = self.includes {
            write!(f, " includes {value}")?;
        }
        Ok(())
    }
}

impl Scenario {
    /// Reads a file and checks it.
    ///
    /// # Errors
    /// It cannot be read, or says what cannot be.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the scenario {}", file.display()))?;
        let scenario: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a scenario", file.display()))?;
        scenario
            .check()
            .with_context(|| format!("{} makes no sense", file.display()))?;
        ensure!(
            file.file_stem()
                .is_some_and(|stem| stem == scenario.name.as_str()),
            "{} is named '{}' inside",
            file.display(),
            scenario.name
        );
        Ok(scenario)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.backends > 0, "there is no backend");
        ensure!(self.threads > 0, "a proxy without threads does nothing");
        ensure!(
            (1..=100).contains(&self.rounds) && (0.05..=60.0).contains(&self.seconds),
            "1 to 100 rounds of 0.05 to 60 seconds"
        );
        ensure!(
            !self.contestants.is_empty() && !self.contestants.contains(&Contestant::Direct),
            "contestants are proxies; the direct control comes by itself"
        );
        ensure!(
            self.extra_services <= MOST_EXTRA,
            "at most {MOST_EXTRA} further Services"
        );
        ensure!(
            self.extra_services == 0 || self.contestants.iter().all(|who| who.is_portico()),
            "further Services are portico's alone, which compares with nobody else"
        );
        ensure!(
            !matches!(self.load, Load::Idle { .. })
                || !self.contestants.contains(&Contestant::PorticoScraped),
            "nothing is scraped while connections are idle"
        );
        if let Some(other) = self.contestants.iter().find(|who| !self.load.is_for(**who)) {
            bail!("{other} cannot take part in such a load");
        }
        self.load.check(self.threads)?;
        ensure!(
            (self.layer == Layer::Http2) == self.load.asked().is_some(),
            "streams are of layer http2, and nothing else is"
        );
        let given = self.load.gives();
        let used = self.figures.iter().chain(&self.control);
        if let Some(figure) = used.into_iter().find(|figure| !given.contains(figure)) {
            bail!("this load does not give {}", figure.name());
        }
        if let Some(control) = self.control.filter(|control| control.is_of_the_proxy()) {
            bail!("{} cannot be had without a proxy", control.name());
        }
        for bar in &self.bars {
            ensure!(
                self.figures.contains(&bar.figure),
                "'{bar}' is about a figure that is not shown"
            );
            ensure!(
                [bar.at_most, bar.at_least, bar.includes]
                    .iter()
                    .flatten()
                    .count()
                    == 1,
                "'{bar}' needs one bound"
            );
            let mut named = std::iter::once(bar.of).chain(bar.against);
            ensure!(
                named.all(|who| who == Contestant::Direct || self.contestants.contains(&who)),
                "'{bar}' is about somebody who does not take part"
            );
        }
        Ok(())
    }
}

/// Where the files are: beside this package's sources.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// The file of a name, or the file itself.
pub(crate) fn file(name: &str) -> PathBuf {
    if Path::new(name).extension().is_some() {
        return name.into();
    }
    folder().join(format!("{name}.json"))
}

/// All scenarios of a folder, by name.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn all(folder: &Path) -> anyhow::Result<Vec<Scenario>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| file.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    files.iter().map(|file| Scenario::read(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edit: impl FnOnce(&mut Scenario), message: &str) {
        let mut scenario = Scenario::read(&file("tcp-versus-haproxy")).unwrap();
        edit(&mut scenario);
        let error = scenario.check().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn scenario_files_all_parse_and_make_sense() {
        let names: Vec<String> = all(&folder())
            .unwrap()
            .into_iter()
            .map(|s| s.name)
            .collect();
        for name in [
            "bulk",
            "churn",
            "connect-rate",
            "dns",
            "dns-reload",
            "even-keepalive",
            "even-tcp",
            "grpc",
            "h2c",
            "idle-connections",
            "random-against-round-robin",
            "rate-sweep",
            "scrape",
            "tcp-versus-haproxy",
            "tcp-versus-nginx",
            "udp",
        ] {
            assert!(names.iter().any(|have| have == name), "{name}");
        }
    }

    #[test]
    fn scenario_with_a_figure_that_its_load_does_not_give_is_refused() {
        check(
            |scenario| scenario.figures.push(Figure::Spread),
            "does not give spread",
        );
    }

    #[test]
    fn scenario_with_a_bar_without_one_bound_is_refused() {
        check(
            |scenario| scenario.bars[0].at_most = None,
            "needs one bound",
        );
    }

    #[test]
    fn scenario_with_a_bar_about_a_stranger_is_refused() {
        check(
            |scenario| scenario.bars[0].against = Some(Contestant::PorticoRandom),
            "does not take part",
        );
    }

    #[test]
    fn scenario_with_a_contestant_that_does_something_else_is_refused() {
        check(
            |scenario| scenario.contestants.push(Contestant::Knot),
            "Knot DNS cannot take part",
        );
    }

    #[test]
    fn scenario_of_http2_without_streams_is_refused() {
        check(
            |scenario| scenario.layer = Layer::Http2,
            "streams are of layer http2",
        );
    }

    #[test]
    fn scenario_with_a_control_of_the_proxy_is_refused() {
        check(
            |scenario| scenario.control = Some(Figure::CpuPerRequest),
            "without a proxy",
        );
    }

    #[test]
    fn scenario_with_an_unknown_field_is_refused() {
        let text = std::fs::read_to_string(file("bulk")).unwrap();
        let text = text.replacen("\"about\"", "\"abuot\"", 1);
        let error = serde_json::from_str::<Scenario>(&text).unwrap_err();
        assert!(error.to_string().contains("abuot"), "{error}");
    }

    fn estimate(low: f64, median: f64, high: f64) -> Estimate {
        Estimate { median, low, high }
    }

    #[test]
    fn bar_that_includes_a_value_is_met_by_the_interval_and_never_close() {
        let bar = &Scenario::read(&file("scrape")).unwrap().bars[0];
        assert!(bar.is_met(estimate(0.99, 1.05, 1.2)) && bar.is_met(estimate(0.8, 0.9, 1.0)));
        assert!(!bar.is_met(estimate(1.01, 1.05, 1.2)) && !bar.is_met(estimate(0.8, 0.9, 0.99)));
        assert!(!bar.is_close(estimate(0.9, 1.0, 1.1)));
        assert_eq!(
            bar.to_string(),
            "latency-p50 of portico, scraped against portico includes 1"
        );
    }

    #[test]
    fn scenario_of_scraping_has_further_services_that_nobody_else_may_have() {
        let mut scenario = Scenario::read(&file("scrape-large")).unwrap();
        assert_eq!(scenario.extra_services, 1000);
        let text = serde_json::to_string(&scenario).unwrap();
        assert_eq!(serde_json::from_str::<Scenario>(&text).unwrap(), scenario);
        scenario.contestants.push(Contestant::Haproxy);
        let error = scenario.check().unwrap_err().to_string();
        assert!(error.contains("portico's alone"), "{error}");
    }

    #[test]
    fn scenario_with_a_bar_of_two_bounds_is_refused() {
        check(
            |scenario| scenario.bars[0].includes = Some(1.0),
            "needs one bound",
        );
    }

    #[test]
    fn bar_is_met_up_to_its_bound() {
        let bar = Bar {
            figure: Figure::CpuPerRequest,
            of: Contestant::Portico,
            against: Some(Contestant::Haproxy),
            at_most: Some(1.0),
            at_least: None,
            includes: None,
        };
        assert!(bar.is_met(estimate(0.9, 1.0, 1.1)) && !bar.is_met(estimate(0.9, 1.01, 1.1)));
        assert_eq!(
            bar.to_string(),
            "cpu-per-request of portico against HAProxy <= 1"
        );
    }
}
