//! Signed digests: complete where all agree, a gap that names what is missing or changed.

use super::*;
use crate::objects::digest::Link;
use crate::objects::digest::tests::{Provider, object};

fn no_keys() -> Wanted {
    wanted(SourceType::AwsCloudtrail)
}

/// A trail whose provider signs digests.
struct Trail {
    store: Arc<Store>,
    provider: Provider,
    link: Option<Link>,
}

impl Trail {
    fn new() -> (Self, Node) {
        let trail = Self { store: Arc::default(), provider: Provider::new(), link: None };
        let mut node = Node::new(&trail.store, no_keys);
        node.collector = trail.collector();
        (trail, node)
    }

    fn collector(&self) -> Objects {
        Node::collector(&self.store, Wanted { keys: Some(self.provider.keys.clone()), ..no_keys() })
    }

    /// Files of an hour, delivered and listed in a digest.
    async fn hour(&mut self, hour: u32, names: &[&str]) {
        let mut files = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let from = u64::from(hour) * 100 + number as u64 * 10;
            self.store.trail(name, from..from + 10).await;
            files.push((format!("{FOLDER}{name}"), records(from..from + 10)));
        }
        self.digest(hour, &files).await;
    }

    async fn digest(&mut self, hour: u32, files: &[(String, Vec<u8>)]) {
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
        let (_, content, signature) = self.provider.digest(hour, self.link.as_ref(), &files);
        self.link = Some(self.provider.verified(hour, &content, &signature).1);
        self.store.put_signed(&object(hour), gzip(&content), Some(&signature)).await;
    }
}

fn at(hour: i64) -> Timestamp {
    Timestamp::parse("2026-11-26T00:00:00Z").unwrap().plus(Duration::from_secs(u64::try_from(hour).unwrap() * 3_600))
}

#[tokio::test]
async fn hours_whose_digests_agree_are_whole() {
    let (mut trail, mut node) = Trail::new();
    trail.hour(8, &["a.json.gz", "b.json.gz"]).await;
    node.round().await;
    assert_eq!(node.whole, Some((at(8), at(9))));
    trail.hour(9, &["c.json.gz"]).await;
    trail.hour(10, &[]).await;
    node.collector = trail.collector();
    node.round().await;
    assert_eq!(node.whole, Some((at(8), at(11))), "also over a restart");
    assert_eq!(node.signed.len(), 3);
    assert_eq!((node.signed[0].files, node.signed[0].faults.len()), (2, 0));
    assert_eq!(node.signed[0].list, format!("s3://trail/{}", object(8)));
    node.each_once(30);
    node.round().await;
    assert_eq!(node.signed.len(), 3, "each is compared once");
}

#[tokio::test]
async fn a_file_that_is_missing_and_one_that_was_changed_are_named() {
    let (mut trail, mut node) = Trail::new();
    trail.hour(8, &["a.json.gz"]).await;
    trail.hour(9, &["b.json.gz", "c.json.gz", "d.json.gz"]).await;
    trail.store.put(&format!("{FOLDER}c.json.gz"), gzip(&records(0..3))).await;
    let gone = Path::from(format!("{FOLDER}b.json.gz"));
    object_store::ObjectStoreExt::delete(&trail.store.inner, &gone).await.unwrap();
    trail.hour(10, &["e.json.gz"]).await;
    node.round().await;
    let status: Vec<_> = node.signed.iter().map(|list| list.status).collect();
    use engine::commit::Completeness::{Complete, Gap};
    assert_eq!(status, [Complete, Gap, Complete]);
    assert_eq!(
        node.signed[1].faults,
        [format!("{FOLDER}b.json.gz is missing"), format!("{FOLDER}c.json.gz was changed after it was delivered")]
    );
    assert_eq!((node.signed[1].from, node.signed[1].to), (at(9), at(10)));
    assert_eq!(node.whole, Some((at(10), at(11))), "what comes after is whole again");
}

#[tokio::test]
async fn a_digest_waits_until_its_files_were_read() {
    let (mut trail, mut node) = Trail::new();
    trail.hour(8, &["a.json.gz", "b.json.gz"]).await;
    trail.store.refused.lock().unwrap().insert(format!("{FOLDER}b"));
    node.round().await;
    assert_eq!((node.signed.len(), node.whole), (0, None));
    trail.store.refused.lock().unwrap().clear();
    node.now = node.now.plus(Duration::from_secs(3_600));
    node.round().await;
    assert_eq!(node.whole, Some((at(8), at(9))));
    node.each_once(20);
}

#[tokio::test]
async fn digests_that_are_missing_forged_or_of_an_unknown_key_prove_nothing() {
    let (mut trail, mut node) = Trail::new();
    trail.hour(8, &["a.json.gz"]).await;
    // Nobody signed this one.
    trail.hour(9, &["b.json.gz"]).await;
    let (_, content, _) = trail.provider.digest(9, None, &[]);
    trail.store.put_signed(&object(9), gzip(&content), Some("00")).await;
    node.round().await;
    assert_eq!(node.signed[1].faults, ["the digest's signature is not the provider's"]);
    assert_eq!(node.signed[1].status, engine::commit::Completeness::Gap);
    // One is gone.
    trail.hour(10, &["c.json.gz"]).await;
    node.round().await;
    assert!(node.signed[2].faults[0].contains("comes before it"), "{:?}", node.signed[2]);
    assert_eq!((node.signed[2].from, node.signed[2].to), (at(9), at(11)));
    trail.hour(11, &[]).await;
    node.round().await;
    assert_eq!(node.whole, Some((at(11), at(12))));

    let stranger = Provider::new();
    trail.provider = stranger;
    let stranger = trail.provider.keys.clone();
    trail.provider.keys = crate::objects::digest::PublicKeys::default();
    node.collector = trail.collector();
    trail.provider.keys = stranger;
    trail.hour(12, &["z.json.gz"]).await;
    node.now = node.now.plus(Duration::from_secs(1_200));
    let error = loop {
        match node.page().await {
            Ok(true) => {}
            Ok(false) => panic!("nothing was said"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("list-public-keys"), "{error}");
    assert_eq!(node.signed.len(), 4, "it waits for the key");
    assert!(node.ids().contains_key("e-1200"), "objects are read all the same");
}

#[tokio::test]
async fn the_hash_of_what_was_read_counts_and_not_what_became_of_it() {
    let (mut trail, mut node) = Trail::new();
    let content = records(0..10);
    trail.store.trail("a.json.gz", 0..10).await;
    node.round().await;
    let gone = Path::from(format!("{FOLDER}a.json.gz"));
    object_store::ObjectStoreExt::delete(&trail.store.inner, &gone).await.unwrap();
    trail.digest(8, &[(format!("{FOLDER}a.json.gz"), content)]).await;
    node.round().await;
    assert_eq!(node.whole, Some((at(8), at(9))));
}
