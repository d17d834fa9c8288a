//! Webhook deliveries that did not reach us: GitHub keeps each for three days, delivers none again by itself, and gives what
//! it sent (`GET …/hooks/{id}/deliveries/{id}`).
//!
//! Lists go from the newest back, by an opaque cursor; ids grow with time. A walk starts at the newest delivery and ends at the
//! one where the walk before it started. A delivery is missing if no item of its GUID is held: GUIDs are the same when GitHub
//! delivers again, so that it does not matter which attempt failed. Where GitHub does not take a cursor any more, the walk begins
//! anew: what it passes again is held. What is fetched is the parsed payload, not the bytes that
//! were signed: the record says that it was fetched.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine::time::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ELEMENTS_MAX, repository};
use crate::collect::cursors::moved;
use crate::collect::http::{Api, Listed, escaped};
use crate::collect::{CollectError, Collector, Cursors, Fetched, Held, Next, PAGE_BYTES, Page};
use crate::skim;

const STREAM: &str = "deliveries";
/// What is younger may be on its way: GitHub waits ten seconds for an answer, and the lake some for a record.
const SETTLED: Duration = Duration::from_secs(60);
/// Deliveries are kept so long; the documentation says three days.
const KEPT: Duration = Duration::from_secs(3 * 24 * 3_600);
/// How often in a row a delivery may fail in a way that passes: with the back-off between, for about an hour.
const FAILURES_MAX: u32 = 20;
/// Headers of a delivery that say what its payload is.
const HEADERS: &[&str] = &[
    "x-github-event",
    "x-github-delivery",
    "x-github-hook-id",
    "x-github-hook-installation-target-id",
    "x-github-hook-installation-target-type",
];

/// Whose deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A repository's webhook.
    Repository {
        /// `owner/name`.
        name: String,
        /// Its id; without one, the webhook that delivers to the address of the source.
        id: Option<u64>,
    },
    /// An organisation's webhook.
    Organization {
        /// Its name.
        name: String,
        /// As for a repository.
        id: Option<u64>,
    },
    /// The webhook of the App as which we ask.
    App,
}

impl Hook {
    /// It, in a word.
    fn name(&self) -> &str {
        match self {
            Self::Repository { name, .. } | Self::Organization { name, .. } => name,
            Self::App => "app",
        }
    }

    fn owner(&self) -> String {
        match self {
            Self::Repository { name, .. } => repository(name),
            Self::Organization { name, .. } => format!("/orgs/{}", escaped(name)),
            Self::App => "/app".to_owned(),
        }
    }
}

/// Collects missing deliveries for a source of type `github.webhook`.
#[derive(Debug)]
pub struct Deliveries {
    api: Arc<Api>,
    hook: Hook,
    source: String,
    held: Arc<dyn Held>,
    /// Ask GitHub to deliver again instead of fetching.
    redeliver: bool,
    every: Duration,
    /// The webhook that was found.
    found: std::sync::Mutex<Option<u64>>,
    /// The delivery that fails, and how often in a row.
    failing: std::sync::Mutex<(u64, u32)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Cursor {
    /// Deliveries up to this id are done.
    done: u64,
    /// From when to when every delivery that is listed is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whole: Option<(Timestamp, Timestamp)>,
    /// The walk that goes on, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    walk: Option<Walk>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Walk {
    /// Newest id of the walk.
    top: u64,
    /// When it began.
    began: Timestamp,
    /// Whether all of it is held so far.
    whole: bool,
    /// Path and query of the page to ask for.
    page: String,
}

impl Cursor {
    /// A walk came to its end. What it cannot tell, in words.
    fn ended(&mut self, walk: &Walk) -> Option<String> {
        self.done = self.done.max(walk.top);
        let (kept, to) = (walk.began.minus(KEPT), walk.began.minus(SETTLED));
        let (whole, lost) = match self.whole {
            // What is missing now stays missing; what was asked for again shows in the next walk.
            _ if !walk.whole => ((to, to), None),
            Some((_, until)) if until < kept => {
                ((kept, to), Some(format!("deliveries between {until} and {kept}: GitHub keeps them for three days")))
            }
            Some((from, _)) => ((from, to), None),
            None => ((to.minus(KEPT), to), None),
        };
        self.whole = Some(whole);
        lost
    }
}

/// A delivery in the list.
struct Listing {
    id: u64,
    guid: String,
    at: Option<Timestamp>,
    /// It was asked for before.
    again: bool,
}

impl Deliveries {
    /// Deliveries of `hook` that `source` lacks.
    #[must_use]
    pub fn new(
        api: Arc<Api>,
        hook: Hook,
        source: String,
        held: Arc<dyn Held>,
        redeliver: bool,
        every: Duration,
    ) -> Self {
        Self {
            api,
            hook,
            source,
            held,
            redeliver,
            every,
            found: std::sync::Mutex::default(),
            failing: std::sync::Mutex::default(),
        }
    }

    /// A delivery could not be fetched although the list could; whether that went on for so long that the others, which wait
    /// for it, go on without it.
    fn fails_for_good(&self, id: u64) -> bool {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let times = if failing.0 == id { failing.1 + 1 } else { 1 };
        *failing = (id, times);
        times >= FAILURES_MAX
    }

    async fn path(&self) -> Result<String, CollectError> {
        let owner = self.hook.owner();
        let id = match &self.hook {
            Hook::App => return Ok("/app/hook/deliveries".to_owned()),
            Hook::Repository { id: Some(id), .. } | Hook::Organization { id: Some(id), .. } => *id,
            _ => self.find(&owner).await?,
        };
        Ok(format!("{owner}/hooks/{id}/deliveries"))
    }

    /// The webhook whose address is our source's.
    async fn find(&self, owner: &str) -> Result<u64, CollectError> {
        let known = || *self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known() {
            return Ok(id);
        }
        let listed = self.api.get(&format!("{owner}/hooks?per_page=100")).await?;
        let ours = format!("/v1/events/{}", self.source);
        let hooks = listed.elements(None, ELEMENTS_MAX)?;
        let hook = hooks.iter().find(|(_, hook)| {
            let url = hook.get("config").and_then(|config| config.get("url")).and_then(Value::as_str);
            url.is_some_and(|url| url.split('?').next().is_some_and(|url| url.trim_end_matches('/').ends_with(&ours)))
        });
        let id = hook.and_then(|(_, hook)| hook.get("id")?.as_u64());
        let id = id.ok_or_else(|| listed.wrong(&format!("no webhook delivers to an address that ends with {ours}")))?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        Ok(id)
    }

    /// The walk's page is not there any more: the walk begins anew, after a while, so that a list that is never given to its end
    /// is not asked for without one.
    fn again(&self, mut cursor: Cursor, error: &CollectError) -> Result<Page, CollectError> {
        tracing::warn!(error = %error, "GitHub does not take the cursor of its deliveries any more: the walk begins anew");
        cursor.walk = None;
        let cursors = vec![moved(STREAM, &cursor)?];
        Ok(Page { cursors, next: Next::After(self.every), ..Page::default() })
    }

    async fn ask(&self, path: &str) -> Result<Listed, CollectError> {
        if self.hook == Hook::App { self.api.list_as_app(path).await } else { self.api.get(path).await }
    }

    /// What was delivered, as it would have come.
    async fn fetch(&self, path: &str, delivery: &Listing) -> Result<Fetched, CollectError> {
        let answer = self.ask(&format!("{path}/{}", delivery.id)).await?;
        let payload = skim::at(skim::trim(&answer.body), &["request", "payload"]);
        let payload = payload.filter(|payload| payload.starts_with(b"{"));
        let body = payload.map(|payload| answer.body.slice_ref(payload));
        let body = body.ok_or_else(|| answer.wrong("the delivery has no payload"))?;
        let json = answer.json()?;
        let sent = json.get("request").and_then(|request| request.get("headers"));
        let mut item = Fetched::new(body).about("collected.delivery", delivery.id.to_string());
        item.headers = headers(sent, &json, &delivery.guid);
        Ok(item)
    }
}

/// The headers that say what a payload is; names are written in different cases.
fn headers(sent: Option<&Value>, delivery: &Value, guid: &str) -> HeaderMap {
    let sent: BTreeMap<String, &str> = sent
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.to_lowercase(), value.as_str()?)))
        .collect();
    let event = delivery.get("event").and_then(Value::as_str);
    let mut headers = HeaderMap::new();
    for name in HEADERS {
        let value = match *name {
            "x-github-delivery" => Some(guid),
            "x-github-event" => sent.get(*name).copied().or(event),
            _ => sent.get(*name).copied(),
        };
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

#[async_trait]
impl Collector for Deliveries {
    fn name(&self) -> String {
        format!("github.deliveries/{}", self.hook.name())
    }

    fn left(&self) -> Option<u64> {
        self.api.left()
    }

    async fn page(&self, cursors: &Cursors, now: Timestamp) -> Result<Page, CollectError> {
        let mut cursor: Cursor = cursors.read(STREAM)?.unwrap_or_default();
        let path = self.path().await?;
        let listed = match &cursor.walk {
            Some(walk) => match self.ask(&walk.page).await {
                Err(error) if error.is_no_page() => return self.again(cursor.clone(), &error),
                listed => listed?,
            },
            None => {
                let listed = self.ask(&format!("{path}?per_page=100")).await;
                if matches!(listed, Err(CollectError::Missing { .. })) {
                    // It may have been set up anew, with another id.
                    *self.found.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                listed?
            }
        };
        let all = deliveries(&listed)?;
        // The walk ends where the one before began, and where GitHub keeps no more.
        let settled = |delivery: &Listing| delivery.at.is_none_or(|at| at <= now.minus(SETTLED));
        let new: Vec<&Listing> = all.iter().filter(|delivery| delivery.id > cursor.done && settled(delivery)).collect();
        let ends = all.len() != all.iter().filter(|delivery| delivery.id > cursor.done).count()
            || all.iter().any(|delivery| delivery.at.is_some_and(|at| at < now.minus(KEPT)));
        // One attempt of a delivery is enough, the first that is listed.
        let mut missing: BTreeMap<&str, &Listing> = BTreeMap::new();
        for delivery in &new {
            missing.entry(&delivery.guid).or_insert(delivery);
        }
        let ids: Vec<String> = missing.keys().map(|guid| (*guid).to_owned()).collect();
        for known in self.held.known(&self.source, &ids).await? {
            missing.remove(known.as_str());
        }
        let mut missing: Vec<&Listing> = missing.into_values().collect();
        missing.sort_by_key(|delivery| delivery.id);
        let mut page = Page::default();
        let (mut bytes, mut asked_again) = (0, false);
        let walked_on = cursor.walk.is_some();
        for delivery in missing {
            // What did not arrive the second time either will not the third.
            if self.redeliver && !delivery.again {
                let again = format!("{path}/{}/attempts", delivery.id);
                match self.api.post(&again, Bytes::new(), self.hook == Hook::App).await {
                    Ok(_) => {
                        asked_again = true;
                        continue;
                    }
                    // GitHub does not deliver this one again, or not for us: it is fetched.
                    Err(error) if error.is_of_one() => tracing::debug!(error = %error, "no redelivery"),
                    Err(_) if !page.items.is_empty() => {
                        page.lost.clear();
                        return Ok(page);
                    }
                    Err(error) => return Err(error),
                }
            }
            if bytes > PAGE_BYTES {
                // What is taken is held next time, and the rest of this page still missing.
                page.next = Next::Now;
                return Ok(page);
            }
            match self.fetch(&path, delivery).await {
                Ok(item) => {
                    bytes += item.body.len();
                    page.items.push(item);
                }
                Err(CollectError::Missing { .. }) => {
                    page.lost.push(format!("delivery {} ({}) is not kept any more", delivery.id, delivery.guid));
                }
                Err(error) if error.is_of_one() || (error.is_passing() && self.fails_for_good(delivery.id)) => {
                    page.lost.push(format!("delivery {} ({}): {error}", delivery.id, delivery.guid));
                }
                // What was had counts; the rest of this page is still missing next time.
                Err(_) if !page.items.is_empty() => {
                    page.lost.clear();
                    return Ok(page);
                }
                Err(error) => return Err(error),
            }
        }
        let fresh = Walk { top: cursor.done, began: now, whole: true, page: String::new() };
        let mut walk = cursor.walk.take().unwrap_or(fresh);
        // Of a busy hook the first pages may have nothing that is settled. One that ended late may stand below settled ones: the next
        // walk comes as far as that again.
        walk.top = new.iter().map(|delivery| delivery.id).fold(walk.top, u64::max);
        if let Some(late) = all.iter().filter(|delivery| !settled(delivery)).map(|delivery| delivery.id).min() {
            walk.top = walk.top.min(late.saturating_sub(1)).max(cursor.done);
        }
        walk.whole &= !asked_again && page.lost.is_empty();
        match listed.next.filter(|_| !ends) {
            Some(next) => {
                walk.page = next;
                cursor.walk = Some(walk);
                page.cursors.push(moved(STREAM, &cursor)?);
                page.next = Next::Now;
            }
            None => {
                let before = cursor.clone();
                page.lost.extend(cursor.ended(&walk));
                // Without news once an hour is enough: windows are hours.
                let hour = |cursor: &Cursor| cursor.whole.map(|(from, to)| (from, to.hour()));
                if cursor.done != before.done || walked_on || hour(&cursor) != hour(&before) {
                    page.whole = cursor.whole;
                    page.cursors.push(moved(STREAM, &cursor)?);
                }
                page.next = Next::After(self.every);
            }
        }
        Ok(page)
    }
}

fn deliveries(listed: &Listed) -> Result<Vec<Listing>, CollectError> {
    let one = |(_, json): (Bytes, Value)| {
        let id = json.get("id").and_then(Value::as_u64).ok_or_else(|| listed.wrong("a delivery has no id"))?;
        let guid = json.get("guid").and_then(Value::as_str).ok_or_else(|| listed.wrong("a delivery has no guid"))?;
        let at = json.get("delivered_at").and_then(Value::as_str).and_then(Timestamp::parse);
        let again = json.get("redelivery").and_then(Value::as_bool).unwrap_or(false);
        Ok(Listing { id, guid: guid.to_owned(), at, again })
    };
    listed.elements(None, ELEMENTS_MAX)?.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests;
