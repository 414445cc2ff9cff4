//! The settings of a server, with their defaults.

use std::time::Duration;

use crate::config::ServerConfig;

/// The limits and the deadlines of a server.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// How long a degraded table may have been stale for an absent key to be "not found".
    pub(super) max_staleness: Duration,
    /// How many connections may be open, in total and from one address.
    pub(super) max_connections: usize,
    pub(super) max_connections_per_address: usize,
    /// How many requests are answered at once, in total and for one client. Watches do not count once they stream.
    pub(super) max_requests: usize,
    pub(super) max_requests_per_client: usize,
    /// How many watches may be open, in total and for one client.
    pub(super) max_watchers: usize,
    pub(super) max_watchers_per_client: usize,
    /// How many bytes the body of a request may have, and the component of a swap.
    pub(super) max_body: usize,
    pub(super) max_component: usize,
    /// How long the body of a request may take, and by default a request that waits for the log.
    pub(super) request_timeout: Duration,
    /// How long a connection may take for the head of a request, also of the next one.
    pub(super) header_timeout: Duration,
    /// How long a client may read nothing while bytes wait for it.
    pub(super) stalled_timeout: Duration,
    pub(super) shutdown_timeout: Duration,
    /// The interval between two bookmarks of a watch.
    pub(super) bookmark_interval: Duration,
    /// How long a watch lasts before its client is asked to connect again.
    pub(super) watch_duration: Duration,
    /// How long the old codecs follow the topic after a swap.
    pub(super) swap_back: Duration,
    /// The origins that browsers may call the API from.
    pub(super) cors_origins: Vec<String>,
}

impl Settings {
    pub(super) fn new(config: &ServerConfig) -> Self {
        let count = |number: u32| number as usize;
        Self {
            max_staleness: config.max_staleness,
            max_connections: count(config.max_connections),
            max_connections_per_address: count(config.max_connections_per_address),
            max_requests: count(config.max_requests),
            max_requests_per_client: count(config.max_requests_per_client),
            max_watchers: count(config.max_watchers),
            max_watchers_per_client: count(config.max_watchers_per_client),
            max_body: config.max_body,
            max_component: config.max_component,
            request_timeout: config.request_timeout,
            header_timeout: config.header_timeout,
            stalled_timeout: config.stalled_timeout,
            shutdown_timeout: config.shutdown_timeout,
            bookmark_interval: config.bookmark_interval,
            watch_duration: config.watch_duration,
            swap_back: config.swap_back,
            cors_origins: config.cors_origins.clone(),
        }
    }
}
