//! Faults: the real program is killed, starved, lied to and damaged, and what it promised is counted afterwards.
//!
//! `cargo test --test faults` runs a short selection. `-- --long` runs all of it and writes `docs/faults.md`; `-- --only NAME`
//! runs what has NAME in its name, with `--long` at full length; `--seed N` repeats a run, which otherwise takes its seed from the clock
//! and prints it; `--schedules N` and `--kills N` set how many there are, `--soak SECONDS` how long the steady load is. Each run prints
//! one JSON row. It fails if any of them does not hold, with `--all-must-run` also if one was left out. `-- --page FILE` writes the page
//! from the rows in FILE, with `--said TEXT` above them. Arguments in `FAULTS_ARGUMENTS` come before all others: what `cargo test
//! --workspace` is given, every other test gets as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::large_futures,
    clippy::cast_precision_loss,
    clippy::exit,
    reason = "a fault run ends by saying what does not hold"
)]

mod configuration;
mod damage;
mod delivery;
mod disk;
mod generator;
mod hostile;
mod kills;
mod listeners;
#[path = "../../rules/benches/speed/events.rs"]
#[allow(dead_code, reason = "the benchmark needs more of it")]
mod made_up;
mod merging;
mod page;
mod power;
mod process;
mod provoked;
mod receiver;
mod row;
mod simulation;
mod space;
mod specimen;
mod speed;
mod tampering;
mod time;
mod upkeep;
mod world;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pipeproof_engine::clock::{Clock as _, SystemClock};
use pipeproof_engine::failpoint::Failpoint;

use crate::delivery::Bad;
use crate::receiver::Manner;
use crate::row::{Holds, Row};

/// Every group of runs, in order.
const GROUPS: &[&str] = &[
    "simulation",
    "failpoints",
    "kills",
    "power",
    "torn",
    "flips",
    "told",
    "tampered",
    "full",
    "failing",
    "slow",
    "descriptors",
    "memory",
    "repeated",
    "poison",
    "configuration",
    "queries",
    "listeners",
    "receiver",
    "backup",
    "take-over",
    "upgrade",
    "clock",
    "again",
    "retention",
    "space",
    "samples",
    "soak",
    "speed",
    "backlog",
];

/// How much is run.
struct Plan {
    long: bool,
    only: Option<String>,
    seed: u64,
    schedules: Option<u64>,
    kills: Option<u64>,
    /// Whether a row that was left out fails the run.
    all_must_run: bool,
    /// Length of the steady load.
    soak: Option<u64>,
    /// Group from which a long run that was cut off goes on.
    from: Option<String>,
    /// What runs of groups by themselves have printed, of which the page is to be written.
    page: Option<String>,
    said: String,
    /// The program of an earlier release.
    older: Option<PathBuf>,
    /// Groups of runs that were begun.
    begun: Vec<String>,
    began: Instant,
    rows: Vec<Row>,
}

/// The rows in what a run has printed.
fn printed(file: Option<String>) -> Vec<Row> {
    let text = file.map(std::fs::read_to_string).unwrap().unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Plan {
    fn from_arguments() -> Self {
        let mut plan = Self {
            long: false,
            only: None,
            // Another one each time; printed, so that it can be asked for again.
            seed: SystemClock.now().as_micros().unsigned_abs() / 1_000_000,
            schedules: None,
            kills: None,
            all_must_run: false,
            soak: None,
            from: None,
            page: None,
            older: None,
            said: String::new(),
            begun: Vec::new(),
            began: Instant::now(),
            rows: Vec::new(),
        };
        if let Some(seed) = std::env::var("SEED").ok().and_then(|text| text.parse().ok()) {
            plan.seed = seed;
        }
        let first = std::env::var("FAULTS_ARGUMENTS").unwrap_or_default();
        let mut arguments = first.split_whitespace().map(str::to_owned).chain(std::env::args().skip(1));
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().and_then(|text| text.parse().ok());
            match argument.as_str() {
                "--long" => plan.long = true,
                "--seed" => plan.seed = number().unwrap_or(plan.seed),
                "--schedules" => plan.schedules = number(),
                "--kills" => plan.kills = number(),
                "--all-must-run" => plan.all_must_run = true,
                "--soak" => plan.soak = number(),
                // What a run that was cut off has printed, and the group it was cut off in.
                "--resume" => plan.rows = printed(arguments.next()),
                "--from" => plan.from = arguments.next(),
                "--page" => plan.page = arguments.next(),
                // What is to be known of the runs of a page, beside their rows.
                "--said" => plan.said = arguments.next().unwrap_or_default(),
                "--older" => plan.older = arguments.next().map(PathBuf::from),
                "--only" => plan.only = arguments.next(),
                // What `cargo test NAME` hands to every test binary; other options are libtest's.
                name if !name.starts_with('-') => plan.only = Some(name.to_owned()),
                _ => {}
            }
        }
        plan
    }

    /// Whether a group of runs is asked for; `short` says whether it is in the short selection.
    fn wants(&mut self, name: &str, short: bool) -> bool {
        self.begun.push(name.to_owned());
        let place = |name: &str| GROUPS.iter().position(|group| *group == name);
        if self.from.as_deref().is_some_and(|from| place(name) < place(from)) {
            return false;
        }
        match &self.only {
            Some(only) => name.contains(only.as_str()),
            None => short || self.long,
        }
    }

    fn pick(&self, short: u64, long: u64) -> u64 {
        if self.long { long } else { short }
    }

    fn done(&mut self, mut row: Row) {
        process::no_panics(&mut row);
        // One that was left out has come to nothing that knows it.
        if row.holds == Holds::LeftOut {
            row.seed = self.seed;
        }
        println!("{}", serde_json::to_string(&row).unwrap());
        self.rows.push(row);
        // Row by row, so that a run that is cut off has said what it saw.
        if self.long && self.only.is_none() {
            self.write_page();
        }
    }

    fn write_page(&self) {
        let minutes = self.began.elapsed().as_secs() / 60;
        let how = format!("Seed {}, {minutes} minutes, {} threads, debug build.", self.seed, threads());
        let left: Vec<_> = GROUPS.iter().filter(|name| !self.begun.iter().any(|begun| begun == *name)).collect();
        let how = match &self.from {
            Some(from) => format!("{how} What comes before `{from}` is from a run that was cut off there."),
            None => how,
        };
        let how = if left.is_empty() { how } else { format!("{how} The run was cut off; not run: {left:?}.") };
        let rows: Vec<_> = self.rows.iter().cloned().chain(page::open_rows()).collect();
        page::write(&rows, &how).unwrap();
    }
}

fn main() {
    let mut plan = Plan::from_arguments();
    if let Some(file) = plan.page.take() {
        let rows: Vec<_> = printed(Some(file)).into_iter().chain(page::open_rows()).collect();
        let how = format!(
            "Groups were run one by one, with {} threads, debug build; seeds stand in the notes. {}",
            threads(),
            plan.said
        );
        page::write(&rows, &how).unwrap();
        return;
    }
    println!("seed {0}: --seed {0} repeats this run; commit {1}", plan.seed, row::commit());
    // Panics of schedules are told by their row.
    if plan.schedules.is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    if plan.wants("simulation", true) {
        let count = plan.schedules.unwrap_or(plan.pick(1_500, 10_000));
        let mut row = simulation::schedules(plan.seed, count);
        (row.counted.events, row.counted.findings) = (true, true);
        plan.done(row);
    }
    drop(std::panic::take_hook());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(runs(&mut plan));
    process::unlink_program();
    let count = |holds: Holds| plan.rows.iter().filter(|row| row.holds == holds).count();
    let (broken, left_out) = (count(Holds::No), count(Holds::LeftOut));
    println!(
        "{} rows, {broken} do not hold, {left_out} left out, {:.0} s",
        plan.rows.len(),
        plan.began.elapsed().as_secs_f64()
    );
    let failed = if plan.all_must_run { broken + left_out } else { broken };
    if failed > 0 {
        std::process::exit(1);
    }
}

async fn runs(plan: &mut Plan) {
    let (seed, long) = (plan.seed, plan.long);
    if plan.wants("failpoints", true) {
        let some = [
            Failpoint::LogAfterSync,
            Failpoint::ReceiveAfterAppend,
            Failpoint::StoreInTransaction,
            Failpoint::LakeAfterPut,
            Failpoint::DeliverAfterSend,
        ];
        let points = if long { Failpoint::ALL } else { &some[..] };
        for row in kills::failpoints(seed, points).await {
            plan.done(row);
        }
    }
    if plan.wants("kills", true) {
        plan.done(kills::random(seed, plan.kills.unwrap_or(plan.pick(8, 500)), long).await);
    }
    if plan.wants("power", true) {
        plan.done(power::goes_off(seed, if long { 60 } else { 4 }).await);
    }
    if plan.wants("torn", true) {
        plan.done(damage::torn_tail(seed, if long { 400 } else { 40 }).await);
    }
    if plan.wants("flips", true) {
        for row in damage::flips(seed, plan.pick(40, 1_000)).await {
            plan.done(row);
        }
        plan.done(merging::damaged_before(seed, if long { 4 } else { 1 }).await);
    }
    if plan.wants("told", true) {
        plan.done(damage::told(seed).await);
    }
    if plan.wants("tampered", false) {
        plan.done(damage::tampered(seed).await);
        plan.done(tampering::edited(seed).await);
        plan.done(tampering::registry_rolled_back(seed).await);
        plan.done(tampering::seal_rolled_back(seed).await);
    }
    if plan.wants("full", true) {
        plan.done(disk::full(seed).await);
        if long {
            plan.done(disk::store_failing(seed, "F6", "ENOSPC").await);
            plan.done(disk::store_failing(seed, "F7", "EIO").await);
        }
    }
    if plan.wants("failing", false) {
        for calls in ["fdatasync", "fdatasync,fsync", "pwrite64", "pread64"] {
            plan.done(disk::failing(seed, calls).await);
        }
    }
    if plan.wants("slow", false) {
        plan.done(disk::slow(seed).await);
    }
    if plan.wants("descriptors", false) {
        plan.done(disk::no_files(seed).await);
    }
    if plan.wants("memory", false) {
        plan.done(disk::no_memory(seed).await);
    }
    if plan.wants("repeated", true) {
        plan.done(hostile::repeated(seed, plan.pick(20, 200)).await);
    }
    if plan.wants("poison", false) {
        plan.done(hostile::poison(seed, long).await);
    }
    if plan.wants("configuration", true) {
        plan.done(configuration::broken(seed).await);
        plan.done(configuration::rotated(seed).await);
    }
    if plan.wants("queries", false) {
        plan.done(hostile::endless_queries(seed, long).await);
    }
    if plan.wants("listeners", true) {
        plan.done(listeners::stalled(seed).await);
    }
    if plan.wants("receiver", false) {
        for bad in [Bad::BlackHole, Bad::Trickles, Bad::Redirects, Bad::Nameless] {
            plan.done(delivery::beside(seed, bad).await);
        }
        plan.done(delivery::failing(seed, Manner::FailsFirst(50)).await);
        plan.done(delivery::failing(seed, Manner::TakesAndHangs(2)).await);
    }
    if plan.wants("backup", true) {
        plan.done(upkeep::backup(seed).await);
    }
    if plan.wants("take-over", false) {
        plan.done(upkeep::take_over(seed).await);
    }
    if plan.wants("upgrade", false) {
        match plan.older.clone() {
            Some(older) => plan.done(upkeep::upgrade(seed, &older).await),
            None => plan.done(page::no_older()),
        }
    }
    if plan.wants("clock", false) {
        plan.done(time::clock_jumps(seed).await);
    }
    if plan.wants("again", true) {
        plan.done(time::loaded_again(seed, plan.pick(1_000, 20_000)).await);
    }
    if plan.wants("retention", true) {
        plan.done(upkeep::retention(seed, plan.pick(4, 16)).await);
    }
    if plan.wants("space", false) {
        plan.done(space::on_disk(seed, plan.pick(64, 512), long).await);
    }
    if plan.wants("samples", false) {
        match std::env::var_os("PIPEPROOF_SAMPLES_DIR") {
            Some(folder) => plan.done(space::samples(seed, folder.as_ref()).await),
            None => plan.done(space::no_samples()),
        }
    }
    if plan.wants("soak", false) {
        let length = plan.soak.unwrap_or(plan.pick(20, 600));
        plan.done(upkeep::soak(seed, Duration::from_secs(length)).await);
    }
    if plan.wants("speed", false) {
        plan.done(speed::durable_ingest(seed, 400).await);
        plan.done(speed::end_to_end(seed, 400).await);
    }
    if plan.wants("backlog", false) {
        plan.done(upkeep::backlog(seed, plan.pick(64, 1_024)).await);
    }
}
