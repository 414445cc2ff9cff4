//! The calls into librdkafka under a memory checker: what is read after it was freed,
//! freed twice, or never.

use crate::run::{Outcome, built, cargo, command, output, root, run};
use crate::setup::valgrind;

/// Tests of the suite that together make the calls: reading by the hundred and one by
/// one, headers, transactions, writing, waiting, a topic made anew, a tail that is shared.
const TESTS: [&str; 7] = [
    "cluster::headers_and_timestamps_and_null_and_empty_come_as_they_were_written",
    "cluster::all_codecs_of_compression_are_read",
    "cluster::aborted_transactions_are_not_seen_and_markers_at_the_tail_do_not_hold_up",
    "cluster::tables_of_one_topic_and_of_many_share_a_log",
    "table::catches_up_and_follows_on_one_and_four_partitions::on_kafka",
    "table::a_write_is_visible_after_barrier_or_after_waiting_for_its_place::on_kafka",
    "table::a_topic_made_anew_is_a_new_generation::on_kafka",
];

/// Leaks that are not ours.
const SUPPRESSED: &str = "tests/suite/valgrind.supp";

/// Runs them; an error or a leak is a failure.
pub(crate) fn memcheck() -> Outcome {
    valgrind()?;
    let suite = built("suite", &mut cargo(["test", "--release", "--workspace", "--test", "suite"]))?;
    let found = output(command(&suite).args(["--list", "--exact"]).args(TESTS))?;
    if let Some(missing) = TESTS.iter().find(|test| !found.contains(*test)) {
        return Err(format!("the suite has no test {missing}: name another that makes its calls"));
    }
    let mut checked = command("valgrind");
    checked.args(["--quiet", "--error-exitcode=9", "--fair-sched=yes", "--leak-check=full"]);
    checked.args(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]);
    checked.arg(format!("--suppressions={}", root().join(SUPPRESSED).display()));
    run(checked.arg(suite).arg("--exact").args(TESTS))
}
