//! Open Policy Agent decision logs.
//!
//! Source: OPA "Decision logs". A decision is whatever the policy's author made it; allow and deny are read from the forms
//! in common use, and left open where there is none. As an admission controller its input is an AdmissionReview.

use engine::fields::{Field, Fields};
use engine::json::Value;
use engine::record::Record;
use pipeproof_engine as engine;

use super::{Draft, Undecodable, kubernetes_admission, kubernetes_audit, object, outcome, said, time_of};

const EXPECTED: &str = "an OPA decision";

pub(super) fn decode(record: &Record) -> Result<Vec<Draft>, Undecodable> {
    let json = object(record, EXPECTED)?;
    let root = json.root();
    let [path, query, id, time, result, error, requested_by, input] =
        root.members(["path", "query", "decision_id", "timestamp", "result", "error", "requested_by", "input"]);
    let Some(asked) = said(path).or_else(|| said(query)).or(said(id).map(|_| "")) else {
        return Err(Undecodable::Shape { expected: EXPECTED, problem: "it has no `decision_id`, `path` or `query`" });
    };
    let mut draft = Draft::new("policy.decided", "admission");
    draft.time = time.and_then(time_of);
    let fields = &mut draft.fields;
    let allowed = result.and_then(allowed);
    let failed = error.is_some_and(|error| !error.is_null());
    let policy = asked.trim_matches('/');
    fields.text(Field::Outcome, if failed { Some("failure") } else { allowed.map(outcome) });
    let reasons = result.map(reasons).unwrap_or_default();
    let text_of_error = |key: &str| error.and_then(|error| error.get(key)).and_then(Value::as_str);
    fields.text(Field::Reason, text_of_error("message").or_else(|| text_of_error("code")));
    fields.text(Field::SrcIp, said(requested_by).and_then(address));
    fields.text(Field::K8sDecision, allowed.map(|allowed| if allowed { "allow" } else { "deny" }));
    fields.text(Field::K8sPolicy, Some(policy));
    fields.text(Field::Message, Some(reasons.as_str()));
    let request = input
        .and_then(|input| input.get("request"))
        .filter(|request| request.get("userInfo").is_some() || request.get("operation").is_some());
    if let Some(request) = request {
        // The address is that of the API server.
        let time = draft.time;
        kubernetes_admission::asked(&mut draft.fields, request);
        let mut drafts = kubernetes_admission::answered(draft, request, allowed, &reasons, Some(policy));
        drafts.iter_mut().for_each(|one| one.time = time);
        return Ok(drafts);
    }
    if let Some(input) = input {
        who(fields, input);
    }
    Ok(vec![draft])
}

/// The user a request was made by, where the input names one as most integrations do.
fn who(fields: &mut Fields, input: Value<'_>) {
    let names = [&["user"][..], &["subject"], &["principal"], &["attributes", "source", "principal"]];
    let user = names.iter().find_map(|path| input.str_at(path)).filter(|user| !user.is_empty());
    fields.text(Field::ActorId, user);
    // Envoy writes the SPIFFE id of the peer.
    let kind = |user: &str| if user.starts_with("spiffe://") { "workload" } else { kubernetes_audit::actor_type(user) };
    fields.text(Field::ActorType, user.map(kind));
}

/// Whether a result allows: a boolean, also as text, or an object that says `allow` or `allowed`, or lists what it denies.
fn allowed(result: Value<'_>) -> Option<bool> {
    let plain = |value: Value<'_>| value.as_bool().or_else(|| value.as_str()?.parse().ok());
    if let Some(answer) = plain(result) {
        return Some(answer);
    }
    let named = ["allow", "allowed"].iter().find_map(|key| result.get(key).and_then(plain));
    let nested = || result.at(&["response", "allowed"]).and_then(plain);
    let denials = || {
        let lists = ["deny", "violation", "violations"].iter().find_map(|key| result.get(key));
        lists.map(|list| list.items().next().is_none() && list.entries().next().is_none() && plain(list) != Some(true))
    };
    named.or_else(nested).or_else(denials)
}

/// The texts a result gives for its refusal.
fn reasons(result: Value<'_>) -> String {
    let lists = ["deny", "violation", "violations", "reasons"].iter().filter_map(|key| result.get(key));
    let texts = lists.flat_map(Value::items).filter_map(|one| one.as_str().or_else(|| one.str_at(&["msg"])));
    let direct = [&["reason"][..], &["response", "status", "message"], &["response", "status", "reason"]];
    let direct = direct.iter().find_map(|path| result.str_at(path));
    texts.chain(direct).collect::<Vec<_>>().join("; ")
}

/// The address in `ADDRESS:PORT`; an IPv6 address stands in brackets.
fn address(text: &str) -> Option<&str> {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host).trim_matches(['[', ']']);
    host.parse::<std::net::IpAddr>().is_ok().then_some(host)
}
