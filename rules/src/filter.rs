//! `filter:` documents: exceptions to rules, with who answers for them and until when.

use std::time::Duration;

use pipeproof_engine::rule::{Filter, Taxonomy};
use pipeproof_engine::source::Logsource;
use pipeproof_engine::time::Timestamp;

use crate::detection::{Context, compile_but};
use crate::diagnostic::{Code, Place, Report};
use crate::lists::Lists;
use crate::metadata::{check_keys, handles, text, texts, title};
use crate::yaml::Node;

const DAY: Duration = Duration::from_secs(86_400);

/// A filter as written, with the places its names stand at.
pub(crate) struct Draft {
    pub(crate) filter: Filter,
    /// The rules it names.
    pub(crate) targets: Vec<(String, Place)>,
    pub(crate) place: Place,
}

/// Reads a `filter:` document.
pub(crate) fn read(
    document: &Node,
    node: &Node,
    logsource: Logsource,
    taxonomy: Taxonomy,
    lists: &Lists,
    report: &mut Report<'_>,
) -> Option<Draft> {
    let before = report.errors();
    check_keys(document, report);
    let title = title(document, "exception", report);
    let (id, _) = handles(document, &title, "exception", report);
    if node.map().is_none() {
        report.add(Code::WrongType, node.place, format!("`filter` must be a mapping, not {}", node.kind()));
        return None;
    }
    let named = texts(node, "rules", report);
    let any = matches!(named.as_slice(), [(name, _)] if name == "any");
    if named.is_empty() {
        let help = Some("name the rules it is for, or `rules: any`".to_owned());
        report.add_help(Code::MissingKey, node.place, "the exception has no `rules`", help);
    }
    if document.get("logsource").is_none() {
        report.add(Code::MissingKey, document.place, "the exception has no `logsource`");
    }
    let context = Context::new(taxonomy, lists);
    let condition = compile_but(node, "filter", &["rules"], &context, report);
    if let Some(used) = context.tables.borrow().first() {
        report.add(Code::FilterUse, used.place, "an exception cannot look things up: its answer would not be there yet");
    }
    let expires = expires(document, report);
    if document.get("expires").is_none() {
        let help = Some("write the last day it is meant for, as in `expires: 2027-02-28`".to_owned());
        report.add_help(Code::NoExpiry, document.place, "the exception never ends", help);
    }
    let reason = text(document, "reason", report).map(str::to_owned);
    let ticket = document.get("ticket").and_then(Node::text).map(str::to_owned);
    let approved_by = texts(document, "approved_by", report).into_iter().map(|(who, _)| who).collect();
    if report.errors() > before {
        return None;
    }
    let rules = (!any).then(|| named.iter().map(|(name, _)| name.clone()).collect());
    let filter = Filter {
        id,
        title,
        digest: String::new(),
        rules,
        logsource,
        taxonomy,
        condition: condition?,
        expires,
        reason,
        approved_by,
        ticket,
    };
    Some(Draft { filter, targets: if any { Vec::new() } else { named }, place: document.place })
}

/// When it ends: a day counts to its end (UTC), a point in time is exact.
fn expires(document: &Node, report: &mut Report<'_>) -> Option<Timestamp> {
    let node = document.get("expires")?;
    let text = node.text().unwrap_or_default().trim();
    let found = Timestamp::parse(text).map(|time| if text.len() == "2027-02-28".len() { time.plus(DAY) } else { time });
    if found.is_none() {
        let help = Some("a day, as in `2027-02-28`, or a time with its zone, as in `2027-02-28T12:00:00Z`".to_owned());
        report.add_help(Code::WrongType, node.place, format!("`expires` cannot be `{text}`"), help);
    }
    found
}
