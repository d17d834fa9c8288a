//! Private keys of which each line is an item, or a request.

use super::*;

/// A private key, and a word of each of its lines that must be found nowhere.
fn key_lines() -> (Vec<String>, Vec<String>) {
    let body: Vec<String> = (0..9).map(|line| format!("{line}Zk3{}", "aB7cD9eF1gH3".repeat(5))).collect();
    let words = body.iter().map(|line| line[..20].to_owned()).collect();
    let marker = |word: &str| format!("-----{word} RSA {} KEY-----", "PRIVATE");
    ([vec![marker("BEGIN")], body, vec![marker("END")]].concat(), words)
}

#[test]
fn a_private_key_of_which_each_line_is_an_item_goes_whole() {
    let (lines, words) = key_lines();
    let syslog: String = lines.iter().map(|line| format!("<13>1 2026-11-26T00:00:00Z h app - - - {line}\n")).collect();
    let docker: String =
        lines.iter().map(|line| format!("{{\"log\":\"{line}\\n\",\"stream\":\"stdout\"}}\n")).collect();
    let hec: String = lines.iter().map(|line| format!("{{\"event\":\"{line}\",\"time\":1}}")).collect();
    let bulk: String = lines.iter().map(|line| format!("{{\"create\":{{}}}}\n{{\"message\":\"{line}\"}}\n")).collect();
    let otlp: Vec<String> = lines
        .iter()
        .map(|line| format!("{{\"timeUnixNano\":\"1\",\"body\":{{\"stringValue\":\"{line}\"}}}}"))
        .collect();
    let otlp = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{}]}}]}}]}}", otlp.join(","));
    for (framing, kind, body) in [
        (Framing::HecRaw, SourceType::Json, format!("before\n{}\nafter\n", lines.join("\n"))),
        (
            Framing::Syslog { received: pipeproof_engine::time::Timestamp::from_secs(1_795_694_400) },
            SourceType::Json,
            syslog,
        ),
        (Framing::Values, SourceType::Json, docker),
        (Framing::Hec, SourceType::Json, hec),
        (Framing::Bulk, SourceType::Json, bulk),
        (Framing::OtlpJson, SourceType::Otlp, otlp),
    ] {
        let way = Way { framing, proven: Some((Authenticity::Unverified, None)), ..Way::default() };
        let records = by(&way, kind, &body).unwrap();
        assert!(records.len() >= lines.len() || kind == SourceType::Otlp, "{framing:?}: {}", records.len());
        let all: String = records.iter().map(|record| String::from_utf8_lossy(&record.body).into_owned()).collect();
        assert!(words.iter().all(|word| !all.contains(word.as_str())), "{framing:?}: {all}");
        let told = records.iter().filter(|record| !record.envelope.redacted.is_empty()).count();
        assert!(told >= 1, "{framing:?}");
    }
}

#[test]
fn a_private_key_goes_whole_over_the_requests_of_one_connection() {
    let (lines, words) = key_lines();
    for kind in [SourceType::Json, SourceType::GithubJoblog] {
        let framing = if kind == SourceType::Json { Framing::HecRaw } else { Framing::Values };
        let mut carried = Carried::default();
        let mut all = String::new();
        for line in &lines {
            let way = Way {
                framing,
                proven: Some((Authenticity::Unverified, None)),
                carried: carried.clone(),
                ..Way::default()
            };
            for record in by(&way, kind, &format!("{line}\n")).unwrap() {
                all.push_str(&String::from_utf8_lossy(&record.body));
            }
            carried = carried.next();
        }
        assert!(words.iter().all(|word| !all.contains(word.as_str())), "{all}");
        assert!(!carried.is_open());
    }
}

fn by(way: &Way, kind: SourceType, body: &str) -> Result<Vec<Record>, Refusal> {
    Receiver::new(KEYS, Limits::default()).accept_by(
        way,
        Request {
            source: &source(kind),
            headers: &HeaderMap::new(),
            query: &BTreeMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            received: Timestamp::from_secs(100),
            bearer: None,
            mode: CollectionMode::Live,
        },
    )
}
