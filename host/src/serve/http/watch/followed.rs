//! A table of a watch: it is followed as soon as it is loaded.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};

use super::request::Request;
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::http::groups::require_groups;
use crate::serve::http::reading::failed;
use crate::serve::problem::Problem;
use crate::serve::tables::ServedTable;
use crate::table::{Status, WatchEvent, WatchFilter, WatchStart, WatchToken, Watcher};

/// How long a watch waits for a table that is behind its token.
const BEHIND_TIMEOUT: Duration = Duration::from_secs(5);

/// A table of a watch.
pub(super) struct FollowedTable {
    pub(super) table: Arc<ServedTable>,
    pub(super) has_old: bool,
    stage: Stage,
    /// Whether `synced` must be sent once nothing more is ready: the watcher does not send it itself.
    must_sync: bool,
    /// The status that is sent first.
    first_status: Option<Status>,
    /// Whether `restarted` must be sent before the entries.
    must_restart: bool,
    /// Where to resume after what was delivered, as far as there is a place.
    last_token: Option<WatchToken>,
}

/// What a table of a watch is doing.
enum Stage {
    /// It is loading. Its watcher begins when it is loaded.
    Loading(BoxFuture<'static, ()>, Request),
    Following(Watcher),
    Ended,
}

impl Drop for FollowedTable {
    fn drop(&mut self) {
        self.table.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FollowedTable {
    /// Begins to follow a table, if the caller may read it. Waits if the table is behind the caller's token.
    pub(super) async fn open(call: &Call, name: String, request: Request) -> Result<Self, Problem> {
        let table = call.table(Role::Read, &name)?;
        if matches!(request.filter, WatchFilter::Group(_)) {
            require_groups(&table)?;
        }
        if let WatchStart::Since(token) = &request.start
            && !table.table.wait_for_token(token, BEHIND_TIMEOUT).await
        {
            if table.table.status().is_final() {
                return Err(failed(&table));
            }
            let detail =
                "this server has not read yet what the caller has seen: try again, or another server";
            return Err(Problem::unavailable("behind", "The table is behind the caller", detail));
        }
        let status = table.table.status();
        let mut followed = Self {
            has_old: request.has_old,
            stage: Stage::Ended,
            must_sync: !matches!(request.start, WatchStart::Entries),
            first_status: Some(status.clone()),
            must_restart: request.is_unknown,
            last_token: match &request.start {
                WatchStart::Since(token) => Some(token.clone()),
                _ => None,
            },
            table: table.clone(),
        };
        table.watchers.fetch_add(1, Ordering::Relaxed);
        if matches!(status, Status::Loading) {
            let table = table.table.clone();
            let loaded = async move {
                // OK to ignore: the watcher delivers the status.
                let _ = table.wait_until_ready().await;
            };
            followed.stage = Stage::Loading(loaded.boxed(), request);
        } else {
            followed.follow(request);
        }
        Ok(followed)
    }

    fn follow(&mut self, request: Request) {
        // A table that failed before it was complete has less than its topic, and a watcher must not take that for everything.
        if matches!(self.table.table.status(), Status::Failed(_))
            && self.table.table.stats().catch_up.is_none()
        {
            self.stage = Stage::Ended;
            return;
        }
        let watcher = self.table.table.watch(request.start).with_filter(request.filter);
        self.stage = Stage::Following(if request.is_every { watcher.every_change() } else { watcher });
    }

    /// Returns the next event, or `Ready(None)` after the table has ended.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        if let Some(status) = self.first_status.take() {
            return Poll::Ready(Some(WatchEvent::Status(status)));
        }
        if self.must_restart {
            self.must_restart = false;
            return Poll::Ready(Some(WatchEvent::Restarted));
        }
        loop {
            match &mut self.stage {
                Stage::Loading(loaded, request) => {
                    std::task::ready!(loaded.poll_unpin(context));
                    let request = request.clone();
                    self.follow(request);
                    return Poll::Ready(Some(WatchEvent::Status(self.table.table.status())));
                }
                Stage::Following(watcher) => match Pin::new(&mut *watcher).poll_next(context) {
                    Poll::Ready(None) => self.stage = Stage::Ended,
                    Poll::Ready(Some(event)) => {
                        if matches!(event, WatchEvent::Restarted) {
                            // The watcher sends it after the entries, and nobody can continue before them.
                            (self.must_sync, self.last_token) = (false, None);
                        }
                        return Poll::Ready(Some(event));
                    }
                    Poll::Pending if self.must_sync && watcher.is_current() => {
                        self.must_sync = false;
                        return Poll::Ready(Some(WatchEvent::Synced));
                    }
                    Poll::Pending => return Poll::Pending,
                },
                Stage::Ended => return Poll::Ready(None),
            }
        }
    }

    /// Whether the table was stopped: it was reloaded or removed, or the server stops.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.table.table.status(), Status::Stopped)
    }

    /// Returns the token to resume exactly after what was delivered; `None` if there is no such place now.
    pub(super) fn token(&mut self) -> Option<WatchToken> {
        let token = match &self.stage {
            Stage::Following(watcher) => watcher.token(),
            Stage::Loading(..) | Stage::Ended => None,
        };
        if token.is_some() {
            self.last_token.clone_from(&token);
        }
        token
    }

    /// Returns the last token: what came after it is delivered again.
    pub(super) fn last_token(&mut self) -> Option<WatchToken> {
        self.token().or_else(|| self.last_token.clone())
    }
}
