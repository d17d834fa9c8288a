//! Each wrapper around items of the types it is used for, and what must not be taken for one.

use std::io::Write as _;

use base64::engine::general_purpose::STANDARD;
use pipeproof_engine::time::Timestamp;
use serde_json::json;

use super::super::{Framing, items};
use super::*;
use base64::Engine as _;

fn of(kind: SourceType, framing: Framing, body: &str) -> Vec<Item> {
    items(kind, framing, &Bytes::copy_from_slice(body.as_bytes()), &Limits::default()).unwrap()
}

fn texts(kind: SourceType, body: &str) -> Vec<String> {
    of(kind, Framing::Values, body).iter().map(|item| String::from_utf8(item.bytes.to_vec()).unwrap()).collect()
}

fn gzip(text: &str) -> String {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    STANDARD.encode(encoder.finish().unwrap())
}

const EVENT: &str = r#"{"eventID":"1","eventName":"A","text":"\"quoted\" \u00e9"}"#;
const OTHER: &str = r#"{"eventID":"2","eventName":"B"}"#;

#[test]
fn wrappers_by_their_shape() {
    let quoted = serde_json::to_string(EVENT).unwrap();
    let logs = format!(
        r#"{{"messageType":"DATA_MESSAGE","logGroup":"g","logStream":"s","logEvents":[{{"id":"7","timestamp":1,"message":{quoted}}}]}}"#
    );
    let table: Vec<(&str, String)> = vec![
        ("list", format!(r#"{{"Records":[{EVENT}]}}"#)),
        ("Azure", format!(r#"{{"records":[{EVENT}]}}"#)),
        ("EventBridge", format!(r#"{{"version":"0","id":"x","detail-type":"AWS API Call via CloudTrail","source":"aws.sts","detail":{EVENT}}}"#)),
        ("SNS", format!(r#"{{"Type":"Notification","MessageId":"m","Message":{quoted}}}"#)),
        ("Pub/Sub push", format!(r#"{{"message":{{"data":"{}","messageId":"136"}},"subscription":"projects/p/subscriptions/s"}}"#, STANDARD.encode(EVENT))),
        ("Pub/Sub pull", format!(r#"{{"receivedMessages":[{{"ackId":"a","message":{{"data":"{}"}}}}]}}"#, STANDARD.encode(EVENT))),
        ("CloudWatch", logs.clone()),
        ("CloudWatch to Lambda", format!(r#"{{"awslogs":{{"data":"{}"}}}}"#, gzip(&logs))),
        ("Firehose", format!(r#"{{"requestId":"r","timestamp":1,"records":[{{"data":"{}"}}]}}"#, STANDARD.encode(EVENT))),
        ("CloudWatch through Firehose", format!(r#"{{"requestId":"r","timestamp":1,"records":[{{"data":"{}"}}]}}"#, gzip(&logs))),
        ("CloudEvent", format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{EVENT}}}"#)),
        ("CloudEvent, bytes", format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"{}"}}"#, STANDARD.encode(EVENT))),
        ("LogEntry", format!(r#"{{"insertId":"1","logName":"projects/p/logs/stdout","jsonPayload":{EVENT}}}"#)),
        ("Filebeat", format!(r#"{{"@timestamp":"2026-01-01T00:00:00Z","message":{quoted},"agent":{{"type":"filebeat"}}}}"#)),
        ("Fluent Bit", format!(r#"{{"date":1.5,"log":{},"stream":"stdout"}}"#, serde_json::to_string(&format!("{EVENT}\n")).unwrap())),
        ("EventBridge in SNS in SQS", json!({"Records": [{"Type": "Notification", "Message": format!(r#"{{"detail-type":"x","detail":{EVENT}}}"#)}]}).to_string()),
    ];
    for (name, body) in &table {
        assert_eq!(texts(SourceType::AwsCloudtrail, body), [EVENT], "{name}: {body}");
        let two = format!("[{body},{OTHER}]");
        assert_eq!(texts(SourceType::AwsCloudtrail, &two), [EVENT, OTHER], "{name} beside another");
    }
    let kubernetes = r#"{"auditID":"1","stage":"ResponseComplete"}"#;
    let log = serde_json::to_string(kubernetes).unwrap();
    for body in [
        format!(r#"{{"kind":"EventList","items":[{kubernetes}]}}"#),
        format!(r#"{{"records":[{{"category":"kube-audit","properties":{{"log":{log},"stream":"stdout"}}}}]}}"#),
    ] {
        assert_eq!(texts(SourceType::KubernetesAudit, &body), [kubernetes], "{body}");
    }
}

#[test]
fn audit_devices_of_vault_by_file_socket_and_syslog_give_the_same_entries() {
    let entry =
        r#"{"time":"2026-11-20T09:50:00.1Z","type":"request","auth":{"policies":["a b: [c]"]},"request":{"id":"r-1"}}"#;
    let lines = [
        // A file and a socket: as it is.
        entry.to_owned(),
        format!("<134>1 2026-11-20T09:50:00.1Z vault-0 vault 123 - - {entry}"),
        format!("<134>1 2026-11-20T09:50:00.1Z vault-0 vault 123 - - \u{feff}{entry}"),
        // To the local daemon, without and with the host that a relay adds.
        format!("<134>Nov 20 09:50:00 vault[123]: {entry}"),
        format!("<134>Nov 20 09:50:00 vault-0 vault[123]: {entry}"),
        format!("<134>2026-11-20T09:50:00Z vault-0 vault[123]: {entry}"),
        format!("<134>Nov 20 09:50:00 vault-0 vault: {entry}"),
    ];
    let framing = Framing::Syslog { received: Timestamp::from_secs(1_795_694_400) };
    for line in &lines {
        for ended in [format!("{line}\n"), format!("{line}\n\n"), format!("{} {line}", line.len())] {
            let found = of(SourceType::VaultAudit, framing, &ended);
            assert_eq!(found.iter().map(|item| &item.bytes[..]).collect::<Vec<_>>(), [entry.as_bytes()], "{ended}");
        }
    }
    assert_eq!(of(SourceType::VaultAudit, framing, &lines.join("\n")).len(), lines.len());
    assert_eq!(texts(SourceType::VaultAudit, &format!("{entry}\n{entry}\n")), [entry, entry]);
}

#[test]
fn clusters_of_all_clouds_give_the_same_kind_of_event() {
    let event = r#"{"auditID":"1","stage":"ResponseComplete","verb":"get"}"#;
    let quoted = serde_json::to_string(event).unwrap();
    let logs = format!(
        r#"{{"messageType":"DATA_MESSAGE","logGroup":"/aws/eks/prod/cluster","logStream":"kube-apiserver-audit-1","logEvents":[{{"id":"7","timestamp":1,"message":{quoted}}}]}}"#
    );
    let aks = format!(
        r#"{{"records":[{{"category":"kube-audit","properties":{{"log":{quoted},"stream":"stdout","pod":"p"}}}}]}}"#
    );
    for body in [
        logs.clone(),
        format!(r#"{{"awslogs":{{"data":"{}"}}}}"#, gzip(&logs)),
        format!(r#"{{"requestId":"r","timestamp":1,"records":[{{"data":"{}"}}]}}"#, gzip(&logs)),
        aks.clone(),
        format!(r#"{{"message":{{"data":"{}","messageId":"1"}},"subscription":"s"}}"#, STANDARD.encode(event)),
    ] {
        assert_eq!(texts(SourceType::KubernetesAudit, &body), [event], "{body}");
    }
    // GKE's entry is read as it is.
    let gke = r#"{"insertId":"i","logName":"projects/p/logs/cloudaudit.googleapis.com%2Fdata_access","protoPayload":{"methodName":"io.k8s.core.v1.secrets.get"}}"#;
    let pushed = format!(r#"{{"message":{{"data":"{}","messageId":"1"}},"subscription":"s"}}"#, STANDARD.encode(gke));
    assert_eq!(texts(SourceType::KubernetesAudit, &pushed), [gke]);
}

#[test]
fn a_kept_delivery_has_its_name_and_id() {
    let body = r#"{"id":1,"guid":"g-1","event":"ping","request":{"headers":{},"payload":{"zen":"x"}},"response":{}}"#;
    let items = of(SourceType::GithubWebhook, Framing::Values, body);
    assert_eq!((items.len(), &items[0].bytes[..], items[0].id.as_deref()), (1, &br#"{"zen":"x"}"#[..], Some("g-1")));
    assert_eq!(items[0].attributes, [("x-github-delivery", "g-1".to_owned()), ("x-github-event", "ping".to_owned())]);
    assert_eq!(
        texts(SourceType::GithubWebhook, r#"{"x_github_event":"ping","payload":{"zen":"x"}}"#),
        [r#"{"zen":"x"}"#]
    );
    let bundle = r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}"#;
    let body = format!(r#"{{"attestations":[{{"bundle":{bundle},"repository_id":1}}]}}"#);
    assert_eq!(texts(SourceType::SigstoreBundle, &body), [bundle]);
}

#[test]
fn hec_events_keep_where_they_were_read() {
    let quoted = serde_json::to_string(EVENT).unwrap();
    let body = format!(
        r#"{{"time":"1.5","host":"h","sourcetype":"st","event":{EVENT}}}{{"event":{quoted}}} {{"event":"a line","time":2}}"#
    );
    for kind in [SourceType::AwsCloudtrail, SourceType::Json] {
        let items = of(kind, Framing::Hec, &body);
        let texts: Vec<&[u8]> = items.iter().map(|item| &item.bytes[..]).collect();
        assert_eq!(texts, [EVENT.as_bytes(), EVENT.as_bytes(), br#"{"event":"a line","time":2}"#]);
        let said = [("hec.time", "1.5".to_owned()), ("hec.host", "h".to_owned()), ("hec.sourcetype", "st".to_owned())];
        assert_eq!(items[0].attributes, said);
    }
    let raw = of(SourceType::Json, Framing::HecRaw, &format!("{OTHER}\na \"line\"\n\n"));
    assert_eq!(
        raw.iter().map(|item| &item.bytes[..]).collect::<Vec<_>>(),
        [OTHER.as_bytes(), br#"{"event":"a \"line\""}"#]
    );
    assert_eq!(of(SourceType::Json, Framing::Hec, "nonsense").len(), 1, "kept, and a dead letter later");
}

#[test]
fn bulk_documents_keep_their_ids() {
    let body = format!(
        "{{\"create\":{{\"_index\":\"logs\",\"_id\":\"9\"}}}}\n{OTHER}\n{{\"update\":{{\"_id\":\"x\"}}}}\n{{\"doc\":{EVENT}}}\n{{\"delete\":{{\"_id\":\"2\"}}}}\n"
    );
    let items = of(SourceType::Json, Framing::Bulk, &body);
    assert_eq!(items.len(), 3, "a deletion that was asked for is kept");
    assert_eq!((items[0].id.as_deref(), &items[0].bytes[..]), (Some("bulk/logs/9"), OTHER.as_bytes()));
    assert_eq!(items[1].bytes, EVENT);
    assert_eq!(items[0].attributes, [("bulk.index", "logs".to_owned())]);
}

#[test]
fn one_message_with_several_items_names_them_apart() {
    let data = STANDARD.encode(format!("[{EVENT},{OTHER}]"));
    let body = format!(r#"{{"message":{{"data":"{data}","messageId":"5"}},"subscription":"s"}}"#);
    let ids: Vec<_> = of(SourceType::Json, Framing::Values, &body).into_iter().filter_map(|item| item.id).collect();
    assert_eq!(ids, ["pubsub/5", "pubsub/5/1"]);
}

#[test]
fn what_only_looks_like_a_wrapper_stays_whole() {
    for body in [
        r#"{"Records":"no"}"#,
        r#"{"records":{}}"#,
        r#"{"detail-type":"x","detail":"text"}"#,
        r#"{"message":{"data":"%%%"},"subscription":"s"}"#,
        r#"{"awslogs":{"data":"bm8="}}"#,
        r#"{"Type":"Notification","Message":"plain text"}"#,
        r#"{"@timestamp":"x","message":"plain text"}"#,
        r#"{"message":"{\"a\":1}"}"#,
        r#"{"kind":"Event","items":[1]}"#,
    ] {
        let found = texts(SourceType::VaultAudit, body);
        if body.contains("awslogs") {
            assert_eq!(found, ["no"], "what is inside is what was sent");
        } else {
            assert_eq!(found, [body]);
        }
    }
    // JSON of any shape and deliveries of a provider are what they are.
    for kind in [SourceType::Json, SourceType::GithubWebhook] {
        for body in [
            r#"{"records":[{"a":1}]}"#,
            r#"{"detail-type":"x","detail":{"a":1}}"#,
            r#"{"specversion":"1.0","data":{}}"#,
        ] {
            assert_eq!(texts(kind, body), [body]);
        }
    }
}

#[test]
fn wrappers_without_end_stay_and_bombs_leave_their_digest() {
    let mut deep = EVENT.to_owned();
    for _ in 0..50 {
        deep = format!(r#"{{"Records":[{deep}]}}"#);
    }
    let found = texts(SourceType::AwsCloudtrail, &deep);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with(r#"{"Records":[{"Records""#) && found[0].len() < deep.len());
    let bomb = format!(r#"{{"awslogs":{{"data":"{}"}}}}"#, gzip(&" ".repeat(60 << 20)));
    let hidden = of(SourceType::AwsCloudtrail, Framing::Values, &bomb);
    assert!(
        hidden[0].bytes.starts_with(b"{\"encoded_bytes\":")
            && hidden[0].attributes.contains(&(UNREAD, "encoded".to_owned()))
    );
    // Many that are harmless one by one.
    let part = format!(r#"{{"data":"{}"}}"#, gzip(&"[]\n".repeat(1 << 18)));
    let many = format!(r#"{{"requestId":"r","records":[{}]}}"#, vec![part; 200].join(","));
    let kept = of(SourceType::AwsCloudtrail, Framing::Values, &many);
    assert!(
        kept.iter().any(|item| item.bytes.starts_with(b"{\"encoded_bytes\":")),
        "beyond what a request may grow to"
    );
}

#[test]
fn what_a_sender_numbers_says_its_number() {
    let numbers = |kind, framing, body: &str| -> Vec<(String, String)> {
        let number = |item: &Item| {
            let of =
                |wanted: &str| item.attributes.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone());
            Some((of("sequence.stream")?, of("sequence.number")?))
        };
        of(kind, framing, body).iter().filter_map(number).collect()
    };
    let of = |stream: &str, number: &str| (stream.to_owned(), number.to_owned());
    let event = |number: u32, kind: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{number}","source":"/s","type":"t","sequence":"{number}","sequencetype":"{kind}","data":{EVENT}}}"#
        )
    };
    let batch = format!("[{},{},{}]", event(7, "Integer"), event(8, "Integer"), event(9, "Other"));
    let expected = [of("cloudevents//s", "7"), of("cloudevents//s", "8")];
    for kind in [SourceType::Cloudevents, SourceType::Json, SourceType::AwsCloudtrail] {
        assert_eq!(numbers(kind, Framing::Values, &batch), expected, "{kind}: alone, and around other items");
    }
    let syslog = |data: &str, text: &str| format!("<134>1 2026-03-15T10:00:00Z build-7 app - - {data} {text}\n");
    let lines = [
        syslog(r#"[meta sequenceId="3"]"#, "text"),
        syslog(r#"[meta sequenceId="4"]"#, EVENT),
        syslog("-", "text"),
        syslog(r#"[other sequenceId="5"]"#, "text"),
    ];
    let framing = Framing::Syslog { received: Timestamp::from_secs(1_795_694_400) };
    let expected = [of("syslog/build-7", "3"), of("syslog/build-7", "4")];
    assert_eq!(numbers(SourceType::AwsCloudtrail, framing, &lines.concat()), expected);
}
