//! How rules hang together: which correlation looks at which rule, in which order they are advanced, which sources they
//! wait for, and which fields of a match they need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::correlate::journal::CorrelationName;
use crate::correlate::{Names, Shape, names_read};
use crate::feed;
use crate::fields::Field;
use crate::plan::Plan;
use crate::rule::{Condition, CorrelationRule, Operator, Rule, RuleMeta, RuleState, TableRows, Taxonomy};
use crate::source::SourceType;

/// Fields every signal keeps, for people who read a finding.
const KEPT: &[Field] = &[
    Field::Action,
    Field::Outcome,
    Field::ActorId,
    Field::SrcIp,
    Field::CiRepo,
    Field::CiRunId,
    Field::CiRef,
    Field::TokenId,
    Field::SecretPath,
    Field::ArtifactDigest,
    Field::K8sCluster,
    Field::K8sNamespace,
    Field::CloudAccount,
];

/// A field of an event that a signal keeps.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Number of its name.
    pub(super) name: u32,
    /// The name.
    pub(super) text: String,
    /// The normalised field.
    pub(super) field: Option<Field>,
    /// The name is a path into the native JSON.
    pub(super) native: bool,
}

/// A correlation of the plan.
#[derive(Debug)]
pub(crate) struct Link {
    /// Number of the rule.
    pub(crate) number: usize,
    /// What its state is kept under.
    pub(crate) name: CorrelationName,
    pub(crate) shape: Shape,
    /// It learns from history and finds nothing in it.
    pub(crate) learns: bool,
}

/// What is done about a rule when time moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The correlation with this number among the links advances.
    Correlation(usize),
    /// Candidates whose tables can be asked are decided.
    Lookups,
}

/// A rule that waits for a watermark.
#[derive(Debug)]
pub(crate) struct Step {
    /// Number of the rule.
    pub(crate) number: usize,
    pub(super) of: Turn,
    /// The source types its watermark is over.
    pub(super) types: Vec<SourceType>,
    /// How much later than their watermark what it rests on is known.
    pub(super) lag: Duration,
    /// Steps it rests on, which come before it.
    pub(super) inner: Vec<usize>,
    /// Of each of these, some source must be heard for the rule to say that something did not happen.
    pub(super) needs: Vec<Vec<SourceType>>,
    /// How long sources must be heard again before what was parked is decided.
    pub(super) settle: Duration,
}

/// How the rules of a plan hang together.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) links: Vec<Link>,
    /// The rules that wait, each after those it rests on.
    pub(crate) steps: Vec<Step>,
    /// By rule: the correlations it is a member of, with its number there.
    pub(super) feeds: Vec<Vec<(usize, u16)>>,
    /// By rule: the fields its signals keep.
    pub(super) wanted: Vec<Vec<Wanted>>,
}

impl Topology {
    /// Works out a plan.
    pub(crate) fn new(plan: &Plan, names: &mut Names) -> Self {
        let rules = plan.rules();
        let mut feeds: Vec<Vec<(usize, u16)>> = vec![Vec::new(); rules.len()];
        let mut links: Vec<Link> = Vec::new();
        let mut steps: Vec<Step> = Vec::new();
        let mut step_of: BTreeMap<usize, usize> = BTreeMap::new();
        for number in plan.order().iter().copied() {
            let of = match rules.get(number) {
                Some(Rule::Correlation(_)) => Turn::Correlation(links.len()),
                Some(Rule::Detection(_)) if !plan.lookups(number).is_empty() => Turn::Lookups,
                _ => continue,
            };
            let types = source_types(plan, number, 0);
            let settle = types.iter().map(|kind| kind.info().lateness).max().unwrap_or_default();
            step_of.insert(number, steps.len());
            steps.push(Step {
                number,
                of,
                types,
                lag: plan.lag(number),
                inner: plan.needs(number).iter().filter_map(|needed| step_of.get(needed).copied()).collect(),
                needs: heard_for(plan, number),
                settle,
            });
            let Some(Rule::Correlation(rule)) = rules.get(number) else { continue };
            let members = plan.members(number);
            if rule.meta.state != RuleState::Paused {
                for (member, place) in members.iter().zip(0..) {
                    if let Some(feeds) = feeds.get_mut(*member) {
                        feeds.push((links.len(), place));
                    }
                }
            }
            let resolve = rule.meta.alert.resolve_on.as_deref().and_then(|name| {
                let called = |member: &usize| {
                    rules
                        .get(*member)
                        .is_some_and(|rule| rule.meta().id == name || rule.meta().name.as_deref() == Some(name))
                };
                members.iter().position(called).and_then(|place| u16::try_from(place).ok())
            });
            let field = |member: u16, name: &str| {
                let meta = members.get(usize::from(member)).and_then(|member| rules.get(*member)).map(Rule::meta);
                meta.and_then(|meta| aliased(rule, meta, name)).unwrap_or(name).to_owned()
            };
            links.push(Link {
                number,
                name: (rule.meta.id.clone(), rule.meta.digest.clone()),
                shape: Shape::new(rule, names, field, resolve, settle),
                learns: matches!(rule.operator, Operator::New { .. } | Operator::Rare { .. } | Operator::Spike { .. }),
            });
        }
        let sharers = links.len();
        links.iter_mut().for_each(|link| link.shape.share_with(sharers));
        let wanted = (0..rules.len()).map(|number| wanted(plan, number, &feeds, &links, names)).collect();
        Self { links, steps, feeds, wanted }
    }
}

/// What an alias stands for in the events of a member.
fn aliased<'r>(rule: &'r CorrelationRule, member: &RuleMeta, name: &str) -> Option<&'r str> {
    let by_rule = rule.aliases.get(name)?;
    let field = by_rule.get(&member.id).or_else(|| member.name.as_ref().and_then(|handle| by_rule.get(handle)));
    field.map(String::as_str)
}

/// The fields of the tables a rule feeds.
fn fed(plan: &Plan, number: usize) -> impl Iterator<Item = &String> {
    let tables = plan.table_feeds(number).iter().filter_map(|(table, _)| plan.tables().get(*table));
    tables.flat_map(|table| match &table.rows {
        TableRows::Derived { key, columns, .. } => key.iter().chain(columns.values()).collect(),
        TableRows::Given(_) => Vec::new(),
    })
}

/// The fields the signals of a rule keep: what the rules above it group by, judge and say, and what they put into tables.
/// Of a rule with lookups nothing but its signal is there when it says something, so it is what it says itself, too.
fn wanted(plan: &Plan, number: usize, feeds: &[Vec<(usize, u16)>], links: &[Link], names: &mut Names) -> Vec<Wanted> {
    let Some(rule) = plan.rules().get(number) else { return Vec::new() };
    let taxonomy = match rule {
        Rule::Detection(rule) => rule.taxonomy,
        Rule::Correlation(_) | Rule::Sql(_) => Taxonomy::Cicd,
    };
    // Name → whether it decides something, and so is read as the rule's taxonomy says and in no other way.
    let mut wanted: BTreeMap<String, bool> = BTreeMap::new();
    let mut open: Vec<(usize, usize)> = Vec::new();
    let above = |number: usize| feeds.get(number).into_iter().flatten().map(move |(link, _)| (number, *link));
    open.extend(above(number));
    if !plan.lookups(number).is_empty() {
        let own = said(rule.meta()).map(str::to_owned).chain(fed(plan, number).cloned());
        wanted.extend(own.map(|name| (name, true)));
    }
    let mut seen = BTreeSet::new();
    while let Some((member, link)) = open.pop() {
        let Some((above_number, Rule::Correlation(outer))) =
            links.get(link).and_then(|link| Some((link.number, plan.rules().get(link.number)?)))
        else {
            continue;
        };
        if !seen.insert((member, link)) {
            continue;
        }
        let member = plan.rules().get(member).map(Rule::meta);
        for name in names_read(outer) {
            let name = member.and_then(|member| aliased(outer, member, name)).unwrap_or(name);
            wanted.insert(name.to_owned(), true);
        }
        for name in said(&outer.meta) {
            wanted.entry(name.to_owned()).or_insert(false);
        }
        for name in fed(plan, above_number) {
            wanted.entry(name.clone()).or_insert(false);
        }
        open.extend(above(above_number));
    }
    if wanted.is_empty() && feeds.get(number).is_none_or(Vec::is_empty) {
        return Vec::new();
    }
    for field in KEPT {
        wanted.entry(field.name().to_owned()).or_insert(false);
    }
    let read = |(text, decides): (String, bool)| {
        let field = Field::from_name(&text);
        let native = match taxonomy {
            Taxonomy::Cicd => field.is_none(),
            Taxonomy::Sigma => decides || field.is_none(),
        };
        Wanted { name: names.number(&text), field: field.filter(|_| !native), native, text }
    };
    wanted.into_iter().map(read).collect()
}

/// The fields a rule's alert names.
fn said(meta: &RuleMeta) -> impl Iterator<Item = &str> {
    let title = meta.alert.title.as_deref().unwrap_or_default();
    let placeholders = title.split('{').skip(1).filter_map(|part| part.split_once('}').map(|(name, _)| name));
    let placeholders = placeholders.filter(|name| !matches!(*name, "count" | "value"));
    let entities = meta.alert.entity.iter().map(|(_, field)| field.as_str());
    placeholders.chain(entities).chain(meta.alert.dedup.iter().map(String::as_str))
}

/// The source types whose watermarks a rule waits for: those it requires, or those its members' logsources are fed by; and
/// those that feed the tables it looks things up in.
pub(super) fn source_types(plan: &Plan, number: usize, depth: usize) -> Vec<SourceType> {
    let Some(rule) = plan.rules().get(number) else { return Vec::new() };
    let required = feed::resolve_all(&rule.meta().requires);
    let rests_on = |numbers: &[usize]| -> BTreeSet<SourceType> {
        let deeper = numbers.iter().filter(|_| depth < 8);
        deeper.flat_map(|needed| source_types(plan, *needed, depth + 1)).collect()
    };
    let types = match rule {
        Rule::Detection(detection) => {
            let own = if required.is_empty() { feed::of_logsource(&detection.logsource) } else { required };
            own.union(&rests_on(plan.needs(number))).copied().collect()
        }
        Rule::Correlation(_) if required.is_empty() => rests_on(plan.members(number)),
        Rule::Correlation(_) | Rule::Sql(_) => required,
    };
    types.into_iter().collect()
}

/// The sources without which a rule cannot say that something did not happen: of each list, one of its types must be
/// heard. They are those the rule requires and those that feed members that must not match, or tables in which something
/// must not be found.
pub(super) fn heard_for(plan: &Plan, number: usize) -> Vec<Vec<SourceType>> {
    let Some(rule) = plan.rules().get(number) else { return Vec::new() };
    let absent: Vec<usize> = match rule {
        Rule::Correlation(CorrelationRule { operator: Operator::Temporal { clauses, .. }, .. }) => {
            let absent: BTreeSet<u16> = clauses.iter().flat_map(|clause| clause.absent.iter().copied()).collect();
            absent.iter().filter_map(|member| plan.members(number).get(usize::from(*member)).copied()).collect()
        }
        Rule::Detection(rule) if seeks_absence(&rule.condition, false) => plan.needs(number).to_vec(),
        Rule::Detection(_) | Rule::Correlation(_) | Rule::Sql(_) => Vec::new(),
    };
    if absent.is_empty() {
        return Vec::new();
    }
    let feeding = absent.iter().map(|member| source_types(plan, *member, 0));
    let required = rule.meta().requires.iter().filter_map(|name| feed::resolve(name).ok());
    let needs: BTreeSet<Vec<SourceType>> = required.chain(feeding).filter(|types| !types.is_empty()).collect();
    needs.into_iter().collect()
}

/// Whether a lookup stands under `not`.
fn seeks_absence(condition: &Condition, negated: bool) -> bool {
    match condition {
        Condition::And(parts) | Condition::Or(parts) => parts.iter().any(|part| seeks_absence(part, negated)),
        Condition::Not(part) => seeks_absence(part, !negated),
        Condition::Lookup(_) => negated,
        Condition::Field { .. } | Condition::Keyword(_) => false,
    }
}
