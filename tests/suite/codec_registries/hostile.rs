//! Registries that lie, are slow, or never end: each case is an error in time, uses little memory, and leaves nothing in the
//! store.

use std::time::{Duration, Instant};

use ktables_tests::{
    OciRegistry, Reply, component_path, digest, is_long_run, run_and_measure, run_and_measure_within,
};
use serde_json::{Value, json};

use crate::codec_registries::{Workspace, text};

/// The most memory that a command may use against a hostile registry, in bytes.
pub(super) const MAX_MEMORY: u64 = 64 << 20;

/// A codec in a registry that misbehaves from then on.
pub(super) struct Attack {
    pub(super) workspace: Workspace,
    pub(super) registry: OciRegistry,
    pub(super) pushed: Value,
}

impl Attack {
    pub(super) fn new() -> Self {
        let (workspace, registry) = (Workspace::new(), OciRegistry::start(true));
        let pushed = workspace.push(&registry, "1.0.0");
        Self { workspace, registry, pushed }
    }

    /// Pulls the codec, which must fail with this exit code and this message, within three times the longest limit but that of
    /// an artifact.
    fn fail(&self, case: &str, code: i32, message: &str) {
        self.fail_within(case, code, message, Duration::from_secs(100));
    }

    fn fail_within(&self, case: &str, code: i32, message: &str, limit: Duration) {
        let reference = text(&self.pushed, "reference");
        let mut command = self.workspace.ktables(&["codec", "pull", &reference]);
        let (output, memory) = run_and_measure_within(&mut command, limit);
        assert_eq!(output.code, code, "{case}: {}", output.stderr);
        assert!(output.stderr.contains(message), "{case}: {}", output.stderr);
        assert!(output.stderr.len() < 4_000, "{case}: {} bytes of messages", output.stderr.len());
        assert!(memory.own < MAX_MEMORY, "{case}: {memory:?}");
        // Nothing of it is kept.
        let store = self.workspace.path("cache/oci/blobs/sha256");
        let files: Vec<_> =
            std::fs::read_dir(store).into_iter().flatten().flatten().map(|file| file.file_name()).collect();
        let config = digest_of_config(&self.registry, &self.pushed);
        let is_good = |name: &std::ffi::OsString| {
            let name = format!("sha256:{}", name.to_string_lossy());
            name == config || name == text(&self.pushed, "component")
        };
        assert!(files.iter().all(is_good), "{case}: {files:?}");
    }

    /// Answers requests for the manifest.
    fn manifest(&self, reply: impl Fn() -> Reply + Send + Sync + 'static) {
        self.registry.script(move |request| request.path.contains("/manifests/").then(&reply));
    }

    /// Answers requests for blobs.
    fn blob(&self, reply: impl Fn() -> Reply + Send + Sync + 'static) {
        self.registry.script(move |request| {
            (request.method == "GET" && request.path.contains("/blobs/")).then(&reply)
        });
    }
}

fn digest_of_config(registry: &OciRegistry, pushed: &Value) -> String {
    let manifest = registry.manifest("codecs/service", &text(pushed, "manifest"));
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

/// Writes bytes again and again, until the client goes away.
pub(super) fn endless(head: &'static str, part: &'static [u8]) -> Reply {
    Reply::Stream(Box::new(move |stream| {
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(part).is_ok() {}
    }))
}

#[test]
fn wrong_bytes_are_discarded() {
    let attack = Attack::new();
    let manifest = text(&attack.pushed, "manifest");
    attack.manifest(|| Reply::Answer(200, Vec::new(), b"{}".to_vec()));
    let message = format!(
        "cannot fetch {manifest}: {} returned different content (2 bytes with digest {}), and ktables discarded all of it. There \
         is no other mirror to try. Check for a proxy that changes responses, or for a damaged registry.",
        attack.registry.host(),
        digest(b"{}")
    );
    attack.fail("another manifest", 3, &message);
    let lie = manifest.clone();
    attack.manifest(move || {
        Reply::Answer(200, vec![("Docker-Content-Digest".to_owned(), lie.clone())], b"{}".to_vec())
    });
    attack.fail("a digest that is claimed", 3, "returned different content (2 bytes");
    let size = attack.pushed["bytes"].as_u64().unwrap();
    let bytes = vec![b'x'; usize::try_from(size).unwrap()];
    attack.blob(move || Reply::Answer(200, Vec::new(), bytes.clone()));
    attack.fail("another component", 3, &format!("returned different content ({size} bytes"));
    attack.blob(|| Reply::Answer(200, Vec::new(), Vec::new()));
    attack.fail("an empty component", 3, "sent less than it declared");
}

#[test]
fn cut_and_endless_answers_end() {
    let attack = Attack::new();
    let size = attack.pushed["bytes"].as_u64().unwrap();
    attack.blob(move || {
        Reply::Raw(format!("HTTP/1.1 200 X\r\nContent-Length: {size}\r\n\r\nxxxx").into_bytes())
    });
    attack.fail("cut", 3, "cannot fetch the component: the connection to");
    attack.blob(|| Reply::Raw(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nxxxx\r\n".to_vec()));
    attack.fail("cut in chunks", 3, "cannot fetch the component: the connection to");
    let message = format!(
        "cannot fetch the component: the response continued after {size} bytes, its declared size. Check the registry, or pull \
         from a mirror."
    );
    let long = vec![b'x'; usize::try_from(size).unwrap() + 1];
    attack.blob(move || Reply::Answer(200, Vec::new(), long.clone()));
    attack.fail("longer than declared", 3, &message);
    attack.blob(|| endless("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nxxxx\r\n"));
    attack.fail("endless", 3, &message);
    attack.manifest(|| endless("HTTP/1.1 200 X\r\nContent-Length: 2147483648\r\n\r\n", &[b' '; 4096]));
    attack.fail("a manifest of 2 GiB", 3, "sent more than 1048576 bytes");
    attack.manifest(|| Reply::Answer(200, Vec::new(), vec![b' '; (1 << 20) + 1]));
    attack.fail("a manifest that is a byte too long", 3, "sent more than 1048576 bytes");
    attack.manifest(|| endless("HTTP/1.1 200 X\r\nContent-Length: 2\r\nX: ", &[b'x'; 4096]));
    attack.fail("an endless header", 3, "cannot connect to");
    let many: String = (0..10_000).map(|number| format!("X{number}: y\r\n")).collect();
    attack.manifest(move || {
        Reply::Raw(format!("HTTP/1.1 200 X\r\nContent-Length: 2\r\n{many}\r\n{{}}").into_bytes())
    });
    attack.fail("10,000 headers", 3, "cannot connect to");
    attack.manifest(|| Reply::Close);
    attack.fail("closed", 3, "cannot connect to");
    attack.blob(|| Reply::with_header(200, "Content-Encoding", "gzip"));
    attack.fail("an encoding", 3, "an encoding that ktables did not ask for");
}

/// Writes this, and is silent until the client goes away.
fn silent(head: String) -> Reply {
    Reply::Stream(Box::new(move |stream| {
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.flush();
        let _ = stream.read_to_end(&mut Vec::new());
    }))
}

#[test]
fn a_registry_that_is_silent_ends_in_time() {
    // Three tries of 15 s for each case, or two minutes.
    if !is_long_run() {
        return;
    }
    let attack = Attack::new();
    let size = attack.pushed["bytes"].as_u64().unwrap();
    attack.manifest(|| silent(String::new()));
    attack.fail("silent", 3, "did not answer in time");
    attack.manifest(|| silent("HTTP/1.1 200 X\r\nContent-".to_owned()));
    attack.fail("silent in the headers", 3, "did not answer in time");
    attack.manifest(|| silent("HTTP/1.1 200 X\r\nContent-Length: 500\r\n\r\n".to_owned()));
    attack.fail("silent after the headers", 3, "cannot fetch the manifest");
    attack.blob(move || silent(format!("HTTP/1.1 200 X\r\nContent-Length: {size}\r\n\r\nxxxx")));
    attack.fail("a half-open connection", 3, "cannot fetch the component: the connection to");
    attack.blob(move || {
        Reply::Stream(Box::new(move |stream| {
            let _ = write!(stream, "HTTP/1.1 200 X\r\nContent-Length: {size}\r\n\r\n");
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_secs(1));
            }
        }))
    });
    let message = "arrived in 120 s. Check the network, or pull from a mirror.";
    attack.fail_within("a byte each second", 3, message, Duration::from_secs(360));
}

// Long because it lists the requests of all commands.
#[test]
fn connections_that_are_reset_are_errors() {
    let attack = Attack::new();
    let (reference, registry) = (text(&attack.pushed, "reference"), &attack.registry);
    attack.workspace.keygen("platform");
    let push = crate::codec_registries::reference(registry, "2.0.0");
    std::fs::copy(component_path("service-record-c"), attack.workspace.path("other.wasm")).unwrap();
    let push = ["codec", "push", "other.wasm", &push];
    let sign = ["codec", "sign", &reference, "--key", "platform.key"];
    let verify = ["codec", "verify", &reference, "--key", "platform.pub"];
    let pull = ["codec", "pull", &reference];
    for (args, method, part) in [
        (&pull[..], "GET", "/manifests/"),
        (&pull, "GET", "/blobs/"),
        (&push, "HEAD", "/blobs/"),
        (&push, "POST", "/uploads/"),
        (&push, "PUT", "/uploads/"),
        (&push, "PUT", "/manifests/"),
        (&sign, "PUT", "/manifests/"),
        (&verify, "GET", ".sig"),
        (&verify, "GET", "/referrers/"),
    ] {
        registry.script(move |request| {
            (request.method == method && request.path.contains(part)).then_some(Reply::Reset)
        });
        // Nothing is there that another case has fetched.
        std::fs::remove_dir_all(attack.workspace.path("cache/oci")).ok();
        let _ = registry.take_requests();
        let began = Instant::now();
        let (output, memory) = run_and_measure(&mut attack.workspace.ktables(args));
        assert_eq!(output.code, 3, "{args:?} {part}: {}", output.stderr);
        assert!(output.stderr.contains(&registry.host()), "{args:?} {part}: {}", output.stderr);
        assert!(memory.own < MAX_MEMORY && began.elapsed().as_secs() < 60, "{args:?} {part}: {memory:?}");
        let requests = registry.take_requests();
        let tries = requests.iter().filter(|request| request.method == method && request.path.contains(part));
        assert!((1..=6).contains(&tries.count()), "{args:?} {part}");
    }
    // Nothing of it is left over.
    registry.end_script();
    attack.workspace.succeed(&push);
    attack.workspace.succeed(&sign);
    attack.workspace.succeed(&verify);
}

// Long because it lists the manifests.
#[test]
fn manifests_are_checked_before_anything_is_fetched() {
    let attack = Attack::new();
    let manifest = attack.registry.manifest("codecs/service", &text(&attack.pushed, "manifest"));
    let good: Value = serde_json::from_slice(&manifest).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut manifest = good.clone();
        *manifest.pointer_mut(pointer).unwrap() = value;
        manifest.to_string()
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let layer = good["layers"][0].clone();
    let cases = [
        (
            "3 GiB",
            with("/layers/0/size", json!(3_u64 << 30)),
            3,
            "its declared size is 3 GiB, and the limit is 64 MiB (`max_size`)",
        ),
        ("-1", with("/layers/0/size", json!(-1)), 1, "cannot load the codec"),
        ("0", with("/layers/0/size", json!(0)), 1, "its component is empty"),
        ("deep", deep, 1, "cannot load the codec"),
        ("no JSON", "<html>".to_owned(), 1, "cannot load the codec"),
        ("duplicate keys", manifest_twice(&good), 1, "cannot load the codec"),
        ("no layers", with("/layers", json!([])), 1, "the manifest has 0 layers"),
        ("2 layers", with("/layers", json!([layer, layer])), 1, "the manifest has 2 layers"),
        (
            "2,000 layers",
            with("/layers", vec![layer.clone(); 2_000].into()),
            1,
            "the manifest has 2000 layers",
        ),
        (
            "gzip",
            with("/layers/0/mediaType", json!("application/wasm+gzip")),
            1,
            "the layer of the manifest is",
        ),
        ("config", with("/config/mediaType", json!("application/x")), 1, "another kind of artifact"),
        ("index", json!({ "schemaVersion": 2, "manifests": [{}] }).to_string(), 1, "an index of 1 platform"),
    ];
    for (case, manifest, code, message) in cases {
        // A reference with the digest of the hostile manifest: somebody has signed or locked it.
        attack.registry.set_manifest("codecs/service", &digest(manifest.as_bytes()), manifest.as_bytes());
        let _ = attack.registry.take_requests();
        let reference =
            format!("oci://{}/codecs/service@{}", attack.registry.host(), digest(manifest.as_bytes()));
        let (output, memory) = run_and_measure(&mut attack.workspace.ktables(&["codec", "pull", &reference]));
        assert!(
            output.code == code && output.stderr.contains(message),
            "{case}: {} {}",
            output.code,
            output.stderr
        );
        assert!(memory.own < MAX_MEMORY, "{case}: {memory:?}");
        let requests = attack.registry.take_requests();
        assert!(requests.iter().all(|request| !request.path.contains("/blobs/")), "{case}");
    }
    // Addresses in a layer are not requested.
    let elsewhere = OciRegistry::start(false);
    let mut manifest = good.clone();
    manifest["layers"][0]["urls"] = json!([format!("http://{}/x", elsewhere.host())]);
    let manifest = manifest.to_string();
    attack.registry.set_manifest("codecs/service", &digest(manifest.as_bytes()), manifest.as_bytes());
    let reference =
        format!("oci://{}/codecs/service@{}", attack.registry.host(), digest(manifest.as_bytes()));
    attack.workspace.succeed(&["codec", "pull", &reference]);
    assert_eq!(elsewhere.take_requests().len(), 0);
}

fn manifest_twice(good: &Value) -> String {
    good.to_string().replacen('{', "{\"schemaVersion\":2,", 1)
}

#[test]
fn tokens_are_bounded_and_renewed_once() {
    let attack = Attack::new();
    let host = attack.registry.host();
    let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"x\"");
    let with_token = |token: Reply| {
        let token = std::sync::Mutex::new(Some(token));
        let challenge = challenge.clone();
        attack.registry.script(move |request| {
            if request.path == "/v2/" {
                return None;
            }
            Some(match request.path.starts_with("/token") {
                true => token.lock().unwrap().take().unwrap_or(Reply::Close),
                false => Reply::with_header(401, "WWW-Authenticate", &challenge),
            })
        });
    };
    with_token(endless("HTTP/1.1 200 X\r\nContent-Length: 1073741824\r\n\r\n", &[b'x'; 4096]));
    attack.fail("a token of 1 GiB", 3, "the server for tokens sent more than 1048576 bytes");
    with_token(Reply::Answer(200, Vec::new(), b"{}".to_vec()));
    attack.fail("no token", 3, "the server for tokens answered without a token");
    with_token(Reply::with_header(307, "Location", "http://127.0.0.1:1/"));
    attack.fail("a redirect", 3, "redirects to another address, which ktables does not follow");
    // A token that is never accepted is not renewed for ever.
    let challenge = challenge.clone();
    attack.registry.script(move |request| {
        if request.path == "/v2/" {
            return None;
        }
        Some(match request.path.starts_with("/token") {
            true => Reply::Answer(200, Vec::new(), br#"{"token":"t"}"#.to_vec()),
            false => Reply::with_header(401, "WWW-Authenticate", &challenge),
        })
    });
    let _ = attack.registry.take_requests();
    attack.fail("refused for ever", 3, "it denied access (401) to an anonymous client");
    let requests = attack.registry.take_requests();
    assert!(requests.len() < 12, "{}", requests.len());
}

#[test]
fn failures_that_may_pass_are_tried_again() {
    let attack = Attack::new();
    let failures = std::sync::atomic::AtomicUsize::new(0);
    attack.registry.script(move |request| {
        let is_manifest = request.path.contains("/manifests/sha256:");
        let is_early = failures.fetch_add(usize::from(is_manifest), std::sync::atomic::Ordering::Relaxed) < 2;
        (is_manifest && is_early).then(|| Reply::status(500))
    });
    attack.workspace.succeed(&["codec", "pull", &text(&attack.pushed, "reference")]);
    let attack = Attack::new();
    for (case, reply) in [("503", "503"), ("a far date", "date"), ("a long pause", "1000000000")] {
        attack.manifest(move || match reply {
            "503" => Reply::status(503),
            "date" => Reply::with_header(429, "Retry-After", "Fri, 31 Dec 2199 23:59:59 GMT"),
            seconds => Reply::with_header(429, "Retry-After", seconds),
        });
        attack.fail(case, 3, "ktables gave up after 3 tries");
    }
}

#[test]
fn uploads_go_nowhere_else() {
    let (workspace, registry, elsewhere) =
        (Workspace::new(), OciRegistry::start(false), OciRegistry::start(false));
    let push = ["codec", "push", "service.wasm", &crate::codec_registries::reference(&registry, "1.0.0")];
    for (location, code) in [
        (format!("http://{}/v2/codecs/service/blobs/uploads/1?state=x", registry.host()), 0),
        ("/v2/codecs/service/blobs/uploads/1".to_owned(), 0),
        (format!("http://{}/v2/codecs/service/blobs/uploads/1", elsewhere.host()), 3),
        (String::new(), 3),
    ] {
        let fresh = OciRegistry::start(false);
        let push = ["codec", "push", "service.wasm", &crate::codec_registries::reference(&fresh, "1.0.0")];
        let location = location.replace(&registry.host(), &fresh.host());
        fresh.script(move |request| {
            (request.method == "POST").then(|| match location.as_str() {
                "" => Reply::status(202),
                location => Reply::with_header(202, "Location", location),
            })
        });
        let output = ktables_tests::run(&mut workspace.ktables(&push));
        assert_eq!(output.code, code, "{}", output.stderr);
    }
    assert_eq!(elsewhere.take_requests().len(), 0);
    // An upload that is cut begins again.
    let cuts = std::sync::atomic::AtomicUsize::new(0);
    registry.script(move |request| {
        let is_upload = request.method == "PUT" && request.path.contains("/uploads/");
        let is_first = is_upload && cuts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        is_first.then_some(Reply::Close)
    });
    workspace.succeed(&push);
    // What is there already is not sent again.
    let _ = registry.take_requests();
    let again = crate::codec_registries::reference(&registry, "1.0.1");
    workspace.succeed(&["codec", "push", "service.wasm", &again]);
    assert!(registry.take_requests().iter().all(|request| !request.path.contains("/uploads/")));
    // The digest that a registry claims to have stored is not believed.
    let liar = OciRegistry::start(false);
    let stored = liar.clone();
    liar.script(move |request| {
        let is_manifest = request.method == "PUT" && request.path.contains("/manifests/");
        is_manifest.then(|| {
            let name = request.path.rsplit('/').next().unwrap_or_default();
            stored.set_manifest("codecs/service", name, &request.body);
            Reply::with_header(201, "Docker-Content-Digest", &digest(b"something else"))
        })
    });
    let push = ["codec", "push", "service.wasm", &crate::codec_registries::reference(&liar, "1.0.0")];
    let manifest = text(&workspace.succeed(&push), "manifest");
    assert_eq!(digest(&liar.manifest("codecs/service", "1.0.0")), manifest);
    // A registry that stores something else is noticed.
    let other = OciRegistry::start(false);
    other.script(|request| {
        let is_read = request.method == "GET" && request.path.ends_with("/manifests/1.0.0");
        is_read.then(|| Reply::status(404))
    });
    let push = ["codec", "push", "service.wasm", &crate::codec_registries::reference(&other, "1.0.0")];
    assert_eq!(ktables_tests::run(&mut workspace.ktables(&push)).code, 1);
}
