//! The configuration file, which names logs, codecs and tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::cli::CliError;
use crate::file::{FileError, read_text};
use crate::log::{Acks, EnsureTopic, Isolation, LogOptions, NewTopic, OnPolicyMismatch, STALE_AFTER};
use crate::table::OnReject;
use crate::wasm::{Limits, Profile};
use crate::writer::Verify;

/// A configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) limits: ProcessLimits,
    #[serde(default)]
    pub(super) logs: BTreeMap<String, LogConfig>,
    #[serde(default)]
    pub(super) codecs: BTreeMap<String, CodecConfig>,
    #[serde(default)]
    pub(super) tables: BTreeMap<String, TableConfig>,
    /// The members that cannot be used, because an environment variable is not set, with the reason: by
    /// section and name.
    #[serde(skip)]
    unusable: BTreeMap<(&'static str, String), String>,
}

/// The sections whose members are named by the user.
const SECTIONS: [&str; 3] = ["logs", "codecs", "tables"];

/// The largest configuration file that is read, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// `[limits]`: the limits of the process.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessLimits {
    /// How many bytes the process may use before its tables stop applying records.
    #[serde(default, deserialize_with = "deserialize_size")]
    pub(super) memory: Option<usize>,
}

/// `[logs.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogConfig {
    pub(super) url: String,
    #[serde(default)]
    isolation: Isolation,
    #[serde(default, deserialize_with = "deserialize_duration")]
    stale_after: Option<Duration>,
    #[serde(default)]
    acks: Acks,
    #[serde(default = "default_true")]
    idempotence: bool,
    oauth_token_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "deserialize_properties")]
    properties: BTreeMap<String, String>,
}

impl LogConfig {
    pub(super) fn options(&self) -> LogOptions {
        LogOptions {
            isolation: self.isolation,
            stale_after: self.stale_after.unwrap_or(STALE_AFTER),
            acks: self.acks,
            idempotence: self.idempotence,
            oauth_token_file: self.oauth_token_file.clone(),
            properties: self.properties.clone(),
        }
    }
}

fn default_true() -> bool {
    true
}

/// `[codecs.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CodecConfig {
    pub(super) component: PathBuf,
    pub(super) digest: Option<String>,
    pub(super) config: Option<toml::Table>,
    #[serde(default)]
    pub(super) limits: LimitsConfig,
}

/// `limits = { … }`. Limits that are not set are those of the profile.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsConfig {
    profile: Option<Profile>,
    #[serde(default, deserialize_with = "deserialize_size")]
    memory: Option<usize>,
    #[serde(default, deserialize_with = "deserialize_size")]
    output: Option<usize>,
    #[serde(default, deserialize_with = "deserialize_duration")]
    deadline: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_duration")]
    deadline_per_record: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_duration")]
    start_deadline: Option<Duration>,
}

/// `[tables.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableConfig {
    pub(super) log: String,
    pub(super) topic: String,
    pub(super) key_codec: Option<String>,
    pub(super) value_codec: Option<String>,
    pub(super) group_scheme: Option<String>,
    pub(super) verify: Option<Verify>,
    #[serde(default)]
    pub(super) ensure_topic: bool,
    pub(super) on_policy_mismatch: Option<OnPolicyMismatch>,
    pub(super) on_reject: Option<OnReject>,
    #[serde(default, deserialize_with = "deserialize_duration")]
    pub(super) ttl: Option<Duration>,
    pub(super) checkpoint: Option<PathBuf>,
    #[serde(default, deserialize_with = "deserialize_duration")]
    pub(super) checkpoint_max_age: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_size")]
    pub(super) memory_limit: Option<usize>,
}

impl TableConfig {
    /// Returns how the topic is ensured; `None` if it is not.
    pub(super) fn ensure_options(&self) -> Result<Option<EnsureTopic>, String> {
        let on_policy_mismatch = self.on_policy_mismatch.unwrap_or_default();
        let options = EnsureTopic { new: NewTopic::default(), on_policy_mismatch };
        match (self.ensure_topic, on_policy_mismatch) {
            (true, _) => Ok(Some(options)),
            (false, OnPolicyMismatch::Ignore | OnPolicyMismatch::Warn) => Ok(None),
            (false, OnPolicyMismatch::Raise | OnPolicyMismatch::Reconcile) => {
                Err("on_policy_mismatch = \"raise\" and \"reconcile\" need ensure_topic = true".to_owned())
            }
        }
    }
}

impl LimitsConfig {
    pub(super) fn limits(&self) -> Limits {
        let defaults = Limits::new(self.profile.unwrap_or_default());
        Limits {
            memory: self.memory.unwrap_or(defaults.memory),
            output: self.output.unwrap_or(defaults.output),
            deadline: self.deadline.unwrap_or(defaults.deadline),
            deadline_per_record: self.deadline_per_record.unwrap_or(defaults.deadline_per_record),
            start_deadline: self.start_deadline.unwrap_or(defaults.start_deadline),
        }
    }
}

impl Config {
    /// Reads a file, replaces environment variables, and resolves relative paths against its folder.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let text =
            read_text(path, MAX_BYTES).map_err(FileError::of::<CliError>("read the configuration", path))?;
        let mut config = Self::parse(&text, |name| std::env::var(name).ok())
            .map_err(|reason| CliError::Usage(format!("{}: {reason}", path.display())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for codec in config.codecs.values_mut() {
            codec.component = folder.join(&codec.component);
        }
        for table in config.tables.values_mut() {
            table.checkpoint = table.checkpoint.take().map(|path| folder.join(path));
        }
        for log in config.logs.values_mut() {
            log.oauth_token_file = log.oauth_token_file.take().map(|file| folder.join(file));
            if let Some(path) = log.url.strip_prefix("dir:").filter(|path| !path.is_empty()) {
                // Component by component, which drops `./`.
                let path: PathBuf = folder.join(path).components().collect();
                log.url = format!("dir:{}", path.display());
            }
        }
        Ok(config)
    }

    /// Parses a configuration. `variable` returns an environment variable. Relative paths stay relative.
    pub(super) fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| describe_syntax_error(&error, text))?;
        let mut unusable = BTreeMap::new();
        for section in SECTIONS {
            let Some(toml::Value::Table(members)) = table.get_mut(section) else { continue };
            let names: Vec<String> = members.keys().cloned().collect();
            for name in names {
                let path = format!("{section}.{name}");
                let result = members.get_mut(&name).map(|member| substitute(member, &path, &variable));
                match result {
                    Some(Err(SubstitutionError::Missing(reason))) => {
                        members.remove(&name);
                        unusable.insert((section, name), reason);
                    }
                    Some(Err(SubstitutionError::Invalid(reason))) => return Err(reason),
                    Some(Ok(())) | None => {}
                }
            }
        }
        let mut config: Self =
            table.try_into().map_err(|error: toml::de::Error| describe_value_error(&error))?;
        config.unusable = unusable;
        Ok(config)
    }

    /// Fails if this member of a section needs an environment variable that is not set.
    pub(super) fn check_usable(&self, section: &'static str, name: &str) -> Result<(), String> {
        self.unusable.get(&(section, name.to_owned())).map_or(Ok(()), |reason| Err(reason.clone()))
    }
}

/// Why the environment variables in a value cannot be replaced.
enum SubstitutionError {
    /// A variable is not set.
    Missing(String),
    /// The value has no equivalent in JSON, or `${` is not closed.
    Invalid(String),
}

/// Replaces environment variables in all strings of a value. `path` names the value in errors.
fn substitute(
    value: &mut toml::Value,
    path: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(), SubstitutionError> {
    let invalid = |reason: &str| Err(SubstitutionError::Invalid(format!("{path}: {reason}")));
    match value {
        toml::Value::String(text) => {
            *text = substitute_text(text, path, variable)?;
            Ok(())
        }
        toml::Value::Datetime(_) => invalid("a date is not a JSON value: write it as a string"),
        toml::Value::Float(number) if !number.is_finite() => invalid(&format!("{number} is not JSON")),
        toml::Value::Array(values) => {
            values.iter_mut().try_for_each(|value| substitute(value, path, variable))
        }
        toml::Value::Table(table) => table
            .iter_mut()
            .try_for_each(|(key, value)| substitute(value, &format!("{path}.{key}"), variable)),
        _ => Ok(()),
    }
}

/// Replaces `${NAME}` by the environment variable, and `$${` by `${`.
fn substitute_text(
    text: &str,
    path: &str,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<String, SubstitutionError> {
    let (mut replaced, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            replaced.extend([literal, "${"]);
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').ok_or_else(|| {
            SubstitutionError::Invalid(format!("{path}: `${{` without `}}`: write `$${{` for a plain `${{`"))
        })?;
        let value = variable(name).ok_or_else(|| {
            SubstitutionError::Missing(format!("{path}: the environment variable {name} is not set"))
        })?;
        replaced.push_str(before);
        replaced.push_str(&value);
        rest = after;
    }
    replaced.push_str(rest);
    Ok(replaced)
}

/// Describes a syntax error by its line, column and message. It does not quote the line, as the parser does,
/// because the line may hold a secret.
fn describe_syntax_error(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    format!("line {line}, column {column}: {}", error.message())
}

/// Describes an error in a key or a value. For an unknown key, it adds the most similar known one. It does
/// not quote the value, as serde does, because the value may be a secret.
fn describe_value_error(error: &toml::de::Error) -> String {
    let text = redact_value(&error.to_string());
    let quoted: Vec<&str> = error.message().split('`').skip(1).step_by(2).collect();
    let nearest = match quoted.split_first() {
        Some((unknown, known)) if error.message().starts_with("unknown field") => {
            find_nearest(unknown, known)
        }
        _ => None,
    };
    match nearest {
        Some(name) => format!("{}; did you mean `{name}`?", text.trim_end()),
        None => text.trim_end().to_owned(),
    }
}

/// Replaces the value that a message of serde quotes.
fn redact_value(message: &str) -> String {
    for (quotes, kind) in [
        ("invalid type: string \"", "a string"),
        ("invalid value: string \"", "this string"),
        ("unknown variant `", "this word"),
    ] {
        if let Some(start) = message.find(quotes)
            && let Some(end) = message.rfind(", expected ")
        {
            let problem = quotes.split_once(": ").map_or(String::new(), |(text, _)| format!("{text}: "));
            return format!("{}{problem}{kind}{}", &message[..start], &message[end..]);
        }
    }
    message.to_owned()
}

/// Returns the known name that is most similar to this one, or `None` if none is similar.
pub(super) fn find_nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let similarity = |known: &&str| strsim::jaro_winkler(name, known);
    let best = known.iter().copied().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(&best) > 0.7).then_some(best)
}

fn deserialize_size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let size: ByteSize = text
        .parse()
        .map_err(|_| serde::de::Error::custom("it is not a size: write for example \"32MiB\""))?;
    if size.as_u64() == 0 {
        return Err(serde::de::Error::custom("it must be greater than 0: write for example \"32MiB\""));
    }
    Ok(Some(usize::try_from(size.as_u64()).unwrap_or(usize::MAX)))
}

/// Deserializes properties by name. Errors do not quote the values, because some are secrets.
fn deserialize_properties<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let invalid = |reason: &str| serde::de::Error::custom(reason);
    let toml::Value::Table(table) = toml::Value::deserialize(deserializer)? else {
        return Err(invalid("properties must be a table: write { \"client.id\" = \"billing\" }"));
    };
    let property = |(name, value)| match value {
        toml::Value::String(text) => Ok((name, text)),
        toml::Value::Integer(number) => Ok((name, number.to_string())),
        toml::Value::Boolean(value) => Ok((name, value.to_string())),
        _ => Err(invalid(&format!("properties.{name}: write a string, and quote a name that has dots"))),
    };
    table.into_iter().map(property).collect()
}

fn deserialize_duration<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    // The error of `humantime` quotes the value, which may be a secret.
    humantime::parse_duration(&text)
        .map(Some)
        .map_err(|_| serde::de::Error::custom("it is not a duration: write for example \"500ms\" or \"2s\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, |name| match name {
            "HOME_LOG" => Some("dir:./home".to_owned()),
            "TOKEN" => Some("sEcReT\", expected sEcReT".to_owned()),
            _ => None,
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
    fn a_limit_of_zero_is_refused() {
        for text in ["[limits]\nmemory = \"0\"", "[limits]\nmemory = \"much\""] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("memory") && error.contains("32MiB"), "{error}");
        }
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
