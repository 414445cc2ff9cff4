//! Local stores of codecs: damaged, shared, read-only, without network.

use std::os::unix::fs::PermissionsExt;

use ktables_tests::{OciRegistry, run};

use crate::codec_registries::{Workspace, copy_folder, reference, text};

/// Returns the files of blobs in a store, by their contents.
fn find_blob(workspace: &Workspace, digest: &str) -> std::path::PathBuf {
    workspace.path("cache/oci/blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

#[test]
fn a_damaged_copy_is_fetched_again_and_is_an_error_without_network() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    let pull = ["codec", "pull", &text(&pushed, "reference")];
    for part in ["component", "manifest"] {
        workspace.succeed(&pull);
        let (digest, blob) = (text(&pushed, part), find_blob(&workspace, &text(&pushed, part)));
        let mut bytes = std::fs::read(&blob).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&blob, &bytes).unwrap();
        let output = run(&mut workspace.ktables(&pull));
        assert_eq!(output.code, 0, "{}", output.stderr);
        let message = format!(
            "cannot use the store's copy of {digest}: it is damaged. ktables removed it and fetched it again. No action is \
             needed."
        );
        assert!(output.stderr.contains(&message), "{}", output.stderr);
        std::fs::write(&blob, &bytes).unwrap();
        let output = run(workspace.ktables(&pull).env("KTABLES_OFFLINE", "1"));
        let message = format!(
            "cannot use the store's copy of {digest}: it is damaged, and the network is off. Run `ktables codec pull` where \
             there is a network, or load a bundle with `ktables codec load`."
        );
        assert!(output.code == 3 && output.stderr.contains(&message), "{}", output.stderr);
    }
}

#[test]
fn a_link_in_a_store_is_not_followed() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    workspace.succeed(&["codec", "pull", &text(&pushed, "reference")]);
    let blob = find_blob(&workspace, &text(&pushed, "component"));
    std::fs::rename(&blob, workspace.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(workspace.path("elsewhere"), &blob).unwrap();
    let pull = ["codec", "pull", &text(&pushed, "reference"), "--offline"];
    let error = workspace.fail(&pull, 3);
    assert!(error.contains("it is damaged, and the network is off"), "{error}");
}

#[test]
fn a_layout_of_an_image_is_read_and_never_written() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    workspace.keygen("platform");
    let address = reference(&registry, "1.0.0");
    let pushed = workspace.succeed(&["codec", "push", "service.wasm", &address, "--sign", "platform.key"]);
    workspace.succeed(&["codec", "bundle", "-o", "codecs", &address]);
    let other = Workspace::new();
    copy_folder(&workspace.path("codecs"), &other.path("codecs"));
    std::fs::copy(workspace.path("platform.pub"), other.path("platform.pub")).unwrap();
    for folder in ["codecs", "codecs/blobs", "codecs/blobs/sha256"] {
        std::fs::set_permissions(other.path(folder), std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    let mut verify = other.ktables(&[
        "codec",
        "verify",
        &text(&pushed, "reference"),
        "--key",
        "platform.pub",
        "--offline",
    ]);
    let output = run(verify.env("KTABLES_CODEC_PATH", other.path("codecs")));
    assert_eq!(output.code, 0, "{}", output.stderr);
    // Nothing was copied into the store.
    assert!(!find_blob(&other, &text(&pushed, "component")).exists());
    other.configure(&text(&pushed, "reference"), "");
    let mut status = other.ktables(&["status", "-t", "services"]);
    let output = run(status.env("KTABLES_CODEC_PATH", other.path("codecs")).env("KTABLES_OFFLINE", "1"));
    assert_eq!(output.code, 0, "{}", output.stderr);
    let source = format!("layout {}", other.path("codecs").display());
    assert_eq!(output.json()[0]["codecs"]["value"]["source"], source);
}

#[test]
fn a_configuration_names_a_layout() {
    let workspace = Workspace::new();
    let pushed = workspace.succeed(&["codec", "push", "service.wasm", "oci-layout:codecs:1.0.0"]);
    workspace.configure(&format!("oci-layout:codecs:1.0.0@{}", text(&pushed, "manifest")), "");
    assert_eq!(workspace.succeed(&["status", "-t", "services"])["status"], "caught_up");
    workspace.configure("oci-layout:codecs:1.0.0", "");
    let error = workspace.fail(&["status", "-t", "services"], 3);
    assert!(error.contains("it names a tag, which may move"), "{error}");
    workspace.succeed(&["codec", "lock"]);
    assert_eq!(workspace.succeed(&["status", "-t", "services"])["status"], "caught_up");
}

#[test]
fn a_store_of_others_is_not_used() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    std::fs::create_dir_all(workspace.path("cache/oci")).unwrap();
    std::fs::set_permissions(workspace.path("cache/oci"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = workspace.fail(&["codec", "pull", &text(&pushed, "reference")], 2);
    assert!(error.contains("other users have access to the folder"), "{error}");
}

#[test]
fn a_store_is_listed_verified_and_pruned() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let first = workspace.push(&registry, "1.0.0");
    let second = workspace.push_other(&registry, "2.0.0");
    for pushed in [&first, &second] {
        workspace.succeed(&["codec", "pull", &text(pushed, "reference")]);
    }
    let listed = ktables_tests::succeed(&mut workspace.ktables(&["codec", "store", "list"])).json();
    assert_eq!(listed.len(), 2);
    workspace.configure(&reference(&registry, "2.0.0"), "");
    workspace.succeed(&["codec", "lock"]);
    let pruned = workspace.succeed(&["codec", "store", "prune", "--lock", "ktables.lock"]);
    assert_eq!(pruned["removed"], 1, "the manifests differ, and share everything else: {pruned}");
    let listed = workspace.succeed(&["codec", "store", "list"]);
    assert_eq!(listed["manifest"], second["manifest"]);
    std::fs::write(find_blob(&workspace, &text(&second, "component")), "x").unwrap();
    workspace.fail(&["codec", "store", "verify"], 1);
    assert_eq!(workspace.succeed(&["codec", "store", "verify"])["removed"], 0);
}

#[test]
fn processes_that_fetch_at_once_do_not_disturb_each_other() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    let pulls: Vec<_> = (0..6)
        .map(|_| workspace.ktables(&["codec", "pull", &text(&pushed, "reference")]).spawn().unwrap())
        .collect();
    for mut pull in pulls {
        assert!(pull.wait().unwrap().success());
    }
    assert_eq!(workspace.succeed(&["codec", "store", "verify"])["removed"], 0);
}

#[test]
fn a_process_that_is_killed_while_it_writes_leaves_a_store_that_works() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let pushed = workspace.push(&registry, "1.0.0");
    let pull = ["codec", "pull", &text(&pushed, "reference")];
    for delay in 0..20 {
        let mut child = workspace.ktables(&pull).spawn().unwrap();
        // Not a wait for something: the kill is to come at any time.
        std::thread::sleep(std::time::Duration::from_millis(delay * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        workspace.succeed(&pull);
        std::fs::remove_file(find_blob(&workspace, &text(&pushed, "component"))).unwrap();
    }
    workspace.succeed(&pull);
    assert_eq!(workspace.succeed(&["codec", "store", "verify"])["removed"], 0);
}
