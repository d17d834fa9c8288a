//! A configuration that is read again while it runs: ways in start and end, and what cannot be had changes nothing.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Server, Setup, eventually, items};

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Has the server read another configuration.
fn read_again(server: &Server, sources: &str) {
    let text = format!("version: 1\narchive_every: 1s\nsources:\n{sources}");
    std::fs::write(server.data().with_extension("yaml"), text).unwrap();
    server.signal("HUP");
}

async fn told(server: &Server, source: &str) -> Value {
    let sources = items(&server.get("/v1/sources").await, "sources");
    sources.into_iter().find(|one| one["name"] == source).unwrap_or_default()
}

fn append(path: &Path, action: &str) {
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{}", json!({ "action": action })).unwrap();
}

async fn arrives(server: &Server, source: &str, action: &str) {
    eventually(&format!("{action} of {source}"), || async {
        server.actions(source).await.contains_key(action).then_some(())
    })
    .await;
}

fn say(port: u16, action: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    say_on(&mut stream, action);
    stream
}

fn say_on(stream: &mut TcpStream, action: &str) {
    writeln!(stream, "<13>1 2026-11-26T00:00:00Z host app - - - {}", json!({ "action": action })).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ways_in_start_and_end_with_the_configuration() {
    let folder = tempfile::TempDir::new().unwrap();
    let (one, two) = (folder.path().join("one.log"), folder.path().join("two.log"));
    let (kept, gone, new) = (free_port(), free_port(), free_port());
    let files = |name: &str, path: &Path| {
        format!("  - {{name: {name}, type: json, reads: {{files: ['{}']}}}}\n", path.display())
    };
    let syslog = |name: &str, port: u16| {
        format!("  - {{name: {name}, type: json, reads: {{syslog: {{listen: '127.0.0.1:{port}'}}}}}}\n")
    };
    let before = [files("first", &one), syslog("kept", kept), syslog("gone", gone)].concat();
    let server = Setup::new().config(&format!("sources:\n{before}")).start();
    append(&one, "first.before");
    arrives(&server, "first", "first.before").await;
    let mut open = say(kept, "kept.before");
    arrives(&server, "kept", "kept.before").await;
    let ending = say(gone, "gone.before");
    arrives(&server, "gone", "gone.before").await;

    read_again(&server, &[files("second", &two), syslog("kept", kept), syslog("new", new)].concat());
    append(&two, "second.after");
    arrives(&server, "second", "second.after").await;
    drop(say(new, "new.after"));
    arrives(&server, "new", "new.after").await;
    // What stays is not touched, and who is connected to it goes on.
    say_on(&mut open, "kept.after");
    arrives(&server, "kept", "kept.after").await;
    // What is not named any more ends: nobody listens there, and what was open is closed.
    assert_eq!(told(&server, "first").await["inputs"], Value::Null);
    assert_eq!(told(&server, "second").await["inputs"][0]["state"], "ok");
    eventually("nobody listens any more", || async { TcpStream::connect(("127.0.0.1", gone)).is_err().then_some(()) })
        .await;
    eventually("the connection is closed", || async {
        let mut said = Ok(());
        for _ in 0..2 {
            said = writeln!(&ending, "<13>1 - host app - - - x");
        }
        said.is_err().then_some(())
    })
    .await;
    append(&one, "first.after");

    // Named again, it goes on where it was.
    read_again(&server, &[files("first", &one), syslog("other", kept)].concat());
    arrives(&server, "first", "first.after").await;
    assert_eq!(server.actions("first").await["first.before"], 1);
    // Another source takes over where one listened.
    drop(say(kept, "other.after"));
    arrives(&server, "other", "other.after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_of_which_a_part_cannot_be_had_changes_nothing() {
    let folder = tempfile::TempDir::new().unwrap();
    let log = folder.path().join("one.log");
    let files = format!("  - {{name: first, type: json, reads: {{files: ['{}']}}}}\n", log.display());
    let server = Setup::new().config(&format!("sources:\n{files}")).start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let late = "  - {name: late, type: json}\n".to_owned();
    let listens = format!("  - {{name: busy, type: json, reads: {{syslog: {{listen: '127.0.0.1:{port}'}}}}}}\n");
    read_again(&server, &[late.as_str(), &listens].concat());
    let trouble = eventually("it is refused", || async {
        let trouble = server.get("/v1/status").await["configuration_trouble"].clone();
        trouble.is_string().then_some(trouble)
    })
    .await;
    assert!(trouble.as_str().unwrap().contains("listen for syslog"), "{trouble}");
    for source in ["late", "busy"] {
        assert_eq!(told(&server, source).await, Value::Null, "{source} is known although nothing is in force");
    }
    // The old set is in force, its inputs too.
    append(&log, "first.on");
    arrives(&server, "first", "first.on").await;
    // Once it can be had, all of it is.
    drop(taken);
    read_again(&server, &[late.as_str(), &listens].concat());
    eventually("it is in force", || async {
        server.get("/v1/status").await["configuration_trouble"].is_null().then_some(())
    })
    .await;
    drop(say(port, "busy.on"));
    arrives(&server, "busy", "busy.on").await;
}
