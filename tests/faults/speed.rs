//! Ratios in one run: what durability costs over writing the same bytes, what the whole way costs over detection alone.

use std::io::Write as _;
use std::ops::Range;
use std::time::Instant;

use crate::process::{Server, output, program};
use crate::row::Row;
use crate::world::World;

/// Events of a request; about 100 KB.
const BATCH: u64 = 100;

fn rate(bytes: usize, began: Instant) -> f64 {
    bytes as f64 / began.elapsed().as_secs_f64() / 1e6
}

/// Sends batches one after the other.
async fn all(world: &World, server: &Server, batches: &[(Range<u64>, Vec<u8>)]) {
    for (numbers, body) in batches {
        world.generator.send_again(server, numbers.clone(), body.clone()).await;
    }
}

/// Durable ingest (HTTP to 2xx) against writing and syncing the same bytes in the same batches with nothing of ours.
pub(crate) async fn durable_ingest(seed: u64, batches: usize) -> Row {
    let mut row = Row { runs: 1, ..Row::new("-", "durable ingest against write and fsync of the same bytes", seed) };
    let mut world = World::new().padded(900);
    let server = world.server();
    let sent: Vec<_> = (0..batches).map(|_| world.generator.batch(BATCH)).collect();
    let bytes: usize = sent.iter().map(|(_, body)| body.len()).sum();

    let mut file = std::fs::File::create(world.folder().join("plain")).unwrap();
    let began = Instant::now();
    for (_, body) in &sent {
        file.write_all(body).unwrap();
        file.sync_data().unwrap();
    }
    let plain = rate(bytes, began);

    let began = Instant::now();
    all(&world, &server, &sent[..batches / 2]).await;
    let half: usize = sent[..batches / 2].iter().map(|(_, body)| body.len()).sum();
    let one = rate(half, began);

    let began = Instant::now();
    let senders = sent[batches / 2..].chunks(batches.div_ceil(16)).map(|part| all(&world, &server, part));
    futures::future::join_all(senders).await;
    let eight = rate(bytes - half, began);
    row.say(format!(
        "write and fsync {plain:.1} MB/s; HTTP to 2xx {one:.1} MB/s with one sender ({:.2}), {eight:.1} MB/s with eight ({:.2}), \
         detection and lake running beside it, {} bytes a batch",
        one / plain,
        eight / plain,
        bytes / batches,
    ));
    world.account(&mut row, &server).await;
    row
}

/// From the first request until everything is evaluated and in the lake, against detection alone on the same events.
pub(crate) async fn end_to_end(seed: u64, batches: usize) -> Row {
    let mut row = Row { runs: 1, ..Row::new("-", "end to end with detection and lake against detection alone", seed) };
    let mut world = World::new().padded(900);
    let server = world.server();
    let sent: Vec<_> = (0..batches).map(|_| world.generator.batch(BATCH)).collect();
    let bytes: usize = sent.iter().map(|(_, body)| body.len()).sum();
    let file = world.folder().join("events.ndjson");
    std::fs::write(&file, sent.iter().map(|(_, body)| body.as_slice()).collect::<Vec<_>>().join(&b'\n')).unwrap();
    let rules = world.folder().join("rules");
    let began = Instant::now();
    let output = output(program().args(["eval", "--source", "json", "--rules"]).args([&rules, &file]));
    let alone = rate(bytes, began);
    row.expect(output.status.success(), "detection alone failed");
    let began = Instant::now();
    let senders = sent.chunks(batches.div_ceil(8)).map(|part| all(&world, &server, part));
    futures::future::join_all(senders).await;
    row.expect(server.settled().await, "it did not settle");
    let whole = rate(bytes, began);
    row.say(format!(
        "detection alone {alone:.1} MB/s (with its own start), end to end {whole:.1} MB/s on the same two cores as the senders: {:.2}",
        whole / alone
    ));
    world.account(&mut row, &server).await;
    row
}
