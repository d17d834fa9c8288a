//! The process is gone at once: at random moments under load (F1), and at every named point (F2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pipeproof_engine::failpoint::Failpoint;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::receiver::Manner;
use crate::row::Row;
use crate::world::World;

/// Kills after which the folder is accounted for and another one is begun.
const KILLS_A_FOLDER: u64 = 25;
/// How long a point may take to be passed.
const PASSED_IN: Duration = Duration::from_secs(40);

/// kill -9 at random instants while events come in and alerts go out.
pub(crate) async fn random(seed: u64, kills: u64) -> Row {
    let mut row = Row::new("F1", "kill -9 at a random instant under load", seed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut left = kills;
    while left > 0 {
        let here = left.min(KILLS_A_FOLDER);
        left -= here;
        let mut world = World::new().with_receiver(Manner::Takes).await;
        let mut part = Row { runs: here, ..Row::default() };
        for _ in 0..here {
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
        let server = world.server();
        world.account(&mut part, &server).await;
        row.add(&part);
    }
    row
}

/// Death at each point, and everything is there after the next start.
pub(crate) async fn failpoints(seed: u64, points: &[Failpoint]) -> Vec<Row> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut rows = Vec::new();
    for point in points {
        // Some are passed once in a while only.
        let rare = ["compact", "snapshot"].iter().any(|word| point.name().contains(word));
        let pass = random.random_range(1..4);
        rows.push(at_point(seed, *point, if rare { 1 } else { pass }).await);
    }
    rows
}

async fn at_point(seed: u64, point: Failpoint, pass: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F2", &format!("death at {}", point.name()), seed) };
    // Small files of the log, sealed and retired at once, so that these points are passed too.
    let mut world = World::new().padded(20_000).with_receiver(Manner::Takes).await;
    world.extra = "seal_every: 1s\nlog: {segment_bytes: 1048576, keep_bytes: 0, retire_every: 1s}\n".to_owned();
    world.env = vec![("PIPEPROOF_FAILPOINT", format!("{}:{pass}", point.name()))];
    let began = Instant::now();
    match world.start() {
        Err(refused) => row.expect(refused.signal.is_some(), format!("it ended otherwise: {refused:?}")),
        Ok(mut server) => {
            let stop = Arc::new(AtomicBool::new(false));
            let load = world.generator.load(&server, 2, 5, &stop);
            let passed = async {
                let mut died = false;
                while !died && began.elapsed() < PASSED_IN {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    died = !std::path::Path::new(&format!("/proc/{}/exe", server.pid())).exists();
                }
                stop.store(true, Ordering::SeqCst);
                died
            };
            let (_, died) = tokio::join!(load, passed);
            row.expect(died, "the point was never passed");
            let _ended = server.ended(Duration::from_secs(1)).await;
        }
    }
    world.env.clear();
    let server = world.server();
    let after = world.generator.send(&server, 5).await;
    row.expect(after.is_some_and(|status| status.is_success()), "it does not accept after the restart");
    world.account(&mut row, &server).await;
    row.say(format!("pass {pass}"));
    row
}
