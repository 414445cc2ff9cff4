//! Policies: which codecs may run, from where, by whom signed, with which limits, and which are revoked.

use std::process::Command;
use std::time::{Duration, Instant};

use ktables_tests::server::Server;
use ktables_tests::{OciRegistry, TIMEOUT, run};
use reqwest::Method;
use serde_json::{Value, json};

use crate::codec_registries::{Workspace, reference, text};

/// A workspace with a signed codec in a registry, a policy that is used by all commands, and a configuration.
pub(super) struct Approved {
    pub(super) workspace: Workspace,
    pub(super) registry: OciRegistry,
    pub(super) pushed: Value,
}

impl Approved {
    pub(super) fn new() -> Self {
        let (workspace, registry) = (Workspace::new(), OciRegistry::start(false));
        for name in ["platform-2026", "platform-2027"] {
            workspace.keygen(name);
        }
        let pushed = workspace.succeed(&["codec", "push", "service.wasm", &reference(&registry, "1.0.0")]);
        let signed = text(&pushed, "reference");
        workspace.succeed(&[
            "codec",
            "sign",
            &signed,
            "--key",
            "platform-2026.key",
            "--annotation",
            "env=test",
        ]);
        workspace.configure(&signed, "");
        Self { workspace, registry, pushed }
    }

    /// Writes the policy: the beginning that all have, and this.
    pub(super) fn policy(&self, more: &str) {
        let begin = "version = 1\ndefault = \"refuse\"\n[keys.platform-2026]\nfile = \"platform-2026.pub\"\n\
                     [keys.platform-2027]\nfile = \"platform-2027.pub\"\n";
        self.workspace.write("policy.toml", &format!("{begin}{more}"));
    }

    /// Runs a command under the policy. Returns its exit code and its messages.
    pub(super) fn run(&self, args: &[&str]) -> (i32, String) {
        let mut command = self.workspace.ktables(args);
        let output = run(command.env("KTABLES_POLICY", self.workspace.path("policy.toml")));
        (output.code, format!("{}{}", output.stderr, output.stdout))
    }

    /// Expects that the codec is approved, by `policy check` and for the table.
    pub(super) fn approve(&self) {
        for args in [&["policy", "check"][..], &["status", "-t", "services"]] {
            let (code, output) = self.run(args);
            assert_eq!(code, 0, "{args:?}: {output}");
        }
    }

    /// Expects that the codec is refused with this message, by `policy check` and for the table.
    pub(super) fn refuse(&self, message: &str) {
        for (args, expected) in [(&["policy", "check"][..], 1), (&["status", "-t", "services"], 3)] {
            let (code, output) = self.run(args);
            assert!(code == expected && output.contains(message), "{args:?}: {code} {output}");
            assert!(output.contains("codecs.service: "), "{output}");
        }
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let approved = Approved::new();
    let by = |key: &str| format!("signed_by = {{ any_of = [\"{key}\"] }}\n");
    approved.policy(&format!("[[rule]]\n{}", by("platform-2026")));
    approved.approve();
    approved.policy(&format!("[[rule]]\ntables = [\"other-*\"]\n[[rule]]\n{}", by("platform-2026")));
    approved.approve();
    approved.policy(&format!("[[rule]]\n{}[[rule]]\n", by("platform-2027")));
    approved.refuse(
        "it has 2 signatures, but none by platform-2027. 1 is by platform-2026, and 1 is by platform-2026.",
    );
    let host = approved.registry.host();
    approved.policy("[[rule]]\nsources = [\"registry.example/codecs/**\"]\n");
    approved.refuse(&format!(
        "cannot approve {host}/codecs/service for table services: no rule allows it. Use a codec from an allowed source \
         (registry.example/codecs/**), or add a rule to the policy."
    ));
    approved.policy(&format!("[registries]\nallow = [\"{host}/codecs/ser\"]\n[[rule]]\n"));
    approved.refuse("no rule allows it");
    approved.policy(&format!("[registries]\nallow = [\"{host}/codecs/*\"]\n[[rule]]\n"));
    approved.approve();
    let both = "any_of = [\"platform-2026\", \"platform-2027\"], at_least = 2";
    approved.policy(&format!("[[rule]]\nsigned_by = {{ {both} }}\n"));
    approved.refuse("1 of the required keys signed it (platform-2026), and the rule requires 2");
    approved.workspace.succeed(&[
        "codec",
        "sign",
        &text(&approved.pushed, "reference"),
        "--key",
        "platform-2027.key",
    ]);
    approved.approve();
}

#[test]
fn signatures_must_say_what_a_rule_requires() {
    let approved = Approved::new();
    let rule = "[[rule]]\ntables = [\"services*\"]\nsigned_by = { any_of = [\"platform-2026\"] }\n";
    approved.policy(&format!("{rule}signed_annotations = {{ env = \"prod\" }}\n"));
    approved.refuse(
        "cannot approve the codec: platform-2026 signed it with env = \"test\", but the rule for services* requires env = \
         \"prod\". Use a codec that is signed with env = \"prod\".",
    );
    approved.policy(&format!("{rule}signed_annotations = {{ env = \"test\" }}\n"));
    approved.approve();
    approved.policy(&format!("{rule}identity = \"match\"\n"));
    approved.approve();
    // The copy of another repository has its name.
    let copy = format!("oci://{}/mirror/service", approved.registry.host());
    approved.workspace.succeed(&["codec", "mirror", &reference(&approved.registry, "1.0.0"), &copy]);
    approved.workspace.configure(&format!("{copy}@{}", text(&approved.pushed, "manifest")), "");
    approved.refuse("platform-2026 signed it as");
}

#[test]
fn limits_of_a_configuration_stay_below_those_of_the_policy() {
    let approved = Approved::new();
    approved.policy("[[rule]]\nlimits = { memory = \"64MiB\", deadline = \"2s\" }\n");
    let codec = text(&approved.pushed, "reference");
    approved.workspace.configure(&codec, "limits = { memory = \"128MiB\" }");
    approved.refuse("its configuration asks for memory = 128.0 MiB, and the policy permits at most 64.0 MiB");
    approved.workspace.configure(&codec, "limits = { memory = \"64MiB\", deadline = \"3s\" }");
    approved.refuse("its configuration asks for deadline = 3s, and the policy permits at most 2s");
    approved.workspace.configure(&codec, "limits = { memory = \"64MiB\", deadline = \"2s\" }");
    approved.approve();
}

#[test]
fn files_are_no_way_around_a_policy() {
    let approved = Approved::new();
    let component = text(&approved.pushed, "component");
    approved.workspace.configure("service.wasm", "");
    approved.policy("");
    approved.refuse("the file service.wasm for table services: the policy");
    let by_argument =
        ["status", "--log", "dir:./data", "--topic", "services", "--value-codec", "service.wasm"];
    let (code, output) = approved.run(&by_argument);
    assert!(code == 3 && output.contains("does not allow files"), "{output}");
    approved.policy(&format!("[registries]\nfiles = [\"{component}\"]\n"));
    approved.approve();
    approved.policy("[registries]\nfiles = \"allow\"\n");
    approved.approve();
    // The codecs that are part of the program are as trusted as the program.
    approved.policy("");
    approved.workspace.configure(
        "avro",
        "schema_registry = \"none\"\n[schema_registries.none]\nurl = \"http://127.0.0.1:1\"",
    );
    let (code, output) = approved.run(&["policy", "check"]);
    assert_eq!(code, 0, "{output}");
}

#[test]
fn two_policies_must_both_approve_and_a_configuration_cannot_add_to_them() {
    let approved = Approved::new();
    approved.policy("[[rule]]\n");
    approved.workspace.write("strict.toml", "version = 1\ndefault = \"refuse\"\n");
    let (code, output) = approved.run(&["policy", "check", "--policy", "strict.toml"]);
    assert!(code == 1 && output.contains("no rule allows it"), "{output}");
    approved.approve();
    approved.policy("");
    let codec = text(&approved.pushed, "reference");
    approved.workspace.configure(&codec, "[policy]\ndefault = \"allow\"");
    let (code, output) = approved.run(&["status", "-t", "services"]);
    assert!(code == 2 && output.contains("unknown field `policy`"), "{output}");
}

#[test]
fn a_policy_is_checked_when_it_is_read() {
    let approved = Approved::new();
    for (more, message) in [
        (
            "[[rule]]\nsigned_by = { any_of = [\n\"platform-2026\",\n\"platform-2028\"] }\n",
            "line 10 uses key `platform-2028`, which is not among [keys] (platform-2026, platform-2027). Correct the name, or \
             add the key to [keys].",
        ),
        ("[[rule]]\nsources_ = []\n", "line 8: unknown field `sources_`"),
        ("[[rule]]\nsigned_by = { any_of = [\"platform-2026\"], at_least = 2 }\n", "requires 2 of 1 keys"),
        ("[[rule]]\nsigned_annotations = { env = \"prod\" }\n", "no signature"),
        (
            "[[rule]]\nsigned_by = { any_of = [\"platform-2026\"] }\nreport = { signed_by = [\"platform-2026\"] }\n",
            "key `platform-2026` signs both approvals and reports",
        ),
        ("[keys.missing]\nfile = \"missing.pub\"\n", "missing.pub"),
        ("[revocations]\nsource = \"x\"\nsigned_by = [\"nobody\"]\n", "line 9 uses key `nobody`"),
    ] {
        approved.policy(more);
        let (code, output) = approved.run(&["policy", "check"]);
        assert!(code == 2 || (code == 3 && more.contains("missing")), "{more}: {code} {output}");
        assert!(output.contains("policy.toml") && output.contains(message), "{more}: {output}");
    }
}

#[test]
fn a_policy_that_cannot_be_read_is_not_the_same_as_none() {
    let workspace = Workspace::new();
    workspace.configure("service.wasm", "");
    for (prepare, code, message) in [
        ("true", 0, "there is no policy"),
        (
            "mkdir /etc/ktables; printf 'version = 1\\ndefault = \"refuse\"\\n' > /etc/ktables/policy.toml",
            1,
            "does not allow",
        ),
        ("mkdir /etc/ktables; ln -s missing /etc/ktables/policy.toml", 3, "cannot read the policy"),
        // As for a folder that this user cannot enter, nobody knows whether there is a policy.
        ("echo > /etc/ktables", 3, "cannot read the policy"),
    ] {
        // In a namespace with an empty folder /etc.
        let script = format!("mount -t tmpfs none /etc && {{ {prepare}; }} && exec \"$@\"");
        let check = workspace.ktables(&["policy", "check"]);
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"]).arg(check.get_program());
        unshare.args(check.get_args()).current_dir(workspace.path("")).env_remove("KTABLES_POLICY");
        let output = run(unshare.env("KTABLES_CACHE_DIR", workspace.path("cache")));
        let text = format!("{}{}", output.stderr, output.stdout);
        assert!(output.code == code && text.contains(message), "{prepare}: {} {text}", output.code);
    }
}

#[test]
fn a_policy_can_be_required() {
    let approved = Approved::new();
    let check = ["policy", "check", "--required"];
    let error = approved.workspace.fail(&check, 1);
    assert!(error.contains("there is no policy, and --required asks for one"), "{error}");
    approved.policy("[[rule]]\n");
    assert_eq!(approved.run(&check).0, 0);
}

#[test]
fn a_revoked_codec_is_refused_at_start() {
    let approved = Approved::new();
    let section = "[[rule]]\n[revocations]\nsource = \"revocations.json\"\nsigned_by = [\"platform-2026\"]\n";
    // Without a list, nothing is revoked, unless the policy insists on one.
    approved.policy(section);
    approved.approve();
    approved.policy(&format!("{section}when_stale = \"refuse\"\n"));
    let (code, output) = approved.run(&["policy", "check"]);
    assert!(code == 3 && output.contains("cannot check revocations: the list cannot be read"), "{output}");
    let revoke = |digest: &str, key: &str| {
        approved.workspace.succeed(&[
            "codec",
            "revoke",
            digest,
            "--reason",
            "loses the last field",
            "--since",
            "2026-11-27",
            "--use",
            "oci://registry.example/codecs/service:1.4.1",
            "--key",
            key,
        ])
    };
    let other = format!("sha256:{}", "9f2c".repeat(16));
    revoke(&other, "platform-2026.key");
    approved.approve();
    std::fs::copy(approved.workspace.path("revocations.json"), approved.workspace.path("first.json"))
        .unwrap();
    for digest in ["manifest", "component"] {
        // What was seen before is forgotten.
        std::fs::remove_file(approved.workspace.path("cache/oci/revocations.json")).unwrap();
        std::fs::copy(approved.workspace.path("first.json"), approved.workspace.path("revocations.json"))
            .unwrap();
        revoke(&text(&approved.pushed, digest), "platform-2026.key");
        approved.refuse(
            "cannot use the codec: it has been revoked since 2026-11-27, by list 2 (loses the last field). Use \
             oci://registry.example/codecs/service:1.4.1.",
        );
    }
    // An older list does not bring it back.
    std::fs::copy(approved.workspace.path("first.json"), approved.workspace.path("revocations.json"))
        .unwrap();
    approved.refuse(
        "cannot check revocations: the source provides list 1, which is older than list 2, which ktables has already seen. \
         Publish list 2 or a newer one.",
    );
    // Nor does it if the policy does not require the current list: the newest one that was seen counts.
    approved.policy(section);
    approved.refuse("it has been revoked since 2026-11-27, by list 2");
    // A list that somebody else signed is none.
    std::fs::remove_file(approved.workspace.path("revocations.json")).unwrap();
    revoke(&other, "platform-2027.key");
    approved.refuse("it has been revoked since 2026-11-27, by list 2");
    approved.policy(&format!("{section}when_stale = \"refuse\"\n"));
    approved.refuse("the list is not signed by a key that may revoke codecs");
}

#[test]
fn a_list_of_revocations_is_published_and_fetched() {
    let approved = Approved::new();
    let list = format!("oci://{}/codecs/revocations:current", approved.registry.host());
    approved.policy(&format!(
        "[[rule]]\n[revocations]\nsource = \"{list}\"\nsigned_by = [\"platform-2026\"]\nwhen_stale = \"refuse\"\n"
    ));
    let revoke = |digest: &str| {
        let args = ["codec", "revoke", digest, "--reason", "wrong", "--key", "platform-2026.key"];
        approved.workspace.succeed(&args);
        approved.workspace.succeed(&["codec", "revocations", "push", "revocations.json", &list]);
    };
    revoke(&format!("sha256:{}", "9f2c".repeat(16)));
    approved.approve();
    revoke(&text(&approved.pushed, "component"));
    approved.refuse("it has been revoked since");
    // Without the registry, the list that was seen last counts.
    approved.registry.script(|_| Some(ktables_tests::Reply::status(500)));
    approved.refuse("it has been revoked since");
    let inspected = approved.workspace.succeed(&[
        "codec",
        "revocations",
        "inspect",
        "revocations.json",
        "--key",
        "platform-2026.pub",
    ]);
    assert_eq!((&inspected["serial"], inspected["revoked"].as_array().unwrap().len()), (&json!(2), 2));
}

#[tokio::test]
async fn a_running_table_reports_a_revoked_codec_or_freezes() {
    for (running, freezes) in [("degrade", false), ("freeze", true), ("warn", false)] {
        let approved = Approved::new();
        approved.policy(&format!(
            "[[rule]]\n[revocations]\nsource = \"revocations.json\"\nsigned_by = [\"platform-2026\"]\nrunning = \"{running}\"\n"
        ));
        let set = |key: &str| approved.workspace.succeed(&["set", key, VALUE, "-t", "services"]);
        set("a");
        let config = std::fs::read_to_string(approved.workspace.path("ktables.toml")).unwrap();
        approved.workspace.write("ktables.toml", &format!("{config}[server]\nlisten = [\"127.0.0.1:0\"]\n"));
        let mut command = approved.workspace.ktables(&["serve", "--config", "ktables.toml"]);
        command.env("KTABLES_POLICY", approved.workspace.path("policy.toml"));
        let server = Server::start_command(command);
        server.wait_until_ready().await;
        let status = async || server.get("/v1/tables/services").await.json();
        assert_eq!(status().await["status"], "caught_up");
        let component = text(&approved.pushed, "component");
        let revoke = ["codec", "revoke", &component, "--reason", "wrong", "--key", "platform-2026.key"];
        approved.workspace.succeed(&revoke);
        server.signal("HUP");
        let reason = "must not be used any more: it has been revoked since";
        let until = Instant::now() + TIMEOUT;
        loop {
            let (status, log) = (status().await, server.log().join("\n"));
            let is_reported = match running {
                "warn" => log.contains(reason),
                _ => status["status"] == "degraded" && status["reason"].as_str().unwrap().contains(reason),
            };
            if is_reported {
                break;
            }
            assert!(Instant::now() < until, "{status} {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The contents stay, and are followed or not.
        assert_eq!(server.get("/v1/tables/services/entry?key=a").await.json()["host"], "a");
        set("b");
        if freezes {
            // A table with the same codec that is not served sees the record, so this one has had time for it.
            let seen = approved.workspace.succeed(&["get", "b", "-t", "services"]);
            assert_eq!((&seen["host"], status().await["entries"].clone()), (&json!("a"), json!(1)));
            // Nothing is written with the codec either: nobody would see it.
            let entry = server.request(Method::PUT, "/v1/tables/services/entry?key=c").body(VALUE);
            let refused = server.send(entry).await;
            assert_eq!((refused.status, refused.problem()), (503, "codec-revoked".to_owned()));
            assert!(refused.text.contains(reason), "{}", refused.text);
            // It continues when the codec may be used again.
            approved.policy("[[rule]]\n");
            server.signal("HUP");
        }
        while status().await["entries"] != 2 {
            assert!(Instant::now() < until, "{}", status().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_fleet_answers_who_runs_a_digest() {
    let approved = Approved::new();
    let component = text(&approved.pushed, "component");
    let config = std::fs::read_to_string(approved.workspace.path("ktables.toml")).unwrap();
    let more = "[server]\nlisten = [\"127.0.0.1:0\"]\n[fleet]\nlog = \"local\"\ntopic = \"fleet\"\nevery = \"100ms\"\n";
    approved.workspace.write("ktables.toml", &format!("{config}{more}"));
    let report = |digest: &str| {
        let args = ["codec", "report", "--fleet", "dir:./data/fleet", "--digest", digest];
        run(&mut approved.workspace.ktables(&args))
    };
    let mut server =
        Server::start_command(approved.workspace.ktables(&["serve", "--config", "ktables.toml"]));
    server.wait_until_ready().await;
    let until = Instant::now() + TIMEOUT;
    let entry = loop {
        if let Some(entry) =
            report(&component).json().into_iter().find(|entry| entry["status"] == "caught_up")
        {
            break entry;
        }
        assert!(Instant::now() < until, "{}", report(&component).stderr);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((&entry["table"], &entry["process"]), (&json!("services"), &json!(server.id())));
    assert_eq!(entry["codecs"]["value"]["manifest"], approved.pushed["manifest"]);
    let other = report(&format!("sha256:{}", "9f2c".repeat(16)));
    assert!(other.code == 1 && other.stdout.is_empty(), "{}", other.stdout);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert_eq!(report(&component).code, 1, "the entry is deleted");
}

/// A value of the example codec.
pub(super) const VALUE: &str =
    r#"{"host":"a","port":1,"weight":1,"healthy":true,"draining":false,"started":1,"tags":[]}"#;
