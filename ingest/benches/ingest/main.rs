//! How fast records are received (unwrapped, redacted), decoded, and appended to a log on disk.
//!
//! With `--shares`, one table says for every source type how many times as fast decoding is as `serde_json::Value`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at once when its set-up is wrong")]

mod bodies;
mod shares;

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use engine::record::Position;
use pipeproof_engine as engine;
use pipeproof_ingest::decode::decode;
use pipeproof_ingest::log::{Knowing, Log, LogOptions};

fn sources(criterion: &mut Criterion) {
    let receiver = bodies::receiver();
    for (kind, body) in bodies::all() {
        let source = bodies::source(kind);
        let records = bodies::receive(&receiver, &source, &body);
        println!("{kind}: {} records, {} bytes", records.len(), body.len());
        let mut group = criterion.benchmark_group(kind.name());
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("receive", |bench| bench.iter(|| bodies::receive(&receiver, &source, black_box(&body))));
        group.bench_function("decode", |bench| {
            bench.iter(|| {
                for record in &records {
                    // One of the bundles has an unknown version and is a dead letter.
                    drop(black_box(decode(Position::default(), black_box(record))));
                }
            });
        });
        // The yardstick: the same bytes as a tree of values, and nothing made of them.
        if records.iter().all(|record| serde_json::from_slice::<serde_json::Value>(&record.body).is_ok()) {
            group.bench_function("serde_json", |bench| {
                bench.iter(|| {
                    for record in &records {
                        drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(&record.body))));
                    }
                });
            });
        }
    }
}

/// Redaction alone: a build log without a secret (the path of nearly all text), with a secret in every thousandth line, of
/// which every line looks like a secret, and items of JSON.
fn redact(criterion: &mut Criterion) {
    let receiver = bodies::receiver();
    let redactor = receiver.redactor();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/build_logs");
    let log: String = ["apt", "cargo", "maven", "npm", "npm-lock", "pip"]
        .iter()
        .map(|name| std::fs::read_to_string(format!("{folder}/{name}.log")).unwrap())
        .collect();
    let token = format!("gh{}_{}", 'p', "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6");
    let with = |every: usize| -> String {
        let line = |(number, line): (usize, &str)| {
            if number % every == 0 { format!("{line} token={token}\n") } else { format!("{line}\n") }
        };
        log.lines().enumerate().map(line).collect()
    };
    let mut group = criterion.benchmark_group("redact");
    for (name, text) in [
        ("a build log", log.clone()),
        ("a build log, a secret in every thousandth line", with(1_000)),
        ("a build log, a secret in every line", with(1)),
    ] {
        let text = Bytes::from(text);
        println!("{name}: {} lines, {} bytes", text.split(|byte| *byte == b'\n').count(), text.len());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bench| bench.iter(|| redactor.text(black_box(&text))));
    }
    for (kind, body) in bodies::all() {
        let source = bodies::source(kind);
        let records = bodies::receive(&receiver, &source, &body);
        group.throughput(Throughput::Bytes(records.iter().map(|record| record.body.len() as u64).sum()));
        group.bench_function(format!("items of {kind}"), |bench| {
            bench.iter(|| {
                for record in &records {
                    drop(black_box(redactor.body(kind, black_box(&record.body))));
                }
            });
        });
    }
}

/// Text made to be slow for detectors that look around what they find.
fn hostile(criterion: &mut Criterion) {
    let receiver = bodies::receiver();
    let mut group = criterion.benchmark_group("redact hostile text");
    let lines = format!("{}\n", "Z2hwX".repeat(15));
    for (name, unit) in [
        ("at signs", "@"),
        ("urls", "://a:"),
        ("key headers", "-----BEGIN PRIVATE KEY-----!"),
        ("lines of a key", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\n"),
        ("base64 of a keyword", "Z2hwX"),
        ("base64 lines of a keyword", lines.as_str()),
        ("keywords", "ghp_akia "),
    ] {
        let text = Bytes::from(unit.repeat((4 << 20) / unit.len()));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bench| bench.iter(|| receiver.redactor().text(black_box(&text))));
    }
}

fn append(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let log = Log::open(folder.path(), Knowing::default(), LogOptions::default()).unwrap().log;
    let mut group = criterion.benchmark_group("log");
    for (senders, records) in [(1, 1), (1, 100), (64, 1), (64, 100)] {
        let leaves = vec![Bytes::from(vec![b'x'; 1200]); records];
        group.throughput(Throughput::Elements((senders * records) as u64));
        let id = BenchmarkId::new("append", format!("{senders} senders of {records} x 1200 B"));
        group.bench_function(id, |bench| {
            bench.iter(|| {
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..senders)
                        .map(|_| {
                            let (log, leaves) = (log.clone(), leaves.clone());
                            tokio::spawn(async move { log.append(leaves).await.unwrap() })
                        })
                        .collect();
                    for task in tasks {
                        task.await.unwrap();
                    }
                });
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = sources, redact, hostile, append
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--shares") {
        return shares::print(&arguments);
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
