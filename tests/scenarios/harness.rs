//! A real pipeproof: the built binary as its own process, real HTTP on a free port, real files in a temporary folder.
//!
//! Waiting is always polling with a limit; nothing here sleeps for a guessed time.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac as _};
use pipeproof_engine::clock::{Clock as _, SystemClock};
use pipeproof_engine::time::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sha2::Sha256;
use tempfile::TempDir;

/// How long anything may take before a test gives up. Generous: two cores run many servers at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How many lines of a server's log a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// The present time.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// A file under `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read fixture {}: {error}", path.display()))
}

/// A JSON file under `tests/fixtures`.
pub(crate) fn json_fixture(name: &str) -> Value {
    serde_json::from_slice(&fixture(name)).unwrap()
}

/// The documents of an NDJSON file under `tests/fixtures`.
pub(crate) fn ndjson_fixture(name: &str) -> Vec<Value> {
    let bytes = fixture(name);
    std::str::from_utf8(&bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The program, ready for arguments, without settings from the environment of whoever runs the tests.
pub(crate) fn program() -> Command {
    program_under(&[])
}

/// The same, started by another program: its name and its arguments before ours.
fn program_under(words: &[String]) -> Command {
    let mut all = words.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_pipeproof")]);
    let mut command = Command::new(all.next().unwrap_or_default());
    command.args(all);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PIPEPROOF_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) fn run<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(args: I) -> Output {
    program().args(args).output().expect("the program starts")
}

/// What a finished run wrote to stdout.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a finished run wrote to stderr.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts the exit code and shows everything where it is another.
#[track_caller]
pub(crate) fn expect_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "exit code; stdout:\n{}\nstderr:\n{}", stdout(output), stderr(output));
}

/// A JSON document on stdout.
#[track_caller]
pub(crate) fn json_out(output: &Output) -> Value {
    expect_exit(output, 0);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {}", stdout(output)))
}

/// An answer of the server.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} with a body that is no JSON ({error}): {}", self.status, self.text()))
    }

    /// `error.code` of a refusal; asserts that it has a message too.
    #[track_caller]
    pub(crate) fn error_code(&self) -> String {
        let body = self.json();
        assert!(
            body["error"]["message"].as_str().is_some_and(|message| message.len() > 8),
            "a refusal explains itself: {body}"
        );
        body["error"]["code"].as_str().unwrap_or_else(|| panic!("no error code in {body}")).to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }
}

/// What servers under test run with unless a test says otherwise: the defaults, but the lake takes in events every second.
const BRISK: &str = "version: 1\narchive_every: 1s\n";

/// How a server is started.
pub(crate) struct Setup {
    config: Option<String>,
    data: Option<PathBuf>,
    env: Vec<(String, String)>,
    under: Vec<String>,
    args: Vec<String>,
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Where commands of the same machine find it: plain HTTP.
    url: String,
    /// What it says it listens on.
    public: String,
    data: PathBuf,
    /// Keeps a folder of our own alive.
    _own: Option<TempDir>,
    log: Arc<Mutex<Vec<String>>>,
    http: reqwest::Client,
    admin: String,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self { config: Some(BRISK.to_owned()), data: None, env: Vec::new(), args: Vec::new(), under: Vec::new() }
    }

    /// Starts with this added to the configuration; `{data}` in it is the data folder.
    pub(crate) fn config(mut self, yaml: &str) -> Self {
        self.config = Some(format!("{BRISK}{yaml}"));
        self
    }

    /// Starts without a configuration file.
    pub(crate) fn without_config(mut self) -> Self {
        self.config = None;
        self
    }

    /// Starts with further arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Is started by another program, which becomes it: its name and its arguments before ours.
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts on a folder that outlives the server.
    pub(crate) fn on(mut self, data: &Path) -> Self {
        self.data = Some(data.to_owned());
        self
    }

    pub(crate) fn start(self) -> Server {
        let own = self.data.is_none().then(|| TempDir::new().unwrap());
        let data = self.data.clone().unwrap_or_else(|| own.as_ref().unwrap().path().join("data"));
        let mut command = program_under(&self.under);
        command.arg("serve").args(["--listen", "127.0.0.1:0"]);
        if let Some(config) = &self.config {
            let path = data.with_extension("yaml");
            std::fs::write(&path, config.replace("{data}", &data.display().to_string())).unwrap();
            command.arg("--config").arg(path);
        }
        command.arg("--data").arg(&data).args(&self.args);
        command.envs(self.env).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, address) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("listening on ") {
                    let url = url.split(['"', ' ', ',']).next().unwrap_or(url);
                    drop(ready.send(url.to_owned()));
                }
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let url = address.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            drop(child.kill());
            panic!("the server did not become ready: {:#?}", log.lock().unwrap_or_else(PoisonError::into_inner))
        });
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        let public = url.clone();
        let url = if public.starts_with("https://") { local_url(&data) } else { url };
        let mut server = Server { child, url, public, data, _own: own, log, http, admin: String::new() };
        server.admin = server.token(&["admin"], &[]);
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let last = log.get(log.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default();
            eprintln!(
                "the last {} of {} lines of the server on {}:\n{}",
                last.len(),
                log.len(),
                self.url,
                last.join("\n")
            );
        }
    }
}

impl Server {
    /// A server on a fresh folder with embedded defaults.
    pub(crate) fn start() -> Self {
        Setup::new().start()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens for senders: the same, or TLS.
    pub(crate) fn public_url(&self) -> &str {
        &self.public
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// What the operating system says of its memory, MiB: `VmHWM` is the most there ever was.
    pub(crate) fn memory(&self, of: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    }

    /// Lines of stderr so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a command against the folder of this server.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        program().args(args).arg("--data").arg(&self.data).output().expect("the program starts")
    }

    /// Runs a command that must succeed and print JSON.
    #[track_caller]
    pub(crate) fn cli_json(&self, args: &[&str]) -> Value {
        json_out(&self.cli(&[args, &["--format", "json"]].concat()))
    }

    /// Creates a token; `extra` is passed to `token create`.
    #[track_caller]
    pub(crate) fn token(&self, scopes: &[&str], extra: &[&str]) -> String {
        let mut args = vec!["token", "create"];
        for scope in scopes {
            args.extend(["--scope", scope]);
        }
        args.extend(extra);
        let output = self.cli(&args);
        expect_exit(&output, 0);
        let text = stdout(&output);
        let token = text.trim_end_matches('\n');
        assert!(!token.is_empty() && !token.contains(char::is_whitespace), "the token alone on stdout, not {text:?}");
        token.to_owned()
    }

    /// A token that may send to this source.
    #[track_caller]
    pub(crate) fn sender(&self, source: &str) -> String {
        self.token(&["events:write"], &["--source", source])
    }

    /// Adds a source and returns what the command says about it.
    #[track_caller]
    pub(crate) fn add_source(&self, name: &str, kind: &str, labels: &[&str]) -> Value {
        let mut args = vec!["sources", "add", name, "--type", kind];
        for label in labels {
            args.extend(["--label", label]);
        }
        self.cli_json(&args)
    }

    /// Adds a webhook source and returns its signing secret.
    #[track_caller]
    pub(crate) fn add_github(&self, name: &str) -> String {
        secret_of(&self.add_source(name, "github.webhook", &[]))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Reply, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Reply { status, headers, body: response.bytes().await?.to_vec() })
    }

    /// A request with headers of the caller's choice and no token.
    pub(crate) async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        self.request(method, path, headers, Some(body)).await.expect("the server answers")
    }

    /// The same, where the server may be gone.
    pub(crate) async fn try_send(&self, source: &str, token: &str, body: Vec<u8>) -> Result<Reply, reqwest::Error> {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.request(Method::POST, &format!("/v1/events/{source}"), &headers, Some(body)).await
    }

    /// Sends events with a bearer token.
    pub(crate) async fn send(&self, source: &str, token: &str, body: impl Into<Vec<u8>>) -> Reply {
        self.try_send(source, token, body.into()).await.expect("the server answers")
    }

    /// Sends events with a bearer token and further headers.
    pub(crate) async fn send_with(&self, path: &str, token: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers: Vec<_> =
            std::iter::once(("authorization", bearer.as_str())).chain(headers.iter().copied()).collect();
        self.raw(Method::POST, &format!("/v1/events/{path}"), &headers, body).await
    }

    /// Sends a GitHub webhook as GitHub does.
    pub(crate) async fn send_github(
        &self,
        source: &str,
        secret: &str,
        event: &str,
        delivery: &str,
        body: &[u8],
    ) -> Reply {
        let signature = github_signature(secret, body);
        let headers = [
            ("content-type", "application/json"),
            ("x-github-event", event),
            ("x-github-delivery", delivery),
            ("x-hub-signature-256", signature.as_str()),
        ];
        self.raw(Method::POST, &format!("/v1/events/{source}"), &headers, body.to_vec()).await
    }

    /// Asks the API as an administrator.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let reply = self.api(Method::GET, path, None).await;
        reply.expect(200).json()
    }

    /// Calls the API as an administrator.
    pub(crate) async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.api_as(&self.admin, method, path, body).await
    }

    /// Calls the API with a token.
    pub(crate) async fn api_as(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = body.map(|body| serde_json::to_vec(&body).unwrap());
        self.request(method, path, &headers, body).await.expect("the server answers")
    }

    /// Waits until everything durable so far has been evaluated and archived.
    pub(crate) async fn settled(&self) -> Value {
        let target = position(&self.get("/v1/status").await, "durable");
        eventually("detection and archive reach what was durable", || async {
            let status = self.get("/v1/status").await;
            let reached = |name| position(&status, name) >= target;
            (reached("detected") && reached("archived")).then_some(status.clone())
        })
        .await
    }

    /// Rows of a query.
    pub(crate) async fn sql(&self, query: &str) -> Vec<Vec<Value>> {
        let reply = self.api(Method::POST, "/v1/sql", Some(serde_json::json!({ "query": query }))).await;
        let body = reply.expect(200).json();
        serde_json::from_value(body["rows"].clone()).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// The first cell of a query as a number.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        let rows = self.sql(query).await;
        let cell = rows.first().and_then(|row| row.first());
        cell.and_then(Value::as_i64).unwrap_or_else(|| panic!("no number from {query}: {rows:?}"))
    }

    /// Action → number of events of a source in the lake.
    pub(crate) async fn actions(&self, source: &str) -> BTreeMap<String, i64> {
        self.settled().await;
        let query = format!("SELECT action, count(*) FROM events WHERE source = '{source}' GROUP BY action");
        let rows = self.sql(&query).await;
        rows.iter().map(|row| (row[0].as_str().unwrap_or_default().to_owned(), row[1].as_i64().unwrap())).collect()
    }

    /// Findings, oldest first.
    pub(crate) async fn findings(&self) -> Vec<Value> {
        items(&self.get("/v1/findings").await, "findings")
    }

    /// Incidents.
    pub(crate) async fn incidents(&self) -> Vec<Value> {
        items(&self.get("/v1/incidents").await, "incidents")
    }

    /// Sends the process a signal. The shell does it: a bare system has no program `kill`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid]).status().unwrap();
        assert!(sent.success(), "cannot send {name} to {pid}");
    }

    /// Asks for an orderly end and waits for it.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Vec<String>) {
        self.signal("TERM");
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "still running after SIGTERM: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        (status, self.log())
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Where commands on this machine find the server of a folder.
fn local_url(data: &Path) -> String {
    let whereabouts = std::fs::read(data.join("run/server.json")).unwrap();
    serde_json::from_slice::<Value>(&whereabouts).unwrap()["url"].as_str().unwrap().to_owned()
}

/// A webhook body's `X-Hub-Signature-256`.
pub(crate) fn github_signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// The secret in what `sources add` or `sources rotate` printed.
#[track_caller]
pub(crate) fn secret_of(source: &Value) -> String {
    source["secret"].as_str().unwrap_or_else(|| panic!("no secret in {source}")).to_owned()
}

/// The token in what `sources add` printed.
#[track_caller]
pub(crate) fn token_of(source: &Value) -> String {
    source["token"].as_str().unwrap_or_else(|| panic!("no token in {source}")).to_owned()
}

/// A list that is the document itself or stands under a name in it.
#[track_caller]
pub(crate) fn items(document: &Value, name: &str) -> Vec<Value> {
    let list = if document.is_array() { document } else { &document[name] };
    list.as_array().unwrap_or_else(|| panic!("no list of {name} in {document}")).clone()
}

/// A position of `/v1/status`.
#[track_caller]
pub(crate) fn position(status: &Value, name: &str) -> u64 {
    status[name].as_u64().unwrap_or_else(|| panic!("no position `{name}` in {status}"))
}

/// Whether a finding is of the rule whose id or title contains `rule`.
pub(crate) fn is_of(finding: &Value, rule: &str) -> bool {
    ["rule_id", "rule_title", "title"]
        .iter()
        .any(|name| finding[*name].as_str().is_some_and(|text| text.contains(rule)))
}

/// A time in a document.
#[track_caller]
pub(crate) fn time_of(document: &Value, name: &str) -> Timestamp {
    let text = document[name].as_str().unwrap_or_else(|| panic!("no time `{name}` in {document}"));
    Timestamp::parse(text).unwrap_or_else(|| panic!("`{name}` is no time: {text}"))
}

/// Polls until there is a value, with a limit.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every file under a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() { open.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    found
}

/// Copies a folder.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
}

/// Says why part of a test was left out, so that a green run does not hide it.
pub(crate) fn left_out(part: &str, reason: &str) {
    tell(&format!("LEFT OUT: {part}: {reason}"));
}

/// A line that is seen although the test passes: the test runner captures only what macros print.
pub(crate) fn tell(line: &str) {
    use std::io::Write as _;
    let mut stderr = std::io::stderr().lock();
    writeln!(stderr, "{line}").unwrap();
}

/// A Python that can import `module`: `PIPEPROOF_PYTHON`, else `python3`.
pub(crate) fn python_with(module: &str) -> Option<String> {
    let python = std::env::var("PIPEPROOF_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python)
        .args(["-c", &format!("import {module}")])
        .output()
        .is_ok_and(|output| output.status.success());
    found.then_some(python)
}

/// Whether a command of the system is there.
pub(crate) fn has_tool(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok() || Command::new(name).arg("version").output().is_ok()
}
