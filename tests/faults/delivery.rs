//! Receivers that fail: what is to be delivered is, and nobody else waits for it.

use std::time::{Duration, Instant};

use crate::process::wait;
use crate::receiver::{Manner, Receiver};
use crate::row::Row;
use crate::world::{SECRET, World};

/// F13: one target never answers; the other gets everything meanwhile.
pub(crate) async fn black_hole(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F13", "one of two receivers never answers", seed) };
    let (hole, url) = Receiver::start(Manner::BlackHole, SECRET).await;
    let mut world = World::new().with_receiver(Manner::Takes).await;
    // Stands under `targets:` of the world's own configuration.
    world.extra = format!("  - {{name: hole, url: '{url}', secrets: [{{env: FAULTS_SECRET}}], allow_private: true}}\n");
    world.has_hole = true;
    let server = world.server();
    let receiver = world.receiver.as_ref().map(|(receiver, _)| receiver.clone()).unwrap();
    let began = Instant::now();
    for _ in 0..10 {
        world.generator.send(&server, 25).await;
    }
    // One event in 25 is found at once, by itself.
    let delivered = wait(Duration::from_secs(20), || async { receiver.taken().len() >= 10 }).await;
    row.expect(delivered, "the other receiver waited");
    row.say(format!("10 findings told {:.1} s after the first event", began.elapsed().as_secs_f64()));
    world.account(&mut row, &server).await;
    let required = row.alerts_required;
    // What the black hole did not take still waits, over a kill as well.
    server.kill();
    let server = world.server();
    let waiting = async || server.number("deliveries_queued").await + server.number("deliveries_retry").await;
    // What was not queued before the kill is queued after it.
    wait(Duration::from_secs(20), || async { waiting().await >= required }).await;
    let waiting = waiting().await;
    row.expect(waiting == required, format!("{waiting} of {required} wait for the one that does not answer"));
    row.expect(hole.taken().is_empty() && hole.attempts() > 0, "the other one was never tried");
    row.expect(hole.invalid().is_empty(), format!("{:?}", hole.invalid()));
    row.say(format!("{waiting} wait for the one that does not answer"));
    row
}

/// F14: it fails, or takes and does not say so, before it takes.
pub(crate) async fn failing(seed: u64, manner: Manner) -> Row {
    let name = match manner {
        Manner::FailsFirst(times) => format!("the receiver answers 500 for {times} attempts"),
        _ => "the receiver takes a message and does not answer in time".to_owned(),
    };
    let mut row = Row { runs: 1, ..Row::new("F14", &name, seed) };
    let mut world = World::new().with_receiver(manner).await;
    let server = world.server();
    // So many messages that each need not fail for hours.
    for _ in 0..12 {
        world.generator.send(&server, 100).await;
    }
    server.settled().await;
    let receiver = world.receiver.as_ref().map(|(receiver, _)| receiver.clone()).unwrap();
    let required = server.number("messages").await;
    // Messages of one incident keep their order: all wait for the first. What waits for a quarter of an hour waits for half a
    // second here.
    let (mut ahead, began) = (0, Instant::now());
    while (receiver.taken().len() as u64) < required && began.elapsed() < Duration::from_secs(150) {
        ahead += 901;
        world.move_clock(ahead);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    row.say(format!(
        "{} attempts for {required} messages; the clock was moved on by {} minutes meanwhile",
        receiver.attempts(),
        ahead / 60
    ));
    world.account(&mut row, &server).await;
    row.expect(row.alerts_required > 0, "nothing was to be delivered");
    row
}
