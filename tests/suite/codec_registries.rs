//! Codecs in registries: pushed, locked, signed, verified, copied, revoked, and used by tables.

mod errors;
mod failures;
mod hostile;
mod lists;
mod policies;
mod real;
mod revocations;
mod signatures;
mod stores;

use std::path::{Path, PathBuf};
use std::process::Command;

use ktables_tests::{CommandOutput, OciRegistry, component_path, ktables, run, succeed};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a configuration, a store and keys of its own.
struct Workspace {
    folder: TempDir,
}

impl Workspace {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::copy(component_path("service-record"), folder.path().join("service.wasm")).unwrap();
        std::fs::create_dir(folder.path().join("home")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the `ktables` command in this folder, with nothing of the user's environment.
    fn ktables(&self, args: &[&str]) -> Command {
        let mut command = ktables(args);
        command
            .current_dir(self.folder.path())
            .env("KTABLES_CACHE_DIR", self.path("cache"))
            .env("HOME", self.path("home"));
        for name in [
            "KTABLES_CODEC_PATH",
            "KTABLES_OFFLINE",
            "KTABLES_POLICY",
            "KTABLES_KEY_PASSWORD",
            "DOCKER_CONFIG",
        ] {
            command.env_remove(name);
        }
        command.env_remove("REGISTRY_AUTH_FILE").env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// Runs a command that must succeed, and returns the last object that it prints.
    fn succeed(&self, args: &[&str]) -> Value {
        succeed(&mut self.ktables(args)).json().pop().unwrap_or_default()
    }

    /// Runs a command that must fail with this exit code, and returns its messages.
    fn fail(&self, args: &[&str], code: i32) -> String {
        let CommandOutput { code: actual, stderr, .. } = run(&mut self.ktables(args));
        assert_eq!(actual, code, "{args:?}: {stderr}");
        stderr
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Creates a pair of keys with this name.
    fn keygen(&self, name: &str) {
        self.succeed(&["codec", "keygen", name]);
    }

    /// Writes a configuration with a table `services`, whose codec `service` is this component. Returns it.
    fn configure(&self, component: &str, more: &str) -> String {
        let text = format!(
            "[logs.local]\nurl = \"dir:./data\"\n[codecs.service]\ncomponent = \"{component}\"\n{more}\n\
             [tables.services]\nlog = \"local\"\ntopic = \"services\"\nvalue_codec = \"service\"\nensure_topic = true\n"
        );
        self.write("ktables.toml", &text);
        text
    }

    /// Pushes the same component with an annotation, so that the manifest has another digest.
    fn push_other(&self, registry: &OciRegistry, tag: &str) -> Value {
        let reference = reference(registry, tag);
        self.succeed(&["codec", "push", "service.wasm", &reference, "--annotation", "a=b"])
    }

    /// Pushes the example component, and returns what the command prints.
    fn push(&self, registry: &OciRegistry, tag: &str) -> Value {
        self.succeed(&["codec", "push", "service.wasm", &reference(registry, tag)])
    }
}

/// Returns a reference to the codec of the tests.
fn reference(registry: &OciRegistry, tag: &str) -> String {
    format!("oci://{}/codecs/service:{tag}", registry.host())
}

/// Returns the text of a member of an object.
fn text(object: &Value, name: &str) -> String {
    object[name].as_str().unwrap_or_else(|| panic!("{name}: {object}")).to_owned()
}

/// Copies a folder.
fn copy_folder(from: &Path, to: &Path) {
    succeed(Command::new("cp").arg("-r").arg(from).arg(to));
}

#[test]
fn a_codec_is_pushed_locked_and_used_by_a_table() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    assert_eq!(pushed["pushed"], true);
    // The same file results in the same manifest.
    let again = workspace.push(&registry, "1.0.0");
    assert_eq!((&again["pushed"], &again["manifest"]), (&false.into(), &pushed["manifest"]));
    let resolved = workspace.succeed(&["codec", "resolve", &reference(&registry, "1.0.0")]);
    assert_eq!((&resolved["manifest"], &resolved["component"]), (&pushed["manifest"], &pushed["component"]));

    workspace.configure(&reference(&registry, "1.0.0"), "");
    let locked = workspace.succeed(&["codec", "lock"]);
    assert_eq!((&locked["state"], &locked["manifest"]), (&"added".into(), &pushed["manifest"]));
    assert_eq!(workspace.succeed(&["codec", "lock"])["state"], "unchanged");
    let value = r#"{"host":"a","port":1,"weight":1,"healthy":true,"draining":false,"started":1,"tags":[]}"#;
    workspace.succeed(&["set", "a", value, "-t", "services"]);
    let status = workspace.succeed(&["status", "-t", "services"]);
    let codec = &status["codecs"]["value"];
    assert_eq!((&codec["digest"], &codec["manifest"]), (&pushed["component"], &pushed["manifest"]));
    assert_eq!(codec["source"], "store");
    assert!(text(codec, "reference").starts_with("oci://"), "{codec}");

    // The registry is not needed any more.
    let _ = registry.take_requests();
    registry.script(|_| Some(ktables_tests::Reply::Close));
    workspace.succeed(&["get", "a", "-t", "services"]);
    assert_eq!(registry.take_requests().len(), 0);
}

#[test]
fn a_report_names_the_newest_version_and_an_update_removes_old_entries() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    for tag in ["1.4.0", "1.5.0", "1.10.0", "2.0.0-rc.1", "2.0.0-rc.2", "latest"] {
        workspace.push(&registry, tag);
    }
    let newer = |tag: &str| {
        workspace.configure(&reference(&registry, tag), "");
        workspace.succeed(&["codec", "lock"]);
        workspace.succeed(&["codec", "report", "--online"])["newer"].clone()
    };
    assert_eq!(newer("1.4.0"), "1.10.0");
    assert_eq!((newer("1.10.0"), newer("latest")), (Value::Null, Value::Null));
    assert_eq!(newer("2.0.0-rc.1"), "2.0.0-rc.2");
    // Without `--online`, only files are read. A registry that does not answer is no reason to fail.
    newer("1.5.0");
    let _ = registry.take_requests();
    assert_eq!(workspace.succeed(&["codec", "report"])["newer"], Value::Null);
    assert_eq!(registry.take_requests().len(), 0);
    registry.script(|request| request.path.contains("/tags/").then(|| ktables_tests::Reply::status(404)));
    let output = run(&mut workspace.ktables(&["codec", "report", "--online"]));
    assert!(
        output.code == 0 && output.stderr.contains("cannot look for newer versions"),
        "{}",
        output.stderr
    );
    registry.end_script();

    // The lock file has all five by now, and the configuration needs one.
    let output = run(&mut workspace.ktables(&["codec", "lock", "--check"]));
    let unneeded = format!("no codec needs the entry {}", reference(&registry, "1.4.0"));
    assert!(output.code == 0 && output.stderr.contains(&unneeded), "{}", output.stderr);
    let lines = succeed(&mut workspace.ktables(&["codec", "lock", "--update"])).json();
    assert_eq!(lines.iter().filter(|line| line["state"] == "removed").count(), 4, "{lines:?}");
    let lock = std::fs::read_to_string(workspace.path("ktables.lock")).unwrap();
    assert_eq!(lock.matches("[[codec]]").count(), 1);
}

#[test]
fn a_lock_file_keeps_a_codec_although_its_tag_moves() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let first = workspace.push(&registry, "1.0.0");
    workspace.configure(&reference(&registry, "1.0.0"), "");
    let check = ["codec", "lock", "--check"];
    let error = workspace.fail(&check, 1);
    assert!(error.contains("codecs.service: cannot resolve the reference"), "{error}");
    workspace.succeed(&["codec", "lock"]);
    workspace.succeed(&check);
    let remote = ["codec", "lock", "--check", "--remote"];
    workspace.succeed(&remote);

    let error = workspace
        .fail(&["codec", "push", "service.wasm", &reference(&registry, "1.0.0"), "--annotation", "a=b"], 1);
    let manifest = text(&first, "manifest");
    assert!(
        error.contains(&format!("cannot push tag 1.0.0: it already names manifest {manifest}")),
        "{error}"
    );
    assert!(error.contains("or pass `--move-tag` to move the tag."), "{error}");
    let second = workspace.succeed(&[
        "codec",
        "push",
        "service.wasm",
        &reference(&registry, "1.0.0"),
        "--annotation",
        "a=b",
        "--move-tag",
    ]);
    assert_ne!(second["manifest"], first["manifest"]);
    workspace.succeed(&check);
    let error = workspace.fail(&remote, 1);
    assert!(error.contains("the tag 1.0.0 has moved"), "{error}");
    assert_eq!(workspace.succeed(&["codec", "lock"])["manifest"], first["manifest"]);
    let updated = workspace.succeed(&["codec", "lock", "--update", "service"]);
    assert_eq!((&updated["state"], &updated["manifest"]), (&"updated".into(), &second["manifest"]));
    let error = workspace.fail(&["codec", "lock", "--update", "servise"], 2);
    assert!(error.contains("did you mean `service`?"), "{error}");
}

#[test]
fn a_bundle_carries_a_codec_and_its_signatures_to_a_machine_without_network() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(true));
    workspace.keygen("platform");
    let reference = reference(&registry, "1.0.0");
    let pushed = workspace.succeed(&["codec", "push", "service.wasm", &reference, "--sign", "platform.key"]);
    workspace.configure(&reference, "");
    workspace.succeed(&["codec", "lock"]);
    for name in ["a.tar", "b.tar"] {
        let bundled = workspace.succeed(&["codec", "bundle", "-o", name, "--lock", "ktables.lock"]);
        assert_eq!(bundled["attached"].as_array().unwrap().len(), 2, "both formats: {bundled}");
    }
    let read = |name| std::fs::read(workspace.path(name)).unwrap();
    assert!(read("a.tar") == read("b.tar"), "the same codecs, the same bytes");

    let other = Workspace::new();
    std::fs::copy(workspace.path("a.tar"), other.path("a.tar")).unwrap();
    std::fs::copy(workspace.path("platform.pub"), other.path("platform.pub")).unwrap();
    let loaded = other.succeed(&["codec", "load", "a.tar"]);
    assert_eq!(loaded["manifest"], pushed["manifest"]);
    other.configure(&text(&pushed, "reference"), "");
    let offline =
        |args: &[&str]| succeed(other.ktables(args).env("KTABLES_OFFLINE", "1")).json().pop().unwrap();
    let _ = registry.take_requests();
    let verified = offline(&["codec", "verify", &text(&pushed, "reference"), "--key", "platform.pub"]);
    assert_eq!(verified["signed_by"], serde_json::json!(["platform"]));
    assert_eq!(offline(&["status", "-t", "services"])["status"], "caught_up");
    assert_eq!(registry.take_requests().len(), 0);
}

#[test]
fn a_mirror_has_everything_that_is_attached() {
    let workspace = Workspace::new();
    workspace.keygen("platform");
    for (from_api, to_api) in [(false, false), (true, false), (false, true), (true, true)] {
        let (from, to) = (OciRegistry::start(from_api), OciRegistry::start(to_api));
        let source = reference(&from, "1.0.0");
        let pushed = workspace.succeed(&["codec", "push", "service.wasm", &source, "--sign", "platform.key"]);
        let target = format!("oci://{}/mirror/codecs/service", to.host());
        let mirrored = workspace.succeed(&["codec", "mirror", &source, &target]);
        assert_eq!(mirrored["manifest"], pushed["manifest"]);
        assert_eq!(mirrored["attached"].as_array().unwrap().len(), 2, "{mirrored}");
        let copy = format!("{target}@{}", text(&pushed, "manifest"));
        let verified = workspace.succeed(&["codec", "verify", &copy, "--key", "platform.pub"]);
        assert_eq!(verified["signed_by"], serde_json::json!(["platform"]));
    }
}

#[test]
fn a_mirror_is_asked_first_and_by_digest() {
    let (workspace, registry, mirror) =
        (Workspace::new(), OciRegistry::start(false), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    let copy = format!("oci://{}/mirror/codecs/service", mirror.host());
    workspace.succeed(&["codec", "mirror", &reference(&registry, "1.0.0"), &copy]);
    let host = registry.host();
    let settings = |mirror: &str| format!("[registries.\"{host}\"]\nmirrors = [\"{mirror}\"]");
    let fetch = |mirror: &str| {
        let fetcher = Workspace::new();
        fetcher.configure(&text(&pushed, "reference"), &settings(mirror));
        let _ = registry.take_requests();
        fetcher.succeed(&["codec", "pull", &text(&pushed, "reference")])
    };
    let pulled = fetch(&format!("oci://{}/mirror", mirror.host()));
    assert_eq!(pulled["source"], format!("registry {}/mirror/codecs/service", mirror.host()));
    assert_eq!(registry.take_requests().len(), 0, "the registry is not needed");
    // A mirror that has other bytes, or none, is no obstacle.
    mirror.set_manifest("mirror/codecs/service", &text(&pushed, "manifest"), b"{}");
    assert_eq!(
        fetch(&format!("oci://{}/mirror", mirror.host()))["source"],
        format!("registry {host}/codecs/service")
    );
    assert_eq!(fetch("oci://127.0.0.1:1/mirror")["source"], format!("registry {host}/codecs/service"));
    // A layout is a mirror, too.
    let layout = workspace.path("layout").display().to_string();
    workspace.succeed(&["codec", "mirror", &reference(&registry, "1.0.0"), &format!("oci-layout:{layout}")]);
    assert_eq!(fetch(&format!("oci-layout:{layout}"))["source"], format!("registry {layout}"));
    assert_eq!(registry.take_requests().len(), 0);
}

#[test]
fn a_mirror_that_loses_a_signature_is_noticed() {
    let (workspace, from, to) = (Workspace::new(), OciRegistry::start(false), OciRegistry::start(false));
    workspace.keygen("platform");
    let source = reference(&from, "1.0.0");
    let pushed = workspace.succeed(&["codec", "push", "service.wasm", &source, "--sign", "platform.key"]);
    let manifest = text(&pushed, "manifest");
    let tag = format!("{}.sig", manifest.replace(':', "-"));
    let reads = std::sync::atomic::AtomicUsize::new(0);
    let path = format!("/manifests/{tag}");
    to.script(move |request| {
        let is_read = request.method == "GET" && request.path.ends_with(&path);
        // It is looked for, and read back after it was written. Then it is gone.
        let is_lost = is_read && reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 2;
        is_lost.then(|| ktables_tests::Reply::status(404))
    });
    let host = to.host();
    let error = workspace.fail(&["codec", "mirror", &source, &format!("oci://{host}/copy/service")], 3);
    let message = format!(
        "cannot complete the mirror: {host} has {manifest}, but not its signature {tag}. Run `ktables codec mirror` again; if that \
         does not help, check {host}."
    );
    assert!(error.contains(&message), "{error}");
}

#[test]
fn a_tag_that_moves_meanwhile_changes_nothing() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let first = workspace.push(&registry, "1.0.0");
    let second = workspace.push_other(&registry, "2.0.0");
    let other = registry.manifest("codecs/service", &text(&second, "manifest"));
    let reads = std::sync::atomic::AtomicUsize::new(0);
    registry.script(move |request| {
        let is_tag = request.path.ends_with("/manifests/1.0.0");
        let has_moved = is_tag && reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 1;
        has_moved.then(|| ktables_tests::Reply::Answer(200, Vec::new(), other.clone()))
    });
    let pulled = workspace.succeed(&["codec", "pull", &reference(&registry, "1.0.0")]);
    assert_eq!(pulled["manifest"], first["manifest"]);
}
