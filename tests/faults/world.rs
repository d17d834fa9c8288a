//! One data folder with everything around it, and the comparison at the end: what was sent against what is stored, found and
//! delivered, and all of it against a single process that evaluates the same events from a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipeproof_engine::invariant::Balance;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::generator::{Generator, RULES};
use crate::process::{PATIENCE, Refused, Server, program, wait};
use crate::receiver::{Manner, Receiver};
use crate::row::Row;

/// 24 bytes, base64.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u";

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
    began: Instant,
    pub(crate) slowest_start: Duration,
}

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
        let rules = folder.path().join("rules");
        std::fs::create_dir_all(&rules).unwrap();
        for (number, rule) in RULES.split("---\n").enumerate() {
            std::fs::write(rules.join(format!("rule{number}.yml")), rule).unwrap();
        }
        let generator = Arc::new(Generator::new(&folder.path().join("ledger"), 0));
        Self {
            folder,
            data,
            release: None,
            generator,
            receiver: None,
            sources: String::new(),
            archive_every: "1s",
            extra: String::new(),
            env: Vec::new(),
            began: Instant::now(),
            slowest_start: Duration::ZERO,
        }
    }

    /// With events of about this size.
    pub(crate) fn padded(mut self, bytes: usize) -> Self {
        self.generator = Arc::new(Generator::new(&self.folder.path().join("ledger"), bytes));
        self
    }

    pub(crate) async fn with_receiver(mut self, manner: Manner) -> Self {
        self.receiver = Some(Receiver::start(manner).await);
        self
    }

    /// With a clock of its own, which [`Self::move_clock`] moves.
    pub(crate) fn with_clock(mut self) -> Self {
        self.move_clock(0);
        self.env.push(("PIPEPROOF_CLOCK", self.clock().display().to_string()));
        self
    }

    fn clock(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// From now on the program's clock is so many seconds ahead of the machine's.
    pub(crate) fn move_clock(&self, seconds: i64) {
        // Whole or not at all: the program reads it at any moment.
        let next = self.clock().with_extension("next");
        std::fs::write(&next, seconds.to_string()).unwrap();
        std::fs::rename(next, self.clock()).unwrap();
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
        let env: Vec<_> = self.env.iter().cloned().chain([("FAULTS_SECRET", SECRET.to_owned())]).collect();
        let server = Server::start(self.release.as_deref(), &self.data, &self.config(), &env)?;
        self.slowest_start = self.slowest_start.max(server.started_in);
        Ok(server)
    }

    /// Starts a server that must start.
    pub(crate) fn server(&mut self) -> Server {
        self.start().unwrap_or_else(|refused| panic!("the server does not start: {refused:?}"))
    }

    /// How often each number is in the lake: asked for in spans, as one query over all of them wants more memory than queries
    /// are given. The last span has no end, so that what was never sent is seen.
    pub(crate) async fn stored(&self, server: &Server) -> BTreeMap<u64, u64> {
        const SPAN: u64 = 50_000;
        let spans = self.generator.sent().len() as u64 / SPAN + 1;
        let mut stored = BTreeMap::new();
        for span in 0..spans {
            let (from, end) = (span * SPAN, if span + 1 < spans { (span + 1) * SPAN } else { i64::MAX as u64 });
            let query = format!(
                "SELECT ci_run_id, count(*) FROM events WHERE source = 'gen' AND TRY_CAST(ci_run_id AS BIGINT) >= {from} \
                 AND TRY_CAST(ci_run_id AS BIGINT) < {end} GROUP BY 1 ORDER BY 1"
            );
            let rows = server.rows(&query).await;
            stored.extend(
                rows.iter().filter_map(|row| Some((row.first()?.as_str()?.parse().ok()?, row.get(1)?.as_u64()?))),
            );
        }
        stored
    }

    /// Settles what is under way and writes down what came of everything.
    pub(crate) async fn account(&self, row: &mut Row, server: &Server) {
        row.expect(server.settled().await, "not everything durable was evaluated and archived in time");
        let (sent, acknowledged) = (self.generator.sent(), self.generator.acknowledged());
        let stored = self.stored(server).await;
        let balance = Balance::of(&sent, &acknowledged, &stored);
        row.sent = sent.len() as u64;
        row.acked = acknowledged.len() as u64;
        row.stored = stored.len() as u64;
        row.lost_acked = balance.lost.len() as u64;
        row.rpo_events = row.lost_acked;
        row.dup_stored = balance.twice.len() as u64;
        row.evaluated = server.number("detected").await;
        row.expect(balance.lost.is_empty(), format!("lost: {:?}", balance.lost.iter().take(5).collect::<Vec<_>>()));
        row.expect(balance.twice.is_empty(), format!("twice: {:?}", balance.twice.iter().take(5).collect::<Vec<_>>()));
        row.expect(balance.unknown.is_empty(), "an event that nobody sent");
        self.account_findings(row, server, &stored).await;
        if let Some((receiver, _)) = &self.receiver {
            account_alerts(row, server, receiver).await;
        }
        let violations = server.violations().await;
        row.expect(violations.is_empty(), format!("the server counted {violations:?}"));
        row.recovery_s = row.recovery_s.max(self.slowest_start.as_secs_f64());
        row.wall_s = self.began.elapsed().as_secs_f64();
    }

    async fn account_findings(&self, row: &mut Row, server: &Server, stored: &BTreeMap<u64, u64>) {
        let expected = self.reference(stored.keys().copied());
        let rows = server.rows("SELECT title, count(*) FROM findings GROUP BY 1 ORDER BY 1").await;
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        for line in &rows {
            let title = line.first().and_then(Value::as_str).unwrap_or_default();
            if let Some(number) = title.strip_prefix("secret read by run ").and_then(|text| text.parse().ok()) {
                found.insert(number, line.get(1).and_then(Value::as_u64).unwrap_or(0));
            }
        }
        row.findings_expected = expected.len() as u64;
        row.findings_lost = expected.iter().filter(|number| !found.contains_key(number)).count() as u64;
        let more = found.keys().filter(|number| !expected.contains(number)).count() as u64;
        row.findings_dup = more + found.values().filter(|times| **times > 1).count() as u64;
        row.expect(row.findings_lost == 0 && row.findings_dup == 0, "findings are not those of the reference");
    }

    /// Numbers of the events that a single process finds in a file of the same events.
    fn reference(&self, stored: impl Iterator<Item = u64>) -> BTreeSet<u64> {
        let numbers: Vec<u64> = stored.collect();
        let texts: Vec<String> = numbers.iter().filter_map(|number| self.generator.text_of(*number)).collect();
        let file = self.folder.path().join("reference.ndjson");
        std::fs::write(&file, texts.join("\n")).unwrap();
        let rules = self.folder.path().join("rules");
        let output = program()
            .args(["eval", "--format", "jsonl", "--source", "json", "--rules"])
            .args([&rules, &file])
            .output()
            .expect("the reference runs");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let single = found.filter(|finding| finding["rule"]["title"] == "A secret was read");
        single
            .filter_map(|finding| {
                let line = finding["events"][0]["line"].as_u64()?;
                numbers.get(usize::try_from(line.checked_sub(1)?).ok()?).copied()
            })
            .collect()
    }
}

async fn account_alerts(row: &mut Row, server: &Server, receiver: &Receiver) {
    let delivered = wait(PATIENCE, || async {
        let counts = server.get("/v1/status").await.unwrap_or_default();
        counts["counts"]["deliveries_queued"] == json!(0) && counts["counts"]["deliveries_retry"] == json!(0)
    })
    .await;
    row.expect(delivered, "messages still wait to be delivered");
    row.alerts_required = server.number("messages").await;
    row.alerts_delivered = receiver.taken().len() as u64;
    row.alerts_lost = row.alerts_required.saturating_sub(row.alerts_delivered);
    row.alerts_dup_wire = receiver.repeated();
    row.alerts_dup_key = receiver.same_under_other_keys();
    row.expect(row.alerts_lost == 0 && row.alerts_dup_key == 0, "alerts were lost, or came under two keys");
}
