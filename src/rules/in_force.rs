//! The sets a node knows: the one the end of the log says is in force, the one detection stands under, and those in
//! between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use pipeproof_engine::plan::{Content as PlanContent, Plan};
use pipeproof_engine::rule::Rule;
use pipeproof_engine::time::Timestamp;
use pipeproof_rules::{library_files, read_folder};
use serde::Serialize;

use super::compile::{Rules, SetError, compile, read_content};
use super::content::{Content, ContentError, Layer};
use crate::config::Config;
use crate::registry::RulesInForce;

/// A set with its content.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) digest: String,
    pub(crate) content: Content,
    pub(crate) rules: Rules,
}

impl Set {
    /// Compiles content.
    pub(crate) fn new(content: Content) -> Result<Self, SetError> {
        let rules = compile(read_content(&content)?)?;
        Ok(Self { digest: content.digest(), content, rules })
    }

    pub(crate) const fn plan(&self) -> &Arc<Plan> {
        &self.rules.plan
    }

    /// A rule by id or name.
    pub(crate) fn find(&self, name: &str) -> Option<&Rule> {
        let called = |rule: &&Rule| rule.meta().id == name || rule.meta().name.as_deref() == Some(name);
        self.plan().rules().iter().find(called)
    }
}

/// Why the configured folder is not what runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trouble {
    pub(crate) since: Timestamp,
    pub(crate) problem: String,
}

/// The sets of a node.
#[derive(Debug)]
pub(crate) struct RuleSets {
    root: PathBuf,
    /// The configured folder.
    pub(super) folder: Option<PathBuf>,
    /// Held while a change is made, so that each builds on the one before.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// What the end of the log says.
    head: RwLock<Arc<Set>>,
    /// What detection stands under.
    deciding: RwLock<Option<String>>,
    /// Plans of sets that detection has not reached yet.
    plans: Mutex<BTreeMap<String, Arc<Plan>>>,
    trouble: RwLock<Option<Trouble>>,
}

impl RuleSets {
    /// The set that the log says is in force; where it says nothing yet, that of program and configuration.
    pub(crate) fn open(root: PathBuf, in_force: Option<&RulesInForce>, config: &Config) -> Result<Self, SetError> {
        std::fs::create_dir_all(&root).map_err(|source| ContentError::Io { path: root.clone(), source })?;
        let content = match in_force {
            Some(in_force) => Content::load(&root, &in_force.set)?,
            None => wanted(&Content::default(), config)?,
        };
        let head = Arc::new(Set::new(content)?);
        Ok(Self {
            root,
            folder: config.rules.clone(),
            turn: tokio::sync::Mutex::new(()),
            plans: Mutex::new(BTreeMap::from([(head.digest.clone(), Arc::clone(head.plan()))])),
            head: RwLock::new(head),
            deciding: RwLock::default(),
            trouble: RwLock::default(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The set in force at the end of the log.
    pub(crate) fn head(&self) -> Arc<Set> {
        Arc::clone(&self.head.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_head(&self, set: Arc<Set>) {
        *self.head.write().unwrap_or_else(PoisonError::into_inner) = set;
    }

    /// The plan of a set, for detection to switch to.
    pub(crate) fn plan(&self, digest: &str) -> Result<Arc<Plan>, SetError> {
        if let Some(plan) = self.plans().get(digest) {
            return Ok(Arc::clone(plan));
        }
        kept_plan(&self.root, digest)
    }

    /// The plan that a detector goes on with which stands under `set`. Before anything was deployed nothing decides; a
    /// log that never named content is evaluated with what there is.
    pub(crate) fn plan_at_start(&self, set: Option<&str>, in_force: bool) -> Result<Arc<Plan>, SetError> {
        match set {
            None => Ok(Arc::new(Plan::compile(PlanContent::default())?)),
            Some(_) if !in_force => Ok(Arc::clone(self.head().plan())),
            Some(digest) => self.plan(digest),
        }
    }

    /// Lets detection find the plan of a set whose record comes next.
    pub(super) fn expect(&self, set: &Set) {
        self.plans().insert(set.digest.clone(), Arc::clone(set.plan()));
    }

    /// Detection stands under this set from now on.
    pub(crate) fn decides(&self, digest: &str) {
        let head = self.head().digest.clone();
        // Whatever else is needed once more is read from its folder.
        self.plans().retain(|name, _| *name == head || name == digest);
        *self.deciding.write().unwrap_or_else(PoisonError::into_inner) = Some(digest.to_owned());
    }

    /// The set detection stands under.
    pub(crate) fn deciding(&self) -> Option<String> {
        self.deciding.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the configured folder is not what runs, if so.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<Trouble>) {
        *self.trouble.write().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn plans(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Plan>>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The plan of a set that is kept below `root`.
pub(crate) fn kept_plan(root: &Path, digest: &str) -> Result<Arc<Plan>, SetError> {
    let set = Set::new(Content::load(root, digest)?)?;
    Ok(Arc::clone(set.plan()))
}

/// The plan of files that are not kept, over the shipped lists.
pub(crate) fn plan_of(files: Vec<(String, String)>) -> Result<Arc<Plan>, SetError> {
    let mut content = Content::default();
    let lists = library_files().filter(|(path, _)| path.starts_with("lists/"));
    content
        .set_layer(Layer::Library, lists.map(|(path, text)| (path.to_owned(), Bytes::from_static(text.as_bytes()))))?;
    content.set_layer(Layer::Deployed, files.into_iter().map(|(path, text)| (path, Bytes::from(text))))?;
    Ok(Arc::clone(Set::new(content)?.plan()))
}

/// The content that program and configuration ask for: their layers, under what people deployed and decided.
pub(super) fn wanted(current: &Content, config: &Config) -> Result<Content, SetError> {
    let mut content = current.clone();
    // The lists are there for everybody's rules.
    let shipped = library_files().filter(|(path, _)| config.shipped_rules || path.starts_with("lists/"));
    let shipped = shipped.map(|(path, text)| (path.to_owned(), Bytes::from_static(text.as_bytes())));
    content.set_layer(Layer::Library, shipped)?;
    let folder = config.rules.as_deref().map(read_folder).transpose()?.unwrap_or_default();
    content.set_layer(Layer::Folder, folder.into_iter().map(|(path, bytes)| (path, Bytes::from(bytes))))?;
    Ok(content)
}
