//! Tests of addresses, credentials, rights and properties: each error names its cause and has an exit code,
//! and no error contains a secret.

use std::collections::BTreeMap;

use base64::Engine;
use ktables::codec::Codecs;
use ktables::log::{LogError, LogOptions};
use ktables::table::{Table, TableError};
use ktables_broker::{ADMIN, ALICE};
use ktables_tests::{Scratch, kafka, ktables, run, succeed, unique};

fn properties(mechanism: &str, protocol: &str, user: &str, password: &str) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::from(
        [
            ("security.protocol", protocol),
            ("sasl.mechanism", mechanism),
            ("sasl.username", user),
            ("sasl.password", password),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    if protocol == "SASL_SSL" {
        properties
            .insert("ssl.ca.location".to_owned(), kafka::secured_broker().ca_pem().display().to_string());
    }
    properties
}

fn arguments(properties: &BTreeMap<String, String>) -> Vec<String> {
    properties.iter().flat_map(|(name, value)| ["-X".to_owned(), format!("{name}={value}")]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_and_scram_work_with_and_without_tls() {
    let broker = kafka::secured_broker();
    let name = unique("secured");
    kafka::create(&broker.bootstrap(), &name, 2, &[]).await;
    let mut written = 0;
    for (protocol, address) in
        [("SASL_PLAINTEXT", broker.sasl_bootstrap()), ("SASL_SSL", broker.sasl_tls_bootstrap())]
    {
        for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
            let properties = properties(mechanism, protocol, ADMIN.name, ADMIN.password);
            let options = LogOptions { properties, ..LogOptions::default() };
            let scratch = Scratch::existing(&address, options, &name).await;
            let table = scratch.table(Codecs::default()).await;
            assert_eq!(table.len(), written, "{protocol} {mechanism}");
            scratch.put(&format!("{protocol}-{mechanism}"), Some(b"1")).await;
            scratch.sync(&table).await;
            written += 1;
            assert_eq!(table.len(), written);
        }
    }
}

/// OpenSSL must not tear itself down while librdkafka's threads still use it: one in nine commands crashed
/// because of that.
#[tokio::test(flavor = "multi_thread")]
async fn commands_over_tls_exit_cleanly() {
    let broker = kafka::secured_broker();
    let name = unique("end");
    kafka::create(&broker.bootstrap(), &name, 1, &[]).await;
    let url = format!("kafka://{}", broker.sasl_tls_bootstrap());
    let arguments = arguments(&properties("PLAIN", "SASL_SSL", ADMIN.name, ADMIN.password));
    for number in 0..60 {
        let ended = run(ktables(&["keys", "--log", &url, "--topic", &name]).args(&arguments));
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "command {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oauth_token_is_read_from_a_file() {
    let broker = kafka::secured_broker();
    let name = unique("token");
    kafka::create(&broker.bootstrap(), &name, 2, &[]).await;
    let folder = tempfile::TempDir::new().unwrap();
    let token_file = folder.path().join("token");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // The broker checks the subject of the token, but no signature.
    let part = |json: String| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(json);
    let header = part("{\"alg\":\"none\"}".to_owned());
    let claims = part(format!("{{\"sub\":\"{}\",\"iat\":{now},\"exp\":{}}}", ADMIN.name, now + 3600));
    std::fs::write(&token_file, format!("{header}.{claims}.\n")).unwrap();
    let properties = BTreeMap::from(
        [("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "OAUTHBEARER")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let options = LogOptions {
        properties: properties.clone(),
        oauth_token_file: Some(token_file.clone()),
        ..LogOptions::default()
    };
    let scratch = Scratch::existing(&broker.sasl_bootstrap(), options, &name).await;
    scratch.put("a", Some(b"1")).await;
    let table = scratch.table(Codecs::default()).await;
    scratch.put("b", Some(b"2")).await;
    scratch.sync(&table).await;
    assert_eq!(table.len(), 2);
    // A token file that appears later is used.
    let late = folder.path().join("late");
    let options = LogOptions {
        oauth_token_file: Some(late.clone()),
        properties: properties.clone(),
        ..LogOptions::default()
    };
    let url = format!("kafka://{}", broker.sasl_bootstrap());
    let log = ktables::log::open_with(&url, options).unwrap();
    assert!(matches!(log.describe(&name).await, Err(LogError::Authentication { .. })));
    std::fs::copy(&token_file, late).unwrap();
    kafka::wait_for_topic(log.as_ref(), &name).await;
    // A missing file, and one that contains no token.
    std::fs::write(&token_file, "sEcReT").unwrap();
    for file in ["missing", token_file.to_str().unwrap()] {
        let mut get = ktables(&["get", "k", "--log", &url, "--topic", &name]);
        let ended = run(get.args(arguments(&properties)).args(["-X", &format!("oauth_token_file={file}")]));
        assert_eq!(ended.code, 3);
        let is_named = ended.stderr.contains("authentication failed") && ended.stderr.contains(file);
        assert!(is_named && !ended.stderr.contains("sEcReT"), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_reported_at_once_and_not_printed() {
    let broker = kafka::secured_broker();
    for (mechanism, password) in [("PLAIN", "sEcReT"), ("SCRAM-SHA-512", "sEcReT")] {
        let properties = properties(mechanism, "SASL_PLAINTEXT", ADMIN.name, password);
        let url = format!("kafka://{}", broker.sasl_bootstrap());
        let mut get = ktables(&["get", "k", "--log", &url, "--topic", "t"]);
        let ended = run(get.args(arguments(&properties)).env("KTABLES_LOG", "debug"));
        assert_eq!(ended.code, 3, "{}", ended.stderr);
        assert!(ended.stderr.contains("authentication failed"), "{}", ended.stderr);
        assert!(ended.stderr.contains("sasl."), "{}", ended.stderr);
        assert!(!ended.stderr.contains("sEcReT"), "{}", ended.stderr);
        let options = LogOptions { properties, ..LogOptions::default() };
        assert!(!format!("{options:?}").contains("sEcReT"));
        let log = ktables::log::open_with(&url, options).unwrap();
        assert!(!format!("{log:?}").contains("sEcReT"));
        let started = Table::builder(log, "t", Codecs::default()).start().await;
        assert!(matches!(started, Err(TableError::Log(LogError::Authentication { .. }))), "{started:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named() {
    let broker = kafka::secured_broker();
    let name = unique("denied");
    kafka::create(&broker.bootstrap(), &name, 1, &[]).await;
    let properties = properties("PLAIN", "SASL_PLAINTEXT", ALICE.name, ALICE.password);
    let url = format!("kafka://{}", broker.sasl_bootstrap());
    let with = |args: &[&str]| {
        let mut command = ktables(args);
        command.args(["--log", &url, "--topic", &name]).args(arguments(&properties));
        run(&mut command)
    };
    for command in [&["get", "k"][..], &["set", "k", "1"], &["topic", "ensure"]] {
        let ended = with(command);
        assert_eq!(ended.code, 3, "{command:?}: {}", ended.stderr);
        let is_named = ended.stderr.contains("no right to") && ended.stderr.contains("DESCRIBE and READ");
        assert!(is_named && ended.stderr.contains(&name), "{command:?}: {}", ended.stderr);
    }
}

#[test]
fn unreachable_brokers_invalid_urls_and_missing_topics_are_reported() {
    let started = std::time::Instant::now();
    let unreachable = run(&mut ktables(&["get", "k", "--log", "kafka://127.0.0.1:1", "--topic", "t"]));
    assert_eq!(unreachable.code, 3);
    let is_named = unreachable.stderr.contains("127.0.0.1:1") && unreachable.stderr.contains("refused");
    assert!(is_named, "{}", unreachable.stderr);
    assert!(started.elapsed() < ktables_tests::TIMEOUT);
    let unknown =
        run(&mut ktables(&["get", "k", "--log", "kafka://no-such-host.invalid:9092", "--topic", "t"]));
    assert_eq!(unknown.code, 3);
    assert!(unknown.stderr.contains("no-such-host.invalid"), "{}", unknown.stderr);
    for url in [
        "kafka://",
        "kafka://host",
        "kafka://host:port",
        "kafka://user@host:9092",
        "kafka:host:9092",
        "kafka://a:1,",
    ] {
        let ended = run(&mut ktables(&["get", "k", "--log", url, "--topic", "t"]));
        assert_eq!(ended.code, 2, "{url}: {}", ended.stderr);
        assert!(ended.stderr.contains("kafka://HOST:PORT"), "{url}: {}", ended.stderr);
    }
    let url = "kafka://billing:sEcReT@host:9092";
    let ended = run(&mut ktables(&["get", "k", "--log", url, "--topic", "t"]));
    assert!(ended.code == 2 && !ended.stderr.contains("sEcReT"), "{}", ended.stderr);
    let url = format!("kafka://{}", kafka::shared());
    let unnamed = run(&mut ktables(&["get", "k", "--log", &url, "--topic", ""]));
    assert_eq!(unnamed.code, 2, "{}", unnamed.stderr);
    assert!(unnamed.stderr.contains("needs a name"), "{}", unnamed.stderr);
    let missing = unique("missing");
    let url = format!("kafka://{}", kafka::shared());
    let ended = run(&mut ktables(&["get", "k", "--log", &url, "--topic", &missing]));
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.contains("ktables topic ensure"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_would_break_a_table_are_refused_by_name() {
    let cases = [
        ("isolation.level=read_uncommitted", "isolation ="),
        ("enable.idempotence=false", "idempotence ="),
        ("acks=0", "all or leader"),
        ("request.required.acks=1", "acks ="),
        ("max.in.flight=20", "idempotence"),
        ("partitioner=random", "murmur2"),
        ("auto.offset.reset=latest", "first offset"),
        ("enable.auto.commit=true", "commits no offsets"),
        ("group.id=mine", "no consumer group"),
        ("bootstrap.servers=a:1", "kafka://HOST:PORT"),
        ("transactional.id=mine", "ktables chooses it"),
        ("log_level=7", "KTABLES_LOG"),
        ("allow.auto.create.topics=true", "topic ensure"),
        ("delivery.report.only.error=true", "does not support it"),
        ("no.such.property=sEcReT", "no such property"),
        ("socket.timeout.ms=sEcReT", "rejects this value"),
        ("stale_after=sEcReT", "duration"),
    ];
    for (property, hint) in cases {
        let mut get = ktables(&["get", "k", "--log", "kafka://127.0.0.1:1", "--topic", "t", "-X", property]);
        let ended = run(&mut get);
        let name = property.split_once('=').unwrap().0;
        assert_eq!(ended.code, 2, "{property}: {}", ended.stderr);
        assert!(ended.stderr.contains(name) && ended.stderr.contains(hint), "{property}: {}", ended.stderr);
        assert!(!ended.stderr.contains("sEcReT"), "{}", ended.stderr);
    }
    let directory = run(&mut ktables(&["get", "k", "--log", "dir:x", "--topic", "t", "-X", "client.id=x"]));
    assert_eq!(directory.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotence_and_acks_all_can_be_turned_off() {
    let bootstrap = kafka::shared();
    let name = unique("plain");
    kafka::create(&bootstrap, &name, 2, &[]).await;
    let url = format!("kafka://{bootstrap}");
    let with = |args: &[&str], more: &[&str]| {
        let mut command = ktables(args);
        command.args(["--log", &url, "--topic", &name]).args(more);
        command
    };
    succeed(&mut with(&["set", "k", "1"], &["-X", "idempotence=false", "-X", "acks=leader"]));
    succeed(&mut with(&["set", "k", "2"], &["-X", "idempotence=false"]));
    assert_eq!(succeed(&mut with(&["get", "k"], &[])).stdout, "2\n");
    let contradiction = run(&mut with(&["set", "k", "3"], &["-X", "acks=leader"]));
    assert_eq!(contradiction.code, 2);
    assert!(contradiction.stderr.contains("idempotence"), "{}", contradiction.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn ensure_creates_a_compacted_topic_and_warns_about_one_that_is_not() {
    let bootstrap = kafka::shared();
    let url = format!("kafka://{bootstrap}");
    let ensure = |name: &str, more: &[&str]| {
        succeed(ktables(&["topic", "ensure", "--log", &url, "--topic", name]).args(more))
    };
    let name = unique("ensured");
    let created = ensure(&name, &["--partitions", "2", "--replication-factor", "1"]);
    let line = &created.json()[0];
    assert_eq!((&line["outcome"], &line["cleanup_policy"]), (&"created".into(), &"compact".into()));
    assert_eq!(line["partitions"].as_array().unwrap().len(), 2);
    assert_eq!(created.stderr, "");
    assert_eq!(ensure(&name, &[]).json()[0]["outcome"], "verified");
    let retention = ["--setting", "delete.retention.ms=86400000"];
    assert!(ensure(&name, &retention).stderr.is_empty(), "the topic has the default");
    let differs = ensure(&name, &["--setting", "delete.retention.ms=7", "--replication-factor", "3"]);
    for part in ["with `delete.retention.ms=86400000`; it was not changed to `7`", "replication factor"] {
        assert!(differs.stderr.contains(part), "{}", differs.stderr);
    }
    // The broker's default number of partitions.
    let default = ensure(&unique("default"), &[]);
    assert_eq!(default.json()[0]["partitions"].as_array().unwrap().len(), 3);
    let not_compacted = unique("not-compacted");
    kafka::create(&bootstrap, &not_compacted, 1, &[]).await;
    let warned = ensure(&not_compacted, &[]);
    assert_eq!(warned.json()[0]["cleanup_policy"], "delete");
    assert!(warned.stderr.contains("not compacted"), "{}", warned.stderr);
    let too_many = run(ktables(&["topic", "ensure", "--log", &url, "--topic", &unique("t")])
        .args(["--replication-factor", "3"]));
    assert_eq!(too_many.code, 2);
    assert!(too_many.stderr.contains("replication factor"), "{}", too_many.stderr);
}
