//! What to paste at the other end: a ready configuration of the sender for a source that was just connected.

use pipeproof_engine::source::SourceType;

/// The sender's configuration as text: the one that fits the type, and what any shipper has to be told.
pub(crate) fn configuration(source_type: SourceType, url: &str, token: &str, secret: Option<&str>) -> String {
    let own = own(source_type, url, token, secret);
    // A provider's webhook is set up at the provider.
    if source_type.name().ends_with(".webhook") { own } else { own + &shippers(url, token) }
}

fn shippers(url: &str, token: &str) -> String {
    let base = url.split("/v1/events/").next().unwrap_or(url);
    format!(
        "\n# or through a shipper, with the same token\n#   OpenTelemetry  OTEL_EXPORTER_OTLP_LOGS_ENDPOINT={base}/v1/logs  OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer {token}'\n#   Splunk HEC     {base}/services/collector  token {token}\n#   Elastic        hosts [{base}]  username pipeproof  password {token}\n"
    )
}

fn own(source_type: SourceType, url: &str, token: &str, secret: Option<&str>) -> String {
    match source_type {
        SourceType::GithubWebhook => format!(
            "GitHub → Settings → Webhooks → Add webhook\n  Payload URL   {url}\n  Content type  application/json\n  Secret        {}\n  Events        send me everything\n",
            secret.unwrap_or_default()
        ),
        SourceType::GithubJoblog => format!(
            "# after each job, with its repository, run and job\ngh api repos/OWNER/REPO/actions/jobs/JOB/logs |\n  curl -fsS --data-binary @- -H 'Authorization: Bearer {token}' -H 'Content-Type: text/plain' \\\n    '{url}?repo=OWNER/REPO&run_id=RUN&job_id=JOB&attempt=1'\n"
        ),
        SourceType::KubernetesAudit => format!(
            "# audit webhook: kube-apiserver --audit-webhook-config-file=this-file --audit-policy-file=...\napiVersion: v1\nkind: Config\nclusters:\n  - name: pipeproof\n    cluster: {{server: '{url}'}}\nusers:\n  - name: pipeproof\n    user: {{token: '{token}'}}\ncontexts:\n  - name: pipeproof\n    context: {{cluster: pipeproof, user: pipeproof}}\ncurrent-context: pipeproof\n"
        ),
        SourceType::VaultAudit => format!(
            "# vault audit enable file file_path=/var/log/vault/audit.log, then a shipper that follows the file:\ncurl -fsS --data-binary @audit.log -H 'Authorization: Bearer {token}' '{url}'\n"
        ),
        SourceType::AwsCloudtrail => format!(
            "{}# or each object of the trail's bucket, as it is (gzip)\naws s3 cp s3://BUCKET/KEY.json.gz - |\n  curl -fsS --data-binary @- -H 'Authorization: Bearer {token}' -H 'Content-Encoding: gzip' '{url}'\n",
            collected(
                url,
                "s3",
                "bucket: BUCKET\n        prefixes: [AWSLogs/ACCOUNT/]\n        region: REGION\n        public_keys: cloudtrail-keys.json   # aws cloudtrail list-public-keys; permissions: deploy/sources/aws.cloudtrail.md",
            )
        ),
        SourceType::SigstoreBundle => format!(
            "# after signing\ncosign sign-blob --bundle bundle.json ARTIFACT && curl -fsS --data-binary @bundle.json -H 'Authorization: Bearer {token}' '{url}'\n"
        ),
        SourceType::GcpAudit => format!(
            "# a log sink to Pub/Sub, and a push subscription on its topic\ngcloud logging sinks create pipeproof pubsub.googleapis.com/projects/PROJECT/topics/pipeproof \\\n  --log-filter='logName:\"cloudaudit.googleapis.com\"'\ngcloud pubsub subscriptions create pipeproof --topic pipeproof --push-endpoint '{url}' \\\n  --push-auth-service-account ACCOUNT\n# or by hand:\ngcloud logging read 'logName:\"cloudaudit.googleapis.com\"' --format json |\n  curl -fsS --data-binary @- -H 'Authorization: Bearer {token}' '{url}'\n"
        ),
        SourceType::AzureSignin | SourceType::AzureActivity | SourceType::AzureKeyvault => format!(
            "# a diagnostic setting streams to an event hub; a forwarder posts its messages as they are\n#   endpoint       {url}\n#   Authorization  Bearer {token}\n# or by hand:\naz monitor activity-log list --offset 1h |\n  curl -fsS --data-binary @- -H 'Authorization: Bearer {token}' '{url}'\n"
        ),
        SourceType::KubernetesEvent | SourceType::KyvernoReport | SourceType::GatekeeperAudit => format!(
            "# what a watch prints, sent as it comes (a shipper does this better)\nkubectl get RESOURCE -A --watch -o json |\n  curl -fsS --data-binary @- -H 'Authorization: Bearer {token}' '{url}'\n"
        ),
        SourceType::OpaDecision => format!(
            "# OPA's configuration\nservices:\n  pipeproof:\n    url: '{}'\n    credentials: {{bearer: {{token: '{token}'}}}}\ndecision_logs: {{service: pipeproof, resource: /logs}}\n",
            base(url)
        ),
        SourceType::Argocd => format!(
            "# argocd-notifications-cm; template and triggers: deploy/sources/argocd.md\nservice.webhook.pipeproof: |\n  url: '{url}'\n  headers: [{{name: Authorization, value: 'Bearer {token}'}}]\n"
        ),
        SourceType::Flux => format!(
            "# a secret `pipeproof` with the key `headers`: \"Authorization: Bearer {token}\"\napiVersion: notification.toolkit.fluxcd.io/v1beta3\nkind: Provider\nmetadata: {{name: pipeproof, namespace: flux-system}}\nspec: {{type: generic, address: '{url}', secretRef: {{name: pipeproof}}}}\n"
        ),
        SourceType::Falco => format!(
            "# falcosidekick\nwebhook:\n  address: '{url}'\n  customHeaders: {{Authorization: 'Bearer {token}'}}\n"
        ),
        SourceType::Otlp => format!(
            "# OpenTelemetry Collector\nexporters:\n  otlphttp/pipeproof:\n    logs_endpoint: '{}/v1/logs'\n    headers: {{Authorization: 'Bearer {token}'}}\n",
            base(url)
        ),
        SourceType::GithubAudit => format!(
            "{}# or each object of the stream's bucket, as it is (gzip)\naws s3 cp s3://BUCKET/KEY.json.gz - |\n  curl -fsS --data-binary @- -H 'Authorization: Bearer {token}' -H 'Content-Encoding: gzip' '{url}'\n",
            collected(
                url,
                "s3",
                "bucket: BUCKET\n        region: REGION   # permissions: deploy/sources/aws.cloudtrail.md"
            )
        ),
        SourceType::GitlabWebhook => format!(
            "GitLab → project, group or Admin area → Webhooks → Add new webhook\n  URL             {url}\n  Custom header   Authorization: Bearer {token}\n  Trigger         all events\n"
        ),
        SourceType::GitlabAudit => format!(
            "GitLab → Secure → Audit events → Streams → Add streaming destination → HTTP endpoint\n  Destination URL  {url}\n  Custom header    Authorization: Bearer {token}\n"
        ),
        SourceType::GitlabJoblog => format!(
            "# after each job, with its project, pipeline and job\nglab api projects/PROJECT/jobs/JOB/trace |\n  curl -fsS --data-binary @- -H 'Authorization: Bearer {token}' -H 'Content-Type: text/plain' \\\n    '{url}?repo=GROUP/PROJECT&run_id=PIPELINE&job_id=JOB'\n"
        ),
        SourceType::JenkinsJoblog => collected(
            url,
            "jenkins",
            "api: https://jenkins.example\n        user: pipeproof\n        token: {env: JENKINS_API_TOKEN}",
        ),
        SourceType::BuildkiteJoblog => collected(
            url,
            "buildkite",
            "organization: ACME\n        token: {env: BUILDKITE_TOKEN}   # read_builds, read_build_logs, read_pipelines",
        ),
        SourceType::ProviderLedger => collected(
            url,
            "github",
            "organization: ACME\n        token: {env: GITHUB_TOKEN}   # read: actions, deployments, pull requests\n        what: [runs, deployments, changes]",
        ),
        SourceType::CircleciAudit => format!(
            "# each object of the audit log's bucket\naws s3 cp s3://BUCKET/KEY - |\n  curl -fsS --data-binary @- -H 'Authorization: Bearer {token}' '{url}'\n"
        ),
        SourceType::IntotoStatement
        | SourceType::SbomCyclonedx
        | SourceType::SbomSpdx
        | SourceType::RekorEntry
        | SourceType::Trivy
        | SourceType::Grype
        | SourceType::Sarif
        | SourceType::Gitleaks => format!(
            "# in the job that makes it\ncurl -fsS --data-binary @report.json -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' '{url}'\n"
        ),
        SourceType::KubernetesAdmission
        | SourceType::Tetragon
        | SourceType::Tracee
        | SourceType::HardenRunner
        | SourceType::Okta
        | SourceType::Cloudevents
        | SourceType::Jenkins
        | SourceType::CircleciWebhook
        | SourceType::Buildkite
        | SourceType::Cdevents
        | SourceType::Json
        | SourceType::Pipeproof => format!(
            "curl -fsS --data-binary @events.ndjson -H 'Authorization: Bearer {token}' -H 'Content-Type: application/x-ndjson' '{url}'\n"
        ),
    }
}

/// What is fetched: the part of the configuration that does.
fn collected(url: &str, provider: &str, settings: &str) -> String {
    let name = url.rsplit('/').next().unwrap_or_default();
    format!(
        "# pipeproof.yaml: nothing has to be set up at the other end but a token\nsources:\n  - name: {name}\n    type: TYPE\n    collects:\n      {provider}:\n        {settings}\n"
    )
}

/// The server's address, for senders that put paths of their own behind it.
fn base(url: &str) -> &str {
    url.split_once("/v1/events/").map_or(url, |(base, _)| base)
}
