//! Tables and details of counts that are made up here.

use portico_core::time::Timestamp;

use super::{
    WindowName, detail, service_name,
    table::{self, Namespace, SortBy, Windows},
};
use crate::admin::stat::{
    EndpointStat, EndpointWindow, Epoch, Failures, Latency, PortCounts, PortStat, PortWindow, Unit,
    Units, Verdict,
};

const WINDOWS: Windows = Windows {
    rates: WindowName::TenSeconds,
    shares: WindowName::Mark,
};

fn window(name: &str, rate: f64, verdict: Option<Verdict>) -> PortWindow {
    PortWindow {
        window: name.to_owned(),
        seconds: 10.0,
        connections: 100,
        picks: 101,
        rejected: 1,
        bytes_to_endpoints: 1000,
        bytes_to_clients: 9000,
        connections_per_second: rate,
        bytes_per_second: 1000.0,
        error_share: Some(0.01),
        set_seconds: 4.0,
        verdict,
        evenness: Units::default(),
        uneven_because: Vec::new(),
    }
}

pub(in crate::cli) fn port(service: &str, rate: f64, picks: &[u64]) -> PortStat {
    PortStat {
        namespace: "shop".to_owned(),
        service: service.to_owned(),
        port_name: String::new(),
        port: 80,
        protocol: "TCP".to_owned(),
        ip_family: "IPv4".to_owned(),
        unit: Unit::Connections,
        balance: "round-robin".to_owned(),
        affinity_seconds: None,
        ready: picks.len(),
        declared: picks.len() + 1,
        counts: PortCounts::default(),
        connect: Latency::default(),
        durations: Latency {
            count: 3,
            p50: Some(0.001_5),
            p99: Some(0.02),
        },
        windows: vec![
            window("10s", rate, None),
            window("mark", rate, Some(Verdict::Even)),
        ],
        epoch: Epoch {
            since: "1970-01-01T00:00:10Z".to_owned(),
            ..Epoch::default()
        },
        notes: Vec::new(),
        endpoints: picks
            .iter()
            .enumerate()
            .map(|(index, count)| endpoint(index, *count, picks))
            .collect(),
    }
}

fn endpoint(index: usize, picks: u64, all: &[u64]) -> EndpointStat {
    let real = portico_core::observe::real;
    let total = real(all.iter().sum());
    let expected = 1.0 / real(u64::try_from(all.len()).unwrap());
    let share = real(picks) / total;
    let window = |name: &str| EndpointWindow {
        window: name.to_owned(),
        picks,
        turns: picks,
        connections: picks,
        failures: 0,
        bytes_to_endpoint: 100,
        bytes_to_clients: 300,
        share: Some(share),
        deviation: Some(share / expected - 1.0),
    };
    EndpointStat {
        address: ([10, 0, 0, u8::try_from(index).unwrap() + 1], 80).into(),
        pod: Some(format!("web-{index}")),
        weight: 1,
        expected,
        ejected: false,
        ejected_until: None,
        since: "1970-01-01T00:00:10Z".to_owned(),
        picks: picks + 7,
        affine: 0,
        connections: picks,
        active: 2,
        failures: Failures::default(),
        bytes_to_endpoint: 0,
        bytes_to_clients: 0,
        connect: Latency::default(),
        windows: vec![window("10s"), window("mark")],
    }
}

#[test]
fn services_are_rows_under_one_header() {
    let mut web = port("web", 12.34, &[1, 1]);
    web.unit = Unit::Requests;
    let ports = [web, port("api", 0.0, &[1])];
    let table = table::services(&ports, WINDOWS, Namespace::Shown);
    assert_eq!(
        table.text(usize::MAX),
        "\
NAMESPACE   NAME   PORT     READY   RATE      ACTIVE   BYTES/S   ERR%   P50     P99    EVEN
shop        web    80/TCP   2/3     12req/s   0        1.0kB     1.0%   1.5ms   20ms   even
shop        api    80/TCP   1/2     0conn/s   0        1.0kB     1.0%   1.5ms   20ms   even
"
    );
}

#[test]
fn sums_are_of_one_unit_each() {
    let mut web = port("web", 12.0, &[1]);
    web.unit = Unit::Requests;
    let ports = [port("a", 1.0, &[1]), web, port("b", 1.5, &[1])];
    let sums = |ports| table::sums(ports, WindowName::TenSeconds);
    assert_eq!(sums(&ports), "2.5conn/s 12req/s");
    assert_eq!(sums(&[]), "");
}

#[test]
fn services_of_two_families_tell_them_apart() {
    let mut six = port("web", 1.0, &[1]);
    six.ip_family = "IPv6".to_owned();
    let ports = [port("web", 1.0, &[1]), six];
    let text = table::services(&ports, WINDOWS, Namespace::Hidden).text(usize::MAX);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("NAME   PORT     FAMILY   READY"),
        "{text}"
    );
    assert!(
        lines[2].starts_with("web    80/TCP   IPv6     1/2"),
        "{text}"
    );
}

#[test]
fn sort_puts_the_busiest_first_and_keeps_the_order_of_names() {
    let ports = [
        port("a", 1.0, &[1]),
        port("b", 5.0, &[1]),
        port("c", 1.0, &[1]),
    ];
    let mut table = table::services(&ports, WINDOWS, Namespace::Hidden);
    table.sort(SortBy::Conn);
    let text = table.text(usize::MAX);
    let order: Vec<&str> = text.lines().skip(1).map(|line| &line[..1]).collect();
    assert_eq!(order, ["b", "a", "c"]);
    assert_eq!(table.text(1).lines().count(), 2);
}

#[test]
fn endpoints_have_rates_over_the_life_of_their_set() {
    let table = table::endpoints(&[port("web", 1.0, &[30, 10])], WINDOWS, Namespace::Hidden);
    let text = table.text(usize::MAX);
    let cells: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    // 30 in 4 s, 400 bytes in 4 s.
    assert_eq!(
        cells[1].join(" "),
        "web 80/TCP 10.0.0.1:80 web-0 7.5conn/s 2 100B 0.0% 75.0% 50.0% - - ready"
    );
}

#[test]
fn detail_shows_each_share_beside_the_expected_one_and_why() {
    let mut port = port("web", 1.0, &[30, 10]);
    let over = port.windows.last_mut().unwrap();
    over.verdict = Some(Verdict::Uneven);
    over.uneven_because = vec!["policy random: chance".to_owned()];
    port.unit = Unit::Flows;
    port.endpoints[1].ejected = true;
    let now = Timestamp::from_millis(70_000);
    let text = detail::text(&port, WindowName::Mark, now);
    for said in [
        "Verdict:  uneven (since the mark or the last change, 4.0s)\n",
        "Rates:    1.0 flows/s, ",
        "Totals:   0 flows (0 active)",
        "Set:      in force for 60s\n",
        "DEVIATION(+-50%)",
        "37      30      75.0%   50.0%      [     |#####] +50.0%",
        "[#####|     ] -50.0%",
        "web-1   ejected   17 ",
        "\nUneven because:\n  policy random: chance\n",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn service_name_takes_kubectls_forms_and_no_paths() {
    for text in ["web", "service/web", "svc/web"] {
        assert_eq!(service_name(text).unwrap(), "web");
    }
    let error = |text: &str| service_name(text).unwrap_err().to_string();
    assert_eq!(error("pod/web"), "error: pod/web is no Service");
    assert!(error("svc/a?b").contains("not found"));
}
