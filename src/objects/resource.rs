//! The resources that can be asked for, with the names that kubectl knows them by. Owns that table.

/// A kind of objects as the Kubernetes API serves it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// `v1` Service.
    Services,
    /// `v1` Endpoints.
    Endpoints,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlices,
    /// `v1` Pod.
    Pods,
    /// `apps/v1` ReplicaSet.
    ReplicaSets,
    /// `apps/v1` Deployment.
    Deployments,
    /// `apps/v1` DaemonSet.
    DaemonSets,
    /// `apps/v1` StatefulSet.
    StatefulSets,
    /// `v1` Namespace.
    Namespaces,
    /// `v1` Node.
    Nodes,
    /// `v1` Event.
    Events,
    /// Our own: live TCP connections.
    Connections,
}

/// What the API says of a resource.
struct Row {
    resource: Resource,
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
}

/// As `kubectl api-resources` prints them.
const TABLE: [Row; 12] = [
    row(
        Resource::Services,
        ("", "Service"),
        ("services", "service"),
        &["svc"],
        true,
    ),
    row(
        Resource::Endpoints,
        ("", "Endpoints"),
        ("endpoints", "endpoint"),
        &["ep"],
        true,
    ),
    row(
        Resource::EndpointSlices,
        ("discovery.k8s.io", "EndpointSlice"),
        ("endpointslices", "endpointslice"),
        &[],
        true,
    ),
    row(Resource::Pods, ("", "Pod"), ("pods", "pod"), &["po"], true),
    row(
        Resource::ReplicaSets,
        ("apps", "ReplicaSet"),
        ("replicasets", "replicaset"),
        &["rs"],
        true,
    ),
    row(
        Resource::Deployments,
        ("apps", "Deployment"),
        ("deployments", "deployment"),
        &["deploy"],
        true,
    ),
    row(
        Resource::DaemonSets,
        ("apps", "DaemonSet"),
        ("daemonsets", "daemonset"),
        &["ds"],
        true,
    ),
    row(
        Resource::StatefulSets,
        ("apps", "StatefulSet"),
        ("statefulsets", "statefulset"),
        &["sts"],
        true,
    ),
    row(
        Resource::Namespaces,
        ("", "Namespace"),
        ("namespaces", "namespace"),
        &["ns"],
        false,
    ),
    row(
        Resource::Nodes,
        ("", "Node"),
        ("nodes", "node"),
        &["no"],
        false,
    ),
    row(
        Resource::Events,
        ("", "Event"),
        ("events", "event"),
        &["ev"],
        true,
    ),
    row(
        Resource::Connections,
        ("portico.dev", "Connection"),
        ("connections", "connection"),
        &["conn"],
        true,
    ),
];

const fn row(
    resource: Resource,
    (group, kind): (&'static str, &'static str),
    (plural, singular): (&'static str, &'static str),
    short: &'static [&'static str],
    namespaced: bool,
) -> Row {
    Row {
        resource,
        group,
        kind,
        plural,
        singular,
        short,
        namespaced,
    }
}

impl Resource {
    /// All of Kubernetes' own, in the order in which `get all` of kubectl's categories would be looked through.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::known().filter(|resource| *resource != Self::Connections)
    }

    /// Ours too.
    pub fn known() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.resource)
    }

    /// What kubectl understands by `name`: plural, singular, short name or kind, in any case, with or without the
    /// group (`deployments.apps`, `deployment.v1.apps`).
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (bare, rest) = name.split_once('.').unwrap_or((&name, ""));
        let row = TABLE
            .iter()
            .find(|row| row.plural == bare || row.singular == bare || row.short.contains(&bare))?;
        let group = rest.strip_prefix("v1.").unwrap_or(rest);
        (rest.is_empty() || rest == "v1" || group == row.group).then_some(row.resource)
    }

    fn row(self) -> &'static Row {
        let found = TABLE.iter().find(|row| row.resource == self);
        // The table has every resource, which the test holds; the first row is never given for another one.
        found.unwrap_or(&TABLE[0])
    }

    /// `services`.
    pub fn plural(self) -> &'static str {
        self.row().plural
    }

    /// `service`.
    pub fn singular(self) -> &'static str {
        self.row().singular
    }

    /// `svc`; some have none.
    pub fn short_names(self) -> &'static [&'static str] {
        self.row().short
    }

    /// `Service`.
    pub fn kind(self) -> &'static str {
        self.row().kind
    }

    /// `apps`; empty for the core group.
    pub fn group(self) -> &'static str {
        self.row().group
    }

    /// `apps/v1`, `v1`.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => "v1".to_owned(),
            group => format!("{group}/v1"),
        }
    }

    /// `deployments.apps`, `services`: how kubectl names a resource in errors.
    pub fn qualified(self) -> String {
        with_group(self.plural(), self.group())
    }

    /// `deployment.apps`, `service`: what kubectl puts before `/name`.
    pub fn qualified_singular(self) -> String {
        with_group(self.singular(), self.group())
    }

    /// That there is none called `name`, in the API server's words.
    pub fn not_found(self, name: &str) -> String {
        format!(
            "Error from server (NotFound): {} \"{name}\" not found",
            self.qualified()
        )
    }

    /// Whether its objects live in namespaces.
    pub fn is_namespaced(self) -> bool {
        self.row().namespaced
    }
}

fn with_group(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_takes_what_kubectl_takes() {
        for name in ["svc", "service", "services", "Service", "services.v1"] {
            assert_eq!(Resource::named(name), Some(Resource::Services), "{name}");
        }
        for name in [
            "deploy",
            "Deployment",
            "deployments.apps",
            "deployment.v1.apps",
        ] {
            assert_eq!(Resource::named(name), Some(Resource::Deployments), "{name}");
        }
        assert_eq!(Resource::named("services.apps"), None);
        assert_eq!(Resource::named("jobs"), None);
    }

    #[test]
    fn table_has_a_row_for_each_resource() {
        for resource in Resource::known() {
            assert_eq!(resource.row().resource, resource);
        }
        assert_eq!(Resource::Nodes.qualified_singular(), "node");
        assert_eq!(Resource::ReplicaSets.qualified(), "replicasets.apps");
    }
}
