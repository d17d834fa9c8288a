//! F23: who listens to the live stream and stops reading.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;

use crate::process::{PATIENCE, Server, wait};
use crate::receiver::Manner;
use crate::row::Row;
use crate::world::World;

const STALLED: u64 = 3;

/// Listeners that read nothing are let go, one that reads hears every event once and in order, and ingest does not notice.
pub(crate) async fn stalled(seed: u64) -> Row {
    let mut row = Row { runs: 1, ..Row::new("F23", "consumers of the live stream stall", seed) };
    // More than the buffers of a connection take.
    let mut world = World::new().padded(20_000).with_receiver(Manner::Takes).await;
    let server = world.server();
    world.generator.send(&server, 20).await;
    server.settled().await;
    let first = world.generator.sent().len() as u64;
    let deaf: Vec<TcpStream> = (0..STALLED).map(|_| open(&server)).collect();
    let heard = server.http.get(format!("{}/v1/tail?source=gen", server.url)).timeout(PATIENCE * 3);
    let mut heard = heard.bearer_auth(server.token()).send().await.unwrap().bytes_stream();

    let before = memory(&server);
    let stop = AtomicBool::new(false);
    let listen = async {
        let (mut rest, mut numbers, mut quiet) = (Vec::new(), Vec::new(), 0);
        loop {
            match tokio::time::timeout(Duration::from_secs(1), heard.next()).await {
                Ok(Some(Ok(piece))) => rest.extend_from_slice(&piece),
                Ok(_) => return numbers,
                // Nothing comes any more: it has heard all that was sent.
                Err(_) if stop.load(Ordering::SeqCst) && quiet >= 5 => return numbers,
                Err(_) => {
                    quiet += 1;
                    continue;
                }
            }
            quiet = 0;
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                numbers.push(event["native"]["ci.run_id"].as_str().unwrap().parse::<u64>().unwrap());
            }
        }
    };
    let end = async {
        let dropped = wait(PATIENCE, || async { dropped(&server).await == STALLED }).await;
        stop.store(true, Ordering::SeqCst);
        dropped
    };
    // One sender, so that the order of what was sent is that of the log.
    let (numbers, (), dropped) = tokio::join!(listen, world.generator.load(&server, 1, 10, &stop), end);
    row.expect(dropped, "who took nothing was not let go");
    let expected: Vec<u64> = (first..world.generator.sent().len() as u64).collect();
    row.expect(
        numbers == expected,
        format!("{} events were heard, {} sent, or in another order", numbers.len(), expected.len()),
    );
    row.say(format!(
        "{STALLED} of {STALLED} that took nothing were let go; another heard {} of {} events in order; memory {} → {} MB",
        numbers.len(),
        expected.len(),
        before >> 20,
        memory(&server) >> 20
    ));
    drop(deaf);
    world.account(&mut row, &server).await;
    row
}

/// Asks for the stream, and reads nothing.
fn open(server: &Server) -> TcpStream {
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /v1/tail HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n", server.token())
        .unwrap();
    stream
}

async fn dropped(server: &Server) -> u64 {
    let metrics = server.ask(reqwest::Method::GET, "/metrics", Vec::new()).await;
    let text = metrics.map(|reply| reply.text()).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("pipeproof_tail_listeners_dropped_total "));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn memory(server: &Server) -> u64 {
    server.usage().0
}
