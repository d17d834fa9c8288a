//! Subjects and issuers of OIDC tokens: which repository, ref and environment a CI token was made for, and whether its
//! issuer is a CI system at all.
//!
//! Sources: GitHub "OpenID Connect reference" (both forms of `sub`: names alone, and since 2026-07-15 names with
//! numeric ids, `repo:OWNER@ID/REPO@ID:…`), GitLab "ID token payload", Buildkite and CircleCI OIDC documentation.

use engine::fields::{Field, Fields};
use pipeproof_engine as engine;

use super::git_remote;

/// What a subject names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// `owner/name`, numeric ids removed: the form events of the CI system use.
    pub(super) repo: Option<String>,
    pub(super) git_ref: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) provider: Option<&'static str>,
}

/// Reads a subject; one of another form names nothing.
pub(super) fn parse(sub: &str) -> Subject {
    if let Some(rest) = sub.strip_prefix("repo:") {
        return github(rest);
    }
    if let Some(rest) = sub.strip_prefix("project_path:") {
        return gitlab(rest);
    }
    if sub.starts_with("organization:") && sub.contains(":workspace:") && sub.contains(":run_phase:") {
        return Subject { provider: Some("terraform"), ..Subject::default() };
    }
    if sub.starts_with("organization:") && sub.contains(":pipeline:") {
        return Subject { git_ref: claim(sub, "ref"), provider: Some("buildkite"), ..Subject::default() };
    }
    if sub.starts_with("org/") && sub.contains("/project/") {
        return circleci(sub);
    }
    Subject { git_ref: claim(sub, "ref"), ..Subject::default() }
}

/// `org/ID/project/ID/user/ID`, and in the second form `/vcs-origin/HOST/OWNER/NAME/vcs-ref/refs/…` behind it.
fn circleci(sub: &str) -> Subject {
    let (head, git_ref) = sub.split_once("/vcs-ref/").map_or((sub, None), |(head, name)| (head, Some(name.to_owned())));
    let origin = head.split_once("/vcs-origin/").map(|(_, origin)| origin);
    Subject { repo: origin.and_then(git_remote::repo), git_ref, environment: None, provider: Some("circleci") }
}

fn github(rest: &str) -> Subject {
    let (repo, context) = rest.split_once(':').unwrap_or((rest, ""));
    let plain: Vec<&str> = repo.split('/').map(|part| part.split_once('@').map_or(part, |(name, _)| name)).collect();
    let repo = Some(decoded(&plain.join("/"))).filter(|repo| repo.contains('/') && !repo.contains('*'));
    // A ref may hold anything but a colon, which is written %3A.
    Subject {
        repo,
        git_ref: claim(context, "ref"),
        environment: claim(context, "environment"),
        provider: Some("github"),
    }
}

fn gitlab(rest: &str) -> Subject {
    let (repo, context) = rest.split_once(':').unwrap_or((rest, ""));
    let tag = claim(context, "ref_type").as_deref() == Some("tag");
    let git_ref = claim(context, "ref").map(|name| format!("refs/{}/{name}", if tag { "tags" } else { "heads" }));
    Subject { repo: Some(repo.to_owned()), git_ref, environment: None, provider: Some("gitlab") }
}

/// The value of `key:value` among parts joined with colons.
fn claim(context: &str, key: &str) -> Option<String> {
    let mut parts = context.split(':');
    parts.find(|part| *part == key)?;
    parts.next().map(decoded).filter(|value| !value.is_empty())
}

fn decoded(text: &str) -> String {
    text.replace("%3A", ":").replace("%3a", ":")
}

/// Sets what a subject names, as properties of the token and of the run it was made for.
pub(super) fn set(fields: &mut Fields, sub: &str) {
    let subject = parse(sub);
    fields.text(Field::TokenSub, Some(sub));
    fields.text(Field::TokenRepo, subject.repo.as_deref());
    fields.text(Field::TokenRef, subject.git_ref.as_deref());
    fields.text(Field::CiRepo, subject.repo);
    fields.text(Field::CiRef, subject.git_ref);
    fields.text(Field::CiEnvironment, subject.environment);
    fields.text(Field::CiProvider, subject.provider);
}

/// Host and path of an issuer that is a URL, a host, or an AWS provider ARN.
fn parts(issuer: &str) -> (&str, &str) {
    const PROVIDER: &str = ":oidc-provider/";
    let mut colons = memchr::memrchr_iter(b':', issuer.as_bytes());
    let address = colons.find_map(|at| issuer.get(at..)?.strip_prefix(PROVIDER)).unwrap_or(issuer);
    let address = git_remote::after_scheme(address).unwrap_or(address);
    let (host, path) = address.split_at(address.find('/').unwrap_or(address.len()));
    (host.split(':').next().unwrap_or(host), path)
}

/// What is behind an issuer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Behind {
    Cluster,
    Ci(&'static str),
    Other,
}

impl Behind {
    /// What is behind this issuer (a URL, a host, or an AWS provider ARN). By its host: what anybody may name a project or a
    /// path says nothing.
    pub(super) fn of(issuer: &str) -> Self {
        let (host, path) = parts(issuer);
        if is_cluster(host, path) {
            return Self::Cluster;
        }
        ci(host, path).map_or(Self::Other, Self::Ci)
    }

    /// The CI system, if it is one we know.
    pub(super) const fn provider(self) -> Option<&'static str> {
        match self {
            Self::Ci(provider) => Some(provider),
            Self::Cluster | Self::Other => None,
        }
    }

    /// `ci` or `workload`; `None` if it is neither.
    const fn actor_type(self) -> Option<&'static str> {
        match self {
            Self::Cluster => Some("workload"),
            Self::Ci(_) => Some("ci"),
            Self::Other => None,
        }
    }

    /// Who an identity in a certificate of Fulcio is, by its issuer and by what it is: a person's address, or the name of
    /// something that runs.
    pub(super) fn signer(self, identity: Option<&str>) -> &'static str {
        let identity = identity.unwrap_or_default();
        if let Some(kind) = self.actor_type() {
            return kind;
        }
        if identity.ends_with("gserviceaccount.com") {
            return "service";
        }
        match identity.split_once("://") {
            Some(("spiffe", _)) => "workload",
            Some((_, address)) if address.contains("/namespaces/") => "workload",
            Some(_) => "service",
            None => "human",
        }
    }
}

/// The CI system behind an issuer, if it is one we know.
pub(super) fn ci_provider(issuer: &str) -> Option<&'static str> {
    Behind::of(issuer).provider()
}

fn ci(host: &str, path: &str) -> Option<&'static str> {
    /// Hosts, and those below them.
    const CI: &[(&str, &str)] = &[
        ("actions.githubusercontent.com", "github"),
        ("ghe.com", "github"),
        ("gitlab.com", "gitlab"),
        ("oidc.circleci.com", "circleci"),
        ("agent.buildkite.com", "buildkite"),
        ("app.terraform.io", "terraform"),
        ("vstoken.dev.azure.com", "azure-devops"),
    ];
    let below = |name: &str| host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let known = CI.iter().find(|(name, _)| below(name)).map(|(_, provider)| *provider);
    // Servers of one's own: GitHub's by their path, GitLab's by what nearly everybody calls them.
    known
        .or_else(|| (path == "/_services/token").then_some("github"))
        .or_else(|| bitbucket(host, path).then_some("bitbucket"))
        .or_else(|| host.split('.').any(|label| label.starts_with("gitlab")).then_some("gitlab"))
}

/// Each workspace has an issuer of its own, under the host of Bitbucket's API.
fn bitbucket(host: &str, path: &str) -> bool {
    host == "api.bitbucket.org" && path.trim_end_matches('/').ends_with("/pipelines-config/identity/oidc")
}

/// Whether a Kubernetes cluster issues these tokens: of EKS, GKE, AKS, or one of its own.
fn is_cluster(host: &str, path: &str) -> bool {
    host.starts_with("oidc.eks.")
        || host == "container.googleapis.com"
        || host.ends_with(".oic.prod-aks.azure.com")
        || host.ends_with(".aks.azure.com")
        || host.starts_with("kubernetes.default")
        // Where EKS keeps the keys of clusters of one's own, and other hosts after its example.
        || path.starts_with("/id/")
        || host.split('.').any(|label| matches!(label, "kubernetes" | "k8s" | "spiffe"))
}

/// `ci` or `workload` for an issuer of federated tokens; `None` if it is neither.
pub(super) fn actor_type(issuer: &str) -> Option<&'static str> {
    Behind::of(issuer).actor_type()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(issuer: &str, identity: Option<&str>) -> &'static str {
        Behind::of(issuer).signer(identity)
    }

    #[test]
    fn both_forms_of_github_and_the_others() {
        let subject = |repo: &str, git_ref: &str, environment: &str, provider| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Subject { repo: some(repo), git_ref: some(git_ref), environment: some(environment), provider }
        };
        let github = Some("github");
        for (sub, expected) in [
            ("repo:acme/app:ref:refs/heads/main", subject("acme/app", "refs/heads/main", "", github)),
            ("repo:acme@12/app@345:ref:refs/heads/main", subject("acme/app", "refs/heads/main", "", github)),
            ("repo:acme@12/app@345:environment:prod%3Aeu", subject("acme/app", "", "prod:eu", github)),
            ("repo:acme/app:pull_request", subject("acme/app", "", "", github)),
            ("repo:acme/app:ref:refs/tags/v1:environment:p", subject("acme/app", "refs/tags/v1", "p", github)),
            ("repo:acme/*", subject("", "", "", github)),
            (
                "project_path:group/sub/app:ref_type:branch:ref:main",
                subject("group/sub/app", "refs/heads/main", "", Some("gitlab")),
            ),
            ("project_path:g/a:ref_type:tag:ref:v1", subject("g/a", "refs/tags/v1", "", Some("gitlab"))),
            (
                "organization:o:pipeline:p:ref:refs/heads/x:commit:c:step:s",
                subject("", "refs/heads/x", "", Some("buildkite")),
            ),
            ("organization:o:project:p:workspace:w:run_phase:apply", subject("", "", "", Some("terraform"))),
            ("org/1/project/2/user/3", subject("", "", "", Some("circleci"))),
            (
                "org/1/project/2/user/3/vcs-origin/github.com/acme/app/vcs-ref/refs/heads/main",
                subject("acme/app", "refs/heads/main", "", Some("circleci")),
            ),
            ("system:serviceaccount:ns:name", Subject::default()),
            ("", Subject::default()),
        ] {
            assert_eq!(parse(sub), expected, "{sub}");
        }
    }

    #[test]
    fn a_pods_token_is_not_a_ci_token() {
        assert_eq!(actor_type("arn:aws:iam::1:oidc-provider/token.actions.githubusercontent.com"), Some("ci"));
        assert_eq!(actor_type("arn:aws:iam::1:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/AB"), Some("workload"));
        assert_eq!(actor_type("https://gitlab.example.com"), Some("ci"));
        assert_eq!(actor_type("accounts.google.com"), None);
        for (issuer, kind) in [
            ("https://token.actions.githubusercontent.com/acme", "ci"),
            ("https://token.actions.acme.ghe.com", "ci"),
            ("https://github.acme.example/_services/token", "ci"),
            ("https://gitlab-ci.acme.example:8443", "ci"),
            ("https://agent.buildkite.com", "ci"),
            ("https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc", "ci"),
            ("https://container.googleapis.com/v1/projects/acme-gitlab/locations/eu/clusters/c", "workload"),
            ("https://westeurope.oic.prod-aks.azure.com/1/2/", "workload"),
            ("https://kubernetes.default.svc.cluster.local", "workload"),
            ("https://s3.eu-west-1.amazonaws.com/id/gitlab", "workload"),
        ] {
            assert_eq!(actor_type(issuer), Some(kind), "{issuer}");
        }
        for other in [
            "https://evil.example/token.actions.githubusercontent.com",
            "https://notghe.com",
            "https://api.bitbucket.org/2.0/workspaces/acme",
            "https://a.example/gitlab",
        ] {
            assert_eq!(actor_type(other), None, "{other}");
        }
    }

    #[test]
    fn who_signs_is_told_by_issuer_and_identity() {
        for (issuer, identity, kind) in [
            ("https://accounts.google.com", "ann@example.com", "human"),
            ("https://github.com/login/oauth", "ann@example.com", "human"),
            ("https://accounts.google.com", "keyless@projectsigstore.iam.gserviceaccount.com", "service"),
            (
                "https://token.actions.githubusercontent.com",
                "https://github.com/acme/app/.github/workflows/r.yml@x",
                "ci",
            ),
            (
                "https://oidc.eks.eu-west-1.amazonaws.com/id/AB",
                "https://kubernetes.io/namespaces/a/serviceaccounts/b",
                "workload",
            ),
            ("https://idp.example", "spiffe://acme.example/ns/a/sa/b", "workload"),
            ("https://idp.example", "https://acme.example/builder", "service"),
        ] {
            assert_eq!(signer(issuer, Some(identity)), kind, "{issuer} {identity}");
        }
    }
}
