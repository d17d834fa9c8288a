//! CloudTrail records about the guards themselves: what is logged, and who may use keys and secrets.

use engine::fields::Field;
use engine::json::Value;
use pipeproof_engine as engine;

use super::aws_cloudtrail::name;
use super::{Draft, scalar};

/// Calls that end a log, whatever their parameters.
const DISABLE: &[(&str, &str)] = &[
    ("cloudtrail", "StopLogging"),
    ("cloudtrail", "DeleteTrail"),
    ("cloudtrail", "DeleteEventDataStore"),
    ("cloudtrail", "StopEventDataStoreIngestion"),
    ("ec2", "DeleteFlowLogs"),
    ("config", "StopConfigurationRecorder"),
    ("config", "DeleteConfigurationRecorder"),
    ("config", "DeleteDeliveryChannel"),
    ("guardduty", "DeleteDetector"),
    ("guardduty", "StopMonitoringMembers"),
    ("guardduty", "DisassociateFromMasterAccount"),
    ("securityhub", "DisableSecurityHub"),
    ("logs", "DeleteLogGroup"),
    ("logs", "DeleteLogStream"),
    ("logs", "DeleteSubscriptionFilter"),
    ("route53resolver", "DeleteResolverQueryLogConfig"),
];
/// Calls that change what is logged.
const CHANGE: &[(&str, &str)] = &[
    ("cloudtrail", "UpdateTrail"),
    ("cloudtrail", "PutEventSelectors"),
    ("cloudtrail", "PutInsightSelectors"),
    ("cloudtrail", "UpdateEventDataStore"),
    ("guardduty", "UpdateDetector"),
    ("logs", "PutRetentionPolicy"),
    ("config", "PutConfigurationRecorder"),
];
/// Calls that start a log.
const ENABLE: &[(&str, &str)] = &[
    ("cloudtrail", "StartLogging"),
    ("cloudtrail", "CreateTrail"),
    ("cloudtrail", "StartEventDataStoreIngestion"),
    ("config", "StartConfigurationRecorder"),
    ("guardduty", "CreateDetector"),
];
/// Days below which a log's retention counts as cut.
const RETENTION_DAYS_MIN: i64 = 90;

/// Names the event if it is about a guard.
pub(super) fn decode(draft: &mut Draft, request: Value<'_>, service: &str, event: &str) {
    let call = (service, event);
    let (action, category, object, weakens) = if DISABLE.contains(&call) {
        ("audit_log.disabled", "audit", "audit_log", Some(true))
    } else if CHANGE.contains(&call) {
        ("audit_log.changed", "audit", "audit_log", Some(logs_less(request, event)))
    } else if ENABLE.contains(&call) {
        ("audit_log.enabled", "audit", "audit_log", Some(false))
    } else if call == ("eks", "UpdateClusterConfig") && request.get("logging").is_some() {
        ("audit_log.changed", "audit", "audit_log", Some(logs_less(request, event)))
    } else {
        match secret_store(request, service, event) {
            Some(weakens) => {
                let action = if weakens { "secret_store.weakened" } else { "secret_store.changed" };
                draft.fields.text(Field::SecretStore, Some(format!("aws.{service}")));
                (action, "config", "secret_store", Some(weakens))
            }
            None => return,
        }
    };
    let fields = &mut draft.fields;
    name(fields, action, category);
    fields.text(Field::ConfigObject, Some(object));
    fields.text(Field::ConfigAttribute, Some(event));
    fields.truth(Field::ConfigWeakens, weakens);
    const IDS: &[&str] = &[
        "name",
        "trailName",
        "eventDataStore",
        "detectorId",
        "logGroupName",
        "configurationRecorderName",
        "keyId",
        "secretId",
        "resolverQueryLogConfigId",
    ];
    fields.text(Field::ConfigId, IDS.iter().find_map(|key| scalar(request, &[key])));
    if event == "PutRetentionPolicy" {
        fields.text(Field::ConfigValue, scalar(request, &["retentionInDays"]));
    }
}

/// Whether a change makes a log record less, as far as its parameters say.
fn logs_less(request: Value<'_>, event: &str) -> bool {
    let is_false = |value: Option<Value<'_>>| value.and_then(Value::as_bool) == Some(false);
    match event {
        "PutEventSelectors" => {
            let classic = request.get("eventSelectors").into_iter().flat_map(Value::items).any(|selector| {
                let excluded = selector.get("excludeManagementEventSources");
                is_false(selector.get("includeManagementEvents"))
                    || matches!(selector.str_at(&["readWriteType"]), Some("ReadOnly" | "WriteOnly"))
                    || excluded.is_some_and(|list| list.items().next().is_some())
            });
            // Advanced selectors log only what one of them names: without management events those are gone.
            let advanced = request.get("advancedEventSelectors").filter(|list| list.items().next().is_some());
            classic || advanced.is_some_and(|list| !list.text().contains("Management"))
        }
        "UpdateTrail" => {
            ["isMultiRegionTrail", "includeGlobalServiceEvents", "enableLogFileValidation", "isOrganizationTrail"]
                .iter()
                .any(|key| is_false(request.get(key)))
        }
        "UpdateDetector" => is_false(request.get("enable")),
        "UpdateClusterConfig" => {
            let mut kinds = request.at(&["logging", "clusterLogging"]).into_iter().flat_map(Value::items);
            kinds.any(|kind| is_false(kind.get("enabled")))
        }
        "PutInsightSelectors" => request.get("insightSelectors").is_some_and(|list| list.items().next().is_none()),
        "PutRetentionPolicy" => {
            request.get("retentionInDays").and_then(Value::as_i64).is_some_and(|days| days < RETENTION_DAYS_MIN)
        }
        "UpdateEventDataStore" => is_false(request.get("terminationProtectionEnabled")),
        _ => false,
    }
}

/// Whether the call weakens a key or secret; `None` if it is not about one.
fn secret_store(request: Value<'_>, service: &str, event: &str) -> Option<bool> {
    let open = |key: &str| request.get(key).is_some_and(|policy| opens(&policy.text()));
    match (service, event) {
        ("kms", "DisableKey" | "ScheduleKeyDeletion" | "DisableKeyRotation" | "DeleteImportedKeyMaterial") => {
            Some(true)
        }
        ("secretsmanager", "DeleteResourcePolicy" | "CancelRotateSecret") => Some(true),
        ("kms", "PutKeyPolicy") => Some(open("policy")),
        ("secretsmanager", "PutResourcePolicy") => {
            let unblocked = request.get("blockPublicPolicy").and_then(Value::as_bool) == Some(false);
            Some(open("resourcePolicy") || unblocked)
        }
        ("kms", "EnableKey" | "EnableKeyRotation" | "CancelKeyDeletion" | "CreateGrant") => Some(false),
        _ => None,
    }
}

/// Whether a policy names everybody. White space and escapes vary with who wrote it.
fn opens(policy: &str) -> bool {
    let plain: String = policy.chars().filter(|char| !char.is_whitespace() && *char != '\\').collect();
    plain.contains("\"Principal\":\"*\"") || plain.contains("\"AWS\":\"*\"") || plain.contains("\"AWS\":[\"*\"")
}
