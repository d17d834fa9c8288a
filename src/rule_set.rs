//! The rules a node runs: the shipped ones and those of a folder, as one set that is whole or refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pipeproof_engine::plan::Plan;
use pipeproof_record::store::RuleText;

use crate::node::NodeError;

/// A set of rules, compiled.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) plan: Arc<Plan>,
    pub(crate) texts: Vec<RuleText>,
    /// File of each rule, by id.
    pub(crate) files: BTreeMap<String, String>,
}

/// Reads and compiles the set.
pub(crate) fn load(shipped: bool, dir: Option<&Path>) -> Result<Rules, NodeError> {
    let mut files = if shipped { pipeproof_rules::library() } else { Vec::new() };
    if let Some(dir) = dir {
        files.extend(pipeproof_rules::read_dir(dir).map_err(NodeError::part("read the rules"))?);
    }
    let set = pipeproof_rules::load(&files, &pipeproof_rules::Lists::shipped());
    if set.has_errors() {
        return Err(NodeError::Rules(set.render_diagnostics(&files)));
    }
    let by_path: BTreeMap<&str, &str> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let mut texts = Vec::new();
    let mut file_of = BTreeMap::new();
    for (rule, origin) in set.rules.iter().zip(&set.origins) {
        let meta = rule.meta();
        texts.push(RuleText {
            digest: meta.digest.clone(),
            id: meta.id.clone(),
            title: meta.title.clone(),
            file: origin.file.clone(),
            body: by_path.get(origin.file.as_str()).map_or_else(String::new, |text| (*text).to_owned()),
        });
        file_of.insert(meta.id.clone(), origin.file.clone());
    }
    let plan = Plan::compile(set.rules).map_err(NodeError::part("compile the rules"))?;
    Ok(Rules { plan: Arc::new(plan), texts, files: file_of })
}
