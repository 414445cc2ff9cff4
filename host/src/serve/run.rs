//! Runs a server: opens its tables, serves them, and stops without losing anything.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::config::{AccessConfig, Catalog, ClientConfig, Config, ConfigError, ListenAddress, ServerConfig};
use crate::file::FileError;
use crate::serve::access::{Access, NewToken};
use crate::serve::access_file::{self, read_access};
use crate::serve::error::ServeError;
use crate::serve::fleet::FleetPublisher;
use crate::serve::http;
use crate::serve::missing_codecs;
use crate::serve::net::{Listener, TlsFiles, serve_listener};
use crate::serve::reload::{open_source, open_table, reload, table_names};
use crate::serve::revocations;
use crate::serve::server::Server;
use crate::serve::systemd;
use crate::serve::tables::ServedTable;
use crate::wasm::EngineOptions;

/// The file with the token for administration, next to the configuration, if there is no access control.
const ADMIN_TOKEN_FILE: &str = ".ktables-admin-token";

/// What a server runs with.
#[derive(Debug)]
pub(crate) struct ServeOptions {
    pub(crate) config: Config,
    /// The file of the configuration.
    pub(crate) path: PathBuf,
    pub(crate) engine: EngineOptions,
    /// Whether other machines may connect without TLS.
    pub(crate) is_insecure: bool,
}

/// Serves the tables of a configuration until `stop` resolves, then stops within the time for that. Reloads
/// the configuration each time `reload_requests` receives something.
pub(crate) async fn run(
    options: ServeOptions,
    reload_requests: mpsc::Receiver<()>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let ServeOptions { mut config, path, engine, is_insecure } = options;
    let invalid = |reason| ConfigError::Invalid(format!("{}: {reason}", path.display()));
    config.check_server_usable().map_err(invalid)?;
    let server_config = std::mem::take(&mut config.server);
    let (access_config, fleet) = (config.access.take(), config.fleet.take());
    check_exposure(&server_config, access_config.as_ref(), is_insecure).map_err(invalid)?;
    let admin_token = NewToken::generate();
    let access = match &access_config {
        Some(access) => read_access(access).map_err(invalid)?,
        None => Access::local(admin_token.hash()),
    };
    let tls = server_config.tls.clone().map(TlsFiles::open).transpose()?;
    let names = table_names(&config, &server_config).map_err(invalid)?;
    let catalog = Catalog::new(config, Some(&path), engine)?;

    let (shutdown, shutdown_requests) = watch::channel(None);
    let server =
        Arc::new(Server::new(server_config.clone(), access, catalog, path.clone(), shutdown_requests));
    let mut tasks = JoinSet::new();
    listen(&server, &server_config, tls.as_ref(), &mut tasks).await?;
    let is_controlled = access_config.is_some();
    server.access_config.store(Arc::new(access_config));
    tasks.spawn(access_file::follow(server.clone()));
    tasks.spawn(systemd::follow(server.clone()));
    if let Some(tls) = tls {
        tasks.spawn(tls.follow());
    }
    let mut stop = std::pin::pin!(stop);
    tasks.spawn(revocations::follow(server.clone()));
    tasks.spawn(missing_codecs::retry(server.clone()));
    let fleet = fleet.map(|config| FleetPublisher::open(&server, config)).transpose()?;
    // Only once there is a table, so that a server that cannot start takes no token from one that runs.
    let is_opened = || match is_controlled {
        true => Ok(()),
        false => write_admin_token(&admin_token, &server_config, &path),
    };
    let is_running = tokio::select! {
        opened = open_tables(&server, names, is_opened) => opened.map(|()| true)?,
        () = &mut stop => false,
    };
    let fleet = fleet.filter(|_| is_running).map(|publisher| publisher.start(server.clone()));
    if is_running {
        reload_until(&server, reload_requests, stop).await;
    }
    stop_server(&server, &shutdown, tasks, fleet).await;
    Ok(())
}

/// Accepts connections on all addresses of the configuration.
async fn listen(
    server: &Arc<Server>,
    config: &ServerConfig,
    tls: Option<&TlsFiles>,
    tasks: &mut JoinSet<()>,
) -> Result<(), ServeError> {
    let mut accept = async |address: &ListenAddress, router: axum::Router| {
        let listener = Listener::bind(address).await?;
        tracing::info!("listening on {}", listener.address());
        let (tls, connections) = (tls.map(TlsFiles::state), server.connections.clone());
        tasks.spawn(serve_listener(listener, tls, router, connections));
        Ok::<_, ServeError>(())
    };
    for address in &config.listen {
        accept(address, http::router(server.clone())).await?;
    }
    for address in &config.health_listen {
        accept(address, http::health_router(server.clone())).await?;
    }
    Ok(())
}

/// Fails if other machines could connect without access control or without TLS.
pub(super) fn check_exposure(
    server: &ServerConfig,
    access: Option<&AccessConfig>,
    is_insecure: bool,
) -> Result<(), String> {
    if server.listen.is_empty() {
        return Err("server.listen has no address: write for example [\"127.0.0.1:7470\"]".to_owned());
    }
    if access.is_some_and(|access| access.clients.is_empty() && access.clients_file.is_none()) {
        return Err("[access] has no client, so nobody has access: add [access.clients.NAME]".to_owned());
    }
    let has_client_ca = server.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let by_certificate = |client: &&ClientConfig| client.certificate_name.is_some();
    if !has_client_ca
        && access.is_some_and(|access| access.clients.values().any(|client| by_certificate(&client)))
    {
        return Err("certificate_name needs server.tls with client_ca, which verifies clients' certificates"
            .to_owned());
    }
    let Some(exposed) = server.listen.iter().chain(&server.health_listen).find(|address| !address.is_local())
    else {
        return Ok(());
    };
    if access.is_none() {
        return Err(format!(
            "server.listen: other machines can connect to {exposed}, so access must be controlled: add \
             [access.clients.NAME] with a token (see `ktables token new`), or listen on 127.0.0.1"
        ));
    }
    if server.tls.is_none() && !is_insecure {
        return Err(format!(
            "server.listen: other machines can connect to {exposed}, and tokens would be sent in clear text: set \
             server.tls, or --insecure behind a proxy that adds TLS"
        ));
    }
    Ok(())
}

/// Writes the token for administration to a file that only this user can read.
fn write_admin_token(token: &NewToken, server: &ServerConfig, config: &Path) -> Result<(), ServeError> {
    let default = || config.parent().unwrap_or(Path::new("")).join(ADMIN_TOKEN_FILE);
    let file = server.admin_token_file.clone().unwrap_or_else(default);
    // A new file: an old one may be open elsewhere, or readable by others.
    let _ = std::fs::remove_file(&file);
    let create = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    let written = create.and_then(|mut file| file.write_all(format!("{}\n", token.text()).as_bytes()));
    match written {
        Ok(()) => tracing::info!("the token for administration is in {}", file.display()),
        Err(error) if server.admin_token_file.is_none() => {
            tracing::warn!(
                "nobody can swap codecs, reload the configuration or read raw records: cannot write the token for that \
                 to {}: {error} (server.admin_token_file sets another file)",
                file.display()
            );
        }
        Err(error) => {
            return Err(FileError::of::<ServeError>("write the token for administration", &file)(error));
        }
    }
    Ok(())
}

/// Reloads the configuration each time it is asked for, until `stop` resolves.
async fn reload_until(
    server: &Arc<Server>,
    mut requests: mpsc::Receiver<()>,
    stop: impl Future<Output = ()>,
) {
    let reloading = async {
        while requests.recv().await.is_some() {
            let reloaded = reload(server).await;
            match reloaded {
                Ok(reloaded) => {
                    let changes = reloaded.describe();
                    tracing::info!(target: "ktables::audit", "reloaded the configuration: {changes}");
                }
                Err(ServeError::NotNow(reason)) => {
                    tracing::warn!("the configuration was not reloaded: {reason}")
                }
                // It was logged.
                Err(_) => {}
            }
        }
    };
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        () = reloading => stop.await,
        () = &mut stop => {}
    }
}

/// Opens all tables, which then load in the background. Each is served as soon as it is open: the registry of a codec may take
/// minutes to answer. One whose codec cannot be loaded has failed. If that is the case for all of them, logs why, and returns one
/// of the errors. Calls `on_first` before the first table is served.
async fn open_tables(
    server: &Server,
    names: Vec<String>,
    on_first: impl FnOnce() -> Result<(), ServeError>,
) -> Result<(), ServeError> {
    server.opening.store(Arc::new(names.iter().cloned().collect()));
    let catalog = server.catalog.load_full();
    let mut opening: FuturesUnordered<_> = names
        .into_iter()
        .map(async |name| {
            let table = open_source(&catalog, name.clone()).await?;
            open_table(&name, table, true).await
        })
        .collect();
    let (mut opened, mut on_first) = (Vec::new(), Some(on_first));
    while let Some(table) = opening.next().await {
        opened.push(table?);
        // Until one of them can be used, the server may still end.
        if on_first.is_some() && opened.iter().all(|table| table.codec_error.is_some()) {
            continue;
        }
        if let Some(on_first) = on_first.take() {
            on_first()?;
        }
        for table in opened.drain(..) {
            serve_table(server, table).await;
        }
    }
    let failed = opened.into_iter().filter_map(Arc::into_inner);
    let mut errors = failed.filter_map(|table| Some((table.name, table.codec_error?)));
    let Some((_, first)) = errors.next() else { return Ok(()) };
    errors.for_each(|(table, error)| tracing::error!(table, "a codec cannot be loaded: {error}"));
    Err(first.into())
}

/// Adds a table that was opened.
async fn serve_table(server: &Server, table: Arc<ServedTable>) {
    // Others replace tables, too.
    let _reloading = server.reloading.lock().await;
    let mut tables = (**server.tables.load()).clone().unwrap_or_default();
    let mut opening = BTreeSet::clone(&server.opening.load());
    opening.remove(&table.name);
    tables.insert(table.name.clone(), table);
    server.tables.store(Arc::new(Some(tables)));
    server.opening.store(Arc::new(opening));
}

/// For how long a server that stops still accepts connections.
const NOT_READY_TIME: Duration = Duration::from_secs(1);

/// How much of the time for stopping is left to tables and logs after the connections.
const TABLES_SHARE: u32 = 3;

/// Stops: new requests are refused, open ones are answered, and streams say goodbye. Then the tables stop, which writes
/// their checkpoints, and the logs acknowledge what was written.
async fn stop_server(
    server: &Arc<Server>,
    shutdown: &watch::Sender<Option<Instant>>,
    mut tasks: JoinSet<()>,
    fleet: Option<JoinHandle<()>>,
) {
    let timeout = server.settings.shutdown_timeout;
    let connections_timeout = timeout - timeout / TABLES_SHARE;
    let deadline = Instant::now() + connections_timeout;
    shutdown.send_replace(Some(deadline));
    tracing::info!("stopping");
    systemd::report_stop();
    // Listeners accept while streams say goodbye, and long enough for a balancer to see that the server is not ready.
    let drained = async {
        let all_watchers = server.watchers.acquire_many(server.settings.max_watchers as u32);
        tokio::join!(all_watchers, tokio::time::sleep(NOT_READY_TIME.min(connections_timeout / 4)))
    };
    // OK to ignore: what has not ended by then is closed below.
    let _ = tokio::time::timeout(connections_timeout * 3 / 4, drained).await;
    tasks.shutdown().await;
    if tokio::time::timeout_at(deadline, server.connections.close()).await.is_err() {
        tracing::warn!("some connections did not end in time, and are closed");
    }
    let deadline = Instant::now() + timeout / TABLES_SHARE;
    if let Some(fleet) = fleet
        && tokio::time::timeout_at(deadline, fleet).await.is_err()
    {
        tracing::warn!("what this process published about its codecs was not deleted in time");
    }
    // A reload that has begun ends first.
    let _reloading = tokio::time::timeout(timeout / TABLES_SHARE / 4, server.reloading.lock()).await;
    let tables = server.tables.load_full();
    let stop = join_all((*tables).iter().flatten().map(|(_, table)| stop_table(table, deadline)));
    if tokio::time::timeout_at(deadline, stop).await.is_err() {
        tracing::warn!("some tables did not stop in time: their checkpoints may be older");
    }
}

async fn stop_table(table: &ServedTable, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let (is_flushed, ()) = tokio::join!(table.source.log.flush(left), table.table.stop());
    if !is_flushed {
        tracing::warn!(
            topic = table.source.topic(),
            "not all writes were acknowledged before the server stopped"
        );
    }
}
