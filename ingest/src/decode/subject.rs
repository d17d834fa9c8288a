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

/// The CI system behind an issuer (a URL, a host, or an AWS provider ARN); `None` if it is none we know.
pub(super) fn ci_provider(issuer: &str) -> Option<&'static str> {
    const CI: &[(&str, &str)] = &[
        ("token.actions.githubusercontent.com", "github"),
        ("/_services/token", "github"),
        (".ghe.com", "github"),
        ("gitlab", "gitlab"),
        ("oidc.circleci.com", "circleci"),
        ("agent.buildkite.com", "buildkite"),
        ("app.terraform.io", "terraform"),
        ("vstoken.dev.azure.com", "azure-devops"),
        ("vstoken.actions.githubusercontent.com", "github"),
    ];
    CI.iter().find(|(part, _)| issuer.contains(part)).map(|(_, provider)| *provider)
}

/// `ci` or `workload` for an issuer of federated tokens; `None` if it is neither.
pub(super) fn actor_type(issuer: &str) -> Option<&'static str> {
    const WORKLOAD: &[&str] =
        &["oidc.eks.", "container.googleapis.com", "kubernetes", "oic.prod-aks.azure.com", ".aks.azure.com", "/id/"];
    if ci_provider(issuer).is_some() {
        Some("ci")
    } else {
        WORKLOAD.iter().any(|part| issuer.contains(part)).then_some("workload")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
