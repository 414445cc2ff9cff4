//! Measures what the sandbox costs. The same codecs run natively, in a component's simple form (a call per
//! record) and in its packed form (a call per batch), through the trait that tables use.
//!
//! The host checks a component's answers (UTF-8, JSON), which is part of their cost. The native copy is not
//! checked.

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ktables::Packed;
use ktables::codec::{Answers, Codec, CodecFailure, Encoded, Json, PackedAnswers, ValueCodec};
use ktables::log::Header;
use ktables_tests::{TOPIC, component};

/// The number of records in a batch.
const BATCH: usize = 1000;

/// The sizes of records, in bytes.
const SIZES: [usize; 3] = [40, 100, 1000];

fn main() {
    divan::main();
}

/// Returns a batch of JSON objects of about this many bytes each.
fn batch(size: usize) -> Packed {
    let record = |n: usize| {
        let head = format!(r#"{{"id":{n},"name":"service-{n}","tags":["#);
        let tags = (0..).map(|tag| format!("{tag},")).scan(head.len() + 4, |len, tag| {
            *len += tag.len();
            (*len < size).then_some(tag)
        });
        format!("{head}{}0]}}", tags.collect::<String>())
    };
    (0..BATCH).map(record).collect()
}

/// A codec that copies its input.
#[derive(Debug)]
struct CopyCodec;

impl Codec for CopyCodec {}

impl ValueCodec for CopyCodec {
    fn decode_values<'a>(&self, raw: &'a Packed, _: &[&[Header]]) -> Result<PackedAnswers<'a>, CodecFailure> {
        Ok(raw.iter().map(Ok).collect())
    }

    fn encode_values(&self, _: &[&str]) -> Answers<Encoded> {
        Ok(Vec::new())
    }
}

fn decode(bencher: Bencher<'_, '_>, codec: Arc<dyn ValueCodec>, size: usize) {
    let batch = batch(size);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| codec.decode_values(black_box(&batch), &[]));
}

fn guest(name: &str, mode: &str) -> Arc<dyn ValueCodec> {
    component(name).value_codec(TOPIC, &format!(r#"{{"mode":"{mode}"}}"#)).expect("accepted")
}

#[divan::bench(args = SIZES)]
fn copy_native(bencher: Bencher<'_, '_>, size: usize) {
    decode(bencher, Arc::new(CopyCodec), size);
}

#[divan::bench(args = SIZES)]
fn copy_packed(bencher: Bencher<'_, '_>, size: usize) {
    decode(bencher, guest("mirror", "copy"), size);
}

#[divan::bench(args = SIZES)]
fn copy_simple(bencher: Bencher<'_, '_>, size: usize) {
    decode(bencher, guest("simple", "copy"), size);
}

#[divan::bench(args = SIZES)]
fn json_native(bencher: Bencher<'_, '_>, size: usize) {
    decode(bencher, Arc::new(Json), size);
}

#[divan::bench(args = SIZES)]
fn json_packed(bencher: Bencher<'_, '_>, size: usize) {
    decode(bencher, guest("mirror", "json"), size);
}

#[divan::bench(args = SIZES)]
fn json_simple(bencher: Bencher<'_, '_>, size: usize) {
    decode(bencher, guest("simple", "json"), size);
}
