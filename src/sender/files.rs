//! The files of `deploy/sources/`, in the program: who has only it has them too.

macro_rules! texts {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../deploy/sources/", $name)))),*]
    };
}

/// Their names, in order, and what is in them.
pub(crate) const FILES: &[(&str, &str)] = texts![
    "README.md",
    "argocd-notifications.yaml",
    "argocd.md",
    "artifacts.md",
    "aws.cloudtrail.md",
    "aws.cloudtrail.tf",
    "azure.md",
    "azure.tf",
    "ci-systems.md",
    "collectors.md",
    "falcosidekick.yaml",
    "fetched.md",
    "fluent-bit.yaml",
    "flux.md",
    "flux.yaml",
    "gcp.audit.md",
    "gcp.audit.tf",
    "github-app.json",
    "github.audit.md",
    "github.joblog.md",
    "github.webhook.md",
    "gitlab.md",
    "json.md",
    "kubernetes-admission-kubeconfig.yaml",
    "kubernetes-admission-webhook.yaml",
    "kubernetes-audit-policy.yaml",
    "kubernetes-audit-webhook.yaml",
    "kubernetes.audit.md",
    "kubernetes.policy.md",
    "opa.yaml",
    "otel-collector.yaml",
    "runtime.md",
    "sigstore.bundle.md",
    "syslog.md",
    "vault.audit.md",
    "vault.audit.tf",
];
