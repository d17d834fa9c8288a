//! The operator's address files: taken in at a start and when the configuration is read again. A file that is broken changes
//! nothing; one that is good is kept under its digest, and a control record says from where on it holds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pipeproof_engine::control::{Control, EnrichmentFile};

use crate::node::{NodeError, Shared};

/// Files that the configuration names, by what they are for.
pub(crate) type Configured = BTreeMap<EnrichmentFile, PathBuf>;

/// Puts the configured files in force, and out of force those it no longer names. Returns what is wrong with the others:
/// there, the file before stays.
pub(crate) async fn apply(shared: &Arc<Shared>, configured: &Configured) -> Result<Vec<String>, NodeError> {
    let mut problems = Vec::new();
    for &file in EnrichmentFile::ALL {
        let digest = match configured.get(&file).cloned() {
            None => None,
            Some(path) => {
                let files = shared.address_files.clone();
                let kept = tokio::task::spawn_blocking(move || files.keep(&path)).await;
                match kept.map_err(NodeError::part("read an address file"))? {
                    Ok(digest) => Some(digest),
                    Err(error) => {
                        let problem = crate::chain(&error);
                        tracing::error!(
                            file = file.name(),
                            problem,
                            "the address file is not used; the one before stays"
                        );
                        problems.push(format!("enrichment.{}: {problem}", file.name()));
                        continue;
                    }
                }
            }
        };
        if shared.registry().addresses.now(file) != digest.as_deref() {
            tracing::info!(file = file.name(), digest, "another address file is in force");
            let control = Control::EnrichmentLoaded { file, digest };
            shared.control(control).await.map_err(NodeError::part("write to the log"))?;
        }
    }
    shared.record_refusal("addresses", (!problems.is_empty()).then(|| problems.join("; "))).await;
    Ok(problems)
}
