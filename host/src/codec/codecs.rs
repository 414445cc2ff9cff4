//! The codecs of a topic.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::codec::{ComponentId, GroupScheme, Json, KeyCodec, Utf8, ValueCodec};

/// The length of a fingerprint: enough that two sets of codecs never share one by chance.
const FINGERPRINT_BYTES: usize = 8;

/// The codecs of a topic: a table reads through them, a writer writes through them.
#[derive(Debug, Clone)]
pub struct Codecs {
    /// The codec of keys.
    pub key: Arc<dyn KeyCodec>,
    /// The codec of values.
    pub value: Arc<dyn ValueCodec>,
    /// The group scheme, which makes a table a grouped one.
    pub scheme: Option<Arc<dyn GroupScheme>>,
}

impl Codecs {
    /// Names the first codec that is not built in: by the digest of its component, or, if it is native,
    /// by its address in memory. Codecs with the same name share their workers.
    pub(crate) fn guest(&self) -> Option<String> {
        let name = |component: Option<&ComponentId>, address: *const ()| {
            component.map_or_else(|| format!("{address:p}"), |component| component.digest.clone())
        };
        let Self { key, value, scheme } = self;
        if !value.is_built_in() {
            return Some(name(value.component(), Arc::as_ptr(value).cast()));
        }
        if !key.is_built_in() {
            return Some(name(key.component(), Arc::as_ptr(key).cast()));
        }
        let scheme = scheme.as_ref().filter(|scheme| !scheme.is_built_in())?;
        Some(name(scheme.component(), Arc::as_ptr(scheme).cast()))
    }

    /// A short hash of what the codecs do: two tables with the same fingerprint decode alike.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let scheme = self.scheme.as_ref().map_or_else(String::new, |scheme| scheme.identity());
        let mut hasher = Sha256::new();
        for identity in [self.key.identity(), self.value.identity(), scheme] {
            // The length separates the identities.
            hasher.update(identity.len().to_le_bytes());
            hasher.update(identity);
        }
        hasher.finalize().iter().take(FINGERPRINT_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The codecs of a topic without groups.
    pub fn new(key: impl KeyCodec + 'static, value: impl ValueCodec + 'static) -> Self {
        Self { key: Arc::new(key), value: Arc::new(value), scheme: None }
    }
}

/// Keys are UTF-8 text, values are JSON.
impl Default for Codecs {
    fn default() -> Self {
        Self::new(Utf8, Json)
    }
}
