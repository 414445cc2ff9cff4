//! `ktables:codec/logging`: guests write log messages.

use std::time::Instant;

use wasmtime::component::HasSelf;

use crate::codec::RejectReason;
use crate::escape::{one_line, one_line_within};
use crate::wasm::bindings::v0_1::ktables::codec::logging;
use crate::wasm::guest_log::Admission;
use crate::wasm::imports::import::Import;
use crate::wasm::limits::MAX_NAME_BYTES;
use crate::wasm::state::State;

pub(super) const IMPORT: Import = Import {
    name: "logging",
    add_to_linker: |linker| logging::add_to_linker::<_, HasSelf<State>>(linker, |state| state),
};

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, message: String) {
        self.run_import(|state| write_message(state, level, &message));
    }
}

/// Writes a message of a guest into the host's log, within the component's rate limit.
fn write_message(state: &mut State, level: logging::Level, message: &str) {
    if level == logging::Level::Error {
        // A reject reason holds no more bytes.
        let end = message.floor_char_boundary(RejectReason::MESSAGE_BYTES);
        state.last_error = Some(message[..end].to_owned());
    }
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
