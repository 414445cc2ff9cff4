//! Schemas in all syntaxes, and their messages as JSON.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ktables_guest::schemas::ResolvedReference;
use ktables_guest::{CodecError, Context, KeyCodec, Plugin, Role, ValueCodec};
use serde_json::{Value, json};

use crate::Protobuf;
use crate::indexes::Indexes;
use crate::schema::Schema;

fn codec(config: &Value) -> Result<Protobuf, String> {
    let context = Context { config: config.to_string(), topic: "t".to_owned(), role: Role::Value };
    Protobuf::configure(&context)
}

/// Checks that JSON is encoded and decoded again.
fn check(codec: &Protobuf, json: &Value) -> Vec<u8> {
    let raw = codec.encode(&json.to_string()).unwrap_or_else(|error| panic!("{json}: {error:?}")).raw;
    let decoded: Value = serde_json::from_str(&codec.decode(&raw, &[]).unwrap()).unwrap();
    assert_eq!(decoded, *json);
    raw
}

const PROTO3: &str = r#"
    syntax = "proto3";
    package shop;
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/wrappers.proto";
    import "google/protobuf/any.proto";
    import "google/protobuf/field_mask.proto";
    import "confluent/meta.proto";
    import "confluent/type/decimal.proto";

    enum Color { RED = 0; GREEN = 1; }
    message Order {
      option (confluent.message_meta).doc = "an order";
      int64 id = 1; uint64 big = 2; sint32 small = 3; fixed64 f = 4; bool ok = 5;
      float ratio = 6; double exact = 7; string note = 8; bytes raw = 9;
      Color color = 10; repeated int32 counts = 11; map<string, Line> lines = 12;
      oneof kind { string name = 13; Order next = 14; }
      optional int32 maybe = 15;
      google.protobuf.Timestamp at = 16; google.protobuf.Duration wait = 17;
      google.protobuf.Struct extra = 18; google.protobuf.Int64Value wrapped = 19;
      google.protobuf.Any any = 20; google.protobuf.FieldMask mask = 21;
      confluent.type.Decimal price = 22; map<int64, bool> flags = 23;
      repeated Color colors = 24; google.protobuf.FloatValue half = 25; google.protobuf.Value value = 26;
      message Line { int64 amount = 1; message Deep { string text = 1; } Deep deep = 2; }
      message Other { string text = 1; }
    }
    message Second { string text = 1; }
"#;

#[test]
fn json_is_canonical() {
    let codec = codec(&json!({ "plain": PROTO3 })).unwrap();
    check(&codec, &json!({}));
    check(
        &codec,
        &json!({
            "id": "-9223372036854775808", "big": "18446744073709551615", "small": -1, "f": "7", "ok": true,
            "ratio": 0.1, "exact": 1e300, "note": "ä\n\u{0}", "raw": "AP8=", "color": "GREEN",
            "counts": [1, -2], "lines": { "a": { "amount": "5", "deep": { "text": "x" } }, "b": {} },
            "next": { "name": "inner" }, "maybe": 0,
            "at": "2026-11-30T12:34:56.789Z", "wait": "-1.500s", "extra": { "x": [1.0, null, { "y": "z" }] },
            "wrapped": "0", "any": { "@type": "type.googleapis.com/shop.Second", "text": "t" },
            "mask": "a,bC", "price": { "value": "BNI=", "precision": 6, "scale": 2 },
            "flags": { "-1": true, "9223372036854775807": false }, "colors": ["RED", 7], "half": 0.5, "value": null,
        }),
    );
    check(&codec, &json!({ "ratio": "NaN", "exact": "-Infinity", "half": "Infinity" }));
    let numbers = self::codec(&json!({ "plain": PROTO3, "integers": "number" })).unwrap();
    let json = json!({ "id": i64::MIN, "big": u64::MAX, "wrapped": -1, "lines": { "a": { "amount": 5 } } });
    check(&numbers, &json);
    // The names of the file are read, too, and numbers for strings and the other way round.
    let raw = codec.encode(r#"{"id": 5, "small": "6"}"#).unwrap().raw;
    assert_eq!(codec.decode(&raw, &[]).unwrap(), r#"{"id":"5","small":6}"#);
    for wrong in
        [r#"{"x": 1}"#, r#"{"id": "a"}"#, r#"{"color": "BLUE"}"#, r#"{"name": "", "next": {}}"#, "[]", "{"]
    {
        assert!(codec.encode(wrong).is_err(), "{wrong}");
    }
    for wrong in [&[8][..], &[10, 200], &[66, 1, 255], &[7]] {
        assert!(codec.decode(wrong, &[]).is_err(), "{wrong:?}");
    }
}

#[test]
fn unknown_fields_are_kept() {
    let old = r#"syntax = "proto3"; package p;
        message A { int32 x = 1; A next = 2; repeated A list = 3; map<int32, A> map = 4; }"#;
    let new = old
        .replace("int32 x = 1;", "int32 x = 1; string added = 5; fixed32 four = 6; repeated int64 many = 7;");
    let (old, new) = (codec(&json!({ "plain": old })).unwrap(), codec(&json!({ "plain": new })).unwrap());
    let value = |rest: Value| {
        let mut value = json!({ "x": 1, "added": "text", "four": 4, "many": ["1", "2"] });
        value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        value
    };
    let inner = value(json!({}));
    let json = value(json!({ "next": inner, "list": [{}, inner], "map": { "-5": inner } }));
    let raw = new.encode(&json.to_string()).unwrap().raw;
    let shown = old.decode(&raw, &[]).unwrap();
    assert_eq!(shown.matches("@unknown").count(), 4, "{shown}");
    let changed = shown.replace("\"x\":1", "\"x\":2");
    let raw = old.encode(&changed).unwrap().raw;
    assert_eq!(old.decode(&raw, &[]).unwrap(), changed);
    let expected = json.to_string().replace("\"x\":1", "\"x\":2");
    let read: Value = serde_json::from_str(&new.decode(&raw, &[]).unwrap()).unwrap();
    assert_eq!(read, serde_json::from_str::<Value>(&expected).unwrap());

    let known = STANDARD.encode([8, 1]);
    for wrong in [&*known, "?", "//8="] {
        let error = old.encode(&json!({ "@unknown": wrong }).to_string()).unwrap_err();
        assert!(format!("{error:?}").contains("@unknown"), "{error:?}");
    }
    // A key of a map is no member of a message.
    let map =
        codec(&json!({ "plain": r#"syntax = "proto3"; message M { map<string, string> m = 1; }"# })).unwrap();
    check(&map, &json!({ "m": { "@unknown": "x" } }));
}

#[test]
fn proto2_has_required_fields_groups_and_extensions() {
    let text = r#"
        syntax = "proto2";
        message A {
          required string name = 1; optional int32 n = 2 [default = 7]; repeated int32 list = 3 [packed = true];
          optional group Part = 4 { optional int32 x = 1; }
          extensions 100 to 200;
          enum E { ONE = 1; TWO = 2; }
          optional E e = 5; repeated A more = 6;
        }
        extend A { optional int64 added = 100; }
    "#;
    let codec = codec(&json!({ "plain": text })).unwrap();
    check(&codec, &json!({ "name": "", "list": [1, 2], "part": { "x": 0 }, "e": "TWO", "[added]": "5" }));
    check(&codec, &json!({ "name": "a", "n": 0, "more": [{ "name": "b" }] }));
    for missing in [json!({}), json!({ "name": "a", "more": [{ "n": 1 }] })] {
        let error = codec.encode(&missing.to_string()).unwrap_err();
        assert!(format!("{error:?}").contains("the required field name of A is missing"), "{error:?}");
    }
}

#[test]
fn editions_have_features() {
    let text = r#"
        // A file.
        edition = "2023";
        package p;
        option features.field_presence = IMPLICIT;
        enum Closed { option features.enum_type = CLOSED; ONE = 1; TWO = 2; }
        message A {
          int32 implicit = 1;
          int32 explicit = 2 [features.field_presence = EXPLICIT];
          string must = 3 [features.field_presence = LEGACY_REQUIRED];
          repeated int32 packed = 4;
          repeated int32 expanded = 5 [features.repeated_field_encoding = EXPANDED];
          A delimited = 6 [features.message_encoding = DELIMITED];
          Closed closed = 7 [features.field_presence = EXPLICIT];
        }
    "#;
    let codec = codec(&json!({ "plain": text })).unwrap();
    let raw = check(&codec, &json!({ "must": "", "explicit": 0, "closed": "TWO" }));
    assert_eq!(raw, [16, 0, 26, 0, 56, 2]);
    let raw = codec.encode(r#"{"must": "", "implicit": 0}"#).unwrap().raw;
    assert_eq!(raw, [26, 0]);
    let raw = check(&codec, &json!({ "must": "a", "packed": [1, 2], "expanded": [1, 2] }));
    assert_eq!(raw, [26, 1, b'a', 34, 2, 1, 2, 40, 1, 40, 2]);
    let raw = check(&codec, &json!({ "must": "a", "delimited": { "must": "b" } }));
    assert_eq!(raw, [26, 1, b'a', 51, 26, 1, b'b', 52]);
    assert!(codec.encode("{}").is_err());
    assert!(self::codec(&json!({ "plain": "edition = \"2099\";" })).unwrap_err().contains("2099"));
}

#[test]
fn message_types_have_indexes() {
    let schema = Schema::compile(PROTO3, &[]).unwrap();
    for (name, indexes) in [
        ("shop.Order", vec![0]),
        // The types of maps count.
        ("shop.Order.Line", vec![0, 2]),
        ("shop.Order.Line.Deep", vec![0, 2, 0]),
        ("shop.Order.Other", vec![0, 3]),
        ("shop.Second", vec![1]),
    ] {
        assert_eq!(schema.indexes_of(Some(name)), Some(Indexes(indexes.clone())), "{name}");
        let message = schema.message_at(&Indexes(indexes)).unwrap();
        assert_eq!(schema.pool.message(message).full_name(), name);
    }
    for name in ["Order", "shop", "shop.", "shop.Order.", "shop.None", "google.protobuf.Any", ""] {
        assert_eq!(schema.indexes_of(Some(name)), None, "{name}");
    }
    for indexes in [vec![], vec![2], vec![0, 9], vec![usize::MAX]] {
        assert_eq!(schema.message_at(&Indexes(indexes)), None);
    }
    assert_eq!(Schema::compile("syntax = \"proto3\";", &[]).unwrap().indexes_of(None), None);
}

#[test]
fn schemas_import_others_as_text_or_descriptor() {
    let reference =
        |name: &str, text: &str| ResolvedReference { name: name.to_owned(), text: text.to_owned() };
    let inner = "edition = \"2023\"; package inner; message I { int32 x = 1; }";
    let middle = "syntax = \"proto3\"; import public \"a/inner.proto\"; message M { inner.I i = 1; }";
    let outer = "syntax = \"proto3\"; import \"middle.proto\"; message O { M m = 1; inner.I i = 2; }";
    let files = [reference("a/inner.proto", inner), reference("middle.proto", middle)];
    let schema = Schema::compile(outer, &files).unwrap();
    let descriptor = |name: &str| {
        let mut bytes = Vec::new();
        buffa::Message::encode(schema.pool.file_by_name(name).unwrap(), &mut bytes);
        STANDARD.encode(bytes)
    };
    let encoded = [
        reference("a/inner.proto", &descriptor("a/inner.proto")),
        reference("middle.proto", &descriptor("middle.proto")),
    ];
    for files in [&files, &encoded] {
        for text in [outer.to_owned(), descriptor("schema")] {
            let schema = Schema::compile(&text, files).unwrap();
            assert!(schema.pool.message_by_name("inner.I").is_some());
            assert!(schema.indexes_of(Some("O")).is_some());
        }
    }
    let missing = Schema::compile(outer, &files[..1]).unwrap_err();
    assert!(missing.contains("middle.proto"), "{missing}");
    let circle = [reference("a.proto", "import \"b.proto\";"), reference("b.proto", "import \"a.proto\";")];
    assert!(Schema::compile("import \"a.proto\"; message A {}", &circle).unwrap_err().contains("a.proto"));
    assert!(Schema::compile("message A { B b = 1; }", &[]).is_err());
    assert!(Schema::compile("AAAA", &[]).unwrap_err().contains("base64"));
}

#[test]
fn deep_schemas_and_values_end() {
    let mut deep = String::new();
    for level in 0..400 {
        let _ = write!(deep, "message M{level} {{ ");
    }
    deep.push_str(&"}".repeat(400));
    assert!(Schema::compile(&format!("syntax = \"proto3\"; {deep}"), &[]).is_err());
    let recursive = "syntax = \"proto3\"; message A { A a = 1; }";
    let codec = codec(&json!({ "plain": recursive })).unwrap();
    let json = format!("{}{{}}{}", r#"{"a":"#.repeat(90), "}".repeat(90));
    let raw = codec.encode(&json).unwrap().raw;
    assert_eq!(codec.decode(&raw, &[]).unwrap(), json);
    let json = format!("{}{{}}{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    assert!(codec.encode(&json).is_err());
    let mut raw = Vec::new();
    for _ in 0..1000 {
        let mut outer = vec![10];
        buffa::encoding::encode_varint(raw.len() as u64, &mut outer);
        outer.extend_from_slice(&raw);
        raw = outer;
    }
    assert!(codec.decode(&raw, &[]).is_err());
}

#[test]
fn values_of_closed_enums_that_the_schema_does_not_have_are_kept() {
    let text = r#"syntax = "proto2"; enum E { A = 1; } message M { optional E e = 1; repeated E list = 2; }"#;
    let codec = codec(&json!({ "plain": text })).unwrap();
    let raw = [8, 5, 16, 1, 16, 9];
    let shown = codec.decode(&raw, &[]).unwrap();
    assert!(shown.contains("@unknown") && shown.contains(r#""list":["A"]"#), "{shown}");
    let again = codec.encode(&shown).unwrap().raw;
    assert_eq!(codec.decode(&again, &[]).unwrap(), shown);
}

#[test]
fn schemas_that_protoc_accepts_compile() {
    let known = ["calendar_period", "color", "date", "datetime", "dayofweek", "decimal", "expr", "fraction"];
    let known = known.iter().chain(&[
        "interval",
        "latlng",
        "localized_text",
        "money",
        "month",
        "phone_number",
        "postal_address",
        "quaternion",
        "timeofday",
    ]);
    let imports: String = known.map(|name| format!("import \"google/type/{name}.proto\"; ")).collect();
    let text = format!(
        r#"syntax = "proto3"; {imports} import "confluent/types/decimal.proto"; import "confluent/type/variant.proto";
        message A {{ int32 userid = 1; int32 user_id = 2; google.type.Money m = 3; confluent.type.Decimal d = 4; }}"#
    );
    check(
        &codec(&json!({ "plain": text })).unwrap(),
        &json!({ "userid": 1, "userId": 2, "m": { "units": "5" }, "d": { "scale": -1 } }),
    );

    // Custom options are not needed, known or not, and neither are services.
    let options = r#"
        syntax = "proto3";
        import "google/protobuf/descriptor.proto";
        message R { R r = 1; }
        extend google.protobuf.MessageOptions { R o = 50000; }
        option (unknown.option) = "x";
        message M { option (o) = { r { r {} } }; int32 x = 1 [(unknown.field).y = 5, deprecated = true]; }
        service S { rpc Call(M) returns (M) { option (google.api.http) = { get: "/v1" }; } }
    "#;
    let schema = Schema::compile(options, &[]).unwrap();
    assert!(schema.pool.message_by_name("M").is_some());
    let deep = format!("{}{}", "r { ".repeat(20_000), "}".repeat(20_000));
    if let Err(error) = Schema::compile(&options.replace("r { r {} }", &deep), &[]) {
        assert!(error.len() < 1000, "{error}");
    }

    let reference =
        |name: &str, text: &str| ResolvedReference { name: name.to_owned(), text: text.to_owned() };
    let files = [
        reference("a.proto", "syntax = \"proto3\"; import public \"b.proto\";"),
        reference("b.proto", "syntax = \"proto3\"; import public \"c.proto\";"),
        reference("c.proto", "syntax = \"proto3\"; message C {}"),
    ];
    Schema::compile("syntax = \"proto3\"; import \"a.proto\"; message M { C c = 1; }", &files).unwrap();
}

#[test]
fn schemas_that_would_mislead_are_refused() {
    let text = "syntax = \"proto3\"; message M { string x = 1 [json_name = \"@unknown\"]; }";
    assert!(Schema::compile(text, &[]).unwrap_err().contains("@unknown"));
    // A type with a name of Protobuf's, but not its form.
    let text = "syntax = \"proto3\"; package google.protobuf; message Int64Value { Int64Value value = 1; }";
    let codec = codec(&json!({ "plain": text })).unwrap();
    assert_eq!(codec.decode(&[10, 0], &[]).unwrap(), r#"{"value":{}}"#);
    let error = Schema::compile("syntax = \"proto3\";\nmessage M { string 5 = 1; }", &[]).unwrap_err();
    assert!(error.contains("schema:2:"), "{error}");
}

#[test]
fn errors_name_the_place_in_the_json() {
    let codec = codec(&json!({ "plain": PROTO3 })).unwrap();
    let Err(CodecError::Invalid(error)) = codec.encode(r#"{"lines": {"a": {"amount": "x"}}}"#) else {
        panic!("an error is expected");
    };
    assert!(error.contains("lines.a.amount: "), "{error}");
}

#[test]
fn keys_are_messages_in_json() {
    let config = json!({ "plain": "syntax = \"proto3\"; message K { string a = 1; int32 b = 2; }" });
    let context = Context { config: config.to_string(), topic: "t".to_owned(), role: Role::Key };
    let codec = Protobuf::configure(&context).unwrap();
    let raw = codec.encode_key(r#"{"a":"x","b":1}"#).unwrap();
    assert_eq!(codec.decode_key(&raw).unwrap(), r#"{"a":"x","b":1}"#);
    let error = format!("{:?}", codec.encode_key(r#"{ "b": 1, "a": "x" }"#).unwrap_err());
    assert!(error.contains("canonical form: write {"), "{error}");
    // The fields in another order, and a number with a needless byte.
    for raw in [&[16, 1, 10, 1, b'x'][..], &[16, 0x81, 0]] {
        assert!(codec.decode_key(raw).is_err(), "{raw:?}");
    }
    assert!(
        Protobuf::configure(&Context { config: "{}".to_owned(), ..context })
            .unwrap_err()
            .contains("write.id")
    );
}
