//! Checks a configuration as far as that is possible without its logs.

use std::path::Path;

use crate::config::{Catalog, Config, ConfigError};
use crate::log::check_topic_name;
use crate::registry::Registry;
use crate::serve::access_file::read_access;
use crate::serve::net::TlsFiles;
use crate::serve::reload::table_names;
use crate::serve::run::check_exposure;
use crate::wasm::EngineOptions;

/// Returns the problems of a configuration: the first one of each log, codec and table, of the server, of its access and of
/// its certificates. Loads all codecs, and waits for no broker. Blocks while components are compiled.
pub(crate) fn check(path: &Path, engine: EngineOptions, is_insecure: bool) -> Result<Checked, ConfigError> {
    let mut config = Config::read(path)?;
    let mut problems: Vec<String> = config.unusable().map(str::to_owned).collect();
    let (server, access) = (std::mem::take(&mut config.server), config.access.take());
    if config.check_server_usable().is_ok() {
        problems.extend(check_exposure(&server, access.as_ref(), is_insecure).err());
    }
    problems.extend(access.as_ref().and_then(|access| read_access(access).err()));
    problems
        .extend(server.tls.clone().and_then(|tls| TlsFiles::open(tls).err()).map(|error| error.to_string()));
    let names = config.table_names();
    let is_unknown = |name: &&String| !names.contains(name);
    let unknown = server.tables.iter().flatten().filter(is_unknown);
    problems.extend(unknown.map(|name| format!("server.tables: there is no table `{name}`")));
    // Commands other than `serve` need no table.
    if !names.is_empty() {
        problems.extend(table_names(&config, &server).err());
    }
    problems.extend(config.tables.iter().flat_map(|(name, table)| {
        let topics = [Some(&table.topic), table.dead_letter.as_ref()].into_iter().flatten();
        let invalid = topics.filter_map(|topic| check_topic_name(topic).err());
        invalid.map(move |error| format!("tables.{name}: {error}"))
    }));
    problems.extend(config.schema_registries.iter().filter_map(|(name, registry)| {
        let error = Registry::new(registry.options()).err()?;
        Some(format!("schema_registries.{name}: {error}"))
    }));
    let catalog = Catalog::new(config, None, engine)?;
    problems.extend(catalog.check_members());
    for name in &names {
        // What is wrong with its log or its codec is reported above, with the same text.
        if let Err(error) = catalog.open_table(name) {
            let reason = error.to_string();
            if !problems.iter().any(|problem| problem.ends_with(&reason)) {
                problems.push(format!("tables.{name}: {reason}"));
            }
        }
    }
    Ok(Checked { tables: names.len(), problems })
}

/// The result of a check.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The number of tables.
    pub(crate) tables: usize,
    pub(crate) problems: Vec<String>,
}
