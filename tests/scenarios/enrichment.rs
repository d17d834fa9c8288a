//! What the operator's own files say about addresses: in detection and in the lake, as it held at each record.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Server, Setup, eventually, is_of, items, json_out, program, token_of};
use crate::mmdb::{asn, geo};

const RULE: &str = "\
title: Used from a rented server
id: 0b7d7c2e-0000-4000-8000-000000000011
taxonomy: cicd
logsource: {product: cicd}
detection: {s: {src.asn: 64500, src.country: NL}, condition: s}
level: high
";

fn event(id: &str, address: &str) -> String {
    json!({"id": id, "action": "cloud.api", "actor.id": "eve", "src.ip": address}).to_string()
}

async fn seen(server: &Server) -> Vec<Vec<Value>> {
    server.settled().await;
    let columns = "src_asn, src_org, src_country, src_lat_e6, src_lon_e6";
    server.sql(&format!("SELECT {columns} FROM events WHERE source = 'any' ORDER BY \"index\"")).await
}

fn hang_up(server: &Server) {
    server.signal("HUP");
}

/// How many changes of files the log holds.
async fn changes(server: &Server) -> i64 {
    server.count("SELECT count(*) FROM events WHERE action = 'pipeproof.enrichment-loaded'").await
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_looked_up_in_the_file_that_was_in_force() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let (networks, places) = (folder.path().join("asn.mmdb"), folder.path().join("geo.mmdb"));
    write(&networks, &asn(&[("203.0.113.0/24", 8075, "Microsoft")]));
    write(&places, &geo(&[("203.0.113.0/24", "NL", 52.370_216, 4.895_168)]));
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("rented.yml"), RULE).unwrap();
    let rules = rules.display();
    let config = format!(
        "rules: {{dir: {rules}, shipped: false}}\nenrichment: {{asn: {}, geo: {}}}\n",
        networks.display(),
        places.display()
    );
    let server = Setup::new().on(&data).config(&config).start();
    let token = token_of(&server.add_source("any", "json", &[]));
    server.send("any", &token, event("1", "203.0.113.66")).await.expect(200);
    server.send("any", &token, event("2", "192.0.2.1")).await.expect(200);
    let first = json!([8075, "Microsoft", "NL", 52_370_216, 4_895_168]);
    let unknown = json!([null, null, null, null, null]);
    assert_eq!(json!(seen(&server).await), json!([first, unknown]));
    assert_eq!(changes(&server).await, 2);

    // Another file, taken in without a restart.
    write(&networks, &asn(&[("203.0.113.0/24", 64_500, "Rented")]));
    hang_up(&server);
    eventually("the new file is in force", || async { (changes(&server).await == 3).then_some(()) }).await;
    server.send("any", &token, event("3", "203.0.113.66")).await.expect(200);
    let second = json!([64_500, "Rented", "NL", 52_370_216, 4_895_168]);
    assert_eq!(json!(seen(&server).await), json!([first, unknown, second]));
    let found = eventually("the rule fires", || async { server.findings().await.first().cloned() }).await;
    assert!(is_of(&found, "rented"), "{found}");

    // A broken one changes nothing, neither while it runs nor at a start.
    write(&networks, b"half a file");
    hang_up(&server);
    eventually("the broken file is refused", || async {
        server.log().iter().any(|line| line.contains("not a whole MMDB file")).then_some(())
    })
    .await;
    drop(server.terminate());
    let server = Setup::new().on(&data).config(&config).start();
    server.send("any", &token, event("4", "203.0.113.66")).await.expect(200);
    assert_eq!(json!(seen(&server).await), json!([first, unknown, second, second]));
    assert_eq!(changes(&server).await, 3);
    eventually("the rule fires again", || async { (server.findings().await.len() == 2).then_some(()) }).await;

    // Named no more, it says nothing more.
    drop(server.terminate());
    let server = Setup::new().on(&data).config(&format!("rules: {{dir: {rules}, shipped: false}}\n")).start();
    server.send("any", &token, event("5", "203.0.113.66")).await.expect(200);
    assert_eq!(json!(seen(&server).await), json!([first, unknown, second, second, unknown]));
    drop(server.terminate());

    // A replay looks addresses up as they were known then.
    let mut command = program();
    command.args(["backtest", "--from", "2020-01-01", "--to", "2100-01-01", "--format", "json", "--rules"]);
    let report = json_out(&command.arg(rules.to_string()).arg("--data").arg(&data).output().unwrap());
    assert_eq!(report["summary"]["identical"], 2, "{report:#}");
    assert_eq!(report["summary"]["added"], 0);
    assert_eq!(report["summary"]["removed"], 0);
    assert_eq!(items(&report, "findings").len(), 2);
}
