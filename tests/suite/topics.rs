//! Topics that are ensured: what is made, looked at and changed, and which rights that
//! takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ktables::codec::Codecs;
use ktables::log::{
    EnsureOutcome, EnsureTopic, Log, LogError, LogOptions, NewTopic, OnPolicyMismatch, ensure_topic,
};
use ktables::table::{Status, Table, TableError};
use ktables_broker::ALICE;
use ktables_tests::{Scratch, Wrapped, kafka, ktables, run, said, succeed, tools, unique};

use OnPolicyMismatch::{Ignore, Raise, Reconcile, Warn};

fn shared() -> (String, Arc<dyn Log>) {
    let bootstrap = kafka::shared();
    let log = ktables::log::open(&format!("kafka://{bootstrap}")).unwrap();
    (bootstrap, log)
}

fn how(on_policy_mismatch: OnPolicyMismatch) -> EnsureTopic {
    EnsureTopic { on_policy_mismatch, ..EnsureTopic::default() }
}

fn wanting(policy: &str, on_policy_mismatch: OnPolicyMismatch) -> EnsureTopic {
    let settings = BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]);
    EnsureTopic { new: NewTopic { settings, ..NewTopic::default() }, on_policy_mismatch }
}

const OWN: [(&str, &str); 3] =
    [("cleanup.policy", "delete"), ("retention.ms", "1234567"), ("segment.bytes", "10485760")];

async fn existing(bootstrap: &str, settings: &[(&str, &str)]) -> String {
    let name = unique("existing");
    kafka::create(bootstrap, &name, 1, settings).await;
    name
}

/// Outcome and policy.
async fn ensured(log: &dyn Log, topic: &str, how: &EnsureTopic) -> (EnsureOutcome, Option<String>) {
    let ensured = ensure_topic(log, topic, how).await.unwrap();
    (ensured.outcome, ensured.policy)
}

fn policy(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_made_as_it_is_wanted() {
    let (bootstrap, log) = shared();
    for mode in [Ignore, Warn, Raise, Reconcile] {
        let name = unique("made");
        assert_eq!(ensured(&*log, &name, &how(mode)).await, (EnsureOutcome::Created, None), "{mode:?}");
        assert_eq!(log.setting(&name, "cleanup.policy").await.unwrap(), "compact");
    }
    let name = unique("made");
    let mut wanted = wanting("compact,delete", Warn);
    wanted.new.settings.insert("retention.ms".to_owned(), "1234567".to_owned());
    wanted.new.partitions = Some(2);
    assert_eq!(ensured(&*log, &name, &wanted).await.0, EnsureOutcome::Created);
    let settings = tools::settings(&bootstrap, &name);
    assert_eq!((&*settings["cleanup.policy"], &*settings["retention.ms"]), ("compact,delete", "1234567"));
    // A table that ensures finds its topic, and whoever writes comes later.
    let name = unique("made");
    let builder = Table::builder(log.clone(), &name, Codecs::default());
    let table = builder.ensure_topic(EnsureTopic::default()).start().await.unwrap();
    assert!(table.is_empty() && matches!(table.status(), Status::CaughtUp));
    let scratch = Scratch::of(&bootstrap, LogOptions::default(), &name).await;
    scratch.put("a", Some(b"1")).await;
    scratch.sync(&table).await;
    assert_eq!(table.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_is_verified_and_nobody_looks_who_does_not_want_to() {
    let (bootstrap, log) = shared();
    for words in ["compact", "compact,delete", "delete,compact"] {
        let name = existing(&bootstrap, &[("cleanup.policy", words)]).await;
        for mode in [Warn, Raise, Reconcile] {
            let (outcome, found) = ensured(&*log, &name, &how(mode)).await;
            let set = |policy: &str| {
                policy.split(',').map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
            };
            assert_eq!((outcome, set(&found.unwrap())), (EnsureOutcome::Verified, set(words)), "{mode:?}");
        }
        assert_eq!(ensured(&*log, &name, &how(Ignore)).await, (EnsureOutcome::Skipped, None));
    }
    let name = existing(&bootstrap, &OWN).await;
    // What is wanted is not compacted itself.
    for mode in [Ignore, Warn, Raise, Reconcile] {
        assert_eq!(ensured(&*log, &name, &wanting("delete", mode)).await, (EnsureOutcome::Skipped, None));
    }
    assert_eq!(log.setting(&name, "cleanup.policy").await.unwrap(), "delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_compacted_is_warned_about_or_refused_and_stays_as_it_is() {
    let (bootstrap, log) = shared();
    let name = existing(&bootstrap, &OWN).await;
    assert_eq!(
        ensured(&*log, &name, &EnsureTopic::default()).await,
        (EnsureOutcome::Mismatch, policy("delete"))
    );
    let start = |how| Table::builder(log.clone(), &name, Codecs::default()).ensure_topic(how).start();
    assert!(matches!(start(how(Warn)).await.unwrap().status(), Status::CaughtUp));
    let refused = ensure_topic(&*log, &name, &how(Raise)).await.unwrap_err();
    let LogError::PolicyMismatch { topic, wanted, actual } = &refused else { panic!("{refused}") };
    assert_eq!((topic, &**wanted, &**actual), (&name, "compact", "delete"));
    assert!([&*name, "compact", "delete"].iter().all(|word| refused.to_string().contains(word)), "{refused}");
    let refused = start(how(Raise)).await.unwrap_err();
    assert!(matches!(refused, TableError::Log(LogError::PolicyMismatch { .. })), "{refused}");
    assert_eq!(tools::settings(&bootstrap, &name), own("delete"));
}

fn own(policy: &str) -> BTreeMap<String, String> {
    let settings = OWN.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    settings.chain([("cleanup.policy".to_owned(), policy.to_owned())]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reconciling_changes_the_policy_and_keeps_every_other_setting() {
    let (bootstrap, log) = shared();
    let name = existing(&bootstrap, &OWN).await;
    assert_eq!(tools::settings(&bootstrap, &name), own("delete"));
    let outcomes =
        [ensured(&*log, &name, &how(Reconcile)).await, ensured(&*log, &name, &how(Reconcile)).await];
    assert_eq!(outcomes[0], (EnsureOutcome::Reconciled, policy("delete")));
    assert_eq!(outcomes[1], (EnsureOutcome::Verified, policy("compact")));
    assert_eq!(tools::settings(&bootstrap, &name), own("compact"));
    // To what is wanted, by two at once.
    let name = existing(&bootstrap, &OWN).await;
    let wanted = wanting("compact,delete", Reconcile);
    let start = || Table::builder(log.clone(), &name, Codecs::default()).ensure_topic(wanted.clone()).start();
    let (one, other) = tokio::join!(start(), start());
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    assert_eq!(tools::settings(&bootstrap, &name), own("compact,delete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_what_was_found_and_says_what_is_wrong() {
    let (bootstrap, _) = shared();
    let name = existing(&bootstrap, &OWN).await;
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
    assert_eq!((&line["outcome"], &line["cleanup_policy"]), (&"reconciled".into(), &"delete".into()));
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
        let both = ["ensure_topic", "on_policy_mismatch"];
        assert!(both.iter().all(|key| contradiction.stderr.contains(key)), "{}", contradiction.stderr);
        let fine = table(&format!("ensure_topic = true\non_policy_mismatch = \"{mode}\""));
        assert_eq!(fine.code, 0, "{}", fine.stderr);
    }
    assert_eq!(table("on_policy_mismatch = \"warn\"").code, 0);
    // Who writes ensures as well.
    let made = unique("made");
    let text = format!(
        "[logs.l]\nurl = \"{url}\"\n[tables.t]\nlog = \"l\"\ntopic = \"{made}\"\nensure_topic = true\n"
    );
    std::fs::write(&config, text).unwrap();
    succeed(&mut ktables(&["set", "a", "1", "-t", "t", "--config", config.to_str().unwrap()]));
    assert_eq!(tools::settings(&bootstrap, &made)["cleanup.policy"], "compact");
    let unknown = table("on_policy_mismatch = \"bogus\"");
    assert!(unknown.code == 2 && unknown.stderr.contains("reconcile"), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_or_found_is_logged_and_nothing_else() {
    let (bootstrap, log) = shared();
    let name = unique("made");
    let lines = async |name: &str, how: &EnsureTopic| said(ensure_topic(&*log, name, how)).await.1;
    let created = lines(&name, &how(Warn)).await;
    assert!(
        matches!(&*created, [line] if line.starts_with("INFO") && line.contains("created")),
        "{created:?}"
    );
    for mode in [Ignore, Warn, Raise, Reconcile] {
        assert_eq!(lines(&name, &how(mode)).await, [""; 0]);
    }
    let evicting = existing(&bootstrap, &[("cleanup.policy", "compact,delete")]).await;
    let retention = |line: &str| line.starts_with("INFO") && line.contains("retention deletes");
    for mode in [Warn, Raise, Reconcile] {
        let verified = lines(&evicting, &how(mode)).await;
        assert!(matches!(&*verified, [line] if retention(line)), "{verified:?}");
    }
    let name = existing(&bootstrap, &OWN).await;
    let mismatch = lines(&name, &how(Warn)).await;
    assert!(matches!(&*mismatch, [line] if line.starts_with("WARN")), "{mismatch:?}");
    // What fails says so in its error.
    assert_eq!(lines(&name, &how(Raise)).await, [""; 0]);
    let reconciled = lines(&name, &how(Reconcile)).await;
    let changed = |line: &str| line.starts_with("INFO") && line.contains("from delete to compact");
    assert!(matches!(&*reconciled, [line] if changed(line)), "{reconciled:?}");
    let name = existing(&bootstrap, &OWN).await;
    let reconciled = lines(&name, &wanting("compact,delete", Reconcile)).await;
    assert!(matches!(&*reconciled, [one, two] if changed(one) && retention(two)), "{reconciled:?}");
    // A topic that goes before it is changed.
    let (gone, lines) = said(log.set_cleanup_policy(&unique("gone"), "compact")).await;
    assert!(matches!(gone, Err(LogError::UnknownTopic { .. })), "{gone:?}");
    assert_eq!(lines, [""; 0]);
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_is_forgiven_by_who_only_warns_if_the_broker_is_the_cause() {
    let scratch = Scratch::new(1).await;
    let name = &scratch.topic.name;
    let (place, topic, action) = (scratch.url().to_owned(), name.clone(), "look at the settings of");
    let reason = "its cleanup.policy is not told".to_owned();
    let (log, asked) = (place.clone(), topic.clone());
    let broker =
        LogError::Broker { log: place.clone(), topic: topic.clone(), action, reason: reason.clone() };
    let silent = LogError::Unreachable { log: place.clone(), topic: topic.clone(), action, reason };
    let mistake =
        LogError::Property { name: "a".to_owned(), reason: "of the program's own making".to_owned() };
    let gone = LogError::UnknownTopic { log, topic: asked };
    for (error, is_forgiven) in [(broker, true), (silent, true), (mistake, false), (gone, false)] {
        let log = Wrapped::new(scratch.log.clone()).without_settings(error.clone());
        let (found, lines) = said(ensure_topic(&log, name, &how(Warn))).await;
        match found {
            Ok(found) => {
                assert!(is_forgiven && found.outcome == EnsureOutcome::Unreadable, "{error}");
                assert!(found.policy.is_none());
                let told = |line: &str| line.starts_with("INFO") && line.contains("could not verify");
                assert!(matches!(&*lines, [line] if told(line)), "{lines:?}");
            }
            Err(refused) => assert!(!is_forgiven && refused.to_string() == error.to_string(), "{refused}"),
        }
        for mode in [Raise, Reconcile] {
            let refused = ensure_topic(&log, name, &how(mode)).await.unwrap_err();
            assert_eq!(refused.to_string(), error.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_missing_shows_where_it_matters_and_is_named() {
    let broker = kafka::secured();
    let name = existing(&broker.bootstrap(), &OWN).await;
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
    let start = |how: Option<EnsureTopic>| {
        let builder = Table::builder(log.clone(), &name, Codecs::default());
        how.into_iter().fold(builder, |builder, how| builder.ensure_topic(how)).start()
    };
    let grant = |operations: &[&str]| {
        tokio::task::block_in_place(|| tools::grant(&broker.bootstrap(), ALICE.name, &name, operations));
    };
    // READ brings DESCRIBE with it, and is all that a table needs that ensures nothing.
    grant(&["READ"]);
    let started = ktables_tests::eventually_ok("the right is there", || start(None)).await;
    assert!(matches!(started.status(), Status::CaughtUp));
    // Without DESCRIBE_CONFIGS nobody can tell, and that matters to some.
    for mode in [Ignore, Warn] {
        assert!(matches!(start(Some(how(mode))).await.unwrap().status(), Status::CaughtUp));
    }
    assert_eq!(ensured(&*log, &name, &how(Warn)).await, (EnsureOutcome::Unreadable, None));
    for mode in [Raise, Reconcile] {
        let denied = start(Some(how(mode))).await.unwrap_err();
        assert!(matches!(denied, TableError::Log(LogError::Denied { .. })), "{mode:?}: {denied}");
        assert!(denied.to_string().contains("DESCRIBE_CONFIGS"), "{denied}");
    }
    // Without ALTER_CONFIGS nobody can change it.
    grant(&["DESCRIBE_CONFIGS"]);
    ktables_tests::eventually_ok("the right is there", || log.setting(&name, "cleanup.policy")).await;
    let denied = ensure_topic(&*log, &name, &how(Reconcile)).await.unwrap_err();
    assert!(matches!(denied, LogError::Denied { .. }), "{denied}");
    assert!(denied.to_string().contains("ALTER_CONFIGS"), "{denied}");
    assert_eq!(tools::settings(&broker.bootstrap(), &name), own("delete"));
    grant(&["ALTER_CONFIGS"]);
    let reconcile = how(Reconcile);
    let reconciled =
        ktables_tests::eventually_ok("the right is there", || ensure_topic(&*log, &name, &reconcile)).await;
    assert_eq!(reconciled.outcome, EnsureOutcome::Reconciled);
    // And without CREATE nobody can make one, in whichever mode.
    for mode in [Ignore, Warn, Raise, Reconcile] {
        let missing = unique("not-mine");
        tokio::task::block_in_place(|| {
            tools::grant(&broker.bootstrap(), ALICE.name, &missing, &["DESCRIBE"]);
        });
        let denied = eventually_denied(&*log, &missing, &how(mode)).await;
        assert!(denied.contains("Ask for CREATE"), "{mode:?}: {denied}");
    }
}

/// What is said when the topic may be looked for, and not be made.
async fn eventually_denied(log: &dyn Log, topic: &str, how: &EnsureTopic) -> String {
    ktables_tests::eventually_ok("the right to look is there", || async {
        match ensure_topic(log, topic, how).await {
            Err(error) if error.to_string().contains("no right to create") => Ok(error.to_string()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_compacted_as_it_is() {
    let scratch = Scratch::new(1).await;
    for mode in [Warn, Raise, Reconcile] {
        let verified = (EnsureOutcome::Verified, policy("compact"));
        assert_eq!(ensured(&*scratch.log, &scratch.topic.name, &how(mode)).await, verified);
    }
    let refused = ensure_topic(&*scratch.log, "new", &wanting("delete", Warn)).await.unwrap_err();
    assert!(refused.to_string().contains("deletes nothing"), "{refused}");
    let fine = ensured(&*scratch.log, "new", &wanting("compact", Warn)).await;
    assert_eq!(fine.0, EnsureOutcome::Created);
}
