//! The power goes off (F3): the real program runs under strace, and its system calls say what may be left of its folder at any moment.
//! On what is left it starts again, and everything it had acknowledged by then is there once.
//!
//! A kill keeps what the kernel has, so it cannot tell a program that syncs from one that does not. That this can is shown in the same
//! run: once it is taken that the log, the lake or the store never synced, something is lost.

mod disk;
mod trace;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use self::disk::{Disk, Left, Part};
use self::trace::Call;
use crate::damage::verified;
use crate::process::{PATIENCE, Server, has_tool, program, signal, wait};
use crate::row::Row;
use crate::world::World;

const SCENARIO: &str = "the power goes off under load";
/// What is taken never to have been synced, one after the other, by a part of its path.
const UNSYNCED: &[(Part, &str)] = &[
    (Part::Content, "/log/0/"),
    (Part::Content, "/seal/"),
    (Part::Content, "/lake/"),
    (Part::Names, "/lake/"),
    (Part::Content, "/store.db-wal"),
];

/// Longest string that strace writes whole: more than the program writes at once.
const STRING_BYTES: usize = 16 << 20;

pub(crate) async fn goes_off(seed: u64, cuts: usize) -> Row {
    if !has_tool("strace") {
        return Row::left_out("F3", SCENARIO, "strace is not installed");
    }
    let mut row = Row::new("F3", SCENARIO, seed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new().padded(1_500);
    // The log goes as soon as it may, so that lake and store alone have what it had.
    world.extra = "seal_every: 1s\nlog: {segment_bytes: 1048576, keep_bytes: 0, retire_every: 1s}\n".to_owned();
    let trace = world.folder().join("trace");
    let data = world.data.clone();
    fs::create_dir_all(&data).unwrap();
    world.release = Some(traced(&world.folder(), &trace));
    let Some(batches) = run(&mut world, &data).await else {
        return Row::left_out("F3", SCENARIO, "strace may not trace here");
    };
    world.release = None;
    let calls = trace::read(BufReader::new(File::open(&trace).unwrap()));
    fs::remove_file(&trace).unwrap();
    row.sent = world.generator.sent().len() as u64;
    row.acked = batches.iter().map(|batch| batch.end - batch.start).sum();

    let removed = |call: &Call| matches!(call, Call::Removed { path, .. } if path.ends_with(".segment"));
    let retired: Vec<usize> = calls.iter().enumerate().filter(|(_, call)| removed(call)).map(|(at, _)| at).collect();
    row.expect(!retired.is_empty(), "the log was not retired while it was traced");
    let answered = calls.iter().position(|call| matches!(call, Call::Answered)).unwrap();
    let mut at: Vec<usize> = (0..cuts).map(|_| random.random_range(answered..calls.len())).collect();
    at.extend(retired.choose(&mut random).map(|at| at + 1));
    let mut lives = 0;
    for at in at {
        for left in [Left::Nothing, Left::Names, Left::Some] {
            row.runs += 1;
            let mut disk = Disk::new(&data, None);
            let acknowledged = replay(&mut disk, &calls[..at], &batches);
            world.data = world.folder().join(format!("cut-{at}-{left:?}"));
            disk.leave(&world.data, left, &mut random);
            match goes_on(&mut world, &acknowledged).await {
                Ok(()) => lives += 1,
                Err(why) => row.fail(format!("off after call {at} of {}, left {left:?}: {why}", calls.len())),
            }
            drop(fs::remove_dir_all(&world.data));
        }
    }
    // The last moment, when most rests on lake and store alone.
    let end = retired.last().map_or(calls.len(), |at| at + 1);
    for unsynced in UNSYNCED {
        let mut disk = Disk::new(&data, Some(*unsynced));
        let acknowledged = replay(&mut disk, &calls[..end], &batches);
        let (part, within) = unsynced;
        world.data = world.folder().join(format!("without-{part:?}{}", within.replace('/', "-")));
        disk.leave(&world.data, Left::Nothing, &mut random);
        let noticed = goes_on(&mut world, &acknowledged).await.is_err();
        row.expect(noticed, format!("nothing is lost without syncs of {unsynced:?}"));
    }
    row.say(format!("{} system calls, {lives} folders as the power may leave them", calls.len()));
    row.say(format!("it does not hold without the syncs of any of {UNSYNCED:?}"));
    row
}

/// A program that runs ours under strace.
fn traced(folder: &Path, trace: &Path) -> PathBuf {
    let path = folder.join("traced");
    let script = format!(
        "#!/bin/sh\nexec strace -f -qq -xx -s {STRING_BYTES} -e signal=none -e trace={} -o {} {} \"$@\"\n",
        trace::TRACED,
        trace.display(),
        program().get_program().display(),
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The numbers of each batch that was acknowledged, in order. `None` if nothing can be traced.
async fn run(world: &mut World, data: &Path) -> Option<Vec<std::ops::Range<u64>>> {
    let mut server = match world.start() {
        Err(refused) if refused.log.contains("ptrace") => return None,
        started => started.unwrap_or_else(|refused| panic!("the server does not start: {refused:?}")),
    };
    let mut batches = Vec::new();
    for number in 0..48 {
        let (numbers, body) = world.generator.batch(80);
        let status = world.generator.send_again(&server, numbers.clone(), body).await;
        assert!(status.is_some_and(|status| status.is_success()), "{status:?}");
        batches.push(numbers);
        // Time for lake, seal and retention to come along. Nobody asks anything: each answer is one to a batch.
        if number % 4 == 3 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
    // Both segments that are kept apart, the one being written to and what retention leaves, are few by then.
    let segments = || fs::read_dir(data.join("log/0")).unwrap().filter(is_segment).count();
    wait(PATIENCE, || async { segments() <= 2 }).await;
    for pid in children(&server) {
        signal(pid, "KILL");
    }
    server.ended(PATIENCE).await.then_some(batches)
}

fn is_segment(entry: &std::io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "segment"))
}

/// What strace started.
fn children(server: &Server) -> Vec<u32> {
    let pid = server.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Goes through the calls, and returns what was acknowledged by then.
fn replay(disk: &mut Disk, calls: &[Call], batches: &[std::ops::Range<u64>]) -> BTreeSet<u64> {
    let mut answers = 0;
    for call in calls {
        disk.apply(call);
        answers += usize::from(matches!(call, Call::Answered));
    }
    batches.iter().take(answers).cloned().flatten().collect()
}

/// Whether the program starts on what is there, has all of this once, and agrees with itself.
async fn goes_on(world: &mut World, acknowledged: &BTreeSet<u64>) -> Result<(), String> {
    let server = world.start().map_err(|refused| {
        let lines: Vec<&str> = refused.log.lines().collect();
        format!("it does not start: {}", lines[lines.len().saturating_sub(3)..].join(" / "))
    })?;
    if !server.settled().await {
        return Err("not everything durable was evaluated and archived in time".to_owned());
    }
    let stored = world.stored().await.times;
    let lost: Vec<_> = acknowledged.iter().filter(|number| !stored.contains_key(number)).take(5).collect();
    let twice: Vec<_> = stored.iter().filter(|(_, times)| **times > 1).map(|(number, _)| number).take(5).collect();
    if !lost.is_empty() || !twice.is_empty() {
        return Err(format!("lost {lost:?}, twice {twice:?}"));
    }
    verified(&server).await
}
