//! Puts documents together: members of correlations, the rules behind tables, the tables behind lookups and the targets
//! of exceptions are found by name across files, and digests are computed from the inside out.

use std::collections::{BTreeMap, BTreeSet};

use pipeproof_engine::rule::{Rule, RuleMeta, Table, Taxonomy};

use crate::correlation;
use crate::detection::check_field;
use crate::diagnostic::{Code, Place, Report, did_you_mean};
use crate::digest;
use crate::filter;
use crate::lint;
use crate::load::{Document, Kind, Origin, RuleSet, RuleTests};
use crate::table;

/// Longest chain of rules and tables that build on each other.
const DEPTH_MAX: usize = 32;

/// Something that other documents name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Rule(String),
    Table(String),
}

/// Rules while they are put together.
pub(crate) struct Linker<'f> {
    pub(crate) set: RuleSet,
    /// Rule numbers by id and name.
    numbers: BTreeMap<String, usize>,
    /// Table numbers by name.
    tables: BTreeMap<String, usize>,
    /// Digests of tables by name.
    table_digests: digest::Tables,
    /// How many others a rule or table builds on, one upon another.
    depths: BTreeMap<Name, usize>,
    /// The documents of the rules, as far as what is said about them later needs to know.
    documents: Vec<(usize, Place, bool)>,
    /// The rules others look at, and whether they report findings of their own all the same.
    watched: Vec<(Vec<usize>, bool)>,
    /// The rules that only feed tables.
    feeders: BTreeSet<usize>,
    files: &'f [(String, String)],
}

/// Links all documents; what is wrong with them is reported.
pub(crate) fn link(
    documents: Vec<Document>,
    broken: &BTreeSet<String>,
    reports: &mut [Report<'_>],
    files: &[(String, String)],
) -> RuleSet {
    let mut linker = Linker {
        set: RuleSet::default(),
        numbers: BTreeMap::new(),
        tables: BTreeMap::new(),
        table_digests: digest::Tables::new(),
        depths: BTreeMap::new(),
        documents: Vec::new(),
        watched: Vec::new(),
        feeders: BTreeSet::new(),
        files,
    };
    // Every document waits for what it names; those that name nothing come first, in the order of the files.
    let mut waiting: Vec<Option<Document>> = Vec::new();
    let mut missing: Vec<BTreeSet<Name>> = Vec::new();
    let mut waiters: BTreeMap<Name, Vec<usize>> = BTreeMap::new();
    let mut ready: Vec<usize> = Vec::new();
    let mut filters = Vec::new();
    for document in documents {
        if let Kind::Filter(draft) = document.kind {
            filters.push((document.file, draft));
            continue;
        }
        let number = waiting.len();
        let names = dependencies(&document.kind);
        if names.is_empty() {
            ready.push(number);
        }
        for name in &names {
            waiters.entry(name.clone()).or_default().push(number);
        }
        missing.push(names);
        waiting.push(Some(document));
    }
    while !ready.is_empty() {
        let mut next = Vec::new();
        for number in std::mem::take(&mut ready) {
            let Some(document) = waiting.get_mut(number).and_then(Option::take) else { continue };
            let Some(report) = reports.get_mut(document.file) else { continue };
            for name in linker.add(document, report) {
                for waiter in waiters.remove(&name).unwrap_or_default() {
                    if let Some(names) = missing.get_mut(waiter) {
                        names.remove(&name);
                        if names.is_empty() {
                            next.push(waiter);
                        }
                    }
                }
            }
        }
        next.sort_unstable();
        ready = next;
    }
    let waiting: Vec<Document> = waiting.into_iter().flatten().collect();
    let handles: BTreeSet<Name> = waiting.iter().flat_map(|document| own_names(&document.kind)).collect();
    for document in &waiting {
        if let Some(report) = reports.get_mut(document.file) {
            linker.unresolved(&document.kind, broken, &handles, report);
        }
    }
    for (file, draft) in filters {
        if let Some(report) = reports.get_mut(file) {
            linker.add_filter(file, *draft, broken, report);
        }
    }
    linker.mute_watched();
    lint::same_digests(&linker, reports);
    linker.set
}

/// What a document names that has to be there before it.
fn dependencies(kind: &Kind) -> BTreeSet<Name> {
    places(kind).into_iter().map(|(name, _)| name).collect()
}

/// The same, with places.
fn places(kind: &Kind) -> Vec<(Name, Place)> {
    let rules =
        |named: &[(String, Place)]| named.iter().map(|(name, place)| (Name::Rule(name.clone()), *place)).collect();
    match kind {
        Kind::Detection(_, tables) => tables.iter().map(|used| (Name::Table(used.table.clone()), used.place)).collect(),
        Kind::Correlation(draft) => rules(&draft.members),
        Kind::Table(draft) => rules(&draft.rules),
        Kind::Sql(_) | Kind::Filter(_) => Vec::new(),
    }
}

/// The names a document goes by.
fn own_names(kind: &Kind) -> Vec<Name> {
    let of = |meta: &RuleMeta| {
        std::iter::once(&meta.id).chain(&meta.name).map(|name| Name::Rule(name.clone())).collect::<Vec<_>>()
    };
    match kind {
        Kind::Detection(rule, _) => of(&rule.meta),
        Kind::Correlation(draft) => of(&draft.rule.meta),
        Kind::Sql(rule) => of(&rule.meta),
        Kind::Table(draft) => vec![Name::Table(draft.table.name.clone())],
        Kind::Filter(_) => Vec::new(),
    }
}

impl Linker<'_> {
    pub(crate) fn find(&self, name: &str) -> Option<(usize, &Rule)> {
        let number = self.numbers.get(name).copied()?;
        Some((number, self.set.rules.get(number)?))
    }

    /// File and place of a rule's document.
    pub(crate) fn place(&self, rule: usize) -> Option<(usize, Place)> {
        self.documents.get(rule).map(|(file, place, _)| (*file, *place))
    }

    /// Adds a document all of whose names are there, and gives the names it can be found under from now on.
    fn add(&mut self, document: Document, report: &mut Report<'_>) -> Vec<Name> {
        let names = own_names(&document.kind);
        let on = dependencies(&document.kind);
        let depth = 1 + on.iter().filter_map(|name| self.depths.get(name)).max().copied().unwrap_or_default();
        if depth > DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} rules and tables build on each other");
            report.add(Code::CorrelationUse, document.place, message);
            return Vec::new();
        }
        let Document { file, place, kind, tests, leveled } = document;
        let rule = match kind {
            Kind::Detection(mut rule, tables) => {
                if !self.columns_exist(&tables, report) {
                    return Vec::new();
                }
                rule.meta.digest = digest::detection(&rule, &self.table_digests);
                Rule::Detection(*rule)
            }
            Kind::Sql(mut rule) => {
                rule.meta.digest = digest::sql(&rule);
                Rule::Sql(*rule)
            }
            Kind::Correlation(draft) => {
                let generate = draft.generate;
                let Some((rule, members)) = self.complete(*draft, report) else { return Vec::new() };
                self.watched.push((members, generate));
                rule
            }
            Kind::Table(draft) => {
                let added = self.add_table(file, *draft, report);
                if added {
                    self.depths.extend(names.iter().map(|name| (name.clone(), depth)));
                }
                return if added { names } else { Vec::new() };
            }
            Kind::Filter(_) => return Vec::new(),
        };
        let meta = rule.meta();
        let name = meta.name.clone().filter(|name| *name != meta.id);
        let handles: Vec<String> = std::iter::once(meta.id.clone()).chain(name).collect();
        for handle in &handles {
            if let Some(other) = self.numbers.get(handle).and_then(|other| self.set.origins.get(*other)) {
                let message = format!("a rule called `{handle}` stands at {}:{} already", other.file, other.line);
                report.add(Code::Duplicate, place, message);
                return Vec::new();
            }
        }
        let number = self.set.rules.len();
        self.numbers.extend(handles.into_iter().map(|handle| (handle, number)));
        self.depths.extend(names.iter().map(|name| (name.clone(), depth)));
        let origin = self.origin(file, place);
        self.set.origins.push(origin);
        self.set.rules.push(rule);
        self.documents.push((file, place, leveled));
        if !tests.is_empty() {
            self.set.tests.push(RuleTests { rule: number, tests });
        }
        names
    }

    fn origin(&self, file: usize, place: Place) -> Origin {
        let file = self.files.get(file).map(|(path, _)| path.clone()).unwrap_or_default();
        Origin { file, line: place.line }
    }

    /// Whether the columns that lookups name exist; the tables do.
    fn columns_exist(&self, used: &[crate::lookup::TableUse], report: &mut Report<'_>) -> bool {
        let before = report.errors();
        for used in used {
            let (Some(table), Some(column)) = (self.table(&used.table), &used.column) else { continue };
            let known = table::Draft::columns(table);
            if !known.contains(&column.as_str()) {
                let help = did_you_mean(column, known.iter().copied());
                let help = help.or_else(|| Some(format!("its columns: {}", known.join(", "))));
                let message = format!("the table `{}` has no column `{column}`", used.table);
                report.add_help(Code::UnknownTable, used.place, message, help);
            }
        }
        report.errors() == before
    }

    fn table(&self, name: &str) -> Option<&Table> {
        self.set.tables.get(*self.tables.get(name)?)
    }

    fn add_table(&mut self, file: usize, draft: table::Draft, report: &mut Report<'_>) -> bool {
        let mut draft = draft;
        let other = self.tables.get(&draft.table.name).and_then(|other| self.set.table_origins.get(*other));
        if let Some(other) = other {
            let name = &draft.table.name;
            let message = format!("a table called `{name}` stands at {}:{} already", other.file, other.line);
            report.add(Code::Duplicate, draft.place, message);
            return false;
        }
        let before = report.errors();
        let asks = |name: &str| matches!(self.find(name), Some((_, Rule::Sql(_))));
        let asked: Vec<Place> = draft.rules.iter().filter(|(name, _)| asks(name)).map(|(_, place)| *place).collect();
        draft.settle(&asked, report);
        if report.errors() > before {
            return false;
        }
        let table::Draft { mut table, rules, place, .. } = draft;
        self.feeders.extend(rules.iter().filter_map(|(name, _)| self.numbers.get(name)));
        let digest = digest::table(&table, &|name| {
            self.find(name).map_or_else(String::new, |(_, rule)| rule.meta().digest.clone())
        });
        table.digest.clone_from(&digest);
        self.tables.insert(table.name.clone(), self.set.tables.len());
        self.table_digests.insert(table.name.clone(), digest);
        let origin = self.origin(file, place);
        self.set.table_origins.push(origin);
        self.set.tables.push(table);
        true
    }

    /// Gives a correlation its digest, and the numbers of its members.
    fn complete(&self, draft: correlation::Draft, report: &mut Report<'_>) -> Option<(Rule, Vec<usize>)> {
        let before = report.errors();
        let members: Vec<(usize, &Rule)> = draft.members.iter().filter_map(|(name, _)| self.find(name)).collect();
        for ((name, place), (_, rule)) in draft.members.iter().zip(&members) {
            if matches!(rule, Rule::Sql(_)) {
                let message = format!("`{name}` asks the stored events; correlations cannot look at it");
                report.add(Code::CorrelationUse, *place, message);
            }
        }
        for (name, place) in &draft.alias_names {
            let number = self.numbers.get(name);
            if !members.iter().any(|(member, _)| Some(member) == number) {
                let help = did_you_mean(name, draft.members.iter().map(|(member, _)| member.as_str()));
                report.add_help(
                    Code::UnknownMember,
                    *place,
                    format!("`{name}` is none of the correlation's rules"),
                    help,
                );
            }
        }
        let mut rule = draft.rule.clone();
        for alias in rule.group_by.iter().filter(|field| rule.aliases.contains_key(*field)) {
            let fields = rule.aliases.get(alias);
            for meta in members.iter().map(|(_, member)| member.meta()) {
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
        if !draft.taxonomy_said {
            let cicd = members.iter().any(|(_, member)| taxonomy(member) == Taxonomy::Cicd);
            rule.taxonomy = if cicd { Taxonomy::Cicd } else { Taxonomy::Sigma };
        }
        for (field, place) in draft.fields.iter().filter(|(field, _)| !rule.aliases.contains_key(field)) {
            check_field(field, *place, rule.taxonomy, report);
        }
        let rules: Vec<&Rule> = members.iter().map(|(_, member)| *member).collect();
        lint::correlation(&draft, &rule, &rules, report);
        let metas: Vec<_> = rules.iter().map(|member| member.meta()).collect();
        let handles: Vec<_> =
            metas.iter().map(|meta| (meta.id.as_str(), meta.name.as_deref(), meta.digest.as_str())).collect();
        rule.meta.digest = digest::correlation(&rule, &handles);
        Some((Rule::Correlation(rule), members.into_iter().map(|(number, _)| number).collect()))
    }

    /// Says why what a document names cannot be found.
    fn unresolved(&self, kind: &Kind, broken: &BTreeSet<String>, waiting: &BTreeSet<Name>, report: &mut Report<'_>) {
        for (name, place) in places(kind) {
            let (what, text, found) = match &name {
                Name::Rule(text) => ("rule", text, self.numbers.contains_key(text)),
                Name::Table(text) => ("table", text, self.tables.contains_key(text)),
            };
            if found {
                continue;
            }
            if broken.contains(text) {
                report.add(Code::BadMember, place, format!("the {what} `{text}` has errors"));
            } else if waiting.contains(&name) {
                let message = format!("the {what} `{text}` cannot be completed, or leads back to this one");
                report.add(Code::BadMember, place, message);
            } else {
                let (code, known): (_, Vec<&str>) = match name {
                    Name::Rule(_) => (Code::UnknownMember, self.numbers.keys().map(String::as_str).collect()),
                    Name::Table(_) => (Code::UnknownTable, self.tables.keys().map(String::as_str).collect()),
                };
                let help = (!report.is_crowded()).then(|| did_you_mean(text, known)).flatten();
                report.add_help(code, place, format!("no {what} is called `{text}`"), help);
            }
        }
    }

    fn add_filter(&mut self, file: usize, draft: filter::Draft, broken: &BTreeSet<String>, report: &mut Report<'_>) {
        let filter::Draft { mut filter, targets, place } = draft;
        let same = self.set.filters.iter().position(|other| other.id == filter.id);
        if let Some(other) = same.and_then(|other| self.set.filter_origins.get(other)) {
            let message =
                format!("an exception called `{}` stands at {}:{} already", filter.id, other.file, other.line);
            report.add(Code::Duplicate, place, message);
            return;
        }
        let before = report.errors();
        for (name, place) in &targets {
            match self.find(name) {
                Some((_, Rule::Detection(_))) => {}
                Some((_, Rule::Correlation(_))) => {
                    let help = Some("except the rules it looks at".to_owned());
                    let message = format!("`{name}` is a correlation, to which there are no exceptions");
                    report.add_help(Code::FilterUse, *place, message, help);
                }
                Some((_, Rule::Sql(_))) => {
                    let help = Some("say it in the query".to_owned());
                    let message = format!("`{name}` asks the stored events; there are no exceptions to it");
                    report.add_help(Code::FilterUse, *place, message, help);
                }
                None if broken.contains(name) => {
                    report.add(Code::BadMember, *place, format!("the rule `{name}` has errors"));
                }
                None => {
                    let near = || did_you_mean(name, self.numbers.keys().map(String::as_str));
                    let help = (!report.is_crowded()).then(near).flatten();
                    report.add_help(Code::UnknownTarget, *place, format!("no rule is called `{name}`"), help);
                }
            }
        }
        if report.errors() > before {
            return;
        }
        lint::filter(&filter, &targets, place, self, report);
        filter.digest = digest::filter(&filter);
        let origin = self.origin(file, place);
        self.set.filter_origins.push(origin);
        self.set.filters.push(filter);
    }

    /// A rule that others look at reports nothing itself, unless one of them says `generate: true`. A rule that feeds a
    /// table reports if it has a level of its own.
    fn mute_watched(&mut self) {
        let mut own: BTreeMap<usize, bool> = BTreeMap::new();
        for number in &self.feeders {
            let leveled = self.documents.get(*number).is_some_and(|(.., leveled)| *leveled);
            own.insert(*number, leveled);
        }
        let mut generate: BTreeMap<usize, bool> = BTreeMap::new();
        for (members, own) in std::mem::take(&mut self.watched) {
            for member in members {
                *generate.entry(member).or_default() |= own;
            }
        }
        own.extend(generate);
        for (number, emits) in own {
            if let Some(rule) = self.set.rules.get_mut(number) {
                rule.meta_mut().emits = emits;
            }
        }
    }
}

fn taxonomy(rule: &Rule) -> Taxonomy {
    match rule {
        Rule::Detection(rule) => rule.taxonomy,
        Rule::Correlation(rule) => rule.taxonomy,
        Rule::Sql(_) => Taxonomy::Cicd,
    }
}
