//! F5: a file of the lake is damaged before the lake merges it with others. A file that was made from it would have a digest that is
//! right, and nothing would name the damage any more.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::damage::verified;
use crate::process::{PATIENCE, wait};
use crate::row::Row;
use crate::specimen::live_files;
use crate::world::World;

/// Small files of events that are there when some of them are damaged: fewer than are merged at once.
const FILES: usize = 8;
/// Events of each, so that all are about equally large.
const EVENTS: u64 = 20;

/// One bit is flipped in so many small files of events, and so many more come that the lake merges such files: what is damaged stays
/// where it is, is told in the log and named by the doctor, and the others are merged.
pub(crate) async fn damaged_before(seed: u64, flips: usize) -> Row {
    let mut row = Row::new("F5", "one bit flipped in a small file of the lake, before such files are merged", seed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new();
    let lake = world.data.join("lake");
    let server = world.server();
    for _ in 0..FILES {
        world.generator.send(&server, EVENTS).await;
        server.settled().await;
    }
    assert!(server.terminate().await, "an orderly end");

    let before = of_events(&lake).await;
    // The last one may be of the commit that a start looks at: that one would be taken out and archived again.
    let mut victims = before[..before.len() - 1].to_vec();
    victims.shuffle(&mut random);
    victims.truncate(flips);
    let mut damaged = Vec::new();
    for path in &victims {
        let mut bytes = fs::read(path).unwrap();
        let at = random.random_range(0..bytes.len());
        bytes[at] ^= 1_u8 << random.random_range(0..8);
        fs::write(path, &bytes).unwrap();
        damaged.push((path, bytes));
    }

    let server = world.server();
    let merged = wait(PATIENCE, || async {
        world.generator.send(&server, EVENTS).await;
        server.settled().await;
        let live = of_events(&lake).await;
        before.iter().all(|path| victims.contains(path) || !live.contains(path))
    })
    .await;
    row.expect(merged, "the files beside it were not merged");
    let live = of_events(&lake).await;
    let said = verified(&server).await.err().unwrap_or_default();
    for (path, bytes) in damaged {
        row.runs += 1;
        let name = path.file_name().unwrap().to_string_lossy();
        let is_named = said.contains(&*name);
        row.bytes_corrupt_detected += u64::from(is_named);
        row.expect(is_named, format!("the doctor does not name {name}: {said}"));
        let is_left = live.contains(path) && fs::read(path).is_ok_and(|now| now == bytes);
        row.expect(is_left, format!("{name} did not stay as it was"));
        let is_loud = |line: &String| ["\"ERROR\"", "\"WARN\""].iter().any(|level| line.contains(level));
        let told = server.log().iter().any(|line| is_loud(line) && line.contains(&*name));
        row.expect(told, format!("neither an error nor a warning in the log names {name}"));
    }
    row.say(format!("{} files of the same size beside it were merged", before.len() - victims.len()));
    row
}

/// The generator's part of the current version of `events`, in the order it came.
async fn of_events(lake: &Path) -> Vec<PathBuf> {
    let of_generator = |path: &PathBuf| path.parent().is_some_and(|folder| folder.ends_with("gen"));
    live_files(lake).await.into_iter().filter(of_generator).collect()
}
