//! The interfaces of the WIT package that components implement, and its versions.

use std::fmt;

/// The prefix of the names of interfaces in the host's WIT package.
pub(super) const PACKAGE: &str = "ktables:codec/";

/// The versions of the package that this host supports.
pub const SUPPORTED_VERSIONS: &str = "0.1.x";

/// An interface of the package that a component may export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the interface with this name")]
pub enum Interface {
    ValueCodec,
    ValueCodecBatch,
    KeyCodec,
    KeyCodecBatch,
    GroupScheme,
    GroupSchemeBatch,
    Plugin,
}

impl Interface {
    pub(super) const ALL: [Self; 7] = [
        Self::ValueCodec,
        Self::ValueCodecBatch,
        Self::KeyCodec,
        Self::KeyCodecBatch,
        Self::GroupScheme,
        Self::GroupSchemeBatch,
        Self::Plugin,
    ];

    /// Returns the name in the WIT package.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ValueCodec => "value-codec",
            Self::ValueCodecBatch => "value-codec-batch",
            Self::KeyCodec => "key-codec",
            Self::KeyCodecBatch => "key-codec-batch",
            Self::GroupScheme => "group-scheme",
            Self::GroupSchemeBatch => "group-scheme-batch",
            Self::Plugin => "plugin",
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Splits the full name of an interface of the package into name and version. `None` for other packages.
pub(super) fn split_name(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

/// Returns whether the host supports a version of the package.
pub(super) fn is_supported(version: &str) -> bool {
    version.strip_prefix("0.1.").is_some_and(|patch| patch.parse::<u32>().is_ok())
}
