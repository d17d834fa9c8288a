//! The matching plan: all rules, compiled together, and which of them each event is shown to.
//!
//! Detection rules are grouped by the logsource an event belongs to; each group is one [`Program`]. Correlations have no
//! place in matching itself: the plan only says which rules their members are. State, windows and findings are not here.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::compiler::{Compiler, Source};
use crate::event::Event;
use crate::exception::{RuleExceptions, Verdict};
use crate::explain::{Explainer, Explanation};
use crate::feed;
use crate::fields::Field;
use crate::json::Json;
use crate::lookup::{CompiledLookup, Question};
use crate::program::Program;
use crate::reader::Reader;
use crate::rule::{DetectionRule, Filter, Rule, RuleMeta, RuleState, Table, Taxonomy};
use crate::source::{Logsource, SourceType};
use crate::spelling::Spelling;
use crate::table::{Edge, Rows, Shape};

mod check;
mod selection;
mod tables;

use self::check::{check_regexes, topological};
use self::selection::{Names, Selection};
use self::tables::Tables;

/// Most programs kept, one for each route seen.
const PROGRAMS_MAX: usize = 256;

/// An event matched a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// Index into the events given.
    pub event: usize,
    /// Number of the rule.
    pub rule: usize,
}

/// Which rules an event is shown to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Those of the logsource of its source type, and those of `product: cicd`.
    BySource,
    /// All events are of this logsource: every rule whose logsource does not contradict it.
    ByLogsource(Logsource),
    /// Every rule.
    Unrouted,
    /// As by source; but an event of a generic source is shown to the logsource its own `product`, `service` and
    /// `category` name, and to every rule where it names none.
    Recognised,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Route {
    Source(SourceType),
    Logsource(Logsource),
    All,
}

/// Why rules are no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Two rules are called the same.
    #[error("two rules are called `{0}`")]
    Duplicate(String),
    /// A correlation names a rule that is not there.
    #[error("rule `{rule}` looks at rule `{member}`, which is not among the rules")]
    UnknownMember {
        /// The correlation.
        rule: String,
        /// The name it uses.
        member: String,
    },
    /// A correlation looks at itself, directly or through others, or a rule looks up what it feeds.
    #[error("rule `{0}` looks at itself")]
    Cycle(String),
    /// A table names a rule that is not there.
    #[error("table `{table}` is fed by rule `{rule}`, which is not among the rules")]
    UnknownFeeder {
        /// The table.
        table: String,
        /// The name it uses.
        rule: String,
    },
    /// A rule looks something up in a table that is not there.
    #[error("rule `{rule}` looks something up in table `{table}`, which is not among the tables")]
    UnknownTable {
        /// The rule.
        rule: String,
        /// The name it uses.
        table: String,
    },
    /// A rule looks something up in a column that is not there.
    #[error("rule `{rule}` looks something up in column `{column}`, which table `{table}` does not have")]
    UnknownColumn {
        /// The rule.
        rule: String,
        /// The table.
        table: String,
        /// The name it uses.
        column: String,
    },
    /// A row of a written-down table does not say when it holds.
    #[error("table `{table}`: `{column}` of a row is `{text}`, which is no RFC 3339 time")]
    RowTime {
        /// The table.
        table: String,
        /// `valid_from` or `valid_to`.
        column: String,
        /// What it says.
        text: String,
    },
    /// An exception looks something up.
    #[error("filter `{0}` looks something up in a table, which only a rule can")]
    FilterLookup(String),
    /// A regular expression does not compile.
    #[error("rule `{rule}`: the regular expression `{pattern}` on `{field}` cannot be used")]
    Regex {
        /// The rule.
        rule: String,
        /// The field, or `keywords`.
        field: String,
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        #[source]
        cause: Box<regex::Error>,
    },
}

/// What decides findings: rules, the tables they look things up in, and the exceptions to them.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Rules.
    pub rules: Vec<Rule>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Exceptions.
    pub filters: Vec<Filter>,
}

impl From<Vec<Rule>> for Content {
    fn from(rules: Vec<Rule>) -> Self {
        Self { rules, ..Self::default() }
    }
}

/// All rules, ready to match.
#[derive(Debug)]
pub struct Plan {
    rules: Vec<Rule>,
    tables: Vec<Table>,
    filters: Vec<Filter>,
    members: Vec<Vec<usize>>,
    lookups: Tables,
    /// By rule: the rules whose matches it rests on, by being a correlation or by lookups.
    needs: Vec<Vec<usize>>,
    /// Every rule after those it needs.
    order: Vec<usize>,
    /// By rule: see [`Plan::lag`].
    lags: Vec<Duration>,
    exceptions: Vec<RuleExceptions>,
    explainers: Vec<OnceLock<Box<Explainer>>>,
    programs: Mutex<BTreeMap<Route, Arc<Program>>>,
    names: Names,
    readers: Mutex<Vec<Reader>>,
}

impl Plan {
    /// Compiles rules. Paused rules are kept, but never match.
    ///
    /// # Errors
    /// [`PlanError`] names the first rule that is wrong.
    pub fn compile(content: impl Into<Content>) -> Result<Self, PlanError> {
        let Content { rules, tables, filters } = content.into();
        let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let meta = rule.meta();
            let name = meta.name.as_deref().filter(|name| *name != meta.id);
            for handle in std::iter::once(meta.id.as_str()).chain(name) {
                if by_name.insert(handle, number).is_some() {
                    return Err(PlanError::Duplicate(handle.to_owned()));
                }
            }
        }
        let mut members = Vec::with_capacity(rules.len());
        for rule in &rules {
            members.push(match rule {
                Rule::Detection(rule) => {
                    check_regexes(&rule.meta.id, &rule.condition)?;
                    Vec::new()
                }
                Rule::Sql(_) => Vec::new(),
                Rule::Correlation(rule) => {
                    let number = |member: &String| {
                        by_name.get(member.as_str()).copied().ok_or_else(|| PlanError::UnknownMember {
                            rule: rule.meta.id.clone(),
                            member: member.clone(),
                        })
                    };
                    rule.members.iter().map(number).collect::<Result<_, _>>()?
                }
            });
        }
        let lookups = Tables::compile(&rules, &tables, &by_name)?;
        let mut needs = members.clone();
        for (number, needs) in needs.iter_mut().enumerate() {
            needs.extend(lookups.needs(number));
        }
        let order = topological(&rules, &needs)?;
        let mut lags = vec![Duration::ZERO; rules.len()];
        for number in &order {
            let of = |rule: usize| lags.get(rule).copied().unwrap_or_default();
            let through = members.get(*number).into_iter().flatten().map(|member| of(*member)).max();
            let lag = through.unwrap_or_default().max(lookups.lag(*number, of));
            if let Some(slot) = lags.get_mut(*number) {
                *slot = lag;
            }
        }
        for filter in &filters {
            if filter.condition.has_lookup() {
                return Err(PlanError::FilterLookup(filter.id.clone()));
            }
            check_regexes(&filter.id, &filter.condition)?;
        }
        let exceptions = rules.iter().map(|rule| match rule {
            Rule::Detection(rule) => RuleExceptions::of(rule, &filters),
            Rule::Correlation(_) | Rule::Sql(_) => RuleExceptions::default(),
        });
        let exceptions = exceptions.collect();
        let explainers = rules.iter().map(|_| OnceLock::new()).collect();
        let names = Names::of(&rules);
        Ok(Self {
            rules,
            tables,
            filters,
            members,
            lookups,
            needs,
            order,
            lags,
            exceptions,
            explainers,
            programs: Mutex::default(),
            names,
            readers: Mutex::default(),
        })
    }

    /// The rules; a rule's number is its index.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The exceptions.
    #[must_use]
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// The rules a correlation looks at, in the order written; empty for other rules.
    #[must_use]
    pub fn members(&self, rule: usize) -> &[usize] {
        self.members.get(rule).map_or(&[], Vec::as_slice)
    }

    /// The rules a rule's matches rest on: members of a correlation, and what feeds the tables a rule looks things up in.
    #[must_use]
    pub fn needs(&self, rule: usize) -> &[usize] {
        self.needs.get(rule).map_or(&[], Vec::as_slice)
    }

    /// The lookups of a rule, in the order of its condition.
    #[must_use]
    pub fn lookups(&self, rule: usize) -> &[CompiledLookup] {
        self.lookups.lookups.get(rule).map_or(&[], Vec::as_slice)
    }

    /// The tables a rule feeds, and what its matches do there.
    #[must_use]
    pub fn table_feeds(&self, rule: usize) -> &[(usize, Edge)] {
        self.lookups.feeds.get(rule).map_or(&[], Vec::as_slice)
    }

    /// The `sql:` rules that fill tables in which a rule looks things up.
    pub(crate) fn asked_for(&self, rule: usize) -> impl Iterator<Item = &RuleMeta> {
        let feeders = self.lookups(rule).iter().filter_map(|lookup| self.lookups.feeders.get(lookup.table)).flatten();
        feeders.filter_map(|feeder| self.rules.get(*feeder)).filter_map(|rule| match rule {
            Rule::Sql(rule) => Some(&rule.meta),
            Rule::Detection(_) | Rule::Correlation(_) => None,
        })
    }

    /// What is settled about a table.
    #[must_use]
    pub fn table_shape(&self, table: usize) -> Option<&Arc<Shape>> {
        self.lookups.shapes.get(table)
    }

    /// The rows of a table that is written down.
    #[must_use]
    pub fn given_rows(&self, table: usize) -> Option<&Rows> {
        self.lookups.given.get(table)?.as_ref()
    }

    /// How long after an event's time a match of the rule is known, beyond its watermark: the graces of the tables on the
    /// way to it.
    #[must_use]
    pub fn lag(&self, rule: usize) -> Duration {
        self.lags.get(rule).copied().unwrap_or_default()
    }

    /// The numbers of all rules, each after those it needs.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// What is left of a detection rule's condition once all but its lookups is decided for an event.
    #[must_use]
    pub fn question(&self, rule: usize, event: &Event) -> Option<Question> {
        let Some(Rule::Detection(detection)) = self.rules.get(rule) else { return None };
        Some(self.explainer(rule, detection)?.question(detection, self.lookups(rule), event))
    }

    /// What the exceptions say about an event that matches a detection rule.
    #[must_use]
    pub fn judge(&self, rule: usize, event: &Event) -> Verdict {
        self.exceptions.get(rule).map_or_else(Verdict::default, |own| own.judge(&self.filters, event))
    }

    fn explainer(&self, rule: usize, detection: &DetectionRule) -> Option<&Explainer> {
        Some(self.explainers.get(rule)?.get_or_init(|| Box::new(Explainer::new(detection))))
    }

    /// SHA-256 (hexadecimal) over id, digest and state of all rules, in the order of their ids, and over name and digest
    /// of tables and exceptions.
    #[must_use]
    pub fn set_digest(&self) -> String {
        let mut lines: Vec<_> = self
            .rules
            .iter()
            .map(|rule| {
                let meta = rule.meta();
                let state = match meta.state {
                    RuleState::Active => "active",
                    RuleState::Staging => "staging",
                    RuleState::Paused => "paused",
                };
                // The id may hold anything, so it comes last and with its length.
                format!("{} {state} {} {}\n", meta.digest, meta.id.len(), meta.id)
            })
            .collect();
        let tables = self.tables.iter().map(|table| ("table", &table.digest, &table.name));
        let filters = self.filters.iter().map(|filter| ("filter", &filter.digest, &filter.id));
        lines.extend(
            tables.chain(filters).map(|(kind, digest, name)| format!("{digest} {kind} {} {name}\n", name.len())),
        );
        lines.sort_unstable();
        let mut hash = Sha256::new_with_prefix(b"pipeproof rule set v1\n");
        lines.iter().for_each(|line| hash.update(line));
        hex::encode(hash.finalize())
    }

    /// Matches events against the detection rules: pure, in ascending order of (event, rule).
    #[must_use]
    pub fn select(&self, events: &[Event], routing: &Routing) -> Vec<Match> {
        Selection::new(self).run(events, routing)
    }

    /// Why an event matches a rule, or why not. A correlation never matches a single event.
    #[must_use]
    pub fn explain(&self, rule: usize, event: &Event) -> Explanation {
        let Some(Rule::Detection(detection)) = self.rules.get(rule) else { return Explanation::default() };
        let explainer = self.explainer(rule, detection);
        explainer.map_or_else(Explanation::default, |own| own.explain(detection, self.lookups(rule), event))
    }

    fn program(&self, route: &Route) -> Arc<Program> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs.get(route) {
            return Arc::clone(program);
        }
        let mut compiler = Compiler::new(route.spelling());
        for (number, rule) in self.rules.iter().enumerate() {
            if let Rule::Detection(rule) = rule
                && rule.meta.state != RuleState::Paused
                && let Some(category) = route.admits(rule)
            {
                let candidate = rule.condition.without_lookups();
                let condition = candidate.as_ref().unwrap_or(&rule.condition);
                compiler.add(&Source { rule: number, taxonomy: rule.taxonomy, condition, category });
            }
        }
        let program = Arc::new(compiler.build());
        // Events decide which there are, so there is a limit; those in use stay until they are done with.
        if programs.len() >= PROGRAMS_MAX {
            programs.clear();
        }
        programs.insert(route.clone(), Arc::clone(&program));
        program
    }
}

/// Reads fields of one event for group keys, entities and the placeholders of alerts; its JSON is parsed at most once, and
/// only if a field is native.
#[derive(Debug)]
pub struct FieldReader<'e> {
    event: &'e Event,
    json: OnceCell<Option<Json>>,
}

impl<'e> FieldReader<'e> {
    /// A reader of this event.
    #[must_use]
    pub const fn new(event: &'e Event) -> Self {
        Self { event, json: OnceCell::new() }
    }

    /// The text of a field: a normalised one under `cicd`, else the first value that is not null at the native path. An
    /// object is compact JSON.
    #[must_use]
    pub fn text(&self, taxonomy: Taxonomy, field: &str) -> Option<String> {
        if taxonomy == Taxonomy::Cicd
            && let Some(field) = Field::from_name(field)
        {
            return self.event.fields.get(field).map(ToString::to_string);
        }
        let json = self.json.get_or_init(|| Json::parse(&self.event.native).ok()).as_ref()?;
        let found = Spelling::of(self.event.source_type).find(json.root(), field);
        found.into_iter().find(|value| !value.is_null() && !value.is_array()).map(|value| value.text().into_owned())
    }
}

impl Route {
    /// How the events on it name their members.
    const fn spelling(&self) -> Spelling {
        match self {
            Self::Source(kind) => Spelling::of(*kind),
            Self::Logsource(_) | Self::All => Spelling::Written,
        }
    }

    /// Whether a rule is for events on this route, and the category they must have then.
    fn admits<'r>(&self, rule: &'r DetectionRule) -> Option<Option<(&'r str, bool)>> {
        let Logsource { product, service, category } = &rule.logsource;
        let (product, service, category) = (product.as_deref(), service.as_deref(), category.as_deref());
        let cicd = product == Some("cicd");
        // The family of the action is a field of every normalised event. One without it is not kept from cicd rules,
        // while a rule for another product's category needs it said.
        let check = category.map(|category| (category, cicd));
        match self {
            Self::All => Some(None),
            Self::Source(kind) if cicd => service.is_none_or(|service| service == kind.name()).then_some(check),
            Self::Source(kind) => {
                let named = product.is_some() || service.is_some();
                let fits = if named { feed::is_native(*kind, &rule.logsource) } else { category.is_some() };
                // Sigma files all of a Kubernetes audit log under one category, which says nothing about an event.
                fits.then_some(check.filter(|(category, _)| !feed::is_native_category(*kind, category)))
            }
            Self::Logsource(own) => {
                let fits = |wanted: Option<&str>, own: &Option<String>| match (wanted, own) {
                    (Some(wanted), Some(own)) => wanted == own,
                    _ => true,
                };
                let fits = fits(product, &own.product) && fits(service, &own.service) && fits(category, &own.category);
                // As a server would, where it is said what log it is and that is one of ours: a rule for web servers in
                // general is not for CloudTrail.
                let alone = category.filter(|_| product.is_none() && service.is_none() && own.category.is_none());
                let fits = fits && !alone.is_some_and(|category| feed::is_of_other_category(own, category));
                // What kind of event it is was said, or nothing is known about it.
                fits.then_some(check.filter(|_| cicd && own.category.is_none()))
            }
        }
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
