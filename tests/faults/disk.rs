//! The disk is full, fails, is slow, or has no file left to open: nothing is acknowledged that is not safe, and everything goes
//! on when the cause is gone.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

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

/// Sends until it is refused, and checks how; then has it heal by `cure` without a restart.
async fn refuses_and_heals(row: &mut Row, world: &World, server: &Server, cure: impl AsyncFnOnce()) {
    let refused = wait(PATIENCE, || async {
        matches!(world.generator.send(server, 20).await, Some(status) if status.as_u16() == 503)
    })
    .await;
    row.expect(refused, "never answered 503");
    let told = wait(Duration::from_secs(10), || async { !server.ready().await }).await;
    row.expect(told, "/readyz never said so");
    let lines = server.log();
    let errors = lines.iter().filter(|line| line.contains("\"ERROR\"")).count();
    row.expect(errors > 0, "no error was logged");
    row.say(format!("{errors} error lines"));
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
    let ballast = disk.path().join("ballast");
    // Takes what is left; how much that is, is none of our business.
    drop(Command::new("dd").args(["if=/dev/zero", "bs=1M"]).arg(format!("of={}", ballast.display())).output());
    refuses_and_heals(&mut row, &world, &server, async || std::fs::remove_file(&ballast).unwrap()).await;
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
    let Some(injected) = Injected::start(server.pid(), calls, "error=EIO").await else {
        return Row::left_out("F7", &row.scenario, "needs to trace a process (ptrace)");
    };
    refuses_and_heals(&mut row, &world, &server, async || drop(injected)).await;
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
    let Some(injected) = Injected::start(server.pid(), "fdatasync,fsync", "delay_enter=500000").await else {
        return Row::left_out("F27", &row.scenario, "needs to trace a process (ptrace)");
    };
    let stop = AtomicBool::new(false);
    let end = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    tokio::join!(world.generator.load(&server, 16, 5, &stop), end);
    drop(injected);
    row.expect(!world.generator.acknowledged().is_empty(), "nothing was taken at all");
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
    row.expect(limit(server.pid(), "nofile", "8"), "the limit cannot be set");
    // The connection that is open goes on being served; whatever needs a new file fails meanwhile.
    let squeezed = Instant::now();
    while squeezed.elapsed() < Duration::from_secs(4) {
        let sent = world.generator.send(&server, 5);
        if tokio::time::timeout(Duration::from_secs(2), sent).await.is_err() {
            row.say("a request waited for a descriptor");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    row.expect(limit(server.pid(), "nofile", "1024"), "the limit cannot be lifted");
    let healed = wait(PATIENCE, || async {
        server.ready().await && world.generator.send(&server, 5).await.is_some_and(|status| status.is_success())
    })
    .await;
    row.expect(healed, "did not heal without a restart");
    world.account(&mut row, &server).await;
    row
}

/// F8: memory ends; the process may die, what it acknowledged may not.
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
    row.expect(limit(server.pid(), "as", "1000000"), "the limit cannot be set");
    let stop = AtomicBool::new(false);
    let end = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        // Requests under way must not wait for a process that cannot answer.
        server.signal("KILL");
    };
    tokio::join!(world.generator.load(&server, 8, 20, &stop), end);
    let _ended = server.ended(Duration::from_secs(5)).await;
    let server = world.server();
    world.account(&mut row, &server).await;
    row
}
