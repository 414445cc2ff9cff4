//! Hostile guests: whatever a component does, its host answers in words, keeps its memory and its other records, and
//! survives.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod budget_and_headers;
mod files;
mod guest;
mod run;

use ktables::codec::RejectKind;
use wit_component::StringEncoding;

use files::{aliases, component, custom_section, module, nested, parse, types_of_a_module};
use guest::{GROUP, Guest, KEY, VALUE, VALUE_BATCH};
use run::Expected::{AllRejected, Applied, Foreign, Refused, Rejected};
use run::run;

/// The allocator of the `ktables` command, which returns memory to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Defines a test for each guest, so that no guest lacks one.
macro_rules! hostile {
    ($($name:ident: $guest:expr => $expected:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                run(&$guest, $expected).await;
            }
        )*

        /// How many hostile guests there are.
        const GUESTS: usize = [$(stringify!($name)),*].len();
    };
}

const _: () = assert!(GUESTS >= 40, "a host is tried with at least 40 hostile guests");

const LOOP: &str = "(loop $again (br $again))";

/// Writes a text of 100 KB to the log, for ever.
const FLOOD: &str = "(loop $again (call $log (i32.const 4) (i32.const 0) (i32.const 100000)) (br $again))";

/// Runs if the host passes the poison, which has three bytes as a value.
const REALLOC_OF_POISON: &str = "(if (i32.eq (local.get $requested) (i32.const 3)) (then (loop $a (br $a))))";

/// Clears the arguments, so that the byte after an argument of one byte is 0, as in UTF-16.
const CLEAR: &str = "(memory.fill (i32.const 65536) (i32.const 0) (i32.const 1024))";

/// A text that would clear a terminal and forge a line of a log. The address of its 13 bytes is 128.
const CONTROL: &str = r#"(data (i32.const 128) "\1b[2J\0d\0aFORGED")"#;

hostile! {
    // Faults in a call.
    a_loop_in_decode: Guest { poison: LOOP, ..VALUE } => Rejected(RejectKind::Deadline, "limits.deadline");
    a_loop_in_a_batch: Guest { poison: LOOP, ..VALUE_BATCH } => Rejected(RejectKind::Deadline, "limits.deadline");
    a_loop_in_a_key_codec: Guest { poison: LOOP, ..KEY } => Rejected(RejectKind::Deadline, "limits.deadline");
    a_loop_in_a_group_scheme: Guest { poison: LOOP, ..GROUP } => Rejected(RejectKind::Deadline, "limits.deadline");
    a_loop_in_realloc: Guest { realloc: REALLOC_OF_POISON, ..VALUE }
        => Rejected(RejectKind::Deadline, "limits.deadline");
    a_loop_in_post_return: Guest {
        post_return: "(if (global.get $poisoned) (then (loop $again (br $again))))", ..VALUE
    } => Rejected(RejectKind::Deadline, "limits.deadline");
    unreachable_code: Guest { poison: "unreachable", ..VALUE } => Rejected(RejectKind::Trap, "unreachable");
    unreachable_code_in_post_return: Guest {
        post_return: "(if (global.get $poisoned) (then unreachable))", ..VALUE
    } => Rejected(RejectKind::Trap, "unreachable");
    a_division_by_zero: Guest {
        poison: "(drop (i32.div_u (i32.const 1) (local.get $i)))", ..VALUE
    } => Rejected(RejectKind::Trap, "divide by zero");
    an_access_outside_of_the_memory: Guest {
        poison: "(drop (i32.load (i32.const -8)))", ..VALUE
    } => Rejected(RejectKind::Trap, "out of bounds memory access");
    a_call_through_an_empty_table: Guest {
        more: "(table 1 funcref)", poison: "(call_indirect (i32.const 0))", ..VALUE
    } => Rejected(RejectKind::Trap, "uninitialized element");
    a_deep_recursion: Guest {
        more: "(func $deep (call $deep))", poison: "(call $deep)", ..VALUE
    } => Rejected(RejectKind::Trap, "call stack exhausted");
    a_deep_recursion_in_realloc: Guest {
        more: "(func $deep (call $deep))",
        realloc: "(if (i32.eq (local.get $requested) (i32.const 3)) (then (call $deep)))",
        ..VALUE
    } => Rejected(RejectKind::Trap, "call stack exhausted");

    // Memory and time.
    memory_in_small_steps: Guest {
        poison: "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
        ..VALUE
    } => Rejected(RejectKind::Memory, "limits.memory");
    memory_at_once: Guest {
        poison: "(drop (memory.grow (i32.const 65000))) unreachable", ..VALUE
    } => Rejected(RejectKind::Memory, "limits.memory");
    a_loop_after_memory_was_refused: Guest {
        poison: "(drop (memory.grow (i32.const 65000))) (loop $again (br $again))", ..VALUE
    } => Rejected(RejectKind::Deadline, "limits.deadline");
    a_division_by_zero_after_memory_was_refused: Guest {
        poison: "(drop (memory.grow (i32.const 65000))) (drop (i32.div_u (i32.const 1) (local.get $i)))", ..VALUE
    } => Rejected(RejectKind::Trap, "divide by zero");
    text_that_is_not_utf_8_after_memory_was_refused: Guest {
        poison: "(drop (memory.grow (i32.const 65000))) (i32.store8 (local.get $raw) (i32.const 255))", ..VALUE
    } => Rejected(RejectKind::InvalidUtf8, "UTF-8");
    memory_at_the_start: Guest { pages: 10_000, ..VALUE } => Refused("limits.memory");
    a_table_that_grows: Guest {
        more: "(table $t 1 funcref)",
        poison: "(loop $more (br_if $more
            (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable",
        ..VALUE
    } => Rejected(RejectKind::Memory, "at most 100000 are allowed");
    a_table_that_is_filled: Guest {
        more: "(table $t 100000 funcref)",
        poison: "(loop $again (table.fill $t (i32.const 0) (ref.null func) (i32.const 100000)) (br $again))",
        ..VALUE
    } => Rejected(RejectKind::Deadline, "limits.deadline");
    memory_that_is_filled: Guest {
        pages: 3_000,
        poison: "(loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 190000000)) (br $again))",
        ..VALUE
    } => Rejected(RejectKind::Deadline, "limits.deadline");
    memory_that_is_copied: Guest {
        pages: 3_000,
        poison: "(loop $again
            (memory.copy (i32.const 0) (i32.const 90000000) (i32.const 90000000)) (br $again))",
        ..VALUE
    } => Rejected(RejectKind::Deadline, "limits.deadline");

    // Answers.
    a_huge_answer: Guest {
        pages: 1_000, poison: "(return (call $answer (i32.const 0) (i32.const 60000000)))", ..VALUE
    } => Rejected(RejectKind::Output, "limits.output");
    an_answer_above_the_limit: Guest {
        pages: 1_000,
        poison: "(memory.fill (i32.const 131072) (i32.const 49) (i32.const 9000000))
            (return (call $answer (i32.const 131072) (i32.const 9000000)))",
        ..VALUE
    } => Rejected(RejectKind::Output, "limits.output");
    a_huge_batch: Guest {
        pages: 1_000,
        poison: "(i32.store (i32.const 1024) (i32.const 60000000))
            (return (call $answers (i32.const 0) (i32.const 60000000) (i32.const 1024) (i32.const 1)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Output, "limits.output");
    a_huge_key: Guest {
        pages: 1_000,
        poison: "(memory.fill (i32.const 131072) (i32.const 97) (i32.const 2000000))
            (return (call $answer (i32.const 131072) (i32.const 2000000)))",
        ..KEY
    } => Rejected(RejectKind::Output, "at most 1048576 are allowed");
    an_answer_outside_of_the_memory: Guest {
        poison: "(return (call $answer (i32.const 100000) (i32.const 100000)))", ..VALUE
    } => Rejected(RejectKind::Contract, "out of bounds");
    an_answer_at_an_unaligned_address: Guest {
        poison: "(drop (call $answer (local.get $raw) (local.get $len))) (return (i32.const 513))", ..VALUE
    } => Rejected(RejectKind::Contract, "align");
    an_answer_of_no_kind: Guest {
        poison: "(i32.store (i32.const 512) (i32.const 7)) (return (i32.const 512))", ..VALUE
    } => Rejected(RejectKind::Contract, "discriminant");
    too_many_items: Guest {
        poison: "(i64.store (i32.const 1024) (i64.const 0))
            (return (call $answers (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 2)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Contract, "items");
    too_few_items: Guest {
        poison: "(return (call $answers (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 0)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Contract, "items");
    ends_that_decrease: Guest {
        poison: "(i32.store (i32.const 1024) (i32.const 9)) (i32.store (i32.const 1028) (i32.const 3))
            (return (call $answers (i32.const 0) (i32.const 3) (i32.const 1024) (i32.const 2)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Contract, "malformed packed list");
    ends_beyond_the_bytes: Guest {
        poison: "(i32.store (i32.const 1024) (i32.const -1))
            (return (call $answers (i32.const 0) (i32.const 3) (i32.const 1024) (i32.const 1)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Contract, "malformed packed list");
    bytes_behind_the_last_end: Guest {
        poison: "(i32.store (i32.const 1024) (i32.const 1))
            (return (call $answers (i32.const 0) (i32.const 3) (i32.const 1024) (i32.const 1)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Contract, "malformed packed list");
    two_to_the_28_ends: Guest {
        poison: "(return (call $answers (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 268435456)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Contract, "out of bounds");
    so_many_ends_that_their_size_overflows: Guest {
        poison: "(return (call $answers (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 1073741825)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Contract, "out of bounds of memory");
    errors_that_are_unsorted: Guest {
        poison: "(i32.store (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1040) (i32.const 0))
            (return (call $with_errors
                (call $answers (local.get $raw) (local.get $len) (local.get $ends) (local.get $count))
                (i32.const 1024) (i32.const 2)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Contract, "do not ascend");
    errors_for_the_same_item: Guest {
        poison: "(return (call $with_errors
                (call $answers (local.get $raw) (local.get $len) (local.get $ends) (local.get $count))
                (i32.const 1024) (i32.const 2)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Contract, "do not ascend");
    an_error_for_no_item: Guest {
        poison: "(i32.store (i32.const 1024) (i32.const 70000))
            (return (call $with_errors
                (call $answers (local.get $raw) (local.get $len) (local.get $ends) (local.get $count))
                (i32.const 1024) (i32.const 1)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Contract, "do not ascend");
    millions_of_errors: Guest {
        pages: 1_000,
        poison: "(return (call $with_errors
                (call $answers (local.get $raw) (local.get $len) (local.get $ends) (local.get $count))
                (i32.const 1024) (i32.const 4000000)))",
        ..VALUE_BATCH
    } => Rejected(RejectKind::Output, "limits.output");
    answers_that_change_with_each_call: Guest {
        more: "(global $calls (mut i32) (i32.const 48))",
        poison: "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (i32.store8 (local.get $raw) (global.get $calls))
            (return (call $answer (local.get $raw) (i32.const 1)))",
        ..VALUE
    } => Applied;
    keys_that_do_not_encode_to_their_bytes: Guest {
        encode: "(if (call $is_poison (local.get $raw) (local.get $len))
            (then (i32.store8 (local.get $raw) (i32.const 63))))",
        ..KEY
    } => Rejected(RejectKind::NonCanonicalKey, "encodes to other bytes");
    keys_that_do_not_join: Guest {
        encode: "(if (call $is_poison (local.get $raw) (local.get $len))
            (then (i32.store8 (local.get $raw) (i32.const 63))))",
        ..GROUP
    } => Foreign;

    // Addresses for the arguments.
    realloc_outside_of_the_memory: Guest {
        realloc: "(if (i32.eq (local.get $requested) (i32.const 3)) (then (return (i32.const -16))))", ..VALUE
    } => Rejected(RejectKind::Contract, "realloc return");
    realloc_outside_of_the_memory_for_the_configuration: Guest { realloc: "(return (i32.const -16))", ..VALUE }
        => Refused("realloc return");
    realloc_at_an_unaligned_address: Guest { realloc: "(return (i32.const 65537))", ..VALUE_BATCH }
        => AllRejected(RejectKind::Contract, "result not aligned");
    realloc_at_overlapping_addresses: Guest { realloc: "(return (i32.const 65536))", ..VALUE_BATCH }
        => AllRejected(RejectKind::InvalidJson, "expected a value");
    realloc_that_traps: Guest {
        realloc: "(if (i32.eq (local.get $requested) (i32.const 3)) (then unreachable))", ..VALUE
    } => Rejected(RejectKind::Trap, "unreachable");

    // Texts.
    a_value_that_is_not_utf_8: Guest {
        poison: r#"(i32.store8 (local.get $raw) (i32.const 255))"#, ..VALUE
    } => Rejected(RejectKind::InvalidUtf8, "UTF-8");
    a_value_in_a_batch_that_is_not_utf_8: Guest {
        poison: r#"(i32.store8 (local.get $raw) (i32.const 255))"#, ..VALUE_BATCH
    } => Rejected(RejectKind::InvalidUtf8, "UTF-8");
    a_key_that_is_not_utf_8: Guest { poison: "(i32.store8 (local.get $raw) (i32.const 255))", ..KEY }
        => Rejected(RejectKind::InvalidUtf8, "UTF-8");
    a_group_that_is_not_utf_8: Guest { poison: "(i32.store8 (local.get $raw) (i32.const 255))", ..GROUP }
        => Rejected(RejectKind::InvalidUtf8, "UTF-8");
    a_message_that_is_not_utf_8: Guest {
        more: r#"(data (i32.const 128) "\ff\fe")"#,
        poison: "(return (call $error (i32.const 128) (i32.const 2)))",
        ..VALUE
    } => Rejected(RejectKind::InvalidUtf8, "UTF-8");
    a_key_with_a_zero: Guest {
        poison: "(i32.store8 (local.get $raw) (i32.const 0))",
        encode: "(if (i32.eqz (i32.load8_u (local.get $raw)))
            (then (i32.store8 (local.get $raw) (i32.const 33))))",
        ..KEY
    } => Applied;
    a_value_whose_name_is_a_zero: Guest {
        more: r#"(data (i32.const 128) "{\22\\u0000\22:1}")"#,
        poison: "(return (call $answer (i32.const 128) (i32.const 12)))",
        ..VALUE
    } => Applied;
    utf_16: Guest {
        encoding: StringEncoding::UTF16,
        more: r#"(data (i32.const 128) "[\00]\00")"#,
        poison: "(return (call $answer (i32.const 128) (i32.const 2)))",
        post_return: CLEAR,
        ..VALUE
    } => Applied;
    utf_16_that_ends_in_half_a_pair: Guest {
        encoding: StringEncoding::UTF16,
        more: r#"(data (i32.const 128) "\00\d8")"#,
        poison: "(return (call $answer (i32.const 128) (i32.const 1)))",
        post_return: CLEAR,
        ..VALUE
    } => Rejected(RejectKind::Contract, "unpaired surrogate");
    latin_1: Guest { encoding: StringEncoding::CompactUTF16, ..VALUE } => Applied;
    latin_1_that_says_it_is_utf_16: Guest {
        encoding: StringEncoding::CompactUTF16,
        more: r#"(data (i32.const 128) "[\00]\00")"#,
        poison: "(return (call $answer (i32.const 128) (i32.const 0x80000002)))",
        ..VALUE
    } => Applied;
    a_value_that_is_not_json: Guest { poison: "(i32.store8 (local.get $raw) (i32.const 123))", ..VALUE }
        => Rejected(RejectKind::InvalidJson, "not JSON");
    a_value_of_127_levels: Guest {
        poison: "(memory.fill (i32.const 1024) (i32.const 91) (i32.const 127))
            (memory.fill (i32.const 1151) (i32.const 93) (i32.const 127))
            (return (call $answer (i32.const 1024) (i32.const 254)))",
        ..VALUE
    } => Applied;
    a_value_of_thousands_of_levels: Guest {
        poison: "(memory.fill (i32.const 1024) (i32.const 91) (i32.const 20000))
            (memory.fill (i32.const 21024) (i32.const 93) (i32.const 20000))
            (return (call $answer (i32.const 1024) (i32.const 40000)))",
        ..VALUE
    } => Rejected(RejectKind::InvalidJson, "levels");
    eight_megabytes_of_digits: Guest {
        pages: 200,
        poison: "(memory.fill (i32.const 1024) (i32.const 49) (i32.const 8388608))
            (return (call $answer (i32.const 1024) (i32.const 8388608)))",
        ..VALUE
    } => Applied;
    a_message_of_10_megabytes: Guest {
        pages: 200,
        poison: "(memory.fill (i32.const 1024) (i32.const 97) (i32.const 10000000))
            (return (call $error (i32.const 1024) (i32.const 10000000)))",
        ..VALUE
    } => Rejected(RejectKind::Invalid, "aaaa");
    a_message_that_clears_the_terminal: Guest {
        more: CONTROL, poison: "(return (call $error (i32.const 128) (i32.const 12)))", ..VALUE
    } => Rejected(RejectKind::Invalid, "FORGED");
    output_that_clears_the_terminal: Guest {
        more: CONTROL,
        poison: "(call $log (i32.const 4) (i32.const 128) (i32.const 12)) unreachable",
        ..VALUE
    } => Rejected(RejectKind::Trap, "FORGED");
    a_name_that_clears_the_terminal: Guest { more: r#"(data (i32.const 16) "\1b\0d\0aF")"#, ..VALUE } => Applied;

    // The log.
    a_log_flood_in_decode: Guest { poison: FLOOD, pages: 200, ..VALUE }
        => Rejected(RejectKind::Deadline, "limits.deadline");
    a_log_flood_in_realloc: Guest {
        realloc: "(if (i32.eq (local.get $requested) (i32.const 3))
            (then (call $log (i32.const 4) (i32.const 16) (i32.const 4))))",
        ..VALUE
    } => Rejected(RejectKind::Trap, "cabi_realloc");
    a_log_flood_in_post_return: Guest {
        post_return: "(if (global.get $poisoned)
            (then (call $log (i32.const 4) (i32.const 16) (i32.const 4))))",
        ..VALUE
    } => Rejected(RejectKind::Trap, "cabi_post");
    a_log_flood_at_the_start: component(&format!(
        r#"(import "ktables:codec/logging@0.1.0" (instance $logging
               (type $cases (enum "trace" "debug" "info" "warn" "error"))
               (export "level" (type $level (eq $cases)))
               (export "log" (func (param "level" $level) (param "message" string)))))
           (core module $memory (memory (export "memory") 2))
           (core instance $memory (instantiate $memory))
           (core func $log (canon lower (func $logging "log") (memory (core memory $memory "memory"))))
           (core module $main
               (import "host" "log" (func $log (param i32 i32 i32)))
               (func $start {FLOOD})
               (start $start))
           (core instance (instantiate $main (with "host" (instance (export "log" (func $log))))))"#
    )) => Refused("limits.start_deadline");
    // A component that was built from one module links its imports after the start.
    a_call_to_the_log_at_the_start: Guest { start: FLOOD, pages: 200, ..VALUE } => Refused("uninitialized element");
    a_log_message_that_is_not_utf_8: Guest {
        more: r#"(data (i32.const 128) "\ff\fe")"#,
        poison: "(call $log (i32.const 4) (i32.const 128) (i32.const 2))",
        ..VALUE
    } => Rejected(RejectKind::Trap, "called an import wrongly: invalid utf-8");
    a_log_message_of_no_level: Guest {
        poison: "(call $log (i32.const 99) (i32.const 16) (i32.const 4))", ..VALUE
    } => Rejected(RejectKind::Trap, "unexpected discriminant");

    // Before the first record.
    a_loop_at_the_start: Guest { start: LOOP, ..VALUE } => Refused("limits.start_deadline");
    a_loop_in_describe: Guest { describe: LOOP, ..VALUE } => Refused("limits.start_deadline");
    a_loop_in_configure: Guest { configure: LOOP, ..VALUE } => Refused("limits.start_deadline");
    unreachable_code_at_the_start: Guest { start: "unreachable", ..VALUE } => Refused("unreachable");
    a_deep_recursion_at_the_start: Guest {
        more: "(func $deep (call $deep))", start: "(call $deep)", ..VALUE
    } => Refused("call stack exhausted");
    memory_in_describe: Guest {
        describe: "(drop (memory.grow (i32.const 65000))) unreachable", ..VALUE
    } => Refused("limits.memory");
    a_name_of_100_megabytes: Guest { pages: 1_600, name_bytes: 100_000_000, ..VALUE } => Refused("limits.output");
    a_name_outside_of_the_memory: Guest { name_bytes: 100_000_000, ..VALUE } => Refused("out of bounds");

    // What only WASI could do.
    sleep: Guest {
        more: r#"(import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))"#,
        // For an hour. It traps if it has slept.
        poison: "(i32.store (i32.const 1040) (i32.const 1)) (i64.store (i32.const 1048) (i64.const 3600000000000))
            (if (i32.eqz (call $poll (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 4096)))
                (then unreachable))",
        ..VALUE
    } => Applied;
    an_exit: Guest {
        more: r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#,
        poison: "(call $exit (i32.const 0))",
        ..VALUE
    } => Rejected(RejectKind::Trap, "exit");
    a_file: Guest {
        more: r#"(import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (data (i32.const 128) "/etc/passwd")"#,
        poison: "(if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 128) (i32.const 11) (i32.const 0)
                (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 1024)))
            (then unreachable))",
        ..VALUE
    } => Applied;
    a_socket: Guest {
        more: r#"(import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))"#,
        poison: "(if (i32.eqz (call $accept (i32.const 3) (i32.const 0) (i32.const 1024))) (then unreachable))",
        ..VALUE
    } => Applied;

    // Files.
    an_import_of_http: component(r#"(import "wasi:http/outgoing-handler@0.2.0" (instance))"#)
        => Refused("wasi:http/outgoing-handler@0.2.0");
    an_unknown_import: component(r#"(import "acme:tools/spy@1.0.0" (instance))"#) => Refused("acme:tools/spy@1.0.0");
    an_import_whose_name_clears_the_terminal: component(r#"(import "\1b[2J\0aFORGED" (instance))"#) => Refused("which this host does not provide");
    a_newer_version: || parse(r#"(component (instance $i) (export "ktables:codec/value-codec@0.9.0" (instance $i)))"#)
        => Refused("0.9.0");
    asynchronous_functions: component(
        r#"(core module $m (func (export "f")))
           (core instance $m (instantiate $m))
           (func $f async (canon lift (core func $m "f") async))"#
    ) => Refused("asynchronous functions");
    a_core_module: || parse("(module)") => Refused("codec build");
    a_file_of_text: || b"#!/bin/sh".to_vec() => Refused("not a WebAssembly component");
    an_empty_file: Vec::new => Refused("not a WebAssembly component");
    a_truncated_file: || { let mut file = VALUE.build(); file.truncate(file.len() / 2); file } => Refused("unexpected end-of-file");
    a_section_of_200_megabytes: || custom_section(200 << 20) => Refused("bytes");
    a_section_of_60_megabytes: || custom_section(60 << 20) => Refused("exports");
    many_types: component(&"(type (list u8))".repeat(100_000)) => Refused("does not have export `decode`");
    too_many_types: component(&"(type (list u8))".repeat(300_000)) => Refused("types");
    many_memories: module(&"(memory 1)".repeat(100)) => Refused("memories");
    many_instances_of_modules: component(
        &format!("(core module $m) {}", "(core instance (instantiate $m))".repeat(1_500))
    ) => Refused("instances");
    many_tables: module(&"(table 1 funcref)".repeat(1_000)) => Refused("tables");
    a_huge_table: module("(table 4000000000 funcref)") => Refused("more than 100000 elements");
    many_globals: module(&"(global (mut i64) (i64.const 0))".repeat(60_000)) => Refused("globals");
    many_functions: module(&"(func)".repeat(150_000)) => Refused("functions");
    a_huge_function: module(&format!("(func {})", "(drop (i32.const 1000000))".repeat(500_000)))
        => Refused("bytes");
    many_locals: module(&format!("(func (local {}))", "i64 ".repeat(49_000))) => Refused("locals");
    many_branches: module(&format!("(func (block (br_table {} (i32.const 0))))", "0 ".repeat(150_000)))
        => Refused("branch table entries");
    millions_of_branches: module(&format!("(func (block (br_table {} (i32.const 0))))", "0 ".repeat(3_000_000)))
        => Refused("bytes");
    many_escaped_functions: module(&format!(
        "{} (elem declare func {})",
        (0..40_000).map(|n| format!("(func $f{n})")).collect::<String>(),
        (0..40_000).map(|n| format!("$f{n} ")).collect::<String>(),
    )) => Refused("are not those of the WIT package");
    many_resource_types: component(&"(type (resource (rep i32)))".repeat(15_000)) => Refused("does not have export `decode`");
    many_aliases_of_components: || aliases(8_500_000) => Refused("components and modules");
    a_module_type_with_millions_of_types: || types_of_a_module(20, 1_000_000) => Refused("its types have more than");
    a_long_name_of_an_export: component(&format!(
        r#"(instance $l) (export "{}" (instance $l))"#, "a".repeat(90_000)
    )) => Refused("more than 1000 bytes");
    an_empty_name: Guest { name_bytes: 0, ..VALUE } => Applied;
    components_in_components: || nested(5_000) => Refused("components are nested");
}
