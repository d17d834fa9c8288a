//! Microsoft Entra: sign-ins of people, service principals and managed identities, and what was changed in the directory.
//!
//! Source: Microsoft Graph `signIn` and `directoryAudit`. `uniqueTokenIdentifier` comes back as claim `uti` in what the
//! token was used for. Of a federated sign-in it shows the id of the federated credential, and of a managed identity's
//! (`managedServiceIdentity`) the issuer and the id of the foreign token too: an issuer that is a CI system's makes it a job.
//! The foreign token's subject is in neither: which repository or job it was, and whether an application's federated
//! credential is a CI system's at all, stands only in the credential itself.

use engine::fields::{Field, Fields};
use engine::json::{Json, Value};
use pipeproof_engine as engine;

use super::loose::{self, Members};
use super::{DEPTH_MAX, azure, outcome, subject};

/// A sign-in.
pub(super) fn signed_in(fields: &mut Fields, root: &Members<'_>, properties: &Members<'_>, category: &str) {
    let text = |key: &str| loose::text(properties, &[key]);
    let principal = text("serviceprincipalid");
    let managed = category.eq_ignore_ascii_case("ManagedIdentitySignInLogs")
        || text("managedserviceidentity").is_some()
        || loose::text(properties, &["managedserviceidentity", "msitype"]).is_some_and(|kind| kind != "none");
    let person = text("userprincipalname").or_else(|| text("userid")).filter(|_| principal.is_none());
    let (action, category) =
        if person.is_some() { ("signin.attempted", "identity") } else { ("token.issued", "token") };
    fields.text(Field::Action, Some(action));
    fields.text(Field::Category, Some(category));
    let program = principal.or_else(|| text("appid"));
    fields.text(Field::ActorId, person.or(program));
    let foreign = foreign(properties);
    let issuer = foreign.as_ref().and_then(|token| token.issuer.as_deref()).filter(|_| person.is_none());
    let kind = match person {
        Some(_) => "human",
        None if managed => issuer.and_then(subject::actor_type).unwrap_or("workload"),
        None => issuer.and_then(subject::actor_type).unwrap_or("service"),
    };
    fields.text(Field::ActorType, Some(kind));
    fields.text(Field::CiProvider, issuer.and_then(subject::ci_provider));
    fields.text(
        Field::CloudRole,
        text("serviceprincipalname").or_else(|| text("appdisplayname")).filter(|_| person.is_none()),
    );
    azure::address(fields, text("ipaddress"));
    fields.text(Field::UserAgent, text("useragent"));
    // `TenantId` of a row of Log Analytics is the workspace.
    let row = loose::get(root, "timegenerated").is_some();
    let tenant = loose::text(root, &[if row { "aadtenantid" } else { "tenantid" }])
        .or_else(|| text("hometenantid"))
        .or_else(|| text("resourcetenantid"));
    fields.text(Field::CloudAccount, tenant);
    fields.text(Field::CloudService, Some("entra"));
    fields.text(Field::TokenId, text("uniquetokenidentifier"));
    fields.text(Field::TokenKind, Some("oidc"));
    fields.text(Field::TokenIssuer, tenant.map(|tenant| format!("https://sts.windows.net/{tenant}/")));
    fields.text(Field::TokenAud, text("resourcedisplayname").or_else(|| text("resourceid")));
    if let Some(code) = loose::int(properties, &["status", "errorcode"]) {
        fields.text(Field::Outcome, Some(outcome(code == 0)));
    }
    let why = loose::text(properties, &["status", "failurereason"]).filter(|why| *why != "Other.");
    fields.text(Field::Reason, why);
    // How the program proved who it is: `federatedIdentityCredential`, `clientSecret`, `certificate`, ...
    let federated = text("federatedcredentialid").map(|_| "federatedIdentityCredential");
    let proof = federated.or_else(|| text("clientcredentialtype")).filter(|_| person.is_none());
    fields.text(Field::ConfigAttribute, proof);
    if person.is_some() {
        return;
    }
    // Which one: the directory's changes and the credential itself name it so.
    fields.text(Field::ConfigId, text("federatedcredentialid").or_else(|| text("serviceprincipalcredentialkeyid")));
    if let Some(Foreign { issuer, id }) = &foreign {
        fields.text(Field::ConfigValue, issuer.as_deref());
        let words =
            [Some("sign-in with a federated token"), id.as_deref(), issuer.as_ref().map(|_| "of"), issuer.as_deref()];
        fields.text(Field::Message, Some(words.into_iter().flatten().collect::<Vec<_>>().join(" ")));
    }
}

/// What Entra takes for the sign of an attacker at somebody's account.
pub(super) fn at_risk(fields: &mut Fields, properties: &Members<'_>) {
    let text = |key: &str| loose::text(properties, &[key]);
    let person = text("userprincipalname").or_else(|| text("userid"));
    let program = text("serviceprincipalid").or_else(|| text("appid"));
    fields.text(Field::ActorId, person.or(program));
    fields.text(Field::ActorType, person.map(|_| "human").or(program.map(|_| "service")));
    fields.text(Field::CloudService, Some("entra"));
    fields.text(Field::AlertRule, text("riskeventtype"));
    azure::address(fields, text("ipaddress"));
}

/// The token of another issuer that was exchanged for Entra's.
struct Foreign {
    issuer: Option<String>,
    id: Option<String>,
}

/// Where `managedServiceIdentity` says it: an object, or in Log Analytics its text.
fn foreign(properties: &Members<'_>) -> Option<Foreign> {
    let of = |identity: Value<'_>| {
        let text = |key: &str| loose::text(identity, &[key]).map(ToOwned::to_owned);
        let (issuer, id) = (text("federatedtokenissuer"), text("federatedtokenid"));
        (issuer.is_some() || id.is_some()).then_some(Foreign { issuer, id })
    };
    let identity = loose::get(properties, "managedserviceidentity")?;
    match identity.as_str() {
        Some(text) => of(Json::parse_within(text.as_bytes(), DEPTH_MAX).ok()?.root()),
        None => of(identity),
    }
}

/// A change of the directory.
pub(super) fn changed(fields: &mut Fields, properties: &Members<'_>, operation: &str) {
    let by = loose::get(properties, "initiatedby");
    let user = by.and_then(|by| loose::get(by, "user")).filter(|user| user.is_object());
    let app = by.and_then(|by| loose::get(by, "app")).filter(|app| app.is_object());
    let person = user.and_then(|user| loose::text(user, &["userprincipalname"]).or_else(|| loose::text(user, &["id"])));
    let program =
        app.and_then(|app| loose::text(app, &["serviceprincipalid"]).or_else(|| loose::text(app, &["displayname"])));
    fields.text(Field::ActorId, person.or(program));
    fields.text(Field::ActorType, person.map(|_| "human").or(program.map(|_| "service")));
    azure::address(fields, user.and_then(|user| loose::text(user, &["ipaddress"])));
    fields.text(Field::CloudService, Some("entra"));
    if let Some(result) = loose::text(properties, &["result"]) {
        fields.text(Field::Outcome, azure::judged(result));
        fields.text(Field::Reason, loose::text(properties, &["resultreason"]));
    }
    let target = loose::get(properties, "targetresources").and_then(|list| list.items().next());
    let named = target.and_then(|target| {
        ["userprincipalname", "displayname", "id"].iter().find_map(|key| loose::text(target, &[key]))
    });
    // A dash of one or another kind stands in these names.
    let words = operation.to_lowercase();
    if words.contains("certificates and secrets management") || words.contains("add service principal credentials") {
        fields.text(Field::Action, Some("token.created"));
        fields.text(Field::Category, Some("token"));
        fields.text(Field::TokenKind, Some("static"));
        fields.text(Field::TokenIssuer, Some("entra"));
    } else {
        fields.text(Field::Category, Some("config"));
    }
    fields.text(Field::ConfigId, named);
    fields.text(Field::ConfigAttribute, Some(operation));
}
