//! Volumes of a pod or of a template. Owns the table of what kubectl says of each kind; nothing mounts them here, but
//! a manifest that has them is shown with them.

use serde_json::Value;

use super::{
    json::{at, boolean, items, number, pairs, scalar, text, texts},
    meta::{NONE, UNSET, or_none},
    quantity::{self, Quantity},
    writer::Writer,
};

/// How a field is shown.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// As it is; empty where there is none.
    Plain,
    /// `true` or `false`.
    Bool,
    /// A number, 0 where there is none.
    Number,
    /// As it is, or `<none>`.
    OrNone,
}

/// A kind of volume with its sentence and its fields.
struct Kind {
    key: &'static str,
    sentence: &'static str,
    fields: &'static [(&'static str, &'static str, Field)],
}

const READ_ONLY: (&str, &str, Field) = ("ReadOnly", "/readOnly", Field::Bool);
const FS_TYPE: (&str, &str, Field) = ("FSType", "/fsType", Field::Plain);
const OPTIONAL: (&str, &str, Field) = ("Optional", "/optional", Field::Bool);

/// The kinds that need no more than their fields.
const KINDS: [Kind; 13] = [
    Kind {
        key: "/hostPath",
        sentence: "HostPath (bare host directory volume)",
        fields: &[
            ("Path", "/path", Field::Plain),
            ("HostPathType", "/type", Field::OrNone),
        ],
    },
    Kind {
        key: "/gcePersistentDisk",
        sentence: "GCEPersistentDisk (a Persistent Disk resource in Google Compute Engine)",
        fields: &[
            ("PDName", "/pdName", Field::Plain),
            FS_TYPE,
            ("Partition", "/partition", Field::Number),
            READ_ONLY,
        ],
    },
    Kind {
        key: "/awsElasticBlockStore",
        sentence: "AWSElasticBlockStore (a Persistent Disk resource in AWS)",
        fields: &[
            ("VolumeID", "/volumeID", Field::Plain),
            FS_TYPE,
            ("Partition", "/partition", Field::Number),
            READ_ONLY,
        ],
    },
    Kind {
        key: "/gitRepo",
        sentence: "GitRepo (a volume that is pulled from git when the pod is created)",
        fields: &[
            ("Repository", "/repository", Field::Plain),
            ("Revision", "/revision", Field::Plain),
        ],
    },
    Kind {
        key: "/secret",
        sentence: "Secret (a volume populated by a Secret)",
        fields: &[("SecretName", "/secretName", Field::Plain), OPTIONAL],
    },
    Kind {
        key: "/configMap",
        sentence: "ConfigMap (a volume populated by a ConfigMap)",
        fields: &[("Name", "/name", Field::Plain), OPTIONAL],
    },
    Kind {
        key: "/nfs",
        sentence: "NFS (an NFS mount that lasts the lifetime of a pod)",
        fields: &[
            ("Server", "/server", Field::Plain),
            ("Path", "/path", Field::Plain),
            READ_ONLY,
        ],
    },
    Kind {
        key: "/persistentVolumeClaim",
        sentence: "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        fields: &[("ClaimName", "/claimName", Field::Plain), READ_ONLY],
    },
    Kind {
        key: "/glusterfs",
        sentence: "Glusterfs (a Glusterfs mount on the host that shares a pod's lifetime)",
        fields: &[
            ("EndpointsName", "/endpoints", Field::Plain),
            ("Path", "/path", Field::Plain),
            READ_ONLY,
        ],
    },
    Kind {
        key: "/vsphereVolume",
        sentence: "vSphereVolume (a Persistent Disk resource in vSphere)",
        fields: &[
            ("VolumePath", "/volumePath", Field::Plain),
            FS_TYPE,
            ("StoragePolicyName", "/storagePolicyName", Field::Plain),
        ],
    },
    Kind {
        key: "/azureFile",
        sentence: "AzureFile (an Azure File Service mount on the host and bind mount to the pod)",
        fields: &[
            ("SecretName", "/secretName", Field::Plain),
            ("ShareName", "/shareName", Field::Plain),
            READ_ONLY,
        ],
    },
    Kind {
        key: "/portworxVolume",
        sentence: "PortworxVolume (a Portworx Volume resource)",
        fields: &[("VolumeID", "/volumeID", Field::Plain)],
    },
    Kind {
        key: "/image",
        sentence: "Image (a container image or OCI artifact)",
        fields: &[
            ("Reference", "/reference", Field::Plain),
            ("PullPolicy", "/pullPolicy", Field::Plain),
        ],
    },
];

/// `Volumes` of a pod's `spec`; behind `space` in a template.
pub(super) fn write_all(out: &mut Writer, spec: &Value, space: &str) {
    let volumes = items(spec, "/volumes");
    if volumes.is_empty() {
        out.pair(0, format_args!("{space}Volumes"), NONE);
        return;
    }
    out.line(0, format_args!("{space}Volumes:"));
    let indent = if space.is_empty() { "" } else { " " };
    for volume in volumes {
        out.line(1, format_args!("{indent}{}:", text(volume, "/name")));
        write(out, volume);
    }
}

fn write(out: &mut Writer, volume: &Value) {
    if let Some(kind) = KINDS.iter().find(|kind| at(volume, kind.key).is_some()) {
        out.pair(2, "Type", kind.sentence);
        let source = at(volume, kind.key).unwrap_or(&Value::Null);
        for (title, path, field) in kind.fields {
            out.pair(2, title, show(source, path, *field));
        }
    } else if let Some(source) = at(volume, "/emptyDir") {
        out.pair(
            2,
            "Type",
            "EmptyDir (a temporary directory that shares a pod's lifetime)",
        );
        out.pair(2, "Medium", text(source, "/medium"));
        let limit = scalar(source, "/sizeLimit").to_string();
        let is_limited = Quantity::parse(&limit).is_some_and(|limit| !limit.is_zero());
        let limit = is_limited.then(|| quantity::canonical(&limit));
        out.pair(2, "SizeLimit", limit.as_deref().unwrap_or(UNSET));
    } else if let Some(source) = at(volume, "/projected") {
        projected(out, source);
    } else if let Some(source) = at(volume, "/downwardAPI") {
        downward(out, source);
    } else if let Some(source) = at(volume, "/csi") {
        csi(out, source);
    } else if let Some(source) = at(volume, "/ephemeral") {
        ephemeral(out, source);
    } else {
        out.line(1, "<unknown>");
    }
}

fn show(source: &Value, path: &str, field: Field) -> String {
    match field {
        Field::Plain => scalar(source, path).to_string(),
        Field::Bool => boolean(source, path).to_string(),
        Field::Number => number(source, path).to_string(),
        Field::OrNone => {
            at(source, path).map_or(NONE.to_owned(), |_| text(source, path).to_owned())
        }
    }
}

fn projected(out: &mut Writer, source: &Value) {
    out.pair(
        2,
        "Type",
        "Projected (a volume that contains injected data from multiple sources)",
    );
    for part in items(source, "/sources") {
        if let Some(secret) = at(part, "/secret") {
            out.pair(2, "SecretName", text(secret, "/name"));
            out.pair(2, "Optional", boolean(secret, "/optional"));
        } else if at(part, "/downwardAPI").is_some() {
            out.pair(2, "DownwardAPI", true);
        } else if let Some(map) = at(part, "/configMap") {
            out.pair(2, "ConfigMapName", text(map, "/name"));
            out.pair(2, "Optional", boolean(map, "/optional"));
        } else if let Some(token) = at(part, "/serviceAccountToken") {
            let seconds = number(token, "/expirationSeconds");
            out.pair(2, "TokenExpirationSeconds", seconds);
        }
    }
}

fn downward(out: &mut Writer, source: &Value) {
    out.pair(
        2,
        "Type",
        "DownwardAPI (a volume populated by information about the pod)",
    );
    out.line(2, "Items:");
    for item in items(source, "/items") {
        let path = text(item, "/path");
        if let Some(field) = at(item, "/fieldRef") {
            out.line(3, format_args!("{} -> {path}", text(field, "/fieldPath")));
        }
        if let Some(field) = at(item, "/resourceFieldRef") {
            out.line(3, format_args!("{} -> {path}", text(field, "/resource")));
        }
    }
}

fn csi(out: &mut Writer, source: &Value) {
    out.pair(
        2,
        "Type",
        "CSI (a Container Storage Interface (CSI) volume source)",
    );
    out.pair(2, "Driver", text(source, "/driver"));
    out.pair(2, "FSType", text(source, "/fsType"));
    out.pair(2, "ReadOnly", boolean(source, "/readOnly"));
    out.write(2, "VolumeAttributes:\t");
    let attributes = pairs(source, "/volumeAttributes");
    if attributes.is_empty() {
        out.line(0, NONE);
    }
    for (index, (key, value)) in attributes.iter().enumerate() {
        // kubectl indents each piece that it writes, values included.
        if index > 0 {
            out.write(4, "\t");
        }
        out.line(2, format_args!("{key}={value}"));
    }
}

fn ephemeral(out: &mut Writer, source: &Value) {
    out.pair(
        2,
        "Type",
        "EphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)",
    );
    let Some(claim) = at(source, "/volumeClaimTemplate") else {
        return;
    };
    out.pair(2, "StorageClass", text(claim, "/spec/storageClassName"));
    out.pair(2, "Volume", text(claim, "/spec/volumeName"));
    for (title, path) in [
        ("Labels", "/metadata/labels"),
        ("Annotations", "/metadata/annotations"),
    ] {
        out.write(2, format_args!("{title}:\t"));
        let (separator, indent) = match title {
            "Labels" => ("=", 4),
            _ => (": ", 2),
        };
        let lines = pairs(claim, path);
        if lines.is_empty() {
            out.line(2, NONE);
        }
        for (index, (key, value)) in lines.into_iter().enumerate() {
            if index > 0 {
                out.write(indent, "\t");
            }
            out.line(2, format_args!("{key}{separator}{value}"));
        }
    }
    out.pair(2, "Capacity", "");
    out.pair(2, "Access Modes", "");
    if let Some(mode) = at(claim, "/spec/volumeMode") {
        out.pair(2, "VolumeMode", scalar(mode, ""));
    }
}

/// `Volume Claims` of a StatefulSet.
pub(super) fn claims(out: &mut Writer, set: &Value) {
    let templates = items(set, "/spec/volumeClaimTemplates");
    if templates.is_empty() {
        out.pair(0, "Volume Claims", NONE);
        return;
    }
    out.line(0, "Volume Claims:");
    for claim in templates {
        out.pair(1, "Name", text(claim, "/metadata/name"));
        out.pair(1, "StorageClass", text(claim, "/spec/storageClassName"));
        for (title, path) in [
            ("Labels", "/metadata/labels"),
            ("Annotations", "/metadata/annotations"),
        ] {
            let lines: Vec<String> = pairs(claim, path)
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            out.pair(1, title, or_none(lines.join("\n  \t")));
        }
        let capacity = scalar(claim, "/spec/resources/requests/storage").to_string();
        let capacity = if capacity.is_empty() {
            "<default>".to_owned()
        } else {
            quantity::canonical(&capacity)
        };
        out.pair(1, "Capacity", capacity);
        out.pair(
            1,
            "Access Modes",
            format_args!("[{}]", texts(claim, "/spec/accessModes").join(" ")),
        );
    }
}
