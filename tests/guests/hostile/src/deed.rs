//! What a value asks a guest to do, shared by the guests that do it.

/// What a value asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Come back as it is.
    Behave,
    /// An error, as the contract has it.
    Answer,
    /// An answer that is not UTF-8.
    Utf8,
    /// An answer that is not JSON.
    Json,
    /// An answer beyond any limit.
    Output,
    /// An item too many in the answer (batch form only).
    Items,
    /// A list whose ends are not its own (batch form only).
    Ends,
}

/// What a value asks for; does the deeds that have no answer.
///
/// # Panics
///
/// If it is asked to.
#[must_use]
pub fn deed(raw: &[u8]) -> Deed {
    match raw {
        b"poison:answer" => Deed::Answer,
        b"poison:utf8" => Deed::Utf8,
        b"poison:json" => Deed::Json,
        b"poison:output" => Deed::Output,
        b"poison:items" => Deed::Items,
        b"poison:ends" => Deed::Ends,
        b"poison:trap" => panic!("asked to panic"),
        b"poison:loop" => spin(),
        b"poison:memory" => hoard(),
        b"poison:stack" => sink(u64::MAX),
        _ => Deed::Behave,
    }
}

/// More than any output limit in the tests.
pub const TOO_MUCH: usize = 48 << 20;

fn spin() -> Deed {
    let mut count = 0_u64;
    while std::hint::black_box(count) != u64::MAX {
        count = std::hint::black_box(count.wrapping_add(2));
    }
    Deed::Behave
}

fn hoard() -> Deed {
    let mut hoard = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

fn sink(depth: u64) -> Deed {
    let frame = std::hint::black_box([depth; 64]);
    if frame[0] == 0 {
        return Deed::Behave;
    }
    let deed = sink(frame[63] - 1);
    std::hint::black_box(&frame);
    deed
}
