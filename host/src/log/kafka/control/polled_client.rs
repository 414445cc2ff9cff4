//! A client of the control requests, and the thread that takes its events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::log::kafka::config::{Configs, Purpose};
use crate::log::kafka::ffi::admin;
use crate::log::kafka::ffi::client::Client;
use crate::log::kafka::ffi::event::Event;
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::{Isolation, LogError};
use crate::thread::run_in_background;

/// How long the polling thread waits for events, unless [`Client::wake`] ends the wait.
const POLL_TIMEOUT: Duration = Duration::from_secs(60);

/// A client and the thread that polls it.
#[derive(Debug)]
pub(super) struct PolledClient {
    pub(super) client: Arc<Client>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PolledClient {
    /// Starts a client, which requests the end offsets of its isolation. Blocks.
    pub(super) fn start(
        configs: &Configs,
        isolation: Isolation,
        log: &str,
        health: Arc<ClusterHealth>,
    ) -> Result<Arc<Self>, LogError> {
        let client = Arc::new(configs.start(Purpose::Control(isolation))?);
        let stop = Arc::new(AtomicBool::new(false));
        let (polled, stopped) = (client.clone(), stop.clone());
        let thread = crate::thread::spawn("ktables-control", move || {
            while !stopped.load(Ordering::Acquire) {
                match polled.poll(POLL_TIMEOUT) {
                    Some(Event::Reply(reply)) => admin::deliver_reply(reply),
                    Some(Event::Failure(failure)) => {
                        health.record_failure(&failure);
                        health.record_refusal(&failure);
                    }
                    _ => {}
                }
            }
        });
        let failed = |error| {
            let reason = format!("cannot start a thread: {error}");
            LogError::Client { log: log.to_owned(), reason }
        };
        Ok(Arc::new(Self { client, stop, thread: Some(thread.map_err(failed)?) }))
    }
}

impl Drop for PolledClient {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.client.wake();
        let (client, thread) = (self.client.clone(), self.thread.take());
        run_in_background(move || {
            // An error means that the thread panicked, which was logged then.
            thread.map(JoinHandle::join);
            drop(client);
        });
    }
}
