//! Opens logs from a URL, the configuration, and `-X` properties.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use crate::cli::CliError;
use crate::cli::args::{PropertyArgs, TopicArgs};
use crate::log::{self, Log, LogOptions};

/// Opens a log with options. Properties in the arguments override them.
pub(super) fn open(
    url: &str,
    mut options: LogOptions,
    args: &PropertyArgs,
) -> Result<Arc<dyn Log>, CliError> {
    for property in &args.property {
        set_property(&mut options, property).map_err(|reason| CliError::Usage(format!("-X {reason}")))?;
    }
    Ok(log::open_with(url, options)?)
}

/// Opens the log that the arguments of a command on a topic name.
pub(super) fn open_for_topic(target: &TopicArgs) -> Result<Arc<dyn Log>, CliError> {
    open(&target.log, LogOptions::default(), &target.property)
}

/// Sets the property in `NAME=VALUE`. Errors do not quote the value, which may be a secret.
fn set_property(options: &mut LogOptions, property: &str) -> Result<(), String> {
    let (name, value) =
        property.split_once('=').ok_or("needs NAME=VALUE, for example -X client.id=billing".to_owned())?;
    let expected = |text: &str| format!("{name} has an invalid value: write {text}");
    match name {
        "isolation" => {
            options.isolation =
                parse_word(value).ok_or_else(|| expected("read_committed or read_uncommitted"))?
        }
        "acks" => options.acks = parse_word(value).ok_or_else(|| expected("all or leader"))?,
        "idempotence" => options.idempotence = value.parse().map_err(|_| expected("true or false"))?,
        "oauth_token_file" => options.oauth_token_file = Some(value.into()),
        "stale_after" => {
            options.stale_after =
                parse_duration(value).ok_or_else(|| expected("a duration, for example 10s"))?
        }
        name => drop(options.properties.insert(name.to_owned(), value.to_owned())),
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
    fn properties_set_our_options_or_librdkafkas() {
        let mut options = LogOptions::default();
        for property in [
            "isolation=read_uncommitted",
            "acks=leader",
            "idempotence=false",
            "stale_after=3s",
            "sasl.password=a=b",
        ] {
            set_property(&mut options, property).unwrap();
        }
        assert_eq!((options.isolation, options.acks), (Isolation::ReadUncommitted, Acks::Leader));
        assert_eq!((options.idempotence, options.stale_after), (false, Duration::from_secs(3)));
        assert_eq!(options.properties["sasl.password"], "a=b");
    }

    #[test]
    fn errors_do_not_quote_values() {
        for property in
            ["isolation=sEcReT", "acks=sEcReT", "idempotence=sEcReT", "stale_after=sEcReT", "sEcReT"]
        {
            let reason = set_property(&mut LogOptions::default(), property).unwrap_err();
            assert!(!reason.contains("sEcReT"), "{reason}");
        }
    }
}
