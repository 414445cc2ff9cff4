//! The generated bindings to the WIT package, one module for each version of the package. Only
//! [`crate::wasm`] uses them.

/// `ktables:codec@0.1`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub(super) mod v0_1 {
    wasmtime::component::bindgen!({
        inline: "
            package ktables:host;

            /// Everything that a component may import or export.
            world host {
                include ktables:codec/logging-guest@0.1.0;
                include ktables:codec/schemas-guest@0.1.0;
                include ktables:codec/value-codec-guest@0.1.0;
                include ktables:codec/value-codec-batch-guest@0.1.0;
                include ktables:codec/key-codec-guest@0.1.0;
                include ktables:codec/key-codec-batch-guest@0.1.0;
                include ktables:codec/group-scheme-guest@0.1.0;
                include ktables:codec/group-scheme-batch-guest@0.1.0;
                include ktables:codec/plugin-guest@0.1.0;
            }
        ",
        path: "wit/0.1",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}
