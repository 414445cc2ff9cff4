//! Schema registries: servers with the API of Confluent's, which store schemas by subject and version, and give each
//! schema an id.
//!
//! [`SchemaSource`] is what codecs see of a registry: answers that the host has, and a way to obtain those that it does
//! not have. [`CachedRegistry`] implements it. [`Registry`] speaks HTTP, within limits of time and bytes. Nothing here
//! knows components or tables.

#[cfg(feature = "cli")]
mod address;
#[cfg(feature = "cli")]
mod cache;
#[cfg(feature = "cli")]
mod cached;
#[cfg(feature = "cli")]
mod client;
#[cfg(feature = "cli")]
mod error;
#[cfg(feature = "cli")]
mod folder;
#[cfg(feature = "cli")]
mod requests;
#[cfg(feature = "cli")]
mod resolve;
mod schema;
mod source;
#[cfg(feature = "cli")]
mod wire_id;

pub(crate) use schema::{Reference, ResolvedSchema, Schema, SchemaType};
pub(crate) use source::{
    MAX_NEW_SCHEMA_BYTES, MAX_SUBJECT_BYTES, MissingSchemas, SchemaAnswer, SchemaQuery, SchemaSource,
    UNKNOWN_SCHEMA,
};

#[cfg(feature = "cli")]
pub(crate) use address::{DEFAULT_TIMEOUT, RegistryOptions};
#[cfg(feature = "cli")]
pub(crate) use cached::{CachedRegistry, CodecRegistry};
#[cfg(feature = "cli")]
pub(crate) use client::Registry;
#[cfg(feature = "cli")]
pub(crate) use error::RegistryError;
#[cfg(feature = "cli")]
pub(crate) use requests::Compatibility;
#[cfg(feature = "cli")]
pub(crate) use schema::{SubjectVersion, VersionName};
#[cfg(feature = "cli")]
pub(crate) use wire_id::WireId;
