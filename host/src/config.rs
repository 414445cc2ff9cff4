//! The configuration file, which names logs, codecs and tables, and the catalog, which opens them.

mod artifacts;
mod bundled;
mod catalog;
mod codec_registries;
mod describe;
mod error;
mod fleet;
mod registries;
mod schema_table;
mod sections;
mod server;
mod show;
mod substitution;
mod table_source;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use artifacts::{ArtifactVerdict, Artifacts};
pub(crate) use bundled::{BUNDLED, bundled_component, is_bundled};
pub use bundled::{BundledCodec, register_bundled_codecs};
pub(crate) use catalog::{Catalog, CodecNames, is_built_in};
pub(crate) use codec_registries::CodecRegistryConfig;
pub(crate) use describe::find_nearest;
pub(crate) use error::ConfigError;
pub(crate) use fleet::FleetConfig;
pub(crate) use registries::RegistryConfig;
pub(crate) use sections::{
    CodecConfig, ComponentLocation, LimitsConfig, LogConfig, ProcessLimits, SchemasFrom, TableCodec,
    TableConfig,
};
pub(crate) use server::{AccessConfig, ClientConfig, ListenAddress, ServerClients, ServerConfig, TlsConfig};
pub(crate) use table_source::{ComponentSettings, RequestedCodecs, TableSource, TableToServe};

use crate::file::{FileError, read_text};
use describe::{describe_syntax_error, describe_value_error};
use substitution::{SubstitutionError, look_up, substitute};

/// The configuration of ktables: logs, codecs, tables, and the server.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The limits of the process.
    #[serde(default)]
    pub(crate) limits: ProcessLimits,
    /// The logs, by name.
    #[serde(default)]
    pub(crate) logs: BTreeMap<String, LogConfig>,
    /// The components that are codecs, by name.
    #[serde(default)]
    pub(crate) codecs: BTreeMap<String, CodecConfig>,
    /// The schema registries, by name.
    #[serde(default)]
    pub(crate) schema_registries: BTreeMap<String, RegistryConfig>,
    /// The registries with codecs, by host.
    #[serde(default)]
    pub(crate) registries: BTreeMap<String, CodecRegistryConfig>,
    /// The tables, by name.
    #[serde(default)]
    pub(crate) tables: BTreeMap<String, TableConfig>,
    /// How the process serves its tables.
    #[serde(default)]
    pub(crate) server: ServerConfig,
    /// Where the process publishes which codecs it runs.
    pub(crate) fleet: Option<FleetConfig>,
    /// Who may call the server. Without it, access is not controlled.
    pub(crate) access: Option<AccessConfig>,
    /// The configuration file; `None` if the configuration did not come from a file.
    #[serde(skip)]
    pub(crate) path: Option<PathBuf>,
    /// The members that cannot be used, because an environment variable is not set or a file cannot be read,
    /// with the reason: by section and name.
    #[serde(skip)]
    unusable: BTreeMap<(&'static str, String), String>,
}

/// The sections whose members are named by the user.
const SECTIONS: [&str; 5] = ["logs", "codecs", "schema_registries", "registries", "tables"];

/// The sections that only the server uses.
const SERVER_SECTIONS: [&str; 3] = ["server", "access", "fleet"];

/// The largest configuration file that is read, in bytes.
const MAX_BYTES: usize = 4 << 20;

impl Config {
    /// Reads a file, completes its texts, and resolves relative paths against its folder.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::of_text(&Self::read_text(path)?, path)
    }

    fn read_text(path: &Path) -> Result<String, ConfigError> {
        read_text(path, MAX_BYTES).map_err(FileError::of::<ConfigError>("read the configuration", path))
    }

    /// Parses the text of a file, completes its texts, and resolves relative paths against its folder.
    fn of_text(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let config = Self::parse(text, |name| look_up(name, folder));
        let config = config
            .and_then(|config| config.resolve_paths(folder))
            .map_err(|reason| ConfigError::Invalid(format!("{}: {reason}", path.display())))?;
        Ok(Self { path: Some(path.to_owned()), ..config })
    }

    /// Resolves relative paths against a folder.
    fn resolve_paths(mut self, folder: &Path) -> Result<Self, String> {
        let resolve = |path: &Path, setting: &str| {
            if path.starts_with("~") {
                return Err(format!("{setting}: `~` is not replaced here: write `${{HOME}}/…`"));
            }
            // Splitting the path into its parts and joining them again drops `./` inside it.
            Ok(folder.join(path).components().collect::<PathBuf>())
        };
        for (name, codec) in &mut self.codecs {
            let setting = format!("codecs.{name}.component");
            match &mut codec.component {
                ComponentLocation::File(path) => *path = resolve(path, &setting)?,
                ComponentLocation::Artifact(reference) => {
                    if let Some(folder) = reference.strip_prefix("oci-layout:") {
                        *reference =
                            format!("oci-layout:{}", resolve(Path::new(folder), &setting)?.display());
                    }
                }
                ComponentLocation::Bundled(_) => {}
            }
        }
        for (name, table) in &mut self.tables {
            if let Some(path) = &mut table.checkpoint {
                *path = resolve(path, &format!("tables.{name}.checkpoint"))?;
            }
        }
        for (name, registry) in &mut self.schema_registries {
            registry.resolve_paths(|path, setting| {
                resolve(path, &format!("schema_registries.{name}.{setting}"))
            })?;
        }
        for (host, registry) in &mut self.registries {
            registry.resolve_paths(host, resolve)?;
        }
        for (name, log) in &mut self.logs {
            if let Some(file) = &mut log.oauth_token_file {
                *file = resolve(file, &format!("logs.{name}.oauth_token_file"))?;
            }
            // `probe` makes librdkafka search the certificates of the system.
            let is_path =
                |(name, path): &(&String, &mut String)| name.ends_with(".location") && *path != "probe";
            for (property, path) in log.properties.iter_mut().filter(is_path) {
                let setting = format!("logs.{name}.properties.{property}");
                *path = resolve(Path::new(path), &setting)?.display().to_string();
            }
            if let Some(path) = log.url.strip_prefix("dir:").filter(|path| !path.is_empty()) {
                log.url = format!("dir:{}", resolve(Path::new(path), &format!("logs.{name}.url"))?.display());
            }
        }
        self.server.resolve_paths(resolve)?;
        if let Some(file) = self.access.as_mut().and_then(|access| access.clients_file.as_mut()) {
            *file = resolve(file, "access.clients_file")?;
        }
        Ok(self)
    }

    /// Parses a configuration. `look_up` returns what a name in `${…}` stands for, or why it does not. Relative paths stay
    /// relative.
    pub(crate) fn parse(
        text: &str,
        look_up: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Self, String> {
        let mut table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| describe_syntax_error(&error, text))?;
        let mut unusable = BTreeMap::new();
        if let Some(limits) = table.get_mut("limits") {
            substitute(limits, "limits", &look_up).map_err(SubstitutionError::into_reason)?;
        }
        for section in SECTIONS {
            let Some(toml::Value::Table(members)) = table.get_mut(section) else { continue };
            let names: Vec<String> = members.keys().cloned().collect();
            for name in names {
                let path = format!("{section}.{name}");
                if let Some(reason) = substitute_member(members, &name, &path, &look_up)? {
                    unusable.insert((section, name), reason);
                }
            }
        }
        for section in SERVER_SECTIONS {
            if let Some(reason) = substitute_member(&mut table, section, section, &look_up)? {
                unusable.insert((section, String::new()), reason);
            }
        }
        let mut config: Self =
            table.try_into().map_err(|error: toml::de::Error| describe_value_error(&error))?;
        config.unusable = unusable;
        Ok(config)
    }

    /// Returns the configuration with the defaults of what it leaves out.
    fn with_defaults(mut self) -> Self {
        self.logs = self.logs.into_iter().map(|(name, log)| (name, log.with_defaults())).collect();
        self.tables = self.tables.into_iter().map(|(name, table)| (name, table.with_defaults())).collect();
        for codec in self.codecs.values_mut() {
            codec.limits = codec.limits.with_defaults();
        }
        self
    }

    /// Returns the section of a codec, or the default one of a bundled codec.
    pub(crate) fn codec(&self, name: &str) -> Option<Cow<'_, CodecConfig>> {
        let section = self.codecs.get(name).map(Cow::Borrowed);
        section.or_else(|| is_bundled(name).then(|| Cow::Owned(CodecConfig::new(name.to_owned().into()))))
    }

    /// Returns the reasons why some members of sections cannot be used.
    pub(crate) fn unusable(&self) -> impl Iterator<Item = &str> {
        self.unusable.values().map(String::as_str)
    }

    /// Returns the names of all tables.
    pub(crate) fn table_names(&self) -> Vec<String> {
        let unusable = self.unusable.keys().filter(|(section, _)| *section == "tables").map(|(_, name)| name);
        self.tables.keys().chain(unusable).cloned().collect()
    }

    /// Fails if `[server]` or `[access]` needs an environment variable or a file that is missing.
    pub(crate) fn check_server_usable(&self) -> Result<(), String> {
        SERVER_SECTIONS.iter().try_for_each(|section| self.check_usable(section, ""))
    }

    /// Fails if this member of a section needs an environment variable or a file that is missing.
    pub(crate) fn check_usable(&self, section: &'static str, name: &str) -> Result<(), String> {
        self.unusable.get(&(section, name.to_owned())).map_or(Ok(()), |reason| Err(reason.clone()))
    }
}

/// Completes the texts in a member of a table. If that is not possible, removes the member, and returns the reason.
fn substitute_member(
    members: &mut toml::Table,
    name: &str,
    path: &str,
    look_up: &impl Fn(&str) -> Result<String, String>,
) -> Result<Option<String>, String> {
    let Some(member) = members.get_mut(name) else { return Ok(None) };
    match substitute(member, path, look_up) {
        Err(SubstitutionError::Missing(reason)) => {
            members.remove(name);
            Ok(Some(reason))
        }
        Err(SubstitutionError::Invalid(reason)) => Err(reason),
        Ok(()) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::log::{Acks, Isolation};
    use crate::wasm::{Limits, Profile};
    use crate::writer::Verify;

    fn parse(text: &str) -> Result<Config, String> {
        parse_with(text, &[("HOME_LOG", "dir:./home"), ("TOKEN", "sEcReT\", expected sEcReT")])
    }

    fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        Config::parse(text, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned()).ok_or_else(|| format!("{name} is not set"))
        })
    }

    #[test]
    fn a_configuration_names_logs_codecs_and_tables() {
        let config = parse(
            r#"
            [logs.local]
            url = "${HOME_LOG}/x"
            [codecs.service]
            component = "service.wasm"
            config = { strict = true }
            limits = { profile = "large", memory = "1MiB", deadline = "2s" }
            [tables.services]
            log = "local"
            topic = "services"
            value_codec = "service"
            verify = "decodes"
            "#,
        )
        .unwrap();
        assert_eq!(config.logs["local"].url, "dir:./home/x");
        let limits = config.codecs["service"].limits.limits();
        assert_eq!((limits.memory, limits.deadline), (1 << 20, Duration::from_secs(2)));
        assert_eq!(limits.deadline_per_record, Limits::new(Profile::Large).deadline_per_record);
        assert_eq!(config.tables["services"].verify, Some(Verify::Decodes));
    }

    #[test]
    fn the_documented_file_has_every_key() {
        let docs = include_str!("../../docs/configuration.md");
        let text = docs.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let parse = |text: &str| parse_with(text, &[("REGION", "eu"), ("REGISTRY_PASSWORD", "x")]);
        parse(text).unwrap();
        for section in [
            "[limits]",
            "[logs.prod]",
            "[codecs.service]",
            "[schema_registries.prod]",
            "[registries.\"registry.example:5000\"]",
            "[tables.services]",
            "[server]",
            "[fleet]",
            "[access]",
            "[access.clients.billing]",
            "limits = { ",
        ] {
            let error = parse(&text.replacen(section, &format!("{section}\nnonsense = 1\n"), 1));
            let error = match section.ends_with("{ ") {
                true => parse(&text.replacen(section, "limits = { nonsense = 1, ", 1)).unwrap_err(),
                false => error.unwrap_err(),
            };
            // The first line of the error names all known keys.
            let known: Vec<&str> = error.lines().next().unwrap().split('`').skip(3).step_by(2).collect();
            assert!(!known.is_empty(), "{error}");
            for key in known.into_iter().filter(|key| !key.starts_with("nonsense")) {
                let is_there =
                    [format!("{key} = "), format!("[access.{key}.")].iter().any(|form| text.contains(form));
                assert!(is_there, "{key} of {section} is missing: {error}");
            }
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest() {
        let error = parse("[tables.a]\nlog = \"l\"\ntopic = \"t\"\nvalue_codek = \"json\"").unwrap_err();
        assert!(error.contains("value_codek") && error.contains("did you mean `value_codec`?"), "{error}");
        let error = parse("[log.a]\nurl = \"x\"").unwrap_err();
        assert!(error.contains("did you mean `logs`?"), "{error}");
    }

    #[test]
    fn a_missing_variable_is_an_error_where_it_is_used() {
        let config = parse(
            "[logs.a]\nurl = \"dir:${NO_SUCH}\"\n[logs.b]\nurl = \"dir:x\"\n[codecs.c]\ncomponent = \"x\"\n\
             config = { a = [ { b = \"${NO_SUCH}\" } ] }",
        )
        .unwrap();
        let error = config.check_usable("logs", "a").unwrap_err();
        assert!(error.contains("NO_SUCH") && error.contains("logs.a.url"), "{error}");
        let error = config.check_usable("codecs", "c").unwrap_err();
        assert!(error.contains("codecs.c.config.a"), "{error}");
        assert!(config.check_usable("logs", "b").is_ok() && config.logs.contains_key("b"));
    }

    #[test]
    fn a_memory_limit_must_be_a_size_above_zero() {
        for text in ["[limits]\nmemory = \"0\"", "[limits]\nmemory = \"much\""] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("memory") && error.contains("32MiB"), "{error}");
        }
    }

    #[test]
    fn limits_take_variables() {
        let parse = |text| parse_with(text, &[("MEM", "1GiB")]);
        assert_eq!(parse("[limits]\nmemory = \"${MEM}\"").unwrap().limits.memory, Some(1 << 30));
        let error = parse("[limits]\nmemory = \"${NO_SUCH}\"").unwrap_err();
        assert!(error.contains("limits.memory") && error.contains("NO_SUCH"), "{error}");
    }

    #[test]
    fn files_in_properties_are_relative_to_the_file() {
        let text = r#"
            [logs.a]
            url = "kafka://b:1"
            properties = { "ssl.ca.location" = "probe", "ssl.key.location" = "./key.pem", "client.id" = "x" }
        "#;
        let config = parse(text).unwrap().resolve_paths(Path::new("/etc/k")).unwrap();
        let properties = &config.logs["a"].properties;
        let values: Vec<&str> = properties.values().map(String::as_str).collect();
        assert_eq!(values, ["x", "probe", "/etc/k/key.pem"]);
    }

    #[test]
    fn a_dollar_before_a_variable_makes_it_text() {
        let url = |text: &str| {
            parse(&format!("[logs.a]\nurl = \"{text}\"")).map(|config| config.logs["a"].url.clone())
        };
        assert_eq!(url("$${HOME_LOG}").unwrap(), "${HOME_LOG}");
        assert_eq!(url("a$${x$${${HOME_LOG}").unwrap(), "a${x${dir:./home");
        assert_eq!(url("$HOME $").unwrap(), "$HOME $");
        assert!(url("${HOME_LOG").unwrap_err().contains("without"));
    }

    #[test]
    fn secrets_are_not_in_errors() {
        for text in [
            "[logs.a]\nurl = \"x\"\nproperties = \"sEcReT\"",
            "[logs.a]\nurl = \"x\"\nproperties = { password = [\"sEcReT\"] }",
            "[logs.a]\nurl = \"x\"\nproperties = { \"sasl.password\" = \"sEcReT\", 5 }",
            "[codecs.a]\ncomponent = \"x\"\nconfig = \"${TOKEN}\"",
            "[codecs.a]\ncomponent = \"x\"\nconfig = \"sEcReT\"",
            "[codecs.a]\ncomponent = \"x\"\nlimits = { deadline = \"${TOKEN}\" }",
            "[codecs.a]\ncomponent = \"x\"\nlimits = { memory = \"${TOKEN}\" }",
            "[codecs.a]\ncomponent = \"x\"\nlimits = { profile = \"${TOKEN}\" }",
            "[tables.a]\nlog = \"l\"\ntopic = \"t\"\nverify = \"${TOKEN}, expected \"",
            "[tables.a]\nlog = \"l\"\ntopic = \"t\"\nensure_topic = \"${TOKEN}\"",
            "tables = \"sEcReT\"",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!error.contains("sEcReT"), "{error}");
        }
        let error = parse("[logs.a]\nurl = sEcReT").unwrap_err();
        assert!(error.contains("line 2") && !error.contains("sEcReT"), "{error}");
    }

    #[test]
    fn a_log_has_options_and_properties() {
        let config = parse(
            r#"
            [logs.prod]
            url = "kafka://a:9092,b:9092"
            isolation = "read_uncommitted"
            stale_after = "3s"
            acks = "leader"
            idempotence = false
            properties = { "security.protocol" = "SASL_SSL", "socket.timeout.ms" = 5000, "check.crcs" = false }
            "#,
        )
        .unwrap();
        let options = config.logs["prod"].options();
        assert_eq!((options.isolation, options.acks), (Isolation::ReadUncommitted, Acks::Leader));
        assert_eq!((options.stale_after, options.idempotence), (Duration::from_secs(3), false));
        assert_eq!(options.properties["socket.timeout.ms"], "5000");
        assert_eq!(options.properties["check.crcs"], "false");
    }

    #[test]
    fn a_bad_size_or_duration_says_what_to_write() {
        let error = parse("[codecs.a]\ncomponent = \"x\"\nlimits = { memory = \"1 potato\" }").unwrap_err();
        assert!(error.contains("32MiB"), "{error}");
        let error = parse("[codecs.a]\ncomponent = \"x\"\nlimits = { deadline = \"5\" }").unwrap_err();
        assert!(error.contains("500ms"), "{error}");
    }
}
