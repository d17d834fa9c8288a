//! Okta System Log events: the people behind the pipeline.
//!
//! Source: Okta "System Log API" and "Event Types". Values below `debugContext.debugData` are text whatever they were.

use bytes::Bytes;
use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, object, time_at};

const EXPECTED: &str = "an Okta System Log event";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let shape = || Undecodable::Shape { expected: EXPECTED, problem: "it has no `eventType` and `published`" };
    let Some(events) = root.at(&["data", "events"]) else { return Ok(vec![event(root).ok_or_else(shape)?]) };
    // An event hook delivers several at once.
    let hooked = |one: Value<'_>| Some(Draft { native: Some(Bytes::from(one.compact())), ..event(one)? });
    let drafts: Option<Vec<Draft>> = events.items().map(hooked).collect();
    drafts.filter(|drafts| !drafts.is_empty()).ok_or_else(shape)
}

fn event(root: Value<'_>) -> Option<Draft> {
    let kind = root.str_at(&["eventType"])?;
    root.str_at(&["published"])?;
    let (action, category) = action(kind);
    let mut draft = Draft::new(action, category);
    draft.time = time_at(root, &["published"]);
    let fields = &mut draft.fields;
    who(fields, root);
    let result = root.str_at(&["outcome", "result"]);
    fields.text(Field::Outcome, result.and_then(outcome));
    fields.text(Field::Reason, root.str_at(&["outcome", "reason"]));
    fields.text(Field::Message, root.str_at(&["displayMessage"]));
    let target = root.get("target").and_then(|list| list.items().next());
    let named = |key: &str| {
        target.and_then(|target| target.str_at(&[key])).filter(|name| !name.is_empty() && *name != "unknown")
    };
    match category {
        "token" => {
            fields.text(Field::TokenIssuer, Some("okta"));
            fields.text(Field::TokenId, named("id"));
            fields.text(Field::TokenKind, Some(if kind.starts_with("app.oauth2") { "oidc" } else { "static" }));
        }
        "config" | "audit" => {
            fields.text(Field::ConfigObject, target.and_then(|target| target.str_at(&["type"])));
            fields.text(Field::ConfigId, named("displayName").or_else(|| named("id")));
            fields.text(Field::ConfigAttribute, Some(kind));
            if category == "audit" {
                fields.text(Field::ConfigObject, Some("audit_log"));
                fields.truth(Field::ConfigWeakens, Some(action == "audit_log.disabled"));
            }
        }
        // Whom or what it was done to: of a membership the group, else the first that is named.
        "identity" if !matches!(action, "signin.attempted" | "session.ended") => {
            let group = root.get("target").and_then(|list| {
                list.items().find(|target| target.str_at(&["type"]) == Some("UserGroup"))?.str_at(&["displayName"])
            });
            let group = group.filter(|_| kind.starts_with("group."));
            fields.text(Field::ConfigId, group.or_else(|| named("alternateId")).or_else(|| named("id")));
        }
        _ => {}
    }
    Some(draft)
}

/// What an event type means: as in every source where it is about a sign-in or a credential, else its own name.
fn action(kind: &str) -> (&str, &'static str) {
    match kind {
        "user.session.start" | "user.authentication.sso" | "user.authentication.auth_via_mfa" => {
            ("signin.attempted", "identity")
        }
        "user.session.end" => ("session.ended", "identity"),
        "system.api_token.create" => ("token.created", "token"),
        "system.api_token.revoke" => ("token.revoked", "token"),
        _ if kind.starts_with("app.oauth2") && kind.contains("token.grant") => ("token.issued", "token"),
        _ if kind.starts_with("system.log_stream.lifecycle") || kind.starts_with("event_hook.") => {
            let ends = [".delete", ".deleted", ".deactivate", ".deactivated"].iter().any(|end| kind.ends_with(end));
            (if ends { "audit_log.disabled" } else { "audit_log.changed" }, "audit")
        }
        _ if ["policy.", "zone.", "application.", "system.", "iam."].iter().any(|head| kind.starts_with(head)) => {
            (kind, "config")
        }
        _ => (kind, "identity"),
    }
}

fn outcome(result: &str) -> Option<&'static str> {
    match result {
        "SUCCESS" | "ALLOW" => Some("success"),
        "FAILURE" | "DENY" => Some("failure"),
        // A challenge, or something that was passed over, has not ended.
        _ => None,
    }
}

fn who(fields: &mut Fields, root: Value<'_>) {
    let actor = |key: &str| root.str_at(&["actor", key]).filter(|text| !text.is_empty() && *text != "unknown");
    fields.text(Field::ActorId, actor("alternateId").or_else(|| actor("id")));
    let kind = actor("type").and_then(|kind| match kind {
        "User" | "AppUser" => Some("human"),
        // Okta saw an address and knows nobody behind it.
        "IP address" => None,
        _ => Some("service"),
    });
    fields.text(Field::ActorType, kind);
    let chain = || root.at(&["request", "ipChain"])?.items().next()?.str_at(&["ip"]);
    fields.text(Field::SrcIp, root.str_at(&["client", "ipAddress"]).or_else(chain));
    fields.text(Field::UserAgent, root.str_at(&["client", "userAgent", "rawUserAgent"]));
    fields.int(Field::SrcAsn, root.at(&["securityContext", "asNumber"]).and_then(Value::as_i64));
    fields.text(Field::SrcOrg, root.str_at(&["securityContext", "asOrg"]));
}
