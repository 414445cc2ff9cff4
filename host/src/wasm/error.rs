//! Why a component cannot be used at all. What happens to single records is a
//! [`RejectReason`](crate::codec::RejectReason).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::escape::{name as shown, one_line};
use crate::wasm::interfaces::SUPPORTED_VERSIONS;

/// Why a component cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WasmError {
    /// The file cannot be read or the cache not used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The file is not the one that was approved.
    #[error(
        "component {} has digest {actual}, but {expected} is required: it is not the file that was approved. `ktables codec inspect` prints the digest to approve, sha256:…",
        shown(name)
    )]
    Digest {
        /// The component's file name.
        name: String,
        /// What the configuration names.
        expected: String,
        /// What the file has.
        actual: String,
    },
    /// The digest that is required is none.
    #[error(
        "`{digest}` is no digest: write sha256: and 64 hexadecimal digits, as `ktables codec inspect` prints it"
    )]
    InvalidDigest {
        /// What was given, cut if it is longer than a digest.
        digest: String,
    },
    /// The component breaks a rule of this host.
    #[error(
        "component {} is refused:\n{}\nSupported: WIT package ktables:codec {SUPPORTED_VERSIONS}.",
        shown(name),
        list(reasons)
    )]
    Refused {
        /// The component's file name.
        name: String,
        /// Every reason, with what to do.
        reasons: Vec<String>,
    },
    /// The component lacks what it is wanted for.
    #[error(
        "component {} cannot be a {wanted}: it exports none of {expected}; it has {}",
        shown(name),
        one_line(has)
    )]
    MissingExport {
        /// The component's name.
        name: String,
        /// What it was to be.
        wanted: &'static str,
        /// The interfaces that would do.
        expected: String,
        /// What it exports.
        has: String,
    },
    /// The component does not accept its configuration, in its own words.
    #[error("component {} does not accept its configuration: {}", shown(name), one_line(message))]
    Configuration {
        /// The component's name.
        name: String,
        /// What it said.
        message: String,
    },
    /// The component broke down before its first record.
    #[error("component {} failed while it was {action}: {}", shown(name), one_line(message))]
    Failed {
        /// The component's name.
        name: String,
        /// What it was asked.
        action: &'static str,
        /// What happened.
        message: String,
    },
    /// The engine cannot be made or cannot run the component now.
    #[error("the component engine failed: {reason}")]
    Engine {
        /// What failed, and what to do.
        reason: String,
    },
}

impl WasmError {
    /// For `map_err` behind a call to the file system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }
}

fn list(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("  - {}", one_line(reason))).collect::<Vec<_>>().join("\n")
}
