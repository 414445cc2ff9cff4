//! How programs are linked: a part of build scripts, also of another package.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// The linker's argument that packs relocations.
const PACK: &str = "-Wl,-z,pack-relative-relocs";

/// Packs the relocations of these targets of the package (`bins`, `benches`), if the linker and the C library support that.
/// The command has 97,000 relocations. Unpacked, they are 2.3 MB of its file, which each start reads. With packed ones, a
/// program needs glibc 2.36.
pub(crate) fn pack_relocations(targets: &str) {
    if is_possible().unwrap_or(false) {
        println!("cargo::rustc-link-arg-{targets}={PACK}");
    }
}

/// Links a program with packed relocations, and runs it. Returns `None` if that cannot be tried.
fn is_possible() -> Option<bool> {
    let [target, host, rustc, out] = ["TARGET", "HOST", "RUSTC", "OUT_DIR"].map(env::var);
    if target.ok()? != host.ok()? || env::var("CARGO_CFG_TARGET_OS").ok()? != "linux" {
        return None;
    }
    let out = out.ok()?;
    let source = Path::new(&out).join("packed.rs");
    let program = source.with_extension("");
    fs::write(&source, "fn main() {}").ok()?;
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut build = Command::new(rustc.ok()?);
    build.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    build.args(env::var("RUSTC_LINKER").ok().map(|linker| format!("-Clinker={linker}")));
    build.arg(format!("-Clink-arg={PACK}")).arg("-o").arg(&program).arg(&source);
    // Captures the output: a linker that does not know the argument warns or fails, which the user need not see.
    let built = build.output().ok()?;
    Some(built.status.success() && Command::new(program).status().ok()?.success())
}
