//! Fields of Pod, its spec and its containers.

use super::{
    OBJECT_META, Schema,
    Shape::{Any, Bool, Int, IntOrText, List, Map, Object, Quantity, Text},
    TEXT_MAP, TEXTS,
};

static CONTAINER_PORT: Schema = Schema {
    name: "ContainerPort",
    fields: &[
        ("name", Text),
        ("hostPort", Int),
        ("containerPort", Int),
        ("protocol", Text),
        ("hostIP", Text),
    ],
};

static ENV_VAR: Schema = Schema {
    name: "EnvVar",
    fields: &[("name", Text), ("value", Text), ("valueFrom", Any)],
};

static NAMED_SOURCE: Schema = Schema {
    name: "EnvSource",
    fields: &[("name", Text), ("optional", Bool)],
};

static ENV_FROM: Schema = Schema {
    name: "EnvFromSource",
    fields: &[
        ("prefix", Text),
        ("configMapRef", Object(&NAMED_SOURCE)),
        ("secretRef", Object(&NAMED_SOURCE)),
    ],
};

static RESOURCES: Schema = Schema {
    name: "ResourceRequirements",
    fields: &[
        ("limits", Map(&Quantity)),
        ("requests", Map(&Quantity)),
        ("claims", Any),
    ],
};

static VOLUME_MOUNT: Schema = Schema {
    name: "VolumeMount",
    fields: &[
        ("name", Text),
        ("readOnly", Bool),
        ("recursiveReadOnly", Text),
        ("mountPath", Text),
        ("subPath", Text),
        ("mountPropagation", Text),
        ("subPathExpr", Text),
    ],
};

static VOLUME_DEVICE: Schema = Schema {
    name: "VolumeDevice",
    fields: &[("name", Text), ("devicePath", Text)],
};

static EXEC: Schema = Schema {
    name: "ExecAction",
    fields: &[("command", TEXTS)],
};

static HTTP_HEADER: Schema = Schema {
    name: "HTTPHeader",
    fields: &[("name", Text), ("value", Text)],
};

static HTTP_GET: Schema = Schema {
    name: "HTTPGetAction",
    fields: &[
        ("path", Text),
        ("port", IntOrText),
        ("host", Text),
        ("scheme", Text),
        ("httpHeaders", List(&Object(&HTTP_HEADER))),
    ],
};

static TCP_SOCKET: Schema = Schema {
    name: "TCPSocketAction",
    fields: &[("port", IntOrText), ("host", Text)],
};

static GRPC: Schema = Schema {
    name: "GRPCAction",
    fields: &[("port", Int), ("service", Text)],
};

static PROBE: Schema = Schema {
    name: "Probe",
    fields: &[
        ("exec", Object(&EXEC)),
        ("httpGet", Object(&HTTP_GET)),
        ("tcpSocket", Object(&TCP_SOCKET)),
        ("grpc", Object(&GRPC)),
        ("initialDelaySeconds", Int),
        ("timeoutSeconds", Int),
        ("periodSeconds", Int),
        ("successThreshold", Int),
        ("failureThreshold", Int),
        ("terminationGracePeriodSeconds", Int),
    ],
};

static SLEEP: Schema = Schema {
    name: "SleepAction",
    fields: &[("seconds", Int)],
};

static LIFECYCLE_HANDLER: Schema = Schema {
    name: "LifecycleHandler",
    fields: &[
        ("exec", Object(&EXEC)),
        ("httpGet", Object(&HTTP_GET)),
        ("tcpSocket", Object(&TCP_SOCKET)),
        ("sleep", Object(&SLEEP)),
    ],
};

static LIFECYCLE: Schema = Schema {
    name: "Lifecycle",
    fields: &[
        ("postStart", Object(&LIFECYCLE_HANDLER)),
        ("preStop", Object(&LIFECYCLE_HANDLER)),
        ("stopSignal", Text),
    ],
};

static SECURITY_CONTEXT: Schema = Schema {
    name: "SecurityContext",
    fields: &[
        ("capabilities", Any),
        ("privileged", Bool),
        ("seLinuxOptions", Any),
        ("windowsOptions", Any),
        ("runAsUser", Int),
        ("runAsGroup", Int),
        ("runAsNonRoot", Bool),
        ("readOnlyRootFilesystem", Bool),
        ("allowPrivilegeEscalation", Bool),
        ("procMount", Text),
        ("seccompProfile", Any),
        ("appArmorProfile", Any),
    ],
};

/// An entry of `containers`, `initContainers` or `ephemeralContainers`.
static CONTAINER: Schema = Schema {
    name: "Container",
    fields: &[
        ("name", Text),
        ("image", Text),
        ("command", TEXTS),
        ("args", TEXTS),
        ("workingDir", Text),
        ("ports", List(&Object(&CONTAINER_PORT))),
        ("envFrom", List(&Object(&ENV_FROM))),
        ("env", List(&Object(&ENV_VAR))),
        ("resources", Object(&RESOURCES)),
        ("resizePolicy", Any),
        ("restartPolicy", Text),
        ("restartPolicyRules", Any),
        ("volumeMounts", List(&Object(&VOLUME_MOUNT))),
        ("volumeDevices", List(&Object(&VOLUME_DEVICE))),
        ("livenessProbe", Object(&PROBE)),
        ("readinessProbe", Object(&PROBE)),
        ("startupProbe", Object(&PROBE)),
        ("lifecycle", Object(&LIFECYCLE)),
        ("terminationMessagePath", Text),
        ("terminationMessagePolicy", Text),
        ("imagePullPolicy", Text),
        ("securityContext", Object(&SECURITY_CONTEXT)),
        ("stdin", Bool),
        ("stdinOnce", Bool),
        ("tty", Bool),
        ("targetContainerName", Text),
    ],
};

static CONFIG_MAP_VOLUME: Schema = Schema {
    name: "ConfigMapVolumeSource",
    fields: &[
        ("name", Text),
        ("items", Any),
        ("defaultMode", Int),
        ("optional", Bool),
    ],
};

static SECRET_VOLUME: Schema = Schema {
    name: "SecretVolumeSource",
    fields: &[
        ("secretName", Text),
        ("items", Any),
        ("defaultMode", Int),
        ("optional", Bool),
    ],
};

static EMPTY_DIR: Schema = Schema {
    name: "EmptyDirVolumeSource",
    fields: &[("medium", Text), ("sizeLimit", Quantity)],
};

static HOST_PATH: Schema = Schema {
    name: "HostPathVolumeSource",
    fields: &[("path", Text), ("type", Text)],
};

static PVC: Schema = Schema {
    name: "PersistentVolumeClaimVolumeSource",
    fields: &[("claimName", Text), ("readOnly", Bool)],
};

static VOLUME: Schema = Schema {
    name: "Volume",
    fields: &[
        ("name", Text),
        ("hostPath", Object(&HOST_PATH)),
        ("emptyDir", Object(&EMPTY_DIR)),
        ("secret", Object(&SECRET_VOLUME)),
        ("configMap", Object(&CONFIG_MAP_VOLUME)),
        ("persistentVolumeClaim", Object(&PVC)),
        ("downwardAPI", Any),
        ("projected", Any),
        ("ephemeral", Any),
        ("image", Any),
        ("nfs", Any),
        ("csi", Any),
        ("gitRepo", Any),
        ("iscsi", Any),
        ("fc", Any),
        ("glusterfs", Any),
        ("rbd", Any),
        ("cephfs", Any),
        ("cinder", Any),
        ("flexVolume", Any),
        ("flocker", Any),
        ("quobyte", Any),
        ("azureFile", Any),
        ("azureDisk", Any),
        ("vsphereVolume", Any),
        ("gcePersistentDisk", Any),
        ("awsElasticBlockStore", Any),
        ("photonPersistentDisk", Any),
        ("portworxVolume", Any),
        ("scaleIO", Any),
        ("storageos", Any),
    ],
};

static LOCAL_OBJECT_REFERENCE: Schema = Schema {
    name: "LocalObjectReference",
    fields: &[("name", Text)],
};

static TOLERATION: Schema = Schema {
    name: "Toleration",
    fields: &[
        ("key", Text),
        ("operator", Text),
        ("value", Text),
        ("effect", Text),
        ("tolerationSeconds", Int),
    ],
};

static HOST_ALIAS: Schema = Schema {
    name: "HostAlias",
    fields: &[("ip", Text), ("hostnames", TEXTS)],
};

static AFFINITY: Schema = Schema {
    name: "Affinity",
    fields: &[
        ("nodeAffinity", Any),
        ("podAffinity", Any),
        ("podAntiAffinity", Any),
    ],
};

static POD_SECURITY_CONTEXT: Schema = Schema {
    name: "PodSecurityContext",
    fields: &[
        ("seLinuxOptions", Any),
        ("windowsOptions", Any),
        ("runAsUser", Int),
        ("runAsGroup", Int),
        ("runAsNonRoot", Bool),
        ("supplementalGroups", List(&Int)),
        ("supplementalGroupsPolicy", Text),
        ("fsGroup", Int),
        ("sysctls", Any),
        ("fsGroupChangePolicy", Text),
        ("seccompProfile", Any),
        ("appArmorProfile", Any),
        ("seLinuxChangePolicy", Text),
    ],
};

/// `spec` of a Pod or template.
pub(super) static POD_SPEC: Schema = Schema {
    name: "PodSpec",
    fields: &[
        ("volumes", List(&Object(&VOLUME))),
        ("initContainers", List(&Object(&CONTAINER))),
        ("containers", List(&Object(&CONTAINER))),
        ("ephemeralContainers", List(&Object(&CONTAINER))),
        ("restartPolicy", Text),
        ("terminationGracePeriodSeconds", Int),
        ("activeDeadlineSeconds", Int),
        ("dnsPolicy", Text),
        ("nodeSelector", TEXT_MAP),
        ("serviceAccountName", Text),
        ("serviceAccount", Text),
        ("automountServiceAccountToken", Bool),
        ("nodeName", Text),
        ("hostNetwork", Bool),
        ("hostPID", Bool),
        ("hostIPC", Bool),
        ("hostUsers", Bool),
        ("shareProcessNamespace", Bool),
        ("securityContext", Object(&POD_SECURITY_CONTEXT)),
        ("imagePullSecrets", List(&Object(&LOCAL_OBJECT_REFERENCE))),
        ("hostname", Text),
        ("hostnameOverride", Text),
        ("subdomain", Text),
        ("affinity", Object(&AFFINITY)),
        ("schedulerName", Text),
        ("tolerations", List(&Object(&TOLERATION))),
        ("hostAliases", List(&Object(&HOST_ALIAS))),
        ("priorityClassName", Text),
        ("priority", Int),
        ("preemptionPolicy", Text),
        ("dnsConfig", Any),
        ("readinessGates", Any),
        ("runtimeClassName", Text),
        ("enableServiceLinks", Bool),
        ("overhead", Map(&Quantity)),
        ("topologySpreadConstraints", Any),
        ("setHostnameAsFQDN", Bool),
        ("os", Object(&LOCAL_OBJECT_REFERENCE)),
        ("schedulingGates", Any),
        ("resourceClaims", Any),
        ("resources", Object(&RESOURCES)),
        ("workloadRef", Any),
        ("schedulingGroup", Any),
    ],
};

static POD_IP: Schema = Schema {
    name: "PodIP",
    fields: &[("ip", Text)],
};

static POD_CONDITION: Schema = Schema {
    name: "PodCondition",
    fields: &[
        ("type", Text),
        ("observedGeneration", Int),
        ("status", Text),
        ("lastProbeTime", Text),
        ("lastTransitionTime", Text),
        ("reason", Text),
        ("message", Text),
    ],
};

static POD_STATUS: Schema = Schema {
    name: "PodStatus",
    fields: &[
        ("observedGeneration", Int),
        ("phase", Text),
        ("conditions", List(&Object(&POD_CONDITION))),
        ("message", Text),
        ("reason", Text),
        ("nominatedNodeName", Text),
        ("hostIP", Text),
        ("hostIPs", List(&Object(&POD_IP))),
        ("podIP", Text),
        ("podIPs", List(&Object(&POD_IP))),
        ("startTime", Text),
        ("initContainerStatuses", Any),
        ("containerStatuses", Any),
        ("ephemeralContainerStatuses", Any),
        ("qosClass", Text),
        ("resize", Text),
        ("resourceClaimStatuses", Any),
        ("extendedResourceClaimStatus", Any),
        ("allocatedResources", Any),
        ("resources", Any),
    ],
};

/// `v1` Pod.
pub(crate) static POD: Schema = Schema {
    name: "Pod",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("spec", Object(&POD_SPEC)),
        ("status", Object(&POD_STATUS)),
    ],
};
