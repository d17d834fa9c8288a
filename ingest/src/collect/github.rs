//! GitHub, github.com or Enterprise Server.

mod audit;
mod deliveries;
mod ledger;
mod logs;
mod runs;
mod walk;

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

pub use audit::AuditLog;
pub use deliveries::{Deliveries, Hook};
pub use ledger::Ledger;
pub use logs::JobLogs;

use super::CollectError;
use super::http::{Api, escaped};

/// Elements of a page, more than GitHub ever gives.
const ELEMENTS_MAX: usize = 1_000;
/// What is asked of GitHub with each request.
pub const ACCEPT: &str = "application/vnd.github+json";
/// Version of the API that this is written for.
pub const VERSION: &str = "2022-11-28";

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An enterprise, by its slug.
    Enterprise(String),
    /// An organisation.
    Organization(String),
    /// Repositories, `owner/name`.
    Repositories(Vec<String>),
}

impl Scope {
    /// It, in a word.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Enterprise(name) | Self::Organization(name) => name.clone(),
            Self::Repositories(names) => names.join(","),
        }
    }
}

/// The path of a repository.
fn repository(name: &str) -> String {
    let (owner, repo) = name.split_once('/').unwrap_or((name, ""));
    format!("/repos/{}/{}", escaped(owner), escaped(repo))
}

/// The repositories of a scope that are in use. An App sees those of its installation.
async fn repositories(api: &Api, scope: &Scope) -> Result<Vec<String>, CollectError> {
    let (list, member) = match scope {
        Scope::Repositories(names) => return Ok(names.clone()),
        _ if api.is_app() => ("/installation/repositories?per_page=100".to_owned(), Some("repositories")),
        other => (format!("/orgs/{}/repos?per_page=100", escaped(&other.name())), None),
    };
    let (mut found, mut next) = (Vec::new(), Some(list));
    while let Some(path) = next {
        let listed = api.get(&path).await?;
        for (_, repo) in listed.elements(member, ELEMENTS_MAX)? {
            let is = |key: &str| repo.get(key).and_then(Value::as_bool).unwrap_or(false);
            if !is("archived") && !is("disabled") {
                found.extend(repo.get("full_name").and_then(Value::as_str).map(ToOwned::to_owned));
            }
        }
        next = listed.next;
    }
    Ok(found)
}

/// Items of one kind as one body: an array.
fn together<'a>(items: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut body = vec![b'['];
    for item in items {
        if body.len() > 1 {
            body.push(b',');
        }
        body.extend_from_slice(item);
    }
    body.push(b']');
    Bytes::from(body)
}

/// How often to look where nothing else is said.
pub const EVERY: Duration = Duration::from_secs(60);
