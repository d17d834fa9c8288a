//! The Azure activity log: calls that changed something, or handed out keys.
//!
//! An operation has an entry when it starts and one when it ends, with the same correlation id.

use engine::fields::{Field, Fields};
use pipeproof_engine as engine;

use super::azure;
use super::loose::{self, Members};

pub(super) fn decode(fields: &mut Fields, root: &Members<'_>, operation: &str) {
    // Log Analytics keeps them as text, and parsed in a column beside it.
    let places = [&["identity", "claims"][..], &["claims"], &["claimsd"]];
    let claims = places.iter().filter_map(|path| loose::at(root, path)).find(|claims| claims.is_object());
    if let Some(claims) = claims {
        azure::claimed(fields, claims);
    }
    let caller = loose::text(root, &["caller"]);
    if fields.get(Field::ActorId).is_none() {
        fields.text(Field::ActorId, caller);
        fields.text(Field::ActorType, caller.map(|caller| if caller.contains('@') { "human" } else { "service" }));
    }
    // The libraries' form says how it ended in `status`.
    let mut ended = loose::scalar(root, &["resulttype"]).is_none_or(|result| azure::judged(&result).is_some());
    let places = [&["status"][..], &["activitystatusvalue"], &["properties", "statuscode"]];
    if let Some(status) = places.iter().find_map(|path| loose::text(root, path)) {
        let judged =
            if status.parse::<u16>().is_ok_and(|code| code >= 400) { Some("failure") } else { azure::judged(status) };
        if fields.get(Field::Outcome).is_none() {
            fields.text(Field::Outcome, judged);
            ended = judged.is_some();
        }
        // In a row of Log Analytics it is the result itself, and no reason.
        fields.text(Field::Reason, Some(status).filter(|_| loose::get(root, "activitystatusvalue").is_none()));
    }
    let lower = operation.to_ascii_lowercase();
    let provider = lower.split('/').next().filter(|provider| provider.contains('.'));
    fields.text(Field::CloudService, provider);
    // What an operation means is said when it ends, so that it counts once.
    if ended {
        meaning(fields, root, &lower, operation);
    }
}

fn meaning(fields: &mut Fields, root: &Members<'_>, lower: &str, operation: &str) {
    let mut name = |action: &str, category: &str| {
        fields.text(Field::Action, Some(action));
        fields.text(Field::Category, Some(category));
    };
    let parts: Vec<&str> = lower.split('/').collect();
    let (object, weakens) = match parts.as_slice() {
        ["microsoft.insights", "diagnosticsettings", verb]
        | ["microsoft.operationalinsights", "workspaces", verb]
        | ["microsoft.network", "networkwatchers", "flowlogs", verb] => {
            let gone = *verb == "delete";
            name(if gone { "audit_log.disabled" } else { "audit_log.changed" }, "audit");
            ("audit_log", gone)
        }
        ["microsoft.keyvault", "vaults", rest @ ..] if matches!(rest.last(), Some(&("write" | "delete"))) => {
            let gone = rest == ["delete"];
            name(if gone { "secret_store.weakened" } else { "secret_store.changed" }, "config");
            fields.text(Field::SecretStore, Some("azure.keyvault"));
            ("secret_store", gone)
        }
        [_, .., "listkeys" | "listaccountsas" | "listservicesas" | "listcredentials", "action"]
        | [_, .., "listclusteradmincredential" | "listclusterusercredential", "action"] => {
            name("token.issued", "token");
            fields.text(Field::TokenKind, Some("static"));
            fields.text(Field::TokenIssuer, fields.get_text(Field::CloudService).map(ToOwned::to_owned));
            fields.text(Field::ConfigId, loose::text(root, &["resourceid"]));
            return;
        }
        ["microsoft.managedidentity", "userassignedidentities", "federatedidentitycredentials", verb] => {
            // Whose tokens are taken for this identity's.
            name("trust.changed", "config");
            ("trust", *verb == "write")
        }
        ["microsoft.authorization", "roleassignments" | "roledefinitions" | "policyassignments" | "locks", verb] => {
            name("permission.changed", "config");
            ("permission", parts.contains(&"locks") && *verb == "delete")
        }
        _ => return,
    };
    fields.text(Field::ConfigObject, Some(object));
    fields.text(Field::ConfigId, loose::text(root, &["resourceid"]));
    fields.text(Field::ConfigAttribute, Some(operation));
    fields.truth(Field::ConfigWeakens, Some(weakens));
}
