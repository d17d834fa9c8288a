//! What a job or any program sends by itself: attestations, bills of materials, scans, JSON.

use super::{POST, Step, shell};

/// Runs a command whose output is the document.
macro_rules! piped {
    ($command:literal) => {
        concat!(
            $command,
            " |\n  curl -fsS --retry 5 --data-binary @- -H 'Authorization: Bearer <token>' -H 'Content-Type: application/json' '<url>'\n"
        )
    };
}

/// Signs with the secret, in the scheme of `X-Signature`.
macro_rules! signed {
    ($media:literal) => {
        concat!(
            "curl -fsS --data-binary @event.json -H 'Content-Type: ",
            $media,
            "' \\\n  -H \"X-Signature: sha256=$(openssl dgst -sha256 -hmac '<secret>' < event.json | sed 's/^.* //')\" '<url>'\n"
        )
    };
}

const IN_THE_JOB: &str = "in the job that makes it";
const SIGNED: &str = "or signed, by senders that can (Standard Webhooks too, with the same secret)";

pub(super) const BUNDLE: &[Step] = &[shell(
    "where something is signed",
    "cosign sign-blob --yes --bundle bundle.json \"$FILE\"
curl -fsS --retry 5 --data-binary @bundle.json -H 'Authorization: Bearer <token>' -H 'Content-Type: application/json' '<url>'
",
)];
pub(super) const REKOR: &[Step] = &[shell(
    "an entry, as the log's API answers",
    piped!("curl -fsS \"https://rekor.sigstore.dev/api/v1/log/entries?logIndex=$INDEX\""),
)];
pub(super) const STATEMENT: &[Step] =
    &[shell("where an artifact is used", piped!("cosign download attestation \"$IMAGE\""))];
pub(super) const CYCLONEDX: &[Step] = &[shell(IN_THE_JOB, piped!("syft \"$IMAGE\" -o cyclonedx-json"))];
pub(super) const SPDX: &[Step] = &[shell(IN_THE_JOB, piped!("syft \"$IMAGE\" -o spdx-json"))];
pub(super) const TRIVY: &[Step] = &[shell(IN_THE_JOB, piped!("trivy image --format json \"$IMAGE\""))];
pub(super) const GRYPE: &[Step] = &[shell(IN_THE_JOB, piped!("grype \"$IMAGE\" -o json"))];
pub(super) const SARIF: &[Step] = &[shell(IN_THE_JOB, piped!("semgrep scan --sarif"))];
pub(super) const GITLEAKS: &[Step] =
    &[shell(IN_THE_JOB, piped!("gitleaks git --exit-code 0 --report-format json --report-path -"))];
pub(super) const JSON: &[Step] =
    &[shell("an object, an array, or a document a line", POST), shell(SIGNED, signed!("application/json"))];
pub(super) const CLOUDEVENTS: &[Step] = &[
    shell(
        "structured; binary (ce- headers) and batches as well",
        "curl -fsS --data-binary @event.json -H 'Authorization: Bearer <token>' -H 'Content-Type: application/cloudevents+json' '<url>'
",
    ),
    shell(SIGNED, signed!("application/cloudevents+json")),
];
