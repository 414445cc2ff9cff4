//! Reads of the same value from etcd and from NATS' key-value store, with one client program. Each server runs on the first
//! core, and the client on the second one. For orientation: the protocols and the guarantees differ.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ktables_tests::kafka::target;
use tempfile::TempDir;

use crate::{Options, Range, pinned};

const SECONDS: &str = "5";
const CONNECTIONS: &str = "16";

/// A server that is no ktables. It is killed on drop.
struct Peer {
    child: Child,
    _folder: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // OK to ignore: it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    fn start(command: &mut Command, folder: TempDir, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let peer = Self { child: child.expect("starts"), _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{command:?} listens");
            std::thread::sleep(Duration::from_millis(50));
        }
        peer
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn unpacked(package: &str, program: &str) -> PathBuf {
    let folder = target().join("tools/debian").join(package);
    let paths = ["usr/bin", "usr/sbin"].map(|bin| folder.join(bin).join(program));
    paths.into_iter().find(|path| path.is_file()).expect("`cargo xtask bench serve` unpacks it")
}

fn start_etcd() -> (Peer, String) {
    let folder = TempDir::new().expect("a folder");
    let [port, peer_port] = [free_port(), free_port()];
    let [client, peer] = [port, peer_port].map(|port| format!("http://127.0.0.1:{port}"));
    let mut command = pinned(0, &unpacked("etcd-server", "etcd"));
    command.arg("--data-dir").arg(folder.path());
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    (Peer::start(&mut command, folder, port), client)
}

fn start_nats() -> (Peer, String) {
    let folder = TempDir::new().expect("a folder");
    let port = free_port();
    let mut command = pinned(0, &unpacked("nats-server", "nats-server"));
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(folder.path());
    (Peer::start(&mut command, folder, port), format!("nats://127.0.0.1:{port}"))
}

/// Runs the client, and returns the reads per second, and percentiles of their times in milliseconds.
fn run(kind: &str, address: &str) -> [f64; 3] {
    let program = target().join("bench/kv");
    let mut command = pinned(1, Path::new(&program));
    let output = command.args([kind, address, SECONDS, CONNECTIONS]).output().expect("the client runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{kind}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("{text}"))
}

pub(crate) async fn measure(options: &Options, report: &mut String) {
    let (server, _folder) = options.start("");
    server.wait_until_ready().await;
    let ((_etcd, etcd), (_nats, nats)) = (start_etcd(), start_nats());
    let kinds = [("ktables", server.url.clone()), ("etcd", etcd), ("nats", nats)];
    let mut samples = [(); 3].map(|()| [(); 3].map(|()| Vec::new()));
    for round in 0..options.rounds {
        for offset in 0..kinds.len() {
            let index = (round + offset) % kinds.len();
            let (kind, address) = &kinds[index];
            for (samples, number) in samples[index].iter_mut().zip(run(kind, address)) {
                samples.push(number);
            }
        }
    }
    let text = format!(
        "\n## The same value from other servers, {CONNECTIONS} connections of one Go program\n\n\
         | server | reads per second | p50, ms | p99, ms |\n|---|---|---|---|\n"
    );
    report.push_str(&text);
    for ((kind, _), samples) in kinds.iter().zip(samples) {
        let [reads, p50, p99] = samples.map(Range::of);
        writeln!(report, "| {kind} | {} | {} | {} |", reads.format(0), p50.format(2), p99.format(2))
            .expect("a string");
    }
}
