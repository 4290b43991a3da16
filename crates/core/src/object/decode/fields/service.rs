//! Fields of Service, Endpoints and EndpointSlice.

use super::{
    OBJECT_META, OBJECT_REFERENCE, Schema,
    Shape::{self, Any, Bool, Int, List, Object, Text},
    TEXT_MAP, TEXTS,
};

static SERVICE_PORT: Schema = Schema {
    name: "ServicePort",
    fields: &[
        ("name", Text),
        ("protocol", Text),
        ("appProtocol", Text),
        ("port", Int),
        ("targetPort", Shape::IntOrText),
        ("nodePort", Int),
    ],
};

static CLIENT_IP_CONFIG: Schema = Schema {
    name: "ClientIPConfig",
    fields: &[("timeoutSeconds", Int)],
};

static SESSION_AFFINITY_CONFIG: Schema = Schema {
    name: "SessionAffinityConfig",
    fields: &[("clientIP", Object(&CLIENT_IP_CONFIG))],
};

static SERVICE_SPEC: Schema = Schema {
    name: "ServiceSpec",
    fields: &[
        ("type", Text),
        ("ports", List(&Object(&SERVICE_PORT))),
        ("selector", TEXT_MAP),
        ("clusterIP", Text),
        ("clusterIPs", TEXTS),
        ("externalIPs", TEXTS),
        ("sessionAffinity", Text),
        ("loadBalancerIP", Text),
        ("loadBalancerSourceRanges", TEXTS),
        ("externalName", Text),
        ("externalTrafficPolicy", Text),
        ("healthCheckNodePort", Int),
        ("publishNotReadyAddresses", Bool),
        ("sessionAffinityConfig", Object(&SESSION_AFFINITY_CONFIG)),
        ("topologyKeys", TEXTS),
        ("ipFamilies", TEXTS),
        ("ipFamilyPolicy", Text),
        ("allocateLoadBalancerNodePorts", Bool),
        ("loadBalancerClass", Text),
        ("internalTrafficPolicy", Text),
        ("trafficDistribution", Text),
    ],
};

/// `v1` Service.
pub(crate) static SERVICE: Schema = Schema {
    name: "Service",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("spec", Object(&SERVICE_SPEC)),
        ("status", Any),
    ],
};

static ENDPOINT_ADDRESS: Schema = Schema {
    name: "EndpointAddress",
    fields: &[
        ("ip", Text),
        ("hostname", Text),
        ("nodeName", Text),
        ("targetRef", Object(&OBJECT_REFERENCE)),
    ],
};

static ENDPOINT_PORT: Schema = Schema {
    name: "EndpointPort",
    fields: &[
        ("name", Text),
        ("port", Int),
        ("protocol", Text),
        ("appProtocol", Text),
    ],
};

static ENDPOINT_SUBSET: Schema = Schema {
    name: "EndpointSubset",
    fields: &[
        ("addresses", List(&Object(&ENDPOINT_ADDRESS))),
        ("notReadyAddresses", List(&Object(&ENDPOINT_ADDRESS))),
        ("ports", List(&Object(&ENDPOINT_PORT))),
    ],
};

/// `v1` Endpoints.
pub(crate) static ENDPOINTS: Schema = Schema {
    name: "Endpoints",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("subsets", List(&Object(&ENDPOINT_SUBSET))),
    ],
};

static ENDPOINT_CONDITIONS: Schema = Schema {
    name: "EndpointConditions",
    fields: &[("ready", Bool), ("serving", Bool), ("terminating", Bool)],
};

static NAMED: Schema = Schema {
    name: "ForZone",
    fields: &[("name", Text)],
};

static ENDPOINT_HINTS: Schema = Schema {
    name: "EndpointHints",
    fields: &[
        ("forZones", List(&Object(&NAMED))),
        ("forNodes", List(&Object(&NAMED))),
    ],
};

static ENDPOINT: Schema = Schema {
    name: "Endpoint",
    fields: &[
        ("addresses", TEXTS),
        ("conditions", Object(&ENDPOINT_CONDITIONS)),
        ("hostname", Text),
        ("targetRef", Object(&OBJECT_REFERENCE)),
        ("deprecatedTopology", TEXT_MAP),
        ("nodeName", Text),
        ("zone", Text),
        ("hints", Object(&ENDPOINT_HINTS)),
    ],
};

static ENDPOINT_V1BETA1: Schema = Schema {
    name: "Endpoint",
    fields: &[
        ("addresses", TEXTS),
        ("conditions", Object(&ENDPOINT_CONDITIONS)),
        ("hostname", Text),
        ("targetRef", Object(&OBJECT_REFERENCE)),
        ("topology", TEXT_MAP),
        ("nodeName", Text),
        ("hints", Object(&ENDPOINT_HINTS)),
    ],
};

/// `discovery.k8s.io/v1` EndpointSlice.
pub(crate) static ENDPOINT_SLICE: Schema = Schema {
    name: "EndpointSlice",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("addressType", Text),
        ("endpoints", List(&Object(&ENDPOINT))),
        ("ports", List(&Object(&ENDPOINT_PORT))),
    ],
};

/// `discovery.k8s.io/v1beta1` EndpointSlice: `topology` where v1 has `zone`.
pub(crate) static ENDPOINT_SLICE_V1BETA1: Schema = Schema {
    name: "EndpointSlice",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("addressType", Text),
        ("endpoints", List(&Object(&ENDPOINT_V1BETA1))),
        ("ports", List(&Object(&ENDPOINT_PORT))),
    ],
};
