//! The answers and faults that a value can request. Several test guests share this file.

/// The answer that a value requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The value itself.
    Unchanged,
    /// An error, as the contract allows.
    Error,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// Text that is not JSON.
    InvalidJson,
    /// Text that exceeds any output limit.
    TooLarge,
    /// An additional item (batch form only).
    ExtraItem,
    /// An item that ends outside of the packed bytes (batch form only).
    InvalidEnds,
}

/// Returns the answer that a value requests. Does not return if the value requests a fault without an answer.
///
/// # Panics
///
/// If the value requests a panic.
#[must_use]
pub fn choose_answer(raw: &[u8]) -> Answer {
    match raw {
        b"poison:answer" => Answer::Error,
        b"poison:utf8" => Answer::InvalidUtf8,
        b"poison:json" => Answer::InvalidJson,
        b"poison:output" => Answer::TooLarge,
        b"poison:items" => Answer::ExtraItem,
        b"poison:ends" => Answer::InvalidEnds,
        b"poison:trap" => panic!("the value requests a panic"),
        b"poison:loop" => loop_forever(),
        b"poison:memory" => exhaust_memory(),
        b"poison:stack" => overflow_stack(u64::MAX),
        _ => Answer::Unchanged,
    }
}

/// The length of an answer that exceeds any output limit in the tests.
pub const TOO_LARGE_BYTES: usize = 48 << 20;

fn loop_forever() -> Answer {
    let mut count = 0_u64;
    while std::hint::black_box(count) != u64::MAX {
        // An even number never becomes `u64::MAX`.
        count = std::hint::black_box(count.wrapping_add(2));
    }
    Answer::Unchanged
}

fn exhaust_memory() -> Answer {
    let mut blocks = Vec::new();
    loop {
        blocks.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

fn overflow_stack(depth: u64) -> Answer {
    let frame = std::hint::black_box([depth; 64]);
    if frame[0] == 0 {
        return Answer::Unchanged;
    }
    let answer = overflow_stack(frame[63] - 1);
    std::hint::black_box(&frame);
    answer
}
