//! What each correlation holds right now, for lists of rules.

use serde::Serialize;

use super::Detector;
use super::topology::heard_for;
use crate::correlate::Size;
use crate::plan::Plan;
use crate::rule::Rule;
use crate::source::SourceType;

/// What a correlation rule holds, both lanes together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleStatus {
    /// Id of the rule.
    pub rule: String,
    /// What it holds.
    #[serde(flatten)]
    pub size: Size,
    /// Signals that came after the watermark had passed their time, since the process started.
    pub late: u64,
    /// What was dropped at a bound, since the process started.
    pub evicted: u64,
}

impl Detector {
    /// What each correlation holds. Walks all groups of learning rules.
    #[must_use]
    pub fn rule_status(&self) -> Vec<RuleStatus> {
        let mut all = Vec::with_capacity(self.topology.links.len());
        for (link, lanes) in self.topology.links.iter().zip(&self.state.correlations) {
            let Some(Rule::Correlation(rule)) = self.plan.rules().get(link.number) else { continue };
            let mut status = RuleStatus { rule: rule.meta.id.clone(), ..RuleStatus::default() };
            for lane in [&lanes.live, &lanes.backfill] {
                let Size { groups, waiting, obligations, blind, learning } = lane.size(rule);
                status.size.groups += groups;
                status.size.waiting += waiting;
                status.size.obligations += obligations;
                status.size.blind += blind;
                status.size.learning += learning;
                status.late += lane.counts().late;
                status.evicted += lane.counts().evicted;
            }
            all.push(status);
        }
        all
    }
}

/// The sources without which the plan's rules cannot say that something did not happen: of each list, one of its types
/// must be heard. A live run in which none is parks what these rules would find.
#[must_use]
pub fn must_be_heard(plan: &Plan) -> Vec<Vec<SourceType>> {
    let all = (0..plan.rules().len()).flat_map(|number| heard_for(plan, number));
    all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
