//! Messages to the host's log, and panics among them.

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Detail for the author of the component.
    Trace,
    /// Detail for whoever looks for a fault.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is not as it should be; work goes on.
    Warn,
    /// Something failed.
    Error,
}

/// Writes to the host's log, under the component's name. Outside a component
/// (in native tests) it does nothing.
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

/// Sends panic messages to the host, which shows them with the fault.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}
