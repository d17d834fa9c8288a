//! The closed table of source types: what can be connected, how late its events may be, which Sigma logsources it feeds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A Sigma logsource: any part may be left open.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Logsource {
    /// `product`, lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// `service`, lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `category`, lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

impl fmt::Display for Logsource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |value: &Option<String>| value.clone().unwrap_or_else(|| "*".to_owned());
        write!(formatter, "{}/{}/{}", part(&self.product), part(&self.category), part(&self.service))
    }
}

/// One row of the table of source types.
#[derive(Debug)]
pub struct SourceTypeInfo {
    /// The name used in URLs, configuration and rules.
    pub name: &'static str,
    /// What it is, for lists.
    pub title: &'static str,
    /// How much later than its own time an event may arrive and still be evaluated in order.
    pub lateness: Duration,
    /// Sigma `(product, service)` whose native field names this source's events carry.
    pub native: Option<(&'static str, &'static str)>,
    /// Whether the body is free text, which is redacted throughout, spine fields not being declared in it.
    pub free_text: bool,
}

macro_rules! source_types {
    ($($variant:ident => $info:expr),+ $(,)?) => {
        /// A kind of source.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum SourceType {
            $(#[doc = concat!("See the table: `", stringify!($variant), "`.")] $variant),+
        }

        impl SourceType {
            /// Every source type, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The row of the table.
            #[must_use]
            pub const fn info(self) -> &'static SourceTypeInfo {
                match self {
                    $(Self::$variant => {
                        const INFO: SourceTypeInfo = $info;
                        &INFO
                    }),+
                }
            }
        }
    };
}

const WEBHOOK_LATENESS: Duration = Duration::from_secs(60);
/// Providers write their audit logs within minutes of the call.
const CLOUD_LATENESS: Duration = Duration::from_secs(15 * 60);
/// Microsoft aggregates sign-ins, and activities arrive after up to twenty minutes.
const ENTRA_LATENESS: Duration = Duration::from_secs(30 * 60);
/// Files that a provider puts into a bucket every few minutes.
const FILE_LATENESS: Duration = Duration::from_secs(15 * 60);

source_types! {
    GithubWebhook => SourceTypeInfo {
        name: "github.webhook",
        title: "GitHub webhooks (X-Hub-Signature-256)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("github", "webhook")),
        free_text: false,
    },
    GithubJoblog => SourceTypeInfo {
        name: "github.joblog",
        title: "GitHub Actions job logs (text)",
        // A log exists only once its job has ended; GitHub's longest hosted job is six hours.
        lateness: Duration::from_secs(6 * 3_600),
        native: Some(("github", "joblog")),
        free_text: true,
    },
    GithubAudit => SourceTypeInfo {
        name: "github.audit",
        title: "GitHub audit log (stream, REST or export)",
        lateness: FILE_LATENESS,
        native: Some(("github", "audit")),
        free_text: false,
    },
    GitlabWebhook => SourceTypeInfo {
        name: "gitlab.webhook",
        title: "GitLab webhooks of projects, groups and the instance",
        lateness: WEBHOOK_LATENESS,
        native: Some(("gitlab", "webhook")),
        free_text: false,
    },
    GitlabAudit => SourceTypeInfo {
        name: "gitlab.audit",
        title: "GitLab audit events (streamed, or audit_json.log)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("gitlab", "audit")),
        free_text: false,
    },
    GitlabJoblog => SourceTypeInfo {
        name: "gitlab.joblog",
        title: "GitLab job traces (text)",
        // As for GitHub: a trace is fetched when its job has ended.
        lateness: Duration::from_secs(6 * 3_600),
        native: Some(("gitlab", "joblog")),
        free_text: true,
    },
    Jenkins => SourceTypeInfo {
        name: "jenkins",
        title: "Jenkins audit-trail lines and CloudEvents",
        lateness: WEBHOOK_LATENESS,
        native: Some(("jenkins", "controller")),
        free_text: false,
    },
    CircleciWebhook => SourceTypeInfo {
        name: "circleci.webhook",
        title: "CircleCI webhooks",
        lateness: WEBHOOK_LATENESS,
        native: Some(("circleci", "webhook")),
        free_text: false,
    },
    CircleciAudit => SourceTypeInfo {
        name: "circleci.audit",
        title: "CircleCI audit log (streamed to a bucket)",
        lateness: FILE_LATENESS,
        native: Some(("circleci", "audit")),
        free_text: false,
    },
    Buildkite => SourceTypeInfo {
        name: "buildkite",
        title: "Buildkite webhooks, EventBridge events and audit events",
        lateness: WEBHOOK_LATENESS,
        native: Some(("buildkite", "organization")),
        free_text: false,
    },
    Cdevents => SourceTypeInfo {
        name: "cdevents",
        title: "CDEvents (0.3 and later)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("cdevents", "events")),
        free_text: false,
    },
    VaultAudit => SourceTypeInfo {
        name: "vault.audit",
        title: "HashiCorp Vault audit devices",
        lateness: WEBHOOK_LATENESS,
        native: Some(("vault", "audit")),
        free_text: false,
    },
    KubernetesAudit => SourceTypeInfo {
        name: "kubernetes.audit",
        title: "Kubernetes audit events (webhook EventList, NDJSON)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("kubernetes", "audit")),
        free_text: false,
    },
    AwsCloudtrail => SourceTypeInfo {
        name: "aws.cloudtrail",
        title: "AWS CloudTrail records",
        // Measured on S3 delivery: p99 542 s, longest 608 s.
        lateness: Duration::from_secs(15 * 60),
        native: Some(("aws", "cloudtrail")),
        free_text: false,
    },
    GcpAudit => SourceTypeInfo {
        name: "gcp.audit",
        title: "Google Cloud audit logs (LogEntry)",
        lateness: CLOUD_LATENESS,
        native: Some(("gcp", "gcp.audit")),
        free_text: false,
    },
    AzureSignin => SourceTypeInfo {
        name: "azure.signin",
        title: "Microsoft Entra sign-in and audit logs",
        lateness: ENTRA_LATENESS,
        native: Some(("azure", "signinlogs")),
        free_text: false,
    },
    AzureActivity => SourceTypeInfo {
        name: "azure.activity",
        title: "Azure activity log",
        lateness: ENTRA_LATENESS,
        native: Some(("azure", "activitylogs")),
        free_text: false,
    },
    AzureKeyvault => SourceTypeInfo {
        name: "azure.keyvault",
        title: "Azure Key Vault audit events",
        lateness: CLOUD_LATENESS,
        native: Some(("azure", "keyvault")),
        free_text: false,
    },
    KubernetesEvent => SourceTypeInfo {
        name: "kubernetes.event",
        title: "Kubernetes Event objects (External Secrets, CSI driver, Kyverno and others)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("kubernetes", "event")),
        free_text: false,
    },
    KubernetesAdmission => SourceTypeInfo {
        name: "kubernetes.admission",
        title: "Kubernetes AdmissionReview objects",
        lateness: WEBHOOK_LATENESS,
        native: Some(("kubernetes", "admission")),
        free_text: false,
    },
    KyvernoReport => SourceTypeInfo {
        name: "kyverno.report",
        title: "Policy reports (wgpolicyk8s.io, openreports.io)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("kyverno", "report")),
        free_text: false,
    },
    OpaDecision => SourceTypeInfo {
        name: "opa.decision",
        title: "Open Policy Agent decision logs",
        lateness: WEBHOOK_LATENESS,
        native: Some(("opa", "decision")),
        free_text: false,
    },
    GatekeeperAudit => SourceTypeInfo {
        name: "gatekeeper.audit",
        title: "Gatekeeper logs, exported violations and constraint status",
        lateness: WEBHOOK_LATENESS,
        native: Some(("gatekeeper", "violation")),
        free_text: false,
    },
    Argocd => SourceTypeInfo {
        name: "argocd",
        title: "Argo CD notifications",
        lateness: WEBHOOK_LATENESS,
        native: Some(("argocd", "application")),
        free_text: false,
    },
    Flux => SourceTypeInfo {
        name: "flux",
        title: "Flux events (notification-controller)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("flux", "event")),
        free_text: false,
    },
    Falco => SourceTypeInfo {
        name: "falco",
        title: "Falco alerts",
        lateness: WEBHOOK_LATENESS,
        native: Some(("falco", "alert")),
        free_text: false,
    },
    Tetragon => SourceTypeInfo {
        name: "tetragon",
        title: "Tetragon events",
        lateness: WEBHOOK_LATENESS,
        native: Some(("tetragon", "process")),
        free_text: false,
    },
    Tracee => SourceTypeInfo {
        name: "tracee",
        title: "Tracee events",
        lateness: WEBHOOK_LATENESS,
        native: Some(("tracee", "runtime")),
        free_text: false,
    },
    HardenRunner => SourceTypeInfo {
        name: "harden-runner",
        title: "StepSecurity Harden-Runner agent events",
        lateness: WEBHOOK_LATENESS,
        native: Some(("harden-runner", "agent")),
        free_text: false,
    },
    Okta => SourceTypeInfo {
        name: "okta",
        title: "Okta System Log (event hooks, log streaming, API)",
        lateness: CLOUD_LATENESS,
        native: Some(("okta", "okta")),
        free_text: false,
    },
    Cloudevents => SourceTypeInfo {
        name: "cloudevents",
        title: "CloudEvents 1.0 of any kind",
        lateness: WEBHOOK_LATENESS,
        native: None,
        free_text: false,
    },
    Otlp => SourceTypeInfo {
        name: "otlp",
        title: "OpenTelemetry log records (OTLP JSON)",
        lateness: WEBHOOK_LATENESS,
        native: None,
        free_text: false,
    },
    SigstoreBundle => SourceTypeInfo {
        name: "sigstore.bundle",
        title: "Sigstore bundles (v0.1 to v0.3)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("sigstore", "bundle")),
        free_text: false,
    },
    RekorEntry => SourceTypeInfo {
        name: "rekor.entry",
        title: "Entries of a Rekor transparency log",
        lateness: WEBHOOK_LATENESS,
        native: Some(("sigstore", "rekor")),
        free_text: false,
    },
    IntotoStatement => SourceTypeInfo {
        name: "intoto.statement",
        title: "in-toto statements, bare or in DSSE envelopes (SLSA provenance)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("intoto", "statement")),
        free_text: false,
    },
    SbomCyclonedx => SourceTypeInfo {
        name: "sbom.cyclonedx",
        title: "CycloneDX bills of materials (JSON)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("cyclonedx", "bom")),
        free_text: false,
    },
    SbomSpdx => SourceTypeInfo {
        name: "sbom.spdx",
        title: "SPDX bills of materials (JSON, 2.x and 3.0)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("spdx", "document")),
        free_text: false,
    },
    Trivy => SourceTypeInfo {
        name: "trivy",
        title: "Trivy reports and reports of the Trivy operator",
        lateness: WEBHOOK_LATENESS,
        native: Some(("trivy", "report")),
        free_text: false,
    },
    Grype => SourceTypeInfo {
        name: "grype",
        title: "Grype reports",
        lateness: WEBHOOK_LATENESS,
        native: Some(("grype", "report")),
        free_text: false,
    },
    Sarif => SourceTypeInfo {
        name: "sarif",
        title: "SARIF 2.1.0 logs of static analysis",
        lateness: WEBHOOK_LATENESS,
        native: Some(("sarif", "log")),
        free_text: false,
    },
    Gitleaks => SourceTypeInfo {
        name: "gitleaks",
        title: "gitleaks reports (JSON)",
        lateness: WEBHOOK_LATENESS,
        native: Some(("gitleaks", "report")),
        free_text: false,
    },
    JenkinsJoblog => SourceTypeInfo {
        name: "jenkins.joblog",
        title: "Console logs of Jenkins builds (text)",
        // As for GitHub: a log is fetched when its build has ended.
        lateness: Duration::from_secs(6 * 3_600),
        native: Some(("jenkins", "joblog")),
        free_text: true,
    },
    BuildkiteJoblog => SourceTypeInfo {
        name: "buildkite.joblog",
        title: "Logs of Buildkite jobs (text)",
        lateness: Duration::from_secs(6 * 3_600),
        native: Some(("buildkite", "joblog")),
        free_text: true,
    },
    ProviderLedger => SourceTypeInfo {
        name: "provider.ledger",
        title: "What a provider lists of runs, deployments and merged changes, for reconciliation",
        // Lists are fetched from time to time, and entered when what they list has ended.
        lateness: Duration::from_secs(6 * 3_600),
        native: None,
        free_text: false,
    },
    Json => SourceTypeInfo {
        name: "json",
        title: "JSON objects in the cicd taxonomy or any other shape",
        lateness: WEBHOOK_LATENESS,
        native: None,
        free_text: false,
    },
    Pipeproof => SourceTypeInfo {
        name: "pipeproof",
        title: "pipeproof's own control records",
        lateness: Duration::ZERO,
        native: Some(("pipeproof", "control")),
        free_text: false,
    },
}

impl SourceType {
    /// The name used in URLs, configuration and rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Whether somebody outside may send events of this type; only our own control records may not be sent.
    #[must_use]
    pub const fn is_external(self) -> bool {
        !matches!(self, Self::Pipeproof)
    }
}

/// A name that is not in the table of source types.
#[derive(Debug, thiserror::Error)]
#[error("unknown source type `{name}` (known types: {})", known())]
pub struct UnknownSourceType {
    /// What was asked for.
    pub name: String,
}

fn known() -> String {
    let names: Vec<_> = SourceType::ALL.iter().filter(|kind| kind.is_external()).map(|kind| kind.name()).collect();
    names.join(", ")
}

impl FromStr for SourceType {
    type Err = UnknownSourceType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| UnknownSourceType { name: text.to_owned() })
    }
}

impl fmt::Display for SourceType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Serialize for SourceType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for SourceType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
