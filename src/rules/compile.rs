//! From files to what runs: a set of rules is whole, or refused with everything that is wrong with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pipeproof_engine::plan::{Plan, PlanError};
use pipeproof_record::store::RuleText;
use pipeproof_rules::{
    Diagnostic, Lists, Origin, ReadError, RuleSet, Severity, library, library_lists, read_dir, read_lists,
};

use super::content::{Content, ContentError, Layer};

/// A set of rules, compiled.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) plan: Arc<Plan>,
    pub(crate) texts: Vec<RuleText>,
    /// Where each rule stands, by id.
    pub(crate) origins: BTreeMap<String, Origin>,
    /// What does not keep it from running.
    pub(crate) warnings: Vec<Diagnostic>,
}

/// Why there is no set of rules.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetError {
    #[error("the rules have errors:\n{rendered}")]
    Diagnostics { found: Vec<Diagnostic>, rendered: String },
    #[error("cannot compile the rules")]
    Plan(#[from] PlanError),
    #[error("cannot read the rules")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// Reads rules with everything that is wrong with them. Lists of the operator replace shipped ones of the same name.
pub(crate) fn read(shipped: bool, paths: &[PathBuf]) -> Result<RuleSet, SetError> {
    let mut files = if shipped { library() } else { Vec::new() };
    let mut lists = library_lists();
    for path in paths {
        files.extend(read_dir(path)?);
        lists.extend(read_lists(path)?);
    }
    Ok(pipeproof_rules::load(&files, &lists))
}

/// Reads the rules of kept content, states included.
pub(crate) fn read_content(content: &Content) -> Result<RuleSet, SetError> {
    let mut files = Vec::new();
    let mut lists = Lists::new();
    for (path, bytes) in Layer::ALL.into_iter().flat_map(|layer| content.layer(layer)) {
        let text = || String::from_utf8(bytes.to_vec()).map_err(|_| ContentError::Text(path.to_owned()));
        let (name, end) = path.rsplit_once('.').unwrap_or((path, ""));
        match end.to_ascii_lowercase().as_str() {
            "yml" | "yaml" => files.push((path.to_owned(), text()?)),
            "txt" => lists.set_text(name.rsplit('/').next().unwrap_or(name), &text()?),
            _ => {}
        }
    }
    let beside = |rule: &str, file: &str| content.beside(rule, file);
    let mut set = pipeproof_rules::load_with(&files, &lists, &beside);
    for rule in &mut set.rules {
        let meta = rule.meta_mut();
        if let Some(state) = content.states.get(&meta.id) {
            meta.state = *state;
        }
    }
    Ok(set)
}

/// Compiles a set that was read.
pub(crate) fn compile(set: RuleSet) -> Result<Rules, SetError> {
    if set.has_errors() {
        return Err(SetError::Diagnostics { rendered: problems(&set), found: set.diagnostics });
    }
    let mut texts = Vec::new();
    let mut origins = BTreeMap::new();
    for (rule, origin) in set.rules.iter().zip(&set.origins) {
        let meta = rule.meta();
        texts.push(RuleText {
            digest: meta.digest.clone(),
            id: meta.id.clone(),
            title: meta.title.clone(),
            file: origin.file.clone(),
            body: set.text(&origin.file).unwrap_or_default().to_owned(),
        });
        origins.insert(meta.id.clone(), origin.clone());
    }
    let plan = Plan::compile(set.content())?;
    let warnings = set.diagnostics;
    Ok(Rules { plan: Arc::new(plan), texts, origins, warnings })
}

/// Problems shown at once.
const SHOWN_MAX: usize = 100;

/// What keeps a set from running, for people; what does not, where nothing does.
pub(crate) fn problems(set: &RuleSet) -> String {
    let worst = set.diagnostics.iter().map(|problem| problem.severity).min();
    let shown: Vec<&Diagnostic> = set.diagnostics.iter().filter(|problem| Some(problem.severity) == worst).collect();
    let mut said: Vec<String> = shown
        .iter()
        .take(SHOWN_MAX)
        .map(|problem| problem.render(set.text(&problem.file).unwrap_or_default()))
        .collect();
    if shown.len() > SHOWN_MAX {
        said.push(format!("and {} more", shown.len() - SHOWN_MAX));
    }
    said.join("\n")
}

impl SetError {
    /// In one line: the first problem, and how many there are.
    pub(crate) fn in_brief(&self) -> String {
        let Self::Diagnostics { found, .. } = self else { return crate::chain(self) };
        let mut errors = found.iter().filter(|problem| problem.severity == Severity::Error);
        let first = errors.next().map_or_else(String::new, |problem| {
            format!(
                "{}:{}:{}: {} {}",
                problem.file, problem.place.line, problem.place.column, problem.code, problem.message
            )
        });
        match errors.count() {
            0 => first,
            more => format!("{first} (and {more} more)"),
        }
    }
}
