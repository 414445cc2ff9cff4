//! Values of all types, with Avro's own implementation in Rust as the reference.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use ktables_guest::CodecError;
use serde_json::{Value, json};

use crate::compile::{compile, resolve};
use crate::decode::decode;
use crate::encode::{Form, encode};
use crate::parse::ParsedSchema;
use crate::{Decimals, Settings, Unions};

fn parse(schema: &Value) -> ParsedSchema {
    ParsedSchema::parse(&schema.to_string(), [].into_iter()).unwrap()
}

fn to_bytes(schema: &Value, settings: &Settings, json: &str) -> Result<Vec<u8>, CodecError> {
    encode(&compile(&parse(schema), settings).unwrap(), Form::Value, json)
}

fn to_json(schema: &Value, settings: &Settings, raw: &[u8]) -> Result<String, CodecError> {
    let mut json = String::new();
    decode(&compile(&parse(schema), settings).unwrap(), settings, raw, &mut json).map(|()| json)
}

/// Checks that JSON is encoded and decoded again, and that the reference reads the bytes, and writes the same ones.
fn check_with(settings: &Settings, schema: &Value, json: &str) {
    let raw = to_bytes(schema, settings, json).unwrap_or_else(|error| panic!("{schema} {json}: {error:?}"));
    assert_eq!(to_json(schema, settings, &raw).unwrap(), json, "{schema}");
    let reference = Schema::parse(schema).unwrap();
    let reader = GenericDatumReader::builder(&reference).build().unwrap();
    let value = reader.read_value(&mut &raw[..]).unwrap_or_else(|error| panic!("{schema} {json}: {error}"));
    let writer = GenericDatumWriter::builder(&reference).build().unwrap();
    assert_eq!(writer.write_value_to_vec(value).unwrap(), raw, "{schema} {json}");
}

fn check(schema: &Value, json: &str) {
    check_with(&Settings::default(), schema, json);
}

fn fixed(size: usize, logical_type: &str) -> Value {
    json!({ "type": "fixed", "name": "F", "size": size, "logicalType": logical_type })
}

#[test]
fn each_type_has_a_json_form() {
    for (schema, values) in [
        (json!("null"), &["null"][..]),
        (json!("boolean"), &["true", "false"]),
        (json!("int"), &["0", "-1", "2147483647", "-2147483648"]),
        (json!("long"), &["0", "9223372036854775807", "-9223372036854775808"]),
        (json!("float"), &["0.1", "-0.0", "3.4028235e+38", "\"NaN\"", "\"-Infinity\""]),
        (json!("double"), &["0.1", "1e+300", "5e-324", "\"Infinity\""]),
        (json!("bytes"), &["\"\"", "\"AP8=\""]),
        (json!("string"), &["\"\"", "\"\\\"ä\\n\\u0000\""]),
        (json!({ "type": "enum", "name": "E", "symbols": ["A", "B"] }), &["\"A\"", "\"B\""]),
        (json!({ "type": "fixed", "name": "F", "size": 2 }), &["\"AAE=\""]),
        (json!({ "type": "array", "items": "int" }), &["[]", "[1,2,3]"]),
        (json!({ "type": "map", "values": "int" }), &["{}", "{\"a\":1}"]),
        (json!({ "type": "int", "logicalType": "date" }), &["\"2026-11-30\"", "2932897"]),
        (json!({ "type": "int", "logicalType": "time-millis" }), &["\"12:34:56.789\""]),
        (json!({ "type": "long", "logicalType": "time-micros" }), &["\"12:34:56.789012\""]),
        (json!({ "type": "long", "logicalType": "timestamp-millis" }), &["\"2026-11-30T12:34:56.789Z\""]),
        (json!({ "type": "long", "logicalType": "timestamp-micros" }), &["\"1969-12-31T23:59:59.999999Z\""]),
        (json!({ "type": "long", "logicalType": "timestamp-nanos" }), &["\"2026-11-30T12:34:56Z\""]),
        (
            json!({ "type": "long", "logicalType": "local-timestamp-millis" }),
            &["\"2026-11-30T12:34:56.789\""],
        ),
        (json!({ "type": "long", "logicalType": "local-timestamp-micros" }), &["\"2026-11-30T12:34:56\""]),
        (
            json!({ "type": "long", "logicalType": "local-timestamp-nanos" }),
            &["\"2026-11-30T12:34:56.789123456\""],
        ),
        (
            json!({ "type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2 }),
            &["\"123.40\"", "\"-0.05\"", "\"0.00\""],
        ),
        (json!({ "type": "string", "logicalType": "uuid" }), &["\"00112233-4455-6677-8899-aabbccddeeff\""]),
        (fixed(16, "uuid"), &["\"00112233-4455-6677-8899-aabbccddeeff\""]),
        (fixed(12, "duration"), &["{\"months\":1,\"days\":4294967295,\"millis\":0}"]),
    ] {
        for value in values {
            check(&schema, value);
        }
    }
    let decimal = json!({ "type": "fixed", "name": "F", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 3 });
    check(&decimal, "\"-1.500\"");
    check_with(&Settings { decimal: Decimals::Number, ..Settings::default() }, &decimal, "-1.500");
}

#[test]
fn unions_are_unwrapped_where_json_tells_the_branches_apart() {
    let record = json!({ "type": "record", "name": "n.R", "fields": [{ "name": "a", "type": "int" }] });
    let simple = json!(["null", "boolean", "long", "string", { "type": "array", "items": "int" }, record]);
    for value in ["null", "true", "7", "\"x\"", "[1]", "{\"a\":1}"] {
        check(&simple, value);
    }
    let ambiguous = json!(["null", "int", "string", "bytes", record]);
    for value in ["null", "{\"int\":7}", "{\"string\":\"x\"}", "{\"bytes\":\"AA==\"}", "{\"n.R\":{\"a\":1}}"]
    {
        check(&ambiguous, value);
    }
    let avro_json = Settings { union: Unions::AvroJson, ..Settings::default() };
    check_with(&avro_json, &json!(["null", "int"]), "{\"int\":7}");
    check_with(&avro_json, &json!(["null", "int"]), "null");
    for (schema, value) in
        [(&simple, "1.5"), (&ambiguous, "7"), (&ambiguous, "{\"long\":7}"), (&simple, "{}")]
    {
        let error = to_bytes(schema, &Settings::default(), value).unwrap_err();
        assert!(matches!(error, CodecError::Invalid(_)), "{value}: {error:?}");
    }
    // NaN could be the string.
    let nan = [&[0][..], &f64::NAN.to_le_bytes()].concat();
    assert!(to_json(&json!(["double", "string"]), &Settings::default(), &nan).is_err());
    check(&json!(["double", "null"]), "\"NaN\"");
}

#[test]
fn recursive_and_named_types_are_followed() {
    let list = json!({ "type": "record", "name": "List", "namespace": "a.b", "fields": [
        { "name": "value", "type": { "type": "enum", "name": "Color", "symbols": ["RED"] } },
        { "name": "other", "type": "Color" },
        { "name": "next", "type": ["null", "List"] },
    ] });
    check(&list, r#"{"value":"RED","other":"RED","next":{"value":"RED","other":"RED","next":null}}"#);
    let mut deep = "null".to_owned();
    for _ in 0..200 {
        deep = format!(r#"{{"value":"RED","other":"RED","next":{deep}}}"#);
    }
    let too_deep = to_bytes(&list, &Settings::default(), &deep).unwrap_err();
    assert!(matches!(too_deep, CodecError::Unsupported(_)), "{too_deep:?}");
    let raw = [0, 0, 2].repeat(100_000);
    assert!(to_json(&list, &Settings::default(), &raw).is_err());

    let reference = r#"{"type": "enum", "name": "x.Color", "symbols": ["RED"]}"#;
    let car = r#"{"type": "record", "name": "x.Car", "fields": [{"name": "color", "type": "Color"}]}"#;
    let parsed = ParsedSchema::parse(car, [reference, reference].into_iter()).unwrap();
    let plan = compile(&parsed, &Settings::default()).unwrap();
    assert_eq!(encode(&plan, Form::Value, r#"{"color":"RED"}"#).unwrap(), [0]);
}

fn read_as(writer: &Value, reader: &Value, json: &str) -> Result<String, String> {
    let settings = Settings::default();
    let raw = to_bytes(writer, &settings, json).unwrap();
    let plan = resolve(&parse(writer), &parse(reader), &settings)?;
    let mut read = String::new();
    decode(&plan, &settings, &raw, &mut read).map(|()| read).map_err(|error| format!("{error:?}"))
}

#[test]
fn values_are_read_with_another_schema() {
    let record = |fields: Value| json!({ "type": "record", "name": "R", "fields": fields });
    let writer =
        record(json!([{ "name": "a", "type": "int" }, { "name": "gone", "type": ["null", "string"] }]));
    let reader = record(json!([
        { "name": "new", "type": { "type": "bytes" }, "default": "\u{ff}" },
        { "name": "b", "aliases": ["a"], "type": "double" },
        { "name": "list", "type": { "type": "array", "items": ["null", "int"] }, "default": [] },
        { "name": "maybe", "type": ["null", "string"], "default": null },
    ]));
    let read = read_as(&writer, &reader, r#"{"a":1,"gone":"x"}"#).unwrap();
    let read: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(read, json!({ "b": 1.0, "new": "/w==", "list": [], "maybe": null }));

    let error = read_as(&writer, &record(json!([{ "name": "z", "type": "int" }])), r#"{"a":1,"gone":null}"#);
    assert!(error.unwrap_err().contains("has no default"));
    let colors = |symbols: &[&str], default: Option<&str>| {
        let mut schema = json!({ "type": "enum", "name": "E", "symbols": symbols });
        if let Some(default) = default {
            schema["default"] = default.into();
        }
        schema
    };
    assert_eq!(read_as(&colors(&["A", "B"], None), &colors(&["B"], Some("B")), "\"A\"").unwrap(), "\"B\"");
    assert!(read_as(&colors(&["A", "B"], None), &colors(&["B"], None), "\"A\"").is_err());
    for (writer, reader, json, expected) in [
        (json!("int"), json!("long"), "7", "7"),
        (json!("int"), json!(["null", "long"]), "7", "7"),
        (json!(["null", "int"]), json!("int"), "7", "7"),
        (json!(["null", "int"]), json!(["string", "null", "long"]), "7", "7"),
        (json!("float"), json!("double"), "0.5", "0.5"),
        (json!("string"), json!("bytes"), "\"a\"", "\"YQ==\""),
        (json!("bytes"), json!("string"), "\"YQ==\"", "\"a\""),
        (
            json!("long"),
            json!({ "type": "long", "logicalType": "timestamp-millis" }),
            "0",
            "\"1970-01-01T00:00:00Z\"",
        ),
        (
            json!({ "type": "map", "values": "int" }),
            json!({ "type": "map", "values": "float" }),
            "{\"a\":1}",
            "{\"a\":1.0}",
        ),
    ] {
        assert_eq!(read_as(&writer, &reader, json).as_deref(), Ok(expected), "{writer} {reader}");
    }
    for (writer, reader, json) in [
        (json!("long"), json!("int"), "7"),
        (json!(["null", "int"]), json!("int"), "null"),
        (json!("string"), json!("int"), "\"a\""),
    ] {
        assert!(read_as(&writer, &reader, json).is_err(), "{writer} {reader}");
    }
}

#[test]
fn damaged_values_are_refused() {
    for (schema, raw) in [
        (json!("null"), &[0][..]),
        (json!("boolean"), &[2]),
        (json!("int"), &[0x80, 0x80, 0x80, 0x80, 0x20]),
        (json!("long"), &[0xff; 11]),
        (json!("string"), &[4, 0xff, 0xff]),
        (json!("string"), &[9]),
        (json!("bytes"), &[1]),
        (json!(["null"]), &[2]),
        (json!({ "type": "array", "items": "null" }), &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
        (json!({ "type": "array", "items": "int" }), &[0xff; 9]),
        (json!({ "type": "enum", "name": "E", "symbols": ["A"] }), &[2]),
        (json!({ "type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 0 }), &[4, 0x30, 0x39]),
        (json!({ "type": "map", "values": "null" }), &[4, 2, b'a', 2, b'a', 0]),
    ] {
        assert!(to_json(&schema, &Settings::default(), raw).is_err(), "{schema}");
    }
}

#[test]
fn names_of_javas_nested_classes_are_allowed() {
    let schema = json!({
        "type": "record",
        "name": "a.Outer$.Inner$1",
        "fields": [{ "name": "n", "type": "int" }, { "name": "next", "type": ["null", "a.Outer$.Inner$1"] }],
    });
    let raw = to_bytes(&schema, &Settings::default(), r#"{"n":1,"next":{"n":2,"next":null}}"#).unwrap();
    let json = to_json(&schema, &Settings::default(), &raw).unwrap();
    assert_eq!(json, r#"{"n":1,"next":{"n":2,"next":null}}"#);
    let wrong = json!({ "type": "record", "name": "a b", "fields": [] }).to_string();
    assert!(ParsedSchema::parse(&wrong, [].into_iter()).is_err());
}
