//! Builds evidence packs out of the record: pins it, exports what was known, runs the control tests and KPIs over that
//! export alone, and has `reports` prove, seal and sign it. A pack that was sealed for the same request is returned as it is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::Array as _;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use bytes::Bytes;
use pipeproof_engine::control::Control;
use pipeproof_engine::merkle::Hash;
use pipeproof_engine::record::{Position, encode_parts};
use pipeproof_engine::time::Timestamp;
use pipeproof_record::lake::{Snapshot, Table, parquet_bytes};
use pipeproof_record::sql::{Limits, Parameter, Sql};
use pipeproof_record::store::Pack as StoredPack;
use pipeproof_reports::checkpoint::Checkpoint;
use pipeproof_reports::controls::catalogue;
use pipeproof_reports::controls::lake_facts::source_windows;
use pipeproof_reports::controls::outcome::Period as TestPeriod;
use pipeproof_reports::controls::reperform;
use pipeproof_reports::controls::run::{ControlReport, RunRequest, run_all};
use pipeproof_reports::kpi::rows::{from_lake, from_store};
use pipeproof_reports::kpi::{IncidentTimes, KpiReport, KpiRequest, files::pack_files, report};
use pipeproof_reports::pack::{
    self, Omission, PackFile, PackInput, Partition, Period, PreviousPack, RawRecord, RedactedRecord,
};
use pipeproof_reports::seal::SealedCheckpoint;
use pipeproof_reports::verify::{Reperformed, Unpacked};
use serde_json::{Value, json};

use crate::damage;
use crate::node::{NodeError, PARTITION, Shared};
use crate::roles::{SealedTree, seal_now};

/// How far before the period events still matter to a test: what was merged, issued or connected before it began.
pub(crate) const LOOKBACK: Duration = Duration::from_secs(31 * 86_400);
/// How long a build waits for the lake to take in what is there.
const FLUSH: Duration = Duration::from_secs(120);

/// What a pack is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) framework: String,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) as_of: Option<Timestamp>,
}

/// Why a pack is not built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvidenceError {
    #[error("{0}")]
    Request(String),
    #[error(transparent)]
    Node(#[from] NodeError),
}

fn part<E: Into<Box<dyn std::error::Error + Send + Sync>>>(doing: &'static str) -> impl FnOnce(E) -> EvidenceError {
    move |error| EvidenceError::Node(NodeError::part(doing)(error))
}

/// Builds the pack, or returns the one that was sealed for this request.
pub(crate) async fn build(shared: &Arc<Shared>, request: &Request, actor: &str) -> Result<StoredPack, EvidenceError> {
    let _one_at_a_time = shared.evidence.lock().await;
    let now = shared.clock.now();
    let as_of = request.as_of.unwrap_or(now);
    if request.from >= request.to {
        return Err(EvidenceError::Request(format!("the period from {} to {} is empty", request.from, request.to)));
    }
    if as_of > now {
        return Err(EvidenceError::Request(format!("as_of {as_of} is in the future: nothing can be known as of then")));
    }
    let framework = catalogue::framework(&request.framework).map_err(part("read the frameworks"))?;
    let framework = framework.ok_or_else(|| {
        EvidenceError::Request(format!("unknown framework `{}` (known: soc2, iso27001)", request.framework))
    })?;
    let name = format!("{}_{}_{}_{}", request.framework, short(request.from), short(request.to), short(as_of));
    if let Some(sealed) = shared.store.pack(&name).await.map_err(part("look for a sealed pack"))? {
        return Ok(sealed);
    }
    if !shared.flush_lake(FLUSH).await {
        return Err(EvidenceError::Request(
            "the lake has not taken in what was received: try again in a moment".to_owned(),
        ));
    }
    let export = Export::make(shared, request, as_of).await?;
    let period = TestPeriod { from: request.from, to: request.to, as_of };
    let sealed = checkpoint_over(shared, export.records_end).await?;
    let controls = catalogue::controls().map_err(part("read the control tests"))?;
    let run = RunRequest {
        period,
        parameters: BTreeMap::new(),
        versions: versions(shared),
        checkpoints: vec![json!({ "partition": PARTITION, "size": sealed.size, "root": hex::encode(sealed.root) })],
        windows: source_windows(&export.sql, &period).await.map_err(part("read the source windows"))?,
    };
    let tests =
        run_all(&export.sql, &framework.select(&controls), &run).await.map_err(part("run the control tests"))?;
    let incidents = from_lake(&export.sql, &period).await.map_err(part("read the incidents"))?;
    let kpis = report(&incidents, &KpiRequest::new(request.from, request.to, as_of));
    let ControlReport { results, files } = tests;
    let mut all = files;
    all.extend(pack_files(&kpis, &incidents).map_err(part("write the KPIs"))?);
    all.extend(export.files);
    let previous = shared.store.packs().await.map_err(part("look for the pack before"))?;
    let previous = previous.iter().max_by_key(|pack| pack.created).map(as_previous);
    let mut omissions = vec![Omission {
        what: format!("events received more than {} days before the period", LOOKBACK.as_secs() / 86_400),
        reason: "the tests look no further back; the lake has them".to_owned(),
    }];
    omissions.extend(export.omissions);
    let input = PackInput {
        name: name.clone(),
        framework: request.framework.clone(),
        organisation: format!("the operator of pipeproof instance {}", shared.keys.instance().id()),
        period: Period { start: request.from, end: request.to },
        as_of,
        scope: "every source connected to this instance".to_owned(),
        versions: versions(shared),
        results: serde_json::to_value(&results).map_err(part("write the results"))?,
        files: all,
        records: export.records,
        redacted: export.redacted,
        omissions,
        previous,
    };
    let partitions = [Partition { checkpoint: &sealed, start: None, tree: &shared.log }];
    let pack = pack::build(&input, &shared.keys, &SealedTree(&shared.seal), &partitions, now)
        .await
        .map_err(part("build the pack"))?;
    let path = shared.data.join("packs").join(format!("{name}.zip"));
    write_whole(&path, &pack.zip).map_err(part("write the pack"))?;
    let control = Control::PackSealed { pack: name.clone(), digest: pack.digest.clone(), actor: actor.to_owned() };
    shared.control(control).await.map_err(part("write to the log"))?;
    let stored = StoredPack {
        pack: name,
        framework: request.framework.clone(),
        from: request.from,
        to: request.to,
        as_of,
        path: path.display().to_string(),
        digest: pack.digest,
        created: now,
        body: json!({ "seal_size": pack.seal_size, "results": results, "bytes": pack.zip.len() }),
    };
    shared.store.add_pack(&stored).await.map_err(part("keep the pack"))?;
    Ok(stored)
}

fn as_previous(pack: &StoredPack) -> PreviousPack {
    let seal_size = pack.body.get("seal_size").and_then(Value::as_u64).unwrap_or(0);
    PreviousPack { pack: pack.pack.clone(), digest: pack.digest.clone(), seal_size }
}

/// A time in a file name: `20260101` at midnight, `20260101T101500Z` otherwise, with microseconds if there are any.
fn short(time: Timestamp) -> String {
    let text: String = time.to_string().chars().filter(|char| !matches!(char, '-' | ':' | '.')).collect();
    text.strip_suffix("T000000Z").map_or_else(|| text.clone(), str::to_owned)
}

fn versions(shared: &Shared) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("pipeproof".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("rule_set".to_owned(), shared.rules.head().digest.clone()),
    ])
}

/// What was known, as Parquet files of the lake's own tables, and a session over exactly these files.
struct Export {
    files: Vec<PackFile>,
    records: Vec<RawRecord>,
    /// Records among them without payload.
    redacted: Vec<RedactedRecord>,
    /// What is said of those.
    omissions: Vec<Omission>,
    /// Index after the last record in it.
    records_end: u64,
    sql: Sql,
    /// Holds the files as long as the session reads them.
    _folder: tempfile::TempDir,
}

impl Export {
    async fn make(shared: &Arc<Shared>, request: &Request, as_of: Timestamp) -> Result<Self, EvidenceError> {
        let snapshot = shared.lake.pin();
        let sql = Sql::over(&snapshot, Some(as_of), Limits::EVIDENCE).await.map_err(part("open the lake"))?;
        let since = request.from.minus(LOOKBACK);
        let folder = tempfile::tempdir_in(&shared.data).map_err(part("make a folder for the export"))?;
        let mut files = Vec::new();
        let (mut records, mut records_end, mut without) = (Vec::new(), 0, BTreeMap::new());
        for &table in Table::ALL {
            let query = if table == Table::Events {
                r#"SELECT * FROM events WHERE received >= :SINCE ORDER BY "partition", "index", sub"#.to_owned()
            } else {
                format!("SELECT * FROM {} ORDER BY seq", table.name())
            };
            let parameters = [("SINCE", Parameter::Time(since))];
            let parameters = if table == Table::Events { &parameters[..] } else { &[] };
            let answer = sql.query(&query, parameters).await.map_err(part("export a table of the lake"))?;
            if table == Table::Events {
                (records, records_end) = raw_records(&answer)?;
                without = redacted(&answer)?;
            }
            let bytes = parquet_bytes(&table.schema(), answer.batches()).map_err(part("write a table as Parquet"))?;
            fs::write(folder.path().join(format!("{}.parquet", table.name())), &bytes)
                .map_err(part("write a table as Parquet"))?;
            let path = format!("60_raw/{}.parquet", table.name());
            files.push(PackFile::new(
                path,
                bytes,
                format!("`{}` as it was known: what every query reads", table.name()),
            ));
        }
        let sql =
            Sql::over_parquet(folder.path(), Some(as_of), Limits::EVIDENCE).await.map_err(part("open the export"))?;
        let mut omissions = omissions(shared, &without);
        let first = records.iter().map(|record| record.position.index).chain(without.keys().copied()).min();
        let within = first.map_or(0..0, |first| first..records_end);
        omissions.extend(gaps(shared, &snapshot, within, (since, as_of)).await?);
        let redacted = without.into_iter().map(|(index, (leaf_hash, _))| RedactedRecord {
            position: Position { partition: PARTITION, index },
            leaf_hash,
        });
        let redacted = redacted.collect();
        Ok(Self { files, records, redacted, omissions, records_end, sql, _folder: folder })
    }
}

/// Why the payload of these records was dropped, for whoever reads the pack.
fn omissions(shared: &Shared, redacted: &BTreeMap<u64, (Hash, String)>) -> Vec<Omission> {
    let registry = shared.registry();
    let said = |(index, (_, note)): (&u64, &(Hash, String))| {
        let reason = registry.redaction_of(*index).map_or_else(
            || note.clone(),
            |(order, known)| {
                let approved = known.order.approved_by.as_deref().unwrap_or("nobody");
                format!("{}; approved by {approved}; reason: {}", known.note(order), known.order.reason)
            },
        );
        let position = Position { partition: PARTITION, index: *index };
        Omission { what: format!("the payload of record {position}, whose leaf hash is proved"), reason }
    };
    redacted.iter().map(said).collect()
}

/// Records that should be among those of the export and are held nowhere: those that are on record as lost to damage, and any others
/// that are missing between the first and the last.
async fn gaps(
    shared: &Shared,
    lake: &Snapshot,
    within: Range<u64>,
    (since, as_of): (Timestamp, Timestamp),
) -> Result<Vec<Omission>, EvidenceError> {
    let damaged = shared.registry().damaged.get(damage::LOG).cloned().unwrap_or_default();
    let known = damaged.lost.iter().filter(|(lost, at)| *at <= as_of && lost.to >= since && lost.from <= as_of);
    let mut gaps: Vec<Omission> = known
        .map(|(lost, at)| Omission {
            what: format!("{} of the log", damage::named(lost.first, lost.end)),
            reason: format!(
                "damaged on disk and held nowhere else, as was found at {at}: whatever they said is lost; they were received from {} to \
                 {}, and every window of a source that touches this time is a gap",
                lost.from, lost.to
            ),
        })
        .collect();
    // As of any time: a record at the edge of the export may have been received before its neighbours.
    let whole = Sql::over(lake, None, Limits::EVIDENCE).await.map_err(part("open the lake"))?;
    let held = damage::in_lake(&whole, within.start, within.end).await?;
    let repeated = shared.store.duplicate_indexes(PARTITION, within.clone()).await;
    let repeated = repeated.map_err(part("read which records repeat others"))?;
    // Before this one nobody knows any more which records repeated others. Asked last: what is forgotten meanwhile is no gap.
    let forgotten = shared.store.forgotten_duplicates(PARTITION).await;
    let below = forgotten.map_err(part("read which records repeat others"))?.below;
    let known = within.start.max(below)..within.end;
    let missing = known.filter(|index| !held.contains(index) && !repeated.contains(index));
    let told: Vec<(u64, u64)> = damaged.lost.iter().map(|(lost, _)| (lost.first, lost.end)).collect();
    let untold = damage::ranges_of(missing, u64::MAX).into_iter().flat_map(|range| damage::without(range, &told));
    gaps.extend(untold.map(|(first, end)| Omission {
        what: format!("{} of the log", damage::named(first, end)),
        reason: "the lake does not have them, and nothing on record says why".to_owned(),
    }));
    Ok(gaps)
}

/// Records without payload, with their leaf hashes and what stands there instead.
pub(crate) fn redacted(answer: &pipeproof_record::sql::Answer) -> Result<BTreeMap<u64, (Hash, String)>, EvidenceError> {
    let missing = || part("read exported events")("a column of `events` is not there");
    let mut found = BTreeMap::new();
    for batch in answer.batches() {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(missing);
        let indexes = column("index")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
        let hashes = column("leaf_hash")?.as_binary_opt::<i32>().ok_or_else(missing)?;
        let notes = column("redacted")?.as_string_opt::<i32>().ok_or_else(missing)?;
        for row in (0..batch.num_rows()).filter(|row| notes.is_valid(*row)) {
            let hash = Hash::try_from(hashes.value(row)).map_err(part("read the leaf hash of a redacted record"))?;
            found.insert(u64::try_from(indexes.value(row)).unwrap_or(0), (hash, notes.value(row).to_owned()));
        }
    }
    Ok(found)
}

/// The records of exported events, and the index after the last.
pub(crate) fn raw_records(answer: &pipeproof_record::sql::Answer) -> Result<(Vec<RawRecord>, u64), EvidenceError> {
    let missing = || part("read exported events")("a column of `events` is not there");
    let mut records = Vec::new();
    let mut end = 0;
    for batch in answer.batches() {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(missing);
        let partitions = column("partition")?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?;
        let indexes = column("index")?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
        let envelopes = column("envelope")?.as_string_opt::<i32>().ok_or_else(missing)?;
        let salts = column("salt")?.as_binary_opt::<i32>().ok_or_else(missing)?;
        let bodies = column("body")?.as_binary_opt::<i32>().ok_or_else(missing)?;
        for row in 0..batch.num_rows() {
            let index = u64::try_from(indexes.value(row)).unwrap_or(0);
            end = end.max(index + 1);
            let Ok(salt) = <[u8; 16]>::try_from(salts.value(row)) else { continue };
            let leaf = encode_parts(envelopes.value(row).as_bytes(), &salt, bodies.value(row))
                .map_err(part("write a record again"))?;
            let partition = u32::try_from(partitions.value(row)).unwrap_or(0);
            records.push(RawRecord { position: Position { partition, index }, leaf: Bytes::from(leaf) });
        }
    }
    Ok((records, end))
}

/// The first sealed checkpoint that covers the records: the same one whenever the pack is asked for. Sealed now if there
/// is none yet.
async fn checkpoint_over(shared: &Arc<Shared>, records_end: u64) -> Result<SealedCheckpoint, EvidenceError> {
    const AT_ONCE: usize = 1_024;
    let origin = shared.keys.instance().partition_origin(PARTITION);
    let mut from = 0;
    loop {
        let leaves = shared.seal.read(from, AT_ONCE, usize::MAX).map_err(part("read the seal tree's log"))?;
        let Some((last, _)) = leaves.last() else { break };
        from = last + 1;
        for (seal_index, leaf) in &leaves {
            let Ok(note) = std::str::from_utf8(leaf) else { continue };
            if note.lines().next() != Some(origin.as_str()) {
                continue;
            }
            let checkpoint = Checkpoint::read_unverified(note).map_err(part("read a checkpoint"))?;
            if checkpoint.size >= records_end && checkpoint.size > 0 {
                return Ok(SealedCheckpoint {
                    partition: PARTITION,
                    size: checkpoint.size,
                    root: checkpoint.root,
                    note: note.to_owned(),
                    seal_index: *seal_index,
                });
            }
        }
    }
    Ok(seal_now(shared).await?)
}

/// The KPI report over the store's incidents, and the rows it is computed from.
pub(crate) async fn kpi_report(
    shared: &Arc<Shared>,
    request: KpiRequest,
) -> Result<(KpiReport, Vec<IncidentTimes>), EvidenceError> {
    let rows = from_store(&shared.store, request.to, request.as_of).await.map_err(part("read incidents"))?;
    Ok((report(&rows, &request), rows))
}

/// Writes a file so that it is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    fs::create_dir_all(&folder)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Runs every query of a pack again over the Parquet files it holds.
pub(crate) async fn reperform(pack: &Unpacked) -> Result<Vec<Reperformed>, EvidenceError> {
    // Below `data/`, as the queries and times of a pack are named.
    let files: BTreeMap<String, Vec<u8>> = pack
        .files()
        .iter()
        .filter_map(|(path, bytes)| Some((path.strip_prefix("data/")?.to_owned(), bytes.clone())))
        .collect();
    let as_of = reperform::as_of(&files).ok_or_else(|| {
        EvidenceError::Request("the pack's control tests do not say as of when they were run".to_owned())
    })?;
    let folder = tempfile::tempdir().map_err(part("make a folder"))?;
    for (path, bytes) in &files {
        let name = path.strip_prefix("60_raw/").filter(|name| name.ends_with(".parquet") && !name.contains('/'));
        if let Some(name) = name {
            fs::write(folder.path().join(name), bytes).map_err(part("write the pack's Parquet"))?;
        }
    }
    let sql = Sql::over_parquet(folder.path(), Some(as_of), Limits::EVIDENCE)
        .await
        .map_err(part("open the pack's Parquet"))?;
    let again = reperform::reperform(&sql, &files).await;
    Ok(again.into_iter().map(|again| Reperformed { table: again.table, outcome: again.outcome }).collect())
}
