//! What the tests share: the built command and components, logs of their own,
//! waiting with a deadline.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use ktables::codec::Codecs;
use ktables::log::{Ack, Log, NewRecord, NewTopic, TopicDescription};
use ktables::table::Table;
use ktables::wasm::{Component, Engine, EngineOptions, Limits, LoadOptions};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test fails: far above what it takes on a
/// busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The project's folder.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project")
}

/// The folder that the running test was built into.
fn release() -> PathBuf {
    let test = std::env::current_exe().expect("a running test");
    test.ancestors().nth(2).expect("target/release/deps/test").to_owned()
}

/// A component of the project, built by `cargo xtask guests`.
///
/// # Panics
///
/// If it is not built.
#[must_use]
pub fn component_path(name: &str) -> PathBuf {
    let path = release().with_file_name("components").join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, or `cargo xtask guests`", path.display());
    path
}

/// The engine of the test process, with a cache below the target folder.
///
/// # Panics
///
/// If there can be none.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let cache = Some(cache_folder());
        Engine::new(EngineOptions { cache, ..EngineOptions::default() }).expect("an engine")
    })
}

/// Where the tests keep compiled components.
#[must_use]
pub fn cache_folder() -> PathBuf {
    release().with_file_name("test-cache")
}

/// A component of the project, loaded.
///
/// # Panics
///
/// If it is refused.
#[must_use]
pub fn component(name: &str) -> Component {
    component_within(name, Limits::default())
}

/// The same with other limits.
///
/// # Panics
///
/// If it is refused.
#[must_use]
pub fn component_within(name: &str, limits: Limits) -> Component {
    engine().load(component_path(name), LoadOptions { digest: None, limits }).expect("accepted")
}

/// A directory log of the test's own, with one topic `t`.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Its topic.
    pub topic: TopicDescription,
}

/// The topic's name.
pub const TOPIC: &str = "t";

impl Scratch {
    /// A log whose topic has this many partitions.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub async fn new(partitions: i32) -> Self {
        let folder = TempDir::new().expect("a folder");
        let log = ktables::log::open(&format!("dir:{}", folder.path().display())).expect("a log");
        let topic = log.create(TOPIC, NewTopic { partitions }).await.expect("a topic");
        Self { folder, log, topic }
    }

    /// The log's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The log's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("dir:{}", self.path().display())
    }

    /// Writes a record.
    ///
    /// # Panics
    ///
    /// If it is not acknowledged.
    pub async fn put(&self, key: &str, value: Option<&[u8]>) -> Ack {
        self.write(vec![record(key, value)]).await[0]
    }

    /// Writes records, pipelined.
    ///
    /// # Panics
    ///
    /// If one is not acknowledged.
    pub async fn write(&self, records: Vec<NewRecord>) -> Vec<Ack> {
        let mut deliveries = Vec::new();
        for record in records {
            deliveries.push(self.log.send(&self.topic, record).await.expect("queued"));
        }
        let mut acks = Vec::new();
        for delivery in deliveries {
            acks.push(delivery.await.expect("acknowledged"));
        }
        acks
    }

    /// The topic as a table, loaded.
    ///
    /// # Panics
    ///
    /// If it cannot be.
    pub async fn table(&self, codecs: Codecs) -> Table {
        Table::builder(self.log.clone(), TOPIC, codecs)
            .catchup_timeout(PATIENCE)
            .start()
            .await
            .expect("a table")
    }

    /// Waits until all that was written is in the table.
    ///
    /// # Panics
    ///
    /// If that does not happen.
    pub async fn sync(&self, table: &Table) {
        let freshness = table.barrier(PATIENCE).await;
        assert!(freshness.is_fresh(), "{freshness:?}");
    }

    /// The `ktables` command on this topic.
    #[must_use]
    pub fn ktables(&self, args: &[&str]) -> Command {
        let mut command = ktables(args);
        command.args(["--log", &self.url(), "--topic", TOPIC]);
        command
    }
}

/// A record.
#[must_use]
pub fn record(key: &str, value: Option<&[u8]>) -> NewRecord {
    NewRecord { key: Some(key.as_bytes().to_vec()), value: value.map(<[u8]>::to_vec), ..NewRecord::default() }
}

/// The `ktables` command, its output JSON.
///
/// # Panics
///
/// If it is not built.
#[must_use]
pub fn ktables(args: &[&str]) -> Command {
    let program = release().join("ktables");
    assert!(program.exists(), "{} is missing: run `cargo xtask test`", program.display());
    let mut command = Command::new(program);
    command.args(args).env("KTABLES_CACHE_DIR", cache_folder()).env_remove("KTABLES_LOG");
    command
}

/// What a command that has ended left.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// The lines of its output, as JSON.
    ///
    /// # Panics
    ///
    /// If one is none.
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(parse).collect()
    }
}

/// Runs a command to its end.
///
/// # Panics
///
/// If it cannot be run.
pub fn run(command: &mut Command) -> Ended {
    ended(command.output().expect("runs"))
}

/// Runs a command to its end, with this on its standard input.
///
/// # Panics
///
/// If it cannot be run.
pub fn run_with(command: &mut Command, stdin: &str) -> Ended {
    let mut child = piped(command);
    let input = child.stdin.take();
    let text = stdin.to_owned();
    let feed = std::thread::spawn(move || {
        // The command may end before it has read all.
        let _ = input.expect("piped").write_all(text.as_bytes());
    });
    let output = child.wait_with_output().expect("ends");
    feed.join().expect("fed");
    ended(output)
}

/// Runs a command that must succeed.
///
/// # Panics
///
/// If it does not.
pub fn succeed(command: &mut Command) -> Ended {
    let ended = run(command);
    assert_eq!(ended.code, 0, "{command:?}: {}", ended.stderr);
    ended
}

fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("runs")
}

/// JSON.
///
/// # Panics
///
/// If it is none.
#[must_use]
pub fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A command that goes on, read line by line; killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    /// Starts a command.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("runs");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test may be over.
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// The next line that begins with this, without it.
    ///
    /// # Panics
    ///
    /// If none comes in time.
    #[must_use]
    pub fn next_with(&self, prefix: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("another line in time");
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }

    /// The lines that came and were not read and begin with this, without it. To
    /// be asked when the process is gone.
    #[must_use]
    pub fn rest_with(&self, prefix: &str) -> Vec<String> {
        self.lines.iter().filter_map(|line| line.strip_prefix(prefix).map(str::to_owned)).collect()
    }

    /// The next line, as JSON.
    ///
    /// # Panics
    ///
    /// If none comes in time.
    #[must_use]
    pub fn next(&self) -> Value {
        parse(&self.lines.recv_timeout(PATIENCE).expect("another line in time"))
    }

    /// The lines up to and with the first that passes.
    ///
    /// # Panics
    ///
    /// If none does in time.
    pub fn until(&self, passes: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut lines = vec![self.next()];
        while !lines.last().is_some_and(&passes) {
            lines.push(self.next());
        }
        lines
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its peak resident memory so far, in bytes.
    ///
    /// # Panics
    ///
    /// If it is gone.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Kills it (SIGKILL).
    ///
    /// # Panics
    ///
    /// If it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// Sends it a signal by name, as `kill -NAME` does.
    ///
    /// # Panics
    ///
    /// If it cannot be sent.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until it has ended by itself; its exit code.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub fn wait(&mut self) -> i32 {
        eventually("the command ends", || self.child.try_wait().expect("a child")).code().unwrap_or(-1)
    }

    /// Lines that came and were not read.
    #[must_use]
    pub fn rest(&self) -> Vec<Value> {
        self.lines.try_iter().map(|line| parse(&line)).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until there is an answer.
///
/// # Panics
///
/// If there is none in time.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same in a test with a runtime, which goes on meanwhile.
///
/// # Panics
///
/// If there is no answer in time.
pub async fn eventually_async<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
