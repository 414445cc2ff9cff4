//! The errors of references, lock files, stores and registries: what happened, to what, and what to do.

use ktables_tests::{OciRegistry, Reply, run};

use crate::codec_registries::{Workspace, reference, text};

#[test]
fn references_and_digests_are_checked() {
    let workspace = Workspace::new();
    let cases = [
        (
            "oci://codecs/x:1".to_owned(),
            "cannot read the reference `oci://codecs/x:1`: it names no registry. Write `oci://HOST/codecs/x:1`.",
        ),
        (
            "oci://a.b/x@sha256:12".to_owned(),
            "cannot read the digest `sha256:12`: it is malformed. Write `sha256:` followed by 64 hex digits.",
        ),
        (
            "oci://a.b/x@sha512:12".to_owned(),
            "cannot read the digest `sha512:12`: sha512 is not supported. Write `sha256:` followed by 64 hex digits.",
        ),
    ];
    for (reference, message) in cases {
        let error = workspace.fail(&["codec", "resolve", &reference], 2);
        assert!(error.contains(message), "{error}");
        // A table whose codec cannot be loaded ends with another code.
        workspace.configure(&reference, "");
        let error = workspace.fail(&["get", "a", "-t", "services"], 3);
        assert!(error.contains(&format!("codecs.service: {message}")), "{error}");
    }
}

#[test]
fn a_codec_that_is_in_no_store_needs_a_network() {
    let workspace = Workspace::new();
    let digest = format!("sha256:{}", "9f2c".repeat(16));
    let reference = format!("oci://registry.example/codecs/x@{digest}");
    let mut command = workspace.ktables(&["codec", "pull", &reference]);
    let output = run(command.env("KTABLES_OFFLINE", "1").env("KTABLES_CODEC_PATH", "/codecs"));
    let message = format!(
        "{reference}: cannot find manifest {digest}: it is in none of the local stores (/codecs, {}), and the network is off \
         (KTABLES_OFFLINE). Run `ktables codec pull` where there is a network, or load a bundle with `ktables codec load`.",
        workspace.path("cache/oci").display()
    );
    assert!(output.code == 3 && output.stderr.contains(&message), "{}", output.stderr);
}

#[test]
fn tags_are_never_looked_up_by_a_table() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    workspace.configure(&reference(&registry, "1.0.0"), "");
    let _ = registry.take_requests();
    let error = workspace.fail(&["get", "a", "-t", "services"], 3);
    let message = "codecs.service: cannot resolve the reference: it names a tag, which may move, and ktables.lock has no \
                   digest for it. Run `ktables codec lock`, or write the digest into the reference (…@sha256:…).";
    assert!(error.contains(message), "{error}");
    assert_eq!(registry.take_requests().len(), 0);
    assert!(workspace.fail(&["policy", "check"], 2).contains(message));

    // A lock file and a reference that contradict each other.
    workspace.succeed(&["codec", "lock"]);
    // The file is beside the configuration, wherever a command runs.
    let config = workspace.path("ktables.toml").display().to_string();
    let mut check = workspace.ktables(&["config", "check", "--config", &config]);
    let output = run(check.current_dir(workspace.path("home")));
    assert_eq!(output.code, 0, "{}", output.stderr);
    let other = format!("sha256:{}", "9f2c".repeat(16));
    workspace.configure(&format!("{}@{other}", reference(&registry, "1.0.0")), "");
    let message = format!(
        "codecs.service: cannot resolve the reference: it has digest {other}, but ktables.lock has {}. To lock the \
         reference's digest, run `ktables codec lock --update service`.",
        text(&pushed, "manifest")
    );
    assert!(workspace.fail(&["policy", "check"], 2).contains(&message));
    assert!(workspace.fail(&["codec", "lock"], 2).contains(&message));
}

#[test]
fn the_two_digests_are_not_mixed_up() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    let (manifest, component) = (text(&pushed, "manifest"), text(&pushed, "component"));
    workspace.configure(&text(&pushed, "reference"), &format!("digest = \"{component}\""));
    workspace.succeed(&["status", "-t", "services"]);
    workspace.configure(&text(&pushed, "reference"), &format!("digest = \"{manifest}\""));
    let error = workspace.fail(&["policy", "check"], 2);
    let message = format!(
        "codecs.service: cannot check `digest`: {manifest} is the digest of the manifest, but `digest` pins the component. Use \
         the component digest, {component}."
    );
    assert!(error.contains(&message), "{error}");
    // The other way round.
    let wrong = format!("oci://{}/codecs/service@{component}", registry.host());
    let error = workspace.fail(&["codec", "pull", &wrong], 2);
    let message = format!(
        "cannot resolve the reference: {component} is the digest of a component, but a reference names a manifest. Use the \
         digest of the manifest, which `ktables codec resolve` prints."
    );
    assert!(error.contains(&message), "{error}");
    // Another digest altogether.
    let other = format!("sha256:{}", "9f2c".repeat(16));
    workspace.configure(&text(&pushed, "reference"), &format!("digest = \"{other}\""));
    let error = workspace.fail(&["status", "-t", "services"], 3);
    assert!(error.contains(&other) && error.contains(&component), "{error}");
}

#[test]
fn something_else_than_a_codec_is_refused() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let layer = r#"{"mediaType":"application/wasm","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;
    let config = |kind: &str| layer.replace("application/wasm", kind);
    let wasm = config("application/vnd.wasm.config.v0+json");
    let image = config("application/vnd.oci.image.config.v1+json");
    let hint = "A codec has one layer, application/wasm. Check the reference.";
    for (manifest, message) in [
        (
            format!(r#"{{"schemaVersion":2,"config":{image},"layers":[{layer}]}}"#),
            "cannot load the codec: the reference names an image (config application/vnd.oci.image.config.v1+json).",
        ),
        (
            format!(r#"{{"schemaVersion":2,"manifests":[{layer},{layer}]}}"#),
            "cannot load the codec: the reference names an index of 2 platforms.",
        ),
        (
            format!(r#"{{"schemaVersion":2,"config":{wasm},"layers":[{layer},{layer},{layer}]}}"#),
            "cannot load the codec: the manifest has 3 layers.",
        ),
    ] {
        registry.set_manifest("codecs/service", "1.0.0", manifest.as_bytes());
        let error = workspace.fail(&["codec", "pull", &reference(&registry, "1.0.0")], 1);
        assert!(error.contains(&format!("{message} {hint}")), "{error}");
    }
}

#[test]
fn denied_access_says_who_was_denied() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    registry.script(|_| Some(Reply::with_header(401, "WWW-Authenticate", "Basic realm=\"x\"")));
    let pull = ["codec", "resolve", &reference(&registry, "1.0.0")];
    let (host, error) = (registry.host(), workspace.fail(&pull, 3));
    assert!(
        error.contains(&format!(
            "cannot access {host}: it denied access (401) to an anonymous client. ktables sent no"
        )),
        "{error}"
    );
    std::fs::create_dir_all(workspace.path("home/.docker")).unwrap();
    workspace.write("home/.docker/config.json", r#"{"auths":{"other.example":{"auth":"Y2k6c2VjcmV0"}}}"#);
    let file = workspace.path("home/.docker/config.json").display().to_string();
    let error = workspace.fail(&pull, 3);
    let message =
        format!("because {file} has no entry for this registry (searched {file}). Add an entry for it.");
    assert!(error.contains(&message), "{error}");
    workspace
        .write("home/.docker/config.json", &format!(r#"{{"auths":{{"{host}":{{"auth":"Y2k6c2VjcmV0"}}}}}}"#));
    registry.script(|request| {
        Some(match request.headers.contains_key("authorization") {
            true => Reply::status(403),
            false => Reply::with_header(401, "WWW-Authenticate", "Basic realm=\"x\""),
        })
    });
    let error = workspace.fail(&pull, 3);
    let message = format!(
        "cannot access {host}: it denied access (403) to user `ci` from ~/.docker/config.json. Check the credentials and \
         permissions of this user."
    );
    assert!(error.contains(&message) && !error.contains("secret"), "{error}");
}

#[test]
fn a_realm_elsewhere_receives_nothing() {
    let (workspace, registry, other) =
        (Workspace::new(), OciRegistry::start(false), OciRegistry::start(false));
    let (host, elsewhere) = (registry.host(), other.host());
    std::fs::create_dir_all(workspace.path("home/.docker")).unwrap();
    workspace
        .write("home/.docker/config.json", &format!(r#"{{"auths":{{"{host}":{{"auth":"Y2k6c2VjcmV0"}}}}}}"#));
    for realm in [
        format!("http://{elsewhere}/token"),
        format!("https://{elsewhere}/token"),
        format!("http://user:password@{host}/token"),
        "http://169.254.169.254/latest".to_owned(),
        "file:///etc/passwd".to_owned(),
        String::new(),
    ] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
        registry.script(move |_| Some(Reply::with_header(401, "WWW-Authenticate", &challenge)));
        let error = workspace.fail(&["codec", "resolve", &reference(&registry, "1.0.0")], 3);
        assert!(error.contains("cannot authenticate with"), "{realm}: {error}");
        if realm.starts_with(&format!("http://{elsewhere}")) {
            let message = format!(
                "cannot authenticate with {host}: it sends clients to {elsewhere} for a token, and ktables does not send \
                 credentials to that host. If you trust the host, add it to `auth_hosts`."
            );
            assert!(error.contains(&message), "{error}");
        }
        let all = [registry.take_requests(), other.take_requests()].concat();
        assert!(all.iter().all(|request| !request.headers.contains_key("authorization")), "{realm}: {all:?}");
    }
    assert_eq!(other.take_requests().len(), 0);
}

#[test]
fn a_registry_that_limits_requests_is_asked_three_times() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let (host, pull) = (registry.host(), ["codec", "resolve", &reference(&registry, "1.0.0")]);
    registry
        .script(|request| (request.path != "/v2/").then(|| Reply::with_header(429, "Retry-After", "3600")));
    let error = workspace.fail(&pull, 3);
    let message = format!(
        "cannot pull from {host}: it limits the rate of requests (429, retry after 3600 s), and ktables gave up after 3 tries. \
         Pull with credentials, pull from a mirror, or ship the codecs in the image."
    );
    assert!(error.contains(&message), "{error}");
    let requests = registry.take_requests();
    assert_eq!(requests.iter().filter(|request| request.path.contains("manifests")).count(), 3);
}

#[test]
fn redirects_are_followed_five_times_and_never_to_plain_http() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    let pull = ["codec", "pull", &text(&pushed, "reference")];
    registry.script(|request| {
        request.path.contains("/blobs/").then(|| Reply::with_header(307, "Location", &request.path))
    });
    let error = workspace.fail(&pull, 3);
    assert!(
        error.contains("cannot fetch the codec: the registry redirected 5 times (127.0.0.1 →"),
        "{error}"
    );
    assert!(error.contains("which is the limit. Check the registry's configuration."), "{error}");
    for target in ["file:///etc/passwd", "http://169.254.169.254/x", "http://user:x@127.0.0.1/x"] {
        registry.script(move |request| {
            request.path.contains("/blobs/").then(|| Reply::with_header(307, "Location", target))
        });
        let error = workspace.fail(&pull, 3);
        assert!(error.contains("cannot fetch the codec: the registry redirects to"), "{target}: {error}");
    }
    // Another host gets the request, and no credentials.
    let storage = OciRegistry::start(false);
    storage.script({
        let registry = registry.clone();
        move |request| {
            let name = request.path.rsplit('/').next().unwrap_or_default().to_owned();
            Some(Reply::Answer(200, Vec::new(), registry.blob(&name)))
        }
    });
    let target = storage.host();
    registry.script(move |request| {
        let is_blob = request.method == "GET" && request.path.contains("/blobs/");
        is_blob.then(|| Reply::with_header(307, "Location", &format!("http://{target}{}", request.path)))
    });
    workspace.succeed(&pull);
    let requests = storage.take_requests();
    assert!(!requests.is_empty());
    assert!(requests.iter().all(|request| !request.headers.contains_key("authorization")));
}

#[test]
fn a_redirect_does_not_leave_tls() {
    let (workspace, (registry, certificate)) = (Workspace::new(), OciRegistry::start_with_tls());
    let (host, plain) = (registry.host(), OciRegistry::start(false));
    workspace.write("ca.pem", &certificate);
    workspace.configure("service.wasm", &format!("[registries.\"{host}\"]\nca = \"ca.pem\""));
    let pushed = workspace.push(&registry, "1.0.0");
    let target = plain.host();
    registry.script(move |request| {
        let is_blob = request.method == "GET" && request.path.contains("/blobs/");
        is_blob.then(|| Reply::with_header(307, "Location", &format!("http://{target}{}", request.path)))
    });
    let error = workspace.fail(&["codec", "pull", &text(&pushed, "reference")], 3);
    let message = "cannot fetch the codec: the registry redirects from https to http, and ktables refuses that. Check the \
                   registry's configuration.";
    assert!(error.contains(message), "{error}");
    assert_eq!(plain.take_requests().len(), 0);
    registry.end_script();
    workspace.succeed(&["codec", "pull", &text(&pushed, "reference")]);
}

#[test]
fn keys_that_cannot_be_used_are_refused() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    let signed = text(&pushed, "reference");
    let vectors = ktables_tests::root().join("tests/vectors/oci");
    let cosign = vectors.join("cosign.key").display().to_string();
    let error = workspace.fail(&["codec", "sign", &signed, "--key", &cosign], 2);
    let message = format!(
        "cannot read the key {cosign}: it uses cosign's own encryption. Sign with `cosign sign`, or use `--payload` and \
         `--attach`."
    );
    assert!(error.contains(&message), "{error}");
    workspace.keygen("plain");
    let mut keygen = workspace.ktables(&["codec", "keygen", "secret"]);
    assert_eq!(run(keygen.env("KTABLES_KEY_PASSWORD", "right")).json()[0]["encrypted"], true);
    let sign = ["codec", "sign", &signed, "--key", "secret.key"];
    let output = run(workspace.ktables(&sign).env("KTABLES_KEY_PASSWORD", "wrong"));
    let message =
        "cannot read the key secret.key: the password is wrong. Check the password (`KTABLES_KEY_PASSWORD`).";
    assert!(output.code == 2 && output.stderr.contains(message), "{}", output.stderr);
    assert_eq!(run(workspace.ktables(&sign).env("KTABLES_KEY_PASSWORD", "right")).code, 0);
    assert!(workspace.fail(&sign, 2).contains("it is encrypted, and there is no password"));
    let error = workspace.fail(&["codec", "keygen", "secret"], 2);
    assert!(error.contains("secret.key exists"), "{error}");
    // A signature approves a codec, and nothing else.
    let other = br#"{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;
    registry.set_manifest("codecs/service", &ktables_tests::digest(other), other);
    let other = format!("oci://{}/codecs/service@{}", registry.host(), ktables_tests::digest(other));
    assert!(
        workspace.fail(&["codec", "sign", &other, "--key", "plain.key"], 1).contains("cannot load the codec")
    );
    // A tag is not signed, because it may move.
    let error = workspace.fail(&["codec", "sign", &reference(&registry, "1.0.0"), "--key", "secret.key"], 2);
    assert!(error.contains(&format!("It names {} now: sign {signed}", text(&pushed, "manifest"))), "{error}");
}

#[test]
fn a_lock_file_that_somebody_changed_is_noticed() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    workspace.configure(&reference(&registry, "1.0.0"), "");
    workspace.succeed(&["codec", "lock"]);
    let lock = std::fs::read_to_string(workspace.path("ktables.lock")).unwrap();
    let other = format!("sha256:{}", "9f2c".repeat(16));
    workspace.write("ktables.lock", &lock.replace(&text(&pushed, "component"), &other));
    let error = workspace.fail(&["status", "-t", "services"], 3);
    assert!(error.contains(&format!("ktables.lock has component {other}")), "{error}");
}
