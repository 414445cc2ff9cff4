//! Reading topics: loading clients, tail clients, and the feeds that they fill.

pub(super) mod feed;
pub(super) mod loader;
pub(super) mod reader;
pub(super) mod tail;
