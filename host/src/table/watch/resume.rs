//! How a watcher resumes where the history does not reach: the table reads the log again.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::table::change::Effect;
use crate::table::view::View;
use crate::table::watch::token::WatchToken;

/// What a watcher needs of its table to resume.
pub(in crate::table) trait Resume: Send + Sync {
    /// Waits until the served view has reached a token. Returns early if it never will, and after a
    /// timeout.
    fn wait_until_reached(&self, token: WatchToken) -> BoxFuture<'static, ()>;

    /// Reads what led from a token to a view from the log: every effect, or those of the newest record
    /// of each key. `None` if the log no longer has it, or if it is too much.
    fn replay(
        &self,
        token: WatchToken,
        view: Arc<View>,
        wants_every: bool,
    ) -> BoxFuture<'static, Option<Vec<Effect>>>;
}
