//! What to paste at the other end: a ready configuration of the sender for a source that was just connected, in the
//! scheme that the sender speaks; and for what is fetched, the part of `pipeproof.yaml` that does.
//!
//! Texts are templates: `<url>`, `<base>`, `<host>`, `<port>`, `<tls>`, `<path>`, `<source>`, `<type>`, `<labels>`, `<token>`
//! and `<secret>` are filled in. Those of some length are the files of `deploy/sources/`,
//! which `pipeproof sources file NAME` prints. What only the reader knows is a
//! variable of the shell, or begins with `your-`.

mod clouds;
mod clusters;
mod documents;
mod files;
mod providers;

use pipeproof_engine::control::SourceRecord;
use pipeproof_engine::source::SourceType;
use reqwest::Url;

pub(crate) use files::FILES;

/// A source and what its sender has to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) source: &'a SourceRecord,
    /// The server's address, for senders that put paths of their own behind it.
    pub(crate) base: &'a str,
    pub(crate) token: &'a str,
    /// The secret, empty where the type has none.
    pub(crate) secret: &'a str,
}

/// One thing to do.
struct Step {
    /// Where.
    at: &'static str,
    form: Form,
    text: &'static str,
}

/// What a text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Names and values of a form, a line each.
    Settings,
    /// Something to paste or run, in this language.
    Code(&'static str),
}

const fn settings(at: &'static str, text: &'static str) -> Step {
    Step { at, form: Form::Settings, text }
}

const fn yaml(at: &'static str, text: &'static str) -> Step {
    Step { at, form: Form::Code("yaml"), text }
}

const fn shell(at: &'static str, text: &'static str) -> Step {
    Step { at, form: Form::Code("sh"), text }
}

/// A part of `pipeproof.yaml`: the source, with what stands in `$settings`.
macro_rules! configured {
    ($settings:literal) => {
        concat!("sources:\n  - name: <source>\n    type: <type><labels>\n", $settings)
    };
}
use configured;

/// A file, or what a program printed, with the token of the source.
const POST: &str = "curl -fsS --data-binary @events.json -H 'Authorization: Bearer <token>' '<url>'\n";

/// Ways that any type may come, with the same token.
const SHIPPERS: Step = settings(
    "or by a shipper, with the same token",
    "  OpenTelemetry  OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=<base>/v1/logs OTEL_EXPORTER_OTLP_LOGS_HEADERS=authorization=Bearer%20<token>
  Splunk HEC     <base>/services/collector  token <token>
  Elastic        <base>  username pipeproof  password <token>
  HTTP           <url>  Authorization: Bearer <token>, or Basic with any user and the token as password
",
);

impl Sender<'_> {
    /// Where events are sent to.
    pub(crate) fn url(&self) -> String {
        format!("{}/v1/events/{}", self.base, self.source.name)
    }

    /// Everything as text; `hint` is what to know about the address.
    pub(crate) fn configuration(&self, hint: Option<&str>) -> String {
        let kind = self.source.source_type;
        let mut out = hint.map(|hint| format!("# {hint}\n\n")).unwrap_or_default();
        // A provider's webhook is set up at the provider, and what is fetched at none.
        let sent = !kind.name().ends_with(".webhook") && kind != SourceType::ProviderLedger && !kind.info().free_text;
        for step in steps(kind).iter().chain(sent.then_some(&SHIPPERS)) {
            let text = self.filled(step.text);
            match step.form {
                Form::Settings => out.push_str(&format!("{}\n\n{text}\n", self.filled(step.at))),
                Form::Code(language) => {
                    out.push_str(&format!("{}\n\n```{language}\n{text}```\n\n", self.filled(step.at)));
                }
            }
        }
        out
    }

    fn filled(&self, template: &str) -> String {
        let url = self.url();
        // A base was read as a URL before it came here.
        let parsed: Option<Url> = url.parse().ok();
        let host = parsed.as_ref().and_then(Url::host_str).unwrap_or_default();
        let port = parsed.as_ref().and_then(Url::port_or_known_default).unwrap_or_default().to_string();
        let tls = if url.starts_with("https://") { "on" } else { "off" };
        let labels = match serde_json::to_string(&self.source.labels) {
            Ok(labels) if !self.source.labels.is_empty() => format!("\n    labels: {labels}"),
            _ => String::new(),
        };
        let known = [
            ("<url>", url.as_str()),
            ("<base>", self.base),
            ("<host>", host.trim_matches(['[', ']'])),
            ("<port>", &port),
            ("<tls>", tls),
            ("<path>", parsed.as_ref().map_or("", Url::path)),
            ("<source>", &self.source.name),
            ("<type>", self.source.source_type.name()),
            ("<token>", self.token),
            ("<secret>", self.secret),
            // Last: whoever added the source wrote them.
            ("<labels>", &labels),
        ];
        known.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

fn steps(kind: SourceType) -> &'static [Step] {
    use SourceType as T;
    match kind {
        T::GithubWebhook => providers::GITHUB_WEBHOOK,
        T::GithubJoblog => providers::GITHUB_JOBLOG,
        T::GithubAudit => providers::GITHUB_AUDIT,
        T::GitlabWebhook => providers::GITLAB_WEBHOOK,
        T::GitlabAudit => providers::GITLAB_AUDIT,
        T::GitlabJoblog => providers::GITLAB_JOBLOG,
        T::Jenkins => providers::JENKINS,
        T::JenkinsJoblog => providers::JENKINS_JOBLOG,
        T::CircleciWebhook => providers::CIRCLECI_WEBHOOK,
        T::CircleciAudit => providers::CIRCLECI_AUDIT,
        T::Buildkite => providers::BUILDKITE,
        T::BuildkiteJoblog => providers::BUILDKITE_JOBLOG,
        T::ProviderLedger => providers::LEDGER,
        T::Okta => providers::OKTA,
        T::HardenRunner => providers::HARDEN_RUNNER,
        T::VaultAudit => clouds::VAULT,
        T::AwsCloudtrail => clouds::CLOUDTRAIL,
        T::GcpAudit => clouds::GCP,
        T::AzureSignin => clouds::ENTRA,
        T::AzureActivity => clouds::AZURE_ACTIVITY,
        T::AzureKeyvault => clouds::KEY_VAULT,
        T::KubernetesAudit => clusters::AUDIT,
        T::KubernetesEvent => clusters::EVENTS,
        T::KubernetesAdmission => clusters::ADMISSION,
        T::KyvernoReport => clusters::REPORTS,
        T::OpaDecision => clusters::OPA,
        T::GatekeeperAudit => clusters::GATEKEEPER,
        T::Argocd => clusters::ARGOCD,
        T::Flux => clusters::FLUX,
        T::Falco => clusters::FALCO,
        T::Tetragon => clusters::TETRAGON,
        T::Tracee => clusters::TRACEE,
        T::Otlp => clusters::OTLP,
        T::SigstoreBundle => documents::BUNDLE,
        T::RekorEntry => documents::REKOR,
        T::IntotoStatement => documents::STATEMENT,
        T::SbomCyclonedx => documents::CYCLONEDX,
        T::SbomSpdx => documents::SPDX,
        T::Trivy => documents::TRIVY,
        T::Grype => documents::GRYPE,
        T::Sarif => documents::SARIF,
        T::Gitleaks => documents::GITLEAKS,
        T::Cdevents | T::Json => documents::JSON,
        T::Cloudevents => documents::CLOUDEVENTS,
        // Nobody sends our own records.
        T::Pipeproof => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pipeproof_engine::time::Timestamp;
    use pipeproof_ingest::authentic;

    use super::*;
    use crate::config::Config;

    const BASE: &str = "https://pipeproof.example:8443/in";

    fn source(kind: SourceType) -> SourceRecord {
        SourceRecord {
            name: format!("acme-{}", kind.name()),
            source_type: kind,
            labels: BTreeMap::from([("team".to_owned(), "it's \"us\"".to_owned())]),
            connected: Timestamp::from_secs(0),
            generation: 0,
            actor: "test".to_owned(),
        }
    }

    fn external() -> impl Iterator<Item = SourceType> {
        SourceType::ALL.iter().copied().filter(|kind| kind.is_external())
    }

    #[test]
    fn every_type_is_told_all_it_needs_and_nothing_is_left_to_fill_in() {
        for kind in external() {
            let source = source(kind);
            let sender = Sender { source: &source, base: BASE, token: "ppt_token", secret: "the secret" };
            let text = sender.configuration(None);
            assert!(!steps(kind).is_empty(), "{kind}");
            let left = text.split('<').skip(1).find(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()));
            assert_eq!(left, None, "{kind}: something is left to fill in");
            assert_eq!(text.contains("the secret"), authentic::has_secret(kind), "{kind}: {text}");
            let fetched = steps(kind).iter().any(|step| step.text.contains("    collects:"));
            assert!(fetched || text.contains(&sender.url()) || text.contains("ppt_token"), "{kind}: {text}");
            assert!(steps(kind).iter().all(|step| step.text.ends_with('\n')), "{kind}: a step does not end its line");
            assert!(text.starts_with(char::is_alphabetic) && sender.configuration(Some("hint")).starts_with("# hint"));
        }
    }

    #[test]
    fn what_is_for_our_own_configuration_is_valid_in_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "a secret of some length").unwrap();
        let mut seen = 0;
        for kind in external() {
            let source = source(kind);
            let sender = Sender { source: &source, base: BASE, token: "ppt_token", secret: "the secret" };
            for step in steps(kind).iter().filter(|step| step.at.contains("pipeproof.yaml")) {
                // The secrets lie elsewhere here, and who shows certificates has to be asked for one.
                let text =
                    sender.filled(step.text).split("{env: ").enumerate().fold(String::new(), |text, (at, part)| {
                        let rest = part.split_once('}').map_or(part, |(_, rest)| rest);
                        if at == 0 { part.to_owned() } else { format!("{text}{{file: {}}}{rest}", secret.display()) }
                    });
                let text = format!("version: 1\ntls: {{cert: /c.pem, key: /k.pem, client_ca: /a.pem}}\n{text}");
                let path = folder.path().join("pipeproof.yaml");
                std::fs::write(&path, &text).unwrap();
                let config = Config::load(&path).unwrap_or_else(|error| panic!("{kind}: {error}\n{text}"));
                let [read] = &config.sources[..] else { panic!("{kind}: one source is configured") };
                assert_eq!((&read.name, read.source_type, &read.labels), (&source.name, kind, &source.labels));
                let reads = !read.reads.files.is_empty() || read.reads.kafka.is_some();
                let believed = read.identity.is_some() || read.certificate.is_some();
                assert!(reads || believed || !read.collects.is_empty(), "{kind}: nothing is configured");
                seen += 1;
            }
        }
        assert!(seen > 15, "{seen} parts of the configuration were read");
    }

    #[test]
    fn an_address_is_taken_apart_for_those_who_want_its_parts() {
        let source = source(SourceType::VaultAudit);
        let filled = |base: &str| {
            let sender = Sender { source: &source, base, token: "", secret: "" };
            sender.filled("<host> <port> <tls> <path>")
        };
        assert_eq!(filled(BASE), "pipeproof.example 8443 on /in/v1/events/acme-vault.audit");
        assert_eq!(filled("https://pipeproof.example"), "pipeproof.example 443 on /v1/events/acme-vault.audit");
        assert_eq!(filled("http://[::1]:7391"), "::1 7391 off /v1/events/acme-vault.audit");
    }
}
