//! A small pack made by hand, verified, and then damaged in every way we know of.

use std::collections::BTreeMap;
use std::process::Command;

use bytes::Bytes;
use pipeproof_engine::clock::{Clock as _, ManualClock};
use pipeproof_engine::merkle::{Nodes as _, Tree, leaf_hash};
use pipeproof_engine::record::{Authenticity, CollectionMode, Envelope, Position, Record, Redacted};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::keys::Keys;
use crate::pack::bag::{MANIFEST, MESSAGE_BUNDLE, TAGMANIFEST};
use crate::pack::table::Table;
use crate::pack::{self, Pack, PackError, PackFile, PackInput, Partition, Period, RawRecord, bag};
use crate::seal::{MemorySeal, SealLog as _, SealedCheckpoint, checkpoint_partition};

/// An instance with a log of twelve records, two checkpoints in its seal tree.
struct Fixture {
    keys: Keys,
    clock: ManualClock,
    seal: MemorySeal,
    tree: Tree,
    records: Vec<RawRecord>,
    start: SealedCheckpoint,
    end: SealedCheckpoint,
}

fn record(number: u64) -> Bytes {
    let redacted = Redacted { family: "github-token".to_owned(), fingerprint: "f".to_owned(), count: 2 };
    let record = Record {
        envelope: Envelope {
            source: "acme".to_owned(),
            source_type: SourceType::Json,
            received: Timestamp::from_secs(1_772_000_000).plus(std::time::Duration::from_secs(number)),
            auth: Authenticity::Bearer,
            key_id: None,
            item: format!("id:{number}"),
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: if number == 3 { vec![redacted] } else { Vec::new() },
        },
        salt: [u8::try_from(number).unwrap(); 16],
        body: Bytes::from(format!("{{\"number\":{number}}}")),
    };
    Bytes::from(record.encode().unwrap())
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::parse("2026-03-01T12:00:00Z").unwrap());
        let keys = Keys::load_or_create(dir.path(), &clock).unwrap();
        let seal = MemorySeal::default();
        let mut tree = Tree::new();
        let records: Vec<RawRecord> = (0..12)
            .map(|index| RawRecord { position: Position { partition: 0, index }, leaf: record(index) })
            .collect();
        for record in &records {
            tree.push(leaf_hash(&record.leaf));
        }
        let start = checkpoint_partition(&keys, &seal, 0, &tree, 2).await.unwrap();
        seal.append(b"{\"other\":1}".to_vec()).await.unwrap();
        let end = checkpoint_partition(&keys, &seal, 0, &tree, 12).await.unwrap();
        Self { keys, clock, seal, tree, records, start, end }
    }

    fn input(&self) -> PackInput {
        let mut population = Table::new(["push_event_id", "at", "actor"]);
        population.push(["0-2-0", "2026-02-25T06:13:22Z", "=cmd()"]);
        population.push(["0-5-0", "2026-02-26T06:13:25Z", "alice"]);
        let mut exceptions = Table::new(["event_ids", "why"]);
        exceptions.push(["0-5-0 0-7-1", "no review"]);
        let csv = population.csv().unwrap();
        let totals = population.totals();
        let ipe = json!({
            "identity": {"key": ["push_event_id"]},
            "totals": {
                "rows": 2,
                "hash_total": totals.hash_total,
                "multiset_hash": population.multiset_hash(),
                "distinct_keys": 2,
                "time_column": "at",
                "rows_by_day": {"2026-02-25": 1, "2026-02-26": 1},
            },
            "output": [{
                "path": "10_controls/CM-06/population.csv",
                "bytes": csv.len(),
                "sha256": hex::encode(Sha256::digest(&csv)),
            }],
        });
        let results = json!({"control": "CM-06", "result": "exceptions_noted", "k": 1, "n": 2, "exception_rows": 1});
        let file = |name: &str, bytes: Vec<u8>| PackFile::new(format!("10_controls/CM-06/{name}"), bytes, "test");
        PackInput {
            name: "acme_soc2_2026-02-01_2026-03-01_v1".to_owned(),
            framework: "soc2".to_owned(),
            organisation: "Acme".to_owned(),
            period: Period {
                start: Timestamp::parse("2026-02-01").unwrap(),
                end: Timestamp::parse("2026-03-01").unwrap(),
            },
            as_of: Timestamp::parse("2026-03-01T11:00:00Z").unwrap(),
            scope: "everything".to_owned(),
            versions: BTreeMap::from([("pipeproof".to_owned(), "0.1.0".to_owned())]),
            results: json!([results]),
            redacted: Vec::new(),
            files: vec![
                file("population.csv", csv),
                file("exceptions.csv", exceptions.csv().unwrap()),
                file("ipe.json", serde_json::to_vec(&ipe).unwrap()),
                file("results.json", serde_json::to_vec(&results).unwrap()),
                file("query.sql", b"SELECT 1\n".to_vec()),
            ],
            records: [2, 3, 5, 7].iter().map(|index| self.records[*index].clone()).collect(),
            omissions: Vec::new(),
            previous: None,
        }
    }

    fn partition(&self) -> Partition<'_> {
        Partition { checkpoint: &self.end, start: Some(&self.start), tree: &self.tree }
    }

    async fn pack(&self, input: &PackInput) -> Result<Pack, PackError> {
        pack::build(input, &self.keys, &self.seal, &[self.partition()], self.clock.now()).await
    }

    fn key(&self) -> Options {
        Options { anchor: Some(Anchor::Key(self.keys.public().anchor_pem())), ..Options::default() }
    }
}

async fn made() -> (Fixture, Unpacked) {
    let fixture = Fixture::new().await;
    let pack = fixture.pack(&fixture.input()).await.unwrap();
    let unpacked = read_bytes(&pack.zip).unwrap();
    assert_eq!(unpacked.digest(), pack.digest);
    (fixture, unpacked)
}

/// The pack zipped again after `change`.
fn rezip(pack: &Unpacked, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Unpacked {
    let mut files = pack.files().clone();
    change(&mut files);
    read_bytes(&pack::archive::write(pack.name(), &files).unwrap()).unwrap()
}

/// As an insider would: the manifests are made to fit what was changed.
fn remanifest(pack: &Unpacked, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Unpacked {
    rezip(pack, |files| {
        change(files);
        let lines = |files: &BTreeMap<String, Vec<u8>>, listed: &dyn Fn(&str) -> bool| -> Vec<u8> {
            let listed = files.iter().filter(|(path, _)| listed(path));
            listed
                .map(|(path, bytes)| format!("{}  {path}\n", hex::encode(Sha256::digest(bytes))))
                .collect::<String>()
                .into_bytes()
        };
        let mut index: serde_json::Value = serde_json::from_slice(&files["data/pack.json"]).unwrap();
        let listed: Vec<serde_json::Value> = files
            .iter()
            .filter_map(|(path, bytes)| Some((path.strip_prefix("data/")?, bytes)))
            .filter(|(path, _)| *path != "pack.json")
            .map(|(path, bytes)| {
                let digest = hex::encode(Sha256::digest(bytes));
                json!({"path": path, "bytes": bytes.len(), "sha256": digest, "description": ""})
            })
            .collect();
        index["files"] = json!(listed);
        files.insert("data/pack.json".to_owned(), serde_json::to_vec(&index).unwrap());
        let (count, bytes) = bag::oxum(files.iter().filter(|(path, _)| path.starts_with("data/")));
        files.insert("bag-info.txt".to_owned(), format!("Payload-Oxum: {bytes}.{count}\n").into_bytes());
        let payload = lines(files, &|path| path.starts_with("data/"));
        files.insert(MANIFEST.to_owned(), payload);
        let tags = lines(files, &|path| !path.starts_with("data/") && !bag::UNLISTED.contains(&path));
        files.insert(TAGMANIFEST.to_owned(), tags);
    })
}

fn names(report: &Report) -> Vec<String> {
    report.failures().map(|(check, failure)| format!("{check}: {} {}", failure.subject, failure.reason)).collect()
}

#[tokio::test]
async fn a_pack_verifies_against_its_anchor() {
    let (fixture, pack) = made().await;
    let report = verify(&pack, &fixture.key());
    assert_eq!(names(&report), Vec::<String>::new());
    assert_eq!(report.verdict(), Verdict::Verified);
    let signer = report.signer.as_ref().unwrap();
    assert_eq!(signer.identity, fixture.keys.instance().identity());
    assert_eq!(signer.signed_at.as_deref(), Some("2026-03-01T12:00:00Z"));
    assert_eq!(signer.fingerprint.as_deref(), Some(fixture.keys.public().fingerprint().as_str()));
    let examined: BTreeMap<&str, u64> = report.checks.iter().map(|check| (check.name, check.examined)).collect();
    assert_eq!(examined["records"], 4);
    // One proof for all, three for the cited records, four citations.
    assert_eq!(examined["proofs"], 1 + 3 + 4);
    assert!(report.checks.iter().all(|check| check.outcome == Outcome::Ok), "{report:?}");

    let spki = crate::signing::certificate::certified_key(&fixture.keys.public().ca_certificate).unwrap();
    for anchor in [
        Anchor::Key(crate::keys::pem("PUBLIC KEY", &spki)),
        Anchor::TrustedRoot(crate::signing::trust::trusted_root(fixture.keys.public()).to_string()),
    ] {
        let report = verify(&pack, &Options { anchor: Some(anchor), ..Options::default() });
        assert_eq!(report.verdict(), Verdict::Verified, "{:?}", names(&report));
    }
}

#[tokio::test]
async fn without_an_anchor_the_signer_is_not_established() {
    let (_fixture, pack) = made().await;
    let report = verify(&pack, &Options::default());
    assert_eq!(report.verdict(), Verdict::SignerNotEstablished, "{:?}", names(&report));
    assert_eq!(report.summary(), "internally consistent, signer NOT established");
}

#[tokio::test]
async fn equal_input_gives_equal_data() {
    let fixture = Fixture::new().await;
    let mut input = fixture.input();
    let one = read_bytes(&fixture.pack(&input).await.unwrap().zip).unwrap();
    fixture.clock.advance(std::time::Duration::from_secs(3_600));
    fixture.seal.append(b"{}".to_vec()).await.unwrap();
    input.records.reverse();
    let two = read_bytes(&fixture.pack(&input).await.unwrap().zip).unwrap();
    assert_eq!(one.data().collect::<Vec<_>>(), two.data().collect::<Vec<_>>());
    assert_eq!(one.digest(), two.digest(), "what is signed is the same");
    assert_ne!(one.get(MESSAGE_BUNDLE), two.get(MESSAGE_BUNDLE), "but it is signed anew");
    let again = pack::archive::write(one.name(), one.files()).unwrap();
    assert_eq!(again, pack::archive::write(one.name(), one.files()).unwrap());
}

#[tokio::test]
async fn every_file_dropped_altered_or_added_is_named() {
    let (fixture, pack) = made().await;
    for path in pack.files().keys().filter(|path| *path != "bagit.txt") {
        let dropped = rezip(&pack, |files| drop(files.remove(path)));
        let altered = rezip(&pack, |files| {
            let bytes = files.get_mut(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        for (what, changed) in [("dropped", dropped), ("altered", altered)] {
            let report = verify(&changed, &fixture.key());
            assert_eq!(report.verdict(), Verdict::Failed, "{path} was {what}");
            assert!(
                names(&report).iter().any(|name| name.contains(path.as_str())),
                "{path} {what}: {:?}",
                names(&report)
            );
        }
    }
    for path in ["data/10_controls/CM-06/added.csv", "verify/added.txt", "added.txt"] {
        let report = verify(&rezip(&pack, |files| drop(files.insert(path.to_owned(), vec![1]))), &fixture.key());
        assert!(
            names(&report).iter().any(|name| name.contains(path) && name.contains("added")),
            "{:?}",
            names(&report)
        );
    }
}

#[tokio::test]
async fn changed_content_is_named_even_if_the_manifests_fit() {
    let (fixture, pack) = made().await;
    let control = "data/10_controls/CM-06";
    let edit = |path: &str, from: &str, to: &str| {
        let (path, from, to) = (path.to_owned(), from.to_owned(), to.to_owned());
        remanifest(&pack, move |files| {
            let bytes = files.get_mut(&path).unwrap();
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(&from), "{path} has no {from}");
            *bytes = text.replacen(&from, &to, 1).into_bytes();
        })
    };
    for (changed, expected) in [
        (edit(&format!("{control}/population.csv"), "alice", "bob"), "population.csv has hash total"),
        (edit(&format!("{control}/results.json"), "\"n\":2", "\"n\":3"), "results.json says 3 rows of population.csv"),
        (edit(&format!("{control}/exceptions.csv"), "0-7-1", "0-8-0"), "row 1 column event_ids cites 0-8-0"),
        (edit("data/40_proofs/records/0-5.tlog-proof", "index 5", "index 6"), "records/0-5.tlog-proof"),
        (edit("data/40_proofs/records-0.json", "\"size\": 12", "\"size\": 11"), "data/40_proofs/records-0.json"),
        (edit("data/30_completeness/checkpoint-end-0.txt", "\n12\n", "\n13\n"), "checkpoint-end-0.txt"),
        (
            edit("data/30_completeness/consistency-proof-0.json", "\"old_size\": 2", "\"old_size\": 3"),
            "consistency-proof-0.json",
        ),
        (edit("verify/seal-consistency.json", "\"old_size\": 3", "\"old_size\": 2"), "seal-consistency.json"),
    ] {
        let report = verify(&changed, &fixture.key());
        assert_eq!(report.verdict(), Verdict::Failed);
        // The signature cannot fit either; without it the proofs are not even looked at.
        assert!(names(&report).iter().any(|name| name.contains("not a signature over")), "{:?}", names(&report));
        let inside = inside(&changed, &fixture).await;
        assert!(inside.iter().any(|name| name.contains(expected)), "no {expected:?} in {inside:#?}");
    }
}

/// What fails when the changed pack is signed anew with the instance's own keys: its owner is no exception.
async fn inside(changed: &Unpacked, fixture: &Fixture) -> Vec<String> {
    let report = verify(&resign(changed, fixture).await, &fixture.key());
    assert_eq!(report.verdict(), Verdict::Failed, "the owner of the keys got away with it");
    names(&report)
}

/// The pack with signatures by the fixture's keys over its tag manifest as it is.
async fn resign(changed: &Unpacked, fixture: &Fixture) -> Unpacked {
    let tagmanifest = changed.get(TAGMANIFEST).unwrap();
    let statement = crate::signing::statement::statement(
        &[(TAGMANIFEST, Sha256::digest(tagmanifest).into())],
        &json!({"pack": changed.name()}),
    );
    let now = fixture.clock.now();
    let signature = crate::seal::sign_pack(&fixture.keys, &fixture.seal, now, tagmanifest, &statement).await.unwrap();
    let size = signature.seal_size;
    rezip(changed, |files| {
        let mut growths: serde_json::Value = serde_json::from_slice(&files[bag::SEAL_CONSISTENCY]).unwrap();
        for growth in growths.as_array_mut().unwrap() {
            let old = growth["old_size"].as_u64().unwrap();
            let hashes = fixture.seal.consistency_proof(old, size).unwrap();
            growth["new_size"] = json!(size);
            growth["new_root"] = json!(crate::signing::entry::base64(fixture.seal.root(size).unwrap()));
            growth["hashes"] = json!(hashes.iter().map(crate::signing::entry::base64).collect::<Vec<_>>());
        }
        for (path, bytes) in [
            (bag::SEAL_CONSISTENCY, serde_json::to_vec(&growths).unwrap()),
            (MESSAGE_BUNDLE, signature.message_bundle.into_bytes()),
            (bag::STATEMENT_BUNDLE, signature.statement_bundle.into_bytes()),
            (bag::SIGNATURE, signature.signature),
            (bag::SIGNING_KEY, signature.public_key.into_bytes()),
            (bag::SIGNING_CERTIFICATE, signature.certificate.into_bytes()),
        ] {
            files.insert(path.to_owned(), bytes);
        }
    })
}

#[tokio::test]
async fn signing_anew_what_was_not_changed_is_fine() {
    let (fixture, pack) = made().await;
    let report = verify(&resign(&pack, &fixture).await, &fixture.key());
    assert_eq!(report.verdict(), Verdict::Verified, "{:?}", names(&report));
}

#[tokio::test]
async fn a_changed_record_is_named_by_its_row() {
    let (fixture, pack) = made().await;
    let forged = |from: usize| {
        // A file of the same records, one of them with another body and the hash that goes with it.
        let mut records = fixture.input().records;
        records[1].leaf = record(11);
        let files = pack::records::files(&records, &[]).unwrap();
        let bytes = files.into_iter().find(|file| file.path.ends_with(".parquet")).unwrap().bytes;
        remanifest(&pack, |files| {
            assert!(from == 0);
            files.insert("data/60_raw/records-0-00000.parquet".to_owned(), bytes);
        })
    };
    let inside = inside(&forged(0), &fixture).await;
    assert!(inside.iter().any(|name| name.contains("records-0.json")), "{inside:?}");
    let stale = remanifest(&pack, |files| {
        let bytes = files.get_mut("data/60_raw/records-0-00000.parquet").unwrap();
        *bytes = with_other_body(bytes);
    });
    let report = verify(&stale, &fixture.key());
    let expected = "data/60_raw/records-0-00000.parquet row 2 (record 0-3)";
    assert!(names(&report).iter().any(|name| name.contains(expected)), "{:?}", names(&report));
}

/// The Parquet file with the body of its second row changed and nothing else.
fn with_other_body(bytes: &[u8]) -> Vec<u8> {
    use arrow_array::{ArrayRef, BinaryArray, RecordBatch, cast::AsArray as _};
    use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).unwrap().build().unwrap();
    let batch = reader.into_iter().next().unwrap().unwrap();
    let at = batch.schema().index_of("body").unwrap();
    let mut bodies: Vec<Vec<u8>> =
        batch.column(at).as_binary::<i32>().iter().map(|body| body.unwrap().to_vec()).collect();
    bodies[1][0] ^= 1;
    let mut columns = batch.columns().to_vec();
    let array: ArrayRef = std::sync::Arc::new(BinaryArray::from_iter_values(bodies));
    columns[at] = array;
    let batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test]
async fn an_attacker_with_other_keys_fails_against_the_real_anchor_only() {
    let (real, pack) = made().await;
    let (forger, forged) = made().await;
    let report = verify(&forged, &real.key());
    assert_eq!(report.verdict(), Verdict::Failed);
    assert!(names(&report).iter().any(|name| name.contains("signed by somebody else")), "{:?}", names(&report));
    assert_eq!(verify(&forged, &Options::default()).verdict(), Verdict::SignerNotEstablished);
    assert_eq!(verify(&forged, &forger.key()).verdict(), Verdict::Verified);
    let root = Anchor::TrustedRoot(crate::signing::trust::trusted_root(real.keys.public()).to_string());
    assert_eq!(verify(&forged, &Options { anchor: Some(root), ..Options::default() }).verdict(), Verdict::Failed);

    // Our authority's certificate beside the forger's in one trust root, and our certificate as the one that is shown.
    let both = remanifest(&forged, |files| {
        let path = "verify/trusted_root.json";
        let ours: serde_json::Value = serde_json::from_slice(pack.get(path).unwrap()).unwrap();
        let mut theirs: serde_json::Value = serde_json::from_slice(&files[path]).unwrap();
        let authorities = theirs["certificateAuthorities"].as_array_mut().unwrap();
        authorities.insert(0, ours["certificateAuthorities"][0].clone());
        files.insert(path.to_owned(), serde_json::to_vec(&theirs).unwrap());
        files.insert("verify/keys/ca.pem".to_owned(), real.keys.public().anchor_pem().into_bytes());
    });
    let both = resign(&both, &forger).await;
    assert_eq!(verify(&both, &real.key()).verdict(), Verdict::Failed);
    // The auditor trusts both instances: each still signs in its own name only.
    let mut two = crate::signing::trust::trusted_root(real.keys.public());
    let more = crate::signing::trust::trusted_root(forger.keys.public());
    for list in ["certificateAuthorities", "tlogs", "ctlogs"] {
        let more = more[list][0].clone();
        two[list].as_array_mut().unwrap().push(more);
    }
    let trusting = Options { anchor: Some(Anchor::TrustedRoot(two.to_string())), ..Options::default() };
    for honest in [&pack, &forged] {
        assert_eq!(verify(honest, &trusting).verdict(), Verdict::Verified, "{:?}", names(&verify(honest, &trusting)));
    }
    let in_our_name = rezip(&forged, |files| {
        files.insert("verify/keys/ca.pem".to_owned(), real.keys.public().anchor_pem().into_bytes());
    });
    assert_eq!(verify(&in_our_name, &trusting).verdict(), Verdict::Failed);
    // Their signature around our data, and ours around theirs.
    for (data, signatures, options) in
        [(&pack, &forged, forger.key()), (&pack, &forged, real.key()), (&forged, &pack, real.key())]
    {
        let mixed = rezip(data, |files| {
            for (path, bytes) in signatures.files().iter().filter(|(path, _)| path.starts_with("verify/")) {
                files.insert(path.clone(), bytes.clone());
            }
        });
        assert_eq!(verify(&mixed, &options).verdict(), Verdict::Failed);
    }
}

#[tokio::test]
async fn identities_are_matched_whole_and_the_public_instance_is_not_ours() {
    let (fixture, pack) = made().await;
    let identity = fixture.keys.instance().identity();
    let with = |identity: &str| Options { identity: Some(identity.to_owned()), ..fixture.key() };
    assert_eq!(verify(&pack, &with(&identity)).verdict(), Verdict::Verified);
    assert_eq!(verify(&pack, &with(&identity[..identity.len() - 1])).verdict(), Verdict::Failed);
    let alone = Options {
        identity: Some(identity),
        issuer: Some(crate::keys::Instance::ISSUER.to_owned()),
        ..Options::default()
    };
    assert_eq!(verify(&pack, &alone).verdict(), Verdict::Failed, "our own authority is not the public one");
    let nonsense = Options { anchor: Some(Anchor::Key("not pem".to_owned())), ..Options::default() };
    assert_eq!(verify(&pack, &nonsense).verdict(), Verdict::Failed);
}

#[tokio::test]
async fn what_was_kept_of_earlier_times_must_fit() {
    let (fixture, first) = made().await;
    let built =
        Pack { name: first.name().to_owned(), digest: first.digest(), zip: Vec::new(), seal_size: fixture.seal.size() };
    let input = PackInput { name: "next".to_owned(), previous: Some(built.as_previous()), ..fixture.input() };
    let next = read_bytes(&fixture.pack(&input).await.unwrap().zip).unwrap();
    let with = |previous| Options { previous: Some(previous), ..fixture.key() };
    let verdict = |pack: &Unpacked, previous| {
        let report = verify(pack, &with(previous));
        (report.verdict(), names(&report))
    };
    assert_eq!(verdict(&next, Previous::Pack(Box::new(first.clone()))), (Verdict::Verified, vec![]));
    assert_eq!(verdict(&first, Previous::Pack(Box::new(next.clone()))).0, Verdict::Failed);
    for note in [&fixture.start.note, &fixture.end.note] {
        assert_eq!(verdict(&next, Previous::Checkpoint(note.clone())), (Verdict::Verified, vec![]));
    }
    // The same instance once said something else of the same size: the log was rewritten.
    let rewritten =
        crate::checkpoint::Checkpoint { origin: fixture.keys.instance().partition_origin(0), size: 12, root: [1; 32] };
    let (verdict, names) = verdict(&next, Previous::Checkpoint(rewritten.sign(&fixture.keys.checkpoint)));
    assert_eq!(verdict, Verdict::Failed);
    assert!(names.iter().any(|name| name.contains("rewritten")), "{names:?}");
}

#[tokio::test]
async fn queries_run_again_must_agree() {
    let (fixture, pack) = made().await;
    let path = "10_controls/CM-06/population.csv";
    let totals = Table::from_csv(pack.get(&format!("data/{path}")).unwrap()).unwrap().totals();
    let with =
        |outcome| Options { reperformed: Some(vec![Reperformed { table: path.to_owned(), outcome }]), ..fixture.key() };
    assert_eq!(verify(&pack, &with(Ok(totals.clone()))).verdict(), Verdict::Verified);
    let other = Totals { rows: 3, ..totals };
    for outcome in [Ok(other), Err("no such table".to_owned())] {
        let report = verify(&pack, &with(outcome));
        assert!(names(&report).iter().any(|name| name.contains(path)), "{:?}", names(&report));
    }
}

#[tokio::test]
async fn records_in_files_of_the_lake_are_not_written_again() {
    let fixture = Fixture::new().await;
    let mut input = fixture.input();
    let own = pack::records::files(&input.records[..3], &[]).unwrap();
    let bytes = own.into_iter().find(|file| file.path.ends_with(".parquet")).unwrap().bytes;
    input.files.push(PackFile::new("60_raw/events-2026-02.parquet", bytes, "events"));
    input.files.push(PackFile::new("60_raw/findings.parquet", b"PAR1".to_vec(), "no records"));
    let pack = read_bytes(&fixture.pack(&input).await.unwrap().zip).unwrap();
    let own = Bytes::copy_from_slice(pack.get("data/60_raw/records-0-00000.parquet").unwrap());
    let mut held = Vec::new();
    pack::records::read(&own, |row| held.push(row.position.index)).unwrap();
    assert_eq!(held, [7]);
    let report = verify(&pack, &fixture.key());
    assert_eq!(report.verdict(), Verdict::Verified, "{:?}", names(&report));
}

#[tokio::test]
async fn building_fails_closed() {
    let fixture = Fixture::new().await;
    let mut input = fixture.input();
    input.records.remove(2);
    assert!(matches!(fixture.pack(&input).await, Err(PackError::Uncited { row: 2, .. })));
    let mut input = fixture.input();
    input.records[0].leaf = record(9);
    assert!(matches!(fixture.pack(&input).await, Err(PackError::Record { .. })));
    let mut input = fixture.input();
    input.records.push(RawRecord { position: Position { partition: 0, index: 12 }, leaf: record(12) });
    assert!(matches!(fixture.pack(&input).await, Err(PackError::Record { .. })));
    let mut input = fixture.input();
    input.files.push(PackFile::new("../up.txt", vec![], ""));
    assert!(matches!(fixture.pack(&input).await, Err(PackError::Name { .. })));
    let mut input = fixture.input();
    input.files.push(input.files[0].clone());
    assert!(matches!(fixture.pack(&input).await, Err(PackError::Name { .. })));
}

mod archives;
mod tools;
