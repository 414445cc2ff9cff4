//! Lets watchers resume from the log.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::table::change::Effect;
use crate::table::generation::replay;
use crate::table::shared::Shared;
use crate::table::view::View;
use crate::table::watch::{Resume, WatchToken};

/// Lets watchers of a table resume from its log.
pub(super) struct Resumer(pub(super) Arc<Shared>);

impl Resume for Resumer {
    fn wait_until_served(&self) -> BoxFuture<'static, ()> {
        let shared = self.0.clone();
        async move {
            let mut published = shared.subscribe_published();
            while !shared.is_serving() && !shared.status().is_final() {
                // OK to ignore: the sender lives in `shared`.
                let _ = published.changed().await;
            }
        }
        .boxed()
    }

    fn replay(
        &self,
        token: WatchToken,
        view: Arc<View>,
        wants_every: bool,
    ) -> BoxFuture<'static, Option<Vec<Effect>>> {
        let state = self.0.reported();
        if state.number != view.generation {
            return async { None }.boxed();
        }
        replay(self.0.clone(), state, token, view, wants_every).boxed()
    }
}
