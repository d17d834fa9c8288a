//! What comes in late, twice, malformed or much too large, and queries without end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use reqwest::Method;
use serde_json::json;

use crate::process::Server;
use crate::receiver::Manner;
use crate::row::Row;
use crate::world::{Compared, World};

/// How late some of the events of [`repeated`] are: within what their source may take, and beyond it up to two days.
const LATE: [(u64, bool); 6] =
    [(20, false), (40, false), (180, true), (3_600, true), (26 * 3_600, true), (48 * 3_600, true)];

/// F10: every batch up to three times, in a shuffled order, some late by up to 48 hours, over a kill.
pub(crate) async fn repeated(seed: u64, batches: u64) -> Row {
    let name = "deliveries repeated, out of order and up to 48 h late, over a kill";
    let mut row = Row { runs: 1, ..Row::new("F10", name, seed) };
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new().with_receiver(Manner::Takes).await;
    // A rule that counts speaks as soon as it has counted enough, so what came before decides about what comes later than its source may
    // be; the reference reads events in the order of their times.
    world.compared = Compared::Single;
    let mut deliveries = Vec::new();
    for number in 0..batches {
        let late = LATE.get(usize::try_from(number % 12).unwrap()).filter(|_| number >= 12);
        let batch = match late {
            None => world.generator.batch(5),
            Some((seconds, late)) => world.generator.batch_of(25, Duration::from_secs(*seconds), *late),
        };
        deliveries.extend([batch.clone(), batch.clone(), batch]);
    }
    deliveries.shuffle(&mut random);
    let half = deliveries.split_off(deliveries.len() / 2);
    let mut signals_late = 0.0;
    for part in [deliveries, half] {
        let server = world.server();
        // What is late is so against what came before.
        world.generator.send(&server, 5).await;
        row.expect(server.ticked().await, "time does not go on");
        for (numbers, body) in part {
            let status = world.generator.send_again(&server, numbers, body).await;
            row.expect(status.is_some_and(|status| status.is_success()), "a delivery was refused");
        }
        server.settled().await;
        signals_late += server.metric("pipeproof_signals_late").await.unwrap_or(0.0);
        server.kill();
    }
    let server = world.server();
    world.account(&mut row, &server).await;
    let late = world.generator.late().len();
    row.say(format!(
        "{late} events later than a minute, {signals_late} signals counted as late; findings of single events compared"
    ));
    row
}

/// What it is, its headers, its body.
type Poison = (&'static str, Vec<(&'static str, &'static str)>, Vec<u8>);

fn bodies() -> Vec<Poison> {
    let gzip = |bytes: &[u8]| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let many_fields: serde_json::Map<_, _> = (0..200_000).map(|number| (format!("f{number}"), json!(1))).collect();
    vec![
        ("a line of 100 MB", vec![], vec![b'x'; 100 << 20]),
        ("10,000 levels", vec![], [vec![b'['; 10_000], vec![b']'; 10_000]].concat()),
        ("invalid UTF-8", vec![], b"{\"a\": \"\xff\xfe\xc0\"}".to_vec()),
        ("NUL bytes", vec![], vec![0; 10_000]),
        ("1e400", vec![], br#"{"a": 1e400, "b": -1e400}"#.to_vec()),
        ("duplicate keys", vec![], br#"{"action": "a", "action": "b", "action": "c"}"#.to_vec()),
        ("a gzip bomb 1000:1", vec![("content-encoding", "gzip")], gzip(&vec![b' '; 200 << 20])),
        ("200,000 fields", vec![], serde_json::to_vec(&many_fields).unwrap()),
        ("half a document", vec![], br#"{"action": "#.to_vec()),
        ("nothing", vec![], Vec::new()),
    ]
}

/// F11: events that are poison. Neighbours keep their pace, memory its bound.
pub(crate) async fn poison(seed: u64, long: bool) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F11", "poison events beside ordinary ones", seed) };
    let mut world = World::new().with_receiver(Manner::Takes).await;
    world.sources = "  - {name: poison, type: json}\n".to_owned();
    let server = world.server();
    let calm = Pace::of(&world, &server, 100, calm(long)).await.0;
    let before = server.usage().0;
    let mut most = before;
    let mut answers = Vec::new();
    let mut all = Pace { times: Vec::new(), refused: 0 };
    for (name, headers, body) in bodies() {
        let poison = server.ask_with(Method::POST, "/v1/events/poison", &headers, body);
        let (beside, answer) = Pace::of(&world, &server, 20, poison).await;
        let status = answer.map_or_else(|_| "connection closed".to_owned(), |reply| reply.status.as_u16().to_string());
        // Taken (as a dead letter where it means nothing), refused, or cut off: never an error of ours.
        row.expect(status == "connection closed" || !status.starts_with('5'), format!("{name} was answered {status}"));
        answers.push(format!("{name}: {status}, neighbours {}", beside.told(&calm)));
        most = most.max(server.usage().0);
        beside.judge(&mut row, &calm, name);
        all.times.extend(beside.times);
    }
    all.times.sort();
    if long {
        all.judge_slowest(&mut row, &calm, "all of them");
    }
    row.say(answers.join(", "));
    row.say(format!("memory {} MB, at most {} MB", before >> 20, most >> 20));
    row.expect(most < before + (700 << 20), "memory grew by more than 700 MB");
    world.account(&mut row, &server).await;
    row
}

/// How neighbours do: what each of their requests took, in order of length, and how many were not taken.
struct Pace {
    times: Vec<Duration>,
    refused: usize,
}

/// How long the pace without a fault is taken: over what is done now and then as well, such as appends to the lake, where slowest
/// requests are compared.
async fn calm(long: bool) {
    if long {
        tokio::time::sleep(Duration::from_secs(15)).await;
    }
}

/// A neighbour's request may take so many times as long as without the fault, at the median.
const SLOWER_AT_MOST: f64 = 5.0;
/// And at the 99th percentile, where nothing else runs.
const SLOWEST_AT_MOST: f64 = 2.0;
/// No request of a neighbour's may take longer: a tenth of what the least patient sender waits (GitHub: 10 s).
const LONGEST: Duration = Duration::from_secs(1);

impl Pace {
    /// Sends one small request after the other as long as `fault` takes, and `least` of them at least.
    async fn of<T>(world: &World, server: &Server, least: usize, fault: impl Future<Output = T>) -> (Self, T) {
        let over = AtomicBool::new(false);
        let neighbour = async {
            let mut pace = Self { times: Vec::new(), refused: 0 };
            while pace.times.len() < least || !over.load(Ordering::SeqCst) {
                let began = Instant::now();
                let sent = world.generator.send(server, 2).await;
                pace.times.push(began.elapsed());
                pace.refused += usize::from(!sent.is_some_and(|status| status.is_success()));
            }
            pace.times.sort();
            pace
        };
        let fault = async {
            let answer = fault.await;
            over.store(true, Ordering::SeqCst);
            answer
        };
        tokio::join!(neighbour, fault)
    }

    fn at(&self, percent: usize) -> Duration {
        self.times[(self.times.len() * percent / 100).min(self.times.len() - 1)]
    }

    fn ratio(&self, calm: &Self) -> f64 {
        self.at(50).as_secs_f64() / calm.at(50).as_secs_f64()
    }

    /// Its numbers beside those without the fault.
    fn told(&self, calm: &Self) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        format!(
            "{} requests, {} refused, median {:.1} ms ({:.1} × {:.1}), p99 {:.0} ms ({:.0})",
            self.times.len(),
            self.refused,
            ms(self.at(50)),
            self.ratio(calm),
            ms(calm.at(50)),
            ms(self.at(99)),
            ms(calm.at(99))
        )
    }

    /// What only a machine can show that has nothing else to do.
    fn judge_slowest(&self, row: &mut Row, calm: &Self, beside: &str) {
        let slowest = self.at(99).as_secs_f64() / calm.at(99).as_secs_f64();
        row.expect(
            slowest < SLOWEST_AT_MOST,
            format!("beside {beside}, p99 {slowest:.1} times as long: {}", self.told(calm)),
        );
    }

    fn judge(&self, row: &mut Row, calm: &Self, beside: &str) {
        row.expect(self.refused == 0, format!("beside {beside} {} requests were refused", self.refused));
        row.expect(self.ratio(calm) <= SLOWER_AT_MOST, format!("beside {beside}: {}", self.told(calm)));
        row.expect(self.at(100) <= LONGEST, format!("beside {beside} a request took {:?}", self.at(100)));
    }
}

/// A query is stopped after half a minute; this is that with room for a busy machine.
const QUERY_AT_MOST: Duration = Duration::from_secs(45);

/// F24: queries without end beside ingest.
pub(crate) async fn endless_queries(seed: u64, long: bool) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F24", "endless queries beside ingest", seed) };
    let mut world = World::new().with_receiver(Manner::Takes).await;
    let server = world.server();
    for _ in 0..20 {
        world.generator.send(&server, 100).await;
    }
    server.settled().await;
    let calm = Pace::of(&world, &server, 200, calm(long)).await.0;
    let queries = [
        "SELECT count(*) FROM events a CROSS JOIN events b CROSS JOIN events c CROSS JOIN events d",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
        "SELECT * FROM generate_series(1, 1000000000) ORDER BY 1 DESC",
    ];
    for query in queries {
        let began = Instant::now();
        let asked = server.post("/v1/sql", json!({ "query": query }));
        // As long as the query runs, and not for a moment of it.
        let (beside, answer) = Pace::of(&world, &server, 20, asked).await;
        let status = answer.map_or(0, |reply| reply.status.as_u16());
        let took = began.elapsed();
        row.expect(status == 400, format!("`{query}` was answered {status}"));
        row.expect(took < QUERY_AT_MOST, format!("`{query}` took {took:?}"));
        beside.judge(&mut row, &calm, query);
        if long {
            beside.judge_slowest(&mut row, &calm, query);
        }
        row.note_all(format!("{status} after {:.1} s, ingest beside it: {}", took.as_secs_f64(), beside.told(&calm)));
    }
    world.account(&mut row, &server).await;
    row
}
