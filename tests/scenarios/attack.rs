//! The attack the demo replays, against a server of its own: what must be found is found, and ordinary traffic is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Server, eventually, items, now};
use crate::replay::{MUST_FIND, SOURCES, Step, steps};

/// Connects the sources of the replay as if they had been there before it, and returns what each sends with.
async fn connect(server: &Server) -> BTreeMap<&'static str, (Option<String>, String)> {
    let since = now().minus(Duration::from_secs(7_200)).to_string();
    let mut senders = BTreeMap::new();
    for source in SOURCES {
        let mut args = vec!["sources", "add", source.name, "--type", source.source_type.name(), "--connected", &since];
        let labels: Vec<String> = source.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for label in &labels {
            args.extend(["--label", label]);
        }
        let added = server.cli_json(&args);
        let text = |name: &str| added[name].as_str().map(str::to_owned);
        senders.insert(source.name, (text("secret"), text("token").unwrap_or_default()));
    }
    senders
}

async fn send(server: &Server, senders: &BTreeMap<&str, (Option<String>, String)>, steps: &[Step]) {
    for step in steps {
        let (secret, token) = &senders[step.source.as_str()];
        let signed = secret.as_ref().filter(|_| step.headers.contains_key("x-github-event"));
        let reply = if let Some(secret) = signed {
            let header = |name: &str| step.headers[name].as_str();
            server
                .send_github(&step.source, secret, header("x-github-event"), header("x-github-delivery"), &step.body)
                .await
        } else {
            let query: Vec<String> = step.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let path = format!("{}?{}", step.source, query.join("&"));
            let headers: Vec<_> = step.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            server.send_with(&path, token, &headers, step.body.to_vec()).await
        };
        assert_eq!(reply.status.as_u16(), 200, "{}: {}", step.note, reply.text());
    }
    server.settled().await;
}

async fn active(server: &Server) -> Vec<Value> {
    let findings = items(&server.get("/v1/findings?limit=1000").await, "findings");
    findings.into_iter().filter(|finding| finding["state"] == "active").collect()
}

#[tokio::test]
async fn ordinary_traffic_pages_nobody() {
    let server = Server::start();
    let senders = connect(&server).await;
    let benign: Vec<Step> =
        steps(now(), 11).unwrap().into_iter().filter(|step| step.note.starts_with("benign")).collect();
    assert!(benign.len() > 20);
    send(&server, &senders, &benign).await;
    let found = active(&server).await;
    assert!(found.is_empty(), "{:#?}", found.iter().map(|finding| &finding["title"]).collect::<Vec<_>>());
    let letters = items(&server.get("/v1/deadletters").await, "dead_letters");
    assert!(letters.is_empty(), "{letters:?}");
}

#[tokio::test]
async fn every_step_of_the_attack_is_found() {
    let server = Server::start();
    let senders = connect(&server).await;
    let all = steps(now(), 12).unwrap();
    send(&server, &senders, &all).await;
    let letters = items(&server.get("/v1/deadletters").await, "dead_letters");
    assert!(letters.is_empty(), "{letters:?}");
    let named: BTreeMap<String, String> = items(&server.get("/v1/rules").await, "rules")
        .iter()
        .filter_map(|rule| Some((rule["name"].as_str()?.to_owned(), rule["id"].as_str()?.to_owned())))
        .collect();
    let expected: BTreeSet<&str> =
        MUST_FIND.iter().map(|name| named.get(*name).unwrap_or_else(|| panic!("no rule {name}")).as_str()).collect();
    let found = eventually("the findings of every step", || async {
        // Correlations wait for their watermark, which is a minute behind.
        let found = active(&server).await;
        let rules: BTreeSet<&str> = found.iter().filter_map(|finding| finding["rule_id"].as_str()).collect();
        expected.is_subset(&rules).then_some(found.clone())
    })
    .await;
    for finding in &found {
        let attack = all.iter().filter(|step| !step.note.starts_with("benign"));
        let cited: Vec<&str> =
            finding["events"].as_array().unwrap().iter().map(|event| event["source"].as_str().unwrap()).collect();
        assert!(
            cited.iter().all(|source| attack.clone().any(|step| step.source == *source)),
            "{finding} cites benign traffic"
        );
        assert_eq!(finding["retro"], false, "{finding}");
    }
    let incidents = server.incidents().await;
    assert!(
        !incidents.is_empty() && incidents.len() < found.len(),
        "findings about the same entities share an incident"
    );
}
