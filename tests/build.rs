//! Links the benchmarks in the same way as the command: some of them measure the memory of a process.

#[path = "../command/link.rs"]
mod link;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    link::pack_relocations("benches");
}
