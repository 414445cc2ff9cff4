//! What a codec needs from outside before it can go on.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// Obtains something that a codec asked for and the host did not have, such as a schema.
pub(crate) trait Obtain: Send + Sync {
    /// Waits until the host has it.
    ///
    /// # Errors
    ///
    /// Why the host does not have it yet.
    fn obtain(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// Something that a codec needs before it can go on. Once it is there, the call is made again.
#[derive(Clone)]
pub(crate) struct Need(Arc<dyn Obtain>);

impl Need {
    #[cfg(feature = "cli")]
    pub(crate) fn new(needed: impl Obtain + 'static) -> Self {
        Self(Arc::new(needed))
    }

    /// Waits until the host has it. The error says why it does not have it yet.
    pub(crate) async fn obtain(&self) -> Result<(), String> {
        self.0.obtain().await
    }
}

impl Debug for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What it needs may hold credentials.
        f.debug_struct("Need").finish_non_exhaustive()
    }
}

impl PartialEq for Need {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Need {}
