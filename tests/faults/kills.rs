//! The process is gone at once: at random moments under load and while it starts (F1), and at every named point (F2).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pipeproof_engine::failpoint::Failpoint;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::damage::verified;
use crate::process::{has_tool, no_panics};
use crate::provoked::Provoked;
use crate::receiver::Manner;
use crate::row::{Holds, Row};
use crate::world::World;

/// Kills after which the folder is accounted for and another one is begun.
const KILLS_A_FOLDER: u64 = 25;
/// How long a point may take to be passed.
const PASSED_IN: Duration = Duration::from_secs(40);
/// SIGABRT: what a failpoint dies of.
const ABORTED: i32 = 6;

/// kill -9 at random instants while events come in and alerts go out, and while it starts. The doctor looks at every folder of a long
/// run, at the last one of a short one.
pub(crate) async fn random(seed: u64, kills: u64, long: bool) -> Row {
    let mut row = Row::new("F1", "kill -9 at a random instant under load, and of starts", seed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut left = kills;
    let (mut starting, mut acknowledged, mut looked_at) = (0, 0, 0);
    while left > 0 {
        let here = left.min(KILLS_A_FOLDER);
        left -= here;
        let mut world = World::new().with_receiver(Manner::Takes).await;
        let mut part = Row { runs: here, ..Row::default() };
        for _ in 0..here {
            // A quarter dies before it serves, the very first start of a folder included.
            if random.random_range(0..4) == 0 {
                starting += 1;
                world.killed_starting(Duration::from_millis(random.random_range(1..400))).await;
                continue;
            }
            let server = world.server();
            let stop = AtomicBool::new(false);
            let moment = Duration::from_millis(random.random_range(5..500));
            let kill = async {
                tokio::time::sleep(moment).await;
                server.signal("KILL");
            };
            let count = random.random_range(1..8);
            tokio::join!(world.generator.load(&server, 4, count, &stop), kill);
        }
        // All by processes that were then killed; what is sent again below is acknowledged by one that is not.
        acknowledged += world.generator.acknowledged_count();
        let server = world.server();
        world.account(&mut part, &server).await;
        if long || left == 0 {
            looked_at += 1;
            let said = verified(&server).await;
            part.expect(said.is_ok(), format!("the doctor: {said:?}"));
        }
        row.add(&part);
    }
    row.note_all(format!(
        "{starting} of the kills while it started; {acknowledged} of {} events were acknowledged by processes that were then killed, the \
         others when they were sent again after the last kill; {} batches came again; the doctor looked at {looked_at} folders",
        row.sent, row.again
    ));
    row
}

/// Death at each point, and everything is there after the next start.
pub(crate) async fn failpoints(seed: u64, points: &[Failpoint]) -> Vec<Row> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut rows = Vec::new();
    for point in points {
        // Some are passed once in a while only.
        let rare = ["compact", "snapshot", "heal", "redact", "backup"].iter().any(|word| point.name().contains(word));
        let pass = random.random_range(1..4);
        // The first set of rules is written before anything is received.
        let pass = if point.name().starts_with("rules.") { 2 } else { pass };
        rows.push(at_point(seed, *point, if rare { 1 } else { pass }).await);
    }
    rows
}

async fn at_point(seed: u64, point: Failpoint, pass: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F2", &format!("death at {}", point.name()), seed) };
    if point.name().starts_with("heal.") && !has_tool("strace") {
        return Row { holds: Holds::LeftOut, note: "needs strace".to_owned(), ..row };
    }
    // Small files of the log, sealed and retired at once, so that these points are passed too.
    let mut world = World::new().padded(20_000).with_receiver(Manner::Takes).await;
    world.extra = "seal_every: 1s\nlog: {segment_bytes: 1048576, keep_bytes: 0, retire_every: 1s}\n".to_owned();
    let provoked = Provoked::by(point, &mut world).await;
    world.env.push(("PIPEPROOF_FAILPOINT", format!("{}:{pass}", point.name())));
    let began = Instant::now();
    let (ended_by, log) = match world.start() {
        Err(refused) => (refused.signal, refused.log),
        Ok(mut server) => {
            let stop = Arc::new(AtomicBool::new(false));
            let load = world.generator.load(&server, 2, 5, &stop);
            let passed = async {
                let mut died = false;
                while !died && began.elapsed() < PASSED_IN {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    died = !Path::new(&format!("/proc/{}/exe", server.pid())).exists();
                }
                stop.store(true, Ordering::SeqCst);
            };
            tokio::join!(load, passed, provoked.provoke(&world, &server, &stop));
            let _ended = server.ended(Duration::from_secs(2)).await;
            // The reader of its last words may be a moment behind.
            tokio::time::sleep(Duration::from_millis(100)).await;
            (server.ended_by(), server.log().join("\n"))
        }
    };
    let is_named = log.contains(&format!("dies at failpoint {}", point.name()));
    row.expect(ended_by == Some(ABORTED) && is_named, format!("it did not die there: signal {ended_by:?}"));
    world.env.pop();
    let server = world.server();
    let after = world.generator.send(&server, 5).await;
    row.expect(after.is_some_and(|status| status.is_success()), "it does not accept after the restart");
    world.account(&mut row, &server).await;
    provoked.check(&mut row, &world, &server).await;
    row.say(format!("pass {pass}"));
    if row.again > 0 {
        row.say(format!("{} batches came again", row.again));
    }
    // Here, as the rows of all points are handed over together.
    no_panics(&mut row);
    row
}
