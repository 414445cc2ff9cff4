//! Rights that are taken away and given back, over TLS and SASL/SCRAM.

use ktables::codec::Codecs;
use ktables::log::LogError;
use ktables::table::{Status, Table, TableError};
use ktables::writer::{WriteError, Writer};
use ktables_broker::ALICE;
use ktables_tests::{PATIENCE, Witness, eventually_async, eventually_ok, kafka, places, tools, unique};

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_taken_away_and_given_back() {
    let broker = kafka::secured();
    let name = unique("rights");
    kafka::create(&broker.bootstrap(), &name, 2, &[]).await;
    let grant = |operations: &[&str]| {
        tokio::task::block_in_place(|| tools::grant(&broker.bootstrap(), ALICE.name, &name, operations));
    };
    let revoke = |operations: &[&str]| {
        tokio::task::block_in_place(|| tools::revoke(&broker.bootstrap(), ALICE.name, &name, operations));
    };
    grant(&["READ", "WRITE"]);
    let ca = broker.ca_pem().display().to_string();
    let properties = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", ALICE.name),
        ("sasl.password", ALICE.password),
        ("ssl.ca.location", ca.as_str()),
    ];
    let witness = Witness::of(&broker.sasl_tls_bootstrap(), &properties, &name).await;
    witness.more_acknowledged(100).await;

    // Without WRITE nothing is written, and the table goes on.
    revoke(&["WRITE"]);
    let options = ktables::log::LogOptions {
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..ktables::log::LogOptions::default()
    };
    let url = format!("kafka://{}", broker.sasl_tls_bootstrap());
    let log = ktables::log::open_with(&url, options).unwrap();
    let writer = Writer::open(log.clone(), &name, Codecs::default()).await.unwrap();
    let denied = eventually_ok("writing is denied", || async {
        match writer.set("denied", "1").await {
            Err(error) => Ok(error),
            Ok(_) => Err("it was written"),
        }
    })
    .await;
    assert!(matches!(&denied, WriteError::Log(LogError::Denied { .. })), "{denied}");
    assert!(denied.to_string().contains("WRITE"), "{denied}");
    assert!(witness.table.barrier(PATIENCE).await.is_fresh());
    grant(&["WRITE"]);
    witness.more_acknowledged(100).await;

    // Without READ a table fails, loudly, and keeps what it has.
    witness.hold().await;
    assert!(witness.table.barrier(PATIENCE).await.is_fresh());
    let following = Table::builder(log.clone(), &name, Codecs::default()).start().await.unwrap();
    let before = places(&following);
    revoke(&["READ", "WRITE"]);
    let status = eventually_async("the table fails", || {
        let status = following.status();
        status.is_final().then_some(status)
    })
    .await;
    let Status::Failed(error) = &status else { panic!("{status}") };
    assert!(matches!(&**error, TableError::Log(LogError::Denied { .. })), "{error}");
    assert!(error.to_string().contains("READ"), "{error}");
    assert_eq!(places(&following), before);
    assert!(!following.barrier(PATIENCE).await.is_fresh());
    assert!(Table::builder(log.clone(), &name, Codecs::default()).start().await.is_err());

    // With its rights another one starts where nothing was lost.
    grant(&["READ", "WRITE"]);
    let again = eventually_ok("the right is there again", || {
        Table::builder(log.clone(), &name, Codecs::default()).start()
    })
    .await;
    assert!(again.barrier(PATIENCE).await.is_fresh());
    assert_eq!(places(&again), before);
    witness.judge(&again, 2).await.tell();
}
