//! Opens logs from a URL, the configuration, and `-X` properties.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use crate::cli::CliError;
use crate::cli::args::{LogArgs, PropertyArgs};
use crate::config::LogConfig;
use crate::log::{self, Log};

/// Opens the log that the arguments name.
pub(super) fn open(args: &LogArgs) -> Result<Arc<dyn Log>, CliError> {
    let mut config = LogConfig::new(&args.log);
    set_properties(&mut config, &args.property)?;
    Ok(log::open_with(&config.url, config.options())?)
}

/// Sets the properties in the arguments.
pub(super) fn set_properties(config: &mut LogConfig, args: &PropertyArgs) -> Result<(), CliError> {
    args.property.iter().try_for_each(|property| {
        set_property(config, property).map_err(|reason| CliError::Usage(format!("-X {reason}")))
    })
}

/// Sets the property in `NAME=VALUE`. Errors do not quote the value, which may be a secret.
fn set_property(config: &mut LogConfig, property: &str) -> Result<(), String> {
    let (name, value) =
        property.split_once('=').ok_or("needs NAME=VALUE, for example -X client.id=billing".to_owned())?;
    let expected = |text: &str| format!("{name} has an invalid value: write {text}");
    match name {
        "isolation" => {
            config.isolation =
                parse_word(value).ok_or_else(|| expected("read_committed or read_uncommitted"))?
        }
        "acks" => config.acks = parse_word(value).ok_or_else(|| expected("all or leader"))?,
        "idempotence" => config.idempotence = value.parse().map_err(|_| expected("true or false"))?,
        "oauth_token_file" => config.oauth_token_file = Some(value.into()),
        "stale_after" => {
            config.stale_after =
                Some(parse_duration(value).ok_or_else(|| expected("a duration, for example 10s"))?)
        }
        name => drop(config.properties.insert(name.to_owned(), value.to_owned())),
    }
    Ok(())
}

/// Parses a value of an enum, as it is written in the configuration.
fn parse_word<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    let text: StrDeserializer<'_, Error> = text.into_deserializer();
    T::deserialize(text).ok()
}

fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Acks, Isolation};

    #[test]
    fn a_property_sets_an_option_of_the_log_or_of_librdkafka() {
        let mut config = LogConfig::new("dir:x");
        for property in [
            "isolation=read_uncommitted",
            "acks=leader",
            "idempotence=false",
            "stale_after=3s",
            "sasl.password=a=b",
        ] {
            set_property(&mut config, property).unwrap();
        }
        let options = config.options();
        assert_eq!((options.isolation, options.acks), (Isolation::ReadUncommitted, Acks::Leader));
        assert_eq!((options.idempotence, options.stale_after), (false, Duration::from_secs(3)));
        assert_eq!(options.properties["sasl.password"], "a=b");
    }

    #[test]
    fn errors_do_not_quote_values() {
        for property in
            ["isolation=sEcReT", "acks=sEcReT", "idempotence=sEcReT", "stale_after=sEcReT", "sEcReT"]
        {
            let reason = set_property(&mut LogConfig::new("dir:x"), property).unwrap_err();
            assert!(!reason.contains("sEcReT"), "{reason}");
        }
    }
}
