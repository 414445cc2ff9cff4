//! Components as codecs: the examples, the SDK, simple and batch forms, keys, and refused components.

use std::fs;

use ktables::Packed;
use ktables::codec::{
    Answers, Codec, CodecFailure, Codecs, Encoded, Json, KeyCodec, PackedAnswers, RejectKind, Utf8,
    ValueCodec,
};
use ktables::log::{Header, NewRecord};
use ktables::table::Table;
use ktables::wasm::{Engine, EngineOptions, LoadOptions, Metering, WasmError};
use ktables::writer::{Verify, WriteError, Writer};
use ktables_tests::{
    Scratch, TOPIC, component, component_path, engine, engine_options, ktables, record, root, succeed,
};

fn values(name: &str, config: &str) -> Codecs {
    Codecs { value: component(name).value_codec(TOPIC, config).unwrap(), ..Codecs::default() }
}

#[tokio::test]
async fn the_deb822_component_reads_and_writes_real_stanzas() {
    let scratch = Scratch::new(4).await;
    let sample = include_str!("../../examples/deb822/sample/status");
    let stanzas: Vec<&str> = sample.split("\n\n").filter(|stanza| !stanza.trim().is_empty()).collect();
    let name = |stanza: &str| stanza.lines().next().unwrap().trim_start_matches("Package: ").to_owned();
    scratch
        .write(stanzas.iter().map(|stanza| record(&name(stanza), Some(stanza.as_bytes()))).collect())
        .await;
    let codecs = values("deb822", "{}");
    let table = scratch.table(codecs.clone()).await;
    assert_eq!(table.len(), stanzas.len());
    let bash: serde_json::Value = table.get("bash").unwrap().parse::<serde_json::Value>().unwrap();
    assert_eq!((&bash["Package"], &bash["Essential"]), (&"bash".into(), &"yes".into()));

    let writer = Writer::open(scratch.log.clone(), TOPIC, codecs).await.unwrap();
    let ack = writer
        .set("bash", r#"{"Version": "6.0", "Package": "bash", "Description": "a\n\nb"}"#)
        .await
        .unwrap();
    assert!(table.wait_for(&[ack], ktables_tests::TIMEOUT).await.is_fresh());
    let bash: serde_json::Value = table.get("bash").unwrap().parse::<serde_json::Value>().unwrap();
    assert_eq!(bash, serde_json::json!({"Package": "bash", "Version": "6.0", "Description": "a\n\nb"}));
    // The codec refuses what it could not decode again: the blanks around a field's value.
    let refused = writer.set("bash", r#"{"Package": " bash"}"#).await;
    assert!(
        matches!(&refused, Err(WriteError::Rejected { reason, .. }) if reason.message.contains("\" bash\""))
    );
    let refused = writer.set("bash", r#"{"Version": "1"}"#).await;
    assert!(
        matches!(&refused, Err(WriteError::Rejected { reason, .. }) if reason.message.contains("Package"))
    );
}

/// The codec `utf8`, except that decoding removes the blanks around a value.
#[derive(Debug)]
struct TrimmingCodec;

impl Codec for TrimmingCodec {}

impl ValueCodec for TrimmingCodec {
    fn decode_values<'a>(&self, raw: &'a Packed, _: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure> {
        let mut answers = PackedAnswers::new();
        for value in raw.iter() {
            let text = std::str::from_utf8(value.trim_ascii()).unwrap();
            answers.push(Ok(serde_json::to_string(text).unwrap()));
        }
        Ok(answers)
    }

    fn encode_values(&self, values: &[&str]) -> Answers<Encoded> {
        Utf8.encode_values(values)
    }
}

#[tokio::test]
async fn a_value_that_does_not_decode_to_itself_is_written_only_on_request() {
    let scratch = Scratch::new(1).await;
    let codecs = Codecs::new(Utf8, TrimmingCodec);
    let writer = Writer::open(scratch.log.clone(), TOPIC, codecs.clone()).await.unwrap();
    let refused = writer.set("a", "\" 1\"").await;
    assert!(matches!(refused, Err(WriteError::NotVerified { .. })), "{refused:?}");
    writer.clone().verify(Verify::Decodes).set("a", "\" 1\"").await.unwrap();
    assert_eq!(scratch.table(codecs).await.get("a").unwrap().json(), "\"1\"");
}

#[tokio::test]
async fn the_service_record_component_reads_values_and_keys() {
    let scratch = Scratch::new(1).await;
    let service = component("service-record");
    let codecs = Codecs {
        key: service.key_codec(TOPIC, "{}").unwrap(),
        value: service.value_codec(TOPIC, "{}").unwrap(),
        group_scheme: None,
    };
    let writer = Writer::open(scratch.log.clone(), TOPIC, codecs.clone()).await.unwrap();
    let json = r#"{"host":"a","port":80,"weight":1,"healthy":true,"draining":false,"started":5,"tags":[]}"#;
    writer.set("00112233-4455-6677-8899-aabbccddeeff", json).await.unwrap();
    let refused = writer.set("00112233445566778899AABBCCDDEEFF", json).await;
    assert!(matches!(refused, Err(WriteError::Rejected { .. })), "{refused:?}");
    scratch.put("not 16 bytes", Some(b"x")).await;
    let table = scratch.table(codecs).await;
    assert_eq!(table.get("00112233-4455-6677-8899-aabbccddeeff").unwrap().json(), json);
    assert_eq!(table.stats().rejects[&RejectKind::Malformed], 1);
    assert_eq!(table.rejects()[0].raw, b"not 16 bytes");
}

#[tokio::test]
async fn the_by_section_component_groups() {
    let scratch = Scratch::new(1).await;
    let scheme = component("deb822-by-section").group_scheme(TOPIC, "{}").unwrap();
    let records = ["admin/adduser", "contrib/net/tor", "foreign"].map(|key| record(key, Some(b"1")));
    scratch.write(records.to_vec()).await;
    let table = scratch.table(Codecs { group_scheme: Some(scheme), ..Codecs::default() }).await;
    assert_eq!(table.groups().iter().map(|group| &**group).collect::<Vec<_>>(), ["admin", "contrib/net"]);
    assert!(table.member("contrib/net", "tor").is_some());
    assert_eq!(table.stats().foreign.count, 1);
}

#[tokio::test]
async fn keys_that_do_not_round_trip_are_rejected_not_merged() {
    let scratch = Scratch::new(1).await;
    let key = component("simple").key_codec(TOPIC, "{}").unwrap();
    scratch.write(["abc", "Abc", "ABC"].map(|key| record(key, Some(b"1"))).to_vec()).await;
    let table = scratch.table(Codecs { key, ..Codecs::default() }).await;
    assert_eq!(table.len(), 1);
    assert_eq!(table.get("abc").unwrap().offset(), 0);
    assert_eq!(table.stats().rejects[&RejectKind::NonCanonicalKey], 2);
}

#[tokio::test]
async fn a_pair_that_does_not_join_to_its_key_is_foreign() {
    let scratch = Scratch::new(1).await;
    let scheme = component("simple").group_scheme(TOPIC, "{}").unwrap();
    scratch.write(["g.m", "g.!m", "x"].map(|key| record(key, Some(b"1"))).to_vec()).await;
    let table = scratch.table(Codecs { group_scheme: Some(scheme), ..Codecs::default() }).await;
    assert_eq!(table.snapshot().iter().map(|e| e.key().to_owned()).collect::<Vec<_>>(), ["g.m"]);
    assert_eq!(table.stats().foreign.count, 2);
}

#[tokio::test]
async fn a_component_with_only_the_simple_form_decodes_and_encodes() {
    let scratch = Scratch::new(1).await;
    scratch
        .write((0..3000).map(|n| record(&format!("k{n}"), Some(n.to_string().as_bytes()))).collect())
        .await;
    let codecs = values("simple", "{}");
    let table = scratch.table(codecs.clone()).await;
    assert_eq!((table.len(), table.get("k2999").unwrap().json()), (3000, "2999"));
    let writer = Writer::open(scratch.log.clone(), TOPIC, codecs).await.unwrap();
    writer.set("k1", "\"new\"").await.unwrap();
    scratch.sync(&table).await;
    assert_eq!(table.get("k1").unwrap().json(), "\"new\"");
}

#[tokio::test]
async fn headers_reach_a_codec_that_wants_them() {
    let scratch = Scratch::new(1).await;
    let header = |name: &str| Header { name: name.to_owned(), value: Some(b"v".to_vec()) };
    let with = NewRecord { headers: vec![header("x"), header("y")], ..record("a", Some(b"1")) };
    scratch.write(vec![record("none", Some(b"1")), with, record("b", None)]).await;
    let table = scratch.table(values("probe", r#"{"mode":"headers"}"#)).await;
    assert_eq!(table.get("a").unwrap().json(), r#"["x","y"]"#);
    assert_eq!(table.get("none").unwrap().json(), "[]");
}

#[test]
fn a_refused_configuration_reports_the_guests_message() {
    let refused = component("probe").value_codec("services", r#"{"mode":"refuse"}"#);
    let Err(WasmError::InvalidConfiguration { name, message }) = refused else { panic!("{refused:?}") };
    assert_eq!(name, "probe");
    assert!(message.contains("\"refuse\"") && message.contains("topic services"), "{message}");
    let refused = component("deb822").value_codec(TOPIC, r#"{"requires":[]}"#);
    assert!(matches!(refused, Err(WasmError::InvalidConfiguration { .. })));
}

#[test]
fn a_component_that_does_not_export_an_interface_is_refused() {
    let refused = component("deb822").key_codec(TOPIC, "{}");
    let Err(error @ WasmError::MissingExport { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("value-codec"), "{error}");
}

#[test]
fn a_file_other_than_the_approved_one_is_refused() {
    let options = |digest: &str| LoadOptions { digest: Some(digest.to_owned()), ..LoadOptions::default() };
    let right = component("probe").id().digest.clone();
    assert!(engine().load(component_path("probe"), options(&right)).is_ok());
    let refused = engine().load(component_path("deb822"), options(&right));
    assert!(matches!(refused, Err(WasmError::DigestMismatch { expected, .. }) if expected == right));
}

#[test]
fn the_cache_is_private_and_a_damaged_file_in_it_is_not_loaded() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let options = || EngineOptions { cache: Some(cache.clone()), ..engine_options() };
    let load =
        || Engine::new(options()).unwrap().load(component_path("probe"), LoadOptions::default()).map(drop);
    load().unwrap();
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    let compiled = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&compiled).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&compiled, &damaged).unwrap();
    load().unwrap();
    assert!(fs::read(&compiled).unwrap() != damaged, "the damaged file was replaced");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        matches!(Engine::new(options()), Err(WasmError::Engine { reason }) if reason.contains("delete it"))
    );
}

#[tokio::test]
async fn a_codec_serves_many_tables_at_once() {
    let scratch = Scratch::new(4).await;
    scratch
        .write((0..2000).map(|n| record(&format!("k{n}"), Some(n.to_string().as_bytes()))).collect())
        .await;
    let codecs = values("probe", r#"{"mode":"json"}"#);
    let mut tables = Vec::new();
    for _ in 0..8 {
        let (log, codecs) = (scratch.log.clone(), codecs.clone());
        tables.push(tokio::spawn(
            async move { Table::builder(log, TOPIC, codecs).start().await.unwrap().len() },
        ));
    }
    for table in tables {
        assert_eq!(table.await.unwrap(), 2000);
    }
}

#[test]
fn the_mirror_guest_returns_values_unchanged_and_checks_them() {
    let raw = ["{\"a\":1}", "{"].iter().collect();
    for (mode, fault) in [("copy", RejectKind::InvalidJson), ("json", RejectKind::Malformed)] {
        let config = format!("{{\"mode\":\"{mode}\"}}");
        let codec = component("mirror").value_codec(TOPIC, &config).unwrap();
        let answers = codec.decode_values(&raw, &[]).unwrap();
        let answers: Vec<_> =
            answers.iter().map(|answer| answer.map_err(|rejection| rejection.kind)).collect();
        assert_eq!(answers, [Ok(&b"{\"a\":1}"[..]), Err(fault)]);
    }
}

#[test]
fn fuel_is_deterministic_and_grows_with_the_number_of_records() {
    let load = |metering| {
        let options = EngineOptions { metering, cache: None, ..engine_options() };
        Engine::new(options).unwrap().load(component_path("mirror"), LoadOptions::default()).unwrap()
    };
    let (config, few) = (r#"{"mode":"json"}"#, ["[1,2]"; 10].iter().collect());
    let component = load(Metering::Fuel);
    let fuel = component.decode_fuel(config, &few).unwrap();
    assert_eq!(component.decode_fuel(config, &few).unwrap(), fuel);
    assert!(component.decode_fuel(config, &["[1,2]"; 100].iter().collect()).unwrap() > 5 * fuel);
    let error = load(Metering::Deadline).decode_fuel(config, &few).unwrap_err();
    assert!(error.to_string().contains("Metering::Fuel"), "{error}");
}

#[test]
fn built_in_key_codecs_decode_only_the_bytes_they_support() {
    let raw = [&b"\xff\x00"[..]].iter().collect();
    assert!(KeyCodec::decode_keys(&Utf8, &raw).unwrap().into_one().is_err());
    assert_eq!(ktables::codec::Bytes.decode_keys(&raw).unwrap().into_one().unwrap(), b"/wA=");
    assert!(Json.decode_keys(&raw).unwrap().into_one().is_err());
}

/// A codec that returns each value unchanged. It is written by hand, so it contains no description of its
/// interfaces. Each answer lies in memory from address 16 on, and the host's arguments from 1024 on.
const WRITTEN_BY_HAND: &str = r#"(module
    (memory (export "memory") 16)
    (global $free (mut i32) (i32.const 1024))
    (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
        (local $address i32)
        (local.set $address
            (i32.and
                (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
                (i32.sub (i32.const 0) (local.get $align))))
        (global.set $free (i32.add (local.get $address) (local.get $size)))
        (local.get $address))
    (func $answer (param $bytes i32) (param $len i32) (result i32)
        (i64.store (i32.const 16) (i64.const 0))
        (i32.store (i32.const 20) (local.get $bytes))
        (i32.store (i32.const 24) (local.get $len))
        (i64.store (i32.const 28) (i64.const 0))
        (i32.const 16))
    (func (export "ktables:codec/value-codec@0.1.0#decode") (param i32 i32 i32 i32) (result i32)
        (call $answer (local.get 0) (local.get 1)))
    (func (export "ktables:codec/value-codec@0.1.0#encode") (param i32 i32) (result i32)
        (call $answer (local.get 0) (local.get 1)))
    (func $reset (param i32) (global.set $free (i32.const 1024)))
    (export "cabi_post_ktables:codec/value-codec@0.1.0#decode" (func $reset))
    (export "cabi_post_ktables:codec/value-codec@0.1.0#encode" (func $reset)))"#;

#[test]
fn a_module_without_a_description_is_built_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (core, codec, log) = (path("core.wasm"), path("codec.wasm"), format!("dir:{}", path("log")));
    fs::write(&core, wat::parse_str(WRITTEN_BY_HAND).unwrap()).unwrap();
    let built = succeed(&mut ktables(&["codec", "build", &core, "-o", &codec]));
    let (line, inspected) =
        (built.json().remove(0), succeed(&mut ktables(&["codec", "inspect", &codec])).json().remove(0));
    assert_eq!(line["kinds"], serde_json::json!(["value-codec"]));
    assert_eq!((&line["digest"], &inspected["accepted"]), (&inspected["digest"], &true.into()));
    assert_eq!(built.stderr, "");
    let table = ["--log", &log, "--topic", "t", "--value-codec", &codec];
    succeed(&mut ktables(&[&["topic", "ensure", "--log", &log, "--topic", "t"][..]].concat()));
    for value in ["[1,2]", "{}", "\"x\""] {
        succeed(&mut ktables(&[&["set"][..], &table, &["key", value]].concat()));
        assert_eq!(succeed(&mut ktables(&[&["get"][..], &table, &["key"]].concat())).stdout.trim(), value);
    }
}

#[test]
fn the_wit_package_is_printed_as_one_file() {
    let printed = succeed(&mut ktables(&["codec", "wit"])).stdout;
    for file in fs::read_dir(root().join("wit/0.1")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(printed.contains(text.strip_prefix("package ktables:codec@0.1.0;\n").unwrap().trim()));
    }
    assert_eq!(printed.matches("\npackage ").count() + usize::from(printed.starts_with("package ")), 1);
}
