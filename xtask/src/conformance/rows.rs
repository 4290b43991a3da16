//! What Kubernetes' own suites demand of Services, as data. Owns the rows, in our words, and why a row has no test; the
//! titles of the originals are in `test/e2e/network` of kubernetes/kubernetes and in its
//! `test/conformance/testdata/conformance.yaml`.

/// One behaviour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Its number, which its tests carry in their names.
    pub(super) number: u8,
    /// What is demanded.
    pub(super) behaviour: &'static str,
    /// How much it weighs.
    pub(super) level: Level,
    /// Files in `test/e2e/network` that have it.
    pub(super) files: &'static [&'static str],
    /// How it stands here.
    pub(super) state: State,
}

/// Which suite demands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Every cluster that calls itself Kubernetes passes it.
    Conformance,
    /// In the end-to-end suite only.
    EndToEnd,
}

/// How a row stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Tests hold all of it.
    Whole,
    /// Tests hold what is said of it here.
    Partly(&'static str),
    /// It has no meaning here, and why.
    Foreign(&'static str),
}

use Level::{Conformance, EndToEnd};
use State::{Foreign, Partly, Whole};

const fn row(
    number: u8,
    level: Level,
    files: &'static [&'static str],
    behaviour: &'static str,
    state: State,
) -> Row {
    Row {
        number,
        behaviour,
        level,
        files,
        state,
    }
}

const SERVICE: &[&str] = &["service.go"];

/// All rows, by number.
pub(super) const ROWS: &[Row] = &[
    row(
        1,
        Conformance,
        SERVICE,
        "A Service is reached by its name and its cluster IP, a node port on every address of the node",
        Whole,
    ),
    row(
        2,
        Conformance,
        SERVICE,
        "Types change from ExternalName to ClusterIP and NodePort and back: addresses and node ports come and go, and so does the alias",
        Whole,
    ),
    row(
        3,
        Conformance,
        SERVICE,
        "Endpoints follow the pods that come and go, port by port; without pods there are none",
        Whole,
    ),
    row(
        4,
        Conformance,
        SERVICE,
        "TCP and UDP share a port number, and either goes without the other",
        Whole,
    ),
    row(
        5,
        Conformance,
        SERVICE,
        "With affinity by client IP, all requests of a client reach one of three pods, by cluster IP and by node port",
        Whole,
    ),
    row(
        6,
        Conformance,
        SERVICE,
        "Affinity is switched on and off while the Service runs",
        Whole,
    ),
    row(
        7,
        EndToEnd,
        SERVICE,
        "Affinity ends with its time-out (Conformance in 1.19, not in later lists)",
        Whole,
    ),
    row(
        8,
        EndToEnd,
        &["networking.go", "loadbalancer.go"],
        "Affinity for UDP, and at load balancers under both external traffic policies",
        Whole,
    ),
    row(
        9,
        Conformance,
        &["endpointslice.go", "endpointslicemirroring.go"],
        "Objects of type EndpointSlice and Endpoints are made, mirrored, changed and deleted",
        Partly(
            "mirroring; creating, changing and deleting objects by requests needs an API server",
        ),
    ),
    row(
        10,
        EndToEnd,
        &["endpointslice.go"],
        "One Service has its ports and addresses from several slices",
        Whole,
    ),
    row(
        11,
        Conformance,
        &["service_latency.go"],
        "Of a hundred new Services or more, each has its endpoint soon (median 20 s, slowest 50 s)",
        Partly(
            "each is served as soon as its endpoint is seen; the test prints its times and asserts none",
        ),
    ),
    row(
        12,
        Conformance,
        &["dns.go", "service.go"],
        "Names: addresses and ports of Services, partial names, hostname and subdomain of pods, aliases that change and that become addresses",
        Partly("all but the name of the API server's own Service, for there is none"),
    ),
    row(
        13,
        Conformance,
        SERVICE,
        "Services are listed, watched and patched, and deleted in collections; the Service `kubernetes` exists",
        Foreign("these are requests to an API server"),
    ),
    row(
        14,
        Conformance,
        &["proxy.go"],
        "The API server is a proxy to Services and pods",
        Foreign("there is no API server"),
    ),
    row(
        15,
        Conformance,
        &["networking.go", "hostport.go"],
        "Pods reach pods and nodes; host ports do not conflict when address or protocol differ",
        Foreign("that is the work of a network plugin"),
    ),
    row(
        16,
        EndToEnd,
        SERVICE,
        "A Service without endpoints refuses within 3 s, also when its pods were evicted",
        Whole,
    ),
    row(
        17,
        EndToEnd,
        SERVICE,
        "A pod reaches itself through its Service",
        Whole,
    ),
    row(
        18,
        EndToEnd,
        SERVICE,
        "Pods see the source address of a pod that comes by cluster IP",
        Partly(
            "by annotation `portico.dev/source-address: keep`, off by default; clients of other machines need CAP_NET_RAW and routes back",
        ),
    ),
    row(
        19,
        EndToEnd,
        SERVICE,
        "Services go up and down without the others, work after a restart of the proxy, and when deleted and created again",
        Partly("all but the restart of an API server"),
    ),
    row(
        20,
        EndToEnd,
        SERVICE,
        "Services with the label of another proxy or the headless label are left alone; both labels are followed live",
        Whole,
    ),
    row(
        21,
        EndToEnd,
        SERVICE,
        "A node port that is taken or out of range is an error that says so; a released one is used again",
        Whole,
    ),
    row(
        22,
        EndToEnd,
        &["service.go", "loadbalancer.go"],
        "Node ports change, serve TCP and UDP on one number when the type changes, and stay when the port of a load balancer changes",
        Whole,
    ),
    row(
        23,
        EndToEnd,
        SERVICE,
        "Internal policy Local: pods and the node reach endpoints of their node, in its network too; another node's clients fail five times of five",
        Whole,
    ),
    row(
        24,
        EndToEnd,
        SERVICE,
        "Terminating endpoints serve when none is ready, under either internal or external policy, five times of five",
        Whole,
    ),
    row(
        25,
        EndToEnd,
        SERVICE,
        "The health check is 200 with a ready local endpoint, and 503 with a terminating one that still serves",
        Whole,
    ),
    row(
        26,
        EndToEnd,
        &["service.go", "loadbalancer.go"],
        "Node port and health check follow changes of the external policy",
        Whole,
    ),
    row(
        27,
        EndToEnd,
        SERVICE,
        "Terminating and unready pods serve with `publishNotReadyAddresses`, and without it they do not",
        Whole,
    ),
    row(
        28,
        EndToEnd,
        SERVICE,
        "An external IP that no node has is reached",
        Whole,
    ),
    row(
        29,
        EndToEnd,
        &["loadbalancer.go"],
        "Source ranges let in and keep out, and are changed live",
        Whole,
    ),
    row(
        30,
        EndToEnd,
        &["conntrack.go", "loadbalancer.go"],
        "UDP from one source port goes on while endpoints are replaced and once they become ready, by every frontend",
        Whole,
    ),
    row(
        31,
        EndToEnd,
        &["conntrack.go", "kube_proxy.go"],
        "Packets that connection tracking finds invalid reset nothing; its time-out for CLOSE_WAIT is set",
        Foreign("connection tracking is not used"),
    ),
    row(
        32,
        EndToEnd,
        &["traffic_distribution.go"],
        "`trafficDistribution`: ten requests in a row reach all endpoints of the zone or node and no other; where there is none near by, all",
        Whole,
    ),
    row(
        33,
        EndToEnd,
        &["loadbalancer.go"],
        "A rolling update disrupts nobody, under either external policy",
        Whole,
    ),
    row(
        34,
        EndToEnd,
        &["networking.go"],
        "Large requests by TCP and UDP, several Services with one selector, endpoints in the host's network, changed endpoints and node ports",
        Whole,
    ),
    row(
        35,
        EndToEnd,
        &["dual_stack.go"],
        "Services of one or both families in either order, reached by each",
        Whole,
    ),
    row(
        36,
        EndToEnd,
        SERVICE,
        "SCTP",
        Partly(
            "such Services have addresses, endpoints and names beside TCP on the same number; SCTP is not forwarded, and it is said so",
        ),
    ),
    row(
        37,
        EndToEnd,
        &["networking.go"],
        "Health, mode and metrics are found where kube-proxy has them",
        Whole,
    ),
];
