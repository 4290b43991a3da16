//! Which kind a document is of, in which API version, and whether that exists. Owns that table.

use std::sync::Arc;

use super::{
    cursor::Cursor,
    fields,
    shape::{self, Shape},
    workload::Version,
};
use crate::object::{meta::Kind, tree::Value};

/// What `apiVersion` and `kind` say.
pub(super) enum Resolved {
    /// A kind that acts.
    Known(Known),
    /// `List` or a typed list, with `apiVersion` and `kind` of its items if it implies them.
    List {
        /// For items that do not say it themselves.
        implied: Option<(String, String)>,
    },
    /// A kind that nothing acts on.
    Inert {
        /// `apiVersion` and `kind`.
        api_version_kind: Arc<str>,
    },
}

/// A kind that acts, in one of its versions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// The kind.
    pub(super) kind: Kind,
    api_version: ApiVersion,
    /// For workloads; others carry the newest.
    pub(super) workload_version: Version,
}

/// The API versions in which kinds that act exist or existed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ApiVersion {
    CoreV1,
    AppsV1,
    AppsV1Beta1,
    AppsV1Beta2,
    ExtensionsV1Beta1,
    DiscoveryV1,
    DiscoveryV1Beta1,
}

impl Known {
    fn new(kind: Kind, api_version: &str) -> Option<Self> {
        let api_version = match (kind, api_version) {
            (Kind::Service | Kind::Endpoints | Kind::Pod | Kind::Namespace | Kind::Node, "v1") => {
                ApiVersion::CoreV1
            }
            (Kind::EndpointSlice, "discovery.k8s.io/v1") => ApiVersion::DiscoveryV1,
            (Kind::EndpointSlice, "discovery.k8s.io/v1beta1") => ApiVersion::DiscoveryV1Beta1,
            (
                Kind::Deployment | Kind::ReplicaSet | Kind::DaemonSet | Kind::StatefulSet,
                "apps/v1",
            ) => ApiVersion::AppsV1,
            (
                Kind::Deployment | Kind::ReplicaSet | Kind::DaemonSet | Kind::StatefulSet,
                "apps/v1beta2",
            ) => ApiVersion::AppsV1Beta2,
            (Kind::Deployment | Kind::StatefulSet, "apps/v1beta1") => ApiVersion::AppsV1Beta1,
            (Kind::Deployment | Kind::ReplicaSet | Kind::DaemonSet, "extensions/v1beta1") => {
                ApiVersion::ExtensionsV1Beta1
            }
            _ => return None,
        };
        let workload_version = match api_version {
            ApiVersion::AppsV1Beta1 => Version::AppsV1Beta1,
            ApiVersion::AppsV1Beta2 => Version::AppsV1Beta2,
            ApiVersion::ExtensionsV1Beta1 => Version::ExtensionsV1Beta1,
            _ => Version::V1,
        };
        Some(Self {
            kind,
            api_version,
            workload_version,
        })
    }

    /// Its fields.
    pub(super) fn shape(self) -> Shape {
        Shape::Object(match self.kind {
            Kind::Service => &fields::SERVICE,
            Kind::Endpoints => &fields::ENDPOINTS,
            Kind::EndpointSlice if self.api_version == ApiVersion::DiscoveryV1Beta1 => {
                &fields::ENDPOINT_SLICE_V1BETA1
            }
            Kind::EndpointSlice => &fields::ENDPOINT_SLICE,
            Kind::Pod => &fields::POD,
            Kind::Deployment => &fields::DEPLOYMENT,
            Kind::ReplicaSet => &fields::REPLICA_SET,
            Kind::DaemonSet => &fields::DAEMON_SET,
            Kind::StatefulSet => &fields::STATEFUL_SET,
            Kind::Namespace => &fields::NAMESPACE,
            Kind::Node => &fields::NODE,
        })
    }

    /// The warning with which the API server answers, or answered, this version.
    pub(super) fn deprecation(self) -> Option<String> {
        let (old, since, until, new) = match self.api_version {
            ApiVersion::ExtensionsV1Beta1 => ("extensions/v1beta1", "1.8", "1.16", "apps/v1"),
            ApiVersion::AppsV1Beta1 => ("apps/v1beta1", "1.8", "1.16", "apps/v1"),
            ApiVersion::AppsV1Beta2 => ("apps/v1beta2", "1.9", "1.16", "apps/v1"),
            ApiVersion::DiscoveryV1Beta1 => (
                "discovery.k8s.io/v1beta1",
                "1.21",
                "1.25",
                "discovery.k8s.io/v1",
            ),
            ApiVersion::CoreV1 | ApiVersion::AppsV1 | ApiVersion::DiscoveryV1 => return None,
        };
        let kind = self.kind;
        Some(format!(
            "{old} {kind} is deprecated in v{since}+, unavailable in v{until}+; use {new} {kind}"
        ))
    }
}

/// Reads `apiVersion` and `kind`; reports what is wrong with them.
pub(super) fn resolve(root: &Cursor<'_>, implied: Option<(&str, &str)>) -> Option<Resolved> {
    if !root
        .node()
        .is_some_and(|node| matches!(node.value, Value::Map(_)))
    {
        root.error(
            "invalid type: a manifest is a mapping with apiVersion, kind and metadata".to_owned(),
        );
        return None;
    }
    let (version_field, kind_field) = (root.field("apiVersion"), root.field("kind"));
    for (field, name) in [(version_field, "apiVersion"), (kind_field, "kind")] {
        if field.non_empty().is_none() && implied.is_none() {
            field.required(&format!("{name} not set"));
        }
        if field.is_present() && field.text().is_none() {
            field.error("invalid type: expected \"string\"".to_owned());
            return None;
        }
    }
    let version = version_field
        .non_empty()
        .map(AsRef::as_ref)
        .or(implied.map(|(version, _)| version))?;
    let kind = kind_field
        .non_empty()
        .map(AsRef::as_ref)
        .or(implied.map(|(_, kind)| kind))?;
    if let Some(known) = Kind::named(kind) {
        if let Some(known) = Known::new(known, version) {
            return Some(Resolved::Known(known));
        }
        if is_built_in_group(version) {
            version_field.error(format!(
                "no matches for kind \"{kind}\" in version \"{version}\""
            ));
            return None;
        }
    }
    if let Some(item) = kind.strip_suffix("List")
        && root.field("items").is_present()
    {
        let implied = (!item.is_empty()).then(|| (version.to_owned(), item.to_owned()));
        return Some(Resolved::List { implied });
    }
    if kind == "List" {
        return Some(Resolved::List { implied: None });
    }
    if let Some(meant) = misspelt(kind, version) {
        kind_field.error(format!(
            "no matches for kind \"{kind}\" in version \"{version}\", did you mean \"{meant}\"?"
        ));
        return None;
    }
    Some(Resolved::Inert {
        api_version_kind: format!("{version} {kind}").into(),
    })
}

/// The kind of `api_version` that was meant by one that the version does not have. Only built-in versions have kinds
/// that act, and none of their other kinds (`Secret`, `PodTemplate`, ...) is spelt nearly like one of those.
fn misspelt(kind: &str, api_version: &str) -> Option<&'static str> {
    let names = Kind::ALL
        .into_iter()
        .filter(|known| Known::new(*known, api_version).is_some())
        .map(Kind::as_str);
    shape::closest(kind, names)
}

/// Whether Kubernetes itself owns the group: in others, a kind of the same name is something else (Knative has a
/// Service of its own).
fn is_built_in_group(api_version: &str) -> bool {
    match api_version.split_once('/') {
        None => true,
        Some((group, _)) => !group.contains('.') || group.ends_with(".k8s.io"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_of_a_kind_in_small_letters_or_singular_is_the_meant_one() {
        assert_eq!(misspelt("service", "v1"), Some("Service"));
        assert_eq!(misspelt("Endpoint", "v1"), Some("Endpoints"));
        assert_eq!(misspelt("Deploymnet", "apps/v1"), Some("Deployment"));
    }

    #[test]
    fn misspelt_of_the_other_built_in_kinds_is_none() {
        let core = "Binding ComponentStatus ConfigMap Event LimitRange PersistentVolume PersistentVolumeClaim \
                    PodTemplate PodList ServiceList NodeList ReplicationController ResourceQuota Secret ServiceAccount";
        for kind in core.split_whitespace() {
            assert_eq!(misspelt(kind, "v1"), None, "{kind}");
        }
        assert_eq!(misspelt("ControllerRevision", "apps/v1"), None);
        assert_eq!(misspelt("service", "serving.knative.dev/v1"), None);
    }
}
