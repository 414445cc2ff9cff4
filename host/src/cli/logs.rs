//! From a URL, the configuration and `-X` to a log.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use crate::cli::CliError;
use crate::cli::args::{PropertyArgs, TopicArgs};
use crate::log::{self, Log, LogOptions};

/// Opens a log, used as the configuration says and the arguments say over it.
pub(super) fn open(
    url: &str,
    mut options: LogOptions,
    args: &PropertyArgs,
) -> Result<Arc<dyn Log>, CliError> {
    for property in &args.property {
        set(&mut options, property).map_err(|reason| CliError::Usage(format!("-X {reason}")))?;
    }
    Ok(log::open_with(url, options)?)
}

/// The log that a command on a topic names.
pub(super) fn of_topic(place: &TopicArgs) -> Result<Arc<dyn Log>, CliError> {
    open(&place.log, LogOptions::default(), &place.property)
}

/// Says what is wrong without the value, which may be a secret.
fn set(options: &mut LogOptions, property: &str) -> Result<(), String> {
    let (name, value) =
        property.split_once('=').ok_or("needs NAME=VALUE, for example -X client.id=billing".to_owned())?;
    let of = |text: &str| format!("{name}: write {text}");
    match name {
        "isolation" => {
            options.isolation = word(value).ok_or_else(|| of("read_committed or read_uncommitted"))?
        }
        "acks" => options.acks = word(value).ok_or_else(|| of("all or leader"))?,
        "idempotence" => options.idempotence = value.parse().map_err(|_| of("true or false"))?,
        "oauth_token_file" => options.oauth_token_file = Some(value.into()),
        "stale_after" => {
            options.stale_after = duration(value).ok_or_else(|| of("a duration, for example 10s"))?
        }
        name => drop(options.properties.insert(name.to_owned(), value.to_owned())),
    }
    Ok(())
}

/// One of a few words, as the configuration has it.
fn word<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    let text: StrDeserializer<'_, Error> = text.into_deserializer();
    T::deserialize(text).ok()
}

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Acks, Isolation};

    #[test]
    fn a_property_is_ours_or_librdkafkas() {
        let mut options = LogOptions::default();
        for property in [
            "isolation=read_uncommitted",
            "acks=leader",
            "idempotence=false",
            "stale_after=3s",
            "sasl.password=a=b",
        ] {
            set(&mut options, property).unwrap();
        }
        assert_eq!((options.isolation, options.acks), (Isolation::ReadUncommitted, Acks::Leader));
        assert_eq!((options.idempotence, options.stale_after), (false, Duration::from_secs(3)));
        assert_eq!(options.properties["sasl.password"], "a=b");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        for property in
            ["isolation=sEcReT", "acks=sEcReT", "idempotence=sEcReT", "stale_after=sEcReT", "sEcReT"]
        {
            let reason = set(&mut LogOptions::default(), property).unwrap_err();
            assert!(!reason.contains("sEcReT"), "{reason}");
        }
    }
}
