//! Reloads the configuration: adds, removes and changes tables without touching the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::join_all;
use serde::Serialize;

use crate::codec::Codecs;
use crate::config::{
    AccessConfig, Catalog, Config, ConfigError, RequestedCodecs, ServerConfig, TableConfig, TableToServe,
};
use crate::escape::escape_name;
use crate::serve::access::Access;
use crate::serve::access_file::read_access;
use crate::serve::error::ServeError;
use crate::serve::server::{LastReload, Server};
use crate::serve::swap::{self, Gate, NewCodecs};
use crate::serve::swaps::{SwapReport, SwapState};
use crate::serve::tables::{ServedTable, Tables};
use crate::sync::lock;

/// What a reload has changed, by names of tables.
#[derive(Debug, Default, Serialize)]
pub(super) struct Reloaded {
    added: Vec<String>,
    removed: Vec<String>,
    /// Tables that were opened again, because more than their codecs has changed.
    reopened: Vec<String>,
    /// Those of them that could not be opened, and have stopped.
    failed: Vec<String>,
    /// Tables whose codecs are being swapped.
    swapping: Vec<String>,
    /// Tables that stay as they are, because a codec cannot be loaded, and the configuration of the table has not changed.
    kept: Vec<String>,
    unchanged: usize,
}

impl Reloaded {
    /// Describes the changes in a log.
    pub(super) fn describe(&self) -> String {
        // OK because texts and numbers always serialize.
        serde_json::to_string(self).expect("serializes")
    }
}

/// Returns the names of the tables to serve.
pub(super) fn table_names(config: &Config, server: &ServerConfig) -> Result<Vec<String>, String> {
    let names = match &server.tables {
        Some(names) => names.clone(),
        None => config.table_names(),
    };
    if names.is_empty() {
        return Err("there is no table to serve: add [tables.NAME]".to_owned());
    }
    // Neither could be in an address.
    if let Some(name) =
        names.iter().find(|name| name.contains(['/', ',']) || matches!(&***name, "" | "." | ".."))
    {
        return Err(format!(
            "tables.\"{}\": the name of a table that is served is not empty, `.` or `..`, and has no `/` and no `,`",
            escape_name(name)
        ));
    }
    let mut folders = BTreeMap::new();
    for name in &names {
        let folder = config.tables.get(name).and_then(|table| table.checkpoint.as_ref());
        // Without `.` in its middle or at its start.
        let folder = folder.and_then(|folder| std::path::absolute(folder).ok());
        let other = folder.and_then(|folder| folders.insert(folder, name)).filter(|other| *other != name);
        if let Some(other) = other {
            return Err(format!(
                "tables.{name}.checkpoint: table `{other}` has the same one: give each table a folder of its own"
            ));
        }
    }
    Ok(names)
}

/// Opens the log of a table, and loads its codecs.
pub(super) async fn open_source(catalog: &Arc<Catalog>, name: String) -> Result<TableToServe, ConfigError> {
    let catalog = catalog.clone();
    // Compiling a component blocks.
    let opened = tokio::task::spawn_blocking(move || catalog.open_served_table(&name));
    // OK because the task is never cancelled: the error is a panic, which continues here.
    opened.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Opens a table, which then loads in the background, or has failed if a codec cannot be loaded.
pub(super) async fn open_table(
    name: &str,
    table: TableToServe,
    is_required: bool,
) -> Result<Arc<ServedTable>, ServeError> {
    let opened = ServedTable::open(name.to_owned(), table, is_required).await;
    opened.map(Arc::new).map_err(|source| ServeError::Table { table: name.to_owned(), source })
}

/// A configuration that was read again and can be used.
struct NewConfig {
    catalog: Arc<Catalog>,
    /// The names of the tables to serve.
    names: Vec<String>,
    /// The section `[access]`, and what it means; `None` without access control.
    access: Option<(AccessConfig, Access)>,
}

impl NewConfig {
    /// Reads the file, without changing anything.
    fn read(server: &Server, path: &Path) -> Result<Self, ServeError> {
        let invalid = |reason| ConfigError::Invalid(format!("{}: {reason}", path.display()));
        let mut config = Config::read(path)?;
        config.check_server_usable().map_err(invalid)?;
        let server_config = std::mem::take(&mut config.server);
        let running = &server.config;
        if server_config != (ServerConfig { tables: server_config.tables.clone(), ..running.clone() }) {
            tracing::warn!("[server] has changed: that takes effect when the server is started again");
        }
        let is_controlled = server.access.load().anonymous().is_none();
        let access = match config.access.take() {
            Some(access) if is_controlled => {
                let clients = read_access(&access).map_err(invalid)?;
                Some((access, clients))
            }
            None if !is_controlled => None,
            _ => {
                let reason = "[access] cannot be added or removed while the server runs: start it again";
                return Err(invalid(reason.to_owned()).into());
            }
        };
        let names = table_names(&config, &server_config).map_err(invalid)?;
        let catalog = Arc::new(server.catalog.load().successor(config)?);
        Ok(Self { catalog, names, access })
    }
}

/// Reloads the configuration. If anything in it cannot be used, changes nothing, and logs an error.
pub(super) async fn reload(server: &Arc<Server>) -> Result<Reloaded, ServeError> {
    let _reloading = server.reloading.lock().await;
    let result = reload_all(server, &server.path).await;
    match &result {
        Ok(_) => {
            *lock(&server.last_reload) = LastReload { is_successful: true, succeeded_at: SystemTime::now() };
        }
        // The file may be as good as before.
        Err(ServeError::NotNow(_)) => {}
        Err(error) => {
            lock(&server.last_reload).is_successful = false;
            tracing::error!("the configuration was not reloaded, and nothing has changed: {error}");
        }
    }
    // The policies may have changed, whatever became of the configuration.
    server.revocation_check.notify_one();
    server.codec_retry.notify_one();
    result
}

async fn reload_all(server: &Arc<Server>, path: &Path) -> Result<Reloaded, ServeError> {
    let NewConfig { catalog, names, access } = NewConfig::read(server, path)?;
    let before = server.catalog.load_full();
    let served = (**server.tables.load()).clone().filter(|_| server.opening.load().is_empty());
    let Some(served) = served else {
        return Err(ServeError::NotNow("the server has just started: reload again later"));
    };
    let mut plan = Plan::new(&served);
    let names =
        names.into_iter().filter(|name| !plan.keep_failed(name, &before, &catalog)).collect::<Vec<_>>();
    let sources =
        join_all(names.into_iter().map(async |name| (open_source(&catalog, name.clone()).await, name)));
    let mut shutdown = server.shutdown.clone();
    // A registry may take minutes.
    let sources = tokio::select! {
        sources = sources => sources,
        _ = shutdown.wait_for(Option::is_some) => return Err(ServeError::NotNow("the server is stopping")),
    };
    for (table, name) in sources {
        plan.add(name, table?, |config| before.has_same_log(&catalog, config)).await?;
    }
    server.catalog.store(catalog.clone());
    catalog.apply_registry_options();
    if let Some((config, access)) = access {
        let _reading = server.reading_access.lock().await;
        server.access.store(Arc::new(access));
        server.access_config.store(Arc::new(Some(config)));
    }
    Ok(apply(server, &catalog, &served, plan).await)
}

/// Makes the changes of a plan.
async fn apply(server: &Arc<Server>, catalog: &Arc<Catalog>, served: &Tables, plan: Plan<'_>) -> Reloaded {
    let Plan { mut tables, swaps, unchanged, reopened, mut reloaded, .. } = plan;
    for (table, codecs, requested) in unchanged {
        table.set_configured(codecs, requested);
    }
    reloaded.removed = served.keys().filter(|name| !tables.contains_key(*name)).cloned().collect();
    server.tables.store(Arc::new(Some(tables.clone())));
    for name in &reloaded.removed {
        let removed = served[name].clone();
        // Its watches end, too. Writing its last dead letters may take a while.
        tokio::spawn(async move { removed.table.stop().await });
    }
    for (name, new) in reopened {
        // A checkpoint is used by one table at a time.
        let before = &served[&name];
        before.table.stop().await;
        match open_table(&name, new, before.is_required).await {
            Ok(table) => drop(tables.insert(name, table)),
            Err(error) => {
                tracing::error!("{error}: the table has stopped");
                reloaded.failed.push(name);
            }
        }
        server.tables.store(Arc::new(Some(tables.clone())));
    }
    for (table, new) in swaps {
        begin_swap(server, catalog, table, new);
    }
    reloaded
}

/// What a reload will change.
struct Plan<'a> {
    served: &'a Tables,
    tables: Tables,
    /// The tables whose codecs are swapped, with the new ones.
    swaps: Vec<(Arc<ServedTable>, TableToServe)>,
    /// The tables that stay as they are, with the codecs of the new configuration.
    unchanged: Vec<(Arc<ServedTable>, Codecs, RequestedCodecs)>,
    /// The tables that are opened again.
    reopened: Vec<(String, TableToServe)>,
    reloaded: Reloaded,
}

impl<'a> Plan<'a> {
    fn new(served: &'a Tables) -> Self {
        Self {
            served,
            tables: BTreeMap::new(),
            swaps: Vec::new(),
            unchanged: Vec::new(),
            reopened: Vec::new(),
            reloaded: Reloaded::default(),
        }
    }

    /// Adds a table of the new configuration, and opens it if it is new or has changed.
    async fn add(
        &mut self,
        name: String,
        mut new: TableToServe,
        has_same_log: impl Fn(&TableConfig) -> bool,
    ) -> Result<(), ServeError> {
        let has_same_log = has_same_log(new.source.config());
        if let Some(error) = new.codec_error.take() {
            return self.add_without_codec(name, new, error, has_same_log);
        }
        let table = match self.served.get(&name) {
            // One that has failed is opened again.
            Some(table)
                if !table.table.status().is_final()
                    && has_same_log
                    && new.source.config().has_other_codecs_only(table.source.config()) =>
            {
                if new.source.codecs.fingerprint() == table.codecs().fingerprint() {
                    self.unchanged.push((table.clone(), new.source.codecs, new.requested));
                    self.reloaded.unchanged += 1;
                } else {
                    self.reloaded.swapping.push(name.clone());
                    self.swaps.push((table.clone(), new));
                }
                table.clone()
            }
            Some(table) => {
                self.reloaded.reopened.push(name.clone());
                self.reopened.push((name.clone(), new));
                table.clone()
            }
            None => {
                self.reloaded.added.push(name.clone());
                open_table(&name, new, false).await?
            }
        };
        self.tables.insert(name, table);
        Ok(())
    }

    /// Keeps a table that has failed because of a codec, if it has not changed. Its registry, which may take minutes, is not
    /// asked now. Returns whether it was kept.
    fn keep_failed(&mut self, name: &str, before: &Catalog, catalog: &Catalog) -> bool {
        let failed = self.served.get(name).filter(|table| table.codec_error.is_some());
        let Some((table, (config, requested))) = failed.zip(catalog.request(name)) else { return false };
        let is_same = before.has_same_log(catalog, config) && table.is_same(config, &requested);
        if is_same {
            self.reloaded.kept.push(name.to_owned());
            self.tables.insert(name.to_owned(), table.clone());
        }
        is_same
    }

    /// Adds a table of which a codec cannot be loaded: it stays as it is. Fails if the table is new or has changed. A codec that
    /// was revoked, or whose registry is down, keeps nobody from changing another table.
    fn add_without_codec(
        &mut self,
        name: String,
        new: TableToServe,
        error: ConfigError,
        has_same_log: bool,
    ) -> Result<(), ServeError> {
        let is_same =
            |table: &&Arc<ServedTable>| has_same_log && table.is_same(new.source.config(), &new.requested);
        let same = self.served.get(&name).filter(is_same);
        let Some(table) = same else { return Err(error.into()) };
        if table.codec_error.is_none() && table.table.status().is_final() {
            // It has failed for another reason. Now the codec is the reason, and is loaded again later.
            self.reloaded.reopened.push(name.clone());
            self.reopened.push((name.clone(), TableToServe { codec_error: Some(error), ..new }));
        } else {
            tracing::warn!(
                table = name,
                "the table stays as it is, because a codec cannot be loaded: {error}"
            );
            self.reloaded.kept.push(name.clone());
        }
        self.tables.insert(name, table.clone());
        Ok(())
    }
}

/// Swaps the codecs of a table to those of the new configuration, unless that rejects keys that are accepted now.
fn begin_swap(server: &Arc<Server>, catalog: &Arc<Catalog>, table: Arc<ServedTable>, new: TableToServe) {
    let TableToServe { source, requested, .. } = new;
    let (catalog, keep) = (catalog.clone(), server.settings.swap_back);
    let report = SwapReport::new(SwapState::Loading, table.codecs().fingerprint());
    let (served, new) = (table.clone(), NewCodecs::Loaded(source.codecs.clone()));
    table.set_configured(source.codecs, requested);
    let is_begun = table.swaps.begin(report, || {
        tokio::spawn(swap::run(catalog, served, new, Gate::default(), keep)).abort_handle()
    });
    if !is_begun {
        let table = &table.name;
        tracing::warn!(table, "the codecs were not swapped, because a swap is running: reload again later");
    }
}
