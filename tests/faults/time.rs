//! Time goes otherwise than one expects: the clock jumps (F9), and history is loaded again long after it was forgotten.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pipeproof_engine::clock::{Clock as _, SystemClock};
use reqwest::Method;
use serde_json::{Value, json};

use crate::process::{Server, keep_panics, program};
use crate::receiver::Manner;
use crate::row::Row;
use crate::world::{Compared, World};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// F9: the program's clock jumps forward and back while events come in.
pub(crate) async fn clock_jumps(seed: u64) -> Row {
    let mut row = Row::new("F9", "the clock jumps forward and back under load", seed);
    let mut world = World::new().with_receiver(Manner::Takes).await;
    // What counts as late depends on the server's clock, which is wrong here.
    world.compared = Compared::Single;
    let server = world.server();
    let stop = AtomicBool::new(false);
    let jumps = [HOUR, 0, -2 * HOUR, 30 * DAY, -30, 0];
    let jump = async {
        for ahead in jumps {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            world.mislead_clock(ahead);
            act(&mut row, &server).await;
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(world.generator.load(&server, 3, 5, &stop), jump);
    row.runs = jumps.len() as u64;
    world.account(&mut row, &server).await;
    server.kill();
    let server = world.server();
    let sent = world.generator.send(&server, 25).await;
    row.expect(sent.is_some_and(|status| status.is_success()), "it does not accept after the restart");
    world.account(&mut row, &server).await;
    row.say("1 h forward, back, 2 h back, 30 days forward, back to 30 s behind, right again");
    audited(&mut row, &server).await;
    let soon = SystemClock.now().plus(Duration::from_secs(900));
    let ahead = format!("SELECT count(*) FROM events WHERE received > TIMESTAMP '{soon}'");
    let ahead = server.rows(&ahead).await.first().map(|row| row[0].clone());
    row.expect(ahead == Some(json!(0)), format!("{ahead:?} events were received in the future"));
    row
}

/// What people do about an incident goes on meanwhile: it is closed and opened again in turn.
async fn act(row: &mut Row, server: &Server) {
    server.settled().await;
    let listed = server.get("/v1/incidents").await.unwrap_or_default();
    let incident = &listed["incidents"][0];
    let Some(id) = incident["id"].as_str() else { return row.fail(format!("no incident: {listed}")) };
    let verb = match incident["status"].as_str() {
        Some("open") => "ack",
        Some("closed") => "reopen",
        _ => "close",
    };
    let reply = server.post(&format!("/v1/incidents/{id}/{verb}"), json!({ "note": "a fault run" })).await;
    row.expect(reply.as_ref().is_some_and(|reply| reply.status.is_success()), format!("{verb}: {reply:?}"));
}

/// The trail of what was done keeps its order whatever the clock says, and no figure is negative.
async fn audited(row: &mut Row, server: &Server) {
    let steps = "SELECT incident, number, at FROM incident_steps ORDER BY seq";
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    let (mut before, mut back) = (String::new(), 0);
    for step in server.rows(steps).await {
        let incident = step[0].as_str().unwrap().to_owned();
        let expected = next.entry(incident).or_default();
        row.expect(step[1] == json!(*expected), format!("step {} where {expected} follows", step[1]));
        *expected += 1;
        let at = step[2].as_str().unwrap_or_default().to_owned();
        back += u64::from(at < before);
        before = at;
    }
    row.expect(!next.is_empty(), "no step of an incident");
    let kpi = server.get("/v1/kpi?from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z").await.unwrap_or_default();
    let mut negative = Vec::new();
    // What is negative is listed under `data_quality` and in no figure.
    let mut open: Vec<&Value> =
        ["detect", "detect_by_level", "retro", "response", "reopened"].iter().map(|part| &kpi["kpi"][*part]).collect();
    let mut numbers = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => open.extend(fields.values()),
            Value::Array(items) => open.extend(items),
            Value::Number(number) => {
                numbers += 1;
                if number.as_f64().is_some_and(|number| number < 0.0) {
                    negative.push(number.clone());
                }
            }
            _ => {}
        }
    }
    row.expect(numbers > 0, format!("no figures: {kpi}"));
    row.expect(negative.is_empty(), format!("negative durations: {negative:?}"));
    row.say(format!(
        "steps of incidents stay in their order by number; {back} of them carry a time before that of the step before, as the clock went \
         back; none of {numbers} figures is negative"
    ));
}

/// Starts `pipeproof import`, which finds the server by its data folder.
fn import(world: &World, source: &str, file: &std::path::Path) -> Child {
    program()
        .args(["import", "--format", "json", "--source", source, "--data"])
        .args([&world.data, file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What an import says of itself.
async fn imported(child: Child) -> Result<Value, String> {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    keep_panics(&said);
    serde_json::from_str(&text).map_err(|_| format!("{text}{said}"))
}

async fn post(server: &Server, source: &str, body: &str) {
    let sent = server.ask(Method::POST, &format!("/v1/events/{source}"), body.as_bytes().to_vec()).await.unwrap();
    assert!(sent.status.is_success(), "{}", sent.text());
}

/// Files are loaded again 20 days after their events came in, live and as history, also over a kill.
pub(crate) async fn loaded_again(seed: u64, events: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("-", "files are loaded again 20 days later, and over kill -9", seed) };
    let mut world = World::new();
    // What is loaded as history is evaluated by itself, not with what is live.
    world.compared = Compared::Single;
    world.sources = "  - {name: other, type: json}\n".to_owned();
    world.move_clock(-20 * DAY);
    let server = world.server();
    let folder = world.folder();
    let file = |name: &str| folder.join(name);
    let (numbers, live) = world.generator.batch(events);
    for (part, lines) in live.split(|byte| *byte == b'\n').collect::<Vec<_>>().chunks(500).enumerate() {
        let first = numbers.start + 500 * part as u64;
        let body = lines.join(&b'\n');
        world.generator.send_again(&server, first..first + lines.len() as u64, body).await;
    }
    let (numbers, history) = world.generator.batch(events);
    fs::write(file("history.ndjson"), &history).unwrap();
    match imported(import(&world, "gen", &file("history.ndjson"))).await {
        Ok(said) => row.expect(said["accepted"] == events, format!("the first import: {said}")),
        Err(said) => row.fail(said),
    }
    world.generator.acknowledge(numbers);
    post(&server, "other", "{\"said\":\"once\"}").await;
    row.expect(server.settled().await, "it did not settle");
    row.expect(server.terminate().await, "no orderly end");

    world.move_clock(0);
    let server = world.server();
    // Something delivered live that is as old is an event again: nothing remembers it, and nobody looks it up.
    post(&server, "other", "{\"said\":\"once\"}").await;
    let fresh = 50;
    let (numbers, new) = world.generator.batch(fresh);
    world.generator.acknowledge(numbers);
    fs::write(file("all.ndjson"), [&live[..], &history, &new].join(&b'\n')).unwrap();
    let first = import(&world, "gen", &file("all.ndjson"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill();
    let cut = imported(first).await;
    let server = world.server();
    let began = Instant::now();
    match imported(import(&world, "gen", &file("all.ndjson"))).await {
        Ok(said) => {
            let (accepted, repeated) =
                (said["accepted"].as_u64().unwrap_or(0), said["duplicates"].as_u64().unwrap_or(0));
            row.expect(accepted + repeated == 2 * events + fresh, format!("the import again: {said}"));
            row.expect(repeated >= 2 * events, format!("the import again: {said}"));
            row.say(format!(
                "the first import was {}; the second found {repeated} there and {accepted} new in {:.1} s",
                if cut.is_ok() { "done before the kill" } else { "cut by it" },
                began.elapsed().as_secs_f64()
            ));
        }
        Err(said) => row.fail(said),
    }
    world.account(&mut row, &server).await;
    let twice = server.rows("SELECT count(*) FROM events WHERE source = 'other'").await;
    row.expect(twice[0][0] == 2, "dedup still remembers what is 20 days old: this run proves nothing");
    let first =
        server.rows("SELECT count(*) FROM events WHERE source = 'gen' AND received > now() - INTERVAL '10 days'").await;
    row.expect(first[0][0] == fresh, format!("{:?} events of the last days, {fresh} are new", first[0][0]));
    // Once more when what was loaded as history was decided, a minute after the last of it.
    let mut verified = crate::damage::verified(&server).await;
    if verified.is_ok() {
        tokio::time::sleep(Duration::from_secs(66)).await;
        verified = crate::damage::verified(&server).await;
    }
    row.expect(verified.is_ok(), format!("the doctor finds something: {verified:?}"));
    row
}
