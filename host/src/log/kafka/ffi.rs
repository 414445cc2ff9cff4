//! Calls into librdkafka that rdkafka does not wrap: clients, events, admin requests.

pub(super) mod admin;
pub(super) mod client;
pub(super) mod event;
pub(super) mod token;
