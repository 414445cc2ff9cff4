//! Tools for the authors of codecs: they create a project, build a component from a core module, check, test and
//! measure it, and try rejected records with it.

mod bench;
mod build;
mod bytes;
mod case;
mod check;
mod describe;
mod exports;
mod project;
pub(crate) mod vectors;
mod wit;

pub(crate) use bench::{Cost, Measured, measure, noop_component};
#[cfg(any(feature = "fuzzing", test))]
pub(crate) use build::build_here;
pub(crate) use build::{build, build_as_child};
pub(crate) use case::{Case, CasePart};
pub(crate) use check::{CheckOptions, TestResult, check};
pub(crate) use project::{Language, project_files};
pub(crate) use wit::package;
