//! Memory that is nearly used up: senders are told to come again before the operating system ends the program.
//!
//! The limit is the configuration's `memory_bytes`, or else that of the control group (cgroup v2, `memory.max`), or the machine's memory.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pipeproof_engine::control::Control;
use pipeproof_engine::time::Timestamp;

use crate::node::Shared;

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Per cent of the limit at which nothing more is taken in …
const FULL: u64 = 90;
/// … and at which it is again.
const ROOM: u64 = 80;
/// How often at most it is written down that it is reached.
const SAY_EVERY: Duration = Duration::from_secs(3_600);

pub(super) async fn run(shared: Arc<Shared>) {
    let Some(limit) = shared.memory_bytes.or_else(of_group).or_else(of_machine) else { return };
    let mut stopping = shared.stopping.subscribe();
    let mut said: Option<Timestamp> = None;
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let Some(used) = used(&status) else { continue };
        let share = used.saturating_mul(100) / limit.max(1);
        if share >= FULL {
            let reason = format!("{} of {} MiB are in use: raise the limit or send less", used >> 20, limit >> 20);
            shared.set_trouble("memory", Some(reason.clone()));
            let now = shared.clock.now();
            if said.is_none_or(|said| now >= said.plus(SAY_EVERY)) {
                // What everything holds together has a bound as well.
                let control = Control::BoundReached { rule: "memory".to_owned(), dropped: 0, reason };
                match shared.control(control).await {
                    Ok(_) => said = Some(now),
                    Err(error) => tracing::warn!(%error, "cannot write down that memory is full"),
                }
            }
        } else if share < ROOM {
            shared.set_trouble("memory", None);
        }
    }
}

/// Bytes of memory of this process that no file stands for.
fn used(status: &str) -> Option<u64> {
    bytes(status, "RssAnon:")
}

fn bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

fn of_machine() -> Option<u64> {
    bytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// The lowest limit of the control groups that this process is in.
fn of_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new("/sys/fs/cgroup").join(own);
    let limits = own.ancestors().filter(|group| group.starts_with("/sys/fs/cgroup"));
    limits.filter_map(|group| fs::read_to_string(group.join("memory.max")).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_used_is_what_no_file_stands_for() {
        let status = "Name:\tpipeproof\nVmRSS:\t  300000 kB\nRssAnon:\t  123456 kB\nRssFile:\t  176544 kB\n";
        assert_eq!(super::used(status), Some(123_456 << 10));
        assert_eq!(super::used("Name:\tpipeproof\n"), None);
    }
}
