//! Kafka over TLS and with SASL: a broker that kcat brings, behind a door that speaks TLS, asks for name and password, and
//! puts its own address into the broker's answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::harness::{Server, Setup, eventually};
use crate::real_senders::{arrives, broker, produce};
use crate::tls::{Authority, localhost};

/// Keys of the requests that come before a client is let in: what a broker can do, which mechanism, name and password.
const API_VERSIONS: [u8; 2] = [0, 18];
const SASL_HANDSHAKE: [u8; 2] = [0, 17];
const SASL_AUTHENTICATE: [u8; 2] = [0, 36];
/// What the door says to a wrong password: error 58, `SASL_AUTHENTICATION_FAILED`.
const WRONG: &str = "no such name and password";

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let read = |name: &str| std::fs::read(authority.path(name)).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&read("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// The door's port. `password` is the whole message of SASL PLAIN (RFC 4616) that lets a client in.
async fn door(authority: &Authority, upstream: u16, password: Option<&'static [u8]>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = acceptor(authority);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(client) = acceptor.accept(client).await else { return };
                let Ok(broker) = TcpStream::connect(("127.0.0.1", upstream)).await else { return };
                let (from_client, to_client) = tokio::io::split(client);
                let (from_broker, to_broker) = broker.into_split();
                let to_client = Arc::new(Mutex::new(to_client));
                let let_in = Arc::new(AtomicBool::new(password.is_none()));
                let back = answers(from_broker, Arc::clone(&to_client), Arc::clone(&let_in), (upstream, port));
                tokio::select! {
                    () = requests(from_client, to_broker, &to_client, &let_in, password) => {}
                    () = back => {}
                }
            });
        }
    });
    port
}

async fn frame(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let len = from.read_u32().await.ok()?;
    let mut frame = vec![0; usize::try_from(len).ok().filter(|len| *len < 16 << 20)?];
    from.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

async fn send(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> Option<()> {
    to.write_u32(u32::try_from(frame.len()).ok()?).await.ok()?;
    to.write_all(frame).await.ok()?;
    to.flush().await.ok()
}

/// Requests go to the broker once the client is let in. The broker does not know SASL: the door speaks it in its place.
async fn requests(
    mut client: impl AsyncRead + Unpin,
    mut broker: impl AsyncWrite + Unpin,
    to_client: &Mutex<impl AsyncWrite + Unpin>,
    let_in: &AtomicBool,
    password: Option<&[u8]>,
) {
    while let Some(request) = frame(&mut client).await {
        let sent = if let_in.load(Ordering::SeqCst) || request.starts_with(&API_VERSIONS) {
            send(&mut broker, &request).await
        } else {
            let number = &request[4..8];
            let answer = if request.starts_with(&SASL_HANDSHAKE) {
                // No error, one mechanism.
                [number, &[0, 0], &[0, 0, 0, 1], &[0, 5], b"PLAIN"].concat()
            } else if request.starts_with(&SASL_AUTHENTICATE) && password.is_some_and(|right| request.ends_with(right))
            {
                let_in.store(true, Ordering::SeqCst);
                [number, &[0, 0], &[0xff, 0xff], &[0, 0, 0, 0]].concat()
            } else {
                let length = u16::try_from(WRONG.len()).unwrap().to_be_bytes();
                [number, &[0, 58], &length, WRONG.as_bytes(), &[0, 0, 0, 0]].concat()
            };
            send(&mut *to_client.lock().await, &answer).await
        };
        if sent.is_none() {
            return;
        }
    }
}

async fn answers(
    mut broker: impl AsyncRead + Unpin,
    client: Arc<Mutex<impl AsyncWrite + Unpin>>,
    let_in: Arc<AtomicBool>,
    ports: (u16, u16),
) {
    let address = |port: u16| [&b"127.0.0.1"[..], &u32::from(port).to_be_bytes()].concat();
    let (own, ours) = (address(ports.0), address(ports.1));
    while let Some(mut answer) = frame(&mut broker).await {
        // Before SASL the only question is what the broker can do: SASL too, says the door. The list follows number and error.
        if !let_in.load(Ordering::SeqCst) && answer[4..6] == [0, 0] {
            let count = u32::from_be_bytes(answer[6..10].try_into().unwrap()) + 2;
            answer.splice(6..10, count.to_be_bytes());
            let range = |key: [u8; 2], newest: u8| [key[0], key[1], 0, 0, 0, newest];
            answer.splice(10..10, [range(SASL_HANDSHAKE, 1), range(SASL_AUTHENTICATE, 0)].concat());
        }
        let places: Vec<usize> =
            answer.windows(own.len()).enumerate().filter(|(_, part)| *part == own).map(|(at, _)| at).collect();
        for at in places {
            answer[at..at + ours.len()].copy_from_slice(&ours);
        }
        if send(&mut *client.lock().await, &answer).await.is_none() {
            return;
        }
    }
}

async fn tells(server: &Server, part: &str) {
    eventually(&format!("the log says {part:?}"), || async {
        server.log().iter().any(|line| line.contains(part)).then_some(())
    })
    .await;
}

/// A server that reads through a door, in a group of its own.
fn with(port: u16, security: &str) -> Server {
    Setup::new()
        .config(&format!(
            "sources:\n  - name: bus\n    type: json\n    reads: {{kafka: {{brokers: ['127.0.0.1:{port}'], topics: [audit], group: 'door-{port}', security: {{{security}}}}}}}\n"
        ))
        .env("EVENTHUB", "Endpoint=sb://acme.example/;SharedAccessKey=right")
        .env("WRONG", "Endpoint=sb://acme.example/;SharedAccessKey=wrong")
        .start()
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_read_over_tls_with_a_password_as_event_hubs_ask_for_it() {
    let Some((_running, brokers)) = broker() else { return };
    let upstream = brokers.rsplit_once(':').unwrap().1.parse().unwrap();
    let authority = Authority::new("brokers");
    authority.signs("server", "broker", 1, localhost());
    let ca = format!("ca: {}", authority.path("ca.pem").display());
    let events: Vec<String> = (0..20).map(|n| json!({"action": "kafka.event", "n": n}).to_string()).collect();
    produce(&brokers, &events);

    let encrypted = door(&authority, upstream, None).await;
    let server = with(encrypted, &ca);
    arrives(&server, "bus", 20).await;
    drop(server);

    let right = b"\0$ConnectionString\0Endpoint=sb://acme.example/;SharedAccessKey=right";
    let asking = door(&authority, upstream, Some(right)).await;
    let sasl = |password: &str| {
        format!("{ca}, sasl: {{mechanism: PLAIN, username: $ConnectionString, password: {{env: {password}}}}}")
    };
    let server = with(asking, &sasl("EVENTHUB"));
    let all = tokio::time::timeout(std::time::Duration::from_secs(40), arrives(&server, "bus", 20)).await;
    assert!(all.is_ok(), "{:#?}", server.log());
    assert!(server.log().iter().all(|line| !line.contains("SharedAccessKey")), "a password in the log");
    drop(server);
    // What is wrong is said in words that tell what to look at.
    let server = with(asking, &sasl("WRONG"));
    tells(&server, WRONG).await;
    assert!(server.log().iter().all(|line| !line.contains("SharedAccessKey")), "a password in the log");
    drop(server);
    let stranger = Authority::new("strangers");
    let server = with(encrypted, &format!("ca: {}", stranger.path("ca.pem").display()));
    tells(&server, "certificate verify failed").await;
    drop(server);
    authority.signs("server", "broker", 2, Vec::new());
    let nameless = door(&authority, upstream, None).await;
    let server = with(nameless, &ca);
    tells(&server, "certificate verify failed").await;
}

#[test]
fn settings_for_brokers_are_checked_before_anything_starts() {
    let folder = tempfile::TempDir::new().unwrap();
    let refused = |security: &str, part: &str| {
        let config = folder.path().join("p.yaml");
        let text = format!(
            "version: 1\nsources: [{{name: bus, type: json, reads: {{kafka: {{brokers: ['a:1'], topics: [t], security: {{{security}}}}}}}}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let data = folder.path().join("data").display().to_string();
        let output = crate::harness::run([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--config",
            &config.display().to_string(),
            "--data",
            &data,
        ]);
        let said = crate::harness::stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(part), "no {part:?} in {said}");
    };
    refused(
        "sasl: {mechanism: GSSAPI, username: u, password: {env: PATH}}",
        "none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
    );
    refused("sasl: {mechanism: PLAIN, username: u, password: {env: NOT_SET_AT_ALL}}", "NOT_SET_AT_ALL is not set");
    refused("sasl: {mechanism: PLAIN, username: u, password: x}", "");
    refused("cert: /c.pem", "cert and key go together");
    refused("ca: /ca.pem, allow_plaintext: true", "of no use");
    refused("protocol: ssl", "protocol");
}
