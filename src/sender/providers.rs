//! What is set up at providers of source code, CI and identity.

use super::{Step, configured, settings, shell, yaml};

/// What is fetched instead, or besides.
const FETCHED: &str = "pipeproof.yaml, to have it fetched";
const FETCHED_INSTEAD: &str = "or pipeproof.yaml, to have it fetched";

pub(super) const GITHUB_WEBHOOK: &[Step] = &[
    settings(
        "GitHub → organisation → Settings → Webhooks → Add webhook",
        "  Payload URL       <url>
  Content type      application/json
  Secret            <secret>
  SSL verification  enabled
  Events            send me everything
",
    ),
    settings(
        "or a GitHub App: `pipeproof sources file github-app.json` with",
        "  hook_attributes.url  <url>
  Webhook secret       <secret>
",
    ),
    yaml(
        "pipeproof.yaml, to have fetched what did not arrive: GitHub delivers nothing twice by itself",
        configured!(
            "    collects:
      github:
        organization: your-organization
        token: {env: GITHUB_TOKEN} # webhooks of the organisation: read
"
        ),
    ),
];

pub(super) const GITHUB_JOBLOG: &[Step] = &[
    yaml(
        FETCHED,
        configured!(
            "    collects:
      github:
        organization: your-organization
        token: {env: GITHUB_TOKEN} # actions: read
        # seen_by: the source of type github.webhook that tells which jobs have ended
"
        ),
    ),
    shell(
        "or after each job (`pipeproof sources file github.joblog.md`)",
        "gh api \"repos/$REPO/actions/jobs/$JOB/logs\" |
  curl -fsS --data-binary @- -H 'Authorization: Bearer <token>' -H 'Content-Type: text/plain' \\
    \"<url>?repo=$REPO&run_id=$RUN&job_id=$JOB&attempt=$ATTEMPT\"
",
    ),
];

pub(super) const GITHUB_AUDIT: &[Step] = &[
    settings(
        "GitHub → enterprise → Settings → Audit log → Log streaming → Splunk",
        "  Domain            <host>
  Port              <port>
  Token             <token>
  SSL verification  enabled
",
    ),
    yaml(
        "or pipeproof.yaml, where the stream goes to Amazon S3",
        configured!(
            "    collects:
      s3:
        bucket: your-bucket
        region: eu-central-1 # permissions: `pipeproof sources file aws.cloudtrail.md`
"
        ),
    ),
    yaml(
        "or pipeproof.yaml, for an organisation of Enterprise Cloud without a stream",
        configured!(
            "    collects:
      github:
        organization: your-organization
        token: {env: GITHUB_TOKEN} # organisation administration: read
"
        ),
    ),
];

pub(super) const GITLAB_WEBHOOK: &[Step] = &[settings(
    "GitLab → project or group → Settings → Webhooks, or Admin area → System hooks",
    "  URL               <url>
  Signing token     <secret>
  Secret token      <secret> (only where there is no field for a signing token)
  Trigger           all events
  SSL verification  enabled
",
)];

pub(super) const GITLAB_AUDIT: &[Step] = &[
    Step {
        at: "GitLab → GraphQL explorer, as an owner of the group: a destination with this verification token",
        form: super::Form::Code("graphql"),
        text: "mutation {
  externalAuditEventDestinationCreate(input: {
    destinationUrl: \"<url>\", groupPath: \"your-group\", verificationToken: \"<secret>\"
  }) { errors externalAuditEventDestination { id } }
}
",
    },
    settings(
        "or GitLab → Secure → Audit events → Streams → Add streaming destination → HTTP endpoint, also of an instance",
        "  Destination URL      <url>
  Custom HTTP headers  Authorization: Bearer <token>
",
    ),
    yaml(
        FETCHED_INSTEAD,
        configured!(
            "    collects:
      gitlab:
        group: your-group # or instance: true
        token: {env: GITLAB_TOKEN} # read_api, role Owner
"
        ),
    ),
];

pub(super) const GITLAB_JOBLOG: &[Step] = &[
    yaml(
        FETCHED,
        configured!(
            "    collects:
      gitlab:
        group: your-group
        token: {env: GITLAB_TOKEN} # read_api, role Developer
        # seen_by: the source of type gitlab.webhook that tells which jobs have ended
"
        ),
    ),
    shell(
        "or after each job (`pipeproof sources file gitlab.md`)",
        "glab api \"projects/$PROJECT/jobs/$JOB/trace\" |
  curl -fsS --data-binary @- -H 'Authorization: Bearer <token>' -H 'Content-Type: text/plain' \\
    \"<url>?repo=$REPO&run_id=$RUN&job_id=$JOB\"
",
    ),
];

pub(super) const JENKINS: &[Step] = &[
    settings(
        "Jenkins → Manage Jenkins → System → Audit Trail → Add logger → Elastic Search server",
        "  URL          <url>
  Credentials  Username with password: pipeproof, <token>
",
    ),
    yaml(
        "pipeproof.yaml, for the CloudEvents plugin (sink URL <url>): it sends no password, its JVM shows a client certificate of tls.client_ca (-Djavax.net.ssl.keyStore)",
        configured!("    identity: {client_certificate: {subject: \"CN=jenkins\"}}\n"),
    ),
];

pub(super) const JENKINS_JOBLOG: &[Step] = &[yaml(
    FETCHED,
    configured!(
        "    collects:
      jenkins:
        api: https://jenkins.your-domain.example
        user: pipeproof
        token: {env: JENKINS_TOKEN} # Overall/Read, Job/Read
"
    ),
)];

pub(super) const CIRCLECI_WEBHOOK: &[Step] = &[settings(
    "CircleCI → Project settings → Webhooks → Add webhook",
    "  Receiver URL              <url>
  Secret token              <secret>
  Certificate verification  enabled
  Events                    workflow completed, job completed
",
)];

pub(super) const CIRCLECI_AUDIT: &[Step] = &[
    yaml(
        "pipeproof.yaml, where the audit log is streamed to Amazon S3",
        configured!(
            "    collects:
      s3:
        bucket: your-bucket
        region: us-east-1 # permissions: `pipeproof sources file aws.cloudtrail.md`
"
        ),
    ),
    shell(
        "or each object, or an export",
        "aws s3 cp \"s3://$BUCKET/$KEY\" - | curl -fsS --data-binary @- -H 'Authorization: Bearer <token>' '<url>'
",
    ),
];

pub(super) const BUILDKITE: &[Step] = &[settings(
    "Buildkite → Settings → Notification services → Add → Webhook",
    "  Webhook URL  <url>
  Token        <secret>
  Send it as   X-Buildkite-Signature (or X-Buildkite-Token)
  Events       all
",
)];

pub(super) const BUILDKITE_JOBLOG: &[Step] = &[yaml(
    FETCHED,
    configured!(
        "    collects:
      buildkite:
        organization: your-organization
        token: {env: BUILDKITE_TOKEN} # read_builds, read_build_logs, read_pipelines
"
    ),
)];

pub(super) const LEDGER: &[Step] = &[yaml(
    "pipeproof.yaml, with the providers that you have",
    configured!(
        "    collects:
      github: {organization: your-organization, token: {env: GITHUB_TOKEN}} # read: actions, deployments, pull requests
      gitlab: {group: your-group, token: {env: GITLAB_TOKEN}}
      jenkins: {api: \"https://jenkins.your-domain.example\", user: pipeproof, token: {env: JENKINS_TOKEN}}
      buildkite: {organization: your-organization, token: {env: BUILDKITE_TOKEN}}
"
    ),
)];

pub(super) const OKTA: &[Step] = &[
    settings(
        "Okta → Workflow → Event hooks → Create event hook",
        "  URL                    <url>
  Authentication field   Authorization
  Authentication secret  Bearer <token>
  Events                 all that can be chosen
",
    ),
    shell(
        "or what a hook does not offer, from the System Log",
        "curl -fsS -H \"Authorization: SSWS $OKTA\" \"https://$ORG.okta.com/api/v1/logs?since=$SINCE&limit=1000\" |
  curl -fsS --data-binary @- -H 'Authorization: Bearer <token>' '<url>'
",
    ),
];

pub(super) const HARDEN_RUNNER: &[Step] = &[shell(
    "The agent reports to StepSecurity alone. What you relayed of it (`pipeproof sources file runtime.md`), a report a line with repo, run_id and job_id",
    "curl -fsS --data-binary @reports.ndjson -H 'Authorization: Bearer <token>' '<url>'
",
)];
