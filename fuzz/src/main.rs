//! One of the project's fuzz targets, which `KTABLES_FUZZ_TARGET` names, under libFuzzer.

#![no_main]

use std::sync::LazyLock;

use ktables::fuzzing::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("KTABLES_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("KTABLES_FUZZ_TARGET={wanted} is no target")).1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
