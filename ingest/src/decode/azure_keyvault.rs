//! Azure Key Vault audit events.
//!
//! Source: Microsoft "Azure Key Vault logging", and the tables `AzureDiagnostics` and `AZKVAuditLogs` of Log Analytics, whose rows
//! are the same entries with a column for each member: `httpStatusCode_d` for `properties.httpStatusCode`. `resultType`
//! says `Success` of calls that were refused too: the HTTP status decides.

use engine::fields::{Field, Fields};
use pipeproof_engine as engine;

use super::loose::{self, Members};
use super::{azure, outcome};

pub(super) fn decode(fields: &mut Fields, root: &Members<'_>, properties: &Members<'_>, operation: &str) {
    fields.text(Field::SecretStore, Some("azure.keyvault"));
    if let Some(claims) = loose::at(root, &["identity", "claim"]).or_else(|| loose::at(root, &["identity", "claims"])) {
        azure::claimed(fields, claims);
    } else {
        azure::claimed_in_columns(fields, root.object());
    }
    // Columns of `AzureDiagnostics` end in a letter for their type.
    let text = |key: &str, column: &str| loose::text(properties, &[key]).or_else(|| loose::text(properties, &[column]));
    let code =
        loose::scalar(properties, &["httpstatuscode"]).or_else(|| loose::scalar(properties, &["httpstatuscoded"]));
    // A `real` there: `200.0`.
    if let Some(code) = code.as_deref().and_then(|code| code.strip_suffix(".0").unwrap_or(code).parse::<u16>().ok()) {
        fields.text(Field::Outcome, Some(outcome(code < 400)));
        fields.text(Field::Reason, loose::text(root, &["resultsignature"]));
    }
    fields.text(Field::UserAgent, text("clientinfo", "clientinfos"));
    let id = text("id", "ids").or_else(|| text("requesturi", "requesturis")).unwrap_or_default();
    let (path, version) = object(id);
    let (action, category) = meaning(operation);
    fields.text(Field::Action, Some(action));
    fields.text(Field::Category, Some(category));
    match category {
        "secret" | "signing" => {
            fields.text(Field::SecretPath, Some(path));
            fields.text(Field::SecretVersion, version);
        }
        "config" => {
            fields.text(Field::ConfigObject, Some("secret_store"));
            let key = Some(path).filter(|path| operation.starts_with("Key") && !path.is_empty());
            fields.text(Field::ConfigId, key.or_else(|| loose::text(root, &["resourceid"])));
            fields.text(Field::ConfigAttribute, Some(operation));
            fields.truth(Field::ConfigWeakens, Some(action == "secret_store.weakened"));
        }
        _ => {}
    }
}

fn meaning(operation: &str) -> (&'static str, &'static str) {
    match operation {
        "SecretGet" | "SecretBackup" | "KeyDecrypt" | "KeyUnwrap" | "KeyBackup" | "KeyExport" | "CertificateBackup" => {
            ("secret.read", "secret")
        }
        "SecretList" | "SecretListVersions" | "KeyList" | "CertificateList" | "SecretListDeleted" => {
            ("secret.list", "secret")
        }
        "SecretSet" | "SecretUpdate" | "SecretRestore" | "SecretRecover" | "KeyCreate" | "KeyImport"
        | "CertificateImport" | "CertificateCreate" => ("secret.written", "secret"),
        "SecretDelete" | "SecretPurge" | "CertificateDelete" | "CertificatePurge" => ("secret.deleted", "secret"),
        "KeySign" | "KeyVerify" | "KeyEncrypt" | "KeyWrap" => ("key.used", "signing"),
        // What was encrypted with a key is lost with it, as with a vault.
        "VaultDelete" | "VaultPurge" | "KeyDelete" | "KeyPurge" => ("secret_store.weakened", "config"),
        "VaultPut" | "VaultPatch" | "VaultAccessPolicyChangedEventGridNotification" => {
            ("secret_store.changed", "config")
        }
        _ => ("cloud.api", "cloud"),
    }
}

/// `https://VAULT/secrets/NAME/VERSION`, the query left off.
fn object(id: &str) -> (&str, Option<&str>) {
    let plain = id.split('?').next().unwrap_or(id).trim_end_matches('/');
    let start = plain.find("://").map_or(0, |at| at + 3);
    let parts: Vec<&str> = plain.get(start..).unwrap_or_default().split('/').collect();
    match parts.as_slice() {
        [_, _, _, version] => (plain.strip_suffix(version).unwrap_or(plain).trim_end_matches('/'), Some(*version)),
        _ => (plain, None),
    }
}
