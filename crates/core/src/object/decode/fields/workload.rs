//! Fields of Deployment, ReplicaSet, DaemonSet and StatefulSet, of all their API versions together.

use super::{
    OBJECT_META, Schema,
    Shape::{Any, Bool, Int, IntOrText, List, Object, Text},
    TEXT_MAP, TEXTS,
    pod::POD_SPEC,
};

static LABEL_SELECTOR_REQUIREMENT: Schema = Schema {
    name: "LabelSelectorRequirement",
    fields: &[("key", Text), ("operator", Text), ("values", TEXTS)],
};

static LABEL_SELECTOR: Schema = Schema {
    name: "LabelSelector",
    fields: &[
        ("matchLabels", TEXT_MAP),
        (
            "matchExpressions",
            List(&Object(&LABEL_SELECTOR_REQUIREMENT)),
        ),
    ],
};

static POD_TEMPLATE_SPEC: Schema = Schema {
    name: "PodTemplateSpec",
    fields: &[
        ("metadata", Object(&OBJECT_META)),
        ("spec", Object(&POD_SPEC)),
    ],
};

static ROLLING_UPDATE: Schema = Schema {
    name: "RollingUpdateDeployment",
    fields: &[("maxUnavailable", IntOrText), ("maxSurge", IntOrText)],
};

static DEPLOYMENT_STRATEGY: Schema = Schema {
    name: "DeploymentStrategy",
    fields: &[("type", Text), ("rollingUpdate", Object(&ROLLING_UPDATE))],
};

static DEPLOYMENT_SPEC: Schema = Schema {
    name: "DeploymentSpec",
    fields: &[
        ("replicas", Int),
        ("selector", Object(&LABEL_SELECTOR)),
        ("template", Object(&POD_TEMPLATE_SPEC)),
        ("strategy", Object(&DEPLOYMENT_STRATEGY)),
        ("minReadySeconds", Int),
        ("revisionHistoryLimit", Int),
        ("paused", Bool),
        ("progressDeadlineSeconds", Int),
        ("rollbackTo", Any),
    ],
};

/// `apps/v1` Deployment.
pub(crate) static DEPLOYMENT: Schema = Schema {
    name: "Deployment",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("spec", Object(&DEPLOYMENT_SPEC)),
        ("status", Any),
    ],
};

static REPLICA_SET_SPEC: Schema = Schema {
    name: "ReplicaSetSpec",
    fields: &[
        ("replicas", Int),
        ("minReadySeconds", Int),
        ("selector", Object(&LABEL_SELECTOR)),
        ("template", Object(&POD_TEMPLATE_SPEC)),
    ],
};

/// `apps/v1` ReplicaSet.
pub(crate) static REPLICA_SET: Schema = Schema {
    name: "ReplicaSet",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("spec", Object(&REPLICA_SET_SPEC)),
        ("status", Any),
    ],
};

static ROLLING_UPDATE_DAEMON_SET: Schema = Schema {
    name: "RollingUpdateDaemonSet",
    fields: &[("maxUnavailable", IntOrText), ("maxSurge", IntOrText)],
};

static DAEMON_SET_UPDATE_STRATEGY: Schema = Schema {
    name: "DaemonSetUpdateStrategy",
    fields: &[
        ("type", Text),
        ("rollingUpdate", Object(&ROLLING_UPDATE_DAEMON_SET)),
    ],
};

static DAEMON_SET_SPEC: Schema = Schema {
    name: "DaemonSetSpec",
    fields: &[
        ("selector", Object(&LABEL_SELECTOR)),
        ("template", Object(&POD_TEMPLATE_SPEC)),
        ("updateStrategy", Object(&DAEMON_SET_UPDATE_STRATEGY)),
        ("minReadySeconds", Int),
        ("revisionHistoryLimit", Int),
        // extensions/v1beta1 and apps/v1beta2.
        ("templateGeneration", Int),
    ],
};

/// `apps/v1` DaemonSet.
pub(crate) static DAEMON_SET: Schema = Schema {
    name: "DaemonSet",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("spec", Object(&DAEMON_SET_SPEC)),
        ("status", Any),
    ],
};

static ROLLING_UPDATE_STATEFUL_SET: Schema = Schema {
    name: "RollingUpdateStatefulSetStrategy",
    fields: &[("partition", Int), ("maxUnavailable", IntOrText)],
};

static STATEFUL_SET_UPDATE_STRATEGY: Schema = Schema {
    name: "StatefulSetUpdateStrategy",
    fields: &[
        ("type", Text),
        ("rollingUpdate", Object(&ROLLING_UPDATE_STATEFUL_SET)),
    ],
};

static RETENTION_POLICY: Schema = Schema {
    name: "StatefulSetPersistentVolumeClaimRetentionPolicy",
    fields: &[("whenDeleted", Text), ("whenScaled", Text)],
};

static ORDINALS: Schema = Schema {
    name: "StatefulSetOrdinals",
    fields: &[("start", Int)],
};

static STATEFUL_SET_SPEC: Schema = Schema {
    name: "StatefulSetSpec",
    fields: &[
        ("replicas", Int),
        ("selector", Object(&LABEL_SELECTOR)),
        ("template", Object(&POD_TEMPLATE_SPEC)),
        ("volumeClaimTemplates", List(&Any)),
        ("serviceName", Text),
        ("podManagementPolicy", Text),
        ("updateStrategy", Object(&STATEFUL_SET_UPDATE_STRATEGY)),
        ("revisionHistoryLimit", Int),
        ("minReadySeconds", Int),
        (
            "persistentVolumeClaimRetentionPolicy",
            Object(&RETENTION_POLICY),
        ),
        ("ordinals", Object(&ORDINALS)),
    ],
};

/// `apps/v1` StatefulSet.
pub(crate) static STATEFUL_SET: Schema = Schema {
    name: "StatefulSet",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("spec", Object(&STATEFUL_SET_SPEC)),
        ("status", Any),
    ],
};
