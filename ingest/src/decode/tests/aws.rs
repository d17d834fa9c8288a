//! CloudTrail: the identity that CI assumes, the guards, the stores.

use engine::fields::Field;
use engine::source::SourceType;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde_json::json;

use super::{assert_fields, decoded};

fn cloudtrail(service: &str, event: &str, more: serde_json::Value) -> engine::event::Event {
    all(service, event, more).remove(0)
}

fn all(service: &str, event: &str, more: serde_json::Value) -> Vec<engine::event::Event> {
    let mut body = json!({
        "eventVersion": "1.09", "eventTime": "2025-03-15T10:00:00Z", "eventSource": format!("{service}.amazonaws.com"),
        "eventName": event, "awsRegion": "eu-west-1", "sourceIPAddress": "203.0.113.9", "recipientAccountId": "111122223333",
        "eventID": "e1",
        "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/ann", "accessKeyId": "AKIAIOSFODNN7EXAMPLE"},
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    decoded(SourceType::AwsCloudtrail, &[], body.to_string())
}

#[test]
fn one_call_that_reads_many_parameters_is_as_many_reads() {
    let events = all(
        "ssm",
        "GetParameters",
        json!({"requestParameters": {"names": ["/prod/a", "/prod/b", "/prod/c"], "withDecryption": true}}),
    );
    assert_eq!(events.len(), 3);
    for (event, path) in events.iter().zip(["/prod/a", "/prod/b", "/prod/c"]) {
        assert_fields(
            event,
            &[
                ("action", "secret.read"),
                ("category", "secret"),
                ("outcome", "success"),
                ("secret.path", path),
                ("secret.store", "aws.ssm"),
                ("actor.id", "arn:aws:iam::111122223333:user/ann"),
                ("src.ip", "203.0.113.9"),
                ("token.id", "AKIAIOSFODNN7EXAMPLE"),
                ("token.kind", "static"),
            ],
        );
        assert_eq!(event.time, events[0].time);
    }
    let gone = all("ssm", "DeleteParameters", json!({"requestParameters": {"names": ["/a", "/b"]}}));
    assert_fields(&gone[1], &[("action", "secret.deleted"), ("secret.path", "/b")]);
    // CloudTrail has a record of its own for each secret of a batch.
    let batch = json!({"requestParameters": {"secretIdList": ["a", "b"]}});
    let batch = all("secretsmanager", "BatchGetSecretValue", batch);
    assert_eq!(batch.len(), 1);
    assert_fields(&batch[0], &[("action", "secret.read"), ("secret.path", "a")]);
    assert_eq!(all("ssm", "GetParameters", json!({"requestParameters": null})).len(), 1);
}

#[test]
fn a_ci_token_is_exchanged_and_its_key_is_followed() {
    let issued = |sub: &str| {
        let provider = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com";
        cloudtrail(
            "sts",
            "AssumeRoleWithWebIdentity",
            json!({
                "userIdentity": {"type": "WebIdentityUser", "principalId": format!("{provider}:sts.amazonaws.com:{sub}"),
                    "userName": sub, "identityProvider": provider},
                "requestParameters": {"roleArn": "arn:aws:iam::111122223333:role/deploy", "durationSeconds": 900},
                "responseElements": {"subjectFromWebIdentityToken": sub, "provider": provider, "audience": "sts.amazonaws.com",
                    "credentials": {"accessKeyId": "ASIAEXAMPLE000000001"}},
            }),
        )
    };
    for sub in ["repo:acme/app:ref:refs/heads/main", "repo:acme@1/app@2:ref:refs/heads/main"] {
        let event = issued(sub);
        assert_fields(
            &event,
            &[
                ("action", "token.issued"),
                ("category", "token"),
                ("outcome", "success"),
                ("actor.type", "ci"),
                ("actor.id", sub),
                ("src.ip", "203.0.113.9"),
                ("ci.provider", "github"),
                ("ci.repo", "acme/app"),
                ("ci.ref", "refs/heads/main"),
                ("token.id", "ASIAEXAMPLE000000001"),
                ("token.kind", "sts"),
                ("token.issuer", "token.actions.githubusercontent.com"),
                ("token.sub", sub),
                ("token.aud", "sts.amazonaws.com"),
                ("token.repo", "acme/app"),
                ("token.ref", "refs/heads/main"),
                ("token.expires", "2025-03-15T10:15:00Z"),
                ("cloud.role", "arn:aws:iam::111122223333:role/deploy"),
            ],
        );
    }
    assert_fields(&issued("repo:acme/app:environment:prod"), &[("ci.environment", "prod"), ("token.ref", "-")]);

    let session = |provider: &str| {
        json!({"type": "AssumedRole", "principalId": "AROA:run-1", "accessKeyId": "ASIAEXAMPLE000000001",
        "arn": "arn:aws:sts::111122223333:assumed-role/deploy/run-1",
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::111122223333:role/deploy", "userName": "deploy"},
            "webIdFederationData": {"federatedProvider": provider, "attributes": {}}}})
    };
    let github = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com";
    let used = cloudtrail(
        "secretsmanager",
        "GetSecretValue",
        json!({
        "userIdentity": session(github), "requestParameters": {"secretId": "prod/db", "versionId": "v7"}}),
    );
    assert_fields(
        &used,
        &[
            ("action", "secret.read"),
            ("category", "secret"),
            ("actor.type", "ci"),
            ("token.id", "ASIAEXAMPLE000000001"),
            ("token.kind", "sts"),
            ("secret.path", "prod/db"),
            ("secret.store", "aws.secretsmanager"),
            ("secret.version", "v7"),
            ("cloud.role", "arn:aws:iam::111122223333:role/deploy"),
        ],
    );
    assert_eq!((used.time, used.time_known), (Timestamp::parse("2025-03-15T10:00:00Z").unwrap(), true));
    let called =
        cloudtrail("ec2", "RunInstances", json!({"userIdentity": session(github), "errorCode": "AccessDenied"}));
    assert_fields(
        &called,
        &[("action", "cloud.api"), ("actor.type", "ci"), ("outcome", "failure"), ("reason", "AccessDenied")],
    );
    let pod = cloudtrail(
        "s3",
        "ListBuckets",
        json!({
        "userIdentity": session("arn:aws:iam::1:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/ABC"),
        "sourceIPAddress": "athena.amazonaws.com"}),
    );
    assert_fields(&pod, &[("actor.type", "workload"), ("src.ip", "-")]);
}

#[test]
fn cloudtrail_guards_credentials_and_stores() {
    for (service, event, request, expected) in [
        (
            "cloudtrail",
            "StopLogging",
            json!({"name": "t"}),
            [("action", "audit_log.disabled"), ("category", "audit"), ("config.weakens", "true"), ("config.id", "t")],
        ),
        (
            "cloudtrail",
            "StartLogging",
            json!({"name": "t"}),
            [
                ("action", "audit_log.enabled"),
                ("category", "audit"),
                ("config.weakens", "false"),
                ("config.object", "audit_log"),
            ],
        ),
        (
            "cloudtrail",
            "PutEventSelectors",
            json!({"trailName": "t", "eventSelectors": [{"includeManagementEvents": false, "readWriteType": "All"}]}),
            [
                ("action", "audit_log.changed"),
                ("config.attribute", "PutEventSelectors"),
                ("config.weakens", "true"),
                ("config.id", "t"),
            ],
        ),
        (
            "cloudtrail",
            "PutEventSelectors",
            json!({"trailName": "t", "eventSelectors": [{"includeManagementEvents": true, "readWriteType": "All", "excludeManagementEventSources": []}]}),
            [
                ("action", "audit_log.changed"),
                ("config.object", "audit_log"),
                ("config.weakens", "false"),
                ("config.id", "t"),
            ],
        ),
        (
            "logs",
            "PutRetentionPolicy",
            json!({"logGroupName": "g", "retentionInDays": 1}),
            [("action", "audit_log.changed"), ("config.value", "1"), ("config.weakens", "true"), ("config.id", "g")],
        ),
        (
            "kms",
            "ScheduleKeyDeletion",
            json!({"keyId": "k"}),
            [
                ("action", "secret_store.weakened"),
                ("config.object", "secret_store"),
                ("config.weakens", "true"),
                ("secret.store", "aws.kms"),
            ],
        ),
        (
            "kms",
            "PutKeyPolicy",
            json!({"keyId": "k", "policy": "{\"Statement\":[{\"Principal\": {\"AWS\": \"*\"}}]}"}),
            [
                ("action", "secret_store.weakened"),
                ("config.object", "secret_store"),
                ("config.weakens", "true"),
                ("config.id", "k"),
            ],
        ),
        (
            "kms",
            "PutKeyPolicy",
            json!({"keyId": "k", "policy": "{\"Statement\":[]}"}),
            [
                ("action", "secret_store.changed"),
                ("config.object", "secret_store"),
                ("config.weakens", "false"),
                ("config.id", "k"),
            ],
        ),
        (
            "ssm",
            "GetParameters",
            json!({"names": ["/a", "/b"]}),
            [("action", "secret.read"), ("secret.path", "/a"), ("secret.store", "aws.ssm"), ("category", "secret")],
        ),
        (
            "kms",
            "Decrypt",
            json!({"encryptionContext": {"SecretARN": "arn:x"}}),
            [("action", "secret.read"), ("secret.path", "arn:x"), ("secret.store", "aws.kms"), ("category", "secret")],
        ),
    ] {
        assert_fields(&cloudtrail(service, event, json!({"requestParameters": request})), &expected);
    }
    let created = cloudtrail(
        "iam",
        "CreateAccessKey",
        json!({"requestParameters": {"userName": "bot"},
        "responseElements": {"accessKey": {"accessKeyId": "AKIAEXAMPLE000000009", "userName": "bot"}}}),
    );
    assert_fields(
        &created,
        &[
            ("action", "token.created"),
            ("token.kind", "static"),
            ("token.id", "AKIAEXAMPLE000000009"),
            ("actor.type", "human"),
            ("config.id", "bot"),
        ],
    );
}

#[test]
fn an_identity_without_a_principal_is_known_by_what_it_has() {
    let who = |identity: serde_json::Value| {
        let event = cloudtrail("signin", "CredentialChallenge", json!({"userIdentity": identity}));
        let text = |field| event.fields.get_text(field).unwrap_or("-").to_owned();
        (text(Field::ActorId), text(Field::ActorType))
    };
    let directory =
        json!({"type": "IdentityCenterUser", "accountId": "111122223333", "onBehalfOf": {"userId": "e364-USER"}});
    assert_eq!(who(directory), ("e364-USER".to_owned(), "human".to_owned()));
    let unknown = json!({"type": "Unknown", "principalId": "111122223333", "arn": "", "accessKeyId": ""});
    assert_eq!(who(unknown).0, "111122223333");
    assert_eq!(who(json!({"type": "AWSService", "invokedBy": "ec2.amazonaws.com"})).0, "ec2.amazonaws.com");
}

#[test]
fn a_cluster_that_logs_less_is_a_weaker_audit() {
    let set = |enabled: bool| {
        let logging = json!({"clusterLogging": [{"types": ["audit"], "enabled": enabled}]});
        cloudtrail("eks", "UpdateClusterConfig", json!({"requestParameters": {"name": "prod", "logging": logging}}))
    };
    let expected = |weakens| [("action", "audit_log.changed"), ("config.weakens", weakens), ("config.id", "prod")];
    assert_fields(&set(false), &expected("true"));
    assert_fields(&set(true), &expected("false"));
    let other = cloudtrail("eks", "UpdateClusterConfig", json!({"requestParameters": {"name": "prod"}}));
    assert_fields(&other, &[("action", "cloud.api")]);
}
