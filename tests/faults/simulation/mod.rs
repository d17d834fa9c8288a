//! Log, detection, store and lake over a simulated disk and a simulated clock (F3): thousands of schedules, each decided by its
//! seed alone. The log and the detector are the real ones. The store and the lake are models that keep whole commits and
//! nothing else, which is what SQLite and Delta promise; the fault runs over the real program are there for these.

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pipeproof_engine::commit::{Commit, Restored};
use pipeproof_engine::control::{Control, OWN_SOURCE};
use pipeproof_engine::dedup::Known;
use pipeproof_engine::detect::{Decoded, Detector, Undecoded};
use pipeproof_engine::invariant::{Balance, Positions};
use pipeproof_engine::merkle::Nodes as _;
use pipeproof_engine::plan::Plan;
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, Record};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use pipeproof_ingest::decode::decode;
use pipeproof_ingest::log::{Knowing, Log, LogOptions, Opened};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use self::disk::SimulatedDisk;
use crate::generator::RULES;
use crate::row::Row;

/// Steps of a schedule.
const STEPS: usize = 60;
/// Items that detection holds before it hands them over.
const ITEMS_HELD: usize = 4;

/// Runs so many schedules, each twice, from `seed` on.
pub(crate) fn schedules(seed: u64, count: u64) -> Row {
    let mut row =
        Row::new("F3", "simulated schedules: power cuts, lost and torn writes, failed syncs, full disk", seed);
    let plan = plan();
    for number in 0..count {
        let seed = seed.wrapping_add(number);
        let outcomes = [0, 1].map(|_| {
            let plan = Arc::clone(&plan);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Simulation::run(seed, plan)))
        });
        row.runs += 1;
        match outcomes {
            [Ok(one), Ok(other)] => {
                row.expect(one.digest == other.digest, format!("seed {seed} does not give the same twice"));
                row.sent += one.sent;
                row.acked += one.acked;
                row.stored += one.stored;
                row.evaluated += one.evaluated;
                row.findings_expected += one.findings;
            }
            _ => row.fail(format!("seed {seed} fails: run with --seed {seed} --schedules 1")),
        }
    }
    row.say("log and detection are the real ones, store and lake models of whole commits; the real ones over a power cut are the next row of F3");
    row
}

fn plan() -> Arc<Plan> {
    let files: Vec<_> =
        RULES.split("---\n").enumerate().map(|(at, text)| (format!("{at}.yml"), text.to_owned())).collect();
    let set = pipeproof_rules::load(&files, &pipeproof_rules::Lists::default());
    Arc::new(Plan::compile(set.content()).expect("the rules compile"))
}

/// What a schedule came to.
struct Outcome {
    sent: u64,
    acked: u64,
    stored: u64,
    evaluated: u64,
    findings: u64,
    digest: [u8; 32],
}

/// What the store keeps: whole commits.
#[derive(Default)]
struct Store {
    restored: Restored,
    findings: BTreeMap<String, u64>,
    duplicates: BTreeSet<u64>,
    /// Items that detection handed over.
    items: Known,
}

impl Store {
    fn commit(&mut self, commit: &Commit) {
        assert_eq!(commit.from, self.restored.position, "a commit continues where the store stands");
        self.restored.position = commit.to;
        self.restored.deltas.push(commit.delta.clone());
        for finding in &commit.findings {
            *self.findings.entry(finding.id.clone()).or_default() += 1;
        }
        self.items.extend(commit.handed_over.iter().copied());
        self.duplicates.extend(commit.duplicates.iter().map(|duplicate| duplicate.index));
    }
}

/// What the lake keeps: whole appends, each with its position.
#[derive(Default)]
struct Lake {
    position: u64,
    /// Numbers of generated items, and how often each is there.
    items: BTreeMap<u64, u64>,
}

struct Simulation {
    random: StdRng,
    now: Timestamp,
    disk: SimulatedDisk,
    log: Log,
    plan: Arc<Plan>,
    detector: Detector,
    store: Store,
    lake: Lake,
    /// Every durable record as it was first read: none may ever read otherwise.
    seen: BTreeMap<u64, Bytes>,
    sent: BTreeSet<u64>,
    acked: BTreeMap<u64, u64>,
    bodies: Vec<Bytes>,
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 1_500, ..LogOptions::default() }
}

impl Simulation {
    fn run(seed: u64, plan: Arc<Plan>) -> Outcome {
        // One request at a time is under way, so nothing depends on how threads are scheduled.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut random = StdRng::seed_from_u64(seed);
            let disk = SimulatedDisk::new(StdRng::seed_from_u64(random.random()));
            let log = Log::open_on(Arc::new(disk.clone()), Knowing::default(), options()).unwrap().log;
            let mut simulation = Self {
                random,
                now: Timestamp::from_secs(1_767_618_000),
                disk,
                log,
                detector: Detector::new(Arc::clone(&plan), 0),
                plan,
                store: Store::default(),
                lake: Lake::default(),
                seen: BTreeMap::new(),
                sent: BTreeSet::new(),
                acked: BTreeMap::new(),
                bodies: Vec::new(),
            };
            for _ in 0..STEPS {
                simulation.step().await;
                simulation.check();
            }
            simulation.end().await
        })
    }

    async fn step(&mut self) {
        self.now = self.now.plus(Duration::from_millis(self.random.random_range(0..2_000)));
        match self.random.random_range(0..100) {
            0..35 => self.append().await,
            35..45 => self.tick().await,
            45..63 => self.detect().await,
            63..73 => self.archive(),
            73..77 => self.snapshot(),
            77..81 => {
                // An error leaves what was not removed to the next time.
                drop(self.log.retire(self.lake.position).await);
            }
            81..85 => self.disk.fail_syncs(self.random.random_range(1..4)),
            85..87 => self.disk.fill(self.random.random_range(0..2_000)),
            87..92 => self.heal().await,
            92..94 => self.disk.power_for(self.random.random_range(1..12)),
            94..97 => self.restart(false).await,
            _ => self.restart(true).await,
        }
        if self.disk.is_dead() {
            self.restart(true).await;
        }
    }

    fn envelope(&self, source: &str, source_type: SourceType, auth: Authenticity, item: String) -> Envelope {
        Envelope {
            source: source.to_owned(),
            source_type,
            received: self.now,
            auth,
            key_id: None,
            item,
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: Vec::new(),
        }
    }

    /// A sender sends new items, or one again that it is not sure of.
    async fn append(&mut self) {
        let again = self.random.random_range(0..4) == 0 && !self.bodies.is_empty();
        let count = self.random.random_range(1..5);
        let numbers: Vec<u64> = if again {
            vec![self.random.random_range(0..self.bodies.len() as u64)]
        } else {
            (self.bodies.len() as u64..).take(count).collect()
        };
        for number in &numbers {
            if *number == self.bodies.len() as u64 {
                let action = if self.random.random_range(0..3) == 0 { "secret.read" } else { "job.finished" };
                let late = Duration::from_millis(self.random.random_range(0..90_000));
                let event = json!({"time": self.now.minus(late).to_string(), "action": action, "ci.run_id": number.to_string(), "ci.repo": "acme/app"});
                self.bodies.push(Bytes::from(event.to_string()));
            }
        }
        let salts: Vec<[u8; 16]> = numbers.iter().map(|_| self.random.random()).collect();
        let records = numbers.iter().zip(salts).map(|(number, salt)| {
            let envelope = self.envelope("gen", SourceType::Json, Authenticity::Bearer, format!("id:{number}"));
            let body = self.bodies[usize::try_from(*number).unwrap()].clone();
            Bytes::from(Record { envelope, salt, body }.encode().unwrap())
        });
        let leaves: Vec<Bytes> = records.collect();
        self.sent.extend(&numbers);
        if let Ok(range) = self.log.append(leaves).await {
            self.acked.extend(numbers.into_iter().zip(range));
        }
    }

    async fn tick(&mut self) {
        let envelope = self.envelope(
            OWN_SOURCE,
            SourceType::Pipeproof,
            Authenticity::Own,
            format!("id:tick-{}", self.now.as_micros()),
        );
        let body = Bytes::from(serde_json::to_vec(&Control::Tick {}).unwrap());
        let record = Record { envelope, salt: self.random.random(), body };
        drop(self.log.append(vec![Bytes::from(record.encode().unwrap())]).await);
    }

    fn decoded(index: u64, leaf: &Bytes) -> Decoded {
        let record = Record::decode(leaf).unwrap();
        let events = decode(Position { partition: 0, index }, &record)
            .map_err(|error| Undecoded { reason: error.to_string(), leaks: Vec::new() });
        Decoded { index, record, events }
    }

    /// A batch, cut anywhere; its commit may be lost with the process, or land without being heard of.
    async fn detect(&mut self) {
        let most = self.random.random_range(1..20);
        let leaves = self.log.read(self.detector.position(), most, usize::MAX).unwrap();
        if leaves.is_empty() {
            return;
        }
        for (index, leaf) in &leaves {
            let first = self.seen.entry(*index).or_insert_with(|| leaf.clone());
            assert_eq!(first, leaf, "record {index} reads as it always did");
        }
        let batch: Vec<Decoded> = leaves.iter().map(|(index, leaf)| Self::decoded(*index, leaf)).collect();
        // The reference holds all of them: where an item is remembered decides nothing.
        self.detector.hand_over_items_at(ITEMS_HELD);
        let known = self.detector.items_to_look_up(&batch);
        let known: Known = known.filter_map(|item| Some((item, *self.store.items.get(&item)?))).collect();
        let commit = self.detector.apply_knowing(batch, known, self.now).unwrap();
        match self.random.random_range(0..20) {
            0 => self.restart(false).await,
            1 => {
                self.store.commit(&commit);
                self.restart(true).await;
            }
            _ => self.store.commit(&commit),
        }
    }

    fn snapshot(&mut self) {
        let state = self.detector.snapshot().unwrap();
        self.store.restored.snapshot = Some((self.detector.position(), state));
        self.store.restored.deltas.clear();
    }

    /// An append to the lake, cut anywhere.
    fn archive(&mut self) {
        let most = self.random.random_range(1..30);
        let target = self.store.restored.position;
        let leaves = self.log.read(self.lake.position, most, usize::MAX).unwrap();
        for (index, leaf) in leaves.into_iter().filter(|(index, _)| *index < target) {
            let record = Record::decode(&leaf).unwrap();
            if let Some(number) = record.envelope.item.strip_prefix("id:").and_then(|text| text.parse().ok())
                && !self.store.duplicates.contains(&index)
            {
                *self.lake.items.entry(number).or_default() += 1;
            }
            self.lake.position = index + 1;
        }
    }

    async fn heal(&mut self) {
        self.disk.mend();
        // Fails when the power goes meanwhile.
        drop(self.log.try_heal().await);
    }

    /// The process ends, with or without the machine, and starts again.
    async fn restart(&mut self, power: bool) {
        self.log.clone().close().await;
        if power {
            self.disk.power_cut();
        } else {
            self.disk.mend();
            if self.disk.is_dead() {
                self.disk.power_cut();
            }
        }
        let known = self.store.restored.position.max(self.lake.position);
        let knowing = Knowing { durable: known, ..Knowing::default() };
        let opened = Log::open_on(Arc::new(self.disk.clone()), knowing, options());
        let opened = match opened {
            // The power may go while it opens.
            Err(_) if self.disk.is_dead() => {
                self.disk.power_cut();
                Log::open_on(Arc::new(self.disk.clone()), knowing, options())
            }
            other => other,
        };
        let Opened { log, report } = opened.unwrap_or_else(|error| panic!("the log does not open: {error}"));
        assert!(report.quarantined.is_empty(), "nothing is damaged: {report:?}");
        self.log = log;
        self.detector = Detector::restore(Arc::clone(&self.plan), 0, &self.store.restored).unwrap();
    }

    fn check(&self) {
        let durable = *self.log.durable().borrow();
        let positions = Positions {
            retired: self.log.first(),
            archived: self.lake.position,
            detected: self.store.restored.position,
            leaves: self.log.leaves(),
            durable,
        };
        let violated: Vec<_> = positions.violated().collect();
        assert!(violated.is_empty(), "{violated:?} in {positions:?}");
        assert!(self.log.root(durable).is_some(), "the tree is whole");
        let lost: Vec<_> = self.acked.iter().filter(|(_, index)| **index >= durable).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }

    /// All faults end, everything is read, and all of it is compared with one process that reads the log once.
    async fn end(mut self) -> Outcome {
        self.restart(true).await;
        self.heal().await;
        self.tick().await;
        let durable = *self.log.durable().borrow();
        while self.lake.position < durable {
            self.detect().await;
            self.archive();
        }
        self.check();
        assert_eq!(self.seen.len() as u64, durable, "every record was read");
        let mut reference = Detector::new(Arc::clone(&self.plan), 0);
        let all = self.seen.iter().map(|(index, leaf)| Self::decoded(*index, leaf)).collect();
        let commit = reference.apply(all, self.now).unwrap();
        let expected: BTreeMap<_, _> = commit.findings.iter().map(|finding| (finding.id.clone(), 1)).collect();
        assert_eq!(self.store.findings, expected, "findings are those of one process");
        let acked = self.acked.keys().copied().collect();
        let balance = Balance::of(&self.sent, &acked, &self.lake.items);
        assert_eq!(balance, Balance::default());
        let mut digest = Sha256::new();
        digest.update(self.log.root(durable).unwrap());
        digest.update(format!("{:?}{:?}{:?}", self.store.findings, self.acked, self.lake.items));
        self.log.clone().close().await;
        Outcome {
            sent: self.sent.len() as u64,
            acked: self.acked.len() as u64,
            stored: self.lake.items.len() as u64,
            evaluated: durable,
            findings: expected.len() as u64,
            digest: digest.finalize().into(),
        }
    }
}
