//! The codecs of a topic.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::codec::{ComponentId, GroupScheme, Json, KeyCodec, Utf8, ValueCodec};

/// The length of a fingerprint: long enough that two sets of codecs do not share one by chance.
const FINGERPRINT_BYTES: usize = 8;

/// The codecs of a topic. Tables decode with them, and writers encode with them.
#[derive(Debug, Clone)]
pub struct Codecs {
    /// The codec of keys.
    pub key: Arc<dyn KeyCodec>,
    /// The codec of values.
    pub value: Arc<dyn ValueCodec>,
    /// The group scheme; `None` for a table without groups.
    pub group_scheme: Option<Arc<dyn GroupScheme>>,
}

impl Codecs {
    /// Returns a name for the first codec, in the order value, key, group scheme, that is not built in: the digest of its component, or the address
    /// in memory of a native codec. Codecs with the same name share a lane of the workers. `None` if all
    /// codecs are built in.
    pub(crate) fn guest_name(&self) -> Option<String> {
        let name = |component: Option<&ComponentId>, address: *const ()| {
            component.map_or_else(|| format!("{address:p}"), |component| component.digest.clone())
        };
        let Self { key, value, group_scheme } = self;
        if !value.is_built_in() {
            return Some(name(value.component(), Arc::as_ptr(value).cast()));
        }
        if !key.is_built_in() {
            return Some(name(key.component(), Arc::as_ptr(key).cast()));
        }
        let scheme = group_scheme.as_ref().filter(|scheme| !scheme.is_built_in())?;
        Some(name(scheme.component(), Arc::as_ptr(scheme).cast()))
    }

    /// Returns a short hash of the codecs' identities. Two tables with the same fingerprint decode alike.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let scheme = self.group_scheme.as_ref().map_or_else(String::new, |scheme| scheme.identity());
        let mut hasher = Sha256::new();
        for identity in [self.key.identity(), self.value.identity(), scheme] {
            // The length separates the identities.
            hasher.update(identity.len().to_le_bytes());
            hasher.update(identity);
        }
        hasher.finalize().iter().take(FINGERPRINT_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Creates the codecs of a topic without groups.
    pub fn new(key: impl KeyCodec + 'static, value: impl ValueCodec + 'static) -> Self {
        Self { key: Arc::new(key), value: Arc::new(value), group_scheme: None }
    }
}

/// The default: keys are UTF-8 text, and values are JSON.
impl Default for Codecs {
    fn default() -> Self {
        Self::new(Utf8, Json)
    }
}
