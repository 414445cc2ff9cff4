//! A thousand watchers: how soon they have changes, what they cost, and whether one that does not read slows the others.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use ktables_tests::server::Server;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::{Certificate, Client, Method, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::{Options, Range, resident};

const WATCHERS: usize = 1_000;

/// How many changes are made, ten in a second.
const CHANGES: u64 = 100;
/// How long the allocator may keep memory that is free.
const SETTLE_TIME: Duration = Duration::from_secs(5);

const INTERVAL: Duration = Duration::from_millis(100);

pub(crate) async fn measure(options: &Options, report: &mut String) {
    report.push_str("\n## Watchers\n\n");
    for (name, is_tls) in [("plain", false), ("with TLS", true)] {
        let each = measure_memory(options, is_tls).await;
        writeln!(
            report,
            "- memory of each of {WATCHERS} idle watchers, {name}: {} bytes",
            Range::of(each).format(0)
        )
        .expect("a string");
    }
    for (name, stalled) in [("all read", 0), ("ten further ones read nothing", 10)] {
        let (mut medians, mut tails, mut growth) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let (mut times, grown) = measure_times(options, stalled).await;
            times.sort_unstable();
            let percentile = |part: f64| times[(times.len() as f64 * part) as usize] as f64 / 1000.0;
            medians.push(percentile(0.5));
            tails.push(percentile(0.99));
            growth.push(grown as f64 / f64::from(1 << 20));
        }
        writeln!(
            report,
            "- {WATCHERS} watchers, 10 changes/s of 200 B, {name}: from the write to the receipt p50 {} ms, p99 {} ms; memory \
             grows by {} MiB",
            Range::of(medians).format(1),
            Range::of(tails).format(1),
            Range::of(growth).format(1)
        )
        .expect("a string");
    }
}

/// Starts a server, with a certificate or without.
async fn start(options: &Options, is_tls: bool) -> (Server, tempfile::TempDir) {
    let folder = tempfile::TempDir::new().expect("a folder");
    let limits = "max_watchers_per_client = 5000\nmax_connections_per_address = 10000\n";
    if !is_tls {
        let (server, own) = options.start(limits);
        server.wait_until_ready().await;
        return (server, own);
    }
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path.display().to_string()
    };
    let (cert_file, key_file) =
        (write("cert.pem", cert.pem()), write("key.pem", signing_key.serialize_pem()));
    let tls = format!("tls = {{ certificate = \"{cert_file}\", key = \"{key_file}\" }}\n{limits}");
    let (server, own) = options.start(&tls);
    let certificate = Certificate::from_pem(cert.pem().as_bytes()).expect("a certificate");
    let client = Client::builder().tls_certs_only([certificate]).http1_only().build().expect("a client");
    let server =
        server.with_url(|url| url.replace("http://127.0.0.1", "https://localhost")).with(client, None);
    server.wait_until_ready().await;
    (server, own)
}

/// A watch, of which only the lines are read: the time of the measurement must not be that of a parser.
struct Watch {
    response: Response,
    buffer: Vec<u8>,
}

impl Watch {
    async fn open(server: &Server) -> Self {
        let request = server.request(Method::GET, "/v1/tables/services/watch");
        let response = request.header("accept", "application/x-ndjson").send().await.expect("answers");
        assert_eq!(response.status(), 200);
        Self { response, buffer: Vec::new() }
    }

    async fn next_line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.drain(..=end).collect();
                return String::from_utf8(line).expect("UTF-8");
            }
            let chunk = self.response.chunk().await.expect("reads").expect("the watch goes on");
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// Waits for the next line with this text, and returns what follows the text.
    async fn next_with(&mut self, text: &str) -> String {
        loop {
            let line = self.next_line().await;
            if let Some((_, rest)) = line.split_once(text) {
                return rest.to_owned();
            }
        }
    }
}

async fn open_all(server: &Server) -> Vec<Watch> {
    let mut watches = Vec::new();
    for _ in 0..WATCHERS {
        let mut watch = Watch::open(server).await;
        watch.next_with("\"synced\"").await;
        watches.push(watch);
    }
    watches
}

/// Returns the bytes that each watcher costs.
async fn measure_memory(options: &Options, is_tls: bool) -> Vec<f64> {
    let mut each = Vec::new();
    for _ in 0..options.rounds {
        let (server, _folder) = start(options, is_tls).await;
        server.set("services", "a", "1").await;
        tokio::time::sleep(SETTLE_TIME).await;
        let before = resident(server.id());
        let watches = open_all(&server).await;
        // What requests needed for a moment returns to the system after a second.
        tokio::time::sleep(SETTLE_TIME).await;
        each.push(resident(server.id()).saturating_sub(before) as f64 / WATCHERS as f64);
        drop(watches);
    }
    each
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_micros()).expect("fits")
}

/// Returns the times from each write to its receipt by each watcher, in microseconds, and by how many bytes the memory of
/// the server has grown.
async fn measure_times(options: &Options, stalled: usize) -> (Vec<u64>, u64) {
    let (server, _folder) = start(options, false).await;
    let address = server.url.strip_prefix("http://").expect("an address").to_owned();
    let mut silent = Vec::new();
    for _ in 0..stalled {
        let mut stream = TcpStream::connect(&address).await.expect("connects");
        let head = "GET /v1/tables/services/watch HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("writes");
        silent.push(stream);
    }
    let watches = open_all(&server).await;
    let before = resident(server.id());
    let readers = watches.into_iter().map(|mut watch| {
        tokio::spawn(async move {
            let mut times = Vec::new();
            while times.len() < CHANGES as usize {
                let rest = watch.next_with("\"at\":").await;
                let written: u64 = rest.split(',').next().and_then(|at| at.parse().ok()).expect("a time");
                times.push(now().saturating_sub(written));
            }
            times
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut ticks = tokio::time::interval(INTERVAL);
    let filler = "v".repeat(150);
    for n in 0..CHANGES {
        ticks.tick().await;
        let value = format!("{{\"at\":{},\"filler\":\"{filler}\"}}", now());
        server.set("services", &format!("k{}", n % 10), &value).await;
    }
    let times = join_all(readers).await.into_iter().flat_map(|times| times.expect("reads")).collect();
    let grown = resident(server.id()).saturating_sub(before);
    drop(silent);
    (times, grown)
}
