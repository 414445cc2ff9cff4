//! A running `ktables serve`, and the contract of its API.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use jsonschema::Validator;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;

use crate::{TIMEOUT, eventually, ktables, root};

/// A running `ktables serve`. It is killed on drop.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// The address of its first listener, with the scheme.
    pub url: String,
    client: Client,
    token: Option<String>,
    log: Arc<Mutex<Vec<String>>>,
}

/// An answer of a server, which the contract allows.
#[derive(Debug)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The version of HTTP.
    pub version: reqwest::Version,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// A header; empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The end of the `type` of a problem.
    ///
    /// # Panics
    ///
    /// If the answer is no problem.
    #[must_use]
    pub fn problem(&self) -> String {
        let kind = self.json()["type"].as_str().expect("a problem").to_owned();
        kind.strip_prefix("urn:ktables:problem:").expect("one of ours").to_owned()
    }
}

/// Writes a configuration into a folder: its log is `data` in the same folder, and it listens on any port.
pub fn write_config(folder: &Path, text: &str) -> PathBuf {
    let listen = if text.contains("[server]") { "" } else { "[server]\nlisten = [\"127.0.0.1:0\"]\n" };
    let log = if text.contains("[logs.") { "" } else { "[logs.local]\nurl = \"dir:./data\"\n" };
    let path = folder.join("ktables.toml");
    std::fs::write(&path, format!("{log}{text}\n{listen}")).expect("writes");
    path
}

impl Server {
    /// Starts a server with a configuration file, and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[must_use]
    pub fn start(config: &Path) -> Self {
        Self::start_command(ktables(&["serve", "--config", config.to_str().expect("UTF-8")]))
    }

    /// Starts a command that serves.
    ///
    /// # Panics
    ///
    /// If it does not listen in time.
    #[must_use]
    pub fn start_command(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("not poisoned").push(line);
            }
        });
        // OK to ignore: it was installed before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut server = Self { child, url: String::new(), client: Client::new(), token: None, log };
        let address = eventually("the server listens", || {
            assert!(server.child.try_wait().expect("waits").is_none(), "{:?}", server.log());
            let log = server.log();
            log.iter().find_map(|line| Some(line.split_once("listening on ")?.1.trim_matches('"').to_owned()))
        });
        server.url = format!("http://{address}");
        server
    }

    /// Starts a server of these tables on a new folder, and waits until they are loaded.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn with_tables(text: &str) -> (Self, TempDir) {
        let folder = TempDir::new().expect("a folder");
        let server = Self::start(&write_config(folder.path(), text));
        server.wait_until_ready().await;
        (server, folder)
    }

    /// Waits until the server is ready.
    ///
    /// # Panics
    ///
    /// If it is not in time.
    pub async fn wait_until_ready(&self) {
        let deadline = Instant::now() + TIMEOUT;
        while self.client.get(format!("{}/readyz", self.url)).send().await.expect("answers").status() != 200 {
            assert!(Instant::now() < deadline, "{:?}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends all further requests with this client and this token.
    #[must_use]
    pub fn with(mut self, client: Client, token: Option<&str>) -> Self {
        (self.client, self.token) = (client, token.map(str::to_owned));
        self
    }

    /// Uses another scheme, or another host.
    #[must_use]
    pub fn with_url(mut self, change: impl FnOnce(&str) -> String) -> Self {
        self.url = change(&self.url);
        self
    }

    /// What the server has logged.
    ///
    /// # Panics
    ///
    /// If the test has panicked while it read this.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("not poisoned").clone()
    }

    /// The id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Begins a request.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request, and checks that the contract allows its answer.
    ///
    /// # Panics
    ///
    /// If there is no answer, or the contract does not allow it.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let (client, request) = request.build_split();
        let request = request.expect("a request");
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response =
            client.execute(request).await.unwrap_or_else(|error| panic!("{error}: {:?}", self.log()));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let version = response.version();
        let text = response.text().await.expect("a whole answer");
        let answer = Answer { status, version, headers, text };
        contract().check(&method, &path, &answer);
        answer
    }

    /// Sends GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Writes an entry, which is visible afterwards.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn set(&self, table: &str, key: &str, value: &str) -> Answer {
        let path = format!("/v1/tables/{table}/entry?key={key}&visible=true");
        let answer = self.send(self.request(Method::PUT, &path).body(value.to_owned())).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().expect("runs").success());
    }

    /// Waits until the process has ended, and returns its exit code.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub fn wait(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let status = eventually("the server ends", || child.try_wait().expect("waits"));
        status.code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // OK to ignore: it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The contract of the API.
#[derive(Debug)]
pub struct Contract {
    document: Value,
    event: OnceLock<Validator>,
}

/// Returns the contract of the API.
pub fn contract() -> &'static Contract {
    static CONTRACT: OnceLock<Contract> = OnceLock::new();
    CONTRACT.get_or_init(|| {
        let text = std::fs::read_to_string(root().join("docs/openapi.json")).expect("a file");
        Contract { document: serde_json::from_str(&text).expect("JSON"), event: OnceLock::new() }
    })
}

impl Contract {
    /// The operations: method and path.
    ///
    /// # Panics
    ///
    /// If the document has none.
    #[must_use]
    pub fn operations(&self) -> Vec<(Method, String)> {
        let paths = self.document["paths"].as_object().expect("an object");
        let methods = |(path, item): (&String, &Value)| {
            let names = item.as_object().expect("an object").keys().filter(|name| *name != "parameters");
            let method = |name: &String| (name.to_uppercase().parse().expect("a method"), path.clone());
            names.map(method).collect::<Vec<_>>()
        };
        paths.iter().flat_map(methods).collect()
    }

    /// Returns the role that an operation requires, if the document names one.
    #[must_use]
    pub fn role(&self, method: &Method, path: &str) -> Option<String> {
        let operation = &self.document["paths"][path][method.as_str().to_lowercase()];
        operation["x-ktables-role"].as_str().map(str::to_owned)
    }

    /// Returns the path that the document has for the path of a request.
    #[must_use]
    pub fn template(&self, path: &str) -> Option<&str> {
        let is_match = |template: &str| {
            let (template, path): (Vec<_>, Vec<_>) =
                (template.split('/').collect(), path.split('/').collect());
            let is_equal = |(template, part): (&&str, &&str)| template.starts_with('{') || template == part;
            template.len() == path.len() && template.iter().zip(&path).all(is_equal)
        };
        let paths = self.document["paths"].as_object()?;
        let found = paths.keys().filter(|template| is_match(template));
        // A path without parameters has precedence.
        found.min_by_key(|template| template.matches('{').count()).map(String::as_str)
    }

    /// Finds the operation of a request.
    fn find(&self, method: &Method, path: &str) -> Option<&Value> {
        self.document["paths"][self.template(path)?].get(method.as_str().to_lowercase())
    }

    /// Checks that an answer is one that the document describes.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let content_type = answer.header("content-type").split(';').next().unwrap_or_default().to_owned();
        if answer.status >= 400 {
            assert_eq!(content_type, "application/problem+json", "{method} {path}: {}", answer.text);
        }
        let Some(operation) = self.find(method, path) else {
            assert!(
                (400..500).contains(&answer.status),
                "{method} {path} is not in the document: {}",
                answer.status
            );
            return;
        };
        let described = &operation["responses"][answer.status.to_string()];
        assert!(
            !described.is_null(),
            "{method} {path}: {} is not in the document: {}",
            answer.status,
            answer.text
        );
        if answer.text.is_empty() {
            return;
        }
        let schema = &described["content"][&content_type]["schema"];
        assert!(!schema.is_null(), "{method} {path}: `{content_type}` is not in the document");
        let validator = self.validator(schema);
        let lines: Vec<&str> = match &*content_type {
            "application/x-ndjson" => answer.text.lines().collect(),
            "application/json" | "application/problem+json" => vec![&answer.text],
            _ => return,
        };
        for line in lines {
            let value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{method} {path}: {error}: {line}"));
            if let Err(error) = validator.validate(&value) {
                panic!("{method} {path}: {error}: {line}");
            }
        }
    }

    /// Checks that an event of a watch is one that the document describes.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn check_event(&self, event: &Value) {
        let schema = serde_json::json!({ "$ref": "#/components/schemas/WatchEvent" });
        if let Err(error) = self.event.get_or_init(|| self.validator(&schema)).validate(event) {
            panic!("{error}: {event}");
        }
    }

    fn validator(&self, schema: &Value) -> Validator {
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        jsonschema::validator_for(&schema).expect("a schema")
    }
}
