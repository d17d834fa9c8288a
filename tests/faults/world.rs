//! One data folder with everything around it, and the comparison at the end: what was sent against what is stored, found and
//! delivered, and all of it against a single process that evaluates what was sent from a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use pipeproof_engine::invariant::Balance;
use pipeproof_record::lake::{Skip, Snapshot};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::generator::{CORRELATED, Generator, RULES, SINGLE};
use crate::process::{PATIENCE, Refused, Server, output, program, wait};
use crate::receiver::{Manner, Receiver, about_finding, about_step};
use crate::row::Row;

/// 24 bytes, base64.
pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u";
/// Seconds after which detection has decided what it held back for events that come late: a minute, and ticks.
const DECIDED_AFTER: i64 = 75;

/// What of the findings is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    All,
    /// Findings of single events: the server's clock and the senders' part, and with them what counts as late.
    Single,
}

/// A data folder, its generator and its receiver.
pub(crate) struct World {
    folder: TempDir,
    pub(crate) data: PathBuf,
    /// Another release of the program that is to be started.
    pub(crate) release: Option<PathBuf>,
    pub(crate) generator: Arc<Generator>,
    pub(crate) receiver: Option<(Receiver, String)>,
    /// Sources besides the generator's: lines of the configuration.
    pub(crate) sources: String,
    pub(crate) archive_every: &'static str,
    /// Added to the configuration.
    pub(crate) extra: String,
    pub(crate) env: Vec<(&'static str, String)>,
    pub(crate) compared: Compared,
    /// Another target never takes anything.
    pub(crate) has_hole: bool,
    /// Seconds by which the server's clock is ahead of the machine's.
    ahead: AtomicI64,
    began: Instant,
    pub(crate) slowest_start: Duration,
}

/// A finding, whatever process made it: rule, group, and the numbers of the events it cites.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    rule: String,
    key: BTreeMap<String, String>,
    numbers: Vec<u64>,
}

/// What the lake holds of the generator's source.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// How often each number is there.
    pub(crate) times: BTreeMap<u64, u64>,
    /// Number of the event at each position of the log.
    at: BTreeMap<u64, u64>,
    /// Positions of what is not, byte for byte, what the ledger says went out.
    altered: Vec<u64>,
}

/// Records of one question to the lake, so that none takes longer than a question may.
const SUMMED: usize = 1_000_000;

impl World {
    pub(crate) fn new() -> Self {
        Self::on(TempDir::new().unwrap())
    }

    /// In a folder of the caller's choice, such as a small file system.
    pub(crate) fn on(folder: TempDir) -> Self {
        let data = folder.path().join("data");
        Self::at(folder, data)
    }

    /// With the data elsewhere than ledger and rules.
    pub(crate) fn at(folder: TempDir, data: PathBuf) -> Self {
        // The reference's stay as they are, whatever a run does to the server's.
        for rules in ["rules", "reference"].map(|name| folder.path().join(name)) {
            std::fs::create_dir_all(&rules).unwrap();
            for (number, rule) in RULES.split("---\n").enumerate() {
                std::fs::write(rules.join(format!("rule{number}.yml")), rule).unwrap();
            }
        }
        let generator = Arc::new(Generator::new(&folder.path().join("ledger"), 0));
        let clock = folder.path().join("clock").display().to_string();
        let world = Self {
            folder,
            data,
            release: None,
            generator,
            receiver: None,
            sources: String::new(),
            archive_every: "1s",
            extra: String::new(),
            env: vec![("PIPEPROOF_CLOCK", clock), ("FAULTS_SECRET", SECRET.to_owned())],
            compared: Compared::All,
            has_hole: false,
            ahead: AtomicI64::new(0),
            began: Instant::now(),
            slowest_start: Duration::ZERO,
        };
        world.move_clock(0);
        world
    }

    /// With events of about this size.
    pub(crate) fn padded(mut self, bytes: usize) -> Self {
        self.generator = Arc::new(Generator::new(&self.folder.path().join("ledger"), bytes));
        self
    }

    /// With events of about this size, of which one in so many is found.
    pub(crate) fn padded_finding_one_in(mut self, bytes: usize, found: u64) -> Self {
        let generator = Generator::new(&self.folder.path().join("ledger"), bytes).finding_one_in(found);
        self.generator = Arc::new(generator);
        self
    }

    pub(crate) async fn with_receiver(mut self, manner: Manner) -> Self {
        self.receiver = Some(Receiver::start(manner, SECRET).await);
        self
    }

    fn clock(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// From now on the program's clock, and nobody else's, is so many seconds ahead of the machine's: so much has passed.
    pub(crate) fn move_clock(&self, seconds: i64) {
        self.set_clock(seconds, "");
    }

    /// The program's clock is so many seconds ahead, and nothing has passed.
    pub(crate) fn mislead_clock(&self, seconds: i64) {
        self.set_clock(seconds, " wrong");
    }

    fn set_clock(&self, seconds: i64, how: &str) {
        self.ahead.store(seconds, Ordering::SeqCst);
        // Whole or not at all: the program reads it at any moment.
        let next = self.clock().with_extension("next");
        std::fs::write(&next, format!("{seconds}{how}")).unwrap();
        std::fs::rename(next, self.clock()).unwrap();
    }

    /// Time passes, for the program and for whoever sends to it.
    fn pass(&self, seconds: i64) {
        self.generator.pass(seconds);
        self.move_clock(self.ahead.load(Ordering::SeqCst) + seconds);
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn config(&self) -> String {
        let rules = self.folder.path().join("rules");
        let mut config = format!(
            "version: 1\narchive_every: {}\nrules: {{dir: {}, shipped: false}}\nsources:\n  - {{name: gen, type: json}}\n{}",
            self.archive_every,
            rules.display(),
            self.sources,
        );
        if let Some((_, url)) = &self.receiver {
            config.push_str(&format!(
                "targets:\n  - {{name: oncall, url: '{url}', secrets: [{{env: FAULTS_SECRET}}], allow_private: true}}\n"
            ));
        }
        config + &self.extra
    }

    /// Starts the server.
    pub(crate) fn start(&mut self) -> Result<Server, Refused> {
        let server = Server::start(self.release.as_deref(), &self.data, &self.config(), &self.env)?;
        self.slowest_start = self.slowest_start.max(server.started_in);
        Ok(server)
    }

    /// Starts a server that must start.
    pub(crate) fn server(&mut self) -> Server {
        self.start().unwrap_or_else(|refused| panic!("the server does not start: {refused:?}"))
    }

    /// Starts the server and kills it after so long, ready or not.
    pub(crate) async fn killed_starting(&self, after: Duration) {
        crate::process::killed_starting(&self.data, &self.config(), &self.env, after).await;
    }

    /// Everything of the generator's source that the lake holds, read without the server, and compared with the ledger.
    pub(crate) async fn stored(&self) -> Stored {
        let lake = Snapshot::read_only(&self.data.join("lake")).await.unwrap();
        let generator = Arc::clone(&self.generator);
        let read = move || {
            let mut stored = Stored::default();
            for record in lake.records(0, &Skip::default()).unwrap() {
                let Ok(record) = record else {
                    // What is behind it cannot be read either, and counts as lost.
                    stored.altered.push(u64::MAX);
                    break;
                };
                let envelope: Value = serde_json::from_str(&record.envelope).unwrap();
                if envelope["source"] != "gen" {
                    continue;
                }
                let body: Value = serde_json::from_slice(&record.body).unwrap_or_default();
                let number = body["ci.run_id"].as_str().and_then(|text| text.parse().ok());
                match number.filter(|number| generator.is_text_of(*number, &record.body)) {
                    None => stored.altered.push(record.index),
                    Some(number) => {
                        *stored.times.entry(number).or_default() += 1;
                        stored.at.insert(record.index, number);
                    }
                }
            }
            stored
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// Has everything that was not acknowledged sent again, lets pass the time in which detection waits for what comes late, and
    /// waits until all of it is evaluated and in the lake.
    pub(crate) async fn decided(&self, row: &mut Row, server: &Server) {
        row.expect(self.generator.resend(server).await, "what was sent again was not taken");
        self.pass(DECIDED_AFTER);
        // The tick under way may be of before.
        let ticks = server.number("durable").await + 2;
        row.expect(
            wait(PATIENCE, || async { server.number("durable").await >= ticks }).await,
            "the clock stands still",
        );
        row.expect(server.settled().await, "not everything durable was evaluated and archived in time");
    }

    /// Settles what is under way and writes down what came of everything.
    pub(crate) async fn account(&self, row: &mut Row, server: &Server) {
        self.decided(row, server).await;
        let (sent, acknowledged) = (self.generator.sent(), self.generator.acknowledged());
        let stored = self.stored().await;
        let balance = Balance::of(&sent, &acknowledged, &stored.times);
        row.counted.events = true;
        row.sent = sent.len() as u64;
        row.acked = acknowledged.len() as u64;
        row.again = self.generator.again();
        row.stored = stored.times.len() as u64;
        row.lost_acked = balance.lost.len() as u64;
        row.rpo_events = row.lost_acked;
        row.dup_stored = balance.twice.len() as u64;
        row.evaluated = server.number("detected").await;
        row.expect(balance.lost.is_empty(), format!("lost: {:?}", first(&balance.lost)));
        row.expect(balance.twice.is_empty(), format!("twice: {:?}", first(&balance.twice)));
        row.expect(balance.unknown.is_empty(), "an event that nobody sent");
        row.expect(stored.altered.is_empty(), format!("stored otherwise than sent, at {:?}", first(&stored.altered)));
        let count = server.rows("SELECT count(*) FROM events WHERE source = 'gen'").await;
        let there = stored.times.values().sum::<u64>();
        row.expect(count[0][0] == json!(there), format!("a query counts {}, the lake holds {there}", count[0][0]));
        let sent: Vec<u64> = sent.into_iter().collect();
        self.account_conclusions(row, server, &stored, &sent).await;
    }

    /// As [`World::account`], for more events than can be held one by one: the lake is asked for how many there are and for sums over
    /// their numbers, all of which must have been acknowledged. Findings and messages are compared one by one all the same; the reference
    /// is shown the events that a rule can find.
    pub(crate) async fn account_in_sums(&self, row: &mut Row, server: &Server) {
        self.decided(row, server).await;
        let count = self.generator.count();
        let (end, mut stored) = (server.number("durable").await, Stored::default());
        let mut sums = [0_u64; 3];
        for from in (0..end).step_by(SUMMED) {
            let of = format!(
                r#"FROM events WHERE source = 'gen' AND sub = 0 AND "index" >= {from} AND "index" < {}"#,
                from + SUMMED as u64
            );
            let number = "CAST(ci_run_id AS BIGINT)";
            let summed = format!("SELECT count(*), sum({number}), sum({number} * 7919 % 1000003) {of}");
            for (sum, more) in sums.iter_mut().zip(&server.rows(&summed).await[0]) {
                *sum += more.as_u64().unwrap_or_default();
            }
            let found = format!(r#"SELECT "index", {number} {of} AND action = 'secret.read' ORDER BY 1"#);
            let found = server.rows(&found).await;
            stored.at.extend(found.iter().filter_map(|row| Some((row[0].as_u64()?, row[1].as_u64()?))));
        }
        let expected = (0..count).fold([count, 0, 0], |[count, sum, mixed], number| {
            [count, sum + number, mixed + number * 7_919 % 1_000_003]
        });
        row.counted.events = true;
        row.sent = count;
        row.acked = self.generator.acknowledged().len() as u64;
        row.again = self.generator.again();
        row.stored = sums[0];
        row.lost_acked = count.saturating_sub(sums[0]);
        row.dup_stored = sums[0].saturating_sub(count);
        row.evaluated = server.number("detected").await;
        row.expect(row.acked == count, "not everything was acknowledged");
        row.expect(sums == expected, format!("stored {sums:?}, sent {expected:?}: count, sum of numbers, mixed sum"));
        let found: Vec<u64> = (0..count).filter(|number| self.generator.is_found(*number)).collect();
        self.account_conclusions(row, server, &stored, &found).await;
    }

    /// Compares findings and messages with the reference over these events, and what the server says of itself.
    async fn account_conclusions(&self, row: &mut Row, server: &Server, stored: &Stored, of: &[u64]) {
        let required = self.account_findings(row, server, stored, of).await;
        if let Some((receiver, _)) = &self.receiver {
            self.account_alerts(row, server, receiver, &required).await;
        }
        let violations = server.violations().await;
        row.expect(violations.is_empty(), format!("the server counted {violations:?}"));
        row.recovery_s = row.recovery_s.max(self.slowest_start.as_secs_f64());
        row.wall_s = self.began.elapsed().as_secs_f64();
    }

    /// Compares every finding of every rule of the generator's with the reference. Returns what must be told: what the reference finds,
    /// and what rules of the run's own found.
    async fn account_findings(&self, row: &mut Row, server: &Server, stored: &Stored, of: &[u64]) -> BTreeSet<String> {
        let expected = self.reference(of);
        let lake = Snapshot::read_only(&self.data.join("lake")).await.unwrap();
        let findings =
            tokio::task::spawn_blocking(move || lake.findings().unwrap().map(Result::unwrap).collect::<Vec<_>>());
        let findings = findings.await.unwrap();
        let mut required = BTreeSet::new();
        let mut found: BTreeMap<Found, u64> = BTreeMap::new();
        let mut ids: BTreeMap<String, u64> = BTreeMap::new();
        for finding in &findings {
            *ids.entry(finding.id.clone()).or_default() += 1;
            let rules = CORRELATED.iter().chain([&SINGLE]);
            if !rules.into_iter().any(|rule| *rule == finding.rule_id) {
                required.insert(about_finding(&finding.id));
                continue;
            }
            let index = |id: &str| id.split('-').nth(1).and_then(|index| index.parse::<u64>().ok());
            // What cites an event that is not stored matches nothing that is expected.
            let number = |id: &str| index(id).and_then(|index| stored.at.get(&index)).copied().unwrap_or(u64::MAX);
            let mut numbers: Vec<u64> = finding.events.iter().map(|event| number(&event.id)).collect();
            numbers.sort_unstable();
            let one = Found { rule: finding.rule_id.clone(), key: finding.key.clone(), numbers };
            // One that the reference does not have is told as well, and counted as too many below.
            required.insert(about_finding(&finding.id));
            *found.entry(one).or_default() += 1;
        }
        let is_compared = |one: &Found| self.compared == Compared::All || one.rule == SINGLE;
        let lost: Vec<&Found> = expected.iter().filter(|one| is_compared(one) && !found.contains_key(one)).collect();
        let more: Vec<&Found> = found.keys().filter(|one| is_compared(one) && !expected.contains(one)).collect();
        let twice =
            found.values().filter(|times| **times > 1).count() + ids.values().filter(|times| **times > 1).count();
        row.counted.findings = true;
        row.findings_expected = expected.iter().filter(|one| is_compared(one)).count() as u64;
        row.findings_lost = lost.len() as u64;
        row.findings_dup = (more.len() + twice) as u64;
        row.correlated = expected.iter().filter(|one| is_compared(one) && one.rule != SINGLE).count() as u64;
        row.expect(lost.is_empty(), format!("not found: {:?}", first(&lost)));
        row.expect(more.is_empty(), format!("found and not by the reference: {:?}", first(&more)));
        row.expect(twice == 0, format!("{twice} findings are there twice"));
        // What was not found cannot have been told either.
        required.extend(lost.iter().map(|one| format!("{one:?}")));
        let counted = server.rows("SELECT count(*) FROM findings").await;
        let all = findings.len();
        row.expect(counted[0][0] == json!(all), format!("a query counts {} findings of {all}", counted[0][0]));
        required
    }

    /// What a single process finds in a file of these events. What came later than it may takes part in no correlation.
    fn reference(&self, all: &[u64]) -> BTreeSet<Found> {
        let late = self.generator.late();
        let mut found = self.evaluated(all);
        if !late.is_empty() {
            found.retain(|one| one.rule == SINGLE);
            let in_time: Vec<u64> = all.iter().copied().filter(|number| !late.contains(number)).collect();
            found.extend(self.evaluated(&in_time).into_iter().filter(|one| one.rule != SINGLE));
        }
        found
    }

    fn evaluated(&self, numbers: &[u64]) -> BTreeSet<Found> {
        let texts: Vec<String> = numbers.iter().filter_map(|number| self.generator.text_of(*number)).collect();
        let file = self.folder.path().join("reference.ndjson");
        std::fs::write(&file, texts.join("\n")).unwrap();
        let rules = self.folder.path().join("reference");
        let output =
            output(program().args(["eval", "--format", "jsonl", "--source", "json", "--rules"]).args([&rules, &file]));
        assert!(output.status.success(), "the reference ends: {}", String::from_utf8_lossy(&output.stderr));
        let number = |event: &Value| {
            let line = usize::try_from(event["line"].as_u64().unwrap()).unwrap();
            numbers[line - 1]
        };
        let one = |line: &str| {
            let finding: Value = serde_json::from_str(line).unwrap();
            let mut numbers: Vec<u64> = finding["events"].as_array().unwrap().iter().map(number).collect();
            numbers.sort_unstable();
            let key = serde_json::from_value(finding["key"].clone()).unwrap();
            Found { rule: finding["rule"]["id"].as_str().unwrap().to_owned(), key, numbers }
        };
        String::from_utf8(output.stdout).unwrap().lines().map(one).collect()
    }

    /// What must be told against what the receiver took: every finding, and every step of an incident that a rule made.
    async fn account_alerts(&self, row: &mut Row, server: &Server, receiver: &Receiver, findings: &BTreeSet<String>) {
        let steps = server
            .rows("SELECT incident, number FROM incident_steps WHERE verb NOT IN ('open', 'join') ORDER BY 1, 2")
            .await;
        let about = |step: &Vec<Value>| Some(about_step(step.first()?.as_str()?, step.get(1)?.as_u64()?));
        let required: BTreeSet<String> = findings.iter().cloned().chain(steps.iter().filter_map(about)).collect();
        let waits = async || {
            let status = server.get("/v1/status").await.unwrap_or_default();
            status["counts"]["deliveries_queued"] != json!(0) || status["counts"]["deliveries_retry"] != json!(0)
        };
        let delivered =
            wait(PATIENCE, || async { (self.has_hole || !waits().await) && receiver.taken().is_superset(&required) })
                .await;
        let taken = receiver.taken();
        row.counted.alerts = true;
        row.alerts_required = required.len() as u64;
        row.alerts_delivered = required.intersection(&taken).count() as u64;
        row.alerts_lost = row.alerts_required - row.alerts_delivered;
        row.alerts_dup_wire = receiver.repeated();
        row.alerts_dup_key = receiver.same_under_other_keys();
        let lost: Vec<_> = required.difference(&taken).collect();
        row.expect(delivered, "messages still wait to be delivered");
        row.expect(lost.is_empty(), format!("never told: {:?}", first(&lost)));
        let unknown: Vec<_> = taken.difference(&required).collect();
        row.expect(unknown.is_empty(), format!("told and not found: {:?}", first(&unknown)));
        row.expect(row.alerts_dup_key == 0, "alerts came under two keys");
        let invalid = receiver.invalid();
        row.expect(invalid.is_empty(), format!("no receiver may believe: {:?}", first(&invalid)));
    }

    /// A file of rules that the server has and the reference does not.
    pub(crate) fn add_rule(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join("rules").join(name);
        std::fs::write(&file, text).unwrap();
        file
    }
}

/// The first few, for a note.
fn first<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(3)]
}
