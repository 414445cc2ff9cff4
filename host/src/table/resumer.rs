//! Lets watchers resume from the log.

use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::table::generation::{replay, wait_until_reached};
use crate::table::shared::Shared;
use crate::table::view::View;
use crate::table::watch::{ReplayedEffects, Resume, WatchToken};

/// Lets watchers of a table resume from its log. Does not keep the log open.
pub(super) struct Resumer(pub(super) Weak<Shared>);

impl Resume for Resumer {
    fn wait_until_reached(&self, token: WatchToken) -> BoxFuture<'static, ()> {
        let shared = self.0.upgrade();
        async move {
            if let Some(shared) = shared {
                wait_until_reached(&shared, &token).await;
            }
        }
        .boxed()
    }

    fn replay(
        &self,
        token: WatchToken,
        view: Arc<View>,
        wants_every: bool,
    ) -> BoxFuture<'static, Option<ReplayedEffects>> {
        let shared = self.0.upgrade();
        let state = shared.as_ref().map(|shared| shared.reported());
        async move {
            let (shared, state) = (shared?, state?);
            if state.number != view.generation {
                return None;
            }
            replay(&shared, &state, &token, view, wants_every).await
        }
        .boxed()
    }
}
