//! Hostile components and poison records: only the poison record is rejected, all others are applied, and the
//! table continues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ktables::codec::{Codecs, RejectKind, Utf8};
use ktables::table::{OnQuarantine, RecordPart, Status, Table};
use ktables::wasm::{Engine, EngineOptions, Limits, LoadOptions};
use ktables_tests::{
    FaultyCodec, RunningCommand, Scratch, TIMEOUT, TOPIC, component_path, component_with_limits,
    engine_options, eventually_async, record, succeed,
};

/// Small limits, so that the tests are fast.
fn limits() -> Limits {
    Limits {
        memory: 16 << 20,
        output: 1 << 20,
        deadline: Duration::from_secs(1),
        deadline_per_record: Duration::from_millis(1),
        ..Limits::default()
    }
}

/// The names of poison records, and the kinds of their rejections.
const BATCH: [(&str, RejectKind); 9] = [
    ("answer", RejectKind::Invalid),
    ("trap", RejectKind::Trap),
    ("stack", RejectKind::Trap),
    ("loop", RejectKind::Deadline),
    ("memory", RejectKind::Memory),
    ("utf8", RejectKind::InvalidUtf8),
    ("json", RejectKind::InvalidJson),
    ("items", RejectKind::Contract),
    ("ends", RejectKind::Contract),
];

/// Writes poison records among good ones, and checks that only the poison records are rejected.
async fn check(guest: &str, poisons: &[(&str, RejectKind)], limits: Limits) {
    let scratch = Scratch::new(2).await;
    let component = component_with_limits(guest, limits);
    let codecs = Codecs { value: component.value_codec(TOPIC, "{}").unwrap(), ..Codecs::default() };
    let mut records = Vec::new();
    for number in 0..400 {
        records.push(record(&format!("good-{number}"), Some(number.to_string().as_bytes())));
    }
    for (index, (poison, _)) in poisons.iter().enumerate() {
        let value = format!("poison:{poison}");
        records.insert(10 + index * 37, record(&format!("bad-{poison}"), Some(value.as_bytes())));
    }
    scratch.write(records).await;
    let table = scratch.table(codecs).await;
    assert!(matches!(table.status(), Status::CaughtUp));
    assert_eq!(table.len(), 400);
    for number in 0..400 {
        assert_eq!(table.get(&format!("good-{number}")).unwrap().json(), number.to_string());
    }
    let rejects = table.rejects();
    let kinds: BTreeMap<String, RejectKind> =
        rejects.iter().map(|reject| (reject.key.clone().unwrap().into(), reject.reason.kind)).collect();
    let expected: BTreeMap<String, RejectKind> =
        poisons.iter().map(|(poison, kind)| (format!("bad-{poison}"), *kind)).collect();
    assert_eq!(kinds, expected, "{rejects:#?}");
    assert_eq!(rejects.len(), poisons.len());
    for reject in &rejects {
        let digest = &reject.reason.component.as_ref().unwrap().digest;
        assert_eq!(digest, &component.id().digest);
        assert!(reject.raw.starts_with(b"poison:"));
    }
    // The table continues.
    scratch.put("good-0", Some(b"\"alive\"")).await;
    scratch.sync(&table).await;
    assert_eq!(table.get("good-0").unwrap().json(), "\"alive\"");
}

#[tokio::test]
async fn poison_in_the_batch_form_is_rejected_alone() {
    check("hostile", &BATCH, limits()).await;
}

#[tokio::test]
async fn poison_in_the_simple_form_is_rejected_alone() {
    let simple: Vec<_> = BATCH.iter().copied().filter(|(_, kind)| *kind != RejectKind::Contract).collect();
    check("simple", &simple, limits()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codec_that_no_longer_starts_is_quarantined_and_no_record_is_rejected() {
    let scratch = Scratch::new(1).await;
    let codec = Arc::new(FaultyCodec::default());
    let codecs = Codecs { value: codec.clone(), ..Codecs::default() };
    let table = scratch.table(codecs).await;
    codec.fail_to_start();
    scratch.put("a", Some(b"1")).await;
    let quarantined = || {
        let reason = table.status().reason()?;
        reason.contains("codec quarantined: it did not start in 3 tries").then_some(reason)
    };
    let reason = eventually_async("the codec is quarantined", quarantined).await;
    assert!(reason.contains("a test fault at the start"), "{reason}");
    codec.recover();
    eventually_async("the table goes on", || table.get("a")).await;
    // One by one, further records end the quarantine, and nothing of the failure stays in the status.
    for number in 0..20 {
        scratch.put(&format!("b-{number}"), Some(b"2")).await;
    }
    eventually_async("the quarantine ends", || (table.status() == Status::CaughtUp).then_some(())).await;
    assert_eq!((table.len(), table.rejects().len()), (21, 0));
}

#[tokio::test]
async fn a_key_that_makes_its_codec_or_scheme_fault_is_rejected_alone() {
    let component = component_with_limits("simple", Limits { output: 1 << 20, memory: 64 << 20, ..limits() });
    let key = component.key_codec(TOPIC, "{}").unwrap();
    let scheme = component.group_scheme(TOPIC, "{}").unwrap();
    let both =
        [Codecs { key, ..Codecs::default() }, Codecs { group_scheme: Some(scheme), ..Codecs::default() }];
    for codecs in both {
        // A key for which the scheme returns an error is a foreign key.
        let foreign = u64::from(codecs.group_scheme.is_some());
        let mut expected: BTreeMap<String, RejectKind> =
            BATCH[1..6].iter().map(|(poison, kind)| (format!("poison:{poison}"), *kind)).collect();
        expected.insert("poison:output".to_owned(), RejectKind::Output);
        if foreign == 0 {
            expected.insert("poison:answer".to_owned(), RejectKind::Invalid);
        }
        let scratch = Scratch::new(1).await;
        let mut records: Vec<_> = (0..400).map(|n| record(&format!("good.{n}"), Some(b"1"))).collect();
        for (index, poison) in
            ["answer", "trap", "stack", "loop", "memory", "utf8", "output"].iter().enumerate()
        {
            records.insert(10 + index * 37, record(&format!("poison:{poison}"), Some(b"1")));
        }
        scratch.write(records).await;
        let table = scratch.table(codecs).await;
        assert_eq!((table.len(), table.stats().foreign.count), (400, foreign));
        let rejects = table.rejects();
        let kinds: BTreeMap<String, RejectKind> = rejects
            .iter()
            .map(|reject| (String::from_utf8(reject.raw.clone()).unwrap(), reject.reason.kind))
            .collect();
        assert_eq!(kinds, expected, "{rejects:#?}");
        assert!(rejects.iter().all(|reject| reject.part == RecordPart::Key && reject.key.is_none()));
        // The table continues.
        scratch.put("good.0", Some(b"2")).await;
        scratch.sync(&table).await;
        assert_eq!(table.get("good.0").unwrap().json(), "2");
    }
}

#[tokio::test]
async fn an_oversized_answer_is_rejected_by_either_limit() {
    // The component has enough memory for 48 MiB, but the answer exceeds the limit of a call.
    let call = Limits { memory: 256 << 20, output: 8 << 20, ..limits() };
    // The answer is within the limit of a call, but exceeds the limit of a record.
    let record = Limits { memory: 256 << 20, output: 40 << 20, ..limits() };
    for limits in [call, record] {
        check("hostile", &[("output", RejectKind::Output)], limits.clone()).await;
        check("simple", &[("output", RejectKind::Output)], limits).await;
    }
}

#[tokio::test]
async fn rejects_name_the_limit_to_raise_and_the_functions_that_ran() {
    let scratch = Scratch::new(1).await;
    let component = component_with_limits("hostile", limits());
    let codecs = Codecs { value: component.value_codec(TOPIC, "{}").unwrap(), ..Codecs::default() };
    for poison in ["memory", "loop"] {
        scratch.put(poison, Some(format!("poison:{poison}").as_bytes())).await;
    }
    let table = scratch.table(codecs).await;
    let messages: Vec<String> = table.rejects().iter().map(|reject| reject.reason.message.clone()).collect();
    assert!(messages[0].contains("16777216") && messages[0].contains("limits.memory"), "{messages:?}");
    assert!(messages[1].contains("limits.deadline"), "{messages:?}");
    let trap = table.rejects()[1].reason.trap.clone().unwrap();
    assert_eq!(trap.code.as_deref(), Some("Interrupt"));
    assert!(trap.backtrace.iter().any(|function| function.contains("answer::choose_answer")), "{trap:?}");
}

#[tokio::test]
async fn no_record_is_rejected_for_a_failure_of_the_host() {
    let scratch = Scratch::new(1).await;
    scratch.put("a", Some(b"1")).await;
    scratch.put("b", Some(b"poison:memory")).await;
    // The budget of the engine is exhausted before the limit of the instance.
    let options = EngineOptions { memory_budget: 8 << 20, cache: None, ..engine_options() };
    let engine = Engine::new(options).unwrap();
    let component = engine
        .load(component_path("hostile"), LoadOptions { limits: limits(), ..LoadOptions::default() })
        .unwrap();
    let codecs = Codecs { value: component.value_codec(TOPIC, "{}").unwrap(), ..Codecs::default() };
    let builder = Table::builder(scratch.log.clone(), TOPIC, codecs);
    let table = builder.start().await.unwrap();
    let status = table.status();
    assert!(matches!(&status, Status::Degraded(reason) if reason.contains("memory budget")), "{status}");
    assert_eq!(table.rejects(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_components_do_not_bloat_the_host() {
    let scratch = Scratch::new(1).await;
    let config = scratch.path().join("ktables.toml");
    let text = format!(
        "[logs.l]\nurl = \"{}\"\n[codecs.hostile]\ncomponent = {:?}\n\
         limits = {{ memory = \"16MiB\", output = \"1MiB\", deadline = \"5s\" }}\n\
         [tables.good]\nlog = \"l\"\ntopic = \"good\"\nvalue_codec = \"hostile\"\n\
         [tables.bad]\nlog = \"l\"\ntopic = \"bad\"\nvalue_codec = \"hostile\"\n",
        scratch.url(),
        component_path("hostile"),
    );
    std::fs::write(&config, text).unwrap();
    let mut peaks = BTreeMap::new();
    for name in ["good", "bad"] {
        let topic = scratch
            .log
            .create(name, ktables::log::NewTopic { partitions: Some(1), ..ktables::log::NewTopic::default() })
            .await
            .unwrap();
        for number in 0..2000 {
            let poison =
                ["memory", "output", "trap", "stack", "items", "ends", "utf8", "json"][number / 50 % 8];
            let value = if name == "bad" && number % 50 == 7 {
                format!("poison:{poison}")
            } else {
                number.to_string()
            };
            drop(
                scratch
                    .log
                    .send(&topic, record(&format!("k{number}"), Some(value.as_bytes())))
                    .await
                    .unwrap(),
            );
        }
        scratch.log.send(&topic, record("last", Some(b"0"))).await.unwrap().await.unwrap();
        let config = config.to_str().unwrap();
        let mut command = ktables_tests::ktables(&["watch", "--config", config, "-t", name]);
        let watch = RunningCommand::start(&mut command);
        watch.until(|line| line["event"] == "synced");
        peaks.insert(name, watch.peak_memory());
        let status = succeed(&mut ktables_tests::ktables(&["status", "--config", config, "-t", name])).json();
        let rejected = if name == "bad" { 40 } else { 0 };
        assert_eq!(
            (&status[0]["rejected"], &status[0]["entries"]),
            (&rejected.into(), &(2001 - rejected).into())
        );
    }
    let more = peaks["bad"].saturating_sub(peaks["good"]);
    assert!(more <= (16 + 64) << 20, "{more} bytes more: {peaks:?}");
}

#[tokio::test]
async fn a_component_that_keeps_faulting_is_quarantined() {
    let scratch = Scratch::new(1).await;
    scratch.write((0..50).map(|n| record(&format!("k{n}"), Some(b"1"))).collect()).await;
    let component = component_with_limits("hostile", limits());
    let start = async |on_quarantine| {
        let value = component.value_codec(TOPIC, "{}").unwrap();
        let codecs = Codecs { value, ..Codecs::default() };
        let builder = Table::builder(scratch.log.clone(), TOPIC, codecs).catchup_timeout(TIMEOUT);
        builder.on_quarantine(on_quarantine).quarantine_faults(20).start().await.unwrap()
    };
    let probed = start(OnQuarantine::Probe).await;
    let waiting = start(OnQuarantine::Wait).await;
    let rejecting = start(OnQuarantine::Reject).await;
    scratch.write((0..21).map(|n| record(&format!("k{n}"), Some(b"poison:json"))).collect()).await;
    for table in [&probed, &waiting] {
        let degraded = eventually_async("the component is quarantined", || match table.status() {
            Status::Degraded(reason) => Some(reason),
            _ => None,
        });
        let reason = degraded.await;
        assert!(reason.contains("codec quarantined: ") && reason.contains("on_quarantine"), "{reason}");
        assert!(reason.contains("not JSON") && reason.contains(&component.id().to_string()), "{reason}");
        assert_eq!((table.get("k0").unwrap().json(), table.rejects().len()), ("1", 21));
    }
    // In quarantine, records are decided one by one, also those that fault.
    scratch.put("k0", Some(b"poison:trap")).await;
    scratch.put("k1", Some(b"2")).await;
    scratch.sync(&probed).await;
    assert_eq!((probed.get("k1").unwrap().json(), probed.rejects().len()), ("2", 22));
    assert!(matches!(probed.status(), Status::Degraded(_)));
    // Another component ends the quarantine.
    assert_eq!(waiting.get("k1").unwrap().json(), "1");
    waiting.swap_codecs(Codecs::new(Utf8, Utf8)).await.unwrap();
    assert!(matches!(waiting.status(), Status::CaughtUp), "{}", waiting.status());
    assert_eq!(waiting.get("k1").unwrap().json(), "\"2\"");
    // Nothing is quarantined if the user does not want it.
    scratch.sync(&rejecting).await;
    assert!(matches!(rejecting.status(), Status::CaughtUp), "{}", rejecting.status());
    assert_eq!((rejecting.get("k1").unwrap().json(), rejecting.rejects().len()), ("2", 22));
}

#[tokio::test]
async fn a_quarantine_ends_after_records_without_a_fault() {
    let scratch = Scratch::new(2).await;
    scratch.put("k0", Some(b"1")).await;
    let value = component_with_limits("hostile", limits()).value_codec(TOPIC, "{}").unwrap();
    let codecs = Codecs { value, ..Codecs::default() };
    let builder = Table::builder(scratch.log.clone(), TOPIC, codecs).quarantine_faults(2);
    let table = builder.start().await.unwrap();
    scratch.write((0..4).map(|n| record(&format!("bad{n}"), Some(b"poison:json"))).collect()).await;
    eventually_async("the component is quarantined", || {
        matches!(table.status(), Status::Degraded(_)).then_some(())
    })
    .await;
    // In both partitions. One record a second is decoded, and twenty must pass.
    scratch.write((0..22).map(|n| record(&format!("good{n}"), Some(b"1"))).collect()).await;
    eventually_async("the quarantine has ended", || matches!(table.status(), Status::CaughtUp).then_some(()))
        .await;
    scratch.sync(&table).await;
    assert_eq!((table.len(), table.rejects().len()), (23, 4));
}
