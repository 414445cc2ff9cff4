//! Hostile guests, each written as the few instructions that are hostile about it.

use ktables_tests::{embed_world, ktables, succeed};
use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding};

/// The interface that a guest exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    Value,
    ValueBatch,
    Key,
    Group,
}

/// The instructions of a guest, as WebAssembly text. All others are those of a codec that returns its input. A value
/// or key is a *poison* if it contains `!`; the guest then runs `poison`, which may use the locals `$raw` and `$len`
/// (the input, of several items in the batch form), `$i`, `$n`, and the functions `$answer` and `$error`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    pub(crate) interface: Interface,
    /// The initial pages of its memory, 64 KiB each.
    pub(crate) pages: u32,
    /// Imports, data, tables, and other functions.
    pub(crate) more: &'static str,
    /// Runs when a poison is decoded or split, and returns the answer.
    pub(crate) poison: &'static str,
    /// Runs when anything is encoded or joined.
    pub(crate) encode: &'static str,
    /// Runs in `cabi_realloc`. `$requested` are the bytes; the result of an early return is an address.
    pub(crate) realloc: &'static str,
    /// Runs after each call. `$poisoned` is 1 after a poison.
    pub(crate) post_return: &'static str,
    pub(crate) start: &'static str,
    /// Runs at the start of `describe`.
    pub(crate) describe: &'static str,
    /// The length of the name, which lies at address 16.
    pub(crate) name_bytes: u32,
    pub(crate) configure: &'static str,
    /// The canonical ABI's string encoding.
    pub(crate) encoding: StringEncoding,
}

/// A codec of values that is not hostile.
pub(crate) const VALUE: Guest = Guest {
    interface: Interface::Value,
    pages: 2,
    more: "",
    poison: "",
    encode: "",
    realloc: "",
    post_return: "",
    start: "",
    describe: "",
    name_bytes: 4,
    configure: "",
    encoding: StringEncoding::UTF8,
};

/// A codec of values in the batch form that is not hostile.
pub(crate) const VALUE_BATCH: Guest = Guest { interface: Interface::ValueBatch, ..VALUE };

/// A codec of keys that is not hostile.
pub(crate) const KEY: Guest = Guest { interface: Interface::Key, ..VALUE };

/// A group scheme that is not hostile. The group of a key is the key, and so is the member.
pub(crate) const GROUP: Guest = Guest { interface: Interface::Group, ..VALUE };

/// The export and the parameters of the functions of an interface, and what they do with harmless input.
struct Functions {
    interface: &'static str,
    decode: (&'static str, &'static str, &'static str),
    encode: (&'static str, &'static str, &'static str),
}

/// Returns the result of `decode` with the input as answer.
const ECHO: &str = "(call $answer (local.get $raw) (local.get $len))";

/// Returns the result of a batch: the packed input, and no errors or headers.
const ECHO_BATCH: &str =
    "(call $answers (local.get $raw) (local.get $len) (local.get $ends) (local.get $count))";

const PACKED: &str = "(param $raw i32) (param $len i32) (param $ends i32) (param $count i32)";

impl Interface {
    fn functions(self) -> Functions {
        let one = "(param $raw i32) (param $len i32)";
        match self {
            Self::Value => Functions {
                interface: "value-codec",
                decode: ("decode", "(param $raw i32) (param $len i32) (param i32 i32)", ECHO),
                encode: ("encode", one, ECHO),
            },
            Self::ValueBatch => Functions {
                interface: "value-codec-batch",
                decode: (
                    "decode",
                    "(param $raw i32) (param $len i32) (param $ends i32) (param $count i32) (param i32 i32)",
                    ECHO_BATCH,
                ),
                encode: ("encode", PACKED, ECHO_BATCH),
            },
            Self::Key => Functions {
                interface: "key-codec",
                decode: ("decode", one, ECHO),
                encode: ("encode", one, ECHO),
            },
            Self::Group => Functions {
                interface: "group-scheme",
                decode: (
                    "split",
                    one,
                    "(call $pair (local.get $raw) (local.get $len) (local.get $raw) (local.get $len))",
                ),
                encode: (
                    "join",
                    "(param $raw i32) (param $len i32) (param $member i32) (param $member_len i32)",
                    ECHO,
                ),
            },
        }
    }
}

impl Guest {
    /// Returns the guest as a core module in text.
    fn text(&self) -> String {
        let Functions { interface, decode, encode } = self.interface.functions();
        let export = |(name, params, echo): (&str, &str, &str), first: &str| {
            format!(
                r#"(func (export "ktables:codec/{interface}@0.1.0#{name}") {params} (result i32)
                       (local $i i32) (local $n i32) {first} {echo})
                   (func (export "cabi_post_ktables:codec/{interface}@0.1.0#{name}") (param i32)
                       {} (global.set $poisoned (i32.const 0)) (global.set $free (i32.const 65536)))"#,
                self.post_return
            )
        };
        let poison = format!(
            "(if (call $is_poison (local.get $raw) (local.get $len))
                (then (global.set $poisoned (i32.const 1)) {}))",
            self.poison
        );
        let (decode, encode) = (export(decode, &poison), export(encode, self.encode));
        let Self { pages, more, realloc, start, describe, name_bytes, configure, .. } = self;
        format!(
            r#"(module {IMPORTS} {more} {LIBRARY}
                (memory (export "memory") {pages})
                (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $requested i32) (result i32)
                    (local $at i32) {realloc} (call $allocate (local.get $align) (local.get $requested)))
                {decode} {encode}
                (func $start {start}) (start $start)
                (func (export "ktables:codec/plugin@0.1.0#describe") (result i32) {describe}
                    (i32.store (i32.const 544) (i32.const 16)) (i32.store (i32.const 548) (i32.const {name_bytes}))
                    (i32.store (i32.const 552) (i32.const 16)) (i32.store (i32.const 556) (i32.const 1))
                    (i32.store (i32.const 560) (i32.const 0)) (i32.const 544))
                (func (export "ktables:codec/plugin@0.1.0#configure") (param i32 i32 i32 i32 i32) (result i32)
                    {configure} (i32.store (i32.const 512) (i32.const 0)) (i32.const 512)))"#
        )
    }

    /// Builds the guest into a component, as its author would.
    pub(crate) fn build(&self) -> Vec<u8> {
        let text = self.text();
        let core = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if self.encoding != StringEncoding::UTF8 {
            return self.encode_as_bindings_do(core);
        }
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("core.wasm"), core).unwrap();
        succeed(&mut ktables(&["codec", "build", &path("core.wasm"), "-o", &path("guest.wasm")]));
        std::fs::read(path("guest.wasm")).unwrap()
    }

    /// Builds a component whose texts have the guest's encoding, which only generated bindings can say.
    fn encode_as_bindings_do(&self, mut core: Vec<u8>) -> Vec<u8> {
        let interface = self.interface.functions().interface;
        let world: String = [interface, "plugin", "logging"]
            .map(|interface| format!("include ktables:codec/{interface}-guest@0.1.0; "))
            .concat();
        embed_world(&mut core, &world, self.encoding);
        let mut encoder = ComponentEncoder::default().module(&core).unwrap();
        encoder.encode().unwrap()
    }
}

/// The imports of every guest: what its hostile instructions may call.
const IMPORTS: &str = r#"
    (import "ktables:codec/logging@0.1.0" "log" (func $log (param i32 i32 i32)))"#;

/// The functions of every guest. Answers are built at 512, a name lies at 16, and the host's arguments are placed from
/// 65,536 on.
const LIBRARY: &str = r#"
    (global $free (mut i32) (i32.const 65536))
    (global $poisoned (mut i32) (i32.const 0))
    (data (i32.const 16) "evil")
    (func $allocate (param $align i32) (param $bytes i32) (result i32)
        (local $at i32)
        (local.set $at (i32.and
            (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
            (i32.sub (i32.const 0) (local.get $align))))
        (global.set $free (i32.add (local.get $at) (local.get $bytes)))
        (local.get $at))
    (func $is_poison (param $at i32) (param $bytes i32) (result i32)
        (loop $next
            (if (i32.eqz (local.get $bytes)) (then (return (i32.const 0))))
            (local.set $bytes (i32.sub (local.get $bytes) (i32.const 1)))
            (br_if $next
                (i32.ne (i32.load8_u (i32.add (local.get $at) (local.get $bytes))) (i32.const 33 (; ! ;)))))
        (i32.const 1))
    ;; An answer with a text, or with bytes and no headers.
    (func $answer (param $at i32) (param $bytes i32) (result i32)
        (i32.store (i32.const 512) (i32.const 0))
        (i32.store (i32.const 516) (local.get $at))
        (i32.store (i32.const 520) (local.get $bytes))
        (i64.store (i32.const 524) (i64.const 0))
        (i32.const 512))
    ;; The error `invalid` with a text.
    (func $error (param $at i32) (param $bytes i32) (result i32)
        (i32.store (i32.const 512) (i32.const 1))
        (i32.store (i32.const 516) (i32.const 1))
        (i32.store (i32.const 520) (local.get $at))
        (i32.store (i32.const 524) (local.get $bytes))
        (i32.const 512))
    ;; A group and a member.
    (func $pair (param i32 i32 i32 i32) (result i32)
        (i32.store (i32.const 512) (i32.const 1))
        (i32.store (i32.const 516) (local.get 0))
        (i32.store (i32.const 520) (local.get 1))
        (i32.store (i32.const 524) (local.get 2))
        (i32.store (i32.const 528) (local.get 3))
        (i32.const 512))
    ;; The answers of a batch.
    (func $answers (param i32 i32 i32 i32) (result i32)
        (i32.store (i32.const 512) (local.get 0))
        (i32.store (i32.const 516) (local.get 1))
        (i32.store (i32.const 520) (local.get 2))
        (i32.store (i32.const 524) (local.get 3))
        (i64.store (i32.const 528) (i64.const 0))
        (i64.store (i32.const 536) (i64.const 0))
        (i32.const 512))
    ;; Adds errors, 16 bytes each, to the answers of a batch.
    (func $with_errors (param i32 i32 i32) (result i32)
        (i32.store (i32.const 528) (local.get 1))
        (i32.store (i32.const 532) (local.get 2))
        (local.get 0))"#;
