//! Schemas of all drafts, and what is said about values that do not fit.

use ktables_guest::schemas::ResolvedReference;
use ktables_guest::{CodecError, Context, KeyCodec, Plugin, Role, ValueCodec};
use serde_json::{Value, json};

use crate::JsonSchema;
use crate::check::Checker;

fn codec(config: &Value) -> Result<JsonSchema, String> {
    let context = Context { config: config.to_string(), topic: "t".to_owned(), role: Role::Value };
    JsonSchema::configure(&context)
}

fn reason(codec: &JsonSchema, json: &str) -> String {
    match codec.decode(json.as_bytes(), &[]) {
        Err(CodecError::Invalid(reason) | CodecError::Malformed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reject_names_the_place_and_the_keyword() {
    let schema = json!({
        "type": "object",
        "required": ["port"],
        "properties": { "port": { "maximum": 65535 }, "tags": { "items": { "pattern": "^[a-z]+$" } } },
        "additionalProperties": false,
    });
    let codec = codec(&json!({ "plain": schema })).unwrap();
    let good = r#"{ "port": 1.0, "tags": [ "a" ] }"#;
    assert_eq!(codec.decode(good.as_bytes(), &[]).unwrap(), good);
    assert_eq!(codec.encode(good).unwrap().raw, good.as_bytes());
    let port = reason(&codec, r#"{"port": 65536}"#);
    assert!(port.contains("/port") && port.contains("65536") && port.contains("(maximum)"), "{port}");
    let tag = reason(&codec, &json!({ "port": 1, "tags": ["a", "X".repeat(1000)] }).to_string());
    assert!(tag.contains("/tags/1") && tag.contains("(pattern)") && tag.len() < 200, "{tag}");
    let two = reason(&codec, r#"{"extra": 1}"#);
    assert!(two.contains("(required)") && two.contains("(additionalProperties)"), "{two}");
    assert!(reason(&codec, "{").contains("not valid JSON"));
    assert!(codec.encode(r#"{"port": -1, "x": 2}"#).is_err());
    let many = json!({ "port": 1, "tags": vec!["X"; 1000] }).to_string();
    assert!(reason(&codec, &many).ends_with("and more"));
}

#[test]
fn a_draft_has_its_own_keywords() {
    let tuple = |draft: &str| json!({ "$schema": draft, "items": [{ "type": "string" }] });
    for draft in [
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
        // It is not known, so this is draft 7.
        "https://example.com/unknown",
    ] {
        assert!(codec(&json!({ "plain": tuple(draft) })).unwrap().decode(b"[1]", &[]).is_err(), "{draft}");
    }
    let none = json!({ "items": [{ "type": "string" }] });
    assert!(codec(&json!({ "plain": none })).unwrap().decode(b"[1]", &[]).is_err());
    // The newest draft has another keyword for that.
    assert!(codec(&json!({ "plain": tuple("https://json-schema.org/draft/2020-12/schema") })).is_err());
    let newest = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "prefixItems": [{ "type": "string" }],
    });
    assert!(codec(&json!({ "plain": newest })).unwrap().decode(b"[1]", &[]).is_err());
    let exclusive = json!({ "$schema": "http://json-schema.org/draft-04/schema#", "maximum": 3, "exclusiveMaximum": true });
    assert!(codec(&json!({ "plain": exclusive })).unwrap().decode(b"3", &[]).is_err());
}

#[test]
fn formats_are_checked_if_the_configuration_says_so() {
    // As is usual, what strings contain is not checked.
    let content = json!({ "contentEncoding": "base64", "contentMediaType": "application/json" });
    assert!(codec(&json!({ "plain": content })).unwrap().decode(b"\"s\"", &[]).is_ok());
    let schema = json!({ "format": "date" });
    assert!(codec(&json!({ "plain": schema })).unwrap().decode(b"\"x\"", &[]).is_ok());
    let codec = codec(&json!({ "plain": schema, "formats": true })).unwrap();
    assert!(codec.decode(b"\"2026-11-30\"", &[]).is_ok());
    assert!(reason(&codec, "\"x\"").contains("(format)"));
}

#[test]
fn schemas_refer_to_others_by_name() {
    let reference =
        |name: &str, text: &str| ResolvedReference { name: name.to_owned(), text: text.to_owned() };
    let port = reference("port.json", r#"{"type": "integer", "$defs": {"small": {"maximum": 9}}}"#);
    for id in ["", r#""$id": "http://example.com/a/service.json", "#] {
        let text = format!(r#"{{{id}"properties": {{"p": {{"$ref": "port.json#/$defs/small"}}}}}}"#);
        let checker = Checker::compile(&text, std::slice::from_ref(&port), false).unwrap();
        assert!(checker.check(r#"{"p": 9}"#).is_ok());
        assert!(checker.check(r#"{"p": 10}"#).is_err());
        let error = Checker::compile(&text, &[], false).unwrap_err();
        assert!(error.contains("port.json") && error.contains("not among its references"), "{error}");
    }
    let numbers = |name: &str| reference(name, r#"{"type": "integer"}"#);
    let texts = |name: &str| reference(name, r#"{"type": "string"}"#);
    for (references, used) in [
        ([numbers("a.json"), texts("b/a.json")], "b/a.json"),
        ([texts("b/a.json"), numbers("a.json")], "b/a.json"),
        ([texts("./c.json"), numbers("a.json")], "./c.json"),
        ([texts("http://x.org/c.json"), numbers("c.json")], "http://x.org/c.json"),
    ] {
        let schema = json!({ "$ref": used }).to_string();
        let checker = Checker::compile(&schema, &references, false).unwrap();
        assert!(checker.check("\"x\"").is_ok() && checker.check("1").is_err(), "{used}");
    }
}

#[test]
fn a_key_has_one_form() {
    let context =
        |config: Value| Context { config: config.to_string(), topic: "t".to_owned(), role: Role::Key };
    let object = JsonSchema::configure(&context(json!({ "plain": { "type": "object" } }))).unwrap();
    let compact = r#"{"a b":"\"  \\","c":[1.0,2]}"#;
    let spaced = "{ \"a b\" : \"\\\"  \\\\\" ,\n\t\"c\": [1.0, 2] }";
    assert_eq!(&*object.encode_key(compact).unwrap(), compact.as_bytes());
    assert_eq!(object.decode_key(compact.as_bytes()).unwrap(), compact);
    let refused = format!("{:?}", object.encode_key(spaced).unwrap_err());
    assert!(refused.contains("not in canonical form: write {"), "{refused}");
    assert!(object.decode_key(spaced.as_bytes()).is_err());
    let text =
        JsonSchema::configure(&context(json!({ "plain": { "type": "string", "maxLength": 3 } }))).unwrap();
    assert_eq!(text.decode_key(b"\"a b\"").unwrap(), "a b");
    assert_eq!(&*text.encode_key("a b").unwrap(), b"\"a b\"");
    assert!(text.encode_key("long").is_err() && text.decode_key(b"1").is_err());
    assert!(JsonSchema::configure(&context(json!({}))).unwrap_err().contains("write.id"));
}

#[test]
fn a_pattern_that_goes_back_and_back_ends() {
    let codec = codec(&json!({ "plain": { "pattern": "^(a+)+(?=b)$" } })).unwrap();
    let error = reason(&codec, &json!("a".repeat(40)).to_string());
    assert!(error.contains("(pattern)"), "{error}");
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    for (config, expected) in [
        (json!({ "plain": { "type": "strin" } }), "plain is not a JSON Schema"),
        (json!({ "plain": "{" }), "it is not valid JSON"),
        (json!({ "plain": true, "write": { "id": 1 } }), "plain is for values without an id"),
        (json!({ "schema": { "type": "strin" } }), "schema is not a JSON Schema"),
        (json!({ "plain": { "pattern": "(" } }), "plain is not a JSON Schema"),
        (json!({ "unknown": 1 }), "unknown field"),
        (json!({ "envelope": true, "write": { "id": 1 } }), "envelope names the subject"),
        (json!({ "envelope": true, "schema": true }), "envelope names the subject"),
    ] {
        let error = codec(&config).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
