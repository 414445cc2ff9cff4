//! The commands for codecs in registries: push, fetch, lock, sign, verify, copy.

pub(super) mod access;
mod attest;
mod bundle;
mod lock;
mod mirror;
mod policy;
mod pull;
mod push;
mod report;
mod revoke;
mod sign;
mod store;
mod verify;

pub(super) use attest::attest;
pub(super) use bundle::{bundle, load};
pub(super) use lock::lock;
pub(super) use mirror::mirror;
pub(super) use policy::check as check_policy;
pub(super) use pull::{pull, resolve};
pub(super) use push::push;
pub(super) use report::report;
pub(super) use revoke::{revocations, revoke};
pub(super) use sign::{keygen, sign};
pub(super) use store::run as store;
pub(super) use verify::verify;
