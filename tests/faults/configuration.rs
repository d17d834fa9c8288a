//! F22: configurations and rules that cannot be used are read under load, and secrets are changed while they are in use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hmac::{Hmac, Mac as _};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::process::{PATIENCE, Server, config_file, wait};
use crate::receiver::{Manner, Receiver};
use crate::row::Row;
use crate::world::{SECRET, World};

const HOOK_OLD: &str = "the secret that goes";
const HOOK_NEW: &str = "the secret that comes";
/// Another 24 bytes, base64.
const SECRET_NEW: &str = "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4";

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

/// Senders of the load through which files are read, and events of a request.
const LOAD: (usize, u64) = (4, 2);
/// One event of it in so many is found: one in 25 would be thousands of messages, about which this is not.
const FOUND: u64 = 500;

/// A broken configuration, a broken target, a secret that is not there and a broken rule, one after the other and mended in between,
/// while events come in all the time: each time what was in force stays, each is told by its own finding, and what mends it resolves it.
pub(crate) async fn broken(seed: u64) -> Row {
    let mut row = Row::new("F22", "broken configuration and rules are read under load", seed);
    let mut world = World::new().padded_finding_one_in(0, FOUND).with_receiver(Manner::Takes).await;
    world.add_rule("configuration.yml", HEALTH_RULE);
    let server = world.server();
    let stop = AtomicBool::new(false);
    let reads = async {
        read_broken(&mut row, &world, &server).await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(world.generator.load(&server, LOAD.0, LOAD.1, &stop), reads);
    let (sent, taken) = (world.generator.count(), world.generator.acknowledged_count());
    let is_smooth = sent == taken && world.generator.again() == 0;
    row.expect(
        is_smooth,
        format!("of {sent} events {taken} were taken, and {} requests came again", world.generator.again()),
    );
    row.say(format!(
        "{0} times its own finding with its reason, delivered, and resolved by what mended it, while {1} senders brought {sent} events",
        row.runs, LOAD.0
    ));
    world.account(&mut row, &server).await;
    row
}

async fn read_broken(row: &mut Row, world: &World, server: &Server) {
    let file = config_file(&world.data);
    let rule = world.folder().join("rules/rule0.yml");
    let (good_config, good_rule) = (std::fs::read_to_string(&file).unwrap(), std::fs::read_to_string(&rule).unwrap());
    let target = "  - {name: pager, url: 'https://pager.example/', secrets: [{env: NOBODY}]}\n";
    for (name, config, text, reason) in [
        ("not YAML", "version: [1\n".to_owned(), good_rule.clone(), "line"),
        ("an unknown key", format!("{good_config}surces: []\n"), good_rule.clone(), "surces"),
        (
            "a source's secret that is not there",
            good_config
                .replace("sources:\n", "sources:\n  - {name: x, type: github.webhook, secrets: [{env: NOBODY}]}\n"),
            good_rule.clone(),
            "NOBODY",
        ),
        (
            "a target's secret that is not there",
            good_config.replace("targets:\n", &format!("targets:\n{target}")),
            good_rule.clone(),
            "targets[0]",
        ),
        ("a broken rule", good_config.clone(), "title: [\n".to_owned(), "rule0.yml"),
    ] {
        let what = if config == good_config { "rules" } else { "configuration" };
        row.runs += 1;
        std::fs::write(&file, &config).unwrap();
        std::fs::write(&rule, &text).unwrap();
        server.signal("HUP");
        let told = wait(Duration::from_secs(10), || async { trouble(server, what).await.contains(reason) }).await;
        row.expect(told, format!("{name} was not told by its reason: {}", trouble(server, what).await));
        row.expect(goes_on(world).await, format!("nothing was accepted beside {name}"));
        let (found, resolved) = counted(server, row.runs, row.runs - 1).await;
        row.expect(
            found == row.runs && resolved == row.runs - 1,
            format!("{name}: {found} findings, {resolved} resolved"),
        );
        // Mended before the next one, so that it must be told anew.
        std::fs::write(&file, &good_config).unwrap();
        std::fs::write(&rule, &good_rule).unwrap();
        server.signal("HUP");
        let mended = wait(Duration::from_secs(10), || async { trouble(server, what).await.is_empty() }).await;
        row.expect(mended, format!("{name} was mended, and that did not come into force"));
        let (found, resolved) = counted(server, row.runs, row.runs).await;
        row.expect(
            found == row.runs && resolved == row.runs,
            format!("{name} mended: {found} findings, {resolved} resolved"),
        );
    }
    std::fs::write(&file, good_config.replace("sources:\n", "sources:\n  - {name: later, type: json}\n")).unwrap();
    server.signal("HUP");
    let connected = wait(Duration::from_secs(10), || async {
        let sent = server.ask(reqwest::Method::POST, "/v1/events/later", b"{}".to_vec()).await;
        sent.is_ok_and(|reply| reply.status.is_success())
    })
    .await;
    row.expect(connected, "what was added did not come into force");
    row.expect(goes_on(world).await, "nothing was accepted beside what was added");
}

/// Whether more of the load is taken from now on than was under way.
async fn goes_on(world: &World) -> bool {
    let more = world.generator.acknowledged_count() + 2 * LOAD.0 as u64 * LOAD.1;
    wait(Duration::from_secs(10), || async { world.generator.acknowledged_count() >= more }).await
}

/// What the status says is wrong with a file.
async fn trouble(server: &Server, what: &str) -> String {
    let status = server.get("/v1/status").await.unwrap_or_default();
    match &status[format!("{what}_trouble")] {
        Value::Null => String::new(),
        told => told.to_string(),
    }
}

/// Findings of files that cannot be used, and steps that resolve one, once there are so many; more are counted as well.
async fn counted(server: &Server, found: u64, resolved: u64) -> (u64, u64) {
    let one = async |query: &str| server.rows(query).await[0][0].as_u64().unwrap_or(0);
    let counts = async || {
        (
            one("SELECT count(*) FROM findings WHERE title LIKE 'The % cannot be used'").await,
            one("SELECT count(*) FROM incident_steps WHERE verb = 'resolve'").await,
        )
    };
    // Behind a load, the lake and whoever asks it take their time.
    wait(Duration::from_secs(60), || async { counts().await == (found, resolved) }).await;
    counts().await
}

/// Secrets of a source and of a target are changed: while two are in force either is good, then only the new one is.
pub(crate) async fn rotated(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F22", "secrets of a source and a target are rotated under load", seed) };
    let mut world = World::new().with_receiver(Manner::Takes).await;
    world.sources = "  - {name: hooks, type: github.webhook, secrets: [{env: HOOK_OLD}]}\n".to_owned();
    for (name, value) in [("HOOK_OLD", HOOK_OLD), ("HOOK_NEW", HOOK_NEW), ("TARGET_NEW", SECRET_NEW)] {
        world.env.push((name, value.to_owned()));
    }
    let receiver = world.receiver.as_ref().map(|(receiver, _)| receiver.clone()).unwrap();
    receiver.also_believe(SECRET_NEW);
    let server = world.server();
    let file = config_file(&world.data);
    let good = std::fs::read_to_string(&file).unwrap();
    let with =
        |hooks: &str, target: &str| good.replace("[{env: HOOK_OLD}]", hooks).replace("[{env: FAULTS_SECRET}]", target);
    let mut delivery = 0;
    for (hooks, target, takes, signs) in [
        ("[{env: HOOK_OLD}]", "[{env: FAULTS_SECRET}]", [true, false], [true, false]),
        ("[{env: HOOK_NEW}, {env: HOOK_OLD}]", "[{env: TARGET_NEW}, {env: FAULTS_SECRET}]", [true, true], [true, true]),
        ("[{env: HOOK_NEW}]", "[{env: TARGET_NEW}]", [false, true], [false, true]),
    ] {
        std::fs::write(&file, with(hooks, target)).unwrap();
        server.signal("HUP");
        let server = &server;
        let right = wait(Duration::from_secs(10), || {
            delivery += 2;
            let (one, other) = (delivery, delivery + 1);
            async move {
                let old = hook(server, HOOK_OLD, one).await.is_success();
                [old, hook(server, HOOK_NEW, other).await.is_success()] == takes
            }
        });
        row.expect(right.await, format!("with {hooks}, the old and the new one should be {takes:?}"));
        row.expect(
            signed_by(&world, server, &receiver).await == signs,
            format!("with {target}, signed by {:?}", receiver.signed_by()),
        );
    }
    row.say("a source takes, and a target's messages carry: the old one, either, the new one alone");
    world.account(&mut row, &server).await;
    // Nobody has either secret beside the processes that use it.
    let log = server.log().join("\n");
    row.expect(
        ![HOOK_OLD, HOOK_NEW, SECRET, SECRET_NEW].iter().any(|secret| log.contains(secret)),
        "a secret is in the log",
    );
    row
}

/// Which secrets sign a message that is sent from now on.
async fn signed_by(world: &World, server: &Server, receiver: &Receiver) -> [bool; 2] {
    let before = receiver.taken().len();
    // One in 25 is told of.
    world.generator.send(server, 25).await;
    wait(PATIENCE, || async { receiver.taken().len() > before }).await;
    receiver.signed_by().try_into().unwrap_or_default()
}

/// A webhook as GitHub sends it.
async fn hook(server: &Server, secret: &str, number: u64) -> StatusCode {
    let body = json!({ "ref": "refs/heads/main", "repository": { "full_name": "acme/app" } }).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let request = server.http.post(format!("{}/v1/events/hooks", server.url)).body(body);
    let request = request.header("content-type", "application/json").header("x-github-event", "push");
    let request = request.header("x-github-delivery", format!("delivery-{number}"));
    let request = request.header("x-hub-signature-256", format!("sha256={}", hex::encode(mac.finalize().into_bytes())));
    request.send().await.map_or(StatusCode::SERVICE_UNAVAILABLE, |reply| reply.status())
}
