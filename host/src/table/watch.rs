//! Watching a table: the entries, then every change.
//!
//! The table publishes batches of effects into a bounded [`History`](history::History), which all
//! watchers read, each at its own pace ([`Subscription`](subscription::Subscription)). A watcher
//! that keeps up keeps no view in memory. One that falls behind continues with the difference between
//! what it has seen and the newest view. So a slow watcher never slows the table.

mod event;
mod filter;
mod history;
mod hub;
mod listing;
mod resume;
mod subscription;
mod subscriptions;
mod token;
mod watcher;

pub use event::WatchEvent;
pub use filter::WatchFilter;
pub use history::MAX_HISTORY_EFFECTS;
pub(super) use hub::{Hub, SharedHub};
pub(super) use resume::{MAX_REPLAY_BYTES, ReplayMemory, ReplayedEffects, Resume};
pub(super) use token::Source;
pub use token::{InvalidToken, WatchToken};
pub use watcher::{WatchStart, Watcher};
