//! Buckets and queues in memory: every object once, whatever happens in between.

mod bucket;
mod messages;
mod signed;

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::Mutex as Lock;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use serde_json::json;

use super::*;

/// Noon of a day, in whose folder objects are stored.
const NOON: &str = "2026-11-26T12:00:00Z";
const FOLDER: &str = "AWSLogs/111122223333/CloudTrail/eu-central-1/2026/11/26/";

/// A store that refuses some keys.
#[derive(Debug, Default)]
struct Store {
    inner: InMemory,
    refused: Lock<BTreeSet<String>>,
    asked: Lock<Vec<String>>,
}

impl fmt::Display for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Store")
    }
}

type Result<T, E = object_store::Error> = std::result::Result<T, E>;

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.asked.lock().unwrap().push(at.to_string());
        if self.refused.lock().unwrap().iter().any(|key| at.as_ref().starts_with(key)) {
            let source = "AccessDenied".into();
            return Err(object_store::Error::PermissionDenied { path: at.to_string(), source });
        }
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(&self, at: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl Store {
    async fn put(&self, key: &str, stored: impl Into<bytes::Bytes>) {
        self.put_signed(key, stored, None).await;
    }

    async fn put_signed(&self, key: &str, stored: impl Into<bytes::Bytes>, signature: Option<&str>) {
        let mut attributes = Attributes::new();
        if let Some(signature) = signature {
            attributes.insert(Attribute::Metadata("signature".into()), signature.to_owned().into());
        }
        let options = PutOptions { attributes, ..PutOptions::default() };
        self.inner.put_opts(&Path::from(key), stored.into().into(), options).await.unwrap();
    }

    /// A file of CloudTrail's with events of these numbers.
    async fn trail(&self, name: &str, numbers: std::ops::Range<u64>) {
        self.put(&format!("{FOLDER}{name}"), gzip(&records(numbers))).await;
    }
}

fn records(numbers: std::ops::Range<u64>) -> Vec<u8> {
    let events: Vec<_> =
        numbers.map(|number| json!({"eventID": format!("e-{number}"), "text": "x".repeat(60)})).collect();
    json!({ "Records": events }).to_string().into_bytes()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn noon() -> Timestamp {
    Timestamp::parse(NOON).unwrap()
}

fn wanted(source_type: SourceType) -> Wanted {
    Wanted {
        prefixes: Vec::new(),
        source_type,
        flat: false,
        // Objects in memory are stored now, whenever that is.
        since: Duration::from_secs(10 * 365 * 86_400),
        every: Duration::from_secs(60),
        keys: None,
    }
}

/// A node that collects: what a page holds counts once the whole of it was taken.
struct Node {
    store: Arc<Store>,
    wanted: fn() -> Wanted,
    collector: Objects,
    cursors: Cursors,
    now: Timestamp,
    items: Vec<super::super::Fetched>,
    lost: Vec<String>,
    whole: Option<(Timestamp, Timestamp)>,
    signed: Vec<engine::control::SignedList>,
}

impl Node {
    fn new(store: &Arc<Store>, wanted: fn() -> Wanted) -> Self {
        Self {
            collector: Self::collector(store, wanted()),
            store: Arc::clone(store),
            wanted,
            cursors: Cursors::default(),
            now: noon(),
            items: Vec::new(),
            lost: Vec::new(),
            whole: None,
            signed: Vec::new(),
        }
    }

    fn collector(store: &Arc<Store>, wanted: Wanted) -> Objects {
        Objects::new(Bucket { name: "trail".to_owned(), store: Arc::clone(store) as Arc<dyn ObjectStore> }, wanted)
    }

    /// What was in memory is gone.
    fn restart(&mut self) {
        self.collector = Self::collector(&self.store, (self.wanted)());
    }

    /// One page, and whether there is more now.
    async fn page(&mut self) -> Result<bool, CollectError> {
        let page = self.collector.page(&self.cursors, self.now).await?;
        for (stream, cursor) in &page.cursors {
            assert!(cursor.to_string().len() < 900_000, "the cursor of {stream} does not fit a record");
        }
        self.items.extend(page.items);
        self.lost.extend(page.lost);
        self.signed.extend(page.signed);
        self.whole = page.whole.or(self.whole);
        let (over, moved): (Vec<_>, Vec<_>) = page.cursors.into_iter().partition(|(_, cursor)| cursor.is_null());
        let over: BTreeSet<String> = over.into_iter().map(|(stream, _)| stream).collect();
        let kept = self.cursors.iter().filter(|(stream, _)| !over.contains(*stream));
        let mut cursors: Cursors = kept.map(|(stream, cursor)| (stream.to_owned(), cursor.clone())).collect();
        cursors.extend(moved);
        self.cursors = cursors;
        Ok(page.next == Next::Now)
    }

    /// Everything that is there now.
    async fn round(&mut self) {
        self.now = self.now.plus(Duration::from_secs(1_200));
        while self.page().await.unwrap() {}
    }

    /// Ids of the events that came, each with how often.
    fn ids(&self) -> std::collections::BTreeMap<String, usize> {
        let mut ids = std::collections::BTreeMap::new();
        for item in &self.items {
            let Ok(body) = serde_json::from_slice::<Value>(&item.body) else { continue };
            for event in body["Records"].as_array().into_iter().flatten() {
                *ids.entry(event["eventID"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        ids
    }

    fn each_once(&self, count: usize) {
        let ids = self.ids();
        assert_eq!(ids.len(), count, "lost: {:?}", self.lost);
        assert!(ids.values().all(|times| *times == 1), "{ids:?}");
    }
}
