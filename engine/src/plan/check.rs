//! What makes rules no plan: expressions that do not compile, rules that rest on themselves.

use super::PlanError;
use crate::rule::{Condition, Predicate, Rule};

/// Compiles every regular expression of a condition.
pub(super) fn check_regexes(rule: &str, condition: &Condition) -> Result<(), PlanError> {
    let (field, predicate) = match condition {
        Condition::And(parts) | Condition::Or(parts) => {
            return parts.iter().try_for_each(|part| check_regexes(rule, part));
        }
        Condition::Not(part) => return check_regexes(rule, part),
        Condition::Field { field, predicate } => (field.as_str(), predicate),
        Condition::Keyword(predicate) => ("keywords", predicate),
        Condition::Lookup(lookup) => {
            let field = |(column, predicate): &(String, Predicate)| Condition::Field {
                field: column.clone(),
                predicate: predicate.clone(),
            };
            return lookup.columns.iter().map(field).try_for_each(|part| check_regexes(rule, &part));
        }
    };
    match predicate {
        Predicate::Regex(pattern) => regex::Regex::new(pattern).map(|_| ()).map_err(|cause| PlanError::Regex {
            rule: rule.to_owned(),
            field: field.to_owned(),
            pattern: pattern.clone(),
            cause: Box::new(cause),
        }),
        _ => Ok(()),
    }
}

/// The numbers of all rules, each after those it needs; an error if some rule needs itself.
pub(super) fn topological(rules: &[Rule], needs: &[Vec<usize>]) -> Result<Vec<usize>, PlanError> {
    // Again and again, take the rules all of whose needs are taken; what stays leads into a circle.
    let mut order = Vec::with_capacity(rules.len());
    let mut taken = vec![false; rules.len()];
    loop {
        let is_taken = |number: &usize| taken.get(*number) == Some(&true);
        let ready = |number: &usize| !is_taken(number) && needs.get(*number).into_iter().flatten().all(is_taken);
        let next: Vec<usize> = (0..rules.len()).filter(ready).collect();
        if next.is_empty() {
            break;
        }
        for number in &next {
            if let Some(slot) = taken.get_mut(*number) {
                *slot = true;
            }
        }
        order.extend(next);
    }
    match taken.iter().position(|taken| !taken).and_then(|number| rules.get(number)) {
        Some(rule) => Err(PlanError::Cycle(rule.meta().id.clone())),
        None => Ok(order),
    }
}
