//! The exported interfaces of an instance, looked up once.

use wasmtime::Store;
use wasmtime::component::{Instance as WasmInstance, InstancePre};

use crate::wasm::bindings::v0_1::exports::ktables::codec as exports;
use crate::wasm::interfaces::Interface;
use crate::wasm::state::State;

/// The exported interfaces of an instance.
pub(super) struct Exports {
    pub(super) value: Option<exports::value_codec::Guest>,
    pub(super) value_batch: Option<exports::value_codec_batch::Guest>,
    pub(super) key: Option<exports::key_codec::Guest>,
    pub(super) key_batch: Option<exports::key_codec_batch::Guest>,
    pub(super) scheme: Option<exports::group_scheme::Guest>,
    pub(super) scheme_batch: Option<exports::group_scheme_batch::Guest>,
    pub(super) plugin: Option<exports::plugin::Guest>,
}

/// Looks up an interface, if the component exports it.
macro_rules! load {
    ($pre:ident $instance:ident $store:ident $interfaces:ident, $interface:ident $module:ident) => {
        if $interfaces.contains(&Interface::$interface) {
            let indices = exports::$module::GuestIndices::new($pre)?;
            Some(indices.load(&mut $store, &$instance)?)
        } else {
            None
        }
    };
}

impl Exports {
    /// Looks up the interfaces that the component exports.
    pub(super) fn load(
        pre: &InstancePre<State>,
        instance: WasmInstance,
        mut store: &mut Store<State>,
        interfaces: &[Interface],
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            value: load!(pre instance store interfaces, ValueCodec value_codec),
            value_batch: load!(pre instance store interfaces, ValueCodecBatch value_codec_batch),
            key: load!(pre instance store interfaces, KeyCodec key_codec),
            key_batch: load!(pre instance store interfaces, KeyCodecBatch key_codec_batch),
            scheme: load!(pre instance store interfaces, GroupScheme group_scheme),
            scheme_batch: load!(pre instance store interfaces, GroupSchemeBatch group_scheme_batch),
            plugin: load!(pre instance store interfaces, Plugin plugin),
        })
    }
}
