//! A configuration as it is in effect, without its secrets.

use std::path::Path;

use crate::config::substitution::is_substituted;
use crate::config::{Config, ConfigError, SERVER_SECTIONS};

/// What is shown in place of a secret.
const HIDDEN: &str = "(hidden)";

/// A setting whose name contains one of these is a secret. Separators in names do not count.
const SECRETS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "jaas",
    "private",
    "apikey",
    "encryptionkey",
    "keypem",
    "userinfo",
];

/// Unless its name ends with one of these: it names a file, a hash or a method then.
const NOT_SECRET: [&str; 4] = ["_file", ".location", "_sha256", ".mechanism"];

/// Settings that hold several others as one text, with secrets among them.
const MIXED: [&str; 1] = ["sasl.oauthbearer.config"];

impl Config {
    /// Returns the configuration of a file as TOML, with its defaults. Secrets are hidden: settings that are named like one,
    /// passwords in addresses, and what the properties of logs and the configurations of codecs take from variables and
    /// files. Sections that cannot be used are left out.
    pub(crate) fn show(path: &Path) -> Result<String, ConfigError> {
        let text = Self::read_text(path)?;
        let config = Self::of_text(&text, path)?;
        let invalid = |reason: String| ConfigError::Invalid(format!("{}: {reason}", path.display()));
        let written: toml::Table =
            text.parse().map_err(|error: toml::de::Error| invalid(error.message().to_owned()))?;
        let unusable = SERVER_SECTIONS.iter().filter(|section| config.check_usable(section, "").is_err());
        let unusable: Vec<_> = unusable.collect();
        let mut shown =
            toml::Table::try_from(config.with_defaults()).map_err(|error| invalid(error.to_string()))?;
        for section in unusable {
            shown.remove(*section);
        }
        shown.iter_mut().for_each(|(_, value)| escape(value));
        for (section, setting) in [("logs", "properties"), ("codecs", "config")] {
            let Some(toml::Value::Table(members)) = shown.get_mut(section) else { continue };
            for (name, member) in members.iter_mut() {
                let written = written.get(section).and_then(|section| section.get(name)?.get(setting));
                if let (Some(shown), Some(written)) = (member.get_mut(setting), written) {
                    show_as_written(shown, written);
                }
            }
        }
        shown.iter_mut().for_each(|(name, value)| hide_secrets(name, value, false));
        toml::to_string(&shown).map_err(|error| invalid(error.to_string()))
    }
}

/// Writes texts as a file has them: `${` would name something.
fn escape(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => *text = text.replace("${", "$${"),
        toml::Value::Array(values) => values.iter_mut().for_each(escape),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| escape(value)),
        _ => {}
    }
}

/// Replaces texts that are nothing but variables and files by what the file of the configuration has, and hides those that
/// are so in part.
fn show_as_written(shown: &mut toml::Value, written: &toml::Value) {
    match (shown, written) {
        (toml::Value::String(shown), toml::Value::String(text)) => {
            if is_reference(text) {
                shown.clone_from(text);
            } else if is_substituted(text) {
                HIDDEN.clone_into(shown);
            }
        }
        (toml::Value::Table(shown), toml::Value::Table(written)) => {
            for (name, value) in shown.iter_mut() {
                if let Some(written) = written.get(name) {
                    show_as_written(value, written);
                }
            }
        }
        (toml::Value::Array(shown), toml::Value::Array(written)) => {
            shown.iter_mut().zip(written).for_each(|(shown, written)| show_as_written(shown, written));
        }
        _ => {}
    }
}

/// Whether a text of a file is one variable or file, and nothing else. It only says where a secret comes from.
fn is_reference(text: &str) -> bool {
    text.strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|name| !name.contains(['$', '{', '}']))
}

/// Hides the values that are named like secrets, with everything in them, and passwords in addresses.
fn hide_secrets(name: &str, value: &mut toml::Value, is_in_secret: bool) {
    let lower = name.to_lowercase();
    let plain: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    let is_secret =
        SECRETS.iter().any(|part| plain.contains(part)) && !NOT_SECRET.iter().any(|end| lower.ends_with(end));
    let is_secret = is_in_secret || is_secret || MIXED.contains(&&*lower);
    match value {
        // The name of a table or a log is no setting.
        toml::Value::Table(table) => {
            let is_section = table.values().all(toml::Value::is_table);
            table.iter_mut().for_each(|(name, value)| hide_secrets(name, value, is_secret && !is_section));
        }
        toml::Value::Array(values) => {
            values.iter_mut().for_each(|value| hide_secrets(name, value, is_secret))
        }
        toml::Value::String(text) if is_secret && is_reference(text) => {}
        value if is_secret => *value = toml::Value::String(HIDDEN.to_owned()),
        toml::Value::String(text) => {
            if let Some((scheme, rest)) = text.split_once("://")
                && let Some((_, address)) = rest.rsplit_once('@')
            {
                *text = format!("{scheme}://{HIDDEN}@{address}");
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_defaults_and_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ktables.toml");
        std::fs::write(folder.path().join("key.txt"), "sEcReT-1\r\n").unwrap();
        let text = r#"
            [logs.prod]
            url = "kafka://b:1"
            properties = { "sasl.password" = "sEcReT-2", "ssl.key.pem" = "sEcReT-3", "client.id" = "${file:key.txt}" }
            [codecs.c]
            component = "c.wasm"
            config = { region = "eu", registry = "https://me:sEcReT-5@host/x", keys = [{ apiToken = "sEcReT-4" }], other = "${file:key.txt}", "api_key" = "${file:key.txt}", credentials = { user = "sEcReT-6" }, mixed = "sEcReT-7-${file:key.txt}", "api-key" = "a$${sEcReT-8", plain = "a$${b" }
            [tables.t]
            log = "prod"
            topic = "t"
            ttl = "90m"
            [server]
            admin_token_file = "admin"
            [access.clients.a]
            token_sha256 = "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"
        "#;
        std::fs::write(&file, text).unwrap();
        let shown = Config::show(&file).unwrap();
        assert!(!shown.contains("sEcReT"), "{shown}");
        let parsed: toml::Table = shown.parse().unwrap();
        let get = |path: &str| {
            let value = toml::Value::Table(parsed.clone());
            path.split('/').fold(value, |value, name| value[name].clone()).to_string()
        };
        assert_eq!(get("logs/prod/properties/sasl.password"), "\"(hidden)\"");
        assert_eq!(get("logs/prod/stale_after"), "\"10s\"");
        assert_eq!(get("codecs/c/config/other"), "\"${file:key.txt}\"");
        assert_eq!(get("codecs/c/config/region"), "\"eu\"");
        assert_eq!(get("codecs/c/limits/memory"), "\"64MiB\"");
        assert_eq!((get("tables/t/ttl"), get("tables/t/verify")), ("\"1h 30m\"".into(), "\"equal\"".into()));
        assert_eq!(get("server/max_body"), "\"16MiB\"");
        assert!(get("access/clients/a/token_sha256").contains("4bf5"));
        assert_eq!(get("codecs/c/config/plain"), "\"a$${b\"");
        // It is a configuration itself.
        std::fs::write(&file, &shown).unwrap();
        assert_eq!(Config::show(&file).unwrap(), shown);
    }
}
