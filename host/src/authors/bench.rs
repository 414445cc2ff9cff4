//! Measures what a component costs, next to one that returns what it receives.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::authors::build::componentize;
use crate::codec::{CodecFailure, HostFailure};
use crate::log::Header;
use crate::packed::Packed;
use crate::wasm::{Answer, CodecKind, Component, DirectCodec, Request};

/// A codec that returns what it receives.
const NOOP: &str = include_str!("noop.wat");

/// How many records are sent in one call.
const BATCH: usize = 256;

/// How many bytes are sent in one call, at most, unless one record has more.
const BATCH_BYTES: usize = 128 << 10;

/// For how long each function is measured in a round.
const ROUND: Duration = Duration::from_millis(100);

/// How often each function is measured. Components are measured in turns.
const ROUNDS: usize = 7;

/// How many new instances are measured.
const STARTS: usize = 25;

/// What a component costs. Times are medians.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Cost {
    pub(crate) component: String,
    /// The length of the component.
    pub(crate) bytes: usize,
    /// The time to load it, without a cache.
    pub(crate) compile_ms: f64,
    /// The time until a new instance has answered for one record.
    pub(crate) first_record_us: f64,
    /// For decode or split.
    pub(crate) decode_ns_per_record: f64,
    pub(crate) decode_records_per_s: f64,
    /// For encode or join; missing if the codec does not encode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encode_ns_per_record: Option<f64>,
    /// The work of the guest for decoding a record, the same on every machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decode_fuel_per_record: Option<u64>,
    /// The memory of an instance after all calls.
    pub(crate) memory_bytes: usize,
}

/// A component to measure.
pub(crate) struct Measured {
    name: String,
    bytes: usize,
    compile: Duration,
    fuel: Option<u64>,
    codec: DirectCodec,
    kind: CodecKind,
    /// Requests of each direction that the codec accepts.
    decode: Vec<Request>,
    encode: Vec<Request>,
    first: Vec<f64>,
    decode_ns: Vec<f64>,
    encode_ns: Vec<f64>,
}

/// Returns the component that returns what it receives.
pub(crate) fn noop_component() -> Vec<u8> {
    // OK because it is constant, and a test builds it.
    let core = wat::parse_str(NOOP).expect("a valid module");
    componentize(&core).expect("a valid component").component
}

impl Measured {
    /// Prepares to measure a codec with these samples. Returns `None` if the codec accepts none of them.
    ///
    /// # Errors
    ///
    /// If the host fails.
    pub(crate) fn new(
        name: &str,
        bytes: usize,
        compile: Duration,
        codec: DirectCodec,
        kind: CodecKind,
        samples: &[Request],
    ) -> Result<Option<Self>, HostFailure> {
        let (mut decode, mut encode) = (Vec::new(), Vec::new());
        for sample in samples.iter().filter(|sample| matches!(sample.function(), "decode" | "split")) {
            if let Ok(answer) = codec.call(sample)? {
                decode.push(sample.clone());
                encode.extend(answer.reversed(kind));
            }
        }
        let mut accepted = Vec::new();
        for request in encode {
            if codec.call(&request)?.is_ok() {
                accepted.push(request);
            }
        }
        Ok((!decode.is_empty()).then(|| Self {
            name: name.to_owned(),
            bytes,
            compile,
            fuel: None,
            codec,
            kind,
            decode: fill(&decode),
            encode: fill(&accepted),
            first: Vec::new(),
            decode_ns: Vec::new(),
            encode_ns: Vec::new(),
        }))
    }

    /// Returns requests to a codec that returns what it receives, for the answers of this one.
    ///
    /// # Errors
    ///
    /// If the host fails.
    pub(crate) fn noop_samples(&self) -> Result<Vec<Request>, HostFailure> {
        let mut samples = Vec::new();
        for request in &self.decode {
            let text = match self.codec.call(request)? {
                Ok(Answer::Text(text)) if ktables_json::check(&text).is_ok() => text,
                // Any JSON of the same length.
                _ => format!("\"{}\"", "a".repeat(request.input_len())),
            };
            samples.push(Request::DecodeValue { raw: text.into_bytes(), headers: Vec::new() });
        }
        Ok(samples)
    }

    /// Measures the fuel for decoding a record with a component of an engine that counts fuel.
    pub(crate) fn measure_fuel(&mut self, component: &Component, config: &str) -> Result<(), HostFailure> {
        let raw = self.raw();
        if self.kind == CodecKind::Value {
            let fuel = component.decode_fuel(config, &raw);
            let fuel = fuel.map_err(|error| HostFailure::new(error.to_string()))?;
            self.fuel = Some(fuel / raw.len() as u64);
        }
        Ok(())
    }

    /// Returns the bytes to decode; none for a group scheme.
    fn raw(&self) -> Packed {
        let raw = self.decode.iter().filter_map(|request| match request {
            Request::DecodeValue { raw, .. } | Request::DecodeKey(raw) => Some(raw),
            _ => None,
        });
        raw.collect()
    }

    fn cost(&mut self) -> Cost {
        let decode = median(&mut self.decode_ns);
        Cost {
            component: self.name.clone(),
            bytes: self.bytes,
            compile_ms: round(self.compile.as_secs_f64() * 1e3),
            first_record_us: round(median(&mut self.first)),
            decode_ns_per_record: round(decode),
            decode_records_per_s: (1e9 / decode).round(),
            encode_ns_per_record: (!self.encode.is_empty()).then(|| round(median(&mut self.encode_ns))),
            decode_fuel_per_record: self.fuel,
            memory_bytes: self.codec.memory_used().unwrap_or_default(),
        }
    }

    /// Measures one round.
    fn measure(&mut self) -> Result<(), HostFailure> {
        let raw = self.raw();
        let headers: Vec<&[Header]> = match self.codec.wants_headers() {
            true => self.decode.iter().map(Request::headers).collect(),
            false => Vec::new(),
        };
        let decode = || match raw.is_empty() {
            true => self.codec.call_all(&self.decode).map(drop),
            false => self.codec.decode(self.kind, &raw, &headers),
        };
        self.decode_ns.push(time(self.decode.len(), decode)?);
        if !self.encode.is_empty() {
            let encode = || self.codec.call_all(&self.encode).map(drop);
            self.encode_ns.push(time(self.encode.len(), encode)?);
        }
        Ok(())
    }
}

/// Measures components in turns.
///
/// # Errors
///
/// If the host fails.
pub(crate) fn measure(components: &mut [Measured]) -> Result<Vec<Cost>, HostFailure> {
    for measured in &mut *components {
        for _ in 0..STARTS {
            measured.codec.restart();
            let started = Instant::now();
            drop(measured.codec.call(&measured.decode[0])?);
            measured.first.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    for _ in 0..ROUNDS {
        components.iter_mut().try_for_each(Measured::measure)?;
    }
    Ok(components.iter_mut().map(Measured::cost).collect())
}

/// Returns the nanoseconds for each record of a call, which is made again and again.
fn time(records: usize, call: impl Fn() -> Result<(), CodecFailure>) -> Result<f64, HostFailure> {
    let started = Instant::now();
    let mut calls = 0;
    while started.elapsed() < ROUND {
        call().map_err(|failure| match failure {
            CodecFailure::Host(failure) => failure,
            CodecFailure::Fault(fault) => HostFailure::new(format!("the component faulted: {fault}")),
        })?;
        calls += 1;
    }
    Ok(started.elapsed().as_secs_f64() * 1e9 / (calls * records) as f64)
}

/// Returns a batch of these requests, repeated.
fn fill(requests: &[Request]) -> Vec<Request> {
    let longest = requests.iter().map(Request::input_len).max().unwrap_or_default();
    let count = (BATCH_BYTES / longest.max(1)).clamp(1, BATCH);
    requests.iter().cycle().take(if requests.is_empty() { 0 } else { count }).cloned().collect()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Rounds to one decimal.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_without_work_is_accepted() {
        let inspection = crate::wasm::inspect(&noop_component());
        assert_eq!(inspection.refusals, Vec::<String>::new());
    }
}
