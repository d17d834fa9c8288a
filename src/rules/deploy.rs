//! Putting another set of rules in force: whole or not at all, its content on stable storage first, then the record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use pipeproof_engine::control::{
    Approval, Control, DeployedException, DeployedRule, OWN_SOURCE, RulesChange, RulesRecord,
};
use pipeproof_engine::rule::RuleState;
use pipeproof_ingest::log::AppendError;
use pipeproof_rules::{ReadError, read_folder};
use serde::Serialize;

use super::compile::SetError;
use super::content::{Content, ContentError, Layer};
use super::exceptions::Draft;
use super::in_force::{Set, Trouble, wanted};
use crate::config::Config;
use crate::node::Shared;

/// Why a set was not put in force. The one before stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Set(#[from] SetError),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Missing(String),
    #[error("cannot write to the log")]
    Log(#[from] AppendError),
    #[error("cannot {doing}")]
    Part {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<ContentError> for ChangeError {
    fn from(error: ContentError) -> Self {
        Self::Set(error.into())
    }
}

impl From<ReadError> for ChangeError {
    fn from(error: ReadError) -> Self {
        Self::Set(error.into())
    }
}

/// Who changes the rules, and what they say about it.
#[derive(Clone, Debug)]
pub(crate) struct Mandate {
    /// Who, as the record names them.
    pub(crate) actor: String,
    /// Their name alone, to compare with the approver's.
    pub(crate) author: String,
    pub(crate) approved_by: Option<String>,
    pub(crate) note: Option<String>,
}

impl Mandate {
    /// The program itself, or a signal to it.
    pub(crate) fn own(actor: &str) -> Self {
        Self { actor: actor.to_owned(), author: actor.to_owned(), approved_by: None, note: None }
    }
}

/// What a change came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// The set in force after it.
    pub(crate) set: String,
    /// The log record that says so; none where nothing had to be said.
    pub(crate) record: Option<u64>,
    pub(crate) approval: Approval,
    /// Ids of rules that the set before did not have.
    pub(crate) added: Vec<String>,
    /// Ids of rules that are gone.
    pub(crate) removed: Vec<String>,
    /// Ids of rules that decide otherwise now.
    pub(crate) changed: Vec<String>,
    /// State of the rules that have another one now.
    pub(crate) states: BTreeMap<String, RuleState>,
    /// How many rules the set has.
    pub(crate) rules: usize,
    /// How many warnings there are about them, those that are shipped left out.
    pub(crate) warnings: usize,
}

/// Deploys files in the place of those deployed before.
pub(crate) async fn deploy(
    shared: &Arc<Shared>,
    mandate: Mandate,
    files: Vec<(String, Bytes)>,
) -> Result<Outcome, ChangeError> {
    let make = move |head: &Set| {
        let mut content = head.content.clone();
        content.set_layer(Layer::Deployed, files)?;
        Ok(content)
    };
    change(shared, mandate, make, |_, _| Ok(RulesChange::Deploy {})).await
}

/// Reads the configured folder again. What is wrong with it is remembered until it is put right.
pub(crate) async fn reload(shared: &Arc<Shared>, mandate: Mandate) -> Result<Outcome, ChangeError> {
    let Some(folder) = shared.rules.folder.clone() else {
        let text = "no folder of rules is configured: set `rules: {dir: …}`, or deploy one with `rules deploy DIR`";
        return Err(ChangeError::Usage(text.to_owned()));
    };
    let make = move |head: &Set| {
        let mut content = head.content.clone();
        let files = read_folder(&folder)?.into_iter().map(|(path, bytes)| (path, Bytes::from(bytes)));
        content.set_layer(Layer::Folder, files)?;
        Ok(content)
    };
    let done = change(shared, mandate, make, |_, _| Ok(RulesChange::Reload {})).await;
    match &done {
        Ok(outcome) => {
            note_trouble(shared, None).await;
            let (set, new) = (&outcome.set, outcome.record.is_some());
            tracing::info!(set, new, rules = outcome.rules, "read the folder of rules again");
        }
        Err(error) => note_trouble(shared, Some(error)).await,
    }
    done
}

/// Gives a rule, by id or name, another state.
pub(crate) async fn set_state(
    shared: &Arc<Shared>,
    mandate: Mandate,
    rule: String,
    to: RuleState,
) -> Result<Outcome, ChangeError> {
    let make = {
        let rule = rule.clone();
        move |head: &Set| {
            let id = rule_id(head, &rule)?;
            let mut content = head.content.clone();
            if state_of(head).get(id.as_str()) != Some(&to) {
                content.states.insert(id, to);
            }
            Ok(content)
        }
    };
    let describe = move |before: &Set, _: &Set| {
        let id = rule_id(before, &rule)?;
        let from = state_of(before).get(id.as_str()).copied().unwrap_or_default();
        Ok(RulesChange::State { rule: id, from, to })
    };
    change(shared, mandate, make, describe).await
}

/// Adds exceptions.
pub(crate) async fn add_exception(
    shared: &Arc<Shared>,
    mandate: Mandate,
    draft: Draft,
) -> Result<(Outcome, Vec<String>), ChangeError> {
    let now = shared.clock.now();
    let ids = Arc::new(std::sync::Mutex::new(Vec::new()));
    let make = move |head: &Set| {
        let (path, text) = draft.write(head)?;
        let mut content = head.content.clone();
        content.insert(Layer::Exceptions, &path, Bytes::from(text))?;
        Ok(content)
    };
    let found = Arc::clone(&ids);
    let describe = move |before: &Set, after: &Set| {
        let new = super::exceptions::added(before, after, now)?;
        found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone_from(&new);
        Ok(RulesChange::ExceptionAdded { ids: new })
    };
    let outcome = change(shared, mandate, make, describe).await?;
    let ids = ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    Ok((outcome, ids))
}

/// Takes back an exception that was added here.
pub(crate) async fn remove_exception(
    shared: &Arc<Shared>,
    mandate: Mandate,
    id: String,
) -> Result<Outcome, ChangeError> {
    let make = {
        let id = id.clone();
        move |head: &Set| super::exceptions::without(head, &id)
    };
    change(shared, mandate, make, move |_, _| Ok(RulesChange::ExceptionRemoved { id })).await
}

/// What a start puts in force: what program and configuration ask for, if the set in force is another. A folder that
/// cannot be used leaves the set as it is.
pub(crate) async fn start(shared: &Arc<Shared>, config: &Config) -> Result<(), ChangeError> {
    let known = shared.registry().rules.is_some();
    if known && config.keep_rules {
        return Ok(());
    }
    let head = shared.rules.head();
    let change_of_start = || RulesChange::Start { version: env!("CARGO_PKG_VERSION").to_owned() };
    if !known {
        record(shared, Mandate::own(OWN_SOURCE), None, &head, change_of_start()).await?;
        return Ok(());
    }
    let done = match wanted(&head.content, config) {
        Ok(content) => {
            change(shared, Mandate::own(OWN_SOURCE), move |_| Ok(content), move |_, _| Ok(change_of_start())).await
        }
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(_) => {
            shared.record_refusal("rules", None).await;
            Ok(())
        }
        Err(error @ ChangeError::Set(_)) => {
            note_trouble(shared, Some(&error)).await;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn change<M, D>(shared: &Arc<Shared>, mandate: Mandate, make: M, describe: D) -> Result<Outcome, ChangeError>
where
    M: FnOnce(&Set) -> Result<Content, ChangeError> + Send + 'static,
    D: FnOnce(&Set, &Set) -> Result<RulesChange, ChangeError> + Send + 'static,
{
    let _turn = shared.rules.turn.lock().await;
    let head = shared.rules.head();
    let before = Arc::clone(&head);
    let build = move || {
        let content = make(&before)?;
        let same = content == before.content;
        let after = if same { Arc::clone(&before) } else { Arc::new(Set::new(content)?) };
        let change = describe(&before, &after)?;
        Ok::<_, ChangeError>((after, change))
    };
    let (after, change) = tokio::task::spawn_blocking(build).await.map_err(part("compile the rules"))??;
    if after.digest == head.digest && !matches!(change, RulesChange::Deploy {}) {
        return Ok(outcome(&head, &after, None, Approval::None));
    }
    record(shared, mandate, Some(&head), &after, change).await
}

/// Keeps the content, says so in the log, and makes it the set in force.
async fn record(
    shared: &Arc<Shared>,
    mandate: Mandate,
    before: Option<&Arc<Set>>,
    after: &Arc<Set>,
    change: RulesChange,
) -> Result<Outcome, ChangeError> {
    let (root, like, set) = (shared.rules.root().to_owned(), before.cloned(), Arc::clone(after));
    let save = move || set.content.save(&root, like.as_ref().map(|like| (like.digest.as_str(), &like.content)));
    tokio::task::spawn_blocking(save).await.map_err(part("keep the rules"))??;
    shared.store.keep_rule_texts(&after.rules.texts).await.map_err(part("keep the texts of the rules"))?;
    shared.rules.expect(after);
    let approval = Approval::judge(&mandate.author, mandate.approved_by.as_deref());
    let what = what(&change);
    let control = Control::RulesDeployed(RulesRecord {
        set: after.digest.clone(),
        rules: rules_of(after),
        exceptions: exceptions_of(after),
        change: Some(change),
        actor: mandate.actor,
        approved_by: mandate.approved_by,
        approval,
        note: mandate.note,
    });
    let index = shared.control(control).await?;
    shared.rules.set_head(Arc::clone(after));
    shared.metrics.rules_deployed.with_label_values(&[what]).inc();
    tracing::info!(set = after.digest, what, record = index, "another set of rules is in force");
    Ok(outcome(before.unwrap_or(after), after, Some(index), approval))
}

const fn what(change: &RulesChange) -> &'static str {
    match change {
        RulesChange::Start { .. } => "start",
        RulesChange::Reload {} => "reload",
        RulesChange::Deploy {} => "deploy",
        RulesChange::State { .. } => "state",
        RulesChange::ExceptionAdded { .. } | RulesChange::ExceptionRemoved { .. } => "exception",
    }
}

fn rules_of(set: &Set) -> Vec<DeployedRule> {
    let metas = set.plan().rules().iter().map(|rule| rule.meta());
    metas.map(|meta| DeployedRule { id: meta.id.clone(), digest: meta.digest.clone(), state: meta.state }).collect()
}

fn exceptions_of(set: &Set) -> Vec<DeployedException> {
    let of = |filter: &pipeproof_engine::rule::Filter| DeployedException {
        id: filter.id.clone(),
        digest: filter.digest.clone(),
        expires: filter.expires,
        reason: filter.reason.clone(),
        approved_by: filter.approved_by.clone(),
        ticket: filter.ticket.clone(),
    };
    set.plan().filters().iter().map(of).collect()
}

fn outcome(before: &Set, after: &Set, record: Option<u64>, approval: Approval) -> Outcome {
    let digests = |set: &Set| -> BTreeMap<String, String> {
        set.plan().rules().iter().map(|rule| (rule.meta().id.clone(), rule.meta().digest.clone())).collect()
    };
    let (old, new) = (digests(before), digests(after));
    let (old_ids, new_ids): (BTreeSet<_>, BTreeSet<_>) = (old.keys().collect(), new.keys().collect());
    let states = state_of(before);
    Outcome {
        set: after.digest.clone(),
        record,
        approval,
        added: new_ids.difference(&old_ids).map(|id| (*id).clone()).collect(),
        removed: old_ids.difference(&new_ids).map(|id| (*id).clone()).collect(),
        changed: new
            .iter()
            .filter(|(id, digest)| old.get(*id).is_some_and(|old| old != *digest))
            .map(|(id, _)| id.clone())
            .collect(),
        states: state_of(after)
            .into_iter()
            .filter(|(id, state)| states.get(id).is_some_and(|old| old != state))
            .map(|(id, state)| (id.to_owned(), state))
            .collect(),
        rules: after.plan().rules().len(),
        warnings: after
            .rules
            .warnings
            .iter()
            .filter(|problem| !problem.file.starts_with(Layer::Library.name()))
            .count(),
    }
}

fn state_of(set: &Set) -> BTreeMap<&str, RuleState> {
    set.plan().rules().iter().map(|rule| (rule.meta().id.as_str(), rule.meta().state)).collect()
}

fn rule_id(set: &Set, name: &str) -> Result<String, ChangeError> {
    set.find(name)
        .map(|rule| rule.meta().id.clone())
        .ok_or_else(|| ChangeError::Missing(format!("there is no rule with id or name `{name}`: see `rules list`")))
}

async fn note_trouble(shared: &Shared, error: Option<&ChangeError>) {
    shared.metrics.rules_refused.set(i64::from(error.is_some()));
    let Some(error) = error else {
        shared.rules.set_trouble(None);
        return shared.record_refusal("rules", None).await;
    };
    let problem = match error {
        ChangeError::Set(error) => error.in_brief(),
        other => crate::chain(other),
    };
    tracing::error!(
        problem,
        set = shared.rules.head().digest,
        "the rules of program and configuration cannot be used: the set before stays in force"
    );
    shared.rules.set_trouble(Some(Trouble { since: shared.clock.now(), problem: problem.clone() }));
    shared.record_refusal("rules", Some(problem)).await;
}

fn part<E>(doing: &'static str) -> impl FnOnce(E) -> ChangeError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| ChangeError::Part { doing, source: source.into() }
}
