//! TLS: the server's certificate, client certificates as proof of a sender, reloads, syslog over TLS; with clients of others
//! where they are installed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Server, Setup, eventually, has_tool, left_out, token_of};

/// A folder with an authority, and what it signed.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Writes `NAME.pem` and `NAME.key`: a certificate whose common name is `subject`.
    pub(crate) fn signs(&self, name: &str, subject: &str, serial: u64, alternative: Vec<SanType>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.subject_alt_names = alternative;
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// Writes `crl.pem`, on which stands the certificate with this serial number.
    fn revokes(&self, serial: u64) {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2096, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        std::fs::write(self.path("crl.pem"), list.pem().unwrap()).unwrap();
    }

    /// A client that trusts this authority alone, with a certificate of `NAME`.
    pub(crate) fn client(&self, name: Option<&str>) -> reqwest::Client {
        let authority = reqwest::Certificate::from_pem(self.text("ca.pem").as_bytes()).unwrap();
        let mut client = reqwest::Client::builder().tls_certs_only([authority]).pool_max_idle_per_host(0);
        if let Some(name) = name {
            let pem = format!("{}{}", self.text(&format!("{name}.key")), self.text(&format!("{name}.pem")));
            client = client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        client.build().unwrap()
    }
}

pub(crate) fn localhost() -> Vec<SanType> {
    vec![SanType::IpAddress("127.0.0.1".parse().unwrap())]
}

fn uri(id: &str) -> Vec<SanType> {
    vec![SanType::URI(id.try_into().unwrap())]
}

fn dns(name: &str) -> Vec<SanType> {
    vec![SanType::DnsName(name.try_into().unwrap())]
}

async fn post(client: &reqwest::Client, server: &Server, path: &str, body: &str) -> Result<u16, reqwest::Error> {
    let request = client.post(format!("{}{path}", server.public_url())).header("content-type", "application/json");
    Ok(request.body(body.to_owned()).send().await?.status().as_u16())
}

/// A server with an authority of clients, three sources that name theirs, and one that does not.
fn with_clients(authority: &Authority) -> Server {
    authority.signs("server", "server", 1, localhost());
    authority.revokes(99);
    let folder = authority.folder.path().display();
    Setup::new()
        .config(&format!(
            "tls: {{cert: {folder}/server.pem, key: {folder}/server.key, client_ca: {folder}/ca.pem, client_crl: {folder}/crl.pem}}\n\
             sources:\n\
             - {{name: shipped, type: json, identity: {{client_certificate: {{subject: CN=shipper}}}}}}\n\
             - {{name: pods, type: json, identity: {{client_certificate: {{spiffe: 'spiffe://acme.example/ns/ci/*'}}}}}}\n\
             - {{name: named, type: otlp, identity: {{client_certificate: {{san: ship.acme.example}}}}}}\n\
             - {{name: open, type: json}}\n"
        ))
        .start()
}

#[tokio::test]
async fn a_client_certificate_proves_the_sender_of_the_source_that_names_it() {
    let authority = Authority::new("clients");
    authority.signs("shipper", "shipper", 2, Vec::new());
    authority.signs("pod", "pod", 3, uri("spiffe://acme.example/ns/ci/sa/build"));
    authority.signs("other-pod", "pod", 4, uri("spiffe://acme.example/ns/prod/sa/build"));
    authority.signs("named", "any", 5, dns("ship.acme.example"));
    authority.signs("revoked", "shipper", 99, Vec::new());
    let server = with_clients(&authority);
    assert!(server.public_url().starts_with("https://"), "{}", server.public_url());
    let send =
        async |name: Option<&str>, path: &str, body: &str| post(&authority.client(name), &server, path, body).await;
    let event = |id: u32| json!({"id": id, "action": "x"}).to_string();
    assert_eq!(send(Some("shipper"), "/v1/events/shipped", &event(1)).await.unwrap(), 200);
    assert_eq!(send(Some("pod"), "/v1/events/pods", &event(2)).await.unwrap(), 200);
    // Nobody, somebody else, and somebody where nobody is named.
    assert_eq!(send(None, "/v1/events/shipped", &event(3)).await.unwrap(), 401);
    assert_eq!(send(Some("other-pod"), "/v1/events/pods", &event(4)).await.unwrap(), 401);
    assert_eq!(send(Some("pod"), "/v1/events/shipped", &event(5)).await.unwrap(), 401);
    assert_eq!(send(Some("shipper"), "/v1/events/open", &event(6)).await.unwrap(), 401);
    // An address that names no source: the certificate does.
    let logs =
        json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "by certificate"}}]}]}]});
    assert_eq!(send(Some("named"), "/v1/logs", &logs.to_string()).await.unwrap(), 200);
    assert_eq!(send(Some("other-pod"), "/v1/logs", &logs.to_string()).await.unwrap(), 401);
    // It lets nobody read.
    assert_eq!(
        authority
            .client(Some("shipper"))
            .get(format!("{}/v1/findings", server.public_url()))
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    assert!(send(Some("revoked"), "/v1/events/shipped", &event(7)).await.is_err(), "a revoked certificate");
    // A certificate of another authority is no certificate at all.
    let stranger = Authority::new("strangers");
    stranger.signs("shipper", "shipper", 1, Vec::new());
    std::fs::write(stranger.path("ca.pem"), authority.text("ca.pem")).unwrap();
    assert!(post(&stranger.client(Some("shipper")), &server, "/v1/events/shipped", &event(8)).await.is_err());

    server.settled().await;
    let rows = server.sql("SELECT source, auth, key_id FROM events WHERE source IN ('shipped', 'pods', 'named') AND sub = 0 ORDER BY source").await;
    assert_eq!(rows.iter().map(|row| row[0].as_str().unwrap()).collect::<Vec<_>>(), ["named", "pods", "shipped"]);
    for row in &rows {
        assert_eq!(row[1], "mtls", "{row:?}");
        let key = row[2].as_str().unwrap();
        assert!(key.starts_with("sha256:") && key.len() == 71, "{key}");
    }
    assert_eq!(server.count("SELECT count(*) FROM events WHERE source = 'open'").await, 0);
    let metrics = server.api(reqwest::Method::GET, "/metrics", None).await.text();
    assert!(metrics.contains("pipeproof_tls_handshakes_failed_total{endpoint=\"server\"} 2"), "{metrics}");
    assert!(metrics.contains("pipeproof_tls_certificate_not_after_seconds{endpoint=\"server\"}"), "{metrics}");
}

#[tokio::test]
async fn a_certificate_is_replaced_while_connections_go_on_and_a_broken_one_is_not_taken() {
    let authority = Authority::new("clients");
    let server = with_clients(&authority);
    let token = server.sender("open");
    let bearer = format!("Bearer {token}");
    // One connection that stays: kept alive by a client with a pool.
    let kept = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(authority.text("ca.pem").as_bytes()).unwrap()])
        .build()
        .unwrap();
    let send = async |client: &reqwest::Client, id: u32| {
        let request = client.post(format!("{}/v1/events/open", server.public_url())).header("authorization", &bearer);
        request.body(json!({"id": id}).to_string()).send().await.map(|answer| answer.status().as_u16())
    };
    assert_eq!(send(&kept, 1).await.unwrap(), 200);
    // Another authority's certificate takes its place.
    let next = Authority::new("next");
    next.signs("server", "server", 1, localhost());
    for name in ["server.pem", "server.key"] {
        std::fs::write(authority.path(name), next.text(name)).unwrap();
    }
    server.signal("HUP");
    eventually("the new certificate is presented", || async { send(&next.client(None), 2).await.ok() }).await;
    assert!(send(&authority.client(None), 3).await.is_err(), "the old one is still presented");
    assert_eq!(send(&kept, 4).await.unwrap(), 200, "a connection that was open goes on");
    // A key that does not belong to it changes nothing, and is seen.
    std::fs::write(authority.path("server.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    server.signal("HUP");
    eventually("the broken file is told", || async {
        let trouble = server.get("/v1/status").await["configuration_trouble"].clone();
        trouble.as_str().is_some_and(|text| text.contains("server.key")).then_some(())
    })
    .await;
    assert_eq!(send(&next.client(None), 5).await.unwrap(), 200);
    // A client that says nothing holds up nobody.
    let address = server.public_url().strip_prefix("https://").unwrap().to_owned();
    let silent: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert_eq!(send(&next.client(None), 6).await.unwrap(), 200);
    drop(silent);
    // Plain HTTP on the same port is answered by nothing.
    let mut plain = TcpStream::connect(&address).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    drop(plain.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
    // Commands on this machine need no certificate.
    assert!(
        server.cli_json(&["sources", "list"])["sources"].is_array() || server.cli_json(&["sources", "list"]).is_array()
    );
}

#[tokio::test]
async fn curl_and_openssl_speak_to_it() {
    let authority = Authority::new("clients");
    authority.signs("shipper", "shipper", 2, Vec::new());
    let server = with_clients(&authority);
    let file = |name: &str| authority.path(name).display().to_string();
    if has_tool("curl") {
        let curl = |with: &[&str]| {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{ssl_verify_result}"]);
            curl.args(["--cacert", &file("ca.pem"), "-d", "{\"id\":1}"]).args(with);
            let output = curl.arg(format!("{}/v1/events/shipped", server.public_url())).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let certificate = ["--cert", &file("shipper.pem"), "--key", &file("shipper.key")];
        assert_eq!(curl(&certificate), "200 0");
        assert_eq!(curl(&[&certificate[..], &["--tls-max", "1.2"]].concat()), "200 0");
        assert_eq!(curl(&[]), "401 0");
        assert_eq!(curl(&["--tls-max", "1.1"]).split(' ').next(), Some("000"), "TLS 1.1 is refused");
    } else {
        left_out("curl with a client certificate", "it is not installed");
    }
    if has_tool("openssl") {
        let address = server.public_url().strip_prefix("https://").unwrap();
        let output = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                address,
                "-CAfile",
                &file("ca.pem"),
                "-verify_return_error",
                "-alpn",
                "h2,http/1.1",
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        for part in ["Verification: OK", "ALPN protocol: http/1.1", "CN = clients"] {
            assert!(said.contains(part), "no {part:?} in {said}");
        }
    } else {
        left_out("openssl s_client", "it is not installed");
    }
}

#[test]
fn what_cannot_be_used_is_refused_at_the_start_with_the_file_named() {
    let authority = Authority::new("clients");
    authority.signs("a", "a", 1, localhost());
    authority.signs("b", "b", 2, localhost());
    let folder = authority.folder.path();
    let start = |yaml: &str| {
        let config = folder.join("p.yaml");
        std::fs::write(&config, format!("version: 1\n{yaml}")).unwrap();
        let data = folder.join("data");
        crate::harness::run([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--config",
            &config.display().to_string(),
            "--data",
            &data.display().to_string(),
        ])
    };
    let at = |name: &str| folder.join(name).display().to_string();
    let refused = |yaml: String, part: &str| {
        let output = start(&yaml);
        crate::harness::expect_exit(&output, 3);
        let said = crate::harness::stderr(&output);
        assert!(said.contains(part), "no {part:?} in {said}");
    };
    refused(format!("tls: {{cert: {}, key: {}}}", at("a.pem"), at("b.key")), "b.key cannot be used together");
    refused(format!("tls: {{cert: {}, key: {}}}", at("none.pem"), at("b.key")), "none.pem");
    refused(format!("tls: {{cert: {}, key: {}}}", at("a.key"), at("a.key")), "a.key holds no certificate");
    refused(
        format!("tls: {{cert: {}, key: {}, client_ca: {}}}", at("a.pem"), at("a.key"), at("a.key")),
        "a.key holds no certificate",
    );
    refused(
        format!("tls: {{cert: {}, key: {}, require_client_certificate: true}}", at("a.pem"), at("a.key")),
        "needs client_ca",
    );
    let source = "sources: [{name: x, type: json, identity: {client_certificate: {subject: CN=a}}}]";
    refused(source.to_owned(), "nobody asks for one");
    refused(source.replace("CN=a", "a"), "distinguished name");
    refused("sources: [{name: x, type: json, identity: {email: a}}]".to_owned(), "identity.audience");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server with two syslog listeners over TLS: with and without client certificates.
fn with_syslog(authority: &Authority) -> (Server, u16, u16) {
    authority.signs("server", "server", 1, localhost());
    let folder = authority.folder.path().display();
    let files = format!("cert: {folder}/server.pem, key: {folder}/server.key");
    let (open, proven) = (free_port(), free_port());
    let server = Setup::new()
        .config(&format!(
            "sources:\n\
             - {{name: anybody, type: json, reads: {{syslog: {{listen: '0.0.0.0:{open}', tls: {{{files}}}}}}}}}\n\
             - name: known\n  type: json\n  identity: {{client_certificate: {{subject: CN=shipper}}}}\n  \
             reads: {{syslog: {{listen: '127.0.0.1:{proven}', tls: {{{files}, client_ca: {folder}/ca.pem}}}}}}\n"
        ))
        .start();
    (server, open, proven)
}

/// What `openssl s_client` sends of a text, with a certificate of `NAME`.
fn openssl_sends(authority: &Authority, port: u16, name: Option<&str>, text: &str) {
    let file = |name: &str| authority.path(name).display().to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-no_ign_eof", "-connect", &format!("127.0.0.1:{port}")]);
    command.args(["-CAfile", &file("ca.pem"), "-verify_return_error"]);
    if let Some(name) = name {
        command.args(["-cert", &file(&format!("{name}.pem")), "-key", &file(&format!("{name}.key"))]);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Who is refused may be cut off before.
    drop(child.stdin.take().unwrap().write_all(text.as_bytes()));
    drop(child.wait());
}

async fn arrives(server: &Server, source: &str, count: i64) {
    eventually(&format!("{count} events of {source}"), || async {
        server.settled().await;
        let query = format!("SELECT count(*) FROM events WHERE source = '{source}' AND sub = 0");
        (server.count(&query).await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn syslog_over_tls_takes_counted_messages_and_knows_the_sender_by_its_certificate() {
    if !has_tool("openssl") {
        return left_out("syslog over TLS by openssl", "it is not installed");
    }
    let authority = Authority::new("clients");
    authority.signs("shipper", "shipper", 2, Vec::new());
    authority.signs("other", "other", 3, Vec::new());
    let (server, open, proven) = with_syslog(&authority);
    let message = |n: u32| {
        let text = format!("<13>1 2026-11-26T10:00:0{n}Z host app - - - {{\"id\":{n},\"action\":\"x\"}}");
        format!("{} {text}", text.len())
    };
    openssl_sends(&authority, open, None, &(message(1) + &message(2)));
    arrives(&server, "anybody", 2).await;
    openssl_sends(&authority, proven, Some("shipper"), &message(3));
    arrives(&server, "known", 1).await;
    for stranger in [None, Some("other")] {
        openssl_sends(&authority, proven, stranger, &message(4));
    }
    eventually("the other sender is cut off", || async {
        server.log().iter().any(|line| line.contains("does not accept")).then_some(())
    })
    .await;
    server.settled().await;
    let rows = server.sql("SELECT source, auth, count(*) FROM events WHERE source IN ('anybody', 'known') AND sub = 0 GROUP BY 1, 2 ORDER BY 1").await;
    assert_eq!(rows, [[json!("anybody"), json!("unverified"), json!(2)], [json!("known"), json!("mtls"), json!(1)]]);
}

#[tokio::test]
async fn rsyslog_forwards_over_tls_with_its_certificate() {
    let driver = ["/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_ossl.so", "/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so"];
    let Some(driver) = driver.iter().find(|path| Path::new(path).exists()) else {
        return left_out("rsyslog over TLS", "rsyslog-gnutls or rsyslog-openssl is not installed");
    };
    if !has_tool("rsyslogd") {
        return left_out("rsyslog over TLS", "rsyslogd is not installed");
    }
    let driver = if driver.contains("ossl") { "ossl" } else { "gtls" };
    let authority = Authority::new("clients");
    authority.signs("shipper", "shipper", 2, Vec::new());
    let (server, _, proven) = with_syslog(&authority);
    let folder = authority.folder.path();
    let at = folder.display();
    std::fs::create_dir(folder.join("spool")).unwrap();
    let input = folder.join("in.log");
    std::fs::write(&input, "").unwrap();
    let config = format!(
        "global(workDirectory=\"{at}/spool\" defaultNetstreamDriver=\"{driver}\" defaultNetstreamDriverCAFile=\"{at}/ca.pem\"\n\
         defaultNetstreamDriverCertFile=\"{at}/shipper.pem\" defaultNetstreamDriverKeyFile=\"{at}/shipper.key\")\n\
         module(load=\"imfile\" mode=\"polling\" pollingInterval=\"1\")\n\
         input(type=\"imfile\" File=\"{}\" Tag=\"audit:\" Severity=\"info\" Facility=\"local0\" freshStartTail=\"off\")\n\
         action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{proven}\" protocol=\"tcp\" tcpFraming=\"octet-counted\"\n\
         template=\"RSYSLOG_SyslogProtocol23Format\" streamDriver=\"{driver}\" streamDriverMode=\"1\" streamDriverAuthMode=\"x509/certvalid\")\n",
        input.display()
    );
    std::fs::write(folder.join("rsyslog.conf"), config).unwrap();
    let mut rsyslog = Command::new("rsyslogd")
        .args(["-n", "-i", &format!("{at}/pid"), "-f", &format!("{at}/rsyslog.conf")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::fs::write(&input, "{\"id\":1,\"action\":\"x\"}\n{\"id\":2,\"action\":\"x\"}\n").unwrap();
    arrives(&server, "known", 2).await;
    drop(rsyslog.kill());
    drop(rsyslog.wait());
    let rows = server.sql("SELECT DISTINCT auth FROM events WHERE source = 'known'").await;
    assert_eq!(rows, [[json!("mtls")]]);
}

#[tokio::test]
async fn tokens_still_work_over_tls_from_the_command_line_options() {
    let authority = Authority::new("clients");
    authority.signs("server", "server", 1, localhost());
    let (cert, key) = (authority.path("server.pem"), authority.path("server.key"));
    let server = Setup::new()
        .args(&["--tls-cert", &cert.display().to_string(), "--tls-key", &key.display().to_string()])
        .start();
    let token = token_of(&server.add_source("any", "json", &[]));
    let request = authority.client(None).post(format!("{}/v1/events/any", server.public_url()));
    let answer = request.header("authorization", format!("Bearer {token}")).body("{\"id\":1}").send().await.unwrap();
    assert_eq!(answer.status(), 200);
}
