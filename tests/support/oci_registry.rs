//! A container registry that keeps everything in memory, and answers what a test wants instead.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A request that was received.
#[derive(Debug, Clone)]
pub struct RegistryRequest {
    /// The method.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The headers: names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A client's connection, with or without TLS.
pub trait Connection: Read + Write {
    /// The connection below TLS.
    fn socket(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Connection for StreamOwned<ServerConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref()
    }
}

/// What is done with a connection.
type Work = dyn FnOnce(&mut dyn Connection) + Send;

/// What a registry does with a request.
pub enum Reply {
    /// It answers with a status, headers and a body.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// It writes these bytes, as they are, and closes the connection.
    Raw(Vec<u8>),
    /// It does what it likes with the connection.
    Stream(Box<Work>),
    /// It closes the connection.
    Close,
    /// It resets the connection, which the client notices as an error.
    Reset,
}

impl Reply {
    /// Returns an answer without headers.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), Vec::new())
    }

    /// Returns an answer with a header.
    #[must_use]
    pub fn with_header(status: u16, name: &str, value: &str) -> Self {
        Self::Answer(status, vec![(name.to_owned(), value.to_owned())], Vec::new())
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

/// What a registry answers instead, if anything.
type Script = dyn Fn(&RegistryRequest) -> Option<Reply> + Send + Sync;

/// What a registry has.
#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    /// The media type and the bytes, by repository and by tag or digest.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    requests: Vec<RegistryRequest>,
    script: Option<Arc<Script>>,
    has_referrers: bool,
}

/// A registry on this machine. Its threads end with the process.
#[derive(Clone)]
pub struct OciRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for OciRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OciRegistry").field("address", &self.address).finish_non_exhaustive()
    }
}

impl OciRegistry {
    /// Starts a registry without TLS, with the API for referrers or without.
    ///
    /// # Panics
    ///
    /// If there is no port for it.
    #[must_use]
    pub fn start(has_referrers: bool) -> Self {
        Self::start_with(has_referrers, None)
    }

    /// Starts a registry with TLS, and returns it with its certificate in PEM.
    ///
    /// # Panics
    ///
    /// If there is no port for it.
    #[must_use]
    pub fn start_with_tls() -> (Self, String) {
        // OK to ignore: it was installed before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let (certificate, key) = (own.cert.der().clone(), own.signing_key.serialize_der());
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config
            .with_single_cert(vec![certificate], key.try_into().expect("a key"))
            .expect("a key that fits");
        (Self::start_with(false, Some(Arc::new(config))), own.cert.pem())
    }

    fn start_with(has_referrers: bool, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { has_referrers, ..State::default() }));
        let registry = Self { address, state };
        let accepting = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (registry, tls) = (accepting.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => registry.serve(stream),
                    Some(tls) => {
                        let connection =
                            ServerConnection::new(tls).expect("a configuration that can be used");
                        registry.serve(StreamOwned::new(connection, stream));
                    }
                });
            }
        });
        registry
    }

    /// Returns its host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Answers what this function wants, if it wants something.
    pub fn script(&self, script: impl Fn(&RegistryRequest) -> Option<Reply> + Send + Sync + 'static) {
        self.lock().script = Some(Arc::new(script));
    }

    /// Answers as usual again.
    pub fn end_script(&self) {
        self.lock().script = None;
    }

    /// Returns the requests since the last call.
    #[must_use]
    pub fn take_requests(&self) -> Vec<RegistryRequest> {
        std::mem::take(&mut self.lock().requests)
    }

    /// Removes a manifest by its tag or digest.
    pub fn remove_manifest(&self, name: &str) {
        self.lock().manifests.retain(|(_, known), _| known != name);
    }

    /// Returns the tags and digests of its manifests.
    #[must_use]
    pub fn manifests(&self) -> Vec<String> {
        self.lock().manifests.keys().map(|(_, name)| name.clone()).collect()
    }

    /// Replaces a manifest, whatever its digest is.
    pub fn set_manifest(&self, repository: &str, name: &str, bytes: &[u8]) {
        let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
        self.lock().manifests.insert((repository.to_owned(), name.to_owned()), (kind, bytes.to_vec()));
    }

    /// Returns a blob.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn blob(&self, digest: &str) -> Vec<u8> {
        self.lock().blobs[digest].clone()
    }

    /// Returns a manifest.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn manifest(&self, repository: &str, name: &str) -> Vec<u8> {
        self.lock().manifests[&(repository.to_owned(), name.to_owned())].1.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    fn serve(&self, mut stream: impl Connection) {
        while let Some(request) = read_request(&mut stream) {
            let script = {
                let mut state = self.lock();
                state.requests.push(request.clone());
                state.script.clone()
            };
            let reply = script.and_then(|script| script(&request));
            let is_head = request.method == "HEAD";
            match reply.unwrap_or_else(|| self.answer(&request)) {
                Reply::Close => return,
                Reply::Reset => {
                    // OK to ignore: it is closed in any case.
                    let _ = socket2::SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO));
                    return;
                }
                Reply::Raw(bytes) => {
                    // OK to ignore: the client may have gone.
                    let _ = stream.write_all(&bytes);
                    return;
                }
                Reply::Stream(work) => return work(&mut stream),
                Reply::Answer(status, headers, body) => {
                    let mut head = format!("HTTP/1.1 {status} X\r\n");
                    for (name, value) in headers {
                        head.push_str(&format!("{name}: {value}\r\n"));
                    }
                    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
                    let body: &[u8] = if is_head { &[] } else { &body };
                    if stream.write_all(&[head.as_bytes(), body].concat()).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Answers as the distribution specification says.
    // Long because it lists the requests of the specification.
    fn answer(&self, request: &RegistryRequest) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let Some(path) = path.strip_prefix("/v2/") else { return Reply::status(404) };
        if path.is_empty() {
            return Reply::status(200);
        }
        let mut state = self.lock();
        let parts: Vec<&str> = path.split('/').collect();
        let at = parts.iter().rposition(|part| ["manifests", "blobs", "referrers", "tags"].contains(part));
        let Some(at) = at else { return Reply::status(404) };
        let repository = parts[..at].join("/");
        match (request.method.as_str(), parts[at], &parts[at + 1..]) {
            ("GET" | "HEAD", "manifests", [name]) => {
                match state.manifests.get(&(repository, (*name).to_owned())) {
                    Some((kind, bytes)) => {
                        let headers = vec![
                            ("Content-Type".to_owned(), kind.clone()),
                            ("Docker-Content-Digest".to_owned(), digest(bytes)),
                        ];
                        Reply::Answer(200, headers, bytes.clone())
                    }
                    None => Reply::status(404),
                }
            }
            ("PUT", "manifests", [name]) => {
                let kind = request.headers.get("content-type").cloned().unwrap_or_default();
                let (own, bytes) = (digest(&request.body), request.body.clone());
                state.manifests.insert((repository.clone(), own.clone()), (kind.clone(), bytes.clone()));
                state.manifests.insert((repository, (*name).to_owned()), (kind, bytes.clone()));
                let mut headers = vec![("Docker-Content-Digest".to_owned(), own)];
                let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                if let Some(subject) = manifest["subject"]["digest"].as_str().filter(|_| state.has_referrers)
                {
                    headers.push(("OCI-Subject".to_owned(), subject.to_owned()));
                }
                Reply::Answer(201, headers, Vec::new())
            }
            ("GET" | "HEAD", "blobs", [name]) => match state.blobs.get(*name) {
                Some(bytes) => Reply::Answer(200, Vec::new(), bytes.clone()),
                None => Reply::status(404),
            },
            ("GET", "tags", ["list"]) => {
                let names = state.manifests.keys().filter(|(of, _)| *of == repository).map(|(_, name)| name);
                let tags: Vec<&String> = names.filter(|name| !name.starts_with("sha256:")).collect();
                let list = json!({ "name": repository, "tags": tags });
                Reply::Answer(200, Vec::new(), list.to_string().into_bytes())
            }
            ("POST", "blobs", ["uploads", ..]) => {
                Reply::with_header(202, "Location", &format!("/v2/{repository}/blobs/uploads/1?state=x"))
            }
            ("PUT", "blobs", ["uploads", ..]) => {
                let own = digest(&request.body);
                if !query.replace("%3A", ":").contains(&own) {
                    return Reply::status(400);
                }
                state.blobs.insert(own, request.body.clone());
                Reply::status(201)
            }
            ("GET", "referrers", [subject]) if state.has_referrers => {
                let mut manifests = Vec::new();
                for ((of, name), (kind, bytes)) in &state.manifests {
                    let manifest: Value = serde_json::from_slice(bytes).unwrap_or_default();
                    if *of == repository
                        && manifest["subject"]["digest"] == **subject
                        && name.starts_with("sha256:")
                    {
                        manifests.push(json!({ "mediaType": kind, "digest": name, "size": bytes.len() }));
                    }
                }
                let index = json!({ "schemaVersion": 2, "manifests": manifests });
                let kind = "application/vnd.oci.image.index.v1+json";
                Reply::Answer(
                    200,
                    vec![("Content-Type".to_owned(), kind.to_owned())],
                    index.to_string().into_bytes(),
                )
            }
            _ => Reply::status(404),
        }
    }
}

/// Returns the digest of bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn read_request(stream: &mut impl Connection) -> Option<RegistryRequest> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: u64 = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body).ok()?;
    Some(RegistryRequest { method, path, headers, body })
}
