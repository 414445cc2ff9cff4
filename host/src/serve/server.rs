//! The state that all connections of a server share.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use crate::config::{AccessConfig, Catalog, ServerConfig};
use crate::serve::access::{Access, FailedAttempts};
use crate::serve::http_metrics::HttpMetrics;
use crate::serve::net::Connections;
use crate::serve::settings::Settings;
use crate::serve::shares::Shares;
use crate::serve::tables::Tables;

/// How the configuration was read last.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastReload {
    pub(super) is_successful: bool,
    /// When it was read successfully for the last time: when the server was started, if it was not reloaded since.
    pub(super) succeeded_at: SystemTime,
}

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) settings: Settings,
    /// The section `[server]` that the server runs with.
    pub(super) config: ServerConfig,
    /// The file of the configuration.
    pub(super) path: PathBuf,
    /// Opens tables and codecs.
    pub(super) catalog: ArcSwap<Catalog>,
    /// Held while clients are read and set.
    pub(super) reading_access: tokio::sync::Mutex<()>,
    /// Held while the configuration is reloaded.
    pub(super) reloading: tokio::sync::Mutex<()>,
    /// A std lock: held to read or set it.
    pub(super) last_reload: Mutex<LastReload>,
    /// The served tables; `None` until the first one was opened.
    pub(super) tables: ArcSwap<Option<Tables>>,
    /// The names of the tables that are being opened, since the server was started.
    pub(super) opening: ArcSwap<BTreeSet<String>>,
    /// Notified to load codecs again that could not be loaded.
    pub(super) codec_retry: Notify,
    /// Notified when the codecs of tables, or the policies, may have changed.
    pub(super) revocation_check: Notify,
    pub(super) access: ArcSwap<Access>,
    /// The section `[access]`; `None` without access control.
    pub(super) access_config: ArcSwap<Option<AccessConfig>>,
    pub(super) failed_attempts: FailedAttempts,
    pub(super) http: HttpMetrics,
    pub(super) connections: Arc<Connections>,
    pub(super) started: SystemTime,
    /// Permits for requests that are answered at once, and for watches.
    pub(super) requests: Arc<Semaphore>,
    pub(super) watchers: Arc<Semaphore>,
    /// The number of requests of each client that are being answered.
    pub(super) client_requests: Shares<Arc<str>>,
    /// The number of watches of each client.
    pub(super) client_watchers: Shares<Arc<str>>,
    /// When everything must have ended, once the server shuts down.
    pub(super) shutdown: watch::Receiver<Option<Instant>>,
}

impl Server {
    pub(super) fn new(
        config: ServerConfig,
        access: Access,
        catalog: Catalog,
        path: PathBuf,
        shutdown: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let (settings, started) = (Settings::new(&config), SystemTime::now());
        Self {
            config,
            path,
            catalog: ArcSwap::from_pointee(catalog),
            reading_access: tokio::sync::Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            last_reload: Mutex::new(LastReload { is_successful: true, succeeded_at: started }),
            tables: ArcSwap::default(),
            opening: ArcSwap::default(),
            codec_retry: Notify::new(),
            revocation_check: Notify::new(),
            access: ArcSwap::from_pointee(access),
            access_config: ArcSwap::default(),
            failed_attempts: FailedAttempts::new(),
            http: HttpMetrics::new(),
            connections: Arc::new(Connections::new(&settings)),
            started,
            requests: Arc::new(Semaphore::new(settings.max_requests)),
            watchers: Arc::new(Semaphore::new(settings.max_watchers)),
            client_watchers: Shares::new(settings.max_watchers_per_client),
            client_requests: Shares::new(settings.max_requests_per_client),
            settings,
            shutdown,
        }
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown.borrow().is_some()
    }
}
