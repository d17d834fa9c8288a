//! How fast rules are matched, beside what parsing the same bytes costs: the floor under every engine.
//!
//! `cargo bench -p pipeproof-rules --bench speed -- [--rules DIR] [--events FILE.ndjson] [--seconds N]`
//!
//! Downloads nothing. Without `--rules` it makes up several thousand rules in SigmaHQ's mix, without `--events` the audit
//! events of a delivery pipeline; a checkout of SigmaHQ/sigma as `--rules` gives the published figures. All candidates
//! take turns within one run, and each turn is compared with the yardstick's turn beside it, so that a busy machine
//! slows both: read the shares. Nothing here fails because it was slow.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    clippy::let_underscore_must_use,
    reason = "a benchmark that cannot be set up has to stop, and prints what it measured"
)]

mod events;
mod measure;
mod rival;
mod rule_sets;

use std::hint::black_box;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use pipeproof_engine::detect::{Decoded, Detector};
use pipeproof_engine::event::Event;
use pipeproof_engine::plan::{Plan, Routing};
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Record};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_rules::{Lists, load};

use events::{BATCH, Batch, Frame, Lines};
use measure::{Stopwatch, median, peak_memory};
use rule_sets::Files;

/// What everything is compared with.
const YARDSTICK: &str = "yardstick: simd-json tape";
/// Events made up where no file is given.
const EVENTS: usize = 60_000;
/// Fewest turns each candidate takes.
const TURNS_MIN: usize = 5;

struct Options {
    rules: Option<PathBuf>,
    events: Option<PathBuf>,
    seconds: f64,
    /// Run only the candidate of this name, or those whose names have this in them, for a profiler; `matches` says which
    /// rules matched most.
    only: Option<String>,
}

fn options() -> Options {
    let mut options = Options { rules: None, events: None, seconds: 60.0, only: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--rules" => options.rules = Some(value().into()),
            "--events" => options.events = Some(value().into()),
            "--seconds" => options.seconds = value().parse().unwrap(),
            "--only" => options.only = Some(value()),
            "--bench" => {}
            other => panic!("unknown argument {other} (known: --rules DIR, --events FILE, --seconds N, --only NAME)"),
        }
    }
    options
}

fn plan(files: &Files) -> Arc<Plan> {
    Arc::new(Plan::compile(load(files, &Lists::shipped()).rules).unwrap())
}

/// The first so many rules of a set.
fn part(files: &Files, rules: usize) -> Arc<Plan> {
    let mut set = load(files, &Lists::shipped()).rules;
    set.truncate(rules);
    Arc::new(Plan::compile(set).unwrap())
}

/// What takes turns.
struct Candidate {
    name: String,
    threads: usize,
    run: Box<dyn Fn(&Lines) -> Turn>,
}

/// How many matches there were, and the seconds it took: of this thread, and on the wall.
#[derive(Clone, Copy)]
struct Turn {
    matches: usize,
    own: f64,
    wall: f64,
}

fn timed(work: impl FnOnce() -> usize) -> Turn {
    let watch = Stopwatch::start();
    let matches = black_box(work());
    let wall = watch.wall_secs();
    Turn { matches, own: watch.own_secs(), wall }
}

fn tape(lines: &Lines, thread: usize, threads: usize) -> usize {
    let mut buffers = simd_json::Buffers::default();
    let mut text = Vec::new();
    let mut tape = simd_json::Tape(Vec::new());
    for line in lines.share(thread, threads).flat_map(Batch::iter) {
        text.clear();
        text.extend_from_slice(line);
        text.resize(line.len() + simd_json::INPUT_PADDING, 0);
        let mut open = tape.reset();
        simd_json::fill_tape_padded(&mut text, line.len(), &mut buffers, &mut open).unwrap();
        black_box(&open);
        tape = open.reset();
    }
    0
}

fn dom(lines: &Lines) -> usize {
    for line in lines.iter() {
        black_box(serde_json::from_slice::<serde_json::Value>(line).unwrap());
    }
    0
}

/// The same work by so many threads.
fn spread(threads: usize, work: impl Fn(usize) -> usize + Sync) -> usize {
    if threads == 1 {
        return work(0);
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn({
                    let work = &work;
                    move || work(thread)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    })
}

/// From lines to matches, of one thread's share of them.
fn select(plan: &Plan, lines: &Lines, routing: &Routing, thread: usize, threads: usize) -> usize {
    let frame = Frame::default();
    let mut matches = 0;
    let mut events: Vec<Event> = Vec::with_capacity(BATCH);
    for batch in lines.share(thread, threads) {
        events.clear();
        events.extend(batch.slices().enumerate().map(|(index, line)| frame.event(index, line)));
        matches += plan.select(&events, routing).len();
    }
    matches
}

/// Everything a micro-batch's commit holds: findings and the encoded delta of the state.
fn detect(plan: &Arc<Plan>, records: &[Decoded], routing: &Routing) -> Turn {
    let mut detector = Detector::new(Arc::clone(plan), 0).with_routing(routing.clone());
    let mut turn = Turn { matches: 0, own: 0.0, wall: 0.0 };
    for batch in records.chunks(BATCH) {
        let batch = batch.to_vec();
        let one = timed(|| {
            let commit = detector.apply(batch, Timestamp::from_secs(1_767_614_401)).unwrap();
            black_box(&commit.delta);
            commit.findings.len()
        });
        turn = Turn { matches: turn.matches + one.matches, own: turn.own + one.own, wall: turn.wall + one.wall };
    }
    turn
}

fn records(lines: &Lines) -> Vec<Decoded> {
    let frame = Frame::default();
    let record = |index: usize, native: bytes::Bytes| Decoded {
        index: index as u64,
        record: Record {
            envelope: Envelope {
                source: "file".to_owned(),
                source_type: SourceType::Json,
                received: Timestamp::from_secs(1_767_614_400),
                auth: Authenticity::Bearer,
                key_id: None,
                item: format!("id:{index}"),
                mode: CollectionMode::Live,
                attributes: std::collections::BTreeMap::new(),
                redacted: Vec::new(),
            },
            salt: [0; 16],
            body: native.clone(),
        },
        events: Ok(vec![frame.event(index, native)]),
    };
    lines.slices().enumerate().map(|(index, line)| record(index, line)).collect()
}

fn main() {
    let options = options();
    let lines = match &options.events {
        Some(path) => Lines::read(path).unwrap(),
        None => Lines::generated(EVENTS),
    };
    let (cloud, all) = match &options.rules {
        Some(path) => rule_sets::folder(path).unwrap(),
        None => rule_sets::generated(),
    };
    if let Some(name) = options.only.as_deref().and_then(|only| only.strip_prefix("peak:")) {
        return peak(name, &lines, &cloud, &all);
    }
    let (cloud_plan, all_plan) = (plan(&cloud), plan(&all));
    println!(
        "{} events of {:.0} bytes; {} cloud and pipeline rules, {} rules in all{}",
        lines.count,
        lines.bytes as f64 / lines.count as f64,
        cloud_plan.rules().len(),
        all_plan.rules().len(),
        if options.rules.is_some() { "" } else { " (made up)" },
    );
    let mut candidates = candidates(&cloud, &all, &cloud_plan, &all_plan, &lines);
    if let Some(only) = &options.only {
        let exact = candidates.iter().any(|candidate| candidate.name == *only);
        candidates.retain(|candidate| if exact { candidate.name == *only } else { candidate.name.contains(only) });
    }
    if options.only.as_deref() == Some("matches") {
        return loudest(&all_plan, &lines);
    }
    race(&candidates, &lines, options.seconds);
    if options.only.is_none() {
        allocations(&candidates, &lines);
        memory();
        rsigma(&lines, &candidates, &all);
    }
}

fn candidates(
    cloud: &Files,
    all: &Files,
    cloud_plan: &Arc<Plan>,
    all_plan: &Arc<Plan>,
    lines: &Lines,
) -> Vec<Candidate> {
    let mut list: Vec<Candidate> = vec![
        Candidate { name: YARDSTICK.into(), threads: 1, run: Box::new(|lines| timed(|| tape(lines, 0, 1))) },
        Candidate { name: "serde_json::Value".into(), threads: 1, run: Box::new(|lines| timed(|| dom(lines))) },
    ];
    let mut add = |name: &str, plan: &Arc<Plan>, routing: Routing, threads: usize| {
        let plan = Arc::clone(plan);
        let run = move |lines: &Lines| spread(threads, |thread| select(&plan, lines, &routing, thread, threads));
        list.push(Candidate { name: name.to_owned(), threads, run: Box::new(move |lines| timed(|| run(lines))) });
    };
    add("cloud rules, logsource known", cloud_plan, Routing::Recognised, 1);
    add("all rules, logsource known", all_plan, Routing::Recognised, 1);
    add("all rules, every rule tried", all_plan, Routing::Unrouted, 1);
    // Cloud rules first: they are what these events meet.
    let ordered: Files = cloud.iter().chain(all.iter().filter(|file| !cloud.contains(file))).cloned().collect();
    for rules in [0, 10, 100, 1_000] {
        add(&format!("{rules} rules, logsource known"), &part(&ordered, rules), Routing::Recognised, 1);
    }
    add("cloud rules, logsource known, 2 threads", cloud_plan, Routing::Recognised, 2);
    add("all rules, logsource known, 2 threads", all_plan, Routing::Recognised, 2);
    add("all rules, every rule tried, 2 threads", all_plan, Routing::Unrouted, 2);
    list.push(Candidate {
        name: format!("{YARDSTICK}, 2 threads"),
        threads: 2,
        run: Box::new(|lines| timed(|| spread(2, |thread| tape(lines, thread, 2)))),
    });
    let records = Arc::new(records(lines));
    for (name, plan) in [("cloud", cloud_plan), ("all", all_plan)] {
        let (plan, records) = (Arc::clone(plan), Arc::clone(&records));
        let run = move |_: &Lines| detect(&plan, &records, &Routing::Recognised);
        list.push(Candidate {
            name: format!("{name} rules, logsource known, with the commit"),
            threads: 1,
            run: Box::new(run),
        });
    }
    list
}

/// Which rules matched most, by logsource and with every rule tried.
fn loudest(plan: &Plan, lines: &Lines) {
    let frame = Frame::default();
    let events: Vec<Event> = lines.slices().map(|line| frame.event(0, line)).collect();
    for routing in [Routing::Recognised, Routing::Unrouted] {
        let mut counts = std::collections::BTreeMap::new();
        for found in plan.select(&events, &routing) {
            *counts.entry(found.rule).or_insert(0) += 1;
        }
        let mut counts: Vec<_> =
            counts.into_iter().map(|(rule, count)| (count, &plan.rules()[rule].meta().title)).collect();
        counts.sort_unstable();
        counts.iter().rev().take(12).for_each(|(count, title)| println!("{count:>8} {title}"));
    }
}

/// Everybody in turn, again and again.
fn race(candidates: &[Candidate], lines: &Lines, seconds: f64) {
    let total = Stopwatch::start();
    let mut turns: Vec<Vec<Turn>> = candidates.iter().map(|_| Vec::new()).collect();
    // Once beforehand, so that plans are compiled.
    let matches: Vec<usize> = candidates.iter().map(|candidate| (candidate.run)(lines).matches).collect();
    while turns.iter().any(|turns| turns.len() < TURNS_MIN) || total.wall_secs() < seconds {
        for (candidate, turns) in candidates.iter().zip(&mut turns) {
            turns.push((candidate.run)(lines));
        }
    }
    let yardstick = turns.first().cloned().unwrap_or_default();
    println!("\n{:<52}{:>12}{:>10}{:>14}{:>10}", "", "events/s", "MB/s", "of yardstick", "matches");
    for ((candidate, own), matches) in candidates.iter().zip(&turns).zip(&matches) {
        // Worker threads' time is not this thread's: their speed is judged by the clock on the wall.
        let secs = |turn: &Turn| if candidate.threads == 1 { turn.own } else { turn.wall };
        let share = median(own.iter().zip(&yardstick).map(|(own, yard)| secs(yard) / secs(own)).collect());
        let secs = median(own.iter().map(secs).collect());
        println!(
            "{:<52}{:>12.0}{:>10.0}{:>13.1}%{:>10}",
            candidate.name,
            lines.count as f64 / secs,
            lines.bytes as f64 / secs / 1e6,
            share * 100.0,
            matches,
        );
    }
    let find = |name: &str| candidates.iter().position(|candidate| candidate.name == name).and_then(|at| turns.get(at));
    println!();
    for name in [YARDSTICK, "cloud rules, logsource known", "all rules, logsource known", "all rules, every rule tried"]
    {
        if let (Some(one), Some(two)) = (find(name), find(&format!("{name}, 2 threads"))) {
            let ratio = median(one.iter().zip(two).map(|(one, two)| one.wall / two.wall).collect());
            println!("two threads against one, {name}: {ratio:.2} x");
        }
    }
    if let (Some(few), Some(all)) = (find("10 rules, logsource known"), find("all rules, logsource known")) {
        let ratio = median(few.iter().zip(all).map(|(few, all)| all.own / few.own).collect());
        println!("time for all rules against 10, logsource known: {ratio:.2} x");
    }
    println!("median of {} turns", yardstick.len());
}

fn allocations(candidates: &[Candidate], lines: &Lines) {
    println!("\nallocations per event (bytes)");
    for candidate in candidates.iter().filter(|candidate| candidate.threads == 1) {
        // The one before warmed up what is kept from batch to batch.
        let info = allocation_counter::measure(|| {
            black_box((candidate.run)(lines));
        });
        let events = lines.count as f64;
        println!(
            "{:<52}{:>12.3}{:>12.0}",
            candidate.name,
            info.count_total as f64 / events,
            info.bytes_total as f64 / events
        );
    }
}

/// Each in a process of its own, since memory given back is not seen.
fn memory() {
    println!("\npeak memory, MB (events are read beforehand, and counted)");
    for name in ["events alone", "cloud known", "all known", "all tried", "all known 2"] {
        let own = std::env::args().skip(1).filter(|argument| argument != "--bench");
        let output = Command::new(std::env::current_exe().unwrap())
            .args(own)
            .args(["--only", &format!("peak:{name}")])
            .output()
            .unwrap();
        let peak = String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().unwrap_or(f64::NAN);
        println!("{name:<52}{:>12.0}", peak / 1e6);
    }
}

fn peak(name: &str, lines: &Lines, cloud: &Files, all: &Files) {
    let run = |files: &Files, routing: Routing, threads: usize| {
        let plan = plan(files);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (plan, routing) = (&plan, &routing);
                scope.spawn(move || black_box(select(plan, lines, routing, thread, threads)));
            }
        });
    };
    match name {
        "cloud known" => run(cloud, Routing::Recognised, 1),
        "all known" => run(all, Routing::Recognised, 1),
        "all tried" => run(all, Routing::Unrouted, 1),
        "all known 2" => run(all, Routing::Recognised, 2),
        _ => {}
    }
    println!("{}", peak_memory().unwrap_or_default());
}

fn rsigma(lines: &Lines, candidates: &[Candidate], all: &Files) {
    let Some(program) = rival::find() else {
        return println!("\nrsigma: not on the PATH, no race");
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    let mut text = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
    for line in lines.iter() {
        text.write_all(line).unwrap();
        text.write_all(b"\n").unwrap();
    }
    text.flush().unwrap();
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    for (number, (_, text)) in all.iter().enumerate() {
        std::fs::write(rules.join(format!("{number}.yml")), text).unwrap();
    }
    println!(
        "\nagainst {} (its command line, loading taken off; one thread)",
        program.file_name().unwrap().to_string_lossy()
    );
    for (routed, name) in [(true, "all rules, logsource known"), (false, "all rules, every rule tried")] {
        let Some(candidate) = candidates.iter().find(|candidate| candidate.name == name) else { continue };
        match rival::race(&program, &rules, &file, routed) {
            Ok((secs, matches)) => {
                let own = (candidate.run)(lines).wall;
                let events = lines.count as f64;
                println!(
                    "{name:<52}{:>12.0} events/s, {matches} matches; ours is {:.1} x as fast",
                    events / secs,
                    secs / own
                );
            }
            Err(error) => println!("{name}: {error}"),
        }
    }
}
