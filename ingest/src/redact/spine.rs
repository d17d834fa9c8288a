//! Which fields of structured sources are never redacted: the identifiers that join run, token, secret, image and
//! deployment. They look like secrets to no detector but a few, and are none.

use engine::source::SourceType;
use pipeproof_engine as engine;

use super::detectors::Family;

/// The spine of a source type.
#[derive(Clone, Copy, Debug)]
pub struct Spine {
    /// Paths from the record's root, keys joined with dots, arrays not counted; `.**` at the end stands for everything
    /// below.
    pub paths: &'static [&'static str],
    /// Families that are identifiers in these places; empty stands for all.
    families: &'static [Family],
}

impl Spine {
    /// The declared spine of a source type. Free text has none.
    #[must_use]
    pub const fn of(kind: SourceType) -> Self {
        match kind {
            SourceType::GithubWebhook => Self {
                paths: &[
                    "after",
                    "before",
                    "head_commit.id",
                    "commits.id",
                    "deployment.sha",
                    "workflow_job.head_sha",
                    "workflow_run.head_sha",
                    "check_run.head_sha",
                    "check_suite.head_sha",
                    "pull_request.head.sha",
                    "pull_request.base.sha",
                    "pull_request.merge_commit_sha",
                    "review.commit_id",
                ],
                families: &[],
            },
            SourceType::VaultAudit => Self {
                paths: &[
                    "auth.accessor",
                    "auth.entity_id",
                    "auth.metadata.jti",
                    "request.id",
                    "request.client_id",
                    "request.client_token_accessor",
                    "response.auth.accessor",
                    "response.auth.entity_id",
                    "response.secret.lease_id",
                ],
                // With `log_raw` real tokens stand beside these: only what Vault itself hashed or numbered is spine.
                families: &[Family::Jwt, Family::AuthorizationHeader, Family::AwsAccessKey],
            },
            SourceType::KubernetesAudit => Self {
                paths: &[
                    "auditID",
                    "user.uid",
                    "user.username",
                    "user.extra.**",
                    "impersonatedUser.**",
                    "objectRef.**",
                ],
                families: &[Family::AwsAccessKey],
            },
            SourceType::AwsCloudtrail => Self {
                paths: &[
                    "eventID",
                    "requestID",
                    "sharedEventID",
                    "userIdentity.accessKeyId",
                    "userIdentity.arn",
                    "userIdentity.principalId",
                    "userIdentity.userName",
                    "userIdentity.sessionContext.**",
                    "requestParameters.accessKeyId",
                    "responseElements.accessKey.accessKeyId",
                    "responseElements.credentials.accessKeyId",
                    "responseElements.assumedRoleUser.**",
                    "responseElements.subjectFromWebIdentityToken",
                    "resources.ARN",
                ],
                families: &[Family::AwsAccessKey],
            },
            SourceType::GcpAudit => Self {
                paths: &[
                    "insertId",
                    "operation.id",
                    "protoPayload.authenticationInfo.principalEmail",
                    "protoPayload.authenticationInfo.principalSubject",
                    "protoPayload.authenticationInfo.serviceAccountKeyName",
                    "protoPayload.authenticationInfo.serviceAccountDelegationInfo.principalSubject",
                    "protoPayload.metadata.mapped_principal",
                    "protoPayload.resourceName",
                ],
                families: &[Family::AwsAccessKey],
            },
            SourceType::AzureSignin | SourceType::AzureActivity | SourceType::AzureKeyvault => Self {
                paths: &[
                    "correlationId",
                    "resourceId",
                    "properties.id",
                    "properties.uniqueTokenIdentifier",
                    "properties.servicePrincipalId",
                    "properties.federatedCredentialId",
                    "identity.claims.uti",
                    "identity.claim.uti",
                ],
                families: &[Family::AwsAccessKey],
            },
            SourceType::KubernetesAdmission => {
                Self { paths: &["request.uid", "request.userInfo.username"], families: &[Family::AwsAccessKey] }
            }
            SourceType::OpaDecision => Self { paths: &["decision_id"], families: &[Family::AwsAccessKey] },
            SourceType::Okta => Self { paths: &["uuid", "transaction.id"], families: &[Family::AwsAccessKey] },
            SourceType::SigstoreBundle => Self {
                // Certificates, signatures, log entries and the signed statement: a changed byte breaks the signature.
                paths: &["mediaType", "verificationMaterial.**", "messageSignature.**", "dsseEnvelope.**"],
                families: &[],
            },
            SourceType::GitlabWebhook => Self {
                paths: &[
                    "after",
                    "before",
                    "checkout_sha",
                    "sha",
                    "commit.id",
                    "commits.id",
                    "object_attributes.sha",
                    "object_attributes.last_commit.id",
                    "object_attributes.merge_commit_sha",
                ],
                families: &[],
            },
            // What is in a transparency log is public, and what was signed must stay as it was signed.
            SourceType::RekorEntry => Self { paths: &["**"], families: &[] },
            SourceType::IntotoStatement => Self {
                paths: &[
                    "payload",
                    "signatures.**",
                    "subject.**",
                    "verificationMaterial.**",
                    "dsseEnvelope.**",
                    "attestations.**",
                ],
                families: &[],
            },
            SourceType::Json => {
                Self { paths: &["token.id", "ci.sha", "artifact.digest"], families: &[Family::AwsAccessKey] }
            }
            _ => Self { paths: &[], families: &[] },
        }
    }

    /// Whether something of `family` at `path` is an identifier.
    #[must_use]
    pub fn keeps(&self, path: &str, family: Family) -> bool {
        (self.families.is_empty() || self.families.contains(&family))
            && self.paths.iter().any(|declared| match declared.strip_suffix("**") {
                Some(prefix) => path.starts_with(prefix),
                None => path == *declared,
            })
    }
}
