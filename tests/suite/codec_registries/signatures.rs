//! Signatures: ours and those of cosign, in both formats, and what does not count as one.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ktables_tests::{OciRegistry, Reply, digest, root, run};
use serde_json::{Value, json};

use crate::codec_registries::{Workspace, copy_folder, reference, text};

/// The layout with signatures that cosign's own library made.
fn vectors() -> std::path::PathBuf {
    root().join("tests/vectors/oci")
}

#[test]
fn signatures_of_cosign_are_verified_with_their_keys_and_refused_with_others() {
    let workspace = Workspace::new();
    let codec = format!("oci-layout:{}:1.0.0", vectors().join("layout").display());
    for (key, other) in [("cosign", "bundle"), ("bundle", "cosign")] {
        let path = vectors().join(format!("{key}.pub")).display().to_string();
        let verified = workspace.succeed(&["codec", "verify", &codec, "--key", &path]);
        assert_eq!(verified["signed_by"], json!([key]));
        // Without its own signature, the other key's does not count.
        let copy = Workspace::new();
        copy_folder(&vectors().join("layout"), &copy.path("layout"));
        let index = std::fs::read_to_string(copy.path("layout/index.json")).unwrap();
        let mut index: Value = serde_json::from_str(&index).unwrap();
        let is_own = |entry: &Value| {
            let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default();
            if key == "cosign" {
                name.ends_with(".sig")
            } else {
                name.starts_with("sha256-") && !name.ends_with(".sig")
            }
        };
        index["manifests"].as_array_mut().unwrap().retain(|entry| !is_own(entry));
        copy.write("layout/index.json", &index.to_string());
        let error = copy.fail(&["codec", "verify", "oci-layout:layout:1.0.0", "--key", &path], 1);
        assert!(
            error.contains(&format!("it has 1 signature, but none by {key}. 1 is by an unknown key")),
            "{error}"
        );
        let path = vectors().join(format!("{other}.pub")).display().to_string();
        copy.succeed(&["codec", "verify", "oci-layout:layout:1.0.0", "--key", &path]);
    }
}

#[test]
fn each_format_alone_is_a_signature() {
    for has_referrers in [false, true] {
        let (workspace, registry) = (Workspace::new(), OciRegistry::start(has_referrers));
        let signed = text(&workspace.push(&registry, "1.0.0"), "reference");
        for format in ["tag", "bundle"] {
            workspace.keygen(format);
            let key = format!("{format}.key");
            workspace.succeed(&["codec", "sign", &signed, "--key", &key, "--format", format]);
            let verified =
                workspace.succeed(&["codec", "verify", &signed, "--key", &format!("{format}.pub")]);
            assert_eq!(verified["signed_by"], json!([format]));
        }
    }
}

#[test]
fn signing_again_adds_nothing_and_other_keys_add_to_what_is_there() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let signed = text(&workspace.push(&registry, "1.0.0"), "reference");
    for name in ["a", "b"] {
        workspace.keygen(name);
        for _ in 0..2 {
            workspace.succeed(&["codec", "sign", &signed, "--key", &format!("{name}.key")]);
        }
    }
    let tag = format!("{}.sig", signed.rsplit_once('@').unwrap().1.replace(':', "-"));
    let manifest: Value = serde_json::from_slice(&registry.manifest("codecs/service", &tag)).unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
    let index: Value =
        serde_json::from_slice(&registry.manifest("codecs/service", tag.trim_end_matches(".sig"))).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    for name in ["a", "b"] {
        workspace.succeed(&["codec", "verify", &signed, "--key", &format!("{name}.pub")]);
    }
}

#[test]
fn a_key_of_another_program_signs() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    let signed = text(&workspace.push(&registry, "1.0.0"), "reference");
    workspace.keygen("kms");
    workspace.keygen("other");
    for format in ["tag", "bundle"] {
        let payload =
            run(&mut workspace.ktables(&["codec", "sign", &signed, "--payload", "--format", format]));
        workspace.write("payload", &payload.stdout);
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-sign", "kms.key", "-out", "payload.der", "payload"]);
        assert!(openssl.current_dir(workspace.path("")).status().unwrap().success());
        let signature = std::fs::read(workspace.path("payload.der")).unwrap();
        workspace.write("payload.sig", &BASE64_STANDARD.encode(signature));
        let attach = |key: &str| {
            ["codec", "sign", &signed, "--attach", "payload", "--signature", "payload.sig", "--key", key]
                .map(str::to_owned)
        };
        let args = attach("other.pub");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let error = workspace.fail(&args, 1);
        assert!(error.contains("cannot attach the signature: it is not valid"), "{error}");
        let args = attach("kms.pub");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        workspace.succeed(&args);
        workspace.succeed(&["codec", "verify", &signed, "--key", "kms.pub"]);
    }
    // A payload of another codec cannot be attached.
    let other = workspace.push_other(&registry, "2.0.0");
    let args = [
        "codec",
        "sign",
        &text(&other, "reference"),
        "--attach",
        "payload",
        "--signature",
        "payload.sig",
        "--key",
        "kms.pub",
    ];
    let error = workspace.fail(&args, 1);
    assert!(error.contains("are about another manifest"), "{error}");
}

#[test]
fn no_signature_no_answer_and_no_valid_signature_are_three_errors() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    workspace.keygen("platform");
    workspace.keygen("other");
    let pushed = workspace.push(&registry, "1.0.0");
    let signed = text(&pushed, "reference");
    let verify = ["codec", "verify", &signed, "--key", "platform.pub"];
    let error = workspace.fail(&verify, 1);
    let tag = format!("{}.sig", text(&pushed, "manifest").replace(':', "-"));
    let message = format!(
        "{signed}: cannot verify the codec: it is not signed. {}/codecs/service has neither {tag} nor a referrer (this registry \
         has no referrers API). If this is a mirror, the copy may have lost the signatures: copy the codec again with `ktables \
         codec mirror`, which carries them. Otherwise, sign it with `ktables codec sign`.",
        registry.host()
    );
    assert!(error.contains(&message), "{error}");

    registry.script(|request| request.path.contains(".sig").then(|| Reply::status(503)));
    let error = workspace.fail(&verify, 3);
    let message =
        format!("ktables could not read its signatures (503 from {}). It does not", registry.host());
    assert!(error.contains(&message), "{error}");
    assert!(
        error.contains("It does not treat the codec as unsigned. Try again when the registry responds."),
        "{error}"
    );
    registry.end_script();

    workspace.succeed(&["codec", "sign", &signed, "--key", "other.key"]);
    let error = workspace.fail(&verify, 1);
    let message =
        "cannot verify the codec: it has 2 signatures, but none by platform. 2 are by unknown keys (hint ";
    assert!(error.contains(message), "{error}");
    assert!(error.contains("Sign the codec with one of the required keys."), "{error}");
    workspace.succeed(&["codec", "sign", &signed, "--key", "platform.key"]);
    workspace.succeed(&verify);
}

#[test]
fn a_signature_of_another_codec_does_not_count() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    workspace.keygen("platform");
    let address = reference(&registry, "1.0.0");
    let first = workspace.succeed(&["codec", "push", "service.wasm", &address, "--sign", "platform.key"]);
    let second = workspace.push_other(&registry, "2.0.0");
    let tag = |pushed: &Value| format!("{}.sig", text(pushed, "manifest").replace(':', "-"));
    registry.set_manifest(
        "codecs/service",
        &tag(&second),
        &registry.manifest("codecs/service", &tag(&first)),
    );
    let error = workspace.fail(&["codec", "verify", &text(&second, "reference"), "--key", "platform.pub"], 1);
    assert!(error.contains("it has 1 signature, but none by platform. 1 names another manifest."), "{error}");
}

#[test]
fn more_signatures_than_anybody_needs_are_refused() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
    workspace.keygen("platform");
    let address = reference(&registry, "1.0.0");
    let pushed = workspace.succeed(&["codec", "push", "service.wasm", &address, "--sign", "platform.key"]);
    let tag = format!("{}.sig", text(&pushed, "manifest").replace(':', "-"));
    let mut manifest: Value = serde_json::from_slice(&registry.manifest("codecs/service", &tag)).unwrap();
    let layer = manifest["layers"][0].clone();
    for (count, code) in [(63, 0), (64, 1), (1_000, 1)] {
        manifest["layers"] = vec![layer.clone(); count].into();
        registry.set_manifest("codecs/service", &tag, manifest.to_string().as_bytes());
        let fresh = Workspace::new();
        std::fs::copy(workspace.path("platform.pub"), fresh.path("platform.pub")).unwrap();
        let output = run(&mut fresh.ktables(&[
            "codec",
            "verify",
            &text(&pushed, "reference"),
            "--key",
            "platform.pub",
        ]));
        assert_eq!(output.code, code, "{count}: {}", output.stderr);
        assert!(code == 0 || output.stderr.contains("more than 64 signatures"), "{}", output.stderr);
    }
}

// Long because it goes through the states of one codec.
#[test]
fn a_report_is_no_approval_and_an_approval_is_no_report() {
    let (workspace, registry) = (Workspace::new(), OciRegistry::start(true));
    workspace.keygen("platform");
    workspace.keygen("conformance");
    let pushed = workspace.push(&registry, "1.0.0");
    let signed = text(&pushed, "reference");
    let report = |result: &str, component: &str| {
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "digest": { "sha256": component.trim_start_matches("sha256:") } }],
            "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
            "predicate": {
                "result": result,
                "configuration": [{ "name": "ktables-conformance" }],
                "failedTests": if result == "FAILED" { vec!["limits"] } else { Vec::new() },
            },
        })
    };
    workspace.write("report.json", &report("FAILED", &text(&pushed, "component")).to_string());
    let attest = ["codec", "attest", &signed, "--report", "report.json", "--key", "conformance.key"];
    assert_eq!(workspace.succeed(&attest)["result"], "FAILED");
    let error = workspace.fail(&["codec", "verify", &signed, "--key", "conformance.pub"], 1);
    let message = "it has 1 signature, but none by conformance. 1 is a report and no approval.";
    assert!(error.contains(message), "{error}");
    workspace.write("policy.toml", POLICY);
    let verify = ["codec", "verify", &signed, "--policy", "policy.toml"];
    let error = workspace.fail(&verify, 1);
    assert!(error.contains("but none by platform. 1 is a report and no approval."), "{error}");
    workspace.succeed(&["codec", "sign", &signed, "--key", "platform.key"]);
    let error = workspace.fail(&verify, 1);
    let message = "cannot approve the codec: its conformance report says FAILED: limits. Fix the codec, and attach a new report \
                   with `ktables codec attest`.";
    assert!(error.contains(message), "{error}");
    // A report about something else, and one by the wrong key.
    workspace.write("report.json", &report("PASSED", &digest(b"x")).to_string());
    assert!(workspace.fail(&attest, 1).contains("is about another component"));
    workspace.write("report.json", &report("PASSED", &text(&pushed, "component")).to_string());
    let mut by_platform = attest;
    by_platform[6] = "platform.key";
    workspace.succeed(&by_platform);
    assert!(workspace.fail(&verify, 1).contains("says FAILED"));
    workspace.succeed(&attest);
    assert_eq!(workspace.succeed(&verify)["report"], "PASSED");

    // Without any report.
    let other = workspace.succeed(&[
        "codec",
        "push",
        "service.wasm",
        &reference(&registry, "2.0.0"),
        "--annotation",
        "a=b",
        "--sign",
        "platform.key",
    ]);
    let error =
        workspace.fail(&["codec", "verify", &text(&other, "reference"), "--policy", "policy.toml"], 1);
    let message = "cannot approve the codec: it has no conformance report signed by `conformance`. Attach one with `ktables \
                   codec attest`.";
    assert!(error.contains(message), "{error}");
}

/// A policy that requires an approval and a report.
const POLICY: &str = r#"
version = 1
default = "refuse"
[keys.platform]
file = "platform.pub"
[keys.conformance]
file = "conformance.pub"
[[rule]]
sources = ["127.0.0.1:*/codecs/**"]
signed_by = { any_of = ["platform"] }
report = { suite = "ktables-conformance", signed_by = ["conformance"] }
"#;
