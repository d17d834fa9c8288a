//! What the rules in force can see: rules against the sources that are connected, and both against techniques, risks and
//! controls. A rule that cannot see is counted as blind, never as covering anything.

use std::collections::BTreeMap;

use pipeproof_engine::feed;
use pipeproof_engine::plan::Plan;
use pipeproof_engine::rule::{Operator, Rule, RuleState};
use pipeproof_engine::source::SourceType;
use serde::Serialize;

/// The ten risks of OWASP's list for CI/CD, by the number in the tag `owasp-cicd.sec-N`.
const OWASP: [&str; 10] = [
    "Insufficient Flow Control Mechanisms",
    "Inadequate Identity and Access Management",
    "Dependency Chain Abuse",
    "Poisoned Pipeline Execution",
    "Insufficient PBAC (Pipeline-Based Access Controls)",
    "Insufficient Credential Hygiene",
    "Insecure System Configuration",
    "Ungoverned Usage of 3rd Party Services",
    "Improper Artifact Integrity Validation",
    "Insufficient Logging and Visibility",
];
/// How deep members of members are followed.
const DEPTH_MAX: usize = 16;

/// A source that is connected.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Connected {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) source_type: SourceType,
    /// Records of the last 24 hours.
    pub(crate) records_24h: u64,
}

/// Whether a rule can see what it is about. The order is from bad to good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sight {
    /// Something it cannot do without is not connected.
    Blind,
    /// Something it cannot do without is connected and has sent nothing for 24 hours.
    Silent,
    /// One of several things it looks at is not connected, or sends nothing.
    Partly,
    /// Everything is connected and sends.
    Sees,
}

/// Something a rule looks at.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Need {
    /// A source type, a feed, or a logsource.
    name: String,
    sight: Sight,
    /// The connected sources it comes from.
    sources: Vec<String>,
    /// The source types it may come from; empty where none is known.
    types: Vec<SourceType>,
}

/// A rule with what it sees.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RuleSight {
    id: String,
    title: String,
    state: RuleState,
    sight: Sight,
    needs: Vec<Need>,
    /// Names of the needs that are not met.
    missing: Vec<String>,
}

/// How far a technique, a risk or a control is covered.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Covered {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'static str>,
    active: usize,
    staging: usize,
    paused: usize,
    /// Of the active and staging ones: those that see at least part.
    seeing: usize,
    /// Of the active and staging ones: those that see nothing.
    blind: usize,
}

/// What the rules in force cover.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Coverage {
    sources: Vec<Connected>,
    rules: Vec<RuleSight>,
    /// By ATT&CK technique.
    attack: Vec<Covered>,
    owasp_cicd: Vec<Covered>,
    /// By framework and control.
    controls: BTreeMap<String, Vec<Covered>>,
}

/// Puts rules and sources side by side. Rules that only feed others are left out.
pub(crate) fn coverage(plan: &Plan, sources: Vec<Connected>) -> Coverage {
    let mut rules = Vec::new();
    let mut attack = Counts::default();
    let mut owasp = Counts::default();
    for number in 1..=OWASP.len() {
        owasp.0.entry(format!("sec-{number:02}")).or_default();
    }
    let mut controls: BTreeMap<String, Counts> =
        ["soc2", "iso27001"].into_iter().map(|name| (name.to_owned(), Counts::default())).collect();
    for (number, rule) in plan.rules().iter().enumerate().filter(|(_, rule)| rule.meta().emits) {
        let meta = rule.meta();
        let (all, needs) = needs(plan, number, &sources, 0);
        let sight = judge(all, &needs);
        let missing = needs.iter().filter(|need| need.sight == Sight::Blind).map(|need| need.name.clone()).collect();
        for tag in &meta.tags {
            if let Some(technique) = technique(tag) {
                attack.count(technique, meta.state, sight);
            } else if let Some(risk) =
                tag.strip_prefix("owasp-cicd.sec-").and_then(|number| number.parse::<usize>().ok())
            {
                owasp.count(format!("sec-{risk:02}"), meta.state, sight);
            }
        }
        for (framework, ids) in &meta.controls {
            let counts = controls.entry(framework.clone()).or_default();
            ids.iter().for_each(|id| counts.count(id.clone(), meta.state, sight));
        }
        rules.push(RuleSight {
            id: meta.id.clone(),
            title: meta.title.clone(),
            state: meta.state,
            sight,
            needs,
            missing,
        });
    }
    let mut owasp_cicd = owasp.rows();
    for row in &mut owasp_cicd {
        let number: usize = row.id.trim_start_matches("sec-").parse().unwrap_or_default();
        row.id = format!("sec-{number}");
        row.title = number.checked_sub(1).and_then(|at| OWASP.get(at)).copied();
    }
    let controls = controls.into_iter().map(|(framework, counts)| (framework, counts.rows())).collect();
    Coverage { sources, rules, attack: attack.rows(), owasp_cicd, controls }
}

/// What each rule of a plan sees.
pub(crate) fn sights(plan: &Plan, sources: &[Connected]) -> Vec<Sight> {
    let of = |number| {
        let (all, needs) = needs(plan, number, sources, 0);
        judge(all, &needs)
    };
    (0..plan.rules().len()).map(of).collect()
}

#[derive(Default)]
struct Counts(BTreeMap<String, Covered>);

impl Counts {
    fn count(&mut self, id: String, state: RuleState, sight: Sight) {
        let row = self.0.entry(id).or_default();
        match state {
            RuleState::Active => row.active += 1,
            RuleState::Staging => row.staging += 1,
            RuleState::Paused => row.paused += 1,
        }
        match (state, sight) {
            (RuleState::Paused, _) => {}
            (_, Sight::Sees | Sight::Partly) => row.seeing += 1,
            (_, Sight::Blind | Sight::Silent) => row.blind += 1,
        }
    }

    fn rows(self) -> Vec<Covered> {
        self.0.into_iter().map(|(id, row)| Covered { id, ..row }).collect()
    }
}

/// `T1234` or `T1234.001` of a tag such as `attack.t1234.001`.
fn technique(tag: &str) -> Option<String> {
    let id = tag.strip_prefix("attack.t")?;
    let (technique, sub) = id.split_once('.').unwrap_or((id, "000"));
    let digits = |text: &str, len: usize| text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(technique, 4) && digits(sub, 3)).then(|| format!("T{id}"))
}

/// What a rule looks at, and whether it needs all of it: an order of events cannot be seen with half of them missing,
/// but one of several secret stores can be watched alone.
fn needs(plan: &Plan, number: usize, sources: &[Connected], depth: usize) -> (bool, Vec<Need>) {
    let Some(rule) = plan.rules().get(number) else { return (true, Vec::new()) };
    let all = match rule {
        Rule::Detection(_) => false,
        Rule::Sql(_) => true,
        Rule::Correlation(rule) => matches!(rule.operator, Operator::Temporal { .. }),
    };
    let required = &rule.meta().requires;
    if !required.is_empty() {
        let need = |name: &String| Need::new(name.clone(), feed::resolve(name).unwrap_or_default(), sources);
        return (all, required.iter().map(need).collect());
    }
    let needs = match rule {
        Rule::Detection(rule) => {
            let types = feed::of_logsource(&rule.logsource).into_iter().collect();
            vec![Need::new(rule.logsource.to_string(), types, sources)]
        }
        Rule::Sql(_) => Vec::new(),
        Rule::Correlation(_) if depth >= DEPTH_MAX => Vec::new(),
        Rule::Correlation(_) => {
            let of_member = |member: &usize| {
                let (all, needs) = needs(plan, *member, sources, depth + 1);
                let sight = judge(all, &needs);
                let title = plan.rules().get(*member).map(|rule| rule.meta().title.clone()).unwrap_or_default();
                let mut names: Vec<String> = needs.iter().flat_map(|need| need.sources.clone()).collect();
                let mut types: Vec<SourceType> = needs.iter().flat_map(|need| need.types.clone()).collect();
                names.sort();
                names.dedup();
                types.sort();
                types.dedup();
                Need { name: title, sight, sources: names, types }
            };
            plan.members(number).iter().map(of_member).collect()
        }
    };
    (all, needs)
}

impl Need {
    fn new(name: String, types: Vec<SourceType>, sources: &[Connected]) -> Self {
        let found: Vec<&Connected> = sources.iter().filter(|source| types.contains(&source.source_type)).collect();
        let sight = match found.iter().map(|source| source.records_24h).max() {
            None => Sight::Blind,
            Some(0) => Sight::Silent,
            Some(_) => Sight::Sees,
        };
        Self { name, sight, sources: found.into_iter().map(|source| source.name.clone()).collect(), types }
    }
}

fn judge(all: bool, needs: &[Need]) -> Sight {
    let sights = needs.iter().map(|need| need.sight);
    let worst = sights.clone().min().unwrap_or(Sight::Sees);
    let best = sights.max().unwrap_or(Sight::Sees);
    if all || worst == best {
        worst
    } else if best >= Sight::Partly {
        Sight::Partly
    } else {
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::compile::read_content;
    use crate::rules::content::{Content, Layer};

    fn plan(text: &str) -> Plan {
        let mut content = Content::default();
        content.insert(Layer::Deployed, "r.yml", bytes::Bytes::copy_from_slice(text.as_bytes())).unwrap();
        let set = read_content(&content).unwrap();
        assert!(!set.has_errors(), "{:?}", set.diagnostics);
        Plan::compile(set.rules).unwrap()
    }

    const RULES: &str = "
title: One of two
id: one
tags: [attack.credential-access, attack.t1552.001, owasp-cicd.sec-6]
controls: {soc2: [CC6.1]}
requires: [vault.audit, aws.cloudtrail]
logsource: {product: cicd}
detection: {s: {action: secret.read}, condition: s}
---
title: Pushed
id: pushed
logsource: {product: github, service: webhook}
detection: {s: {action: git.push}, condition: s}
---
title: Stopped
id: stopped
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: StopLogging}, condition: s}
---
title: Both in order
id: both
tags: [owasp-cicd.sec-10]
correlation: {type: temporal_ordered, rules: [pushed, stopped], group-by: [ci.repo], timespan: 5m}
";

    fn source(name: &str, source_type: SourceType, records_24h: u64) -> Connected {
        Connected { name: name.to_owned(), source_type, records_24h }
    }

    #[test]
    fn half_of_an_order_is_blind_and_one_of_two_stores_is_not() {
        let plan = plan(RULES);
        let of =
            |coverage: &Coverage, id: &str| coverage.rules.iter().find(|rule| rule.id == id).map(|rule| rule.sight);
        let none = coverage(&plan, Vec::new());
        assert_eq!(
            (of(&none, "one"), of(&none, "both"), of(&none, "pushed")),
            (Some(Sight::Blind), Some(Sight::Blind), None)
        );
        let cloud = coverage(&plan, vec![source("trail", SourceType::AwsCloudtrail, 7)]);
        assert_eq!((of(&cloud, "one"), of(&cloud, "both")), (Some(Sight::Partly), Some(Sight::Blind)));
        let both = vec![source("trail", SourceType::AwsCloudtrail, 7), source("hooks", SourceType::GithubWebhook, 0)];
        assert_eq!(of(&coverage(&plan, both), "both"), Some(Sight::Silent));
        let technique = &cloud.attack[0];
        assert_eq!((technique.id.as_str(), technique.active, technique.seeing), ("T1552.001", 1, 1));
        assert_eq!(cloud.owasp_cicd.len(), 10);
        let risk = |number: usize| &cloud.owasp_cicd[number - 1];
        assert_eq!((risk(6).id.as_str(), risk(6).seeing, risk(10).blind, risk(1).active), ("sec-6", 1, 1, 0));
        assert_eq!(cloud.controls["soc2"][0].id, "CC6.1");
        assert!(cloud.controls["iso27001"].is_empty());
    }
}
