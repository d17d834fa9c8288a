//! The incidents that detection keeps, found by their entities.

use std::collections::{BTreeMap, BTreeSet};

use super::{ENTITIES_MAX, Incident, IncidentStep, OPEN_MAX, OVER_MAX, Status, StepError, Verb};
use crate::finding::Finding;
use crate::redaction::Forgotten;
use crate::time::Timestamp;

/// An incident in the order of a moment.
type At = (Timestamp, String);

/// The incidents detection keeps: open ones, and closed ones that may still be reopened or recur.
#[derive(Clone, Debug, Default)]
pub struct Incidents {
    by_id: BTreeMap<String, Incident>,
    /// Ids by each entity.
    by_entity: BTreeMap<String, BTreeSet<String>>,
    /// Open ones by when they were opened.
    open: BTreeSet<At>,
    /// Others by when they were over.
    over: BTreeSet<At>,
}

impl Incidents {
    /// An incident by id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Incident> {
        self.by_id.get(id)
    }

    /// Puts back an incident, as restoring does.
    pub fn insert(&mut self, incident: Incident) {
        self.remove(&incident.id);
        self.list(&incident);
        self.by_id.insert(incident.id.clone(), incident);
    }

    /// Drops what only redacted findings brought into incidents.
    pub fn redact(&mut self, of: &Forgotten) {
        for id in of.incidents.keys() {
            self.change(id, |incident| of.redact_incident(incident));
        }
    }

    /// Drops an incident, as restoring does.
    pub fn remove(&mut self, id: &str) {
        if let Some(incident) = self.by_id.remove(id) {
            self.unlist(&incident);
        }
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Incident> {
        self.by_id.values()
    }

    /// Lets a finding open or join an incident and returns the step. It joins the oldest open incident that shares an
    /// entity; a finding without entities opens one of its own, unless [`OPEN_MAX`] are open. What finds no room is named in the
    /// step's note.
    pub fn admit(&mut self, finding: &Finding) -> (Incident, IncidentStep) {
        let ids: BTreeSet<&String> =
            finding.entities.iter().filter_map(|entity| self.by_entity.get(entity)).flatten().collect();
        let sharing = || ids.iter().filter_map(|id| self.by_id.get(*id));
        let joined = sharing().filter(|incident| !incident.is_over()).min_by_key(|it| (it.opened, &it.id));
        let joined = joined.map(|incident| incident.id.clone());
        let mut note = None;
        let (id, verb) = if let Some(id) = joined {
            let no_room = self
                .change(&id, |incident| incident.join(finding).into_iter().map(str::to_owned).collect::<Vec<_>>())
                .unwrap_or_default();
            if !no_room.is_empty() {
                let all = no_room.join(", ");
                note = Some(format!("an incident has {ENTITIES_MAX} entities at most: it goes without {all}"));
            }
            (id, Verb::Join)
        } else if let Some((_, id)) = self.open.last().filter(|_| self.open.len() >= OPEN_MAX).cloned() {
            self.change(&id, |incident| incident.join_unrelated(finding));
            note = Some(format!("{OPEN_MAX} incidents are open: it joins the last of them"));
            (id, Verb::Join)
        } else {
            let closed = sharing().filter(|incident| incident.status == Status::Closed);
            let recurs = closed.max_by_key(|it| (it.closed, &it.id)).map(|incident| incident.id.clone());
            let incident = Incident::open(finding, recurs);
            let id = incident.id.clone();
            self.insert(incident);
            (id, Verb::Open)
        };
        let step = self.step(&id, verb, finding.fired, crate::control::OWN_SOURCE, note, Some(finding.id.clone()));
        let incident = self.by_id.get(&id).cloned().unwrap_or_else(|| Incident::open(finding, None));
        (incident, step)
    }

    /// Applies what a person did.
    ///
    /// # Errors
    /// [`StepError`] if there is no such incident or the verb does not apply; nothing is changed then.
    pub fn apply(
        &mut self,
        id: &str,
        verb: Verb,
        at: Timestamp,
        actor: &str,
        note: Option<String>,
    ) -> Result<(Incident, IncidentStep), StepError> {
        let unknown = || StepError::Unknown(id.to_owned());
        self.change(id, |incident| incident.apply(verb, at)).ok_or_else(unknown)??;
        let step = self.step(id, verb, at, actor, note, None);
        let incident = self.by_id.get(id).cloned().ok_or_else(unknown)?;
        Ok((incident, step))
    }

    /// Notes that what a finding said was missing has come: the step says so, where the incident stands is for people
    /// to say. `None` if no incident that is kept names the finding.
    pub fn resolve(&mut self, finding: &str, at: Timestamp, note: String) -> Option<(Incident, IncidentStep)> {
        let of = self.by_id.values().find(|incident| incident.findings.iter().any(|id| id == finding))?;
        let id = of.id.clone();
        let step = self.step(&id, Verb::Resolve, at, crate::control::OWN_SOURCE, Some(note), Some(finding.to_owned()));
        Some((self.by_id.get(&id)?.clone(), step))
    }

    /// Forgets incidents that were over before `limit`, and the first of those beyond [`OVER_MAX`].
    pub fn forget_before(&mut self, limit: Timestamp) -> Vec<String> {
        let mut gone = Vec::new();
        while let Some((over, id)) = self.over.first()
            && (*over < limit || self.over.len() > OVER_MAX)
        {
            let id = id.clone();
            self.remove(&id);
            gone.push(id);
        }
        gone
    }

    /// Changes an incident and where it is listed.
    fn change<R>(&mut self, id: &str, change: impl FnOnce(&mut Incident) -> R) -> Option<R> {
        let mut incident = self.by_id.remove(id)?;
        self.unlist(&incident);
        let answer = change(&mut incident);
        self.list(&incident);
        self.by_id.insert(incident.id.clone(), incident);
        Some(answer)
    }

    fn list(&mut self, incident: &Incident) {
        for entity in &incident.entities {
            self.by_entity.entry(entity.clone()).or_default().insert(incident.id.clone());
        }
        self.in_order_of(incident).insert(at(incident));
    }

    fn unlist(&mut self, incident: &Incident) {
        for entity in &incident.entities {
            if let Some(ids) = self.by_entity.get_mut(entity) {
                ids.remove(&incident.id);
                if ids.is_empty() {
                    self.by_entity.remove(entity);
                }
            }
        }
        self.in_order_of(incident).remove(&at(incident));
    }

    fn in_order_of(&mut self, incident: &Incident) -> &mut BTreeSet<At> {
        if incident.is_over() { &mut self.over } else { &mut self.open }
    }

    fn step(
        &mut self,
        id: &str,
        verb: Verb,
        at: Timestamp,
        actor: &str,
        note: Option<String>,
        finding: Option<String>,
    ) -> IncidentStep {
        let number = self.by_id.get_mut(id).map_or(0, |incident| {
            let number = incident.steps;
            incident.steps += 1;
            number
        });
        IncidentStep { incident: id.to_owned(), number, verb, at, actor: actor.to_owned(), note, finding }
    }
}

/// Where an incident stands among its like.
fn at(incident: &Incident) -> At {
    let moment = if incident.is_over() { incident.closed.unwrap_or_default() } else { incident.opened };
    (moment, incident.id.clone())
}

#[cfg(test)]
mod tests {
    use super::super::{FINDINGS_NAMED, Level};
    use super::*;

    fn finding(number: usize) -> Finding {
        let time = Timestamp::from_secs(1);
        Finding {
            id: format!("f-{number}"),
            rule_id: "r".to_owned(),
            rule_title: "R".to_owned(),
            rule_digest: "d".to_owned(),
            level: Level::High,
            risk: 0,
            state: crate::rule::RuleState::Active,
            title: "R".to_owned(),
            time,
            occurred: None,
            available: time,
            fired: time,
            retro: false,
            key: BTreeMap::new(),
            entities: vec!["repo:acme/app".to_owned(), format!("run:{number}")],
            events: Vec::new(),
            because: Vec::new(),
            controls: BTreeMap::new(),
            tags: Vec::new(),
            incident: None,
        }
    }

    #[test]
    fn a_flood_of_findings_leaves_an_incident_small_and_says_what_found_no_room() {
        let mut incidents = Incidents::default();
        let (first, opened) = incidents.admit(&finding(0));
        assert_eq!((opened.verb, opened.note), (Verb::Open, None));
        for number in 1..1_000 {
            let (incident, step) = incidents.admit(&finding(number));
            assert_eq!((&incident.id, step.verb), (&first.id, Verb::Join));
            let has_room = number < ENTITIES_MAX - 1;
            assert_eq!(step.note.is_none(), has_room, "{number}: {:?}", step.note);
            assert!(has_room || step.note.unwrap().contains(&format!("run:{number}")));
        }
        let incident = incidents.get(&first.id).unwrap();
        assert_eq!((incident.steps, incident.entities.len()), (1_000, ENTITIES_MAX));
        let named: Vec<String> = (0..50).chain(950..1_000).map(|number| format!("f-{number}")).collect();
        assert_eq!(incident.findings, named);
        assert_eq!(named.len(), FINDINGS_NAMED);
        let later = Timestamp::from_secs(9);
        assert!(incidents.resolve("f-999", later, "it came".to_owned()).is_some());
        assert!(incidents.resolve("f-500", later, "it came".to_owned()).is_none());
    }

    #[test]
    fn what_would_open_too_many_incidents_joins_the_last_and_shares_nothing_with_it() {
        let mut incidents = Incidents::default();
        let alone = |number: usize| Finding {
            entities: vec![format!("run:{number}")],
            fired: Timestamp::from_secs(i64::try_from(number).unwrap()),
            ..finding(number)
        };
        for number in 0..OPEN_MAX {
            assert_eq!(incidents.admit(&alone(number)).1.verb, Verb::Open);
        }
        let (last, step) = incidents.admit(&alone(OPEN_MAX));
        assert_eq!((step.verb, last.findings.len()), (Verb::Join, 2));
        assert!(step.note.unwrap().contains("it joins the last of them"));
        assert_eq!(
            last.entities,
            [format!("run:{}", OPEN_MAX - 1)],
            "a finding that shares nothing makes others share nothing"
        );
        let first = incidents.admit(&alone(0)).0;
        incidents.apply(&first.id, Verb::Close, Timestamp::from_secs(90_000), "kim", None).unwrap();
        let (again, step) = incidents.admit(&Finding { entities: vec!["run:0".to_owned()], ..alone(OPEN_MAX + 1) });
        assert_eq!((step.verb, again.recurs), (Verb::Open, Some(first.id.clone())));
        assert_eq!(incidents.forget_before(Timestamp::from_secs(90_000)), Vec::<String>::new());
        assert_eq!(incidents.forget_before(Timestamp::from_secs(90_001)), [first.id]);
        assert_eq!(incidents.iter().count(), OPEN_MAX);
    }

    proptest::proptest! {
        /// What is listed is what is there, whatever was done.
        #[test]
        fn lists_follow_every_change(steps in proptest::collection::vec((0..6_usize, 0..4_usize, 0..5_usize), 1..60)) {
            let mut incidents = Incidents::default();
            for (number, (what, one, other)) in steps.into_iter().enumerate() {
                let now = Timestamp::from_secs(i64::try_from(number).unwrap());
                let of = Finding {
                    entities: vec![format!("run:{one}"), format!("run:{other}")],
                    fired: now,
                    ..finding(number)
                };
                let any = incidents.by_id.keys().nth(one).cloned().unwrap_or_default();
                match what {
                    0 => drop(incidents.apply(&any, Verb::Close, now, "kim", None)),
                    1 => drop(incidents.apply(&any, Verb::Reopen, now, "kim", None)),
                    2 => drop(incidents.forget_before(now.minus(std::time::Duration::from_secs(20)))),
                    3 => incidents.remove(&any),
                    _ => drop(incidents.admit(&of)),
                }
                let mut anew = Incidents::default();
                incidents.iter().cloned().for_each(|incident| anew.insert(incident));
                proptest::prop_assert_eq!(&anew.by_entity, &incidents.by_entity);
                proptest::prop_assert_eq!((&anew.open, &anew.over), (&incidents.open, &incidents.over));
            }
        }
    }
}
