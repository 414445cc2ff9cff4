//! The bundled codecs: components that are part of the `ktables` command.

use std::sync::OnceLock;

/// The names of the bundled codecs in a configuration.
pub(crate) const BUNDLED: [&str; 3] = ["avro", "json-schema", "protobuf"];

/// A bundled codec.
#[derive(Debug, Clone, Copy)]
pub struct BundledCodec {
    /// Its name in a configuration.
    pub name: &'static str,
    /// The component.
    pub bytes: &'static [u8],
}

static CODECS: OnceLock<&[BundledCodec]> = OnceLock::new();

/// Registers the components that the names of bundled codecs stand for. To be called once, before a configuration is read:
/// later calls have no effect.
pub fn register_bundled_codecs(codecs: &'static [BundledCodec]) {
    // OK to ignore: a program has one list.
    let _ = CODECS.set(codecs);
}

/// Whether this is the name of a bundled codec.
pub(crate) fn is_bundled(name: &str) -> bool {
    BUNDLED.contains(&name)
}

/// Returns the component of a bundled codec.
pub(crate) fn bundled_component(name: &str) -> Result<&'static [u8], String> {
    let codecs = CODECS.get().copied().unwrap_or_default();
    let codec = codecs.iter().find(|codec| codec.name == name);
    codec.map(|codec| codec.bytes).ok_or_else(|| {
        format!("this program was built without the codec {name}: build it with `cargo xtask build`")
    })
}
