//! Calls librdkafka directly where the rdkafka crate has no suitable wrapper: clients, events, offsets, admin
//! requests.

pub(super) mod admin;
pub(super) mod client;
pub(super) mod event;
pub(super) mod offsets;
pub(super) mod pending;
pub(super) mod token;
