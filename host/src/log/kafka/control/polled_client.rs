//! A client of the control requests, and the task that takes its events.

use std::sync::{Arc, Weak};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::log::kafka::config::{Configs, Purpose};
use crate::log::kafka::ffi::client::Client;
use crate::log::kafka::ffi::event::Event;
use crate::log::kafka::health::cluster_health::ClusterHealth;
use crate::log::{Isolation, LogError};
use crate::thread::run_in_background;

/// A client whose events a task takes, until the last `Arc` of this is dropped.
#[derive(Debug)]
pub(super) struct PolledClient {
    /// Present until the drop.
    client: Option<Arc<Client>>,
    has_events: Arc<Notify>,
}

impl PolledClient {
    /// Starts a client, which requests the end offsets of its isolation, and its task in the background. Blocks.
    pub(super) fn start(
        configs: &Configs,
        isolation: Isolation,
        health: Arc<ClusterHealth>,
        background: &Handle,
    ) -> Result<Arc<Self>, LogError> {
        let client = Arc::new(configs.start(Purpose::Control(isolation))?);
        let has_events = client.notify_of_events();
        let polled = Arc::new(Self { client: Some(client), has_events: has_events.clone() });
        background.spawn(take_events(Arc::downgrade(&polled), has_events, health));
        Ok(polled)
    }

    /// The client.
    pub(super) fn client(&self) -> &Arc<Client> {
        // OK because only the drop takes it.
        self.client.as_ref().expect("a client")
    }
}

impl Drop for PolledClient {
    fn drop(&mut self) {
        // Ends the task.
        self.has_events.notify_one();
        let client = self.client.take();
        // Destroying a client blocks.
        run_in_background(move || drop(client));
    }
}

/// Takes the events of a client until it is dropped.
async fn take_events(polled: Weak<PolledClient>, has_events: Arc<Notify>, health: Arc<ClusterHealth>) {
    // The first pass takes what arrived before notifications were on.
    while let Some(polled) = polled.upgrade() {
        polled.client().poll_all(|event| match event {
            Event::Reply(reply) => polled.client().pending().deliver(reply),
            Event::TokenRequested => {
                let polled = polled.clone();
                run_in_background(move || polled.client().refresh_token());
            }
            Event::Failure(failure) => {
                health.record_failure(&failure);
                health.record_refusal(&failure);
            }
            _ => {}
        });
        drop(polled);
        has_events.notified().await;
    }
}
