//! The programs of others: Debian's registry with TLS and passwords, crane, skopeo, credential helpers.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ktables_tests::kafka::target;
use ktables_tests::{eventually, succeed};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::codec_registries::{Workspace, text};

/// Debian's registry. It is killed on drop.
struct DockerRegistry {
    process: Child,
    host: String,
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // OK to ignore: it may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns a program of a package that `cargo xtask setup` has unpacked.
fn debian(package: &str, program: &str) -> PathBuf {
    let path = target().join("tools/debian").join(package).join("usr/bin").join(program);
    assert!(path.is_file(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

impl DockerRegistry {
    /// Starts a registry in a folder, with these sections of its configuration below `http`, and of their own.
    fn start(folder: &Path, http: &str, more: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        drop(listener);
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp:\n  addr: {host}\n\
             {http}{more}",
            folder.join("registry").display()
        );
        let path = folder.join("registry.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(debian("docker-registry", "docker-registry"));
        let process =
            command.arg("serve").arg(path).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        eventually("the registry listens", || std::net::TcpStream::connect(&host).ok());
        Self { process, host }
    }
}

/// Writes a certificate for this machine, and the authority that issued it.
fn write_certificates(folder: &Path) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "Corp CA");
    let ca_key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let (params, key) =
        (CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap(), KeyPair::generate().unwrap());
    std::fs::write(folder.join("cert.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn debians_registry_works_with_tls_passwords_and_a_private_authority() {
    let workspace = Workspace::new();
    write_certificates(&workspace.path(""));
    // The password is `secret`.
    let hash =
        succeed(Command::new("perl").args(["-e", "print crypt('secret', q($2y$05$abcdefghijklmnopqrstuu))"]))
            .stdout;
    workspace.write("htpasswd", &format!("ci:{hash}\n"));
    let path = |name: &str| workspace.path(name).display().to_string();
    let http = format!("  tls: {{ certificate: {}, key: {} }}\n", path("cert.pem"), path("key.pem"));
    let auth = format!("auth: {{ htpasswd: {{ realm: x, path: {} }} }}\n", path("htpasswd"));
    let registry = DockerRegistry::start(&workspace.path(""), &http, &auth);
    let (host, codec) = (&registry.host, format!("oci://{}/codecs/service:1.0.0", registry.host));

    let error = workspace.fail(&["codec", "resolve", &codec], 3);
    assert!(
        error.contains(&format!("cannot connect to {host}: its certificate was issued by \"Corp CA\"")),
        "{error}"
    );
    assert!(error.contains("If you trust this CA, set `ca = \"FILE\"` for this registry."), "{error}");
    workspace
        .configure(&codec, &format!("[registries.\"{host}\"]\nca = \"ca.pem\"\nauth_file = \"auth.json\""));
    workspace.write("auth.json", "{}");
    let error = workspace.fail(&["codec", "resolve", &codec], 3);
    assert!(error.contains("it denied access (401) to an anonymous client"), "{error}");
    workspace.write(
        "auth.json",
        &json!({ "auths": { host: { "username": "ci", "password": "wrong" } } }).to_string(),
    );
    let error = workspace.fail(&["codec", "push", "service.wasm", &codec], 3);
    assert!(error.contains("it denied access (401) to user `ci` from"), "{error}");
    workspace.write(
        "auth.json",
        &json!({ "auths": { host: { "username": "ci", "password": "secret" } } }).to_string(),
    );
    workspace.keygen("platform");
    let pushed = workspace.succeed(&["codec", "push", "service.wasm", &codec, "--sign", "platform.key"]);
    workspace.succeed(&["codec", "lock"]);
    assert_eq!(workspace.succeed(&["status", "-t", "services"])["status"], "caught_up");
    let verified =
        workspace.succeed(&["codec", "verify", &text(&pushed, "reference"), "--key", "platform.pub"]);
    assert_eq!(verified["signed_by"], json!(["platform"]));

    // A file that is no certificate is an error, and not the same as none.
    workspace.write("ca.pem", "nonsense");
    assert!(workspace.fail(&["codec", "resolve", &codec], 2).contains("ca.pem: it has no certificate"));
}

// Long because it copies one codec with both programs.
#[test]
fn crane_and_skopeo_move_a_codec_without_changing_its_digest() {
    let workspace = Workspace::new();
    let (from, to) = (workspace.path("from"), workspace.path("to"));
    for folder in [&from, &to] {
        std::fs::create_dir(folder).unwrap();
    }
    let (from, to) = (DockerRegistry::start(&from, "", ""), DockerRegistry::start(&to, "", ""));
    workspace.keygen("platform");
    let codec = format!("oci://{}/codecs/service:1.0.0", from.host);
    let pushed = workspace.succeed(&["codec", "push", "service.wasm", &codec, "--sign", "platform.key"]);
    let manifest = text(&pushed, "manifest");
    let verify = |codec: &str| {
        let fresh = Workspace::new();
        std::fs::copy(workspace.path("platform.pub"), fresh.path("platform.pub")).unwrap();
        fresh.succeed(&["codec", "verify", codec, "--key", "platform.pub"])
    };

    let crane = target().join("tools/crane/crane");
    assert!(crane.is_file(), "{} is missing: run `cargo xtask setup`", crane.display());
    let crane =
        |args: &[&str]| succeed(Command::new(&crane).args(args).env("HOME", workspace.path("home"))).stdout;
    let (source, copy) =
        (format!("{}/codecs/service:1.0.0", from.host), format!("{}/crane/service:1.0.0", to.host));
    crane(&["copy", "--insecure", &source, &copy]);
    assert_eq!(crane(&["digest", "--insecure", &copy]).trim(), manifest);
    // The signatures are tags of their own.
    let tag = manifest.replace(':', "-");
    let signatures = |repository: &str| format!("{repository}:{tag}.sig");
    crane(&[
        "copy",
        "--insecure",
        &signatures(&format!("{}/codecs/service", from.host)),
        &signatures(&format!("{}/crane/service", to.host)),
    ]);
    assert_eq!(verify(&format!("oci://{copy}"))["manifest"], manifest);

    let skopeo = |args: &[&str]| {
        let libraries = target().join("tools/debian/skopeo/usr/lib/x86_64-linux-gnu");
        let mut command = Command::new(debian("skopeo", "skopeo"));
        command
            .env("LD_LIBRARY_PATH", libraries)
            .env("HOME", workspace.path("home"))
            .env("TMPDIR", workspace.path(""));
        succeed(command.args(["--insecure-policy"]).args(args))
    };
    let layout = workspace.path("layout").display().to_string();
    for tag in ["1.0.0".to_owned(), format!("{tag}.sig")] {
        let source = format!("docker://{}/codecs/service:{tag}", from.host);
        skopeo(&["copy", "--src-tls-verify=false", &source, &format!("oci:{layout}:{tag}")]);
        let target = format!("docker://{}/skopeo/service:{tag}", to.host);
        skopeo(&["copy", "--dest-tls-verify=false", &format!("oci:{layout}:{tag}"), &target]);
    }
    assert_eq!(verify(&format!("oci://{}/skopeo/service@{manifest}", to.host))["manifest"], manifest);
    assert_eq!(verify(&format!("oci-layout:{layout}:1.0.0"))["manifest"], manifest);
    // What we bundle, skopeo copies.
    workspace.succeed(&["codec", "bundle", "-o", "bundle", &codec]);
    let bundle = format!("oci:{}:1.0.0", workspace.path("bundle").display());
    skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        &bundle,
        &format!("docker://{}/bundle/service:1.0.0", to.host),
    ]);
    let resolved =
        workspace.succeed(&["codec", "resolve", &format!("oci://{}/bundle/service:1.0.0", to.host)]);
    assert_eq!(resolved["manifest"], manifest);
}

#[test]
fn a_credential_helper_that_fails_hangs_or_floods_is_named_and_skipped() {
    let workspace = Workspace::new();
    let registry = DockerRegistry::start(&workspace.path(""), "", "");
    let codec = format!("oci://{}/codecs/service:1.0.0", registry.host);
    workspace.succeed(&["codec", "push", "service.wasm", &codec]);
    let protected = ktables_tests::OciRegistry::start(false);
    protected.script(|request| {
        let is_known =
            request.headers.get("authorization").is_some_and(|value| value == "Basic Y2k6c2VjcmV0");
        (!is_known).then(|| ktables_tests::Reply::with_header(401, "WWW-Authenticate", "Basic realm=\"x\""))
    });
    let host = protected.host();
    std::fs::create_dir(workspace.path("bin")).unwrap();
    for (name, script, expected) in [
        ("fails", "echo broken; exit 1", "broken"),
        ("floods", "yes x | head -c 1000000", "more than 65536 bytes"),
        ("lies", "echo nonsense", "is not JSON"),
        ("works", "echo '{\"Username\":\"ci\",\"Secret\":\"secret\"}'", ""),
    ] {
        let path = workspace.path("bin").join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(workspace.path("home/.docker")).unwrap();
        workspace.write("home/.docker/config.json", &json!({ "credHelpers": { &host: name } }).to_string());
        let path = format!("{}:{}", workspace.path("bin").display(), std::env::var("PATH").unwrap());
        let push = ["codec", "push", "service.wasm", &format!("oci://{host}/codecs/service:1.0.0")];
        let output = ktables_tests::run(workspace.ktables(&push).env("PATH", path));
        if expected.is_empty() {
            assert_eq!(output.code, 0, "{}", output.stderr);
        } else {
            let message = format!("the credential helper docker-credential-{name} failed: ");
            assert!(
                output.stderr.contains(&message) && output.stderr.contains(expected),
                "{}",
                output.stderr
            );
            assert_eq!(output.code, 3, "{}", output.stderr);
        }
    }
}
