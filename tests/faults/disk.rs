//! The disk is full, fails, is slow, or has no file left to open: nothing is acknowledged that is not safe, and everything goes
//! on when the cause is gone.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Injected, PATIENCE, Server, has_tool, wait};
use crate::receiver::Manner;
use crate::row::Row;
use crate::world::World;

/// A small file system in memory, while it is held.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let size = format!("size={bytes}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).output().ok()?;
        mounted.status.success().then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}

/// What the log said of a fault since `from`: each part that is hit says it once, in words that name the cause. A cause that stays says
/// nothing new.
fn told_once(row: &mut Row, server: &Server, from: usize, cause: &str) {
    let lines = server.log();
    let mut told: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for written in lines.iter().skip(from) {
        let line: Value = serde_json::from_str(written).unwrap_or_default();
        if line["level"] == "ERROR" && line.to_string().contains(cause) {
            let text = |name: &str| line[name].as_str().unwrap_or_default();
            let what = format!("{} {}", text("message"), text("part"));
            told.entry(what.trim().to_owned()).or_default().push(written);
        }
    }
    row.expect(!told.is_empty(), format!("no error in the log names `{cause}`"));
    let more: Vec<_> = told.values().filter(|lines| lines.len() > 1).collect();
    row.expect(more.is_empty(), format!("said more than once: {more:?}"));
    let said: Vec<String> = told.keys().map(|what| format!("`{what}`")).collect();
    row.say(format!("the log says once each: {}", said.join(", ")));
}

/// `/readyz` names the cause.
async fn named(row: &mut Row, server: &Server, cause: &str) {
    let told = wait(Duration::from_secs(10), || async {
        server.not_ready().await.is_some_and(|reason| reason.contains(cause))
    })
    .await;
    row.expect(told, format!("/readyz never named `{cause}`: {:?}", server.not_ready().await));
}

/// Sends until it is refused, and checks how and what is said of it; then has it heal by `cure` without a restart.
/// `from` is how long the log was before the fault.
async fn refuses_and_heals(
    row: &mut Row,
    world: &World,
    server: &Server,
    (from, cause): (usize, &str),
    cure: impl AsyncFnOnce(),
) {
    let refused = wait(PATIENCE, || async {
        matches!(world.generator.send(server, 20).await, Some(status) if status.as_u16() == 503)
    })
    .await;
    row.expect(refused, "never answered 503");
    named(row, server, cause).await;
    // Long enough for whatever tries again to fail again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    told_once(row, server, from, cause);
    cure().await;
    let began = Instant::now();
    let healed = wait(PATIENCE, || async {
        server.ready().await && world.generator.send(server, 5).await.is_some_and(|status| status.is_success())
    })
    .await;
    row.expect(healed, "did not heal without a restart");
    row.say(format!("accepted again after {:.1} s", began.elapsed().as_secs_f64()));
}

/// F6: no space left for log, store and lake.
pub(crate) async fn full(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F6", "the disk is full, then has room again", seed) };
    let Some(disk) = SmallDisk::mount(48 << 20) else {
        return Row::left_out("F6", &row.scenario, "needs to mount a tmpfs (root)");
    };
    let mut world = World::at(TempDir::new().unwrap(), disk.path().join("data")).padded(2_000);
    world = world.with_receiver(Manner::Takes).await;
    let server = world.server();
    for _ in 0..20 {
        world.generator.send(&server, 20).await;
    }
    let from = server.log().len();
    let ballast = disk.path().join("ballast");
    // Takes what is left; how much that is, is none of our business.
    drop(Command::new("dd").args(["if=/dev/zero", "bs=1M"]).arg(format!("of={}", ballast.display())).output());
    refuses_and_heals(&mut row, &world, &server, (from, "No space left"), async || {
        std::fs::remove_file(&ballast).unwrap()
    })
    .await;
    world.account(&mut row, &server).await;
    server.kill();
    let server = world.server();
    world.account(&mut row, &server).await;
    drop((server, world));
    drop(disk);
    row
}

/// F7: writes or syncs fail with an input/output error, then work again.
pub(crate) async fn failing(seed: u64, calls: &str) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F7", &format!("{calls} fails with EIO"), seed) };
    if !has_tool("strace") {
        return Row::left_out("F7", &row.scenario, "needs strace");
    }
    let mut world = World::new().with_receiver(Manner::Takes).await;
    let server = world.server();
    for _ in 0..10 {
        world.generator.send(&server, 5).await;
    }
    let from = server.log().len();
    let Some(injected) = Injected::start(server.pid(), calls, "error=EIO", None).await else {
        return Row::left_out("F7", &row.scenario, "needs to trace a process (ptrace)");
    };
    refuses_and_heals(&mut row, &world, &server, (from, "Input/output error"), async || drop(injected)).await;
    world.account(&mut row, &server).await;
    server.kill();
    let server = world.server();
    world.account(&mut row, &server).await;
    row
}

/// F6 and F7: the store alone cannot write, while the log could go on; then it can.
pub(crate) async fn store_failing(seed: u64, fault: &str, error: &str) -> Row {
    let mut row = Row { runs: 1, ..Row::new(fault, &format!("writes of the store alone fail with {error}"), seed) };
    if !has_tool("strace") {
        return Row::left_out(fault, &row.scenario, "needs strace");
    }
    let mut world = World::new().with_receiver(Manner::Takes).await;
    let server = world.server();
    for _ in 0..10 {
        world.generator.send(&server, 5).await;
    }
    let from = server.log().len();
    let log = world.data.join("store.db-wal");
    let Some(injected) = Injected::start(server.pid(), "pwrite64", &format!("error={error}"), Some(&log)).await else {
        return Row::left_out(fault, &row.scenario, "needs to trace a process (ptrace)");
    };
    // SQLite's own words for both.
    let cause = if error == "ENOSPC" { "database or disk is full" } else { "disk I/O error" };
    refuses_and_heals(&mut row, &world, &server, (from, cause), async || drop(injected)).await;
    let named = server.log().iter().skip(from).any(|line| line.contains("\"part\":\"store\"") && line.contains(cause));
    row.expect(named, "the store is not what is named");
    world.account(&mut row, &server).await;
    server.kill();
    let server = world.server();
    world.account(&mut row, &server).await;
    row
}

/// F27: every sync takes half a second.
pub(crate) async fn slow(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F27", "every sync takes 500 ms", seed) };
    if !has_tool("strace") {
        return Row::left_out("F27", &row.scenario, "needs strace");
    }
    let mut world = World::new().with_receiver(Manner::Takes).await;
    let server = world.server();
    let Some(injected) = Injected::start(server.pid(), "fdatasync,fsync", "delay_enter=500000", None).await else {
        return Row::left_out("F27", &row.scenario, "needs to trace a process (ptrace)");
    };
    let stop = AtomicBool::new(false);
    let end = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    // One that waits for each answer measures what a sync takes.
    let mut times = Vec::new();
    let measured = async {
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            let began = Instant::now();
            if world.generator.send(&server, 1).await.is_some_and(|status| status.is_success()) {
                times.push(began.elapsed());
            }
        }
    };
    tokio::join!(world.generator.load(&server, 16, 5, &stop), end, measured);
    drop(injected);
    times.sort();
    row.expect(!times.is_empty(), "nothing was taken at all");
    if let (Some(fastest), Some(slowest)) = (times.first(), times.last()) {
        row.expect(
            *fastest >= Duration::from_millis(500),
            format!("answered after {fastest:?}: the sync was not slow"),
        );
        row.say(format!(
            "{} answers, the fastest after {:.2} s, the slowest after {:.2} s",
            times.len(),
            fastest.as_secs_f64(),
            slowest.as_secs_f64()
        ));
    }
    world.account(&mut row, &server).await;
    row
}

fn limit(pid: u32, what: &str, value: &str) -> bool {
    let set = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--{what}={value}:")]).output();
    set.is_ok_and(|output| output.status.success())
}

/// F8: no file can be opened any more, then they can again.
pub(crate) async fn no_files(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F8", "no file descriptor is left, then they are", seed) };
    if !has_tool("prlimit") {
        return Row::left_out("F8", &row.scenario, "needs prlimit");
    }
    let mut world = World::new().with_receiver(Manner::Takes).await;
    let server = world.server();
    for _ in 0..10 {
        world.generator.send(&server, 5).await;
    }
    // Whoever asks below has a connection that is open and idle by then: a new one would wait to be accepted.
    row.expect(server.ready().await, "it is not ready");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let from = server.log().len();
    row.expect(limit(server.pid(), "nofile", "8"), "the limit cannot be set");
    // The connection that is open goes on being served; somebody else tries to connect, as in life somebody always does.
    let _another = std::net::TcpStream::connect(server.url.trim_start_matches("http://"));
    let cause = "Too many open files";
    let refused = wait(Duration::from_secs(30), || async {
        let sent = tokio::time::timeout(Duration::from_secs(5), world.generator.send(&server, 5)).await;
        matches!(sent, Ok(Some(status)) if status.as_u16() == 503)
    })
    .await;
    row.expect(refused, "never answered 503");
    named(&mut row, &server, cause).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    told_once(&mut row, &server, from, cause);
    let said = server.log().iter().any(|line| line.contains("no connection can be accepted"));
    row.expect(said, "nothing is said of connections that cannot be accepted");
    row.expect(limit(server.pid(), "nofile", "1024"), "the limit cannot be lifted");
    let healed = wait(PATIENCE, || async {
        server.ready().await && world.generator.send(&server, 5).await.is_some_and(|status| status.is_success())
    })
    .await;
    row.expect(healed, "did not heal without a restart");
    let connected = reqwest::get(format!("{}/healthz", server.url)).await;
    row.expect(connected.is_ok_and(|reply| reply.status().is_success()), "nobody new can connect");
    world.account(&mut row, &server).await;
    row
}

/// F8: memory ends. The process dies of it and says so, or refuses; what it acknowledged is there when it is started again.
pub(crate) async fn no_memory(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F8", "no memory can be had any more", seed) };
    if !has_tool("prlimit") {
        return Row::left_out("F8", &row.scenario, "needs prlimit");
    }
    let mut world = World::new().padded(20_000).with_receiver(Manner::Takes).await;
    let mut server = world.server();
    for _ in 0..5 {
        world.generator.send(&server, 5).await;
    }
    // A little more than it has.
    let room = server.address_space() + (24 << 20);
    row.expect(limit(server.pid(), "as", &room.to_string()), "the limit cannot be set");
    let stop = AtomicBool::new(false);
    let (mut refused, began) = (false, Instant::now());
    let end = async {
        while began.elapsed() < Duration::from_secs(40) && Path::new(&format!("/proc/{}/exe", server.pid())).exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let asked = tokio::time::timeout(Duration::from_secs(2), server.not_ready()).await;
            if asked.is_ok_and(|reason| reason.is_some_and(|reason| !reason.is_empty())) {
                refused = true;
                break;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        if refused {
            // Requests under way must not wait for a process that cannot answer.
            server.signal("KILL");
        }
    };
    tokio::join!(world.generator.load(&server, 16, 40, &stop), end);
    let ended = server.ended(Duration::from_secs(5)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let last: Vec<String> = server.log().into_iter().filter(|line| line.contains("memory allocation of")).collect();
    row.expect(ended, "the limit was never felt: it neither died nor refused");
    if !refused {
        row.expect(server.ended_by() == Some(6), format!("it ended otherwise: signal {:?}", server.ended_by()));
        row.expect(last.len() == 1, format!("{} lines say why it died: {last:?}", last.len()));
        row.say(format!("it died {:.1} s after the limit: `{}`", began.elapsed().as_secs_f64(), last.join(" ")));
    }
    drop(server);
    let server = world.server();
    world.account(&mut row, &server).await;
    row
}
