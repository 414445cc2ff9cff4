//! Guests that share the memory budget, and guests that break the contract when they encode.

use ktables::codec::{CodecFailure, Codecs, RejectKind};
use ktables::wasm::{Engine, EngineOptions, LoadOptions};
use ktables_tests::{Scratch, TOPIC, cache_folder, engine, engine_options};

use crate::guest::{Guest, VALUE};
use crate::run::{TURN, assert_memory_is_bounded, limits, load};

/// Each instance needs 65 MB, and all together may use 600 MB.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_tables_with_large_guests_share_the_memory_budget() {
    let _turn = TURN.lock().await;
    let guest = Guest { pages: 1_000, ..VALUE };
    let options =
        EngineOptions { memory_budget: 600_000_000, cache: Some(cache_folder()), ..engine_options() };
    let engine = Engine::new(options).unwrap();
    let component =
        engine.load_bytes("large", guest.build(), LoadOptions { limits: limits(), ..LoadOptions::default() });
    let component = component.unwrap();
    let mut tables = Vec::new();
    for _ in 0..50 {
        let scratch = Scratch::new(1).await;
        scratch.put("k", Some(b"1")).await;
        let value = component.value_codec(TOPIC, "{}").unwrap();
        let table = scratch.table(Codecs { value, ..Codecs::default() }).await;
        tables.push((scratch, table));
    }
    for (scratch, table) in &tables {
        scratch.put("k", Some(b"2")).await;
        scratch.sync(table).await;
        assert_eq!(table.get("k").unwrap().json(), "2");
        assert!(table.rejects().is_empty());
    }
    assert_memory_is_bounded();
}

/// The headers of an encoded value: one whose name is not UTF-8, one whose name has 60 MB, and 100 million of them.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_break_the_contract_are_refused() {
    let _turn = TURN.lock().await;
    const NOT_UTF_8: &str = "(drop (call $answer (local.get $raw) (local.get $len)))
        (i32.store (i32.const 524) (i32.const 1024)) (i32.store (i32.const 528) (i32.const 1))
        (i32.store (i32.const 1024) (i32.const 2048)) (i32.store (i32.const 1028) (i32.const 1))
        (i32.store8 (i32.const 2048) (i32.const 255)) (return (i32.const 512))";
    const LONG: &str = "(drop (call $answer (local.get $raw) (local.get $len)))
        (i32.store (i32.const 524) (i32.const 1024)) (i32.store (i32.const 528) (i32.const 1))
        (i32.store (i32.const 1024) (i32.const 2048)) (i32.store (i32.const 1028) (i32.const 60000000))
        (return (i32.const 512))";
    const MANY: &str = "(drop (call $answer (local.get $raw) (local.get $len)))
        (i32.store (i32.const 524) (i32.const 1024)) (i32.store (i32.const 528) (i32.const 3000000))
        (return (i32.const 512))";
    for (encode, kind) in
        [(NOT_UTF_8, RejectKind::InvalidUtf8), (LONG, RejectKind::Output), (MANY, RejectKind::Output)]
    {
        let (_, codecs) = load(engine(), &Guest { pages: 1_000, encode, ..VALUE }).unwrap();
        let answer = codecs.value.encode_values(&["1"]);
        assert!(matches!(&answer, Err(CodecFailure::Fault(reason)) if reason.kind == kind), "{answer:?}");
    }
    assert_memory_is_bounded();
}
