//! One codec, written in each language: all of them must decode and encode alike.

use std::sync::Arc;

use ktables::Packed;
use ktables::codec::{Codecs, KeyCodec, RejectKind, ValueCodec};
use ktables::log::NewRecord;
use ktables::wasm::{Limits, Profile};
use ktables_tests::{LogKind, TOPIC, component, component_with_limits, contents, is_long_run};

/// Components with the codec of the compact service record.
const COMPONENTS: [&str; 5] = [
    "service-record",
    "service-record-c",
    "service-record-go",
    "service-record-python",
    "service-record-typescript",
];

/// The values of records, in the form in which they are decoded.
const VALUES: [&str; 3] = [
    r#"{"host":"a.example","port":8080,"weight":7,"healthy":true,"draining":false,"started":1700000000000,"tags":["eu","ä"]}"#,
    r#"{"host":"","port":0,"weight":0,"healthy":false,"draining":false,"started":0,"tags":[]}"#,
    r#"{"host":"<b>&\"","port":65535,"weight":4294967295,"healthy":true,"draining":true,"started":18446744073709551615,"tags":[""]}"#,
];

/// The keys of records.
const KEYS: [&str; 2] = ["00102030-4050-6070-8090-a0b0c0d0e0f0", "ffffffff-ffff-ffff-ffff-ffffffffffff"];

fn codecs() -> impl Iterator<Item = (Arc<dyn ValueCodec>, Arc<dyn KeyCodec>)> {
    COMPONENTS.into_iter().map(|name| {
        let component = component_with_limits(name, Limits::new(Profile::Large));
        (component.value_codec(TOPIC, "{}").unwrap(), component.key_codec(TOPIC, "{}").unwrap())
    })
}

#[test]
fn all_languages_encode_to_the_same_bytes_and_decode_to_the_same_text() {
    let mut encoded = Vec::new();
    for (value, key) in codecs() {
        let values = value.encode_values(&VALUES).unwrap().into_iter();
        let values: Vec<Vec<u8>> = values.map(|encoded| encoded.unwrap().raw).collect();
        let packed: Packed = values.iter().collect();
        let decoded = value.decode_values(&packed, &[]).unwrap();
        assert!(decoded.iter().map(Result::unwrap).eq(VALUES.map(str::as_bytes)), "{decoded:?}");
        let keys = key.encode_keys(&KEYS).unwrap();
        let packed: Packed = keys.iter().map(Result::unwrap).collect();
        let decoded = key.decode_keys(&packed).unwrap();
        assert!(decoded.iter().map(Result::unwrap).eq(KEYS.map(str::as_bytes)), "{decoded:?}");
        encoded.push((values, keys));
    }
    assert!(encoded.iter().all(|other| *other == encoded[0]), "{encoded:?}");
}

#[test]
fn all_languages_reject_the_same_input_for_the_same_kind_of_reason() {
    let (value, _) = codecs().next().unwrap();
    let raw = value.encode_values(&VALUES[..1]).unwrap().remove(0).unwrap().raw;
    let mut damaged: Vec<Vec<u8>> = (0..raw.len()).map(|end| raw[..end].to_vec()).collect();
    for position in 0..raw.len() {
        for byte in [0, 2, 0x7f, 0xff] {
            damaged.push(raw.clone());
            damaged.last_mut().unwrap()[position] = byte;
        }
    }
    damaged.push([&raw[..], b"x"].concat());
    let packed: Packed = damaged.iter().collect();
    let wrong_values = ["{}", "[1]", "1", r#"{"host":1}"#, "{", "1 2"];
    let wrong_keys = ["", "xyz", "00102030-4050-6070-8090-A0B0C0D0E0F0"];
    let mut answers = Vec::new();
    for (value, key) in codecs() {
        let decoded = value.decode_values(&packed, &[]).unwrap();
        let decoded: Vec<_> =
            decoded.iter().map(|text| text.map(<[u8]>::to_vec).map_err(|reason| reason.kind)).collect();
        let encoded = value.encode_values(&wrong_values).unwrap().into_iter();
        let encoded: Vec<_> = encoded.map(|answer| answer.unwrap_err().kind).collect();
        let keys = key.encode_keys(&wrong_keys).unwrap();
        let keys: Vec<_> = keys.iter().map(|answer| answer.unwrap_err().kind).collect();
        answers.push((decoded, encoded, keys));
    }
    assert!(answers.iter().all(|other| *other == answers[0]), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_has_the_same_contents_through_each_language() {
    let scratch = LogKind::Directory.scratch(2).await;
    let (value, key) = codecs().next().unwrap();
    let texts: Vec<String> = (0..500).map(service).collect();
    let values = value.encode_values(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let keys: Vec<String> =
        (0..500).map(|index| format!("{index:08x}-0000-4000-8000-000000000000")).collect();
    let keys = key.encode_keys(&keys.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let mut records = Vec::new();
    for (index, (key, value)) in keys.iter().zip(values).enumerate() {
        let mut raw = value.unwrap().raw;
        if index % 50 == 0 {
            // Damaged.
            raw.push(0);
        }
        records.push(NewRecord {
            key: Some(key.unwrap().to_vec()),
            value: Some(raw),
            ..NewRecord::default()
        });
    }
    scratch.write(records).await;
    let mut tables = Vec::new();
    for (value, key) in codecs() {
        let table = scratch.table(Codecs { key, value, group_scheme: None }).await;
        tables.push((contents(&table), table.stats().rejects));
    }
    assert_eq!(tables[0].0.len(), 490);
    assert_eq!(tables[0].1, [(RejectKind::Malformed, 10)].into());
    assert!(tables.iter().all(|other| *other == tables[0]));
}

/// Returns the content of a record.
fn service(index: usize) -> String {
    let (healthy, tags) = (index.is_multiple_of(2), vec!["eu"; index % 4]);
    serde_json::json!({
        "host": format!("host-{index}"), "port": index, "weight": index * 7, "healthy": healthy,
        "draining": !healthy, "started": 1_700_000_000_000_u64 + index as u64, "tags": tags,
    })
    .to_string()
}

#[test]
fn a_component_that_keeps_memory_answers_all_calls() {
    let leaking = component("planted-leak").value_codec(TOPIC, "{}").unwrap();
    let batch: Packed = (0..1000).map(|_| b"x").collect();
    // Each record keeps a KiB, and 64 MiB are allowed.
    for _ in 0..200 {
        let decoded = leaking.decode_values(&batch, &[]).unwrap();
        assert!(decoded.iter().all(|text| text == Ok(b"1")));
    }
}

#[test]
fn a_million_records_are_decoded_in_python() {
    if !is_long_run() {
        return;
    }
    let (value, key) = codecs().next().unwrap();
    let values: Packed =
        value.encode_values(&[VALUES[0]; 1000]).unwrap().into_iter().map(|e| e.unwrap().raw).collect();
    let keys: Packed = key.encode_keys(&[KEYS[0]; 1000]).unwrap().iter().map(Result::unwrap).collect();
    let python = component("service-record-python");
    let (value, key) = (python.value_codec(TOPIC, "{}").unwrap(), python.key_codec(TOPIC, "{}").unwrap());
    for _ in 0..1000 {
        assert!(value.decode_values(&values, &[]).unwrap().iter().all(|text| text.is_ok()));
        assert!(key.decode_keys(&keys).unwrap().iter().all(|text| text.is_ok()));
    }
}
