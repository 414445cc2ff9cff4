//! Tests that rights are revoked and granted again, over TLS and SASL/SCRAM.

use ktables::codec::Codecs;
use ktables::log::LogError;
use ktables::table::{Status, Table, TableError};
use ktables::writer::{WriteError, Writer};
use ktables_broker::ALICE;
use ktables_tests::{
    TIMEOUT, Witness, eventually_async, eventually_ok, kafka, record_offsets, tools, unique,
};

// Long because it is one story, in the order in which it happens.
#[tokio::test(flavor = "multi_thread")]
async fn rights_are_revoked_and_granted_again() {
    let broker = kafka::secured_broker();
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
    let witness = Witness::start(&broker.sasl_tls_bootstrap(), &properties, &name).await;
    witness.wait_for_writes(100).await;

    // Without WRITE, writes fail, and the table continues.
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
            Ok(_) => Err("the record was written"),
        }
    })
    .await;
    assert!(matches!(&denied, WriteError::Log(LogError::Denied { .. })), "{denied}");
    assert!(denied.to_string().contains("WRITE"), "{denied}");
    assert!(witness.table.barrier(TIMEOUT).await.is_fresh());
    grant(&["WRITE"]);
    witness.wait_for_writes(100).await;

    // Without READ, a table fails with an error, and keeps its contents.
    witness.pause_writes().await;
    assert!(witness.table.barrier(TIMEOUT).await.is_fresh());
    let following = Table::builder(log.clone(), &name, Codecs::default()).start().await.unwrap();
    let before = record_offsets(&following);
    revoke(&["READ", "WRITE"]);
    let status = eventually_async("the table fails", || {
        let status = following.status();
        status.is_final().then_some(status)
    })
    .await;
    let Status::Failed(error) = &status else { panic!("{status}") };
    assert!(matches!(&**error, TableError::Log(LogError::Denied { .. })), "{error}");
    assert!(error.to_string().contains("READ"), "{error}");
    assert_eq!(record_offsets(&following), before);
    assert!(!following.barrier(TIMEOUT).await.is_fresh());
    assert!(Table::builder(log.clone(), &name, Codecs::default()).start().await.is_err());

    // With its rights granted again, another table has the same contents.
    grant(&["READ", "WRITE"]);
    let again = eventually_ok("a table can start again", || {
        Table::builder(log.clone(), &name, Codecs::default()).start()
    })
    .await;
    assert!(again.barrier(TIMEOUT).await.is_fresh());
    assert_eq!(record_offsets(&again), before);
    witness.compare_with(&again, 2).await.report();
}
