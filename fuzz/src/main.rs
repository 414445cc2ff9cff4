//! Runs a fuzz target of the project under libFuzzer. `KTABLES_FUZZ_TARGET` names the target.

#![no_main]

use std::sync::LazyLock;

use ktables::fuzzing::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("KTABLES_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("KTABLES_FUZZ_TARGET={wanted}: there is no such fuzz target")).1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
