//! The command `diff`, which compares the contents of a topic with two sets of codecs.

use crate::cli::args::{DiffArgs, TableArgs};
use crate::cli::open::ResolvedTable;
use crate::cli::output::Output;
use crate::cli::{CliError, Exit, progress};
use crate::table::{Difference, Status};

pub(super) async fn diff(args: DiffArgs, output: Output) -> Result<Exit, CliError> {
    let DiffArgs { against_key_codec, against_value_codec, against_group_scheme, table } = args;
    if against_key_codec.is_none() && against_value_codec.is_none() && against_group_scheme.is_none() {
        return Err(CliError::Usage(
            "compare with which codec? Name it with --against-value-codec, --against-key-codec or \
             --against-group-scheme"
                .to_owned(),
        ));
    }
    let other = TableArgs {
        key_codec: against_key_codec.or(table.key_codec.clone()),
        value_codec: against_value_codec.or(table.value_codec.clone()),
        group_scheme: against_group_scheme.or(table.group_scheme.clone()),
        ..table.clone()
    };
    let other = ResolvedTable::resolve(other).await?;
    let table = ResolvedTable::resolve(table).await?.load().await?;
    let prepared = progress::show_until(&table, table.prepare_swap(other.codecs().clone())).await?;
    let (before, after) = (table.snapshot(), prepared.snapshot()?);
    let difference = tokio::task::spawn_blocking(move || Difference::new(&before, &after)).await?;
    output.print_object(&difference)?;
    let status = table.status();
    drop(prepared);
    table.stop().await;
    Ok(match status {
        _ if !difference.is_empty() => Exit::No,
        Status::CaughtUp => Exit::Done,
        _ => Exit::Degraded,
    })
}
