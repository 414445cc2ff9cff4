//! One codec, written in each language: all of them must decode and encode alike.

use std::sync::Arc;

use ktables::Packed;
use ktables::codec::{KeyCodec, ValueCodec};
use ktables_tests::{TOPIC, component};

/// Components with the codec of the compact service record.
const COMPONENTS: [&str; 2] = ["service-record", "service-record-go"];

/// The values of records, in the form in which they are decoded.
const VALUES: [&str; 3] = [
    r#"{"host":"a.example","port":8080,"weight":7,"healthy":true,"draining":false,"started":1700000000000,"tags":["eu","ä"]}"#,
    r#"{"host":"","port":0,"weight":0,"healthy":false,"draining":false,"started":0,"tags":[]}"#,
    r#"{"host":"<b>&\"","port":65535,"weight":4294967295,"healthy":true,"draining":true,"started":18446744073709551615,"tags":[""]}"#,
];

/// The keys of records.
const KEYS: [&str; 2] = ["00102030-4050-6070-8090-a0b0c0d0e0f0", "ffffffff-ffff-ffff-ffff-ffffffffffff"];

fn codecs() -> impl Iterator<Item = (Arc<dyn ValueCodec>, Arc<dyn KeyCodec>)> {
    COMPONENTS.map(component).into_iter().map(|component| {
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
