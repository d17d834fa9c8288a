//! F26, what somebody with access to the files does on purpose: rows edited with their checksums made right, rows exchanged, and parts
//! rolled back to an earlier copy. Each must be named by its place.

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::StatusCode;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::damage::{copy_folder, files, verified};
use crate::process::Server;
use crate::row::Row;
use crate::specimen::specimen;
use crate::world::World;

/// Bytes of a frame before its leaf, and of a segment before its first frame (`pipeproof_ingest::log`).
const FRAME: usize = 28;
const HEADER: usize = 32;

/// A record in a segment: where its frame begins, its index, and its leaf.
struct Framed {
    at: usize,
    index: u64,
    length: usize,
}

fn frames(bytes: &[u8]) -> Vec<Framed> {
    let mut found = Vec::new();
    let mut at = HEADER;
    while bytes.get(at..at + 4) == Some(b"PPr1") {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let index = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
        found.push(Framed { at, index, length });
        at += FRAME + length;
    }
    found
}

/// Castagnoli's CRC, bit by bit.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// Makes the checksum of a frame right again.
fn sum(bytes: &mut [u8], frame: &Framed) {
    let leaf = frame.at + FRAME..frame.at + FRAME + frame.length;
    let crc = crc32c(&[&bytes[frame.at + 4..frame.at + 24], &bytes[leaf]]);
    bytes[frame.at + 24..frame.at + 28].copy_from_slice(&crc.to_le_bytes());
}

fn segment(data: &Path) -> PathBuf {
    files(&data.join("log")).into_iter().find(|path| path.extension().is_some_and(|it| it == "segment")).unwrap()
}

/// Edits the body of a record in the log. Returns its index.
fn edit_record(data: &Path) -> u64 {
    let path = segment(data);
    let mut bytes = fs::read(&path).unwrap();
    let all = frames(&bytes);
    let leaf = |frame: &Framed| frame.at + FRAME..frame.at + FRAME + frame.length;
    let needle = b"acme/app";
    let place = |frame: &Framed| bytes[leaf(frame)].windows(needle.len()).position(|window| window == needle);
    let (frame, at) = all.iter().filter_map(|frame| Some((frame, place(frame)?))).nth(5).unwrap();
    let at = frame.at + FRAME + at;
    bytes[at..at + needle.len()].copy_from_slice(b"evil/app");
    sum(&mut bytes, frame);
    fs::write(path, bytes).unwrap();
    frame.index
}

/// Exchanges two records of one length in the log. Returns the first one's index.
fn exchange_records(data: &Path) -> u64 {
    let path = segment(data);
    let mut bytes = fs::read(&path).unwrap();
    let all = frames(&bytes);
    let leaf = |frame: &Framed| frame.at + FRAME..frame.at + FRAME + frame.length;
    let pair = |one: &&Framed| all.iter().find(|other| other.index > one.index && other.length == one.length);
    let one = all.iter().skip(5).find(|one| pair(one).is_some()).unwrap();
    let other = pair(&one).unwrap();
    let (first, second) = (bytes[leaf(one)].to_vec(), bytes[leaf(other)].to_vec());
    assert_ne!(first, second);
    bytes[leaf(one)].copy_from_slice(&second);
    bytes[leaf(other)].copy_from_slice(&first);
    sum(&mut bytes, one);
    sum(&mut bytes, other);
    fs::write(path, bytes).unwrap();
    one.index
}

async fn in_store(data: &Path, statements: &str) {
    let mut store = SqliteConnectOptions::new().filename(data.join("store.db")).connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut store).await.unwrap();
    store.close().await.unwrap();
}

/// Rows that were edited or exchanged.
pub(crate) async fn edited(seed: u64) -> Row {
    let mut row = Row::new("F26", "records and findings edited or exchanged, with right checksums", seed);
    let mut world = specimen().await;
    let whole = world.folder().join("whole");
    copy_folder(&world.data, &whole);
    for case in
        ["a record edited", "two records exchanged", "a finding edited", "two findings exchanged", "a finding removed"]
    {
        fs::remove_dir_all(&world.data).unwrap();
        copy_folder(&whole, &world.data);
        row.runs += 1;
        let place = match case {
            "a record edited" => edit_record(&world.data).to_string(),
            "two records exchanged" => exchange_records(&world.data).to_string(),
            "a finding edited" => {
                in_store(&world.data, "UPDATE findings SET title = 'nothing happened' WHERE seq = 2").await;
                "findings".to_owned()
            }
            "two findings exchanged" => {
                let exchange = "UPDATE findings SET seq = -1 WHERE seq = 2; UPDATE findings SET seq = 2 WHERE seq = 3; \
                                UPDATE findings SET seq = 3 WHERE seq = -1";
                in_store(&world.data, exchange).await;
                "findings".to_owned()
            }
            _ => {
                in_store(&world.data, "DELETE FROM findings WHERE seq = 2").await;
                "f-".to_owned()
            }
        };
        let said = what_is_said(&mut world).await;
        row.bytes_corrupt_detected += u64::from(said.is_err());
        match said {
            Ok(()) => row.fail(format!("{case}: not seen")),
            Err(said) => row.expect(said.contains(&place), format!("{case}: `{place}` is not named: {said}")),
        }
    }
    row.say("each is named by the index of the record, or by the row or id of the finding");
    row
}

/// What a start, or else the doctor, says is wrong.
async fn what_is_said(world: &mut World) -> Result<(), String> {
    match world.start() {
        Err(refused) => Err(refused.log),
        Ok(server) => {
            let errors: Vec<String> = server.log().into_iter().filter(|line| line.contains("\"ERROR\"")).collect();
            if !errors.is_empty() {
                return Err(errors.join("\n"));
            }
            verified(&server).await
        }
    }
}

/// The registry is an earlier copy: what was decided since stands in the log and holds.
pub(crate) async fn registry_rolled_back(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F26", "the registry is rolled back", seed) };
    let mut world = specimen().await;
    let server = world.server();
    let new = json!({ "scopes": ["findings:read"], "note": "revoked later" });
    let created = server.post("/v1/tokens", new).await.map(|reply| reply.json()).unwrap_or_default();
    let (id, token) = (created["id"].as_str().unwrap_or_default(), created["token"].as_str().unwrap_or_default());
    row.expect(asked(&server, token).await == StatusCode::OK, "the token is not accepted while it is good");
    assert!(server.terminate().await, "an orderly end");
    let old = fs::read(world.data.join("registry.json")).unwrap();
    let server = world.server();
    let revoked = server.ask(reqwest::Method::DELETE, &format!("/v1/tokens/{id}"), Vec::new()).await;
    row.expect(revoked.is_ok_and(|reply| reply.status.is_success()), "the token cannot be revoked");
    assert!(server.terminate().await, "an orderly end");
    fs::write(world.data.join("registry.json"), old).unwrap();
    match world.start() {
        Err(refused) => row.say(format!("a start refuses it: {}", refused.log.lines().last().unwrap_or_default())),
        Ok(server) => {
            row.expect(asked(&server, token).await == StatusCode::UNAUTHORIZED, "a revoked token is good again");
            world.account(&mut row, &server).await;
            row.expect(verified(&server).await.is_ok(), format!("{:?}", verified(&server).await));
            row.say("what was decided since is read from the log: a token revoked since stays revoked");
        }
    }
    row
}

async fn asked(server: &Server, token: &str) -> StatusCode {
    let reply = server.http.get(format!("{}/v1/findings", server.url)).bearer_auth(token).send().await;
    reply.map_or(StatusCode::SERVICE_UNAVAILABLE, |reply| reply.status())
}

/// The seal tree is an earlier copy: its checkpoints since are gone, which must be named.
pub(crate) async fn seal_rolled_back(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F26", "the seal tree is rolled back", seed) };
    let mut world = specimen().await;
    let old = world.folder().join("old");
    copy_folder(&world.data.join("seal"), &old);
    let server = world.server();
    world.account(&mut row, &server).await;
    assert!(server.terminate().await, "an orderly end");
    fs::remove_dir_all(world.data.join("seal")).unwrap();
    copy_folder(&old, &world.data.join("seal"));
    match what_is_said(&mut world).await {
        Ok(()) => {
            row.fail("it starts and the doctor finds nothing: checkpoints that were sealed since are gone unseen")
        }
        Err(said) => row.expect(said.contains("seal"), format!("the seal tree is not named: {said}")),
    }
    row
}
