//! Opens a log by its URL.

use std::path::Path;
use std::sync::Arc;

use crate::log::dir::DirLog;
#[cfg(feature = "kafka")]
use crate::log::kafka::KafkaLog;
use crate::log::{Log, LogError, LogOptions};

/// Opens the log at a URL, `kafka://HOST:PORT,…` or `dir:PATH`, with default options.
///
/// # Errors
///
/// As [`open_with`].
pub fn open(url: &str) -> Result<Arc<dyn Log>, LogError> {
    open_with(url, LogOptions::default())
}

/// Opens the log at a URL with these options. Does not connect to a cluster: the first request shows whether
/// the cluster can be reached.
///
/// # Errors
///
/// [`LogError::InvalidUrl`] if the URL is not the URL of a log, [`LogError::InvalidProperty`] if an option is not valid,
/// [`LogError::Client`] or [`LogError::Io`] if the log cannot be opened.
pub fn open_with(url: &str, options: LogOptions) -> Result<Arc<dyn Log>, LogError> {
    let invalid_url = |reason: &str| {
        // The part before an @ may be a password.
        let redacted = url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("…@{host}"));
        Err(LogError::InvalidUrl { url: redacted, reason: reason.to_owned() })
    };
    match url.split_once(':') {
        Some(("dir", "")) => invalid_url("the path of the folder is missing"),
        Some(("dir", path)) if Path::new(path).starts_with("~") => {
            invalid_url("`~` is not replaced in a URL: write the whole path, for example dir:$HOME/data")
        }
        Some(("dir", path)) => {
            options.validate()?;
            match options.properties.keys().next().cloned() {
                None => Ok(Arc::new(DirLog::open(path, options.stale_after))),
                Some(name) => {
                    let reason = "a directory log has no client properties; remove it".to_owned();
                    Err(LogError::InvalidProperty { name, reason })
                }
            }
        }
        #[cfg(feature = "kafka")]
        Some(("kafka", brokers)) => match brokers.strip_prefix("//") {
            None => invalid_url("`kafka:` must be followed by two slashes, `//`"),
            Some(brokers) => {
                let brokers = brokers.trim_end_matches('/');
                match brokers.split(',').try_for_each(check_broker) {
                    Ok(()) => Ok(Arc::new(KafkaLog::open(brokers, options)?)),
                    Err(reason) => invalid_url(reason),
                }
            }
        },
        #[cfg(not(feature = "kafka"))]
        Some(("kafka", _)) => invalid_url("this program was built without the feature `kafka` of ktables"),
        _ => invalid_url("it must begin with `kafka://` or `dir:`"),
    }
}

/// Checks that an address has the form `HOST:PORT`.
#[cfg(feature = "kafka")]
fn check_broker(broker: &str) -> Result<(), &'static str> {
    if broker.contains('@') {
        return Err(
            "it contains a user or a password; set them as properties (sasl.username, sasl.password)",
        );
    }
    // The colons of an IPv6 address are within brackets.
    let after_brackets = broker.rsplit_once(']').map_or(broker, |(_, after)| after);
    let port = after_brackets.rsplit_once(':').map(|(_, port)| port);
    match port {
        None if broker.is_empty() => Err("an address is empty"),
        None => Err("an address has no port (brokers usually listen on 9092)"),
        Some(port) if port.parse::<u16>().ok().is_none_or(|port| port == 0) => {
            Err("a port is not a number from 1 to 65535")
        }
        Some(port) => {
            let host = &broker[..broker.len() - port.len() - 1];
            let is_host = !host.is_empty() && !host.contains(['/', ' ']);
            if is_host { Ok(()) } else { Err("a host is neither a host name nor an IP address") }
        }
    }
}
