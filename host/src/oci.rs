//! Codecs as artifacts of container registries: references, layouts, stores, the client, signatures and policies.
//!
//! A codec is an artifact with one layer, the component. Two digests identify it, and are never mixed up: that of the manifest,
//! which references, signatures and mirrors use, and that of the component, which everything else uses. Both are computed from
//! bytes, and never taken from what somebody says about them.
//!
//! Nothing here knows tables, logs or wasmtime. Only [`client`], [`auth`] and [`settings`] send requests.

mod archive;
mod attached;
mod auth;
mod client;
mod copy;
mod credentials;
mod digest;
mod error;
#[cfg(any(feature = "fuzzing", test))]
pub(crate) mod fuzz;
mod keys;
mod layout;
mod lock;
mod manifest;
mod policy;
mod reference;
mod repository;
mod revocation;
mod settings;
mod sign;
mod statement;
mod store;
mod transfer;
mod verify;

pub(crate) use archive::{read_tar, write_tar};
pub(crate) use copy::{CopiedCodec, copy_attached, copy_from_layout, copy_to_layout, keep_only};
pub(crate) use digest::Digest;
pub(crate) use error::OciError;
pub(crate) use keys::{PrivateKey, PublicKey};
pub(crate) use layout::{Blob, Layout, lock_file, tag_of};
pub(crate) use lock::{LockFile, LockedCodec};
pub(crate) use manifest::{
    Annotations, CodecArtifact, CodecManifest, ComponentFacts, MANIFEST_TYPE, MAX_MANIFEST_BYTES, TITLE,
    VERSION,
};
pub(crate) use policy::{Policies, RequestedLimits, RevocationLists, RevokedCodec, Use, WhenRevoked};
pub(crate) use reference::{Location, Reference, Repository};
pub(crate) use repository::ArtifactRepository;
pub(crate) use revocation::{
    MAX_VALIDITY, REVOCATIONS_TAG, Revocation, RevocationList, pull as pull_revocations,
    push as push_revocations, read_file as read_revocations,
};
pub(crate) use settings::RegistrySettings;
pub(crate) use sign::{SignatureFormat, Subject};
pub(crate) use statement::TEST_RESULT;
pub(crate) use store::{CodecSources, FoundCodec, wait_for};
pub(crate) use verify::{FoundSignatures, SignatureResult, Verdict};
