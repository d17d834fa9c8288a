//! A bucket that is listed: each object once, whatever goes wrong in between.

use super::*;

fn trail() -> Wanted {
    wanted(SourceType::AwsCloudtrail)
}

#[tokio::test]
async fn each_object_is_read_once_over_rounds_restarts_and_overwriting() {
    let store = Arc::new(Store::default());
    for file in 0..20 {
        store.trail(&format!("{file}.json.gz"), file * 10..file * 10 + 10).await;
    }
    // Neither another service's nor an old day's, nor digests without keys.
    store.put("AWSLogs/111122223333/Config/eu-central-1/2026/11/26/x.json.gz", gzip(&records(900..901))).await;
    store.put("AWSLogs/111122223333/CloudTrail/eu-central-1/2026/10/26/x.json.gz", gzip(&records(901..902))).await;
    store.put("AWSLogs/111122223333/CloudTrail-Digest/eu-central-1/2026/11/26/x.json.gz", gzip(b"{}")).await;
    let mut node = Node::new(&store, trail);
    node.round().await;
    node.each_once(200);
    assert_eq!(node.lost, [] as [String; 0]);
    let item = &node.items[0];
    assert_eq!(item.way.attributes, [("collected.object", format!("s3://trail/{FOLDER}0.json.gz"))]);
    assert!(item.way.place.as_ref().unwrap().contains("0.json.gz@"), "{:?}", item.way.place);

    store.trail("a-late-one.json.gz", 200..210).await;
    node.restart();
    let asked = store.asked.lock().unwrap().len();
    node.round().await;
    node.each_once(210);
    assert_eq!(store.asked.lock().unwrap().len() - asked, 1, "nothing else is asked for");
    // Written again it is another object.
    store.trail("0.json.gz", 0..11).await;
    node.round().await;
    let ids = node.ids();
    assert_eq!((ids["e-1"], ids["e-10"]), (2, 2), "what is in it is known by its ids");
    node.restart();
    let before = node.items.len();
    node.round().await;
    assert_eq!(node.items.len(), before);
}

#[tokio::test]
async fn a_day_that_is_over_is_forgotten_and_the_next_is_found() {
    let store = Arc::new(Store::default());
    store.trail("a.json.gz", 0..1).await;
    let mut node = Node::new(&store, trail);
    node.round().await;
    let streams = |node: &Node| node.cursors.iter().filter(|(stream, _)| stream.starts_with("folder:")).count();
    assert_eq!(streams(&node), 1);
    store.put(&FOLDER.replace("26/", "27/b.json.gz"), gzip(&records(1..2))).await;
    node.now = node.now.plus(Duration::from_secs(86_400));
    node.round().await;
    node.each_once(2);
    assert_eq!(streams(&node), 2);
    node.now = node.now.plus(Duration::from_secs(3 * 86_400));
    node.round().await;
    assert_eq!(streams(&node), 1);
}

#[tokio::test]
async fn one_that_is_broken_is_named_and_kept_and_its_neighbours_are_read() {
    let store = Arc::new(Store::default());
    store.trail("a.json.gz", 0..5).await;
    let whole = gzip(&records(5..500));
    store.put(&format!("{FOLDER}b.json.gz"), whole[..whole.len() - 20].to_vec()).await;
    store.trail("c.json.gz", 500..505).await;
    store.put(&format!("{FOLDER}empty"), Vec::new()).await;
    let mut node = Node::new(&store, trail);
    node.round().await;
    node.each_once(10);
    assert_eq!(node.lost, [format!("s3://trail/{FOLDER}b.json.gz: it is not valid gzip, or is cut")]);
    let dead: Vec<_> = node.items.iter().filter(|item| item.body.starts_with(&[0x1f, 0x8b])).collect();
    assert_eq!(dead.len(), 1, "it becomes a dead letter");
    node.restart();
    node.round().await;
    assert_eq!(node.lost.len(), 1, "it is said once");
}

#[tokio::test]
async fn what_is_not_given_is_asked_for_again_beside_the_others_and_given_up_by_name() {
    let store = Arc::new(Store::default());
    for file in 0..10 {
        store.trail(&format!("{file}.json.gz"), file..file + 1).await;
    }
    let key = format!("{FOLDER}3.json.gz");
    store.refused.lock().unwrap().insert(key.clone());
    let mut node = Node::new(&store, trail);
    node.round().await;
    assert_eq!(node.ids().len(), 9);
    node.restart();
    store.trail("new.json.gz", 10..11).await;
    node.round().await;
    assert_eq!(node.ids().len(), 10, "new ones come past it");
    store.refused.lock().unwrap().clear();
    node.now = node.now.plus(Duration::from_secs(3_600));
    node.round().await;
    node.each_once(11);

    store.trail("never.json.gz", 11..12).await;
    store.refused.lock().unwrap().insert(format!("{FOLDER}never"));
    for _ in 0..200 {
        node.now = node.now.plus(Duration::from_secs(1_800));
        while node.page().await.unwrap_or(true) {}
        if !node.lost.is_empty() {
            break;
        }
    }
    let [lost] = &node.lost[..] else { panic!("{:?}", node.lost) };
    assert!(lost.starts_with(&format!("s3://trail/{FOLDER}never.json.gz: given up after")), "{lost}");
    node.each_once(11);
}

#[tokio::test]
async fn a_store_that_gives_nothing_is_told_and_nothing_is_lost() {
    let store = Arc::new(Store::default());
    for file in 0..30 {
        store.trail(&format!("{file:02}.json.gz"), file..file + 1).await;
    }
    store.refused.lock().unwrap().insert("AWSLogs".to_owned());
    let mut node = Node::new(&store, trail);
    let mut told = 0;
    for _ in 0..12 {
        node.now = node.now.plus(Duration::from_secs(60));
        match node.page().await {
            Err(CollectError::Refused { status: 403, .. }) => told += 1,
            Err(other) => panic!("{other}"),
            Ok(_) => {}
        }
    }
    assert!(told >= 3, "{told}");
    store.refused.lock().unwrap().clear();
    for _ in 0..4 {
        node.now = node.now.plus(Duration::from_secs(3_600));
        while node.page().await.unwrap_or(true) {}
    }
    node.each_once(30);
    assert_eq!(node.lost, [] as [String; 0]);
}

#[tokio::test]
async fn a_large_object_comes_in_pages_and_goes_on_after_a_restart() {
    let store = Arc::new(Store::default());
    let count = 500_000;
    store.trail("large.json.gz", 0..count).await;
    store.trail("small.json.gz", count..count + 1).await;
    for restart in [false, true] {
        let mut node = Node::new(&store, trail);
        node.now = node.now.plus(Duration::from_secs(1_200));
        let mut pages = 0;
        while node.page().await.unwrap() {
            let bytes: usize = std::mem::take(&mut node.items)
                .iter()
                .map(|item| {
                    let ids = item.body.windows(11).filter(|part| part == b"{\"eventID\":").count() as u64;
                    node.lost.push(format!("{}:{ids}", item.way.place.as_deref().unwrap_or_default()));
                    item.body.len()
                })
                .sum();
            assert!(bytes < PAGE_BYTES + (2 << 20), "{bytes} bytes in a page");
            pages += 1;
            if restart {
                node.restart();
            }
        }
        assert!(pages > 3, "{pages}");
        let places: BTreeSet<&str> = node.lost.iter().map(|place| place.rsplit_once(':').unwrap().0).collect();
        assert_eq!(places.len(), node.lost.len(), "each part once, under a name of its own");
        let events: u64 = node.lost.iter().map(|place| place.rsplit_once(':').unwrap().1.parse::<u64>().unwrap()).sum();
        assert_eq!(events, count + 1);
    }
}

#[tokio::test]
async fn flat_folders_and_hours_of_any_day_are_read_as_one() {
    fn audit() -> Wanted {
        wanted(SourceType::GithubAudit)
    }
    fn flat() -> Wanted {
        Wanted { flat: true, prefixes: vec!["builds/".to_owned()], ..wanted(SourceType::Json) }
    }
    let store = Arc::new(Store::default());
    // `YYYY/MM/HH/MM`: hour 3 of today is no third of November.
    for (key, number) in
        [("2026/11/03/05/a.json.log.gz", 0), ("2026/11/26/12/00/b.json.log.gz", 1), ("builds/7/x/log.json", 2)]
    {
        store.put(key, gzip(&records(number..number + 1))).await;
    }
    let mut node = Node::new(&store, audit);
    node.round().await;
    node.each_once(3);
    let mut node = Node::new(&store, flat);
    node.round().await;
    node.each_once(1);
    assert_eq!(node.cursors.iter().count(), 2);
    // A whole bucket as one folder, and what lies at its root.
    fn all() -> Wanted {
        Wanted { flat: true, ..wanted(SourceType::Json) }
    }
    fn root() -> Wanted {
        wanted(SourceType::Json)
    }
    store.put("root.json", gzip(&records(3..4))).await;
    // To others the third of November is over.
    for (wanted, count) in [(all as fn() -> Wanted, 4), (root, 3)] {
        let mut node = Node::new(&store, wanted);
        node.round().await;
        node.each_once(count);
        node.restart();
        node.round().await;
        node.each_once(count);
    }
}
