//! A queue whose messages name objects: read once, deleted once they are durable, hopeless ones named.

use super::*;
use crate::objects::notice::MESSAGE_BYTES_MAX;

/// A queue that keeps to what SQS documents: what was received comes again unless it is deleted.
#[derive(Debug, Default)]
struct Line {
    waiting: Lock<Vec<Message>>,
    out: Lock<Vec<Message>>,
    put_off: Lock<Vec<(String, Duration)>>,
}

#[async_trait]
impl Messages for Line {
    fn name(&self) -> String {
        "line".to_owned()
    }

    async fn receive(&self) -> std::result::Result<Vec<Message>, CollectError> {
        let some: Vec<Message> = {
            let mut waiting = self.waiting.lock().unwrap();
            let count = waiting.len().min(10);
            waiting.drain(..count).collect()
        };
        self.out.lock().unwrap().extend(some.clone());
        Ok(some)
    }

    async fn delete(&self, receipts: &[String]) -> std::result::Result<(), CollectError> {
        self.out.lock().unwrap().retain(|message| !receipts.contains(&message.receipt));
        Ok(())
    }

    async fn put_off(&self, receipt: &str, wait: Duration) -> std::result::Result<(), CollectError> {
        self.put_off.lock().unwrap().push((receipt.to_owned(), wait));
        Ok(())
    }
}

impl Line {
    fn send(&self, body: impl Into<String>) {
        let number = self.waiting.lock().unwrap().len();
        let id = format!("m-{number}");
        self.waiting.lock().unwrap().push(Message { receipt: format!("r-{id}"), id, body: body.into(), received: 1 });
    }

    fn stored(&self, bucket: &str, key: &str) {
        self.send(json!({"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 7}}}]}).to_string());
    }

    /// Their time is over: what was not deleted comes again.
    fn over(&self) {
        let again = std::mem::take(&mut *self.out.lock().unwrap());
        let again = again.into_iter().map(|message| Message { received: message.received + 1, ..message });
        self.waiting.lock().unwrap().extend(again);
    }
}

fn queue(line: &Arc<Line>, store: &Arc<Store>) -> Queue {
    let bucket = Bucket { name: "trail".to_owned(), store: Arc::clone(store) as Arc<dyn ObjectStore> };
    Queue::new(
        Arc::clone(line) as Arc<dyn Messages>,
        vec![bucket],
        vec!["AWSLogs/".to_owned()],
        SourceType::AwsCloudtrail,
    )
}

async fn drain(queue: &Queue, line: &Line) -> Page {
    let mut all = Page::default();
    while !line.waiting.lock().unwrap().is_empty() {
        let page = queue.page(&Cursors::default(), noon()).await.unwrap();
        queue.taken(&page.receipts).await.unwrap();
        all.add(page);
    }
    all
}

#[tokio::test]
async fn what_messages_name_is_read_and_they_are_deleted_afterwards() {
    let (line, store) = (Arc::new(Line::default()), Arc::new(Store::default()));
    for file in 0..25 {
        store.trail(&format!("{file}.json.gz"), file..file + 1).await;
        line.stored("trail", &format!("{FOLDER}{file}.json.gz"));
    }
    line.send(json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "trail"}).to_string());
    let queue = queue(&line, &store);
    let page = queue.page(&Cursors::default(), noon()).await.unwrap();
    assert_eq!((page.items.len(), page.receipts.len()), (10, 10));
    assert_eq!(line.out.lock().unwrap().len(), 10, "nothing is deleted before it is durable");
    queue.taken(&page.receipts).await.unwrap();
    let rest = drain(&queue, &line).await;
    assert_eq!((rest.items.len(), rest.lost.len()), (15, 0));
    assert!(line.out.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_message_says_what_to_read_and_not_where_we_may_read() {
    let (line, store) = (Arc::new(Line::default()), Arc::new(Store::default()));
    store.put("secrets/key", b"{}".to_vec()).await;
    store.put("AWSLogs/1/CloudTrail-Digest/x.json.gz", gzip(b"{}")).await;
    line.stored("elsewhere", "AWSLogs/1/CloudTrail/a");
    line.stored("trail", "secrets/key");
    line.stored("trail", "AWSLogs/1/CloudTrail-Digest/x.json.gz");
    line.stored("trail", "AWSLogs/1/CloudTrail/gone.json.gz");
    let page = drain(&queue(&line, &store), &line).await;
    assert!(page.items.is_empty());
    let [elsewhere, gone] = &page.lost[..] else { panic!("{:?}", page.lost) };
    assert!(elsewhere.contains("`elsewhere`, which is not read here"), "{elsewhere}");
    assert!(gone.contains("gone.json.gz: it is not there"), "{gone}");
    assert_eq!(store.asked.lock().unwrap().len(), 1);
    assert!(line.out.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nonsense_is_kept_once_and_what_never_works_ends() {
    let (line, store) = (Arc::new(Line::default()), Arc::new(Store::default()));
    store.trail("good.json.gz", 0..1).await;
    store.trail("bad.json.gz", 1..2).await;
    store.refused.lock().unwrap().insert(format!("{FOLDER}bad"));
    line.send("hello");
    line.send("x".repeat(MESSAGE_BYTES_MAX + 1));
    line.stored("trail", &format!("{FOLDER}bad.json.gz"));
    line.stored("trail", &format!("{FOLDER}good.json.gz"));
    let queue = queue(&line, &store);
    let page = drain(&queue, &line).await;
    assert_eq!((page.items.len(), page.lost.len()), (3, 2), "{:?}", page.lost);
    assert_eq!(line.out.lock().unwrap().len(), 1);
    assert_eq!(line.put_off.lock().unwrap()[..], [("r-m-2".to_owned(), Duration::from_secs(30))]);
    // It is worth no failure as long as others work, and is told when nothing does.
    line.over();
    assert!(queue.page(&Cursors::default(), noon()).await.unwrap().items.is_empty());
    assert!(matches!(queue.page(&Cursors::default(), noon()).await, Err(CollectError::Refused { .. })));
    let mut lost = Vec::new();
    for _ in 0..60 {
        line.over();
        if let Ok(page) = queue.page(&Cursors::default(), noon()).await {
            queue.taken(&page.receipts).await.unwrap();
            lost.extend(page.lost);
        }
    }
    let [lost] = &lost[..] else { panic!("{lost:?}") };
    assert!(lost.contains("bad.json.gz: given up after its message came 30 times"), "{lost}");
    assert!(line.out.lock().unwrap().is_empty() && line.waiting.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_large_object_keeps_its_message_until_all_of_it_is_there() {
    let (line, store) = (Arc::new(Line::default()), Arc::new(Store::default()));
    store.trail("large.json.gz", 0..400_000).await;
    line.stored("trail", &format!("{FOLDER}large.json.gz"));
    let queue = queue(&line, &store);
    let (mut now, mut pages, mut items) = (noon(), 0, 0);
    loop {
        let page = queue.page(&Cursors::default(), now).await.unwrap();
        (pages, items) = (pages + 1, items + page.items.len());
        if !page.receipts.is_empty() {
            break;
        }
        assert_eq!(line.out.lock().unwrap().len(), 1);
        now = now.plus(Duration::from_secs(200));
    }
    assert!(pages > 2 && items > 20, "{pages} pages, {items} parts");
    assert!(line.put_off.lock().unwrap().iter().all(|(_, wait)| *wait == queue::VISIBILITY));
    assert!(!line.put_off.lock().unwrap().is_empty(), "it is not given to anybody else meanwhile");
    assert_eq!(store.asked.lock().unwrap().len(), 1, "it is opened once");
}

#[tokio::test]
async fn what_another_collector_of_the_source_has_read_is_not_read_again() {
    let (line, store) = (Arc::new(Line::default()), Arc::new(Store::default()));
    let beside = Arc::default();
    let (messages, mut node) =
        (queue(&line, &store).beside(&beside), Node::new(&store, || wanted(SourceType::AwsCloudtrail)));
    node.collector = Node::collector(&store, (node.wanted)()).beside(&beside);
    let named = async |name: &str| {
        let key = format!("{FOLDER}{name}");
        let options = GetOptions { head: true, ..GetOptions::default() };
        let given = store.inner.get_opts(&Path::from(key.as_str()), options).await.unwrap();
        let tag = given.meta.e_tag.unwrap();
        let object = json!({"key": key, "size": 7, "eTag": tag.trim_matches('"')});
        line.send(json!({"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "trail"}, "object": object}}]}).to_string());
    };
    let asked = |name: &str| store.asked.lock().unwrap().iter().filter(|key| key.ends_with(name)).count();
    for (number, name) in (0..).zip(["a.json.gz", "b.json.gz", "c.json.gz"]) {
        store.trail(name, number..number + 1).await;
    }
    named("b.json.gz").await;
    assert_eq!(drain(&messages, &line).await.items.len(), 1);
    node.round().await;
    assert_eq!(node.ids().into_keys().collect::<Vec<_>>(), ["e-0", "e-2"]);
    named("c.json.gz").await;
    assert_eq!(drain(&messages, &line).await.items.len(), 0);
    assert!(line.out.lock().unwrap().is_empty(), "its message is done with");
    assert_eq!(["a.json.gz", "b.json.gz", "c.json.gz"].map(asked), [1, 1, 1]);
    // Written again it is another object, and what one told itself counts for nothing.
    store.trail("b.json.gz", 5..6).await;
    node.round().await;
    assert!(node.ids().contains_key("e-5"));
    named("a.json.gz").await;
    let alone = queue(&line, &store);
    assert_eq!(drain(&alone, &line).await.items.len(), 1);
    named("a.json.gz").await;
    assert_eq!(drain(&alone, &line).await.items.len(), 1, "a message that comes again is read again");
}
