//! Ensuring topics: what `ensure_topic` creates, checks and changes, and which rights that takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ktables::codec::Codecs;
use ktables::log::{
    EnsureOutcome, EnsureTopic, Log, LogError, LogOptions, NewTopic, OnPolicyMismatch, ensure_topic,
};
use ktables::table::{Status, Table, TableError};
use ktables_broker::ALICE;
use ktables_tests::{Scratch, WrappedLog, capture_logs, kafka, ktables, run, succeed, tools, unique};

use OnPolicyMismatch::{Ignore, Raise, Reconcile, Warn};

/// Opens the shared cluster. Returns its address, too.
fn shared() -> (String, Arc<dyn Log>) {
    let bootstrap = kafka::shared();
    let log = ktables::log::open(&format!("kafka://{bootstrap}")).unwrap();
    (bootstrap, log)
}

/// Default options with this action.
fn with_action(on_policy_mismatch: OnPolicyMismatch) -> EnsureTopic {
    EnsureTopic { on_policy_mismatch, ..EnsureTopic::default() }
}

/// Options that request a policy.
fn requesting(policy: &str, on_policy_mismatch: OnPolicyMismatch) -> EnsureTopic {
    let settings = BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]);
    EnsureTopic { new: NewTopic { settings, ..NewTopic::default() }, on_policy_mismatch }
}

/// The settings of a topic that is not compacted.
const NOT_COMPACTED: [(&str, &str); 3] =
    [("cleanup.policy", "delete"), ("retention.ms", "1234567"), ("segment.bytes", "10485760")];

/// Creates a topic with these settings.
async fn existing(bootstrap: &str, settings: &[(&str, &str)]) -> String {
    let name = unique("existing");
    kafka::create(bootstrap, &name, 1, settings).await;
    name
}

/// Ensures a topic. Returns the outcome and the policy that was found.
async fn ensure(log: &dyn Log, topic: &str, options: &EnsureTopic) -> (EnsureOutcome, Option<String>) {
    let ensured = ensure_topic(log, topic, options).await.unwrap();
    (ensured.outcome, ensured.policy)
}

fn policy(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_created_with_the_requested_settings() {
    let (bootstrap, log) = shared();
    for mode in [Ignore, Warn, Raise, Reconcile] {
        let name = unique("created");
        let ensured = ensure(&*log, &name, &with_action(mode)).await;
        assert_eq!(ensured, (EnsureOutcome::Created, None), "{mode:?}");
        assert_eq!(log.setting(&name, "cleanup.policy").await.unwrap(), "compact");
    }
    let name = unique("created");
    let mut requested = requesting("compact,delete", Warn);
    requested.new.settings.insert("retention.ms".to_owned(), "1234567".to_owned());
    requested.new.partitions = Some(2);
    assert_eq!(ensure(&*log, &name, &requested).await.0, EnsureOutcome::Created);
    let settings = tools::settings(&bootstrap, &name);
    assert_eq!((&*settings["cleanup.policy"], &*settings["retention.ms"]), ("compact,delete", "1234567"));
    // A table can create its topic, before anybody writes to it.
    let name = unique("created");
    let builder = Table::builder(log.clone(), &name, Codecs::default());
    let table = builder.ensure_topic(EnsureTopic::default()).start().await.unwrap();
    assert!(table.is_empty() && matches!(table.status(), Status::CaughtUp));
    let scratch = Scratch::existing(&bootstrap, LogOptions::default(), &name).await;
    scratch.put("a", Some(b"1")).await;
    scratch.sync(&table).await;
    assert_eq!(table.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_is_verified_unless_the_check_is_skipped() {
    let (bootstrap, log) = shared();
    for expected in ["compact", "compact,delete", "delete,compact"] {
        let name = existing(&bootstrap, &[("cleanup.policy", expected)]).await;
        for mode in [Warn, Raise, Reconcile] {
            let (outcome, found) = ensure(&*log, &name, &with_action(mode)).await;
            let set = |policy: &str| {
                policy.split(',').map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
            };
            assert_eq!((outcome, set(&found.unwrap())), (EnsureOutcome::Verified, set(expected)), "{mode:?}");
        }
        assert_eq!(ensure(&*log, &name, &with_action(Ignore)).await, (EnsureOutcome::Skipped, None));
    }
    let name = existing(&bootstrap, &NOT_COMPACTED).await;
    // The requested policy does not compact, so the existing topic is not checked.
    for mode in [Ignore, Warn, Raise, Reconcile] {
        assert_eq!(ensure(&*log, &name, &requesting("delete", mode)).await, (EnsureOutcome::Skipped, None));
    }
    assert_eq!(log.setting(&name, "cleanup.policy").await.unwrap(), "delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_compacted_causes_a_warning_or_an_error_and_is_not_changed() {
    let (bootstrap, log) = shared();
    let name = existing(&bootstrap, &NOT_COMPACTED).await;
    assert_eq!(
        ensure(&*log, &name, &EnsureTopic::default()).await,
        (EnsureOutcome::Mismatch, policy("delete"))
    );
    let start = |options| Table::builder(log.clone(), &name, Codecs::default()).ensure_topic(options).start();
    assert!(matches!(start(with_action(Warn)).await.unwrap().status(), Status::CaughtUp));
    let refused = ensure_topic(&*log, &name, &with_action(Raise)).await.unwrap_err();
    let LogError::PolicyMismatch { topic, wanted, actual } = &refused else { panic!("{refused}") };
    assert_eq!((topic, &**wanted, &**actual), (&name, "compact", "delete"));
    assert!([&*name, "compact", "delete"].iter().all(|word| refused.to_string().contains(word)), "{refused}");
    let refused = start(with_action(Raise)).await.unwrap_err();
    assert!(matches!(refused, TableError::Log(LogError::PolicyMismatch { .. })), "{refused}");
    assert_eq!(tools::settings(&bootstrap, &name), settings_with_policy("delete"));
}

/// Returns [`NOT_COMPACTED`] with another policy.
fn settings_with_policy(policy: &str) -> BTreeMap<String, String> {
    let settings = NOT_COMPACTED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    settings.chain([("cleanup.policy".to_owned(), policy.to_owned())]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reconciling_changes_the_policy_and_keeps_every_other_setting() {
    let (bootstrap, log) = shared();
    let name = existing(&bootstrap, &NOT_COMPACTED).await;
    assert_eq!(tools::settings(&bootstrap, &name), settings_with_policy("delete"));
    let reconcile = with_action(Reconcile);
    let outcomes = [ensure(&*log, &name, &reconcile).await, ensure(&*log, &name, &reconcile).await];
    assert_eq!(outcomes[0], (EnsureOutcome::Reconciled, policy("delete")));
    assert_eq!(outcomes[1], (EnsureOutcome::Verified, policy("compact")));
    assert_eq!(tools::settings(&bootstrap, &name), settings_with_policy("compact"));
    // Two tables reconcile at once, to another policy.
    let name = existing(&bootstrap, &NOT_COMPACTED).await;
    let requested = requesting("compact,delete", Reconcile);
    let start =
        || Table::builder(log.clone(), &name, Codecs::default()).ensure_topic(requested.clone()).start();
    let (first, second) = tokio::join!(start(), start());
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(tools::settings(&bootstrap, &name), settings_with_policy("compact,delete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_the_outcome_and_reports_errors() {
    let (bootstrap, _) = shared();
    let name = existing(&bootstrap, &NOT_COMPACTED).await;
    let url = format!("kafka://{bootstrap}");
    let ensure = |mode: &str| {
        let mut command = ktables(&["topic", "ensure", "--log", &url, "--topic", &name]);
        command.args(["--on-policy-mismatch", mode]);
        command
    };
    let mismatch = succeed(&mut ensure("warn"));
    assert_eq!(mismatch.json()[0]["outcome"], "mismatch");
    assert_eq!(mismatch.stderr.matches("not compacted").count(), 1, "{}", mismatch.stderr);
    assert_eq!(succeed(&mut ensure("ignore")).json()[0]["outcome"], "skipped");
    let refused = run(&mut ensure("raise"));
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    let reconciled = succeed(ensure("reconcile").env("KTABLES_LOG", "info"));
    let line = &reconciled.json()[0];
    assert_eq!((&line["outcome"], &line["cleanup_policy"]), (&"reconciled".into(), &"compact".into()));
    assert!(reconciled.stderr.contains("from delete to compact"), "{}", reconciled.stderr);
    assert_eq!(run(&mut ensure("bogus")).code, 2);

    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("ktables.toml");
    let table = |settings: &str| {
        let text =
            format!("[logs.l]\nurl = \"{url}\"\n[tables.t]\nlog = \"l\"\ntopic = \"{name}\"\n{settings}\n");
        std::fs::write(&config, text).unwrap();
        run(&mut ktables(&["keys", "-t", "t", "--config", config.to_str().unwrap()]))
    };
    for mode in ["raise", "reconcile"] {
        let contradiction = table(&format!("on_policy_mismatch = \"{mode}\""));
        assert_eq!(contradiction.code, 2);
        let keys = ["ensure_topic", "on_policy_mismatch"];
        assert!(keys.iter().all(|key| contradiction.stderr.contains(key)), "{}", contradiction.stderr);
        let accepted = table(&format!("ensure_topic = true\non_policy_mismatch = \"{mode}\""));
        assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    }
    assert_eq!(table("on_policy_mismatch = \"warn\"").code, 0);
    // Commands that write ensure the topic, too.
    let created = unique("created");
    let text = format!(
        "[logs.l]\nurl = \"{url}\"\n[tables.t]\nlog = \"l\"\ntopic = \"{created}\"\nensure_topic = true\n"
    );
    std::fs::write(&config, text).unwrap();
    succeed(&mut ktables(&["set", "a", "1", "-t", "t", "--config", config.to_str().unwrap()]));
    assert_eq!(tools::settings(&bootstrap, &created)["cleanup.policy"], "compact");
    let unknown = table("on_policy_mismatch = \"bogus\"");
    assert!(unknown.code == 2 && unknown.stderr.contains("reconcile"), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_outcome_is_logged() {
    let (bootstrap, log) = shared();
    let name = unique("created");
    let lines =
        async |name: &str, options: &EnsureTopic| capture_logs(ensure_topic(&*log, name, options)).await.1;
    let created = lines(&name, &with_action(Warn)).await;
    assert!(
        matches!(&*created, [line] if line.starts_with("INFO") && line.contains("created")),
        "{created:?}"
    );
    for mode in [Ignore, Warn, Raise, Reconcile] {
        assert_eq!(lines(&name, &with_action(mode)).await, [""; 0]);
    }
    let with_retention = existing(&bootstrap, &[("cleanup.policy", "compact,delete")]).await;
    let retention = |line: &str| line.starts_with("INFO") && line.contains("retention deletes");
    for mode in [Warn, Raise, Reconcile] {
        let verified = lines(&with_retention, &with_action(mode)).await;
        assert!(matches!(&*verified, [line] if retention(line)), "{verified:?}");
    }
    let name = existing(&bootstrap, &NOT_COMPACTED).await;
    let mismatch = lines(&name, &with_action(Warn)).await;
    assert!(matches!(&*mismatch, [line] if line.starts_with("WARN")), "{mismatch:?}");
    // A failure is returned as an error, and not logged.
    assert_eq!(lines(&name, &with_action(Raise)).await, [""; 0]);
    let reconciled = lines(&name, &with_action(Reconcile)).await;
    let changed = |line: &str| line.starts_with("INFO") && line.contains("from delete to compact");
    assert!(matches!(&*reconciled, [line] if changed(line)), "{reconciled:?}");
    let name = existing(&bootstrap, &NOT_COMPACTED).await;
    let reconciled = lines(&name, &requesting("compact,delete", Reconcile)).await;
    assert!(matches!(&*reconciled, [first, second] if changed(first) && retention(second)), "{reconciled:?}");
    // The topic does not exist any more when its policy is changed.
    let (result, lines) = capture_logs(log.set_cleanup_policy(&unique("gone"), "compact")).await;
    assert!(matches!(result, Err(LogError::UnknownTopic { .. })), "{result:?}");
    assert_eq!(lines, [""; 0]);
}

#[tokio::test]
async fn warn_accepts_an_unreadable_policy_only_if_the_broker_is_the_cause() {
    let scratch = Scratch::new(1).await;
    let name = &scratch.topic.name;
    let (url, topic, action) = (scratch.url().to_owned(), name.clone(), "read the settings of");
    let reason = "the broker did not return its cleanup.policy".to_owned();
    let (log, missing) = (url.clone(), topic.clone());
    let broker = LogError::Broker { log: url.clone(), topic: topic.clone(), action, reason: reason.clone() };
    let silent = LogError::Unreachable { log: url.clone(), topic: topic.clone(), action, reason };
    let invalid =
        LogError::InvalidProperty { name: "a".to_owned(), reason: "an error of the program".to_owned() };
    let unknown = LogError::UnknownTopic { log, topic: missing };
    for (error, is_accepted) in [(broker, true), (silent, true), (invalid, false), (unknown, false)] {
        let log = WrappedLog::new(scratch.log.clone()).with_setting_error(error.clone());
        let (result, lines) = capture_logs(ensure_topic(&log, name, &with_action(Warn))).await;
        match result {
            Ok(ensured) => {
                assert!(is_accepted && ensured.outcome == EnsureOutcome::Unreadable, "{error}");
                assert!(ensured.policy.is_none());
                let is_reported = |line: &str| line.starts_with("INFO") && line.contains("could not verify");
                assert!(matches!(&*lines, [line] if is_reported(line)), "{lines:?}");
            }
            Err(refused) => assert!(!is_accepted && refused.to_string() == error.to_string(), "{refused}"),
        }
        for mode in [Raise, Reconcile] {
            let refused = ensure_topic(&log, name, &with_action(mode)).await.unwrap_err();
            assert_eq!(refused.to_string(), error.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_an_error_only_where_it_is_needed_and_is_named() {
    let broker = kafka::secured_broker();
    let name = existing(&broker.bootstrap(), &NOT_COMPACTED).await;
    let properties = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", ALICE.name),
        ("sasl.password", ALICE.password),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = LogOptions { properties: BTreeMap::from(properties), ..LogOptions::default() };
    let url = format!("kafka://{}", broker.sasl_bootstrap());
    let log = ktables::log::open_with(&url, options).unwrap();
    let start = |ensure: Option<EnsureTopic>| {
        let builder = Table::builder(log.clone(), &name, Codecs::default());
        ensure.into_iter().fold(builder, |builder, ensure| builder.ensure_topic(ensure)).start()
    };
    let grant = |operations: &[&str]| {
        tokio::task::block_in_place(|| tools::grant(&broker.bootstrap(), ALICE.name, &name, operations));
    };
    // READ includes DESCRIBE. A table that does not ensure its topic needs nothing else.
    grant(&["READ"]);
    let started = ktables_tests::eventually_ok("the right takes effect", || start(None)).await;
    assert!(matches!(started.status(), Status::CaughtUp));
    // Without DESCRIBE_CONFIGS the policy cannot be read, which is an error only for some actions.
    for mode in [Ignore, Warn] {
        assert!(matches!(start(Some(with_action(mode))).await.unwrap().status(), Status::CaughtUp));
    }
    assert_eq!(ensure(&*log, &name, &with_action(Warn)).await, (EnsureOutcome::Unreadable, None));
    for mode in [Raise, Reconcile] {
        let denied = start(Some(with_action(mode))).await.unwrap_err();
        assert!(matches!(denied, TableError::Log(LogError::Denied { .. })), "{mode:?}: {denied}");
        assert!(denied.to_string().contains("DESCRIBE_CONFIGS"), "{denied}");
    }
    // Without ALTER_CONFIGS the policy cannot be changed.
    grant(&["DESCRIBE_CONFIGS"]);
    ktables_tests::eventually_ok("the right takes effect", || log.setting(&name, "cleanup.policy")).await;
    let denied = ensure_topic(&*log, &name, &with_action(Reconcile)).await.unwrap_err();
    assert!(matches!(denied, LogError::Denied { .. }), "{denied}");
    assert!(denied.to_string().contains("ALTER_CONFIGS"), "{denied}");
    assert_eq!(tools::settings(&broker.bootstrap(), &name), settings_with_policy("delete"));
    grant(&["ALTER_CONFIGS"]);
    let reconcile = with_action(Reconcile);
    let reconciled =
        ktables_tests::eventually_ok("the right is in effect", || ensure_topic(&*log, &name, &reconcile))
            .await;
    assert_eq!(reconciled.outcome, EnsureOutcome::Reconciled);
    // Without CREATE no topic can be created, whatever the action.
    for mode in [Ignore, Warn, Raise, Reconcile] {
        let missing = unique("not-mine");
        tokio::task::block_in_place(|| {
            tools::grant(&broker.bootstrap(), ALICE.name, &missing, &["DESCRIBE"]);
        });
        let denied = eventually_denied(&*log, &missing, &with_action(mode)).await;
        assert!(denied.contains("Ask for the right CREATE"), "{mode:?}: {denied}");
    }
}

/// Returns the error of ensuring a topic that the user may describe, but not create. Waits until the right to
/// describe it takes effect.
async fn eventually_denied(log: &dyn Log, topic: &str, options: &EnsureTopic) -> String {
    ktables_tests::eventually_ok("the right to describe takes effect", || async {
        match ensure_topic(log, topic, options).await {
            Err(error) if error.to_string().contains("no right to create") => Ok(error.to_string()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_a_directory_count_as_compacted() {
    let scratch = Scratch::new(1).await;
    for mode in [Warn, Raise, Reconcile] {
        let verified = (EnsureOutcome::Verified, policy("compact"));
        assert_eq!(ensure(&*scratch.log, &scratch.topic.name, &with_action(mode)).await, verified);
    }
    let refused = ensure_topic(&*scratch.log, "new", &requesting("delete", Warn)).await.unwrap_err();
    assert!(refused.to_string().contains("never deletes"), "{refused}");
    let (outcome, _) = ensure(&*scratch.log, "new", &requesting("compact", Warn)).await;
    assert_eq!(outcome, EnsureOutcome::Created);
}
