//! Embeds the bundled codecs. `cargo xtask build` writes them into `codecs/`: a plain `cargo build` embeds what that has last
//! written, and without it nothing, which the command says. Also has the command's relocations packed.

mod link;

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

/// The names of the codecs in a configuration.
const NAMES: [&str; 3] = ["avro", "json-schema", "protobuf"];

fn main() {
    link::pack_relocations("bins");
    // OK because cargo sets both variables.
    let folder = env::var("CARGO_MANIFEST_DIR").expect("the folder of this package");
    let out = env::var("OUT_DIR").expect("the folder of what is generated");
    let folder = Path::new(&folder).join("codecs");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut list = String::from("&[\n");
    for name in NAMES {
        let path = folder.join(name).with_extension("wasm");
        if path.exists() {
            // OK because writing to a string does not fail.
            writeln!(list, "BundledCodec {{ name: {name:?}, bytes: include_bytes!({path:?}) }},")
                .expect("a string");
        }
    }
    list.push(']');
    // OK because cargo has created the folder.
    fs::write(Path::new(&out).join("codecs.rs"), list).expect("the generated file is written");
}
