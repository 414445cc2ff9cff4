//! A server behind nginx with its defaults, which the set-up unpacks.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ktables_tests::kafka::target;
use ktables_tests::server::{Server, write_config};
use ktables_tests::{TIMEOUT, WatchClient, is_long_run};
use reqwest::{Client, Method};
use tempfile::TempDir;

use super::{SERVICES, encode};

/// An nginx in front of a server. It is killed on drop.
struct Nginx {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl Nginx {
    async fn start(upstream: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let user = if is_root() { "user root;\n" } else { "" };
        let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {};\n", path(name)))
            .concat();
        let config = format!(
            "{user}daemon off;\npid {};\nerror_log {};\nevents {{}}\nhttp {{\naccess_log off;\n{folders}\
             server {{\nlisten 127.0.0.1:{port};\nlocation / {{ proxy_pass {upstream}; }}\n}}\n}}\n",
            path("nginx.pid"),
            path("error.log"),
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let program: PathBuf = target().join("tools/debian/nginx/usr/sbin/nginx");
        let mut command = Command::new(&program);
        command.args(["-p", &path(""), "-e", &path("error.log"), "-c", &path("nginx.conf")]);
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: `cargo xtask setup` unpacks it", program.display()));
        let nginx = Self { child, url: format!("http://127.0.0.1:{port}"), _folder: folder };
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        while Client::new().get(format!("{}/livez", nginx.url)).send().await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "nginx listens");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it, unlike after SIGKILL.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_passes_a_proxy() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(&write_config(folder.path(), SERVICES));
    server.wait_until_ready().await;
    let nginx = Nginx::start(&server.url).await;
    let direct = server.url.clone();
    let server = server.with_url(|_| nginx.url.clone());
    let long = "k".repeat(2_000);
    let keys = ["", ".", "..", "%2e", "/", "a//b", "%2F", "\0", "\u{202e}", "a b+c&d=e", "ä", &long];
    for (n, key) in keys.iter().enumerate() {
        server.set("services", &encode(key), &n.to_string()).await;
    }
    for (n, key) in keys.iter().enumerate() {
        let answer = server.get(&format!("/v1/tables/services/entry?key={}", encode(key))).await;
        assert_eq!((answer.status, answer.text), (200, n.to_string()), "{key:.20}");
    }
    // Paths that a proxy or a client normalizes delete nothing, whoever sends them.
    for base in [&nginx.url, &direct] {
        for path in ["..", ".", "%2e%2e", "%2F", "a%2Fb", "a//b", ""] {
            for method in ["DELETE", "PUT"] {
                let url = format!("{base}/v1/tables/services/entries/{path}");
                let mut curl = Command::new("curl");
                curl.args([
                    "--silent",
                    "--path-as-is",
                    "-X",
                    method,
                    "-d",
                    "9",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                ]);
                let status = String::from_utf8(curl.arg(&url).output().unwrap().stdout).unwrap();
                assert!(status.starts_with('4'), "{method} {url}: {status}");
            }
        }
    }
    let page = server.get("/v1/tables/services/entries?fresh=true").await.json();
    assert_eq!(page["entries"].as_array().unwrap().len(), keys.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_pass_a_proxy_at_once_and_a_silent_watch_stays_open() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(&write_config(folder.path(), SERVICES));
    server.wait_until_ready().await;
    let nginx = Nginx::start(&server.url).await;
    let server = server.with_url(|_| nginx.url.clone());
    for is_sse in [false, true] {
        let mut watch = WatchClient::open(&server, "/v1/tables/services/watch", is_sse).await;
        watch.until("synced").await;
        server.set("services", "a", &u8::from(is_sse).to_string()).await;
        assert_eq!(watch.next_of_type("put").await["value"], u8::from(is_sse));
        // nginx closes what is silent for a minute.
        if is_long_run() {
            let silence = tokio::time::Instant::now() + Duration::from_secs(120);
            while tokio::time::Instant::now() < silence {
                watch.next_of_type("bookmark").await;
            }
            server.set("services", "a", "2").await;
            assert_eq!(watch.next_of_type("put").await["value"], 2);
        }
    }
    let answer = server.request(Method::GET, "/v1/tables/services/snapshot").send().await.unwrap();
    assert!(answer.text().await.unwrap().ends_with("{\"type\":\"end\",\"entries\":1}\n"));
}
