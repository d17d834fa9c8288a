//! The `cicd` taxonomy: the typed, normalised fields every source is decoded to, the join keys of a delivery pipeline.
//!
//! One table gives name, type and meaning; the lake's columns, the rule checks and the documentation derive from it.

use std::fmt;

pub use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// UTF-8 text.
    Text,
    /// A signed 64-bit integer.
    Int,
    /// True or false.
    Bool,
    /// A point in time.
    Time,
}

macro_rules! fields {
    ($($variant:ident, $name:literal, $kind:ident, $meaning:literal;)+) => {
        /// A normalised field.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Field {
            $(#[doc = $meaning] $variant),+
        }

        impl Field {
            /// Every field, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The dotted name rules use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What it holds.
            #[must_use]
            pub const fn kind(self) -> FieldKind {
                match self { $(Self::$variant => FieldKind::$kind),+ }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }

            /// The field of that dotted name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                if !may_be_name(name.as_bytes()) {
                    return None;
                }
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

fields! {
    Action, "action", Text, "What happened, as `noun.verb`: `job.started`, `token.issued`, `secret.read`, `admission.decided`, ...";
    Category, "category", Text, "The family of the action: scm, job, token, secret, signing, registry, scan, admission, deploy, config, leak, audit, cloud, identity, runtime";
    Outcome, "outcome", Text, "`success` or `failure`, as the source judged it";
    Reason, "reason", Text, "The source's own words for the outcome";
    ActorId, "actor.id", Text, "Who did it, in the source's own identifier";
    ActorType, "actor.type", Text, "`ci`, `workload`, `human` or `service`, decided by the issuer of the identity";
    SrcIp, "src.ip", Text, "Network address the action came from";
    SrcAsn, "src.asn", Int, "Autonomous system of `src.ip`";
    SrcOrg, "src.org", Text, "Organisation that runs that autonomous system";
    SrcCountry, "src.country", Text, "Country of `src.ip`, ISO 3166-1 alpha-2";
    SrcLatE6, "src.lat_e6", Int, "Latitude of `src.ip` in millionths of a degree, as the operator's file estimates it";
    SrcLonE6, "src.lon_e6", Int, "Longitude of `src.ip` in millionths of a degree";
    UserAgent, "user_agent", Text, "Client software, as it named itself";
    CiProvider, "ci.provider", Text, "CI system: github, gitlab, ...";
    CiRepo, "ci.repo", Text, "Repository, `owner/name`";
    CiRunId, "ci.run_id", Text, "Workflow run or pipeline";
    CiJobId, "ci.job_id", Text, "Job inside the run";
    CiAttempt, "ci.attempt", Int, "Attempt of the run, from 1";
    CiRef, "ci.ref", Text, "Git ref, `refs/heads/main`";
    CiSha, "ci.sha", Text, "Git commit";
    CiTrigger, "ci.trigger", Text, "Event that started the run";
    CiWorkflow, "ci.workflow", Text, "Workflow name or path";
    CiWorkflowRef, "ci.workflow_ref", Text, "Workflow file with the ref it was taken from";
    CiEnvironment, "ci.environment", Text, "Deployment environment of the job";
    RunnerName, "runner.name", Text, "Runner that executed the job";
    RunnerKind, "runner.kind", Text, "`github-hosted` or `self-hosted`";
    RunnerLabels, "runner.labels", Text, "Labels of the runner, comma separated";
    RunnerIp, "runner.ip", Text, "Address of the runner";
    ScmBefore, "scm.before", Text, "Commit a ref pointed to before a push";
    ScmAfter, "scm.after", Text, "Commit a ref points to after a push, or the merge commit";
    ScmForced, "scm.forced", Bool, "The push replaced history";
    ScmDefaultBranch, "scm.default_branch", Text, "Default branch of the repository";
    ChangeNumber, "change.number", Int, "Pull or merge request number";
    ChangeAuthor, "change.author", Text, "Who opened the change request";
    ChangeBase, "change.base", Text, "Branch the change request is merged into";
    ChangeHead, "change.head", Text, "Final commit of the change request";
    ChangeMergedBy, "change.merged_by", Text, "Who merged it";
    ChangeReviewState, "change.review_state", Text, "`approved`, `changes_requested`, `commented` or `dismissed`";
    ConfigObject, "config.object", Text, "Kind of setting changed: branch_protection, ruleset, environment_rule, workflow_permissions, audit_log, secret_store, admission_policy, webhook, secret_scanning, deploy_key, trust, permission";
    ConfigId, "config.id", Text, "Which one";
    ConfigAttribute, "config.attribute", Text, "Which attribute of it";
    ConfigValue, "config.value", Text, "Its new value";
    ConfigWeakens, "config.weakens", Bool, "The change removes or loosens a guard";
    TokenId, "token.id", Text, "Identifier of the credential: jti, ASIA key id, Vault accessor";
    TokenKind, "token.kind", Text, "`oidc`, `sts`, `vault`, `pat`, `deploy_key`, `static`, `app`";
    TokenIssuer, "token.issuer", Text, "Who issued it";
    TokenSub, "token.sub", Text, "Its subject";
    TokenAud, "token.aud", Text, "Its audience";
    TokenRepo, "token.repo", Text, "Repository named by the subject";
    TokenRef, "token.ref", Text, "Git ref named by the subject";
    TokenExpires, "token.expires", Time, "When it expires";
    SecretPath, "secret.path", Text, "Path, name or ARN of the secret";
    SecretStore, "secret.store", Text, "Which store: vault, aws.secretsmanager, aws.ssm, aws.kms, gcp.secretmanager, gcp.kms, azure.keyvault, kubernetes";
    SecretVersion, "secret.version", Text, "Version read";
    ArtifactDigest, "artifact.digest", Text, "`sha256:` and 64 hexadecimal digits";
    ArtifactName, "artifact.name", Text, "Image reference or package name";
    ArtifactRepo, "artifact.repo", Text, "Registry repository without tag and digest";
    SignatureIdentity, "signature.identity", Text, "Identity in the signing certificate";
    SignatureIssuer, "signature.issuer", Text, "OIDC issuer in the signing certificate";
    SignatureVerified, "signature.verified", Bool, "Somebody verified the signature, and it held";
    SignatureStatus, "signature.status", Text, "`unverified` (a bundle was seen), `verified`, `failed` or `missing`";
    PredicateType, "signature.predicate_type", Text, "in-toto predicate type of an attestation";
    BuildBuilder, "build.builder", Text, "Builder of the artifact, as its provenance names it";
    SbomFormat, "sbom.format", Text, "Format of a bill of materials with its version, `CycloneDX 1.5`";
    SbomComponents, "sbom.components", Int, "Components a bill of materials lists";
    ScanTool, "scan.tool", Text, "Scanner that reported";
    ScanKind, "scan.kind", Text, "What a scanner reported: vulnerability, misconfiguration, secret, license or code";
    ScanRule, "scan.rule", Text, "Which one: CVE or advisory, check or rule of the scanner";
    ScanSeverity, "scan.severity", Text, "critical, high, medium, low, info or unknown, in the scanner's judgement";
    ScanLocation, "scan.location", Text, "Where: package URL, or file and line";
    ScanFindings, "scan.findings", Int, "How many findings a report lists";
    K8sCluster, "k8s.cluster", Text, "Cluster, from the source's label";
    K8sNamespace, "k8s.namespace", Text, "Namespace";
    K8sKind, "k8s.kind", Text, "Resource kind, plural as in the API: pods, deployments";
    K8sName, "k8s.name", Text, "Object name";
    K8sVerb, "k8s.verb", Text, "API verb";
    K8sGroup, "k8s.group", Text, "API group";
    K8sUser, "k8s.user", Text, "Requesting user";
    K8sDecision, "k8s.decision", Text, "`allow` or `deny`";
    K8sPolicy, "k8s.policy", Text, "Admission policy that decided";
    K8sFailurePolicy, "k8s.object.failure_policy", Text, "`failurePolicy` of a written webhook or policy";
    K8sEnforcement, "k8s.object.enforcement", Text, "Enforcement a written policy asks for: enforce, audit, warn, dryrun";
    K8sPrivileged, "k8s.object.privileged", Bool, "A written pod template asks for a privileged container";
    ProcessPath, "process.path", Text, "Executable of the process that acted";
    ProcessArgs, "process.args", Text, "Its command line or arguments";
    ProcessParent, "process.parent", Text, "Executable of its parent";
    FilePath, "file.path", Text, "File it opened, wrote or loaded";
    NetIp, "net.ip", Text, "Address it connected to";
    NetPort, "net.port", Int, "Port it connected to";
    NetDomain, "net.domain", Text, "Host name it looked up or connected to";
    AlertRule, "alert.rule", Text, "Rule of a monitoring product that fired";
    AlertSeverity, "alert.severity", Text, "How severe that product calls it, in its own words, lower case";
    CloudProvider, "cloud.provider", Text, "aws, gcp, azure";
    CloudAccount, "cloud.account", Text, "Account, project or subscription";
    CloudRegion, "cloud.region", Text, "Region";
    CloudService, "cloud.service", Text, "Service that was called";
    CloudRole, "cloud.role", Text, "Role assumed or acted as";
    Environment, "environment", Text, "`prod` or another tier, from the event or the source's `env` label";
    ActionRef, "action_ref", Text, "Third-party action a job resolved, `owner/repo@ref`";
    ActionSha, "action_sha", Text, "Commit that reference resolved to";
    LeakType, "leak.type", Text, "Family of a secret that was found and redacted";
    LeakFingerprint, "leak.fingerprint", Text, "Keyed fingerprint of that secret";
    LeakCount, "leak.count", Int, "How often it occurs in the record";
    Message, "message", Text, "Free text of the event, redacted";
    EventsLeftOut, "events.left_out", Int, "How many of the things the record tells of are no events of their own: a record gives at most 500, what failed or is severe first, and some list fewer than they count";
}

/// For each length of a name, the letters it may end in, one bit for each. Decoders ask of every key whether it is a
/// name, and hardly any is.
const LAST: [u32; 32] = {
    let mut letters = [0; 32];
    let mut at = 0;
    while at < Field::ALL.len() {
        let name = Field::ALL[at].name().as_bytes();
        letters[name.len()] |= 1 << (name[name.len() - 1] % 32);
        at += 1;
    }
    letters
};

/// Whether a field has a name of this length that ends like this.
#[inline]
fn may_be_name(name: &[u8]) -> bool {
    let letters = LAST.get(name.len()).copied().unwrap_or_default();
    name.last().is_some_and(|last| letters >> (last % 32) & 1 == 1)
}

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// UTF-8 text. Most values are short words and names, which are held in place.
    Text(CompactString),
    /// A signed 64-bit integer.
    Int(i64),
    /// True or false.
    Bool(bool),
    /// A point in time.
    Time(Timestamp),
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Int(number) => number.fmt(formatter),
            Self::Bool(truth) => truth.fmt(formatter),
            Self::Time(time) => time.fmt(formatter),
        }
    }
}

impl Value {
    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Int(number) => (*number).into(),
            Self::Bool(truth) => (*truth).into(),
            Self::Time(time) => time.to_string().into(),
        }
    }
}

/// For how many fields of an event memory is taken at first: most events have more than a few and fewer than this.
const USUAL: usize = 16;

/// The normalised fields of one event. Few are set, so they are kept as a short sorted list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(Field, Value)>);

impl Fields {
    /// Sets a field, replacing what was there.
    pub fn set(&mut self, field: Field, value: Value) {
        // Decoders set many in the order of the table, derived events all of them.
        if self.0.last().is_none_or(|(last, _)| *last < field) {
            if self.0.capacity() == 0 {
                self.0.reserve(USUAL);
            }
            self.0.push((field, value));
            return;
        }
        match self.0.binary_search_by_key(&field, |(name, _)| *name) {
            Ok(at) => {
                if let Some(slot) = self.0.get_mut(at) {
                    slot.1 = value;
                }
            }
            Err(at) => self.0.insert(at, (field, value)),
        }
    }

    /// Sets a text field unless the text is absent or empty.
    pub fn text(&mut self, field: Field, text: Option<impl Into<CompactString>>) {
        if let Some(text) = text.map(Into::into).filter(|text| !text.is_empty()) {
            self.set(field, Value::Text(text));
        }
    }

    /// Sets an integer field if there is a value.
    pub fn int(&mut self, field: Field, number: Option<i64>) {
        if let Some(number) = number {
            self.set(field, Value::Int(number));
        }
    }

    /// Sets a boolean field if there is a value.
    pub fn truth(&mut self, field: Field, truth: Option<bool>) {
        if let Some(truth) = truth {
            self.set(field, Value::Bool(truth));
        }
    }

    /// Sets a time field if there is a value.
    pub fn time(&mut self, field: Field, time: Option<Timestamp>) {
        if let Some(time) = time {
            self.set(field, Value::Time(time));
        }
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<&Value> {
        let at = self.0.binary_search_by_key(&field, |(name, _)| *name).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// The text of a text field.
    #[must_use]
    pub fn get_text(&self, field: Field) -> Option<&str> {
        match self.get(field) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The fields that are set, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (Field, &Value)> {
        self.0.iter().map(|(field, value)| (*field, value))
    }

    /// As a JSON object under the dotted names.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        self.iter().map(|(field, value)| (field.name().to_owned(), value.to_json())).collect()
    }
}
