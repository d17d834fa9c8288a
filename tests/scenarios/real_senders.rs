//! Programs of others send what they send: curl, the OpenTelemetry SDK, Elasticsearch's client, rsyslog, kcat and its broker; and files as programs
//! write and rotate them. What is not installed is left out, and said.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Server, Setup, eventually, fixture, has_tool, items, left_out, python_with, token_of};

/// Where Debian's `rsyslog-elasticsearch` puts rsyslog's client of Elasticsearch.
const OMELASTICSEARCH: &str = "/usr/lib/x86_64-linux-gnu/rsyslog/omelasticsearch.so";

/// A program that is ended with its test.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A port that nobody listens on, as far as can be known.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) async fn arrives(server: &Server, source: &str, count: i64) {
    eventually(&format!("{count} events of {source}"), || async {
        server.settled().await;
        let query =
            format!("SELECT count(*) FROM events WHERE source = '{source}' AND dead_letter IS NULL AND sub = 0");
        (server.count(&query).await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn curl_sends_a_file_as_the_sender_configuration_says() {
    if !has_tool("curl") {
        return left_out("curl", "it is not installed");
    }
    let server = Server::start();
    let token = token_of(&server.add_source("vault", "vault.audit", &[]));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("audit.log");
    std::fs::write(&file, fixture("vault_audit/audit.ndjson")).unwrap();
    let output = Command::new("curl")
        .args([
            "-fsS",
            "--data-binary",
            &format!("@{}", file.display()),
            "-H",
            &format!("Authorization: Bearer {token}"),
        ])
        .arg(format!("{}/v1/events/vault", server.url()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines =
        fixture("vault_audit/audit.ndjson").split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    arrives(&server, "vault", i64::try_from(lines).unwrap()).await;
}

const EXPORT: &str = r#"
import logging, sys
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
provider = LoggerProvider(resource=Resource.create({"service.name": "deployer"}))
exporter = OTLPLogExporter(endpoint=sys.argv[1] + "/v1/logs", headers={"authorization": "Bearer " + sys.argv[2]})
provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
log = logging.getLogger("deploy")
log.setLevel(logging.INFO)
log.addHandler(LoggingHandler(logger_provider=provider))
log.info("a line of text")
log.info('{"action": "deploy.finished", "outcome": "success"}')
provider.shutdown()
"#;

#[tokio::test]
async fn the_opentelemetry_sdk_exports_its_logs() {
    let Some(python) = python_with("opentelemetry.exporter.otlp.proto.http._log_exporter") else {
        return left_out(
            "the OpenTelemetry SDK",
            "no Python that imports its OTLP exporter; set PIPEPROOF_PYTHON to one",
        );
    };
    let server = Server::start();
    let token = token_of(&server.add_source("otel", "json", &[]));
    let output = Command::new(python).args(["-c", EXPORT, server.url(), &token]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("Failed"), "{said}");
    arrives(&server, "otel", 2).await;
    assert!(server.actions("otel").await.contains_key("deploy.finished"));
    assert_eq!(server.count("SELECT count(*) FROM events WHERE source = 'otel' AND time_known").await, 1);
}

const BULK: &str = r#"
import sys
from elasticsearch import Elasticsearch, helpers
client = Elasticsearch(sys.argv[1], basic_auth=("pipeproof", sys.argv[2]))
client.info()
def documents():
    for number in range(2500):
        yield {"_index": "deployments", "_id": f"d-{number}", "action": "deploy.finished", "number": number}
sent, failed = helpers.bulk(client, documents(), chunk_size=1000)
assert (sent, failed) == (2500, []), (sent, failed)
again = helpers.bulk(client, documents(), chunk_size=1000)
assert again == (2500, []), again
"#;

#[tokio::test]
async fn the_elasticsearch_client_sends_in_bulk() {
    let Some(python) = python_with("elasticsearch") else {
        return left_out("the Elasticsearch client", "no Python that imports it; set PIPEPROOF_PYTHON to one");
    };
    let server = Server::start();
    let token = token_of(&server.add_source("elastic", "json", &[]));
    let output = Command::new(python).args(["-c", BULK, server.url(), &token]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Documents sent again under their ids are the same ones.
    arrives(&server, "elastic", 2_500).await;
    assert_eq!(server.actions("elastic").await.get("deploy.finished"), Some(&2_500));
}

/// An rsyslog that listens on a socket, as its configuration says.
async fn rsyslog(configuration: &str, pid: &str, socket: &str) -> Running {
    let rsyslog = Command::new("rsyslogd")
        .args(["-n", "-f", configuration, "-i", pid])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(rsyslog);
    eventually("rsyslog listens", || async { Path::new(socket).exists().then_some(()) }).await;
    running
}

#[tokio::test]
async fn rsyslog_sends_in_bulk_as_to_elasticsearch() {
    if !has_tool("rsyslogd") || !has_tool("logger") || !Path::new(OMELASTICSEARCH).exists() {
        return left_out("rsyslog with omelasticsearch", "rsyslogd, logger or its module is not installed");
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let server = Server::start();
    let token = token_of(&server.add_source("hosts", "json", &[]));
    let port = server.url().rsplit(':').next().unwrap();
    let rules = format!(
        "global(workDirectory=\"{}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\nmodule(load=\"omelasticsearch\")\n\
         template(name=\"plain\" type=\"list\") {{ constant(value=\"{{\\\"host\\\":\\\"\") property(name=\"hostname\") \
         constant(value=\"\\\",\\\"message\\\":\\\"\") property(name=\"msg\" format=\"json\") constant(value=\"\\\"}}\") }}\n\
         input(type=\"imuxsock\" Socket=\"{}\" CreatePath=\"on\")\n\
         action(type=\"omelasticsearch\" server=\"127.0.0.1\" serverport=\"{port}\" bulkmode=\"on\" searchIndex=\"hosts\" searchType=\"\" \
         template=\"plain\" uid=\"pipeproof\" pwd=\"{token}\" errorFile=\"{}\")\n",
        folder.path().display(),
        at("socket"),
        at("errors"),
    );
    std::fs::write(at("rsyslog.conf"), rules).unwrap();
    let _running = rsyslog(&at("rsyslog.conf"), &at("pid"), &at("socket")).await;
    for number in 0..20 {
        let text = format!("line {number} of \"twenty\"");
        let sent = Command::new("logger").args(["-u", &at("socket"), "-t", "deployer", &text]).status().unwrap();
        assert!(sent.success());
    }
    arrives(&server, "hosts", 20).await;
    assert!(!Path::new(&at("errors")).exists(), "{}", std::fs::read_to_string(at("errors")).unwrap_or_default());
}

#[tokio::test]
async fn rsyslog_forwards_over_tcp_in_both_framings() {
    if !has_tool("rsyslogd") || !has_tool("logger") {
        return left_out("rsyslog", "rsyslogd or logger is not installed");
    }
    let folder = TempDir::new().unwrap();
    let port = free_port();
    let config =
        format!("sources:\n  - name: hosts\n    type: json\n    reads: {{syslog: {{listen: '127.0.0.1:{port}'}}}}\n");
    let server = Setup::new().config(&config).start();
    for (number, framing) in ["octet-counted", "traditional"].into_iter().enumerate() {
        let at = |name: &str| folder.path().join(format!("{name}{number}")).display().to_string();
        let rules = format!(
            "global(workDirectory=\"{}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"{}\" CreatePath=\"on\")\n\
             action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" protocol=\"tcp\" TCP_Framing=\"{framing}\" template=\"RSYSLOG_SyslogProtocol23Format\")\n",
            folder.path().display(),
            at("socket")
        );
        std::fs::write(at("rsyslog.conf"), rules).unwrap();
        let _running = rsyslog(&at("rsyslog.conf"), &at("pid"), &at("socket")).await;
        for text in
            [format!("a line in {framing}"), json!({"action": "deploy.finished", "framing": framing}).to_string()]
        {
            let sent = Command::new("logger").args(["-u", &at("socket"), "-t", "deployer", &text]).status().unwrap();
            assert!(sent.success());
        }
        arrives(&server, "hosts", i64::try_from((number + 1) * 2).unwrap()).await;
    }
    assert_eq!(server.actions("hosts").await.get("deploy.finished"), Some(&2));
    let proven = server.sql("SELECT DISTINCT auth FROM events WHERE source = 'hosts'").await;
    assert_eq!(proven, [[json!("unverified")]], "nobody vouches for what comes over plain TCP");
    let headers = server
        .sql("SELECT count(*) FROM events WHERE source = 'hosts' AND envelope LIKE '%\"syslog.app\":\"deployer\"%'")
        .await;
    assert_eq!(headers, [[json!(4)]]);
}

/// Sends lines to a topic.
pub(crate) fn produce(brokers: &str, lines: &[String]) {
    let mut kcat =
        Command::new("kcat").args(["-b", brokers, "-t", "audit", "-P"]).stdin(Stdio::piped()).spawn().unwrap();
    kcat.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    assert!(kcat.wait().unwrap().success());
}

/// A broker and its address, if kcat is there to bring one; else says so.
pub(crate) fn broker() -> Option<(Running, String)> {
    if !has_tool("kcat") {
        left_out("Kafka", "kcat is not installed");
        return None;
    }
    // Its library brings a broker, which lives as long as a client that asks for one. A producer waits for its input; a
    // consumer would end where it finds no topic.
    let mut broker = Command::new("kcat")
        .args(["-X", "test.mock.num.brokers=1", "-b", "mock", "-P", "-t", "warm-up"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(broker.stderr.take().unwrap()).lines();
    let running = Running(broker);
    let address = |line: &str| Some(line.split_once("replaced with ")?.1.trim().to_owned());
    let Some(brokers) = said.find_map(|line| address(&line.ok()?)) else {
        left_out("Kafka", "this kcat brings no broker");
        return None;
    };
    // Read on, so that what it says does not fill the pipe and hold it up.
    std::thread::spawn(move || said.for_each(drop));
    Some((running, brokers))
}

#[tokio::test]
async fn a_message_that_is_too_large_for_any_request_is_a_dead_letter_and_the_next_is_read() {
    let Some((_running, brokers)) = broker() else { return };
    // Each in a partition of its own: this broker keeps 5 MB of a partition, and lets go of what is older.
    let put = |partition: &str, event: Value| {
        let mut kcat = Command::new("kcat")
            .args(["-X", "message.max.bytes=67108864", "-b", &brokers, "-t", "audit", "-p", partition, "-P"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        kcat.stdin.take().unwrap().write_all(event.to_string().as_bytes()).unwrap();
        assert!(kcat.wait().unwrap().success());
    };
    put("0", json!({"action": "kafka.before"}));
    put("1", json!({"action": "kafka.large", "padding": "x".repeat(33 << 20)}));
    put("2", json!({"action": "kafka.after"}));
    let config = format!(
        "sources:\n  - name: bus\n    type: json\n    reads: {{kafka: {{brokers: ['{brokers}'], topics: [audit]}}}}\n"
    );
    let server = Setup::new().config(&config).start();
    arrives(&server, "bus", 2).await;
    let letters = eventually("the dead letter", || async {
        let letters = items(&server.get("/v1/deadletters?source=bus").await, "dead_letters");
        (letters.len() == 1).then_some(letters)
    })
    .await;
    assert!(letters[0]["reason"].as_str().unwrap().contains("body_too_large"), "{letters:?}");
}

#[tokio::test]
async fn kcat_produces_and_a_restart_goes_on_where_it_was() {
    let Some((_running, brokers)) = broker() else { return };
    let events = |from: usize, to: usize| -> Vec<String> {
        (from..to).map(|n| json!({"action": "kafka.event", "n": n}).to_string()).collect()
    };
    produce(&brokers, &events(0, 50));
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let config = format!(
        "sources:\n  - name: bus\n    type: json\n    reads: {{kafka: {{brokers: ['{brokers}'], topics: [audit]}}}}\n"
    );
    let server = Setup::new().config(&config).on(&data).start();
    arrives(&server, "bus", 50).await;
    // Killed, so that what was committed is whatever it was.
    server.kill();
    produce(&brokers, &events(50, 80));
    let server = Setup::new().config(&config).on(&data).start();
    arrives(&server, "bus", 80).await;
    assert_eq!(server.actions("bus").await.get("kafka.event"), Some(&80));
    let places = server
        .sql("SELECT count(DISTINCT item) FROM events WHERE source = 'bus' AND item LIKE 'id:kafka/audit/%'")
        .await;
    assert_eq!(places, [[json!(80)]]);
}

#[tokio::test]
async fn a_file_is_followed_through_rotation_and_restarts() {
    let folder = TempDir::new().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("audit.log"));
    let line = |n: usize| format!("{}\n", json!({"action": "file.event", "n": n}));
    let append = |from: usize, to: usize| {
        let mut file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        (from..to).for_each(|n| file.write_all(line(n).as_bytes()).unwrap());
    };
    append(0, 10);
    let config = format!("sources:\n  - name: file\n    type: json\n    reads: {{files: ['{}']}}\n", log.display());
    let server = Setup::new().config(&config).on(&data).start();
    arrives(&server, "file", 10).await;
    append(10, 15);
    std::fs::rename(&log, folder.path().join("audit.log.1")).unwrap();
    append(15, 20);
    arrives(&server, "file", 20).await;
    server.kill();
    append(20, 25);
    std::fs::rename(&log, folder.path().join("audit.log.2")).unwrap();
    append(25, 30);
    let server = Setup::new().config(&config).on(&data).start();
    arrives(&server, "file", 30).await;
    let distinct = server.sql("SELECT count(*), count(DISTINCT item) FROM events WHERE source = 'file'").await;
    assert_eq!(distinct, [[json!(30), json!(30)]]);
}
