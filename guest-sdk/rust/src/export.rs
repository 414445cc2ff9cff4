//! The macro that exports a type as a component.

/// Exports a type as a component: `export!(MyCodec: ValueCodec)`.
///
/// The list contains the traits that the type implements, separated by commas:
/// [`ValueCodec`](crate::ValueCodec), [`KeyCodec`](crate::KeyCodec), [`GroupScheme`](crate::GroupScheme). A
/// type that takes a configuration lists [`Plugin`](crate::Plugin) first:
/// `export!(MyCodec: Plugin, ValueCodec, KeyCodec)`. Other types need [`Default`].
///
/// A crate may use the macro only once, and needs `crate-type = ["cdylib"]`. Add `"rlib"` for tests outside
/// of the crate. Outside WebAssembly, the macro only checks that the type implements the traits.
#[macro_export]
macro_rules! export {
    ($codec:ident: Plugin $(, $interface:ident)* $(,)?) => {
        $crate::__export_all!(
            $codec, panic!("the host called the codec before `configure`"), Plugin $($interface)*
        );
    };
    ($codec:ident: $($interface:ident),+ $(,)?) => {
        $crate::__export_all!($codec, ::core::default::Default::default(), $($interface)+);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_all {
    ($codec:ident, $unconfigured:expr, $($interface:ident)+) => {
        const _: () = {
            static CELL: $crate::__private::CodecCell<$codec> = $crate::__private::CodecCell::new();
            impl $crate::__private::ExportedCodec for $codec {
                fn cell() -> &'static $crate::__private::CodecCell<Self> {
                    &CELL
                }
                fn create_unconfigured() -> Self {
                    $unconfigured
                }
            }
            $($crate::__export_interface!($codec $interface);)+
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_interface {
    ($codec:ident ValueCodec) => {
        $crate::__export_adapter!($codec ValueAdapter value export_value);
    };
    ($codec:ident KeyCodec) => {
        $crate::__export_adapter!($codec KeyAdapter key export_key);
    };
    ($codec:ident GroupScheme) => {
        $crate::__export_adapter!($codec SchemeAdapter group export_group);
    };
    ($codec:ident Plugin) => {
        $crate::__export_adapter!($codec PluginAdapter plugin export_plugin);
    };
    ($codec:ident $other:ident) => {
        ::core::compile_error!(concat!(
            "`", stringify!($other),
            "` cannot be exported: expected Plugin (first), ValueCodec, KeyCodec or GroupScheme"
        ));
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_adapter {
    ($codec:ident $adapter:ident $module:ident $export:ident) => {
        const _: () = {
            type Adapter = $crate::__private::$adapter<$codec>;
            #[cfg(target_family = "wasm")]
    $crate::__private::$module::$export!(Adapter with_types_in $crate::__private::$module);
            #[cfg(not(target_family = "wasm"))]
            const _: () = Adapter::IMPLEMENTED;
        };
    };
}
