//! From files to rules: every document is read, then they are linked (see `link`). What is wrong with one rule keeps that
//! rule out, and those that build on it, and nothing else.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pipeproof_engine::plan::Content;
use pipeproof_engine::rule::{DetectionRule, Filter, Rule, SqlRule, Table, Taxonomy};
use pipeproof_engine::source::Logsource;
use serde::Serialize;

use crate::detection::{Context, check_field};
use crate::diagnostic::{Code, Diagnostic, Place, Report, Severity, did_you_mean};
use crate::inline::RuleTest;
use crate::link::link;
use crate::lists::Lists;
use crate::lookup::TableUse;
use crate::yaml::{Node, Scalar};
use crate::{correlation, detection, exemplar, files, filter, inline, metadata, sql, table, yaml};

/// Rules with what was said about them.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// The rules that can be used, in the order of the files.
    pub rules: Vec<Rule>,
    /// Where each of them stands.
    pub origins: Vec<Origin>,
    /// The tests inside them, for those that have any.
    pub tests: Vec<RuleTests>,
    /// The tables they look things up in.
    pub tables: Vec<Table>,
    /// Where each of the tables stands.
    pub table_origins: Vec<Origin>,
    /// The exceptions to them.
    pub filters: Vec<Filter>,
    /// Where each of the exceptions stands.
    pub filter_origins: Vec<Origin>,
    /// What is wrong, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that tables name: (path, text), the path beside that of the rule file.
    pub attached: Vec<(String, String)>,
    /// The files they came from, as given.
    pub(crate) files: Vec<(String, String)>,
    /// The lists they were compiled with.
    pub(crate) lists: Lists,
}

impl RuleSet {
    /// What a plan is compiled from.
    #[must_use]
    pub fn content(&self) -> Content {
        Content { rules: self.rules.clone(), tables: self.tables.clone(), filters: self.filters.clone() }
    }

    /// Whether anything is wrong that keeps a rule out.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// All diagnostics with their source lines, for people. `files` are those that were loaded.
    #[must_use]
    pub fn render_diagnostics(&self, files: &[(String, String)]) -> String {
        let text = |file: &str| files.iter().find(|(path, _)| path == file).map_or("", |(_, text)| text.as_str());
        self.diagnostics.iter().map(|problem| problem.render(text(&problem.file)) + "\n").collect()
    }

    /// The text of a file, to render diagnostics with.
    #[must_use]
    pub fn text(&self, file: &str) -> Option<&str> {
        self.files.iter().find(|(path, _)| path == file).map(|(_, text)| text.as_str())
    }
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The file, as it was named when loading.
    pub file: String,
    /// Line at which its document begins, from 1.
    pub line: usize,
}

/// The tests of one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleTests {
    /// Index into the rules of the set.
    pub rule: usize,
    /// Its tests.
    pub tests: Vec<RuleTest>,
}

/// What a document is.
pub(crate) enum Kind {
    Detection(Box<DetectionRule>, Vec<TableUse>),
    Correlation(Box<correlation::Draft>),
    Sql(Box<SqlRule>),
    Table(Box<table::Draft>),
    Filter(Box<filter::Draft>),
}

/// A document that was read.
pub(crate) struct Document {
    /// Number of its file.
    pub(crate) file: usize,
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    pub(crate) tests: Vec<RuleTest>,
    /// Whether it names a severity: what does is meant to be found, whatever else looks at it.
    pub(crate) leveled: bool,
}

/// Reads rule files: (path, text) each. Never fails as a whole: what is wrong is among the diagnostics. The files that
/// tables name are read from disk, beside the rule file that names them.
#[must_use]
pub fn load(files: &[(String, String)], lists: &Lists) -> RuleSet {
    load_with(files, lists, &files::read_line)
}

/// The same; `read` gives the text of a file that a table names, or says why there is none. A set that is kept with its
/// [`RuleSet::attached`] files can be loaded again without a disk.
#[must_use]
pub fn load_with(files: &[(String, String)], lists: &Lists, read: &dyn Fn(&Path) -> Result<String, String>) -> RuleSet {
    let attached: RefCell<BTreeMap<String, String>> = RefCell::default();
    let keep = |path: &Path| -> Result<String, String> {
        let text = read(path)?;
        attached.borrow_mut().insert(path.display().to_string(), text.clone());
        Ok(text)
    };
    let mut documents = Vec::new();
    let mut reports: Vec<Report<'_>> = Vec::new();
    // Ids and names of documents that have errors: what builds on them has another problem than a wrong name.
    let mut broken: BTreeSet<String> = BTreeSet::new();
    for (number, (path, text)) in files.iter().enumerate() {
        let mut report = Report::new(path);
        for node in yaml::read(text, &mut report) {
            let before = report.errors();
            match document(&node, path, lists, &keep, &mut report) {
                Some((kind, tests)) if report.errors() == before => {
                    let leveled = node.get("level").is_some();
                    documents.push(Document { file: number, place: node.place, kind, tests, leveled });
                }
                _ => broken.extend(["id", "name"].iter().filter_map(|key| Some(node.get(key)?.text()?.to_owned()))),
            }
        }
        // A repeated key or broken YAML makes doubtful whatever else the file says.
        if report.found.iter().any(|problem| matches!(problem.code, Code::Yaml | Code::DuplicateKey | Code::YamlLimit))
        {
            documents.retain(|document| document.file != number);
        }
        reports.push(report);
    }
    let mut set = link(documents, &broken, &mut reports, files);
    set.diagnostics = reports.into_iter().flat_map(|report| report.found).collect();
    set.files = files.to_vec();
    set.lists = lists.clone();
    set.attached = attached.into_inner().into_iter().collect();
    set
}

/// Keys of which a document has exactly one: what it is.
const KINDS: [&str; 5] = ["detection", "correlation", "sql", "table", "filter"];

fn document(
    node: &Node,
    path: &str,
    lists: &Lists,
    read: &dyn Fn(&Path) -> Result<String, String>,
    report: &mut Report<'_>,
) -> Option<(Kind, Vec<RuleTest>)> {
    if node.map().is_none() {
        // An empty document, as after a trailing `---`, is none.
        if node.scalar() != Some(Scalar::Null) {
            report.add(Code::Document, node.place, format!("a rule must be a mapping, not {}", node.kind()));
        }
        return None;
    }
    if let Some(action) = node.get("action")
        && node.get("detection").is_none()
    {
        let message = "`action:` documents are obsolete; write whole rules";
        report.add(Code::Obsolete, action.place, message);
        return None;
    }
    let kinds: Vec<(&str, &Node)> = KINDS.iter().filter_map(|kind| Some((*kind, node.get(kind)?))).collect();
    let (kind, found) = match kinds.as_slice() {
        [only] => *only,
        [] => {
            let keys = node.map().unwrap_or_default().iter().map(|(key, _)| key.text.as_str());
            let help = keys.take(100).filter_map(|key| did_you_mean(key, KINDS)).next();
            let message = format!("the document has none of {}", KINDS.map(|kind| format!("`{kind}`")).join(", "));
            report.add_help(Code::Document, node.place, message, help);
            return None;
        }
        [(one, _), (other, place), ..] => {
            report.add(Code::Document, place.place, format!("a document has either `{one}` or `{other}`"));
            return None;
        }
    };
    let logsource = logsource(node, report);
    let said = taxonomy(node, report);
    let cicd = logsource.product.as_deref() == Some("cicd") || matches!(kind, "sql" | "table");
    let taxonomy = said.unwrap_or(if cicd { Taxonomy::Cicd } else { Taxonomy::Sigma });
    match kind {
        "table" => {
            let beside = |file: &str| read(&Path::new(path).parent().unwrap_or(Path::new("")).join(file));
            let draft = table::read(node, found, taxonomy, &beside, report)?;
            return Some((Kind::Table(Box::new(draft)), Vec::new()));
        }
        "filter" => {
            exemplar::refuse(node, report);
            let draft = filter::read(node, found, logsource, taxonomy, lists, report)?;
            return Some((Kind::Filter(Box::new(draft)), Vec::new()));
        }
        _ => {}
    }
    let (meta, mut named) = metadata::read(node, report);
    let mut tests = inline::read(node, report);
    let kind = match kind {
        "detection" => {
            if node.get("logsource").is_none() {
                report.add(Code::MissingKey, node.place, "the rule has no `logsource`");
            }
            named.iter().for_each(|(field, place)| check_field(field, *place, taxonomy, report));
            let context = Context::new(taxonomy, lists);
            let condition = detection::compile(found, &context, report)?;
            let rule = DetectionRule { meta, logsource, taxonomy, condition };
            Kind::Detection(Box::new(rule), context.tables.into_inner())
        }
        "sql" => Kind::Sql(Box::new(sql::read(found, meta, report)?)),
        _ => {
            let mut draft = correlation::read(node, found, meta, said, report)?;
            draft.fields.append(&mut named);
            Kind::Correlation(Box::new(draft))
        }
    };
    tests.extend(exemplar::read(node, matches!(kind, Kind::Correlation(_)), report));
    Some((kind, tests))
}

fn logsource(node: &Node, report: &mut Report<'_>) -> Logsource {
    let Some(found) = node.get("logsource") else { return Logsource::default() };
    if found.map().is_none() {
        report.add(Code::WrongType, found.place, format!("`logsource` must be a mapping, not {}", found.kind()));
        return Logsource::default();
    }
    let mut part = |key: &str| metadata::text(found, key, report).map(str::to_lowercase);
    let logsource = Logsource { product: part("product"), service: part("service"), category: part("category") };
    if logsource == Logsource::default() {
        report.add(Code::MissingKey, found.place, "the `logsource` names no product, service or category");
    }
    logsource
}

/// The names a document says its fields have.
fn taxonomy(node: &Node, report: &mut Report<'_>) -> Option<Taxonomy> {
    let names = [("cicd", Taxonomy::Cicd), ("sigma", Taxonomy::Sigma)];
    metadata::word(node, "taxonomy", &names, report)
}

#[cfg(test)]
#[path = "load/tests.rs"]
mod tests;
