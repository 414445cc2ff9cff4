//! Tools for the authors of codecs: they build a component from a core module.

mod build;
mod exports;
mod wit;

pub(crate) use build::{build, build_as_child};
pub(crate) use wit::package;
