//! What is set up in Kubernetes clusters, and the shippers that follow what lies there.

use super::{POST, Step, shell, yaml};

/// Fluent Bit's output: to the source's own address, kept on disk and tried again for ever.
macro_rules! fluent_bit {
    ($input:expr, $filters:literal) => {
        concat!(
            "service: {flush: 1, storage.path: /var/lib/fluent-bit}
pipeline:
  inputs:
    - name: tail
      tag: pipeproof
      db: /var/lib/fluent-bit/<source>.db
      storage.type: filesystem
",
            $input,
            $filters,
            "  outputs:
    - name: http
      match: pipeproof
      host: \"<host>\"
      port: <port>
      tls: <tls>
      uri: <path>
      format: json_lines
      json_date_key: false
      compress: gzip
      header: Authorization Bearer <token>
      retry_limit: no_limits
parsers:
  - {name: json, format: json}
"
        )
    };
}

/// A file of JSON lines.
macro_rules! fluent_bit_file {
    ($path:literal) => {
        $crate::sender::clusters::fluent_bit!(concat!("      path: ", $path, "\n      parser: json\n"), "")
    };
}

/// The log of a container that prints JSON lines.
macro_rules! fluent_bit_container {
    ($path:literal) => {
        fluent_bit!(
            concat!("      path: ", $path, "\n      multiline.parser: cri\n"),
            "  filters:
    - {name: parser, match: pipeproof, key_name: log, parser: json, preserve_key: off, reserve_data: off}
"
        )
    };
}
pub(super) use {fluent_bit, fluent_bit_file};

/// The OpenTelemetry Collector watches objects of the cluster.
macro_rules! watched {
    ($objects:literal) => {
        concat!(
            "extensions:
  file_storage: {directory: /var/lib/otelcol}
receivers:
  k8sobjects:
    auth_type: serviceAccount
    error_mode: ignore # of what the cluster does not have
    objects:
",
            $objects,
            collector!("k8sobjects")
        )
    };
}

/// The rest of a collector's configuration.
macro_rules! collector {
    ($receiver:literal) => {
        concat!(
            "processors:
  batch: {timeout: 2s, send_batch_size: 500, send_batch_max_size: 500}
exporters:
  otlphttp/pipeproof:
    logs_endpoint: \"<base>/v1/logs\"
    headers: {Authorization: \"Bearer <token>\"}
    encoding: json
    sending_queue: {storage: file_storage}
    retry_on_failure: {max_elapsed_time: 0}
service:
  extensions: [file_storage]
  pipelines:
    logs: {receivers: [",
            $receiver,
            "], processors: [batch], exporters: [otlphttp/pipeproof]}
"
        )
    };
}

const COLLECTOR: &str = "OpenTelemetry Collector (contrib), with a service account that may get, list and watch these";
const FLUENT_BIT: &str = "Fluent Bit, on each node";

pub(super) const AUDIT: &[Step] = &[
    yaml("webhook.yaml", include_str!("../../deploy/sources/kubernetes-audit-webhook.yaml")),
    yaml("policy.yaml", include_str!("../../deploy/sources/kubernetes-audit-policy.yaml")),
    yaml("or, where the API server writes a file, Fluent Bit", fluent_bit_file!("/var/log/kubernetes/audit.log")),
];

pub(super) const EVENTS: &[Step] =
    &[yaml(COLLECTOR, watched!("      - {name: events, mode: watch, group: events.k8s.io}\n"))];

pub(super) const REPORTS: &[Step] = &[yaml(
    COLLECTOR,
    watched!(
        "      - {name: policyreports, mode: watch, group: wgpolicyk8s.io}
      - {name: clusterpolicyreports, mode: watch, group: wgpolicyk8s.io}
      - {name: reports, mode: watch, group: openreports.io}
      - {name: clusterreports, mode: watch, group: openreports.io}
"
    ),
)];

pub(super) const OTLP: &[Step] = &[yaml(
    "OpenTelemetry Collector",
    concat!(
        "extensions:
  file_storage: {directory: /var/lib/otelcol}
receivers:
  otlp: {protocols: {grpc: {}, http: {}}}
",
        collector!("otlp")
    ),
)];

pub(super) const ADMISSION: &[Step] = &[
    yaml("kubectl apply -f -", include_str!("../../deploy/sources/kubernetes-admission-webhook.yaml")),
    yaml("the control plane's files", include_str!("../../deploy/sources/kubernetes-admission-kubeconfig.yaml")),
    shell("or an AdmissionReview with its answer, from what handles it", POST),
];

pub(super) const OPA: &[Step] = &[yaml("OPA's configuration", include_str!("../../deploy/sources/opa.yaml"))];

pub(super) const GATEKEEPER: &[Step] =
    &[yaml(FLUENT_BIT, fluent_bit_container!("/var/log/containers/gatekeeper-*_gatekeeper-system_*.log"))];

pub(super) const ARGOCD: &[Step] = &[yaml(
    "argocd-notifications-secret and argocd-notifications-cm",
    include_str!("../../deploy/sources/argocd-notifications.yaml"),
)];

pub(super) const FLUX: &[Step] = &[yaml("kubectl apply -f -", include_str!("../../deploy/sources/flux.yaml"))];

pub(super) const FALCO: &[Step] =
    &[yaml("falcosidekick's configuration", include_str!("../../deploy/sources/falcosidekick.yaml"))];

pub(super) const TETRAGON: &[Step] = &[yaml(FLUENT_BIT, fluent_bit_file!("/var/run/cilium/tetragon/tetragon.log"))];

pub(super) const TRACEE: &[Step] = &[yaml(FLUENT_BIT, fluent_bit_container!("/var/log/containers/tracee-*.log"))];
