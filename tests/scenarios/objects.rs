//! Objects of a bucket and messages that name them: everything is there once, whatever happens in between, and the provider's
//! signed digests say so.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeproof_engine::time::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Server, Setup, eventually, now, python_with};
use crate::moto::{Moto, REGION};

const ACCOUNT: &str = "AWSLogs/111122223333/";
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// `2026/11/26/` of a time.
fn day(at: Timestamp) -> String {
    format!("{}/", at.date().replace('-', "/"))
}

/// The key of a file that CloudTrail delivered now.
fn file(name: &str) -> String {
    format!("{ACCOUNT}CloudTrail/{REGION}/{}{name}.json.gz", day(now()))
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// What CloudTrail would have written, without its compression.
fn records(ids: &[String]) -> Vec<u8> {
    let at = Timestamp::from_secs(now().as_micros() / 1_000_000);
    let event = |id: &String| {
        json!({
            "eventVersion": "1.08", "eventID": id, "eventTime": at, "eventSource": "secretsmanager.amazonaws.com",
            "eventName": "GetSecretValue", "awsRegion": REGION, "sourceIPAddress": "192.0.2.1", "recipientAccountId": "111122223333",
            "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/ci/x", "accountId": "111122223333"},
            "requestParameters": {"secretId": "deploy"}, "responseElements": null, "eventType": "AwsApiCall",
        })
    };
    json!({"Records": ids.iter().map(event).collect::<Vec<_>>()}).to_string().into_bytes()
}

fn ids(file: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{file}-{number}")).collect()
}

/// Delivers a file with events; gives what the source must hold of it.
async fn delivered(moto: &Moto, name: &str, count: usize) -> BTreeSet<String> {
    let ids = ids(name, count);
    moto.put("trail", &file(name), gzip(&records(&ids))).await;
    ids.into_iter().map(|id| format!("id:{id}")).collect()
}

fn access(moto: &Moto) -> String {
    format!("region: {REGION}, endpoint: {}, access_key: {{id: {{env: KEY_ID}}, secret: {{env: KEY}}}}", moto.url)
}

fn config(collects: &str) -> String {
    format!("sources:\n  - {{name: trail, type: aws.cloudtrail, collects: {{{collects}}}}}\n")
}

fn start(config: &str, data: &Path, key: (&str, &str)) -> Server {
    Setup::new().on(data).config(config).env("KEY_ID", key.0).env("KEY", key.1).start()
}

/// Waits until the source holds exactly these items, each once.
async fn holds(server: &Server, expected: &BTreeSet<String>) {
    held_with(server, expected, async || {}).await;
}

/// The same, with something done before each look.
async fn held_with(server: &Server, expected: &BTreeSet<String>, before: impl AsyncFn()) {
    let mut missing = BTreeSet::new();
    for _ in 0..120 {
        before().await;
        server.settled().await;
        let query =
            "SELECT item, count(*) FROM events WHERE source = 'trail' AND sub = 0 AND item LIKE 'id:%' GROUP BY 1";
        let rows = server.sql(query).await;
        assert!(rows.iter().all(|row| row[1] == 1), "something is there twice: {rows:?}");
        let held: BTreeSet<String> = rows.iter().map(|row| row[0].as_str().unwrap_or_default().to_owned()).collect();
        missing = expected.difference(&held).cloned().collect();
        if missing.is_empty() {
            assert_eq!(held, *expected);
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("{} are missing, such as {:?}: {:#}", missing.len(), missing.first(), server.get("/v1/sources").await);
}

async fn collector(server: &Server) -> Value {
    server.get("/v1/sources").await["sources"][0]["collectors"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_there_once_over_downtime_kills_and_refusals() {
    let Some(moto) = Moto::start("objects of a bucket").await else { return };
    moto.bucket("trail").await;
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let config = config(&format!("s3: {{bucket: trail, prefixes: [{ACCOUNT}], {}, every: 1s}}", access(&moto)));
    let mut expected = BTreeSet::new();
    // Before it was ever started, and more than a page of them.
    for number in 0..40 {
        expected.extend(delivered(&moto, &format!("before-{number}"), 50).await);
    }
    moto.put("trail", &format!("{ACCOUNT}Config/{REGION}/{}x.json.gz", day(now())), gzip(&records(&ids("config", 1))))
        .await;
    moto.seen.lock().unwrap().slow_every = 9;
    for kill in 0..4_usize {
        let asked = moto.seen.lock().unwrap().asked.len();
        let server = start(&config, &data, (KEY, SECRET));
        eventually("it is collecting", || async {
            (moto.seen.lock().unwrap().asked.len() >= asked + 8 + 13 * kill).then_some(())
        })
        .await;
        server.kill();
        // While it is down.
        expected.extend(delivered(&moto, &format!("down-{kill}"), 20).await);
    }
    let server = start(&config, &data, (KEY, SECRET));
    holds(&server, &expected).await;
    assert!(moto.seen.lock().unwrap().slowed > 2, "it was refused for asking too often");

    // One is written again with more in it, one is broken, one comes late under an early name.
    moto.seen.lock().unwrap().slow_every = 0;
    let grown = ids("before-0", 60);
    moto.put("trail", &file("before-0"), gzip(&records(&grown))).await;
    expected.extend(grown.into_iter().map(|id| format!("id:{id}")));
    let broken = gzip(&records(&ids("broken", 400)));
    moto.put("trail", &file("broken"), broken[..broken.len() / 2].to_vec()).await;
    expected.extend(delivered(&moto, "a-late-one", 10).await);
    holds(&server, &expected).await;
    let told = eventually("the broken one is named", || async {
        let told = collector(&server).await;
        (told["lost_ever"] == 1).then_some(told)
    })
    .await;
    let lost = told["lost"][0].as_str().unwrap();
    assert!(lost.starts_with(&format!("s3://trail/{}", file("broken"))) && lost.contains("gzip"), "{lost}");
    assert_eq!((told["collector"].as_str(), told["state"].as_str()), (Some("s3.objects/trail"), Some("ok")));
    server.settled().await;
    let letters = server.get("/v1/deadletters").await.to_string();
    assert!(letters.contains("bad_compression") || letters.contains("ompress"), "{letters}");
    let about = server.sql("SELECT DISTINCT mode, auth FROM events WHERE source = 'trail'").await;
    assert_eq!(about, [[json!("collected"), json!("fetched")]]);

    // Once all is there nothing is fetched again, also after a start.
    server.terminate();
    std::fs::remove_file(data.join("registry.json")).unwrap();
    let fetched = moto.asked(".json.gz");
    let listed = moto.asked("list-type=2");
    let server = start(&config, &data, (KEY, SECRET));
    eventually("it looks again", || async { (moto.asked("list-type=2") > listed + 6).then_some(()) }).await;
    assert_eq!(moto.asked(".json.gz"), fetched);
    assert!(!server.log().join("\n").contains(SECRET), "the secret key is in the log");
}

fn stored(key: &str) -> Value {
    let key = key.replace('=', "%3D");
    json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": REGION, "eventName": "ObjectCreated:Put",
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": "trail"}, "object": {"key": key, "size": 700, "eTag": "x"}},
    }]})
}

fn bridged(key: &str) -> Value {
    json!({"version": "0", "id": "1", "detail-type": "Object Created", "source": "aws.s3",
           "detail": {"bucket": {"name": "trail"}, "object": {"key": key, "size": 700}}})
}

fn published(inner: &Value) -> Value {
    json!({"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:x", "Message": inner.to_string()})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_messages_name_are_there_once_and_the_queue_is_empty() {
    let Some(moto) = Moto::start("objects that messages of a queue name").await else { return };
    moto.bucket("trail").await;
    let queue = moto.queue("objects").await;
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let config = config(&format!("sqs: {{queue: '{queue}', buckets: [trail], {}}}", access(&moto)));
    let mut expected = BTreeSet::new();
    moto.send(&queue, &json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "trail"})).await;
    for number in 0..24 {
        let name = format!("file-{number}");
        expected.extend(delivered(&moto, &name, 20).await);
        let direct = stored(&file(&name));
        let message = match number % 4 {
            0 => direct,
            1 => bridged(&file(&name)),
            2 => published(&direct),
            _ => published(&bridged(&file(&name))),
        };
        // Queues deliver at least once, and so does S3.
        for _ in 0..1 + number % 2 {
            moto.send(&queue, &message).await;
        }
    }
    moto.seen.lock().unwrap().slow_every = 11;
    for kill in 0..3_usize {
        let asked = moto.asked("GET /trail/");
        let server = start(&config, &data, (KEY, SECRET));
        eventually("it is collecting", || async { (moto.asked("GET /trail/") >= asked + 2 + 3 * kill).then_some(()) })
            .await;
        server.kill();
        // Its messages come again at once, and not in five minutes.
        expected.extend(delivered(&moto, &format!("down-{kill}"), 20).await);
        moto.send(&queue, &stored(&file(&format!("down-{kill}")))).await;
        moto.come_again(&queue).await;
    }
    let server = start(&config, &data, (KEY, SECRET));
    // A message whose object was not given waits for half a minute, and longer each time.
    held_with(&server, &expected, async || moto.come_again(&queue).await).await;
    moto.seen.lock().unwrap().slow_every = 0;
    eventually("the queue is empty", || async {
        moto.come_again(&queue).await;
        (moto.waiting(&queue).await == 0).then_some(())
    })
    .await;

    // What nobody understands, and what is not there, is named once and goes.
    moto.send(&queue, &json!("hello")).await;
    moto.send(&queue, &stored(&file("never-stored"))).await;
    let told = eventually("both are named", || async {
        let told = collector(&server).await;
        (told["lost_ever"] == 2).then_some(told)
    })
    .await;
    let lost = told["lost"].to_string();
    assert!(lost.contains("never-stored.json.gz: it is not there") && lost.contains("no JSON object"), "{lost}");
    eventually("the queue is empty", || async { (moto.waiting(&queue).await == 0).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_signed_as_aws_checks_it_and_refusals_are_told() {
    let Some(moto) = Moto::start("signatures of requests to S3 and SQS").await else { return };
    moto.bucket("trail").await;
    let queue = moto.queue("objects").await;
    let expected = delivered(&moto, "file", 3).await;
    moto.send(&queue, &stored(&file("file"))).await;
    let may =
        ["s3:ListBucket", "s3:GetObject", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"];
    let (id, secret) = moto.strict(&may).await;
    for collects in [
        format!("s3: {{bucket: trail, {}, every: 1s}}", access(&moto)),
        format!("sqs: {{queue: '{queue}', buckets: [trail], {}}}", access(&moto)),
    ] {
        let folder = tempfile::TempDir::new().unwrap();
        let wrong = start(&config(&collects), &folder.path().join("wrong"), (&id, SECRET));
        let told = eventually("a wrong key is told", || async {
            let told = collector(&wrong).await;
            (told["state"] == "failing").then_some(told)
        })
        .await;
        let error = told["last_error"]["error"].as_str().unwrap();
        assert!(error.contains("403") && error.contains("SignatureDoesNotMatch"), "{error}");
        drop(wrong);
        let server = start(&config(&collects), &folder.path().join("data"), (&id, &secret));
        holds(&server, &expected).await;
    }
}

/// Makes a chain of digests as CloudTrail does, by a program that shares nothing with ours.
const SIGN: &str = r#"
import base64, hashlib, json, sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
previous, made = {}, []
for asked in json.load(sys.stdin):
    before = previous.get(asked["region"])
    content = json.dumps({
        "awsAccountId": "111122223333", "digestStartTime": asked["start"], "digestEndTime": asked["end"],
        "digestS3Bucket": "trail", "digestS3Object": asked["key"],
        "digestPublicKeyFingerprint": "f1", "digestSignatureAlgorithm": "SHA256withRSA",
        "newestEventTime": None, "oldestEventTime": None,
        "previousDigestS3Bucket": before and "trail", "previousDigestS3Object": before and before["key"],
        "previousDigestHashValue": before and before["hash"], "previousDigestHashAlgorithm": before and "SHA-256",
        "previousDigestSignature": before and before["signature"],
        "logFiles": [{"s3Bucket": "trail", "s3Object": name, "hashAlgorithm": "SHA-256",
                      "hashValue": hashlib.sha256(base64.b64decode(content)).hexdigest(),
                      "newestEventTime": asked["start"], "oldestEventTime": asked["start"]}
                     for name, content in asked["files"]],
    }).encode()
    digest = hashlib.sha256(content).hexdigest()
    to_sign = "%s\n%s/%s\n%s\n%s" % (asked["end"], "trail", asked["key"], digest, before["signature"] if before else "null")
    signature = key.sign(to_sign.encode(), padding.PKCS1v15(), hashes.SHA256()).hex()
    previous[asked["region"]] = {"key": asked["key"], "hash": digest, "signature": signature}
    made.append({"key": asked["key"], "content": base64.b64encode(content).decode(), "signature": signature})
keys = {"PublicKeyList": [{"Value": base64.b64encode(der).decode(), "Fingerprint": "f1", "ValidityStartTime": 1, "ValidityEndTime": 2}]}
json.dump({"keys": keys, "digests": made}, sys.stdout)
"#;

/// What a digest of an hour of a region is to list.
fn digest(region: &str, start: Timestamp, files: &[(String, Vec<u8>)]) -> Value {
    let end = start.plus(Duration::from_secs(3_600));
    let stamp: String = end.to_string().chars().filter(|char| !matches!(char, '-' | ':')).collect();
    let stamp = format!("{}Z", stamp.trim_end_matches('Z').split('.').next().unwrap());
    let name = format!("111122223333_CloudTrail-Digest_{region}_t_{REGION}_{stamp}.json.gz");
    let files: Vec<(&str, String)> =
        files.iter().map(|(name, content)| (name.as_str(), STANDARD.encode(content))).collect();
    json!({"region": region, "start": start, "end": end, "files": files,
           "key": format!("{ACCOUNT}CloudTrail-Digest/{region}/{}{name}", day(start))})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_digests_make_a_window_complete_and_name_what_is_missing_or_changed() {
    let Some(moto) = Moto::start("CloudTrail's digests").await else { return };
    let python = python_with("cryptography").expect("moto brings it");
    moto.bucket("trail").await;
    let folder = tempfile::TempDir::new().unwrap();
    let hour = now().hour();
    let content = |name: &str| (file(name), records(&ids(name, 3)));
    let before = hour.minus(Duration::from_secs(3_600));
    let (good, other) = ([content("a"), content("b")], [content("c"), content("gone"), content("changed")]);
    let asked = json!([
        digest(REGION, before, &[]),
        digest(REGION, hour, &good),
        digest("us-east-1", before, &[]),
        digest("us-east-1", hour, &other),
    ]);
    let mut sign =
        Command::new(python).args(["-c", SIGN]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    sign.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let signed: Value = serde_json::from_slice(&sign.wait_with_output().unwrap().stdout).unwrap();
    let keys = folder.path().join("keys.json");
    std::fs::write(&keys, signed["keys"].to_string()).unwrap();
    let put = async |number: usize| {
        let digest = &signed["digests"][number];
        let content = STANDARD.decode(digest["content"].as_str().unwrap()).unwrap();
        let (key, signature) = (digest["key"].as_str().unwrap(), digest["signature"].as_str().unwrap());
        moto.put_signed("trail", key, gzip(&content), signature).await;
    };
    let config = config(&format!(
        "s3: {{bucket: trail, prefixes: [{ACCOUNT}], {}, every: 1s, public_keys: {}}}",
        access(&moto),
        keys.display()
    ));
    let server = start(&config, &folder.path().join("data"), (KEY, SECRET));
    let window = async |status: &str| {
        let query = "SELECT status, basis FROM source_windows WHERE source = 'trail' ORDER BY seq DESC LIMIT 1";
        let mut last = Vec::new();
        for _ in 0..120 {
            server.settled().await;
            last = server.sql(query).await;
            if last.first().is_some_and(|row| row[0] == status) {
                return last[0][1].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("no window is {status}: {last:?}, {:#}", server.get("/v1/sources").await);
    };
    for (key, content) in &good {
        moto.put("trail", key, gzip(content)).await;
    }
    put(0).await;
    put(1).await;
    let basis = window("complete").await;
    assert!(basis.contains("everything that the provider lists"), "{basis}");

    // Another region, where one file went and one was changed before they were read.
    moto.put("trail", &other[0].0, gzip(&other[0].1)).await;
    moto.put("trail", &other[2].0, gzip(&records(&ids("forged", 1)))).await;
    put(2).await;
    put(3).await;
    let basis = window("gap").await;
    for part in [&format!("{} is missing", other[1].0), &format!("{} was changed", other[2].0)] {
        assert!(basis.contains(part), "{part} is missing in: {basis}");
    }
    assert!(!basis.contains(&other[0].0), "{basis}");
    let own = server
        .sql("SELECT CAST(body AS VARCHAR) FROM events WHERE source = 'pipeproof' AND action = 'pipeproof.collected'")
        .await;
    let own = json!(own).to_string();
    assert!(own.contains("CloudTrail-Digest") && own.contains("gone.json.gz is missing"), "the outcome is on record");
}

#[test]
fn what_is_wrong_with_a_bucket_or_a_queue_is_named() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("p.yaml");
    let text = "version: 1
sources:
  - {name: a, type: aws.cloudtrail, collects: {s3: {bucket: 'x/y', region: 'eu central', access_key: {id: {env: NOT_SET_ANYWHERE}, secret: {env: PATH}}}}}
  - {name: b, type: github.joblog, collects: {s3: {bucket: logs, region: eu-central-1}}}
  - {name: c, type: json, collects: {s3: {bucket: logs, region: eu-central-1, endpoint: 'ftp://x', prefixes: ['../x'], public_keys: /nowhere, every: soon}}}
  - {name: d, type: json, collects: {sqs: {queue: 'arn:aws:sqs:x', buckets: [], region: eu-central-1}}}
  - {name: e, type: json, collects: {s3: {bucket: logs, region: eu-central-1, access_key: {id: {env: KEY_ID}, secret: {env: NOT_SET_ANYWHERE}}}}}
";
    std::fs::write(&path, text).unwrap();
    let data = folder.path().join("d");
    let output = crate::harness::run(["serve", "--config", path.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    let said = crate::harness::stderr(&output);
    for part in [
        "sources[0].collects.s3.region",
        "sources[1].collects.s3",
        "github.joblog",
        "sources[2].collects.s3.endpoint",
        "sources[2].collects.s3.prefixes",
        "sources[2].collects.s3.public_keys",
        "sources[2].collects.s3.every",
        "sources[3].collects.sqs.buckets",
        "sources[3].collects.sqs.queue",
        "sources[4].collects.s3.access_key.secret",
        "NOT_SET_ANYWHERE",
    ] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_cannot_be_asked_for_is_named_and_the_others_are_read_once_by_list_or_message() {
    let Some(moto) = Moto::start("odd keys in a bucket").await else { return };
    moto.bucket("trail").await;
    let queue = moto.queue("trail").await;
    let mut expected = BTreeSet::new();
    for number in 0..3 {
        expected.extend(delivered(&moto, &format!("f-{number}"), 5).await);
    }
    let today = format!("{ACCOUNT}CloudTrail/{REGION}/{}", day(now()));
    for odd in [format!("{today}/odd.json.gz"), format!("{ACCOUNT}/odd/x.json.gz"), "/odd.json.gz".to_owned()] {
        moto.put("trail", &odd, gzip(&records(&ids("odd", 1)))).await;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let both = format!(
        "s3: {{bucket: trail, {0}, every: 1s}}, sqs: {{queue: \"{queue}\", buckets: [trail], {0}}}",
        access(&moto)
    );
    let server = start(&config(&both), &data, (KEY, SECRET));
    holds(&server, &expected).await;
    let lost = eventually("each odd key is named", || async {
        let sources = server.get("/v1/sources").await;
        let collectors = sources["sources"][0]["collectors"].as_array().unwrap().clone();
        let listing = collectors.into_iter().find(|one| one["collector"] == "s3.objects/trail")?;
        (listing["lost_ever"] == 3).then_some(listing)
    })
    .await;
    assert_eq!(lost["state"], "ok", "{lost}");
    for named in [format!("s3://trail/{today}/odd.json.gz: its key"), format!("s3://trail/{ACCOUNT}/: its key")] {
        assert!(lost["lost"].to_string().contains(&named), "{named} in {lost}");
    }
    // What comes by the one way and by the other is there once, and the names are said once.
    for number in 3..8 {
        expected.extend(delivered(&moto, &format!("f-{number}"), 5).await);
        let key = file(&format!("f-{number}"));
        let object = json!({"key": key, "size": 9});
        let notice = json!({"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "trail"}, "object": object}}]});
        moto.send(&queue, &notice).await;
        holds(&server, &expected).await;
    }
    server.kill();
    let server = start(&config(&both), &data, (KEY, SECRET));
    expected.extend(delivered(&moto, "last", 5).await);
    holds(&server, &expected).await;
    let sources = server.get("/v1/sources").await;
    let collectors = sources["sources"][0]["collectors"].as_array().unwrap();
    assert!(collectors.iter().any(|one| one["lost_ever"] == 3), "{sources:#}");
}
