//! The real program as its own process, and faults that are done to a process from outside.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pipeproof_engine::invariant::Invariant;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::row::{Holds, Row};

/// How long anything may take before a run gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How long the last words of a process that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Lines that tell of panics, of whatever process, until a row has them.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Of one row, so many are told.
const PANICS_TOLD: usize = 3;

/// The program under test, under a name of its own: a build meanwhile must not change what a long run tests.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_pipeproof"));
    let own = built.with_file_name(format!("pipeproof-faults-{}", std::process::id()));
    match std::fs::hard_link(&built, &own) {
        Ok(()) => own,
        Err(_) => built,
    }
});

/// Lets go of the program under test.
pub(crate) fn unlink_program() {
    if !PROGRAM.ends_with("pipeproof") {
        drop(std::fs::remove_file(&*PROGRAM));
    }
}

/// The program, without settings from whoever runs this.
pub(crate) fn program() -> Command {
    bare(&PROGRAM)
}

fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PIPEPROOF_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    let output = command.output().expect("the program runs");
    keep_panics(&String::from_utf8_lossy(&output.stderr));
    output
}

/// Keeps what a process said of panics.
pub(crate) fn keep_panics(said: &str) {
    let told = said.lines().filter(|line| line.contains("panicked at"));
    PANICS.lock().unwrap().extend(told.map(str::to_owned));
}

/// Any panic of a process since the last row makes this one not hold: a task that is gone may leave a server that seems well.
pub(crate) fn no_panics(row: &mut Row) {
    let panics = std::mem::take(&mut *PANICS.lock().unwrap());
    for line in panics.iter().take(PANICS_TOLD) {
        row.holds = Holds::No;
        row.note_all(format!("a process panicked: {line}"));
    }
}

/// Reads what a process says, to its end.
fn heard(stderr: ChildStderr, mut each: impl FnMut(String) + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            keep_panics(&line);
            each(line);
        }
    })
}

/// Waits until all is read that a process said before it ended; not for long, as what it started may go on.
fn last_words(reader: &JoinHandle<()>) {
    let began = Instant::now();
    while !reader.is_finished() && began.elapsed() < LAST_WORDS {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a command of the system is there.
pub(crate) fn has_tool(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

fn serving(program: &Path, data: &Path, config: &str, env: &[(&str, String)]) -> Command {
    let file = config_file(data);
    std::fs::write(&file, config).unwrap();
    let mut command = bare(program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&file).arg("--data").arg(data);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command.stdout(Stdio::null());
    command
}

/// Starts a server and kills it after so long, wherever it is then.
pub(crate) async fn killed_starting(data: &Path, config: &str, env: &[(&str, String)], after: Duration) {
    let mut child = serving(&PROGRAM, data, config, env).stderr(Stdio::piped()).spawn().expect("the server starts");
    let reader = heard(child.stderr.take().unwrap(), drop);
    tokio::time::sleep(after).await;
    drop(child.kill());
    drop(child.wait());
    last_words(&reader);
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    token: String,
    log: Arc<Mutex<Vec<String>>>,
    /// Reads the log.
    reader: JoinHandle<()>,
    pub(crate) http: reqwest::Client,
    began: Instant,
    /// From its start until it listens.
    pub(crate) started_in: Duration,
}

/// A server that ended before it was ready.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) log: String,
}

impl Server {
    /// Starts on `data` with a configuration beside it; another release of the program if one is named.
    pub(crate) fn start(
        release: Option<&Path>,
        data: &Path,
        config: &str,
        env: &[(&str, String)],
    ) -> Result<Self, Refused> {
        let mut command = serving(release.unwrap_or(&PROGRAM), data, config, env);
        command.stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().expect("the server starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, address) = mpsc::channel();
        let sink = Arc::clone(&log);
        let reader = heard(child.stderr.take().unwrap(), move |line| {
            if let Some((_, url)) = line.split_once("listening on ") {
                let url = url.split(['"', ' ', ',']).next().unwrap_or(url);
                drop(ready.send(url.to_owned()));
            }
            sink.lock().unwrap().push(line);
        });
        let Ok(url) = address.recv_timeout(PATIENCE) else {
            drop(child.kill());
            let status = child.wait().unwrap();
            last_words(&reader);
            let log = log.lock().unwrap().join("\n");
            return Err(Refused { code: status.code(), signal: status.signal(), log });
        };
        let started_in = began.elapsed();
        let whereabouts = std::fs::read(data.join("run/server.json")).unwrap();
        let whereabouts: Value = serde_json::from_slice(&whereabouts).unwrap();
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        let token = whereabouts["token"].as_str().unwrap().to_owned();
        Ok(Self { child, url, token, log, reader, http, began, started_in })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The local administrator's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Lines of stderr so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Waits until it ends by itself; false if it does not.
    pub(crate) async fn ended(&mut self, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// The signal that ended it, once it has ended.
    pub(crate) fn ended_by(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().and_then(|status| status.signal())
    }

    /// Asks for an orderly end; false if it is not one.
    pub(crate) async fn terminate(mut self) -> bool {
        self.signal("TERM");
        self.ended(PATIENCE).await && self.child.wait().unwrap().success()
    }

    /// One request with the local administrator's token.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Reply, reqwest::Error> {
        self.ask_with(method, path, &[], body).await
    }

    pub(crate) async fn ask_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Reply, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.header("content-type", "application/json").send().await?;
        let status = response.status();
        Ok(Reply { status, body: response.bytes().await?.to_vec() })
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        self.ask(Method::GET, path, Vec::new()).await.ok().map(|reply| reply.json())
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Option<Reply> {
        self.ask(Method::POST, path, body.to_string().into_bytes()).await.ok()
    }

    /// A position or another number of `/v1/status`.
    pub(crate) async fn number(&self, name: &str) -> u64 {
        let status = self.get("/v1/status").await.unwrap_or_default();
        status[name].as_u64().or_else(|| status["counts"][name].as_u64()).unwrap_or(0)
    }

    /// Whether `/readyz` says so.
    pub(crate) async fn ready(&self) -> bool {
        self.ask(Method::GET, "/readyz", Vec::new()).await.is_ok_and(|reply| reply.status == StatusCode::OK)
    }

    /// How long after its start `/readyz` says so; `None` if that does not come.
    pub(crate) async fn ready_after(&self) -> Option<Duration> {
        wait(PATIENCE, || self.ready()).await.then(|| self.began.elapsed())
    }

    /// All rows of a query, a page at a time.
    pub(crate) async fn rows(&self, query: &str) -> Vec<Vec<Value>> {
        const PAGE: usize = 5_000;
        let mut rows: Vec<Vec<Value>> = Vec::new();
        loop {
            let query = format!("{query} LIMIT {PAGE} OFFSET {}", rows.len());
            let reply = self.post("/v1/sql", json!({ "query": query })).await.expect("the server answers");
            let page: Vec<Vec<Value>> = serde_json::from_value(reply.json()["rows"].clone())
                .unwrap_or_else(|error| panic!("{error}: {}", reply.text()));
            let count = page.len();
            rows.extend(page);
            if count < PAGE {
                return rows;
            }
        }
    }

    /// Why it is not ready, if it says that it is not.
    pub(crate) async fn not_ready(&self) -> Option<String> {
        let reply = self.ask(Method::GET, "/readyz", Vec::new()).await.ok()?;
        let reason = reply.json()["reason"].as_str().unwrap_or_default().to_owned();
        (reply.status == StatusCode::SERVICE_UNAVAILABLE).then_some(reason)
    }

    /// A number of `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.ask(Method::GET, "/metrics", Vec::new()).await.ok()?.text();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until everything durable by now is evaluated and in the lake; false if that does not come.
    pub(crate) async fn settled(&self) -> bool {
        let target = self.number("durable").await;
        wait(PATIENCE, || async { self.number("detected").await >= target && self.number("archived").await >= target })
            .await
    }

    /// Waits until time has gone on for detection: it counts in ticks, a record a second.
    pub(crate) async fn ticked(&self) -> bool {
        let target = self.number("durable").await + 3;
        wait(PATIENCE, || async { self.number("detected").await >= target }).await
    }

    /// Counts of violated invariants that the server itself noticed; that it does not tell them is one more.
    pub(crate) async fn violations(&self) -> Vec<String> {
        let text = match self.ask(Method::GET, "/metrics", Vec::new()).await {
            Ok(reply) if reply.status == StatusCode::OK => reply.text(),
            other => return vec![format!("/metrics cannot be had: {other:?}")],
        };
        let counted: Vec<_> =
            text.lines().filter(|line| line.starts_with("pipeproof_invariant_violations_total{")).collect();
        if counted.len() != Invariant::ALL.len() {
            return vec![format!("/metrics tells of {} invariants of {}", counted.len(), Invariant::ALL.len())];
        }
        counted.into_iter().filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
    }

    /// Resident memory in bytes and open files.
    pub(crate) fn usage(&self) -> (u64, usize) {
        let folder = PathBuf::from(format!("/proc/{}", self.pid()));
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok());
        let files = std::fs::read_dir(folder.join("fd")).map_or(0, Iterator::count);
        (resident.unwrap_or(0_u64) * 1_024, files)
    }
}

impl Server {
    /// Address space in bytes.
    pub(crate) fn address_space(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().split(' ').next()?.parse().ok());
        size.unwrap_or(0_u64) * 1_024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        last_words(&self.reader);
    }
}

/// Where the configuration of a server on `data` stands.
pub(crate) fn config_file(data: &Path) -> PathBuf {
    data.with_extension("yaml")
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    drop(Command::new("kill").args([format!("-{name}"), pid.to_string()]).status());
}

/// System calls of a running process fail or are delayed while this is held.
pub(crate) struct Injected(Child);

impl Injected {
    /// `what` as strace's `--inject` takes it, for calls on any file or on one. `None` without strace, or where it may not trace.
    pub(crate) async fn start(pid: u32, calls: &str, what: &str, file: Option<&Path>) -> Option<Self> {
        let mut child = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={calls}"),
                "-e",
                &format!("inject={calls}:{what}"),
            ])
            .args(file.iter().flat_map(|file| [Path::new("-P"), *file]))
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        // Attached when the kernel says so.
        let traced = wait(Duration::from_secs(10), || async {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|by| by.trim() != "0"))
        })
        .await;
        if traced {
            return Some(Self(child));
        }
        drop(child.kill());
        drop(child.wait());
        None
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        // Lets go of the process, which goes on.
        signal(self.0.id(), "INT");
        drop(self.0.wait());
    }
}

/// Polls until it holds; false when it does not within the limit.
pub(crate) async fn wait<F: Future<Output = bool>>(limit: Duration, mut holds: impl FnMut() -> F) -> bool {
    let began = Instant::now();
    loop {
        if holds().await {
            return true;
        }
        if began.elapsed() > limit {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
