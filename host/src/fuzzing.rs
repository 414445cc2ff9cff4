//! The targets of the fuzzer: each passes bytes to a parser of untrusted input. None may panic, run out of
//! memory or take long. Not for other uses.

use std::path::Path;

use crate::codec::{PackedAnswers, RejectKind, contract_violation};
use crate::log::batch::{self, Frame};
use crate::packed::Packed;

/// Scans a component, and all code in it.
pub fn component(bytes: &[u8]) {
    // OK to ignore: the bytes may be valid or not.
    let _ = crate::wasm::inspect(bytes);
    let _ = crate::wasm::scan_code(bytes);
}

/// Builds a component from a core module, as the child process of `codec build` does after the same checks.
pub fn build(bytes: &[u8]) {
    // OK to ignore: the bytes may be valid or not.
    let _ = crate::authors::build_here(bytes);
}

/// Checks a packed list as a guest returns it, and reads each item.
pub fn answers(bytes: &[u8]) {
    let Some((&count, rest)) = bytes.split_first() else { return };
    let (ends, items) = rest.split_at(rest.len().min(usize::from(count) * 2));
    let ends = ends.chunks_exact(2).map(|end| u32::from(u16::from_le_bytes([end[0], end[1]])));
    let Ok(items) = Packed::from_parts(items.to_vec(), ends.collect()) else { return };
    let len = items.len();
    let mut answers = PackedAnswers::from_parts(items, Vec::new());
    answers.check_text(contract_violation(None));
    assert_eq!(answers.iter().count(), len);
    answers.check_json(contract_violation(None));
    for answer in answers.iter() {
        match answer {
            Ok(json) => assert!(std::str::from_utf8(json).is_ok()),
            Err(reason) => assert!(matches!(reason.kind, RejectKind::InvalidUtf8 | RejectKind::InvalidJson)),
        }
    }
}

/// Reads the bytes of a segment: a batch, even if its checksum is wrong, and the bytes after it.
pub fn batches(bytes: &[u8]) {
    let base = batch::base_offset(bytes).unwrap_or(0);
    for expected in [base, 0] {
        if let Frame::Whole { len, next } = batch::parse_frame(bytes, expected) {
            assert!(len <= bytes.len() && next > expected);
        }
        batch::contains_whole_batch(bytes, expected);
    }
    batch::end_of_records(bytes);
    if bytes.len() > 61 {
        let mut next = i64::MIN;
        for record in batch::records(bytes) {
            let Ok(record) = record else { break };
            assert!(record.offset >= next, "offsets descend");
            next = record.offset;
            record.headers();
        }
    }
}

/// Reads the manifest of a checkpoint.
pub fn manifest(bytes: &[u8]) {
    let path = Path::new("fuzzed");
    crate::checkpoint::parse_manifest(bytes, path);
    // With a correct checksum, so that the contents are parsed, too.
    if let Ok(text) = std::str::from_utf8(bytes) {
        let sealed = format!("{{\"crc32c\":{},\"checkpoint\":{text}}}", crc32c::crc32c(bytes));
        crate::checkpoint::parse_manifest(sealed.as_bytes(), path);
    }
}

/// Reads a configuration file.
pub fn configuration(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        // OK to ignore: a fuzzer only checks that it does not panic.
        let _ = crate::config::Config::parse(text, |name| match name {
            "SET" => Ok("${SET}".to_owned()),
            _ => Err("it is not set".to_owned()),
        });
    }
}

/// Reads references to artifacts.
pub fn reference(bytes: &[u8]) {
    crate::oci::fuzz::reference(bytes);
}

/// Reads manifests and indexes of artifacts.
pub fn artifact(bytes: &[u8]) {
    crate::oci::fuzz::artifact(bytes);
}

/// Reads signatures of artifacts.
pub fn signature(bytes: &[u8]) {
    crate::oci::fuzz::signature(bytes);
}

/// Reads files with the credentials of registries.
pub fn credentials(bytes: &[u8]) {
    crate::oci::fuzz::credentials(bytes);
}

/// Reads policies and lock files.
pub fn policy(bytes: &[u8]) {
    crate::oci::fuzz::policy(bytes);
}

/// Reads archives with layouts.
pub fn archive(bytes: &[u8]) {
    crate::oci::fuzz::archive(bytes);
}

/// A target: its name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 12] = [
    ("component", component),
    ("build", build),
    ("answers", answers),
    ("batches", batches),
    ("manifest", manifest),
    ("configuration", configuration),
    ("reference", reference),
    ("artifact", artifact),
    ("signature", signature),
    ("credentials", credentials),
    ("policy", policy),
    ("archive", archive),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    /// A mutation of a seed.
    #[derive(Debug, Clone)]
    enum Mutation {
        Set(Index, u8),
        Flip(Index, u8),
        Cut(Index, Index),
        Duplicate(Index, Index),
        Insert(Index, Vec<u8>),
    }

    impl Mutation {
        fn any() -> impl Strategy<Value = Self> {
            let index = any::<Index>;
            prop_oneof![
                (index(), any::<u8>()).prop_map(|(at, byte)| Self::Set(at, byte)),
                (index(), 0..8u8).prop_map(|(at, bit)| Self::Flip(at, bit)),
                (index(), index()).prop_map(|(from, to)| Self::Cut(from, to)),
                (index(), index()).prop_map(|(from, to)| Self::Duplicate(from, to)),
                (index(), prop::collection::vec(any::<u8>(), 1..9))
                    .prop_map(|(at, new)| Self::Insert(at, new)),
            ]
        }

        fn apply(&self, bytes: &mut Vec<u8>) {
            let range = |from: &Index, to: &Index| {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                from.min(to)..from.max(to) + 1
            };
            match self {
                _ if bytes.is_empty() => {}
                Self::Set(at, byte) => {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                Self::Flip(at, bit) => {
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                }
                Self::Cut(from, to) => drop(bytes.drain(range(from, to))),
                Self::Duplicate(from, to) => bytes.extend_from_within(range(from, to)),
                Self::Insert(at, new) => {
                    let at = at.index(bytes.len());
                    drop(bytes.splice(at..at, new.iter().copied()));
                }
            }
        }
    }

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn no_target_panics_on_mutated_seeds(
            seed in any::<Index>(),
            mutations in prop::collection::vec(Mutation::any(), 0..6),
        ) {
            for (name, target) in TARGETS {
                let seeds = seeds(name);
                let mut bytes = seed.get(&seeds).clone();
                mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
                target(&bytes);
            }
        }
    }
}
