//! Identity and metadata of an object. Owns keys, labels and origins; must not know any kind's spec.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// Labels, selectors and annotations: ordered, because they are shown and hashed.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// The kinds that act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Namespace, cluster-scoped.
    Namespace,
    /// `v1` Node, cluster-scoped.
    Node,
    /// `v1` Service.
    Service,
    /// `v1` Endpoints, mirrored into slices for Services without a selector.
    Endpoints,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Pod.
    Pod,
    /// `apps/v1` ReplicaSet.
    ReplicaSet,
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` DaemonSet.
    DaemonSet,
    /// `apps/v1` StatefulSet.
    StatefulSet,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Service,
        Self::Endpoints,
        Self::EndpointSlice,
        Self::Pod,
        Self::Deployment,
        Self::ReplicaSet,
        Self::DaemonSet,
        Self::StatefulSet,
        Self::Namespace,
        Self::Node,
    ];

    /// The kind that manifests spell like this.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The kind as manifests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::ReplicaSet => "ReplicaSet",
            Self::Deployment => "Deployment",
            Self::DaemonSet => "DaemonSet",
            Self::StatefulSet => "StatefulSet",
        }
    }

    /// The plural, lower case, as the Kubernetes API and kubectl name the resource.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::Service => "services",
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslices",
            Self::Pod => "pods",
            Self::ReplicaSet => "replicasets",
            Self::Deployment => "deployments",
            Self::DaemonSet => "daemonsets",
            Self::StatefulSet => "statefulsets",
        }
    }

    /// Whether objects of this kind live outside namespaces.
    pub const fn is_cluster_scoped(self) -> bool {
        matches!(self, Self::Namespace | Self::Node)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identity of an object: stable over edits of everything else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind; group and version are not part of the identity.
    pub kind: Kind,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// `metadata` beyond the identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: Labels,
}

/// A line and a column, both counted from 1 in characters.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

/// Where an object was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file as the user named it, or what else the Source calls the place (`<stdin>`, a container).
    pub file: Arc<str>,
    /// Start of the document.
    pub position: Position,
    /// Positions of the fields that later stages may still have to complain about, by field path
    /// (`spec.clusterIP`, `spec.ports[0].nodePort`). Absent fields are absent here too.
    pub marks: Arc<[(Box<str>, Position)]>,
}

impl Origin {
    /// The position of the field at `path`, else that of its nearest marked ancestor, else the document's.
    pub fn position_of(&self, path: &str) -> Position {
        let mut wanted = path;
        loop {
            if let Some((_, position)) = self.marks.iter().find(|(field, _)| &**field == wanted) {
                return *position;
            }
            match wanted.rfind(['.', '[']) {
                Some(end) => wanted = wanted.get(..end).unwrap_or_default(),
                None => return self.position,
            }
        }
    }
}
