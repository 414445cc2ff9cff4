//! A real Apache Kafka for tests and for `cargo xtask kafka`, on loopback only: one node that is broker and
//! controller, or several.
//!
//! It contains no Kafka client: the one request that checks whether a broker is ready is written by hand. So
//! this crate depends on the standard library alone.
//!
//! Invariants:
//! - A [`Broker`] that was started answers requests, and can create topics.
//! - When the owner of a broker ends, in whatever way, the broker's process and folder are removed soon
//!   after.
//! - Everything lies below `target/kafka`. An installation there is complete or absent.

mod broker;
mod cluster;
mod detached;
mod folder;
mod guardian;
mod install;
mod java;
mod jvm;
mod options;
mod ports;
mod probe;
mod properties;
mod registry;

pub use broker::Broker;
pub use cluster::Cluster;
pub use detached::{DetachedServer, ServerKind};
pub use install::{install, is_installed, java, version};
pub use java::check_requirements;
pub use options::{ADMIN, ALICE, BrokerOptions, User};
pub use registry::{SchemaRegistry, install_registry, is_registry_installed, registry_version};
