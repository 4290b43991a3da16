//! Manifests of any size, as an export of a cluster has them: what benchmarks and tests of scale read. Owns the
//! text; measuring belongs to them.

use std::fmt::Write as _;

/// `count` Services of about 900 bytes, each a document of its own, without a finding in them.
pub fn services(count: usize) -> String {
    let mut text = String::with_capacity(count.saturating_mul(950));
    for index in 0..count {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}", Service(index));
    }
    text
}

struct Service(usize);

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let index = self.0;
        write!(
            f,
            r#"---
apiVersion: v1
kind: Service
metadata:
  name: service-{index}
  namespace: team-{team}
  creationTimestamp: "2026-01-01T00:00:00Z"
  resourceVersion: "{index}"
  uid: 7d9c3f1e-0000-4000-8000-{index:012}
  labels:
    app.kubernetes.io/name: service-{index}
    app.kubernetes.io/part-of: shop
    app.kubernetes.io/managed-by: Helm
  annotations:
    meta.helm.sh/release-name: release-{team}
    meta.helm.sh/release-namespace: team-{team}
spec:
  type: ClusterIP
  internalTrafficPolicy: Cluster
  ipFamilies:
  - IPv4
  ipFamilyPolicy: SingleStack
  sessionAffinity: None
  selector:
    app.kubernetes.io/name: service-{index}
    app.kubernetes.io/part-of: shop
  ports:
  - name: http
    port: 80
    protocol: TCP
    targetPort: 8080
  - name: metrics
    port: 9090
    protocol: TCP
    targetPort: metrics
  - name: grpc
    appProtocol: grpc
    port: 9000
    protocol: TCP
    targetPort: 9000
status:
  loadBalancer: {{}}
"#,
            team = index % 100,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::source::manifest::{ManifestSettings, Strictness, load};

    #[test]
    fn services_load_without_a_finding_even_strictly() {
        let settings = ManifestSettings {
            namespace: "default".into(),
            strictness: Strictness::Strict,
        };
        let loaded = load(&Arc::from("sample.yaml"), &services(100), &settings, None);
        assert_eq!(loaded.shard.diagnostics, []);
        assert_eq!(loaded.shard.objects.len(), 100);
    }
}
