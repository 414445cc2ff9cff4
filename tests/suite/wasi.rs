//! Components whose runtime imports WASI: they run sealed, and what they print explains their faults.

use ktables::Packed;
use ktables::codec::{Codecs, RejectKind};
use ktables::wasm::{Component, Limits, LoadOptions};
use ktables_tests::{Scratch, TOPIC, contents, embed_world, engine, ktables, succeed};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding};

/// A codec that does what the first byte of a value says, and returns any other value unchanged. Its own data lies
/// from address 16 on, the answer at 512, and the host's arguments from 1024 on.
const GUEST: &str = r#"(module
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (memory (export "memory") 16)
    (data (i32.const 16) "ValueError: no such team\n")
    (data (i32.const 64) "1234567890")
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
        (i64.store (i32.const 512) (i64.const 0))
        (i32.store (i32.const 516) (local.get $bytes))
        (i32.store (i32.const 520) (local.get $len))
        (i64.store (i32.const 524) (i64.const 0))
        (i32.const 512))
    ;; Answers with the digit of a number from 0 to 9, whose digits lie at 64.
    (func $digit (param $number i32) (result i32)
        (call $answer
            (i32.add (i32.const 64) (i32.rem_u (i32.add (local.get $number) (i32.const 9)) (i32.const 10)))
            (i32.const 1)))
    (func $print (param $to i32)
        (i32.store (i32.const 256) (i32.const 16))
        (i32.store (i32.const 260) (i32.const 25))
        (drop (call $write (local.get $to) (i32.const 256) (i32.const 1) (i32.const 264))))
    (func (export "ktables:codec/value-codec@0.1.0#decode") (param $raw i32) (param $len i32) (param i32 i32)
        (result i32)
        (local $do i32)
        (local.set $do (i32.load8_u (local.get $raw)))
        ;; Prints to standard error, and traps.
        (if (i32.eq (local.get $do) (i32.const 116 (; t ;)))
            (then (call $print (i32.const 2)) (unreachable)))
        ;; Prints to standard output, and traps.
        (if (i32.eq (local.get $do) (i32.const 110 (; n ;)))
            (then (call $print (i32.const 1)) (unreachable)))
        ;; Prints to standard output for ever.
        (if (i32.eq (local.get $do) (i32.const 102 (; f ;)))
            (then (loop $again (call $print (i32.const 1)) (br $again))))
        ;; Exits.
        (if (i32.eq (local.get $do) (i32.const 120 (; x ;)))
            (then (call $exit (i32.const 1))))
        ;; Sleeps for an hour.
        (if (i32.eq (local.get $do) (i32.const 115 (; s ;)))
            (then
                (i32.store (i32.const 320) (i32.const 0))
                (i32.store8 (i32.const 328) (i32.const 0))
                (i32.store (i32.const 336) (i32.const 1))
                (i64.store (i32.const 344) (i64.const 3600000000000))
                (drop (call $poll (i32.const 320) (i32.const 384) (i32.const 1) (i32.const 420)))))
        ;; Whether a clock advances.
        (if (i32.eq (local.get $do) (i32.const 99 (; c ;)))
            (then
                (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 432)))
                (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 440)))
                (return (call $digit
                    (i64.gt_u (i64.load (i32.const 440)) (i64.load (i32.const 432)))))))
        ;; The number of environment variables.
        (if (i32.eq (local.get $do) (i32.const 101 (; e ;)))
            (then
                (drop (call $environ (i32.const 448) (i32.const 452)))
                (return (call $digit (i32.load (i32.const 448))))))
        ;; The error for the first folder: 8, a bad file descriptor.
        (if (i32.eq (local.get $do) (i32.const 111 (; o ;)))
            (then (return (call $digit (call $prestat (i32.const 3) (i32.const 456))))))
        ;; The bytes of standard input.
        (if (i32.eq (local.get $do) (i32.const 105 (; i ;)))
            (then
                (i32.store (i32.const 256) (i32.const 480))
                (i32.store (i32.const 260) (i32.const 8))
                (drop (call $read (i32.const 0) (i32.const 256) (i32.const 1) (i32.const 264)))
                (return (call $digit (i32.load (i32.const 264))))))
        ;; A random digit.
        (if (i32.eq (local.get $do) (i32.const 114 (; r ;)))
            (then
                (drop (call $random (i32.const 472) (i32.const 4)))
                (return (call $digit (i32.rem_u (i32.load (i32.const 472)) (i32.const 10))))))
        (call $answer (local.get $raw) (local.get $len)))
    (func (export "ktables:codec/value-codec@0.1.0#encode") (param i32 i32) (result i32)
        (call $answer (local.get 0) (local.get 1)))
    (func $reset (param i32) (global.set $free (i32.const 1024)))
    (export "cabi_post_ktables:codec/value-codec@0.1.0#decode" (func $reset))
    (export "cabi_post_ktables:codec/value-codec@0.1.0#encode" (func $reset)))"#;

/// Builds the guest with the adapter that implements preview 1 with WASI 0.2, as compilers for WASI do.
fn build_guest() -> Vec<u8> {
    let mut core = wat::parse_str(GUEST).unwrap();
    embed_world(&mut core, "include ktables:codec/value-codec-guest@0.1.0;", StringEncoding::UTF8);
    let encoder = ComponentEncoder::default().module(&core).unwrap();
    let adapter = (WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER);
    let mut encoder = encoder.adapter(adapter.0, adapter.1).unwrap();
    encoder.encode().unwrap()
}

fn load_guest() -> Component {
    let limits = Limits { deadline: std::time::Duration::from_secs(1), ..Limits::default() };
    engine().load_bytes("wasi", build_guest(), LoadOptions { limits, ..LoadOptions::default() }).unwrap()
}

#[tokio::test]
async fn a_component_that_imports_wasi_sees_nothing_of_the_host() {
    let component = load_guest();
    let codecs = || Codecs { value: component.value_codec(TOPIC, "{}").unwrap(), ..Codecs::default() };
    let scratch = Scratch::new(1).await;
    for (key, value) in
        [("advances", "c"), ("variables", "e"), ("folder", "o"), ("input", "i"), ("other", "7")]
    {
        scratch.put(key, Some(value.as_bytes())).await;
    }
    let table = scratch.table(codecs()).await;
    let expected = [("advances", "1"), ("variables", "0"), ("folder", "8"), ("input", "0"), ("other", "7")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(contents(&table), expected.into());
}

#[test]
fn each_instance_has_the_same_random_numbers() {
    let component = load_guest();
    let raw: Packed = vec![b"r"; 50].iter().collect();
    let decode = || {
        // A codec has instances of its own, and one call runs on one of them.
        let codec = component.value_codec(TOPIC, "{}").unwrap();
        let answers = codec.decode_values(&raw, &[]).unwrap();
        answers.iter().map(|answer| answer.unwrap().to_vec()).collect::<Vec<_>>()
    };
    let digits = decode();
    assert_eq!(digits, decode());
    assert!(digits.iter().any(|digit| *digit != digits[0]), "{digits:?}");
}

#[tokio::test]
async fn what_a_component_prints_explains_its_fault() {
    let component = load_guest();
    let codecs = Codecs { value: component.value_codec(TOPIC, "{}").unwrap(), ..Codecs::default() };
    let scratch = Scratch::new(1).await;
    let faults = [
        ("note", "n", RejectKind::Trap, "it printed: ValueError: no such team"),
        ("trap", "t", RejectKind::Trap, "ValueError: no such team"),
        ("exit", "x", RejectKind::Trap, "exited with status 1"),
        ("sleep", "s", RejectKind::Trap, "waited"),
        ("flood", "f", RejectKind::Deadline, "limits.deadline"),
    ];
    for (key, value, ..) in faults {
        scratch.put(key, Some(value.as_bytes())).await;
    }
    scratch.put("good", Some(b"1")).await;
    let table = scratch.table(codecs).await;
    let rejects = table.rejects();
    for (key, _, kind, message) in faults {
        let reject = rejects.iter().find(|reject| reject.key.as_deref() == Some(key)).unwrap();
        assert_eq!(reject.reason.kind, kind, "{reject:?}");
        assert!(reject.reason.message.contains(message), "{reject:?}");
    }
    assert_eq!(contents(&table), [("good".to_owned(), "1".to_owned())].into());
}

#[test]
fn inspect_reports_the_sandbox_and_why_each_import_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wasi.wasm");
    std::fs::write(&path, build_guest()).unwrap();
    let line = succeed(&mut ktables(&["codec", "inspect", path.to_str().unwrap()])).json().remove(0);
    assert_eq!((&line["accepted"], &line["sandbox"]), (&true.into(), &"sealed WASI".into()), "{line}");
    let imports = line["imports"].as_array().unwrap();
    let exit =
        imports.iter().find(|import| import["name"].as_str().unwrap().starts_with("wasi:cli/exit")).unwrap();
    assert_eq!(exit["allowed"], true);
    assert!(exit["reason"].as_str().unwrap().contains("sealed"), "{exit}");
}
