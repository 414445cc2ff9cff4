//! Writes messages, and the messages of panics, to the host's log.

/// The severity of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Details for the author of the component.
    Trace,
    /// Details for finding the cause of a problem.
    Debug,
    /// Useful information.
    Info,
    /// Something is wrong, but the codec continues.
    Warn,
    /// Something failed.
    Error,
}

/// Writes a message to the host's log, which shows it with the name of the component. Does nothing outside of
/// a component, such as in native tests.
pub fn log(level: Level, message: &str) {
    #[cfg(target_family = "wasm")]
    {
        use crate::bindings::logging::ktables::codec::logging;
        let level = match level {
            Level::Trace => logging::Level::Trace,
            Level::Debug => logging::Level::Debug,
            Level::Info => logging::Level::Info,
            Level::Warn => logging::Level::Warn,
            Level::Error => logging::Level::Error,
        };
        logging::log(level, message);
    }
    #[cfg(not(target_family = "wasm"))]
    let _ = (level, message);
}

/// Installs a panic hook that sends the message of each panic to the host, which shows it with the fault.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}
