//! The body of a watch: events of its tables, bookmarks while nothing happens, and a farewell.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use futures_util::{Stream, StreamExt, stream};
use rand::RngExt as _;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::followed::FollowedTable;
use super::request::combine;
use crate::serve::access::Role;
use crate::serve::http::call::Call;
use crate::serve::server::Server;
use crate::serve::shares::Share;
use crate::table::WatchEvent;
use crate::wire::WatchJson;

/// The id of `restarted`: whoever continues from it starts again, because it has not yet received all entries.
const RESTART: &str = "restart";

/// How many bytes of events are sent at once.
const CHUNK_BYTES: usize = 32 << 10;

/// The shortest and the longest time after which a browser connects again, in milliseconds.
const RETRY_MILLIS: std::ops::Range<u64> = 1_000..4_000;

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Server-sent events. The type is in the data: many clients do not dispatch on `event:`.
    ServerSentEvents,
    /// A line of JSON for each event. The last line says that the stream is complete.
    Lines,
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::ServerSentEvents => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// The events of a watch.
pub(super) struct WatchStream {
    tables: Vec<FollowedTable>,
    format: Format,
    /// Whether events name their table, and ids are of several tables.
    is_many: bool,
    /// Which table is asked first for its next event.
    first: usize,
    bookmarks: Interval,
    ends_at: Instant,
    server: Arc<Server>,
    /// The name of the client, whose rights are checked again from time to time.
    client: Arc<str>,
    shutdown: watch::Receiver<Option<Instant>>,
    /// When the stream ends, once the server shuts down.
    goodbye_at: Option<Instant>,
    is_begun: bool,
    is_over: bool,
    /// Held while the watch is open.
    _permits: (OwnedSemaphorePermit, Share<Arc<str>>),
}

/// Why the stream continues.
enum Next {
    Event(usize, WatchEvent),
    Bookmark,
    /// The stream ends, for this reason.
    Goodbye(&'static str),
}

impl WatchStream {
    pub(super) fn new(
        tables: Vec<FollowedTable>,
        format: Format,
        is_many: bool,
        call: &Call,
        permits: (OwnedSemaphorePermit, Share<Arc<str>>),
    ) -> Self {
        let server = call.server.clone();
        let mut bookmarks = tokio::time::interval(server.settings.bookmark_interval);
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and there is nothing to say yet.
        bookmarks.reset();
        // Clients of one server do not all come back at the same time.
        let duration = server.settings.watch_duration.mul_f64(rand::rng().random_range(0.9..1.1));
        Self {
            tables,
            format,
            is_many,
            first: 0,
            bookmarks,
            ends_at: Instant::now() + duration,
            client: call.caller.name.clone(),
            shutdown: server.shutdown.clone(),
            server,
            goodbye_at: None,
            is_begun: false,
            is_over: false,
            _permits: permits,
        }
    }

    /// Returns the events as chunks of the body. The next chunk is made when the client has taken the one before.
    pub(super) fn into_chunks(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        let chunks = stream::unfold(self, |mut stream| async move {
            let chunk = stream.next_chunk().await?;
            Some((Ok(chunk), stream))
        });
        chunks.fuse()
    }

    /// Waits for events, and returns all that are ready, up to the size of a chunk; `None` at the end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let mut chunk = Vec::new();
        if !self.is_begun {
            self.is_begun = true;
            if self.format == Format::ServerSentEvents {
                let retry = rand::rng().random_range(RETRY_MILLIS);
                chunk.extend_from_slice(format!("retry: {retry}\n\n").as_bytes());
            }
        }
        let next = self.next().await;
        self.write(&mut chunk, next);
        while !self.is_over && chunk.len() < CHUNK_BYTES {
            match poll_fn(|context| Poll::Ready(self.poll_event(context))).await {
                Poll::Ready(Some((index, event))) => self.write(&mut chunk, Next::Event(index, event)),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Some(chunk.into())
    }

    async fn next(&mut self) -> Next {
        let ends_at = self.ends_at;
        let (shutdown, goodbye_at) = (&mut self.shutdown, &mut self.goodbye_at);
        let shut_down = async {
            let at = match *goodbye_at {
                Some(at) => at,
                None => match shutdown.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline) {
                    Some(deadline) => *goodbye_at.insert(spread(deadline)),
                    None => std::future::pending().await,
                },
            };
            tokio::time::sleep_until(at).await;
        };
        let bookmarks = &mut self.bookmarks;
        let (tables, first) = (&mut self.tables, &mut self.first);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(ends_at) => Next::Goodbye("the watch has lasted long enough: continue with the last id"),
            () = shut_down => Next::Goodbye("the server shuts down: continue with the last id"),
            _ = bookmarks.tick() => Next::Bookmark,
            event = poll_fn(|context| poll_tables(tables, first, context)) => match event {
                Some((index, event)) => Next::Event(index, event),
                None => Next::Goodbye("the table has stopped, or was reloaded: connect again"),
            },
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, WatchEvent)>> {
        poll_tables(&mut self.tables, &mut self.first, context)
    }

    /// Appends what comes next.
    fn write(&mut self, chunk: &mut Vec<u8>, next: Next) {
        match next {
            Next::Event(index, event) => {
                let id = self.tables[index].token().map(|token| token.to_string());
                let followed = &self.tables[index];
                let mut json = WatchJson::new(&event, followed.has_old);
                json.table = self.is_many.then_some(&*followed.table.name);
                let snapshot;
                if matches!(event, WatchEvent::Generation(_)) {
                    snapshot = followed.table.table.snapshot();
                    json.fingerprint = Some(snapshot.fingerprint());
                }
                let is_restarted = matches!(event, WatchEvent::Restarted);
                json.id = if is_restarted { Some(RESTART.to_owned()) } else { id };
                let is_resumable = !self.is_many;
                write_event(chunk, self.format, is_resumable, json);
                if is_restarted && self.is_many {
                    self.write(chunk, Next::Bookmark);
                }
            }
            Next::Bookmark if !self.may_continue() => {
                self.write(chunk, Next::Goodbye("the table was reloaded or removed, or the client may no longer read it: connect again"));
            }
            Next::Bookmark => {
                let mut json = WatchJson::plain("bookmark");
                // A client waits a bit longer than that.
                json.interval_seconds = Some(self.bookmarks.period().as_secs_f64().ceil() as u64);
                json.id = self.id();
                write_event(chunk, self.format, true, json);
            }
            Next::Goodbye(reason) => {
                let mut json = WatchJson::with_reason("goodbye", reason);
                json.id = self.id();
                write_event(chunk, self.format, true, json);
                if self.format == Format::Lines {
                    chunk.extend_from_slice(b"{\"type\":\"end\"}\n");
                }
                self.is_over = true;
            }
        }
    }

    /// Whether all tables are still served, and the client may still read them: both can change while a watch is open.
    fn may_continue(&self) -> bool {
        let access = self.server.access.load();
        let caller = access.find_name(&self.client);
        let may_read = |followed: &FollowedTable| {
            caller.is_some_and(|caller| caller.may(Role::Read, &followed.table.name))
        };
        // A table that was reloaded has another handle.
        let tables = self.server.tables.load();
        let is_served = |followed: &FollowedTable| {
            let served = (**tables).as_ref().and_then(|tables| tables.get(&followed.table.name));
            served.is_some_and(|served| Arc::ptr_eq(served, &followed.table))
        };
        self.tables.iter().all(|followed| may_read(followed) && is_served(followed))
    }

    /// Returns the id with which a client resumes all tables.
    fn id(&mut self) -> Option<String> {
        if !self.is_many {
            return self.tables.first_mut()?.last_token().map(|token| token.to_string());
        }
        let token = |followed: &mut FollowedTable| {
            let token = followed.last_token()?.to_string();
            Some((followed.table.name.clone(), token))
        };
        let tokens: BTreeMap<String, String> = self.tables.iter_mut().filter_map(token).collect();
        // A table without a token starts again.
        Some(combine(&tokens))
    }
}

/// Returns the next event of any table, in turns; `Ready(None)` after one has stopped, or all have ended.
fn poll_tables(
    tables: &mut [FollowedTable],
    first: &mut usize,
    context: &mut Context<'_>,
) -> Poll<Option<(usize, WatchEvent)>> {
    let mut has_ended = true;
    for turn in 0..tables.len() {
        let index = (*first + turn) % tables.len();
        match tables[index].poll_next(context) {
            Poll::Ready(Some(event)) => {
                *first = index + 1;
                return Poll::Ready(Some((index, event)));
            }
            // It was reloaded or removed. One that has failed may be one of many.
            Poll::Ready(None) if tables[index].is_stopped() => return Poll::Ready(None),
            Poll::Ready(None) => {}
            Poll::Pending => has_ended = false,
        }
    }
    if has_ended { Poll::Ready(None) } else { Poll::Pending }
}

/// Appends an event. `is_resumable` says whether its id is the one with which the whole watch resumes.
fn write_event(chunk: &mut Vec<u8>, format: Format, is_resumable: bool, mut json: WatchJson<'_>) {
    if format == Format::ServerSentEvents {
        if let Some(id) = json.id.take_if(|_| is_resumable) {
            chunk.extend_from_slice(format!("id: {id}\n").as_bytes());
        }
        chunk.extend_from_slice(b"data: ");
    }
    // OK because events always serialize.
    serde_json::to_writer(&mut *chunk, &json).expect("serializes");
    chunk.extend_from_slice(if format == Format::ServerSentEvents { b"\n\n" } else { b"\n" });
}

/// Returns when a stream ends after the server was asked to shut down: some time in the first half of what is left, so
/// that the clients do not all come to the other servers at once.
fn spread(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now).mul_f64(rand::rng().random_range(0.0..0.5))
}
