//! A schema registry that answers what a test wants.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::oneshot;

use crate::unique;

/// What a registry answers to the path of a request.
type Answer = dyn Fn(&str) -> (u16, String) + Send + Sync;

/// A schema registry without any rule. It ends when this is dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    address: SocketAddr,
    /// Part of its address, so that no two registries have the same one.
    name: String,
    shared: Arc<Shared>,
    /// `None` while it is down.
    running: Option<Running>,
}

struct Shared {
    requests: Mutex<Vec<String>>,
    answer: Mutex<Arc<Answer>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("requests", &self.requests).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// The answer with a schema.
#[must_use]
pub fn avro(schema: &str) -> (u16, String) {
    (200, json!({ "schema": schema }).to_string())
}

/// The answer for a schema that does not exist.
#[must_use]
pub fn not_found() -> (u16, String) {
    (404, json!({ "error_code": 40403, "message": "Schema not found" }).to_string())
}

impl FakeRegistry {
    /// Starts a registry. `answer` gets the path behind its address, such as `schemas/ids/1`.
    ///
    /// # Panics
    ///
    /// If there is no port for it.
    #[must_use]
    pub fn start(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let answer: Arc<Answer> = Arc::new(answer);
        let shared = Shared { requests: Mutex::default(), answer: Mutex::new(answer) };
        let mut registry =
            Self { address, name: unique("registry"), shared: Arc::new(shared), running: None };
        registry.run(listener);
        registry
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/{}", self.address, self.name)
    }

    /// Answers otherwise from now on.
    ///
    /// # Panics
    ///
    /// If the answer before has panicked.
    pub fn answer(&self, answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) {
        *self.shared.answer.lock().expect("not poisoned") = Arc::new(answer);
    }

    /// The paths of the requests.
    ///
    /// # Panics
    ///
    /// If an answer has panicked.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().expect("not poisoned").clone()
    }

    /// Stops it: connections are refused.
    ///
    /// # Panics
    ///
    /// If an answer has panicked.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            // OK to ignore: it may have ended.
            let _ = stop.send(());
            thread.join().expect("no panic");
        }
    }

    /// Starts it again at the same address.
    ///
    /// # Panics
    ///
    /// If another process has taken the port.
    pub fn restart(&mut self) {
        self.stop();
        let listener = TcpListener::bind(self.address).expect("the same port");
        self.run(listener);
    }

    fn run(&mut self, listener: TcpListener) {
        listener.set_nonblocking(true).expect("a socket");
        let (stop, stopped) = oneshot::channel();
        let prefix = format!("/{}/", self.name);
        let router = Router::new().fallback(respond).with_state((self.shared.clone(), prefix));
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            // Connections end with the runtime.
            tokio::select! {
                _ = stopped => {}
                served = axum::serve(listener, router) => served.expect("serves"),
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let thread = std::thread::spawn(move || runtime.block_on(serve));
        self.running = Some(Running { stop, thread });
    }
}

async fn respond(State((shared, prefix)): State<(Arc<Shared>, String)>, uri: Uri) -> Response {
    let path = uri.path().strip_prefix(&prefix).expect("below its address").to_owned();
    shared.requests.lock().expect("not poisoned").push(path.clone());
    let answer = shared.answer.lock().expect("not poisoned").clone();
    let (status, body) = answer(&path);
    (StatusCode::from_u16(status).expect("a status"), body).into_response()
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}
