//! What comes in late, twice, malformed or much too large, configurations that are broken, and queries without end.

use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use reqwest::Method;
use serde_json::json;

use crate::process::{Server, config_file, wait};
use crate::receiver::Manner;
use crate::row::Row;
use crate::world::World;

/// F10: every batch up to three times, in a shuffled order, over a kill.
pub(crate) async fn repeated(seed: u64, batches: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F10", "deliveries repeated and out of order, over a kill", seed) };
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new().with_receiver(Manner::Takes).await;
    let mut deliveries = Vec::new();
    for _ in 0..batches {
        let batch = world.generator.batch(5);
        deliveries.extend([batch.clone(), batch.clone(), batch]);
    }
    deliveries.shuffle(&mut random);
    let half = deliveries.split_off(deliveries.len() / 2);
    for part in [deliveries, half] {
        let server = world.server();
        for (numbers, body) in part {
            let status = world.generator.send_again(&server, numbers, body).await;
            row.expect(status.is_some_and(|status| status.is_success()), "a delivery was refused");
        }
        server.kill();
    }
    let server = world.server();
    world.account(&mut row, &server).await;
    row
}

/// What it is, its headers, its body.
type Poison = (&'static str, Vec<(&'static str, &'static str)>, Vec<u8>);

fn bodies() -> Vec<Poison> {
    let gzip = |bytes: &[u8]| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let many_fields: serde_json::Map<_, _> = (0..200_000).map(|number| (format!("f{number}"), json!(1))).collect();
    vec![
        ("a line of 100 MB", vec![], vec![b'x'; 100 << 20]),
        ("10,000 levels", vec![], [vec![b'['; 10_000], vec![b']'; 10_000]].concat()),
        ("invalid UTF-8", vec![], b"{\"a\": \"\xff\xfe\xc0\"}".to_vec()),
        ("NUL bytes", vec![], vec![0; 10_000]),
        ("1e400", vec![], br#"{"a": 1e400, "b": -1e400}"#.to_vec()),
        ("duplicate keys", vec![], br#"{"action": "a", "action": "b", "action": "c"}"#.to_vec()),
        ("a gzip bomb 1000:1", vec![("content-encoding", "gzip")], gzip(&vec![b' '; 200 << 20])),
        ("200,000 fields", vec![], serde_json::to_vec(&many_fields).unwrap()),
        ("half a document", vec![], br#"{"action": "#.to_vec()),
        ("nothing", vec![], Vec::new()),
    ]
}

/// F11: events that are poison. Neighbours keep their pace, memory its bound.
pub(crate) async fn poison(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F11", "poison events beside ordinary ones", seed) };
    let mut world = World::new().with_receiver(Manner::Takes).await;
    let server = world.server();
    let calm = slowest(&world, &server, 40).await;
    let before = server.usage().0;
    let mut most = before;
    let mut answers = Vec::new();
    for (name, headers, body) in bodies() {
        let poison = server.ask_with(Method::POST, "/v1/events/gen", &headers, body);
        let (answer, beside) = tokio::join!(poison, slowest(&world, &server, 20));
        let status = answer.map_or_else(|_| "connection closed".to_owned(), |reply| reply.status.as_u16().to_string());
        // Taken (as a dead letter where it means nothing), refused, or cut off: never an error of ours.
        row.expect(status == "connection closed" || !status.starts_with('5'), format!("{name} was answered {status}"));
        answers.push(format!("{name}: {status}"));
        most = most.max(server.usage().0);
        let bound = (calm * 2).max(Duration::from_millis(500));
        row.expect(beside <= bound, format!("beside {name} a request took {beside:?}, without {calm:?}"));
    }
    row.say(answers.join(", "));
    row.say(format!("memory {} MB, at most {} MB", before >> 20, most >> 20));
    row.expect(most < before + (700 << 20), "memory grew by more than 700 MB");
    world.account(&mut row, &server).await;
    row
}

/// The slowest but one in twenty of so many requests, one after the other.
async fn slowest(world: &World, server: &Server, requests: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..requests {
        let began = Instant::now();
        world.generator.send(server, 2).await;
        times.push(began.elapsed());
    }
    times.sort();
    times[times.len() - 1 - times.len() / 20]
}

/// The shipped rule, with three seconds in the place of a minute.
const HEALTH_RULE: &str = "title: Configuration or rules that cannot be used
id: 0b7d7c2e-0000-4000-8000-0000000000f3
name: configuration_broken
taxonomy: cicd
correlation:
    type: temporal_ordered
    rules: [configuration_refused, configuration_mended]
    group-by: [config.id]
    timespan: 3s
    condition: configuration_refused and not configuration_mended
level: high
requires: [pipeproof]
alert: {title: 'The {config.id} cannot be used', entity: ['config:config.id'], resolve_on: configuration_mended}
---
title: A file of the configuration was refused
id: 0b7d7c2e-0000-4000-8000-0000000000f4
name: configuration_refused
taxonomy: cicd
logsource: {product: cicd, service: pipeproof}
detection: {refused: {action: pipeproof.configuration-refused}, condition: refused}
level: informational
requires: [pipeproof]
---
title: A file of the configuration was mended
id: 0b7d7c2e-0000-4000-8000-0000000000f5
name: configuration_mended
taxonomy: cicd
logsource: {product: cicd, service: pipeproof}
detection: {mended: {action: pipeproof.configuration-mended}, condition: mended}
level: informational
requires: [pipeproof]
";

/// F22: a broken configuration and a broken rule under load: the old ones stay, and that is told; mended ones come into force.
pub(crate) async fn broken_configuration(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F22", "broken configuration and rules are read under load", seed) };
    let mut world = World::new().with_receiver(Manner::Takes).await;
    std::fs::write(world.folder().join("rules/configuration.yml"), HEALTH_RULE).unwrap();
    let server = world.server();
    world.generator.send(&server, 30).await;
    let file = config_file(&world.data);
    let rule = world.folder().join("rules/rule0.yml");
    let (good_config, good_rule) = (std::fs::read_to_string(&file).unwrap(), std::fs::read_to_string(&rule).unwrap());
    for (name, config, text) in [
        ("not YAML", "version: [1\n".to_owned(), good_rule.clone()),
        ("an unknown key", format!("{good_config}surces: []\n"), good_rule.clone()),
        (
            "a secret that is not there",
            format!("{good_config}  - {{name: x, type: json, secrets: [{{env: NOBODY}}]}}\n"),
            good_rule.clone(),
        ),
        ("a broken rule", good_config.clone(), "title: [\n".to_owned()),
    ] {
        std::fs::write(&file, &config).unwrap();
        std::fs::write(&rule, &text).unwrap();
        server.signal("HUP");
        let told = wait(Duration::from_secs(10), || async {
            let status = server.get("/v1/status").await.unwrap_or_default();
            !status["configuration_trouble"].is_null() || !status["rules_trouble"].is_null()
        })
        .await;
        row.expect(told, format!("{name} was not told"));
        let sent = world.generator.send(&server, 30).await;
        row.expect(sent.is_some_and(|status| status.is_success()), format!("nothing was accepted beside {name}"));
        let what = if config == good_config { "rules" } else { "configuration" };
        let query = format!("SELECT count(*) FROM findings WHERE title = 'The {what} cannot be used'");
        let found = wait(Duration::from_secs(20), || async { server.rows(&query).await[0][0] != json!(0) }).await;
        row.expect(found, format!("no finding of {name}"));
    }
    std::fs::write(&rule, &good_rule).unwrap();
    std::fs::write(&file, good_config.replace("sources:\n", "sources:\n  - {name: later, type: json}\n")).unwrap();
    server.signal("HUP");
    let connected = wait(Duration::from_secs(10), || async {
        let status = server.get("/v1/status").await.unwrap_or_default();
        let sent = server.ask(Method::POST, "/v1/events/later", b"{}".to_vec()).await;
        status["configuration_trouble"].is_null() && sent.is_ok_and(|reply| reply.status.is_success())
    })
    .await;
    row.expect(connected, "the mended configuration did not come into force");
    let query = "SELECT count(DISTINCT incident) FROM incident_steps WHERE verb = 'resolve'";
    let resolved = wait(Duration::from_secs(20), || async { server.rows(query).await[0][0] == json!(2) }).await;
    row.expect(resolved, "the incidents do not say that it was mended");
    row.say("a finding of the configuration and one of the rules, delivered, and resolved by what mended them");
    world.account(&mut row, &server).await;
    row
}

/// F24: queries without end beside ingest.
pub(crate) async fn endless_queries(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F24", "endless queries beside ingest", seed) };
    let mut world = World::new().with_receiver(Manner::Takes).await;
    let server = world.server();
    for _ in 0..20 {
        world.generator.send(&server, 100).await;
    }
    server.settled().await;
    let calm = slowest(&world, &server, 40).await;
    let queries = [
        "SELECT count(*) FROM events a CROSS JOIN events b CROSS JOIN events c CROSS JOIN events d",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
        "SELECT * FROM generate_series(1, 1000000000) ORDER BY 1 DESC",
    ];
    for query in queries {
        let began = Instant::now();
        let asked = server.post("/v1/sql", json!({ "query": query }));
        let (answer, beside) = tokio::join!(asked, slowest(&world, &server, 60));
        let status = answer.map_or(0, |reply| reply.status.as_u16());
        row.expect(status != 0 && status != 500, format!("`{query}` was answered {status}"));
        row.expect(
            beside <= (calm * 2).max(Duration::from_millis(500)),
            format!("ingest took {beside:?}, before {calm:?}"),
        );
        row.say(format!(
            "{status} after {:.1} s, ingest p95 {:.0} ms (before {:.0} ms)",
            began.elapsed().as_secs_f64(),
            beside.as_secs_f64() * 1e3,
            calm.as_secs_f64() * 1e3
        ));
    }
    world.account(&mut row, &server).await;
    row
}
