//! `ktables:codec/logging`: guests write log messages.

use std::time::Instant;

use wasmtime::component::HasSelf;

use crate::escape::{one_line, one_line_within};
use crate::wasm::bindings::v0_1::ktables::codec::logging;
use crate::wasm::guest_log::Admission;
use crate::wasm::guest_output::About;
use crate::wasm::imports::import::Import;
use crate::wasm::limits::MAX_NAME_BYTES;
use crate::wasm::state::State;

pub(super) const IMPORT: Import = Import {
    name: "logging",
    about: "writes log messages, within a rate limit",
    add_to_linker: |linker| logging::add_to_linker::<_, HasSelf<State>>(linker, |state| state),
};

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, message: String) {
        // Before the host's time begins: the guest's deadline counts what grows with its message.
        let line = message.trim_end();
        self.run_import(|state| {
            match level {
                logging::Level::Trace | logging::Level::Debug => {}
                logging::Level::Info | logging::Level::Warn => {
                    state.output.write_message(&message, About::Other)
                }
                logging::Level::Error => state.output.write_message(&message, About::Error),
            }
            // A runtime prints line breaks apart from the text before them.
            if !line.is_empty() {
                write_line(state, level, line);
            }
        });
    }
}

/// Writes a message of a guest into the host's log, within the component's rate limit.
fn write_line(state: &mut State, level: logging::Level, message: &str) {
    let component = one_line_within(&state.id.name, MAX_NAME_BYTES);
    let digest = &state.id.digest;
    let dropped = match state.log_limiter.admit(Instant::now(), message.len()) {
        Admission::Dropped => return,
        Admission::Admitted { dropped } => dropped,
    };
    if dropped > 0 {
        tracing::warn!(
            target: "ktables::guest",
            %component,
            digest,
            "dropped {dropped} log messages of the component, because it exceeded its rate limit"
        );
    }
    let message = one_line(message);
    match level {
        logging::Level::Trace => {
            tracing::trace!(target: "ktables::guest", %component, digest, "{message}")
        }
        logging::Level::Debug => {
            tracing::debug!(target: "ktables::guest", %component, digest, "{message}")
        }
        logging::Level::Info => tracing::info!(target: "ktables::guest", %component, digest, "{message}"),
        logging::Level::Warn => tracing::warn!(target: "ktables::guest", %component, digest, "{message}"),
        logging::Level::Error => {
            tracing::error!(target: "ktables::guest", %component, digest, "{message}")
        }
    }
}
