//! The schema registry that arguments name.

use std::path::Path;

use crate::cli::CliError;
use crate::cli::args::RegistryArgs;
use crate::config::Config;
use crate::escape::escape_name;
use crate::registry::{Registry, RegistryOptions};

/// The environment variable with a schema registry.
const VARIABLE: &str = "KTABLES_SCHEMA_REGISTRY";

/// Opens the registry that the arguments or the environment name.
pub(super) fn open(args: &RegistryArgs) -> Result<Registry, CliError> {
    find(args)?.ok_or_else(|| {
        CliError::Usage(format!(
            "which schema registry? Name its address (--registry http://HOST:PORT), or a section \
             [schema_registries.NAME] of the configuration (--registry NAME), or set {VARIABLE}"
        ))
    })
}

/// Returns the registry that the environment names.
pub(in crate::cli) fn registry_variable() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|text| !text.is_empty())
}

/// Whether a text is the address of a registry. Otherwise it is the name of a section.
pub(in crate::cli) fn is_address(name: &str) -> Result<bool, CliError> {
    if name.contains("://") {
        return Ok(true);
    }
    if name.contains([':', '/']) {
        let example = escape_name(name);
        return Err(CliError::Usage(format!(
            "`{example}` is neither the name of a section nor an address: write http://{example}"
        )));
    }
    Ok(false)
}

/// Opens the registry that the arguments or the environment name; `None` if they name none.
pub(super) fn find(args: &RegistryArgs) -> Result<Option<Registry>, CliError> {
    let Some(name) = args.registry.clone().or_else(registry_variable) else { return Ok(None) };
    if is_address(&name)? {
        return Ok(Some(Registry::new(RegistryOptions::new(&name))?));
    }
    let path = args.config.as_deref().unwrap_or(Path::new("ktables.toml"));
    let config = Config::read(path)?;
    let usable = config.check_usable("schema_registries", &name);
    usable.map_err(|reason| CliError::Usage(format!("{}: {reason}", path.display())))?;
    let Some(section) = config.schema_registries.get(&name) else {
        let known =
            config.schema_registries.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        return Err(CliError::Usage(format!(
            "{}: there is no schema registry `{}`; it has {known}. An address begins with http:// or https://",
            path.display(),
            escape_name(&name)
        )));
    };
    Ok(Some(Registry::new(section.options())?))
}
