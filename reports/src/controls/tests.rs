//! Running control tests over rows made by hand: outcomes, completeness, files, determinism.

use std::collections::BTreeMap;

use pipeproof_engine::commit::{Completeness, SourceWindow};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use sha2::{Digest as _, Sha256};

use super::catalogue::{controls, framework};
use super::completeness::{Missing, assess};
use super::definition::{Control, SourceGroup};
use super::outcome::{Outcome, Period};
use super::render::read_query_sql;
use super::run::{Facts, RunRequest, run, run_all};
use super::sheet::{Cell, Kind, Table};

const HOUR: i64 = 3_600;

fn at(hours: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 / HOUR * HOUR + hours * HOUR)
}

const fn period(from: Timestamp, to: Timestamp) -> Period {
    Period { from, to, as_of: to }
}

fn window(source: &str, source_type: SourceType, hour: i64, status: Completeness) -> SourceWindow {
    SourceWindow {
        source: source.to_owned(),
        source_type,
        start: at(hour),
        end: at(hour + 1),
        records: 10,
        events: 9,
        duplicates: 1,
        dead_letters: 0,
        max_lag_secs: 2,
        max_skew_secs: 0,
        down_secs: 0,
        status,
        basis: format!("{} basis", status.name()),
    }
}

fn hooks(hours: &[(i64, Completeness)]) -> Vec<SourceWindow> {
    hours.iter().map(|&(hour, status)| window("hooks", SourceType::GithubWebhook, hour, status)).collect()
}

/// Gives the same rows for every population, and others for every exceptions query.
struct Rows {
    population: usize,
    exceptions: usize,
    reversed: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no such relation")]
struct NoRelation;

impl Facts for Rows {
    type Error = NoRelation;

    async fn query(&self, sql: &str, _: &Period) -> Result<Table, NoRelation> {
        if self.population == usize::MAX {
            return Err(NoRelation);
        }
        let count = if sql.contains("LEFT JOIN") { self.exceptions } else { self.population };
        let columns = vec![("event_id".to_owned(), Kind::Text), ("at".to_owned(), Kind::Time)];
        let mut rows: Vec<_> = (0..count)
            .map(|number| vec![Cell::Text(format!("=0-{number}-0")), Cell::Time(at(number as i64))])
            .collect();
        if self.reversed {
            rows.reverse();
        }
        Ok(Table { columns, rows })
    }
}

fn cm_06() -> Control {
    controls().unwrap().into_iter().find(|control| control.id == "CM-06").unwrap()
}

fn request(windows: Vec<SourceWindow>) -> RunRequest {
    RunRequest {
        period: period(at(0), at(4)),
        parameters: BTreeMap::new(),
        versions: BTreeMap::from([("pipeproof".to_owned(), "0.1.0".to_owned())]),
        checkpoints: vec![serde_json::json!({ "size": 40 })],
        windows,
    }
}

async fn outcome(population: usize, exceptions: usize, windows: Vec<SourceWindow>) -> (Outcome, String, Vec<String>) {
    let rows = Rows { population, exceptions, reversed: false };
    let result = run(&rows, &cm_06(), &request(windows)).await.unwrap().result;
    (result.outcome, result.sentence, result.qualifiers)
}

use Completeness::{Complete, Gap, NotEstablished};

#[tokio::test]
async fn the_four_results_and_how_far_they_reach() {
    let whole = || hooks(&[(0, Complete), (1, Complete), (2, Complete), (3, Complete)]);
    let none = outcome(5, 0, whole()).await;
    assert_eq!(none, (Outcome::NoExceptionsNoted { n: 5 }, "no exceptions noted (0 of 5)".to_owned(), vec![]));
    assert_eq!(outcome(5, 2, whole()).await.0, Outcome::ExceptionsNoted { k: 2, n: 5 });
    assert_eq!(outcome(0, 0, whole()).await.0, Outcome::NoOccurrence);
    let (silent, sentence, _) = outcome(5, 0, Vec::new()).await;
    assert!(matches!(silent, Outcome::NotEvaluated { .. }));
    assert!(sentence.contains("no source of type github.webhook was connected"), "{sentence}");
    let (failed, ..) = outcome(usize::MAX, 0, whole()).await;
    assert!(matches!(failed, Outcome::NotEvaluated { why } if why.contains("no such relation")));
}

#[tokio::test]
async fn gaps_are_named_and_never_pass_in_silence() {
    let (result, sentence, qualifiers) =
        outcome(5, 0, hooks(&[(0, Complete), (1, Gap), (2, Complete), (3, NotEstablished)])).await;
    assert_eq!(result, Outcome::NoExceptionsNoted { n: 5 });
    assert_eq!(
        sentence,
        "no exceptions noted (0 of 5); the record stands for 3 h 0 min of 4 h 0 min, the rest is not evaluated"
    );
    assert_eq!(qualifiers.len(), 2, "{qualifiers:?}");
    assert!(qualifiers[0].starts_with("not evaluated: hooks") && qualifiers[0].contains("(gap)"), "{qualifiers:?}");
    assert_eq!(qualifiers[1], "completeness of hooks is not established: not_established basis");
    // An exception found in a gap is still one.
    let all_gap = hooks(&[(0, Gap), (1, Gap), (2, Gap), (3, Gap)]);
    assert_eq!(outcome(5, 1, all_gap.clone()).await.0, Outcome::ExceptionsNoted { k: 1, n: 5 });
    assert!(matches!(outcome(5, 0, all_gap).await.0, Outcome::NotEvaluated { why } if why.contains("gap basis")));
}

#[test]
fn missing_windows_are_no_coverage_and_late_connections_are_said() {
    let groups = [SourceGroup::One(SourceType::GithubWebhook)];
    let windows = hooks(&[(1, Complete), (3, Complete)]);
    let assessment = assess(&groups, &windows, &period(at(0), at(6)));
    let parts: Vec<_> = assessment.unevaluated.iter().map(|part| (part.from, part.to, part.status)).collect();
    let expected = [
        (at(0), at(1), Missing::NotConnected),
        (at(2), at(3), Missing::NoCoverage),
        (at(4), at(6), Missing::NoCoverage),
    ];
    let mut sorted = parts.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
    assert_eq!((assessment.evaluated_secs, assessment.period_secs), (7_200.0, 21_600.0));
}

#[test]
fn of_a_group_one_type_must_be_connected_and_all_connected_ones_must_be_whole() {
    let groups = [SourceGroup::AnyOf(vec![SourceType::VaultAudit, SourceType::AwsCloudtrail])];
    let both = [
        window("vault", SourceType::VaultAudit, 0, Complete),
        window("vault", SourceType::VaultAudit, 1, Complete),
        window("trail", SourceType::AwsCloudtrail, 0, Complete),
        window("trail", SourceType::AwsCloudtrail, 1, Gap),
    ];
    let seconds = |windows: &[SourceWindow]| assess(&groups, windows, &period(at(0), at(2))).evaluated_secs;
    assert_eq!(seconds(&both), 3_600.0);
    assert_eq!(seconds(&both[..2]), 7_200.0);
    let other = [window("hooks", SourceType::GithubWebhook, 0, Complete)];
    assert_eq!(seconds(&other), 0.0);
    assert!(
        assess(&groups, &other, &period(at(0), at(2)))
            .nothing_evaluated()
            .unwrap()
            .contains("vault.audit or aws.cloudtrail")
    );
}

#[test]
fn nothing_is_known_after_as_of() {
    let groups = [SourceGroup::One(SourceType::GithubWebhook)];
    let period = Period { from: at(0), to: at(9), as_of: at(2) };
    let assessment = assess(&groups, &hooks(&[(0, Complete), (1, Complete)]), &period);
    assert_eq!((assessment.evaluated_secs, assessment.period_secs), (7_200.0, 7_200.0));
    assert!(assessment.qualifiers(&period)[0].contains("was not over"));
    let future = Period { from: at(5), to: at(9), as_of: at(2) };
    assert!(assess(&groups, &[], &future).nothing_evaluated().unwrap().contains("before the time it is looked at"));
}

#[tokio::test]
async fn files_are_complete_tie_out_and_are_the_same_each_time() {
    let control = cm_06();
    let windows = hooks(&[(0, Complete), (1, Gap), (2, Complete), (3, Complete)]);
    let run_with = async |reversed| {
        let rows = Rows { population: 5, exceptions: 2, reversed };
        run_all(&rows, &[&control], &request(windows.clone())).await.unwrap()
    };
    let report = run_with(false).await;
    assert_eq!(report, run_with(true).await);
    let file = |name: &str| {
        let found = report.files.iter().find(|file| file.path.ends_with(name));
        found.unwrap_or_else(|| panic!("no {name}")).bytes.clone()
    };
    let names: Vec<_> = report.files.iter().map(|file| file.path.as_str()).collect();
    let expected = [
        "10_controls/CM-06/procedure.md",
        "10_controls/CM-06/query.sql",
        "10_controls/CM-06/params.json",
        "10_controls/CM-06/population.csv",
        "10_controls/CM-06/population.parquet",
        "10_controls/CM-06/exceptions.csv",
        "10_controls/CM-06/ipe.json",
        "10_controls/CM-06/results.json",
        "30_completeness/source_coverage.csv",
        "30_completeness/gaps.csv",
    ];
    assert_eq!(names, expected);

    let json = |name: &str| serde_json::from_slice::<serde_json::Value>(&file(name)).unwrap();
    let ipe = json("ipe.json");
    assert_eq!(ipe["totals"]["rows"], 5);
    assert_eq!(ipe["totals"]["distinct_keys"], 5);
    assert_eq!(ipe["totals"]["min_time"], at(0).to_string());
    assert_eq!(ipe["output"][0]["sha256"], hex::encode(Sha256::digest(file("population.csv"))));
    assert_eq!(ipe["source"]["hooks"]["records"], 40);
    let queries = read_query_sql(std::str::from_utf8(&file("query.sql")).unwrap()).unwrap();
    assert_eq!(queries, control.queries(&BTreeMap::new()).unwrap());
    assert_eq!(ipe["extraction"]["query_sha256"], hex::encode(Sha256::digest(&queries.population)));
    let results = json("results.json");
    assert_eq!((&results["result"], &results["k"], &results["n"]), (&"exceptions_noted".into(), &2.into(), &5.into()));
    assert!(!String::from_utf8(file("results.json")).unwrap().to_lowercase().contains("compliant"));
    assert!(String::from_utf8(file("population.csv")).unwrap().contains("\"'=0-0-0\""));
    let gaps = String::from_utf8(file("gaps.csv")).unwrap();
    assert_eq!(gaps.lines().filter(|line| line.contains("\"gap\"") && line.contains("\"CM-06\"")).count(), 1, "{gaps}");
    let procedure = String::from_utf8(file("procedure.md")).unwrap();
    assert!(procedure.contains("# CM-06:") && procedure.contains("github.webhook"), "{procedure}");
}

#[tokio::test]
async fn an_empty_period_and_a_missing_column_are_errors() {
    let rows = Rows { population: 1, exceptions: 0, reversed: false };
    let mut wrong = request(Vec::new());
    wrong.period.to = wrong.period.from;
    assert!(run(&rows, &cm_06(), &wrong).await.is_err());
    let mut control = cm_06();
    control.population.key = vec!["nothing".to_owned()];
    let error = run(&rows, &control, &request(Vec::new())).await.unwrap_err().to_string();
    assert!(error.contains("`nothing`"), "{error}");
}

#[test]
fn frameworks_carry_identifiers_only() {
    let soc2 = framework("soc2").unwrap().unwrap();
    assert_eq!(soc2.by_requirement()["CC8.1"].len(), 8);
    assert!(framework("pci").unwrap().is_none());
}
