//! Feeds: what a rule may say it needs instead of naming products, and which source types give it.
//!
//! A rule that says `requires: [ci.jobs]` is about job events whoever runs the jobs. [`FEEDS`] says which source types
//! those come from today; [`CATEGORIES`] says the same of a rule of the `cicd` taxonomy that names only a category.
//! Both decide which watermarks a rule waits for and when it is blind, and neither which events it is shown.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use crate::source::{Logsource, SourceType};

/// One row of the table of feeds.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    /// The name rules use under `requires`.
    pub name: &'static str,
    /// What it is, for lists.
    pub title: &'static str,
    /// The source types it comes from.
    pub sources: &'static [SourceType],
}

use SourceType::{
    Argocd, AzureActivity, AzureKeyvault, AzureSignin as Entra, Cloudevents, Falco, Flux,
    GatekeeperAudit as Gatekeeper, GcpAudit as Gcp, HardenRunner, KubernetesAdmission as Admission, KubernetesEvent,
    KyvernoReport as Kyverno, Okta, OpaDecision as Opa, Otlp, Tetragon, Tracee,
};
use SourceType::{
    AwsCloudtrail as Aws, GithubJoblog as Joblog, GithubWebhook as Github, Json, KubernetesAudit as Kubernetes,
    SigstoreBundle as Sigstore, VaultAudit as Vault,
};
use SourceType::{
    Buildkite, Cdevents, CircleciAudit, CircleciWebhook as Circleci, Gitleaks, Grype, IntotoStatement as Intoto,
    Jenkins, RekorEntry as Rekor, Sarif, SbomCyclonedx as Cyclonedx, SbomSpdx as Spdx, Trivy,
};
use SourceType::{
    BuildkiteJoblog, GithubAudit, GitlabAudit, GitlabJoblog, GitlabWebhook as Gitlab, JenkinsJoblog, ProviderLedger,
};

/// Every feed. Where no source type of its own exists yet, it is `json`: events in the `cicd` taxonomy from whatever
/// the organisation runs.
pub const FEEDS: &[Feed] = &[
    Feed {
        name: "ci.jobs",
        title: "starts and ends of CI runs and jobs",
        sources: &[Github, Gitlab, Jenkins, Circleci, Buildkite, Cdevents],
    },
    Feed {
        name: "ci.log",
        title: "what CI jobs print",
        sources: &[Joblog, GitlabJoblog, JenkinsJoblog, BuildkiteJoblog],
    },
    Feed { name: "ci.runners", title: "runners: registered, online, removed", sources: &[Github] },
    Feed {
        name: "ci.runtime",
        title: "processes, files and connections on runners",
        sources: &[HardenRunner, Falco, Tetragon, Tracee, Json],
    },
    Feed { name: "ci.artifacts", title: "caches and artifacts of CI runs", sources: &[Github] },
    Feed {
        name: "scm.audit",
        title: "pushes and settings of source repositories",
        sources: &[Github, GithubAudit, Gitlab, GitlabAudit],
    },
    Feed { name: "scm.push", title: "pushes to source repositories", sources: &[Github, Gitlab] },
    Feed { name: "scm.review", title: "change requests and their reviews", sources: &[Github, Gitlab] },
    Feed {
        name: "secret.audit",
        title: "reads and writes of secrets",
        sources: &[Vault, Aws, Kubernetes, Gcp, AzureKeyvault, GitlabAudit, CircleciAudit, Jenkins, Buildkite],
    },
    Feed {
        name: "secret.scan",
        title: "secrets found where they do not belong",
        sources: &[Github, Joblog, GitlabJoblog, JenkinsJoblog, BuildkiteJoblog, Gitleaks, Sarif, Trivy],
    },
    Feed {
        name: "token.audit",
        title: "credentials issued, used and revoked",
        sources: &[Vault, Aws, Kubernetes, Gcp, Entra, GithubAudit, GitlabAudit],
    },
    Feed { name: "cloud.sts", title: "temporary credentials of cloud providers", sources: &[Aws, Gcp, Entra] },
    Feed { name: "cloud.api", title: "calls of cloud providers' interfaces", sources: &[Aws, Gcp, AzureActivity] },
    Feed {
        name: "cloud.kms",
        title: "uses and policies of cloud providers' keys",
        sources: &[Aws, Gcp, AzureKeyvault],
    },
    Feed { name: "registry.push", title: "images pushed to registries", sources: &[Github, Aws, Cdevents] },
    Feed { name: "registry.publish", title: "packages published to registries", sources: &[Github, Cdevents] },
    Feed {
        name: "signing.log",
        title: "signatures and their log entries",
        sources: &[Sigstore, Rekor, Intoto, Cdevents],
    },
    Feed {
        name: "attestation.log",
        title: "provenance, bills of materials, other attestations",
        sources: &[Sigstore, Rekor, Intoto, Cyclonedx, Spdx],
    },
    Feed {
        name: "scan.result",
        title: "results of vulnerability scanners",
        sources: &[Trivy, Grype, Sarif, Github, Json],
    },
    Feed {
        name: "admission.decision",
        title: "what a cluster let in and turned away",
        sources: &[Kubernetes, Gcp, Admission, Kyverno, Gatekeeper],
    },
    Feed { name: "kubernetes.api", title: "calls of a cluster's interface", sources: &[Kubernetes, Gcp] },
    Feed {
        name: "deploy.events",
        title: "deployments",
        sources: &[Github, Kubernetes, Argocd, Flux, Gitlab, Cdevents],
    },
    Feed { name: "identity.signin", title: "sign-ins of people", sources: &[Okta, Entra, Json] },
];

/// Which source types a rule of `product: cicd` listens to that names a category and does not say what it requires. Job
/// logs are left out of `job`: they come hours later, and a rule that reads them says `requires: [ci.log]`.
pub const CATEGORIES: &[(&str, &[SourceType])] = &[
    ("scm", &[Github, GithubAudit, Gitlab, GitlabAudit, Cdevents, Cloudevents, Otlp, Json]),
    ("job", &[Github, Gitlab, Jenkins, Circleci, Buildkite, Cdevents, Cloudevents, Otlp, Json]),
    (
        "token",
        &[
            Github,
            Vault,
            Aws,
            Kubernetes,
            Gcp,
            Entra,
            AzureActivity,
            Okta,
            GithubAudit,
            Gitlab,
            GitlabAudit,
            Cloudevents,
            Otlp,
            Json,
        ],
    ),
    (
        "secret",
        &[
            Vault,
            Aws,
            Kubernetes,
            Gcp,
            AzureKeyvault,
            AzureActivity,
            KubernetesEvent,
            GitlabAudit,
            CircleciAudit,
            Jenkins,
            Buildkite,
            Cloudevents,
            Otlp,
            Json,
        ],
    ),
    ("signing", &[Sigstore, Aws, Gcp, AzureKeyvault, Rekor, Intoto, Cdevents, Cloudevents, Otlp, Json]),
    ("registry", &[Github, Aws, Cdevents, Cloudevents, Otlp, Json]),
    ("scan", &[Trivy, Grype, Sarif, Cyclonedx, Spdx, Github, Cloudevents, Otlp, Json]),
    ("admission", &[Kubernetes, Gcp, Admission, Kyverno, Opa, Gatekeeper, KubernetesEvent, Cloudevents, Otlp, Json]),
    ("deploy", &[Github, Kubernetes, Argocd, Flux, KubernetesEvent, Gitlab, Cdevents, Cloudevents, Otlp, Json]),
    (
        "config",
        &[
            Github,
            Vault,
            Aws,
            Kubernetes,
            Gcp,
            Entra,
            AzureActivity,
            AzureKeyvault,
            Okta,
            GithubAudit,
            Gitlab,
            GitlabAudit,
            Jenkins,
            CircleciAudit,
            Buildkite,
            Cloudevents,
            Otlp,
            Json,
        ],
    ),
    ("ledger", &[ProviderLedger, Json]),
    (
        "audit",
        &[
            Github,
            Vault,
            Aws,
            Kubernetes,
            Gcp,
            AzureActivity,
            Okta,
            GithubAudit,
            Gitlab,
            GitlabAudit,
            Jenkins,
            CircleciAudit,
            Buildkite,
            Cloudevents,
            Otlp,
            Json,
        ],
    ),
    (
        "cloud",
        &[
            Vault,
            Aws,
            Kubernetes,
            Gcp,
            Entra,
            AzureActivity,
            AzureKeyvault,
            KubernetesEvent,
            Okta,
            Cloudevents,
            Otlp,
            Json,
        ],
    ),
    ("identity", &[Okta, Entra, Aws, Cloudevents, Otlp, Json]),
    ("runtime", &[HardenRunner, Falco, Tetragon, Tracee, Cloudevents, Otlp, Json]),
];

/// Sigma `(product, service)` whose events come with a source type besides its own.
const ALSO_NATIVE: &[(SourceType, &str, &str)] =
    &[(Entra, "azure", "auditlogs"), (Entra, "azure", "riskdetection"), (Entra, "azure", "pim")];

/// Sigma categories under which everything of a source type is filed.
const NATIVE_CATEGORIES: &[(SourceType, &[&str])] = &[(Kubernetes, &["application"])];

/// A name that is neither a source type nor a feed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is neither a source type nor a feed")]
pub struct UnknownFeed {
    /// What was asked for.
    pub name: String,
}

/// Every name that may stand under `requires`: source types, then feeds.
pub fn names() -> impl Iterator<Item = &'static str> {
    let types = SourceType::ALL.iter().filter(|kind| kind.is_external()).map(|kind| kind.name());
    types.chain(FEEDS.iter().map(|feed| feed.name))
}

/// The source types behind a name under `requires`.
///
/// # Errors
/// [`UnknownFeed`] if there is none; [`names`] are those to choose from.
pub fn resolve(name: &str) -> Result<Vec<SourceType>, UnknownFeed> {
    if let Ok(kind) = SourceType::from_str(name) {
        return Ok(vec![kind]);
    }
    let feed = FEEDS.iter().find(|feed| feed.name == name);
    feed.map(|feed| feed.sources.to_vec()).ok_or_else(|| UnknownFeed { name: name.to_owned() })
}

/// The source types behind all these names; unknown ones add none.
#[must_use]
pub fn resolve_all(names: &[String]) -> BTreeSet<SourceType> {
    names.iter().filter_map(|name| resolve(name).ok()).flatten().collect()
}

/// The source types whose events a rule of this logsource reads, as far as its logsource says.
#[must_use]
pub fn of_logsource(logsource: &Logsource) -> BTreeSet<SourceType> {
    let external = SourceType::ALL.iter().copied().filter(|kind| kind.is_external());
    if logsource.product.as_deref() != Some("cicd") {
        return external.filter(|kind| is_native(*kind, logsource)).collect();
    }
    if let Some(service) = &logsource.service {
        return SourceType::ALL.iter().copied().filter(|kind| kind.name() == service).collect();
    }
    match CATEGORIES.iter().find(|(category, _)| logsource.category.as_deref() == Some(category)) {
        Some((_, sources)) => sources.iter().copied().collect(),
        None => external.collect(),
    }
}

/// Whether a logsource is that of a source type whose events are known not to be of this category.
#[must_use]
pub fn is_of_other_category(own: &Logsource, category: &str) -> bool {
    let Some(native) = own.product.as_deref().zip(own.service.as_deref()) else { return false };
    let mut types = SourceType::ALL.iter().filter(|kind| kind.info().native == Some(native));
    types.next().is_some_and(|kind| !is_native_category(*kind, category))
}

/// Whether Sigma files everything of this source type under the category, so that it says nothing about an event.
#[must_use]
pub fn is_native_category(kind: SourceType, category: &str) -> bool {
    NATIVE_CATEGORIES.iter().any(|(of, categories)| *of == kind && categories.contains(&category))
}

/// Whether events of this source type are natively of a logsource, as far as product and service say.
#[must_use]
pub fn is_native(kind: SourceType, logsource: &Logsource) -> bool {
    let fits = |part: &Option<String>, of: &str| part.as_ref().is_none_or(|name| name == of);
    let also = ALSO_NATIVE.iter().filter(|(of, _, _)| *of == kind).map(|(_, product, service)| (*product, *service));
    let mut native = kind.info().native.into_iter().chain(also);
    native.any(|(product, service)| fits(&logsource.product, product) && fits(&logsource.service, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logsource(product: Option<&str>, category: Option<&str>, service: Option<&str>) -> Logsource {
        let own = |part: Option<&str>| part.map(str::to_owned);
        Logsource { product: own(product), category: own(category), service: own(service) }
    }

    #[test]
    fn names_are_unique_and_resolve() {
        let all: Vec<_> = names().collect();
        let unique: BTreeSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
        for name in all {
            assert!(!resolve(name).unwrap().is_empty(), "{name}");
            assert!(resolve(name).unwrap().iter().all(|kind| kind.is_external()), "{name}");
        }
        assert_eq!(resolve("github.webhook").unwrap(), [Github], "a source type stands for itself");
        assert_eq!(resolve("ci.job"), Err(UnknownFeed { name: "ci.job".to_owned() }));
        let wanted = ["secret.audit".to_owned(), "ci.jobs".to_owned(), "nonsense".to_owned()];
        let jobs = [Github, Gitlab, Jenkins, Circleci, Buildkite, Cdevents];
        let secrets = [Vault, Aws, Kubernetes, Gcp, AzureKeyvault, GitlabAudit, CircleciAudit, Jenkins, Buildkite];
        assert_eq!(resolve_all(&wanted), jobs.into_iter().chain(secrets).collect());
    }

    #[test]
    fn a_logsource_says_which_sources_it_is_about() {
        let of = |product, category, service| of_logsource(&logsource(product, category, service));
        assert_eq!(of(Some("aws"), None, Some("cloudtrail")), BTreeSet::from([Aws]));
        assert_eq!(of(Some("aws"), None, None), BTreeSet::from([Aws]));
        assert_eq!(of(Some("kubernetes"), Some("application"), Some("audit")), BTreeSet::from([Kubernetes]));
        let audits = BTreeSet::from([Vault, Kubernetes, GithubAudit, GitlabAudit, CircleciAudit]);
        assert_eq!(of(None, None, Some("audit")), audits, "whoever has that service");
        assert_eq!(of(Some("github"), None, Some("audit")), BTreeSet::from([GithubAudit]));
        assert!(of(Some("windows"), None, None).is_empty());
        let jobs = BTreeSet::from([Github, Gitlab, Jenkins, Circleci, Buildkite, Cdevents, Cloudevents, Otlp, Json]);
        assert_eq!(of(Some("cicd"), Some("job"), None), jobs, "not six hours for job logs");
        assert_eq!(of(Some("gcp"), None, Some("gcp.audit")), BTreeSet::from([Gcp]));
        assert_eq!(of(Some("azure"), None, Some("signinlogs")), BTreeSet::from([Entra]));
        assert_eq!(of(Some("azure"), None, Some("auditlogs")), BTreeSet::from([Entra]));
        assert_eq!(of(Some("okta"), None, Some("okta")), BTreeSet::from([Okta]));
        assert_eq!(of(Some("cicd"), None, Some("vault.audit")), BTreeSet::from([Vault]));
        assert!(of(Some("cicd"), None, None).contains(&Joblog));
        assert!(of(Some("cicd"), Some("secret"), None).contains(&GitlabAudit), "variables are read and written there");
        assert!(of(Some("cicd"), Some("job"), None).iter().all(|kind| kind.is_external()));
        for (feed, also) in
            [("kubernetes.api", Gcp), ("admission.decision", Gcp), ("signing.log", Intoto), ("signing.log", Cdevents)]
        {
            assert!(resolve(feed).unwrap().contains(&also), "{feed}");
        }
    }
}
