//! What is set up at clouds and where secrets are kept.

use super::clusters::fluent_bit_file;
use super::{POST, Step, configured, settings, shell, yaml};

pub(super) const VAULT: &[Step] = &[
    shell(
        "at Vault (or `pipeproof sources file vault.audit.tf`)",
        "vault audit enable -local -path=pipeproof file file_path=/var/log/vault/audit.log mode=0640\n",
    ),
    yaml("beside it Fluent Bit", fluent_bit_file!("/var/log/vault/audit.log")),
    yaml(
        "or pipeproof.yaml, where it runs on the same machine",
        configured!("    reads: {files: [/var/log/vault/audit.log]}\n"),
    ),
];

pub(super) const CLOUDTRAIL: &[Step] = &[
    yaml(
        "pipeproof.yaml, to have the trail's bucket read",
        configured!(
            "    collects:
      s3:
        bucket: your-bucket
        prefixes: [AWSLogs/]
        region: eu-central-1
        # public_keys: FILE  what `aws cloudtrail list-public-keys` prints: digests are checked (`pipeproof sources file aws.cloudtrail.md`)
"
        ),
    ),
    shell(
        "or Terraform, `pipeproof sources file aws.cloudtrail.tf`: a trail, its bucket, a function that sends each file",
        "terraform apply -var bucket=\"$BUCKET\" -var token_parameter=\"$TOKEN_PARAMETER\" -var url='<url>'
",
    ),
    settings(
        "or Amazon Data Firehose → Create Firehose stream → Direct PUT → HTTP endpoint",
        "  HTTP endpoint URL  <url>
  Access key         <token>
  Content encoding   GZIP
",
    ),
    shell(
        "or each file, as it is",
        "aws s3 cp \"s3://$BUCKET/$KEY\" - |
  curl -fsS --data-binary @- -H 'Authorization: Bearer <token>' -H 'Content-Encoding: gzip' '<url>'
",
    ),
];

pub(super) const GCP: &[Step] = &[
    yaml(
        "pipeproof.yaml, then a restart: whose pushes are believed",
        configured!(
            "    identity:
      audience: \"<url>\"
      email: pipeproof-push@your-project.iam.gserviceaccount.com
"
        ),
    ),
    shell(
        "at Google Cloud (or `pipeproof sources file gcp.audit.tf`, which also switches on what is not logged by default)",
        "PROJECT=$(gcloud config get-value project)
gcloud pubsub topics create pipeproof-audit
gcloud logging sinks create pipeproof \"pubsub.googleapis.com/projects/$PROJECT/topics/pipeproof-audit\" \\
  --log-filter='logName:\"cloudaudit.googleapis.com\"'
gcloud pubsub topics add-iam-policy-binding pipeproof-audit --role=roles/pubsub.publisher \\
  --member=\"$(gcloud logging sinks describe pipeproof --format='value(writerIdentity)')\"
gcloud iam service-accounts create pipeproof-push
gcloud pubsub subscriptions create pipeproof --topic=pipeproof-audit --ack-deadline=60 --push-endpoint='<url>' \\
  --push-auth-service-account=\"pipeproof-push@$PROJECT.iam.gserviceaccount.com\" --push-auth-token-audience='<url>'
",
    ),
    shell(
        "or by hand",
        "gcloud logging read 'logName:\"cloudaudit.googleapis.com\"' --format=json |
  curl -fsS --data-binary @- -H 'Authorization: Bearer <token>' '<url>'
",
    ),
];

/// Event hubs, which speak Kafka.
macro_rules! event_hub {
    ($topic:literal) => {
        &[
            yaml(
                "pipeproof.yaml, to have the event hub read that diagnostic settings write to (`pipeproof sources file azure.tf`)",
                concat!(
                    configured!("    reads:\n      kafka:\n        brokers: [\"your-namespace.servicebus.windows.net:9093\"]\n"),
                    "        topics: [",
                    $topic,
                    "]\n        security: {sasl: {mechanism: PLAIN, username: $ConnectionString, password: {env: EVENTHUB_CONNECTION}}}\n"
                ),
            ),
            shell("or what a forwarder has, as it is", POST),
        ]
    };
}

pub(super) const ENTRA: &[Step] = event_hub!("entra");
pub(super) const AZURE_ACTIVITY: &[Step] = event_hub!("activity");
pub(super) const KEY_VAULT: &[Step] = event_hub!("keyvault");
