//! From files to rules: every document is read, members of correlations are found, digests are computed. What is wrong
//! with one rule keeps that rule out, and those that build on it, and nothing else.

use std::collections::BTreeMap;

use pipeproof_engine::rule::{DetectionRule, Rule, RuleMeta, Taxonomy};
use pipeproof_engine::source::Logsource;
use serde::Serialize;

use crate::correlation::Draft;
use crate::detection::Context;
use crate::diagnostic::{Code, Diagnostic, Place, Report, Severity, did_you_mean};
use crate::inline::RuleTest;
use crate::lists::Lists;
use crate::yaml::{Node, Scalar};
use crate::{correlation, detection, digest, inline, metadata, yaml};

/// Rules with what was said about them.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// The rules that can be used, in the order of the files.
    pub rules: Vec<Rule>,
    /// Where each of them stands.
    pub origins: Vec<Origin>,
    /// The tests inside them, for those that have any.
    pub tests: Vec<RuleTests>,
    /// What is wrong, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// The files they came from, as given.
    pub(crate) files: Vec<(String, String)>,
    /// The lists they were compiled with.
    pub(crate) lists: Lists,
    /// For each correlation: the numbers of its members, and whether they report findings of their own.
    uses: Vec<(Vec<usize>, bool)>,
}

impl RuleSet {
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

enum Kind {
    Detection(Box<DetectionRule>),
    Correlation(Box<Draft>),
}

struct Document {
    file: usize,
    line: usize,
    kind: Kind,
    tests: Vec<RuleTest>,
}

/// Reads rule files: (path, text) each. Never fails as a whole: what is wrong is among the diagnostics.
#[must_use]
pub fn load(files: &[(String, String)], lists: &Lists) -> RuleSet {
    let mut documents = Vec::new();
    let mut reports: Vec<Report<'_>> = Vec::new();
    // Ids and names of documents that have errors: a correlation over them has another problem than a wrong name.
    let mut broken: Vec<String> = Vec::new();
    for (number, (path, text)) in files.iter().enumerate() {
        let mut report = Report::new(path);
        for node in yaml::read(text, &mut report) {
            let before = report.errors();
            match document(&node, lists, &mut report) {
                Some((kind, tests)) if report.errors() == before => {
                    documents.push(Document { file: number, line: node.place.line, kind, tests });
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
    set
}

fn document(node: &Node, lists: &Lists, report: &mut Report<'_>) -> Option<(Kind, Vec<RuleTest>)> {
    if node.map().is_none() {
        // An empty document, as after a trailing `---`, is none.
        if node.scalar() != Some(Scalar::Null) {
            report.add(Code::Document, node.place, format!("a rule must be a mapping, not {}", node.kind()));
        }
        return None;
    }
    for kind in ["filter", "table", "sql"] {
        if let Some(found) = node.get(kind) {
            report.add(Code::UnsupportedDocument, found.place, format!("`{kind}:` documents are not supported yet"));
            return None;
        }
    }
    if let Some(action) = node.get("action")
        && node.get("detection").is_none()
    {
        let message = "`action:` documents are obsolete; write whole rules";
        report.add(Code::Obsolete, action.place, message);
        return None;
    }
    let logsource = logsource(node, report);
    let taxonomy = taxonomy(node, &logsource, report);
    let meta = metadata::read(node, taxonomy, report);
    let tests = inline::read(node, report);
    let kind = match (node.get("detection"), node.get("correlation")) {
        (Some(found), None) => {
            if node.get("logsource").is_none() {
                report.add(Code::MissingKey, node.place, "the rule has no `logsource`");
            }
            let condition = detection::compile(found, &Context { taxonomy, lists }, report)?;
            let mut rule = DetectionRule { meta, logsource, taxonomy, condition };
            rule.meta.digest = digest::detection(&rule);
            Kind::Detection(Box::new(rule))
        }
        (None, Some(found)) => Kind::Correlation(Box::new(correlation::read(node, found, meta, taxonomy, report)?)),
        (Some(_), Some(found)) => {
            report.add(Code::Document, found.place, "a rule has either `detection` or `correlation`");
            return None;
        }
        (None, None) => {
            let keys = node.map().unwrap_or_default().iter().map(|(key, _)| key.text.as_str());
            let help = keys.filter_map(|key| did_you_mean(key, ["detection", "correlation"])).next();
            report.add_help(Code::Document, node.place, "the document has neither `detection` nor `correlation`", help);
            return None;
        }
    };
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

/// The names a rule uses: those it says, else the cicd taxonomy for rules on cicd events and Sigma's for all others.
fn taxonomy(node: &Node, logsource: &Logsource, report: &mut Report<'_>) -> Taxonomy {
    let names = [("cicd", Taxonomy::Cicd), ("sigma", Taxonomy::Sigma)];
    let cicd = logsource.product.as_deref() == Some("cicd") || node.get("correlation").is_some();
    let default = if cicd { Taxonomy::Cicd } else { Taxonomy::Sigma };
    metadata::word(node, "taxonomy", &names, report).unwrap_or(default)
}

/// Rules while they are put together.
struct Linker<'f> {
    set: RuleSet,
    /// Rule numbers by id and name.
    numbers: BTreeMap<String, usize>,
    files: &'f [(String, String)],
}

impl Linker<'_> {
    fn find(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    /// Adds a rule unless one is called the same; true if it was added.
    fn add(&mut self, rule: Rule, at: (usize, usize), tests: Vec<RuleTest>, report: &mut Report<'_>) -> bool {
        let (file, line) = at;
        let meta = rule.meta();
        let name = meta.name.clone().filter(|name| *name != meta.id);
        let handles: Vec<String> = std::iter::once(meta.id.clone()).chain(name).collect();
        for handle in &handles {
            if let Some(other) = self.find(handle).and_then(|other| self.set.origins.get(other)) {
                let message = format!("a rule called `{handle}` stands at {}:{} already", other.file, other.line);
                report.add(Code::Duplicate, Place { line, column: 1 }, message);
                return false;
            }
        }
        let number = self.set.rules.len();
        self.numbers.extend(handles.into_iter().map(|handle| (handle, number)));
        let file = self.files.get(file).map(|(path, _)| path.clone()).unwrap_or_default();
        self.set.origins.push(Origin { file, line });
        self.set.rules.push(rule);
        if !tests.is_empty() {
            self.set.tests.push(RuleTests { rule: number, tests });
        }
        true
    }
}

/// A correlation that waits for its members.
type Waiting = ((usize, usize), Box<Draft>, Vec<RuleTest>);

/// Finds the members of correlations, and computes what depends on them.
fn link(
    documents: Vec<Document>,
    broken: &[String],
    reports: &mut [Report<'_>],
    files: &[(String, String)],
) -> RuleSet {
    let mut linker = Linker { set: RuleSet::default(), numbers: BTreeMap::new(), files };
    let mut waiting: Vec<Waiting> = Vec::new();
    for Document { file, line, kind, tests } in documents {
        match kind {
            Kind::Detection(rule) => {
                if let Some(report) = reports.get_mut(file) {
                    linker.add(Rule::Detection(*rule), (file, line), tests, report);
                }
            }
            Kind::Correlation(draft) => waiting.push(((file, line), draft, tests)),
        }
    }
    // A correlation can be added once all its members are; round after round, until no more can. Chains are short.
    loop {
        let (ready, later): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(_, draft, _)| draft.members.iter().all(|(name, _)| linker.find(name).is_some()));
        waiting = later;
        if ready.is_empty() {
            break;
        }
        for (at, draft, tests) in ready {
            let Some(report) = reports.get_mut(at.0) else { continue };
            let generate = draft.generate;
            let Some((rule, members)) = complete(*draft, &linker, report) else { continue };
            if linker.add(rule, at, tests, report) {
                linker.set.uses.push((members, generate));
            }
        }
    }
    let others: Vec<RuleMeta> = waiting.iter().map(|(_, other, _)| other.rule.meta.clone()).collect();
    for ((file, _), draft, _) in &waiting {
        if let Some(report) = reports.get_mut(*file) {
            unresolved(draft, &linker, broken, &others, report);
        }
    }
    linker.set.mute_members();
    linker.set
}

/// Gives a correlation its digest, and the numbers of its members.
fn complete(draft: Draft, linker: &Linker<'_>, report: &mut Report<'_>) -> Option<(Rule, Vec<usize>)> {
    let Draft { mut rule, members, alias_names, .. } = draft;
    let before = report.errors();
    let numbers: Vec<usize> = members.iter().filter_map(|(name, _)| linker.find(name)).collect();
    for (name, place) in &alias_names {
        if !linker.find(name).is_some_and(|number| numbers.contains(&number)) {
            let help = did_you_mean(name, members.iter().map(|(member, _)| member.as_str()));
            report.add_help(Code::UnknownMember, *place, format!("`{name}` is none of the correlation's rules"), help);
        }
    }
    let metas: Vec<_> = numbers.iter().filter_map(|number| linker.set.rules.get(*number)).map(Rule::meta).collect();
    for alias in rule.group_by.iter().filter(|field| rule.aliases.contains_key(*field)) {
        let fields = rule.aliases.get(alias);
        for meta in &metas {
            let named = |name: &str| fields.is_some_and(|fields| fields.contains_key(name));
            if !named(&meta.id) && !meta.name.as_deref().is_some_and(named) {
                let message = format!("the alias `{alias}` says nothing for the rule `{}`", meta.title);
                report.add(Code::CorrelationUse, draft.place, message);
            }
        }
    }
    if report.errors() > before {
        return None;
    }
    let members: Vec<_> =
        metas.iter().map(|meta| (meta.id.as_str(), meta.name.as_deref(), meta.digest.as_str())).collect();
    rule.meta.digest = digest::correlation(&rule, &members);
    Some((Rule::Correlation(rule), numbers))
}

/// Says why the members of a correlation cannot be found.
fn unresolved(draft: &Draft, linker: &Linker<'_>, broken: &[String], waiting: &[RuleMeta], report: &mut Report<'_>) {
    for (name, place) in &draft.members {
        let known = |rule: &RuleMeta| rule.id == *name || rule.name.as_ref() == Some(name);
        if linker.find(name).is_some() {
            continue;
        }
        if broken.contains(name) {
            report.add(Code::BadMember, *place, format!("the rule `{name}` has errors"));
        } else if waiting.iter().any(known) {
            report.add(
                Code::BadMember,
                *place,
                format!("the rule `{name}` cannot be completed, or leads back to this one"),
            );
        } else {
            let help = did_you_mean(name, linker.numbers.keys().map(String::as_str));
            report.add_help(Code::UnknownMember, *place, format!("no rule is called `{name}`"), help);
        }
    }
}

impl RuleSet {
    /// A rule that others look at reports nothing itself, unless one of them says `generate: true`.
    fn mute_members(&mut self) {
        let mut generate: BTreeMap<usize, bool> = BTreeMap::new();
        for (members, own) in std::mem::take(&mut self.uses) {
            for member in members {
                *generate.entry(member).or_default() |= own;
            }
        }
        for (number, generate) in generate {
            if let Some(rule) = self.rules.get_mut(number) {
                rule.meta_mut().emits = generate;
            }
        }
    }
}

#[cfg(test)]
#[path = "load/tests.rs"]
mod tests;
