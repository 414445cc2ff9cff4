//! Links the benchmarks as the command is linked, because some measure how much memory a process takes.

#[path = "../command/link.rs"]
mod link;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    link::pack_relocations("benches");
}
