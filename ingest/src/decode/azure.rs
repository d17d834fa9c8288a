//! Azure's diagnostic logs: the envelope they share, and which of them an entry is of.
//!
//! Sources: Microsoft "Resource logs: common schema", "Azure activity log event schema". An event hub often carries several
//! categories, so each of our types reads all of them. Keys are compared without case, see [`loose`].

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::loose::{self, Members};
use super::{Draft, Undecodable, azure_activity, azure_keyvault, azure_signin, object, outcome, time_of};

const EXPECTED: &str = "an Azure log entry";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = &Members::of(json.root());
    let inner = loose::get(root, "properties").filter(|found| found.is_object()).map(Members::of);
    let properties = inner.as_ref().unwrap_or(root);
    let text = |key: &str| loose::text(root, &[key]);
    // Rows of the newer tables of Log Analytics name their table instead of a category.
    let category = match text("type") {
        Some("AZKVAuditLogs") => "AuditEvent",
        _ => text("category").unwrap_or_default(),
    };
    let operation = ["operationname", "activitydisplayname", "operationnamevalue"].iter().find_map(|key| text(key));
    let signin = ends_with(category, "signinlogs")
        || loose::get(properties, "serviceprincipalcredentialkeyid").is_some()
        || (loose::get(properties, "appid").is_some() && loose::get(properties, "conditionalaccessstatus").is_some());
    if operation.is_none() && !signin {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `operationName`, and is no sign-in" });
    }
    let operation = operation.unwrap_or_default().trim();
    let mut draft = Draft::new("cloud.api", "cloud");
    const TIMES: &[&str] =
        &["time", "eventtimestamp", "createddatetime", "activitydatetime", "timegenerated", "submissiontimestamp"];
    let time = |object: &Members<'_>| TIMES.iter().find_map(|key| loose::get(object, key).and_then(time_of));
    draft.time = time(root).or_else(|| time(properties));
    let fields = &mut draft.fields;
    envelope(fields, root, operation);
    if signin {
        // What a sign-in was about says when it happened; the envelope when the entry was written.
        let happened = loose::get(properties, "createddatetime").and_then(time_of);
        azure_signin::signed_in(fields, root, properties, category);
        draft.time = happened.or(draft.time);
    } else if loose::get(properties, "riskeventtype").is_some() {
        azure_signin::at_risk(fields, properties);
    } else if category.eq_ignore_ascii_case("AuditLogs") || loose::get(properties, "initiatedby").is_some() {
        azure_signin::changed(fields, properties, operation);
    } else if category.eq_ignore_ascii_case("AuditEvent") {
        azure_keyvault::decode(fields, root, properties, operation);
    } else {
        azure_activity::decode(fields, root, operation);
    }
    Ok(vec![draft])
}

/// What every entry has.
fn envelope(fields: &mut Fields, root: &Members<'_>, operation: &str) {
    fields.text(Field::CloudProvider, Some("azure"));
    fields.text(Field::Message, Some(operation));
    let resource = loose::text(root, &["resourceid"]).unwrap_or_default();
    fields.text(
        Field::CloudAccount,
        segment(resource, "subscriptions").or_else(|| loose::text(root, &["subscriptionid"])),
    );
    fields.text(Field::CloudService, segment(resource, "providers").map(str::to_lowercase));
    fields.text(Field::CloudRegion, loose::text(root, &["location"]));
    let addresses = [&["calleripaddress"][..], &["httprequest", "clientipaddress"], &["claims", "ipaddr"]];
    address(fields, addresses.iter().find_map(|path| loose::text(root, path)));
    let kind = loose::scalar(root, &["resulttype"]);
    fields.text(Field::Outcome, kind.as_deref().and_then(judged));
    fields.text(
        Field::Reason,
        loose::text(root, &["resultdescription"]).or_else(|| loose::text(root, &["resultsignature"])),
    );
}

/// An address, with its port taken off as some services write it.
pub(super) fn address(fields: &mut Fields, text: Option<&str>) {
    let Some(text) = text else { return };
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host).trim_matches(['[', ']']);
    let plain = [text, host].into_iter().find(|text| text.parse::<std::net::IpAddr>().is_ok());
    fields.text(Field::SrcIp, plain);
}

/// The part of a resource's path after `/KEY/`; Azure varies the case.
pub(super) fn segment<'a>(path: &'a str, key: &str) -> Option<&'a str> {
    let mut parts = path.split('/');
    parts.find(|part| part.eq_ignore_ascii_case(key))?;
    parts.next().filter(|part| !part.is_empty())
}

/// Whether a text ends so, whatever its case.
fn ends_with(text: &str, end: &str) -> bool {
    let (text, end) = (text.as_bytes(), end.as_bytes());
    text.split_at_checked(text.len().wrapping_sub(end.len())).is_some_and(|(_, last)| last.eq_ignore_ascii_case(end))
}

/// What a result's word or number means; `None` for an operation that has not ended.
pub(super) fn judged(result: &str) -> Option<&'static str> {
    const GOOD: &[&str] = &["0", "success", "succeeded", "active", "resolved"];
    const OPEN: &[&str] = &["", "start", "started", "accept", "accepted", "inprogress", "in progress"];
    let is_one_of = |words: &[&str]| words.iter().any(|word| result.eq_ignore_ascii_case(word));
    match is_one_of(GOOD) {
        true => Some(outcome(true)),
        false if is_one_of(OPEN) => None,
        false => Some(outcome(false)),
    }
}

/// The person or program in a token's claims, whose keys are short names or addresses of a schema that end in them.
pub(super) fn claimed(fields: &mut Fields, claims: Value<'_>) {
    who(fields, |name| {
        let fits = |key: &str| {
            let head = key.len().wrapping_sub(name.len());
            ends_with(key, name) && (head == 0 || key.as_bytes().get(head.wrapping_sub(1)) == Some(&b'/'))
        };
        let found = claims.entries().find(|(key, _)| fits(key)).and_then(|(_, value)| value.as_str());
        found.filter(|text| !text.is_empty())
    });
}

/// The same of a row of `AzureDiagnostics`, where each claim is a column: `identity_claim_`, the key with underscores for
/// what is neither letter nor digit, and a letter for the type. Says false where the row has none.
pub(super) fn claimed_in_columns(fields: &mut Fields, row: Value<'_>) -> bool {
    fn claim_of(column: &str) -> Option<&str> {
        let head = column.get(..15).filter(|head| head.eq_ignore_ascii_case("identity_claim_"))?;
        let (claim, kind) = column.strip_prefix(head)?.rsplit_once('_')?;
        (kind.len() == 1).then_some(claim)
    }
    let claims = || row.entries().filter_map(|(column, value)| Some((claim_of(column)?, value.as_str()?)));
    let given = || claims().filter(|(_, text)| !text.is_empty());
    let any = given().next().is_some();
    if any {
        who(fields, |name| {
            let fits = |key: &str| {
                let schema = || key.rsplit_once("_claims_").map(|(_, end)| end).filter(|_| key.starts_with("http"));
                key.eq_ignore_ascii_case(name) || schema().is_some_and(|end| end.eq_ignore_ascii_case(name))
            };
            given().find(|(key, _)| fits(key)).map(|(_, text)| text)
        });
    }
    any
}

fn who<'a>(fields: &mut Fields, claim: impl Fn(&str) -> Option<&'a str>) {
    let person = ["upn", "emailaddress", "unique_name"].iter().find_map(|name| claim(name));
    let object = claim("objectidentifier").or_else(|| claim("oid"));
    let app = claim("appid");
    fields.text(Field::ActorId, person.or(object).or(app));
    // The resource a managed identity belongs to: a machine or a cluster's workload.
    let resource = ["xms_mirid", "xms_az_rid"].iter().find_map(|name| claim(name));
    // Scopes are what a person lets a program do; a program of its own has roles.
    let scoped = claim("scp").or_else(|| claim("scope"));
    let kind = match (claim("idtyp"), person.or(scoped)) {
        _ if resource.is_some() => "workload",
        (Some("app"), _) | (None, None) => "service",
        _ => "human",
    };
    fields.text(Field::ActorType, Some(kind));
    fields.text(Field::CloudRole, resource.or(app));
    if let Some(id) = claim("uti") {
        fields.text(Field::TokenId, Some(id));
        fields.text(Field::TokenKind, Some("oidc"));
    }
    fields.text(Field::TokenIssuer, claim("iss"));
    fields.text(Field::TokenAud, claim("aud"));
    address(fields, claim("ipaddr").filter(|_| fields.get(Field::SrcIp).is_none()));
}
