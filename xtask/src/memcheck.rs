//! Runs the calls into librdkafka that handle records under a memory checker, which finds memory that is read
//! after it was freed, freed twice, or never freed.

use crate::run::{Outcome, build_program, cargo, command, output, root, run};
use crate::setup::ensure_valgrind;

/// Tests of the suite that together make all these calls: reading in bulk and one by one, headers,
/// transactions, writing, waiting for a write to be visible, a re-created topic, a shared tail client.
const TESTS: [&str; 7] = [
    "cluster::headers_timestamps_null_and_empty_bytes_are_read_as_written",
    "cluster::all_compression_codecs_are_read",
    "cluster::aborted_transactions_are_invisible_and_trailing_markers_do_not_block",
    "cluster::tables_of_one_topic_share_a_log",
    "table::catches_up_and_follows_on_one_and_four_partitions::on_kafka",
    "table::a_write_is_visible_after_a_barrier_or_wait_for::on_kafka",
    "table::a_recreated_topic_is_a_new_generation::on_kafka",
];

/// The file with valgrind's suppressions: leaks that are not ours.
const SUPPRESSED: &str = "tests/suite/valgrind.supp";

/// Runs [`TESTS`] under valgrind. An error or a leak fails the command.
pub(crate) fn memcheck() -> Outcome {
    ensure_valgrind()?;
    let suite = build_program("suite", &mut cargo(["test", "--release", "--workspace", "--test", "suite"]))?;
    let listed = output(command(&suite).args(["--list", "--exact"]).args(TESTS))?;
    if let Some(missing) = TESTS.iter().find(|test| !listed.contains(*test)) {
        return Err(format!("the suite has no test {missing}: list another one that makes the same calls"));
    }
    let mut checked = command("valgrind");
    checked.args(["--quiet", "--error-exitcode=9", "--fair-sched=yes", "--leak-check=full"]);
    checked.args(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]);
    checked.arg(format!("--suppressions={}", root().join(SUPPRESSED).display()));
    run(checked.arg(suite).arg("--exact").args(TESTS))
}
