//! Keys whose lines stand behind what logs write, and keys of which each line is a text of its own.

use bytes::Bytes;
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::super::tests::redactor;
use super::*;

/// Lines as long as OpenSSL makes them, each with a part that is its own.
fn body() -> Vec<String> {
    (0..12)
        .map(|line| {
            format!("{line:02}MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8{}", ["c", "K8"][line % 2])
        })
        .map(|line| line[..64].to_owned())
        .collect()
}

fn key(label: &str) -> Vec<String> {
    let mut lines = vec![format!("-----BEGIN {label} KEY-----")];
    lines.extend(body());
    lines.push("AoIBAQ==".to_owned());
    lines.push(format!("-----END {label} KEY-----"));
    lines
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// No line of the key, nor a half of one.
fn is_gone(text: &str) -> bool {
    body().iter().all(|line| !text.contains(&line[..32]) && !text.contains(&line[32..])) && !text.contains("AoIBAQ==")
}

#[test]
fn lines_behind_what_a_log_writes_go_with_the_first() {
    let mut fingerprints = Vec::new();
    for prefix in [
        "",
        "2026-11-20T10:00:00.1234567Z ",
        "[2026-11-20T10:00:00.120Z] ",
        "\u{1b}_bk;t=1795168800000\u{7}",
        "app_1  | ",
        "[pod/app-7d4b9c/main] ",
        "\u{1b}[33m",
        "Nov 20 10:00:00 build-7 deploy[71]: ",
        "    \"",
    ] {
        for end in ["\n", "\r\n", "\u{1b}[0m\n", "\\n\" +\n"] {
            let lines: String = key("RSA PRIVATE").iter().map(|line| format!("{prefix}{line}{end}")).collect();
            let text = format!("{prefix}before{end}{lines}{prefix}after{end}");
            let (after, found) = redactor().text(&Bytes::from(text));
            let after = shown(&after);
            assert!(is_gone(&after), "{after}");
            assert!(
                after.starts_with(&format!("{prefix}before")) && after.contains(&format!("{prefix}after")),
                "{after}"
            );
            assert_eq!(found.len(), 1, "{after}");
            fingerprints.push(found[0].fingerprint.clone());
        }
    }
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 1, "the same key however its lines are written");
}

#[test]
fn a_key_that_is_cut_goes_up_to_the_cut_and_no_further() {
    let lines = key("PRIVATE");
    for count in 2..lines.len() {
        let cut = lines[..count].join("\n");
        let text = format!("{cut}\nStep 4 of 9: tests\nall is well here\n");
        let (after, _) = redactor().text(&Bytes::from(text));
        let after = shown(&after);
        assert!(is_gone(&after) && after.ends_with("\nStep 4 of 9: tests\nall is well here\n"), "{after}");
    }
    // Anywhere in a line, too.
    let whole = lines.join("\n");
    for len in 40..whole.len() {
        let (after, _) = redactor().text(&Bytes::copy_from_slice(&whole.as_bytes()[..len]));
        assert!(is_gone(&shown(&after)), "{len}: {}", shown(&after));
    }
}

#[test]
fn markers_and_what_only_stands_between_them_are_no_key() {
    for text in [
        "grep -q -e '-----BEGIN PRIVATE KEY-----' key.pem",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nStep 1\nStep 2\n0e58ed8671d6b60d0890c21b07f8835ace038e67\n",
        "-----BEGIN CERTIFICATE-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n",
    ] {
        let bytes = Bytes::from(text);
        assert_eq!(redactor().text(&bytes), (bytes.clone(), vec![]), "{text}");
    }
}

#[test]
fn an_array_of_lines_hides_no_key() {
    let body = serde_json::json!({"sha": "0e58ed8671d6b60d0890c21b07f8835ace038e67", "lines": key("EC PRIVATE"), "after": ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj"]});
    let (after, found) = redactor().body(SourceType::Json, &Bytes::from(body.to_string()));
    let after: serde_json::Value = serde_json::from_slice(&after).unwrap();
    assert!(is_gone(&after.to_string()), "{after:#}");
    assert_eq!((&after["sha"], &after["after"]), (&body["sha"], &body["after"]), "what stands elsewhere stays");
    // Its first line, and from the second on the key.
    assert_eq!(found.len(), 2, "{found:?}");
    let whole = redactor().text(&Bytes::from(key("EC PRIVATE").join("\n"))).1;
    assert!(found.iter().any(|one| one.fingerprint == whole[0].fingerprint), "the same key in one text");
    let again = redactor().body(SourceType::Json, &Bytes::from(after.to_string()));
    assert_eq!(again.1, [], "twice is once");
}

#[test]
fn what_is_not_kept_is_read_again_from_where_it_began() {
    let lines = key("PRIVATE");
    let carried = Carried::default();
    let read = |carried: &Carried, text: &str| {
        let mut open = carried.before();
        let (after, _) =
            redactor().body_after(SourceType::GithubJoblog, &Bytes::copy_from_slice(text.as_bytes()), &mut open);
        carried.leave(open);
        shown(&after)
    };
    assert!(is_gone(&read(&carried, &lines[..4].join("\n"))));
    let carried = carried.next();
    assert!(carried.is_open());
    let rest = format!("{}\nafter\n", lines[4..].join("\n"));
    for attempt in 0..2 {
        let after = read(&carried, &rest);
        assert!(is_gone(&after) && after.ends_with("\nafter\n"), "{attempt}: {after}");
    }
    assert!(!carried.next().is_open());
    assert!(!format!("{carried:?}").contains("MIIE"));
}

#[test]
fn others_lines_between_those_of_a_key_close_it_only_if_they_are_many() {
    let lines = key("PRIVATE");
    for (others, closed) in [(FOREIGN_MAX, false), (FOREIGN_MAX + 1, true)] {
        let mut open = OpenKey::default();
        let mut read = |text: &str| {
            let body = serde_json::json!({"host": "a", "message": text}).to_string();
            shown(&redactor().body_after(SourceType::Json, &Bytes::from(body), &mut open).0)
        };
        read(&lines[0]);
        for _ in 0..others {
            assert!(read("GET /healthz 200").contains("healthz"));
        }
        assert_eq!(read(&lines[1]).contains(&lines[1]), closed);
    }
}
