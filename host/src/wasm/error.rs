//! The errors of components that cannot be used at all. The failure of a single record is a
//! [`RejectReason`](crate::codec::RejectReason).

use std::io;
use std::path::Path;

use crate::escape::{escape_name, one_line};
use crate::file::FileError;
use crate::wasm::interfaces::SUPPORTED_VERSIONS;

/// Why a component cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WasmError {
    /// A file or folder could not be read or written.
    #[error(transparent)]
    Io(#[from] FileError),
    /// The file's digest is not the one that the configuration requires.
    #[error(
        "component {} has digest {actual}, but {expected} is required: it is not the file that was approved. \
         `ktables codec inspect` prints the digest to approve, sha256:…",
        escape_name(name)
    )]
    DigestMismatch {
        /// The component's file name.
        name: String,
        /// The digest that the configuration requires.
        expected: String,
        /// The digest of the file.
        actual: String,
    },
    /// The required digest is malformed.
    #[error(
        "`{digest}` is not a digest: write sha256: and 64 hexadecimal digits, as `ktables codec inspect` \
         prints it"
    )]
    InvalidDigest {
        /// The malformed digest, truncated if it is long.
        digest: String,
    },
    /// The component exceeds a limit, or imports or exports something that this host does not support.
    #[error(
        "component {} is refused:\n{}\nSupported: WIT package ktables:codec {SUPPORTED_VERSIONS}.",
        escape_name(name),
        format_list(reasons)
    )]
    Refused {
        /// The component's file name.
        name: String,
        /// Every reason to refuse the component, with what to do.
        reasons: Vec<String>,
    },
    /// The component does not export the interface that its use requires.
    #[error(
        "component {} cannot be a {wanted}: it exports none of {expected}; it exports {}",
        escape_name(name),
        one_line(has)
    )]
    MissingExport {
        /// The component's name.
        name: String,
        /// The intended use, for example `key codec`.
        wanted: &'static str,
        /// The interfaces of which it must export one.
        expected: String,
        /// The interfaces that it exports.
        has: String,
    },
    /// The component does not accept its configuration.
    #[error("component {} does not accept its configuration: {}", escape_name(name), one_line(message))]
    InvalidConfiguration {
        /// The component's name.
        name: String,
        /// The component's message.
        message: String,
    },
    /// The component faulted before its first record.
    #[error("component {} failed while it was {action}: {}", escape_name(name), one_line(message))]
    Faulted {
        /// The component's name.
        name: String,
        /// What the host was doing with it, as a participle.
        action: &'static str,
        /// The fault.
        message: String,
    },
    /// The engine cannot be created, or cannot run the component now.
    #[error("the component engine failed: {reason}")]
    Engine {
        /// What failed, and what to do.
        reason: String,
    },
}

impl WasmError {
    /// Returns a function for `map_err` after a call to the file system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        FileError::of(action, path)
    }
}

/// Formats reasons as a list, one on each line.
fn format_list(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("  - {}", one_line(reason))).collect::<Vec<_>>().join("\n")
}
