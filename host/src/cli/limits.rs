//! The limits of components, as arguments.

use serde::Deserialize;

use crate::cli::CliError;
use crate::config::LimitsConfig;

/// Parses the limits in the arguments of an option, each as `NAME=VALUE`, written as in the configuration file.
pub(super) fn parse_limits(option: &str, limits: &[String]) -> Result<LimitsConfig, CliError> {
    let mut table = toml::Table::new();
    for limit in limits {
        let (name, value) = limit.split_once('=').ok_or_else(|| {
            CliError::Usage(format!("{option} needs NAME=VALUE, for example memory=128MiB"))
        })?;
        table.insert(name.to_owned(), value.to_owned().into());
    }
    LimitsConfig::deserialize(table)
        .map_err(|error| CliError::Usage(format!("{option}: {}", error.message())))
}
