//! The rules a command or a node runs: the shipped ones and those of files and folders, as one set that is whole or refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeproof_engine::plan::Plan;
use pipeproof_record::store::RuleText;
use pipeproof_rules::{RuleSet, library, library_lists, read_dir, read_lists};

use crate::node::NodeError;

/// A set of rules, compiled.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) plan: Arc<Plan>,
    pub(crate) texts: Vec<RuleText>,
    /// File of each rule, by id.
    pub(crate) files: BTreeMap<String, String>,
}

/// Reads rules with everything that is wrong with them. Lists of the operator replace shipped ones of the same name.
pub(crate) fn read(shipped: bool, paths: &[PathBuf]) -> Result<RuleSet, NodeError> {
    let mut files = if shipped { library() } else { Vec::new() };
    let mut lists = library_lists();
    for path in paths {
        files.extend(read_dir(path).map_err(NodeError::part("read the rules"))?);
        lists.extend(read_lists(path).map_err(NodeError::part("read the lists of the rules"))?);
    }
    Ok(pipeproof_rules::load(&files, &lists))
}

/// Reads and compiles a set; anything wrong with it refuses the whole.
pub(crate) fn load(shipped: bool, dir: Option<&Path>) -> Result<Rules, NodeError> {
    let paths: Vec<PathBuf> = dir.map(Path::to_owned).into_iter().collect();
    compile(read(shipped, &paths)?)
}

/// Compiles a set that was read.
pub(crate) fn compile(set: RuleSet) -> Result<Rules, NodeError> {
    if set.has_errors() {
        return Err(NodeError::Rules(problems(&set)));
    }
    let mut texts = Vec::new();
    let mut files = BTreeMap::new();
    for (rule, source) in set.rules.iter().zip(&set.origins) {
        let meta = rule.meta();
        texts.push(RuleText {
            digest: meta.digest.clone(),
            id: meta.id.clone(),
            title: meta.title.clone(),
            file: source.file.clone(),
            body: set.text(&source.file).unwrap_or_default().to_owned(),
        });
        files.insert(meta.id.clone(), source.file.clone());
    }
    let plan = Plan::compile(set.rules).map_err(NodeError::part("compile the rules"))?;
    Ok(Rules { plan: Arc::new(plan), texts, files })
}

/// Everything that is wrong with a set, for people.
pub(crate) fn problems(set: &RuleSet) -> String {
    let said: Vec<String> =
        set.diagnostics.iter().map(|problem| problem.render(set.text(&problem.file).unwrap_or_default())).collect();
    said.join("\n")
}
