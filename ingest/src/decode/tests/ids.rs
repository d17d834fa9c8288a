//! By what each source's items are recognised when they are delivered again.

use std::collections::BTreeMap;

use engine::record::CollectionMode;
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::RECEIVED;
use crate::receive::{Limits, Receiver, ReceiverKeys, Request, SourceSettings};

fn item(kind: SourceType, body: &str) -> String {
    let receiver = Receiver::new(ReceiverKeys { redaction: [1; 32], dedup: [2; 32] }, Limits::default());
    let source = SourceSettings {
        name: "acme".to_owned(),
        source_type: kind,
        labels: BTreeMap::new(),
        secrets: Vec::new(),
        connected: RECEIVED,
    };
    let request = Request {
        source: &source,
        headers: &http::HeaderMap::new(),
        query: &BTreeMap::new(),
        body: body.to_owned().into(),
        received: RECEIVED,
        bearer: Some("t1".to_owned()),
        mode: CollectionMode::Live,
    };
    receiver.accept(request).unwrap().remove(0).envelope.item
}

#[test]
fn the_sources_own_ids() {
    for (kind, body, id) in [
        (SourceType::GcpAudit, r#"{"logName":"l","timestamp":"t","insertId":"i"}"#, "id:l/t/i"),
        (
            SourceType::KubernetesAudit,
            r#"{"logName":"l","timestamp":"t","insertId":"i","protoPayload":{}}"#,
            "id:l/t/i",
        ),
        (SourceType::AzureSignin, r#"{"correlationId":"c","properties":{"id":"s-1"}}"#, "id:s-1"),
        (SourceType::AzureSignin, r#"{"category":"ServicePrincipalSignInLogs","properties":{"id":"s-1"}}"#, "id:s-1"),
        (SourceType::AzureSignin, r#"{"Type":"AuditLogs","Category":"UserManagement","Id":"d-1"}"#, "id:d-1"),
        (
            SourceType::AzureSignin,
            r#"{"category":"UserManagement","activityDisplayName":"Add user","id":"d-1"}"#,
            "id:d-1",
        ),
        (SourceType::AzureActivity, r#"{"event_data_id":"e-1"}"#, "id:e-1"),
        // Not the id of what the entry is about: a policy looks at one resource again and again, in one call at several.
        (
            SourceType::AzureActivity,
            r#"{"category":"Policy","time":"t","operationName":"audit","correlationId":"c","resourceId":"/r","resultType":0,"properties":{"id":"p"}}"#,
            "id:c/audit/t//r/0",
        ),
        (
            SourceType::AzureSignin,
            r#"{"category":"RiskyUsers","time":"t","operationName":"Risky user","properties":{"id":"u"}}"#,
            "id:u/t",
        ),
        (SourceType::AzureSignin, r#"{"Type":"AADUserRiskEvents","TimeGenerated":"t","Id":"r"}"#, "id:r/t"),
        (
            SourceType::AzureKeyvault,
            r#"{"time":"t","OperationName":"SecretGet","correlationId":"c","properties":{"id":"https://v/secrets/s"}}"#,
            "id:c/SecretGet/t",
        ),
        (SourceType::KubernetesEvent, r#"{"metadata":{"uid":"u","resourceVersion":"7"}}"#, "id:u/7"),
        (
            SourceType::KubernetesEvent,
            r#"{"type":"ADDED","object":{"metadata":{"uid":"u","resourceVersion":"7"}}}"#,
            "id:u/7",
        ),
        (SourceType::KyvernoReport, r#"{"metadata":{"uid":"u","resourceVersion":"7"}}"#, "id:u/7"),
        (SourceType::KubernetesAdmission, r#"{"request":{"uid":"u"}}"#, "id:u"),
        (SourceType::KubernetesAdmission, r#"{"request":{"uid":"u"},"response":{}}"#, "id:u/response"),
        (SourceType::OpaDecision, r#"{"decision_id":"d"}"#, "id:d"),
        (SourceType::Falco, r#"{"uuid":"f"}"#, "id:f"),
        (SourceType::Okta, r#"{"uuid":"o"}"#, "id:o"),
        (SourceType::Cloudevents, r#"{"source":"/a","id":"1"}"#, "id:/a/1"),
    ] {
        assert_eq!(item(kind, body), id, "{kind}: {body}");
    }
    for kind in [SourceType::Flux, SourceType::Tetragon, SourceType::GatekeeperAudit, SourceType::GcpAudit] {
        assert!(item(kind, r#"{"a":1}"#).starts_with("hash:"), "{kind}");
    }
}
