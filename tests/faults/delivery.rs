//! Receivers that fail: what is to be delivered is, and nobody else waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::process::wait;
use crate::receiver::Manner;
use crate::row::Row;
use crate::world::World;

/// What is wrong with a receiver that takes nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bad {
    /// It never answers.
    BlackHole,
    /// Its answer comes a byte a second.
    Trickles,
    /// It sends everybody elsewhere: to itself, again and again.
    Redirects,
    /// Its name means no address.
    Nameless,
}

impl Bad {
    const fn name(self) -> &'static str {
        match self {
            Self::BlackHole => "never answers",
            Self::Trickles => "answers a byte a second",
            Self::Redirects => "redirects without end",
            Self::Nameless => "has a name without an address",
        }
    }

    /// Its URL, and how often it was called.
    async fn start(self) -> (String, Arc<AtomicU64>) {
        let calls = Arc::new(AtomicU64::new(0));
        if matches!(self, Self::Nameless) {
            return ("http://receiver.invalid/hook".to_owned(), calls);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (counted, here) = (Arc::clone(&calls), url.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(self.answer(stream, here.clone()));
            }
        });
        (url, calls)
    }

    async fn answer(self, mut stream: TcpStream, here: String) {
        // Until it is read, writing an answer and closing would reset the connection. Who follows a redirect asks here again.
        let mut request = vec![0; 64 << 10];
        while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
            match self {
                Self::BlackHole | Self::Nameless => tokio::time::sleep(Duration::from_secs(3_600)).await,
                Self::Redirects => {
                    let answer =
                        format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {here}\r\ncontent-length: 0\r\n\r\n");
                    let _gone = stream.write_all(answer.as_bytes()).await;
                }
                Self::Trickles => {
                    for byte in b"HTTP/1.1 204 No Content\r\n".iter().chain(std::iter::repeat(&b'x')) {
                        if stream.write_all(&[*byte]).await.is_err() {
                            return;
                        }
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }
    }
}

/// F13: one target takes nothing; the other gets everything meanwhile.
pub(crate) async fn beside(seed: u64, bad: Bad) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F13", &format!("one of two receivers {}", bad.name()), seed) };
    let (url, calls) = bad.start().await;
    let mut world = World::new().with_receiver(Manner::Takes).await;
    // Stands under `targets:` of the world's own configuration.
    world.extra = format!("  - {{name: hole, url: '{url}', secrets: [{{env: FAULTS_SECRET}}], allow_private: true}}\n");
    world.has_hole = true;
    let server = world.server();
    let receiver = world.receiver.as_ref().map(|(receiver, _)| receiver.clone()).unwrap();
    let began = Instant::now();
    for _ in 0..10 {
        world.generator.send(&server, 25).await;
    }
    // One event in 25 is found at once, by itself.
    let delivered = wait(Duration::from_secs(20), || async { receiver.taken().len() >= 10 }).await;
    row.expect(delivered, "the other receiver waited");
    row.say(format!("10 findings told {:.1} s after the first event", began.elapsed().as_secs_f64()));
    world.account(&mut row, &server).await;
    let required = row.alerts_required;
    // What was not taken still waits, over a kill as well.
    server.kill();
    let server = world.server();
    // A redirect is never followed, and an answer that will not change: such a message is put aside, to be sent again by hand.
    let aside = matches!(bad, Bad::Redirects);
    let kept = async || {
        if aside {
            return server.number("deliveries_dead").await;
        }
        server.number("deliveries_queued").await + server.number("deliveries_retry").await
    };
    // What was not queued before the kill is queued after it.
    wait(Duration::from_secs(20), || async { kept().await >= required }).await;
    let kept = kept().await;
    let how = if aside { "are put aside" } else { "wait" };
    row.expect(kept == required, format!("{kept} of {required} {how} for the one that takes nothing"));
    let calls = calls.load(Ordering::SeqCst);
    row.expect(calls > 0 || matches!(bad, Bad::Nameless), "it was never tried");
    row.say(format!("{kept} {how} for the one that takes nothing, {calls} connections to it"));
    row
}

/// F14: it fails, or takes and does not say so, before it takes.
pub(crate) async fn failing(seed: u64, manner: Manner) -> Row {
    let name = match manner {
        Manner::FailsFirst(times) => format!("the receiver answers 500 for {times} attempts"),
        _ => "the receiver takes a message and does not answer in time".to_owned(),
    };
    let mut row = Row { runs: 1, ..Row::new("F14", &name, seed) };
    let mut world = World::new().with_receiver(manner).await;
    let server = world.server();
    // So many messages that each need not fail for hours.
    for _ in 0..12 {
        world.generator.send(&server, 100).await;
    }
    server.settled().await;
    let receiver = world.receiver.as_ref().map(|(receiver, _)| receiver.clone()).unwrap();
    let required = server.number("messages").await;
    // Messages of one incident keep their order: all wait for the first. What waits for a quarter of an hour waits for half a
    // second here.
    let (mut ahead, began) = (0, Instant::now());
    while (receiver.taken().len() as u64) < required && began.elapsed() < Duration::from_secs(150) {
        ahead += 901;
        world.move_clock(ahead);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    row.say(format!(
        "{} attempts for {required} messages; the clock was moved on by {} minutes meanwhile",
        receiver.attempts(),
        ahead / 60
    ));
    world.account(&mut row, &server).await;
    row.expect(row.alerts_required > 0, "nothing was to be delivered");
    row
}
