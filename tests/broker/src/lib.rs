//! A real Apache Kafka for tests and for `cargo xtask kafka`: one node that is broker
//! and controller, or several, on loopback only.
//!
//! What it does not do: no client; readiness is a request written by hand, so that this
//! crate needs nothing but the standard library.
//!
//! Invariants:
//! - A [`Broker`] that was started answers, and creates a topic when it is asked to.
//! - When its owner ends, however it ends, process and folder are gone soon after.
//! - Everything lies below `target/kafka`; an installation there is whole or absent.

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

pub use broker::Broker;
pub use cluster::Cluster;
pub use detached::Detached;
pub use install::{install, is_installed, java, version};
pub use java::requirements;
pub use options::{ADMIN, ALICE, BrokerOptions, User};
