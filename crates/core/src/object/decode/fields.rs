//! Field names and shapes of the kinds that act, from the Kubernetes API reference, also of fields that nothing here
//! acts on: otherwise they would be reported as unknown. Owns nothing but these tables. What lies below a field of
//! shape `Any` is not checked.

mod pod;
mod service;
mod workload;

pub(crate) use pod::POD;
pub(crate) use service::{ENDPOINT_SLICE, ENDPOINT_SLICE_V1BETA1, ENDPOINTS, SERVICE};
pub(crate) use workload::{DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET};

use super::shape::{
    Schema,
    Shape::{self, Any, Bool, Int, List, Map, Object, Text},
};

/// A list of strings.
pub(super) const TEXTS: Shape = List(&Text);
/// A mapping of strings to strings.
pub(super) const TEXT_MAP: Shape = Map(&Text);

static OWNER_REFERENCE: Schema = Schema {
    name: "OwnerReference",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("name", Text),
        ("uid", Text),
        ("controller", Bool),
        ("blockOwnerDeletion", Bool),
    ],
};

/// `metadata` of every object.
pub(crate) static OBJECT_META: Schema = Schema {
    name: "ObjectMeta",
    fields: &[
        ("name", Text),
        ("generateName", Text),
        ("namespace", Text),
        ("selfLink", Text),
        ("uid", Text),
        ("resourceVersion", Text),
        ("generation", Int),
        ("creationTimestamp", Text),
        ("deletionTimestamp", Text),
        ("deletionGracePeriodSeconds", Int),
        ("labels", TEXT_MAP),
        ("annotations", TEXT_MAP),
        ("ownerReferences", List(&Object(&OWNER_REFERENCE))),
        ("finalizers", TEXTS),
        ("clusterName", Text),
        ("managedFields", Any),
    ],
};

/// A reference to another object.
pub(super) static OBJECT_REFERENCE: Schema = Schema {
    name: "ObjectReference",
    fields: &[
        ("kind", Text),
        ("namespace", Text),
        ("name", Text),
        ("uid", Text),
        ("apiVersion", Text),
        ("resourceVersion", Text),
        ("fieldPath", Text),
    ],
};

static NAMESPACE_SPEC: Schema = Schema {
    name: "NamespaceSpec",
    fields: &[("finalizers", TEXTS)],
};

/// `v1` Namespace.
pub(crate) static NAMESPACE: Schema = Schema {
    name: "Namespace",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("spec", Object(&NAMESPACE_SPEC)),
        ("status", Any),
    ],
};

static NODE_SPEC: Schema = Schema {
    name: "NodeSpec",
    fields: &[
        ("podCIDR", Text),
        ("podCIDRs", TEXTS),
        ("providerID", Text),
        ("unschedulable", Bool),
        ("taints", Any),
        ("configSource", Any),
        ("externalID", Text),
    ],
};

/// `v1` Node.
pub(crate) static NODE: Schema = Schema {
    name: "Node",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("spec", Object(&NODE_SPEC)),
        ("status", Any),
    ],
};

static LIST_META: Schema = Schema {
    name: "ListMeta",
    fields: &[
        ("selfLink", Text),
        ("resourceVersion", Text),
        ("continue", Text),
        ("remainingItemCount", Int),
    ],
};

/// `v1` List and the typed lists, apart from what their items hold.
pub(crate) static LIST: Schema = Schema {
    name: "List",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&LIST_META)),
        ("items", List(&Any)),
    ],
};
