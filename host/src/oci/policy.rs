//! Policies: which codecs may run, from where, and who must have signed them.
//!
//! The file `/etc/ktables/policy.toml` applies whenever it exists. Another one may be added; then both must approve a codec. A
//! service's configuration cannot weaken a policy, because nothing in it is read here but limits, and those only against the
//! policy's own.

mod evaluate;
mod file;
mod glob;
mod lists;
mod request;

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::oci::keys::PublicKey;
use crate::oci::policy::evaluate::SignatureCache;
use crate::oci::policy::file::PolicyFile;
use crate::oci::store::{CodecSources, FoundCodec};
use crate::oci::verify::Verdict;
use crate::oci::{Digest, OciError};

pub(crate) use file::WhenRevoked;
#[cfg(any(feature = "fuzzing", test))]
pub(crate) use file::check_policy;
pub(crate) use lists::{RevocationLists, RevokedCodec};
pub(crate) use request::{RequestedLimits, Use};

/// The policy of the machine.
const SYSTEM_POLICY: &str = "/etc/ktables/policy.toml";

/// The variable with another policy.
const POLICY: &str = "KTABLES_POLICY";

/// The policies that apply.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    files: Vec<PolicyFile>,
}

impl Policies {
    /// Reads the policy of the machine, that of the environment, and the one that an argument names.
    pub(crate) fn read(argument: Option<&Path>) -> Result<Self, OciError> {
        let mut paths = Vec::new();
        let system = Path::new(SYSTEM_POLICY);
        // One that exists and cannot be read is an error, and not the same as none; so is a folder that cannot be entered.
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        if !system.symlink_metadata().is_err_and(|error| is_missing(&error)) {
            paths.push(system.to_owned());
        }
        paths.extend(env::var_os(POLICY).filter(|path| !path.is_empty()).map(PathBuf::from));
        paths.extend(argument.map(Path::to_owned));
        let files = paths.iter().map(|path| PolicyFile::read(path)).collect::<Result<_, _>>()?;
        Ok(Self { files })
    }

    /// Returns the keys of all policies.
    pub(crate) fn keys(&self) -> Vec<PublicKey> {
        self.files.iter().flat_map(|policy| policy.keys.iter().cloned()).collect()
    }

    /// Whether there is no policy.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Decides about a codec that comes as bytes: from a file, or from a client of the server. `what` names it.
    pub(crate) async fn approve_file(
        &self,
        sources: &CodecSources,
        what: &str,
        component: &Digest,
        usage: Use<'_>,
    ) -> Result<Verdict, OciError> {
        let mut verdict = Verdict::default();
        for policy in &self.files {
            policy.check_file(what, component, usage)?;
            verdict.rules.push(format!("{}: files", policy.path.display()));
        }
        self.read_revocations(sources, SystemTime::now()).await.check(&[*component])?;
        Ok(verdict)
    }

    /// Decides about a codec from a registry or a layout. Reads its signatures if a rule needs them, and the lists of
    /// revocations.
    pub(crate) async fn approve(
        &self,
        sources: &CodecSources,
        codec: &FoundCodec,
        usage: Use<'_>,
    ) -> Result<Verdict, OciError> {
        let mut verdict = Verdict::default();
        let mut signatures = SignatureCache::new(sources, codec);
        for policy in &self.files {
            policy.check(codec, usage, &mut signatures, &mut verdict).await?;
        }
        verdict.signed_by.sort();
        verdict.signed_by.dedup();
        let digests = [codec.manifest, codec.component];
        self.read_revocations(sources, SystemTime::now()).await.check(&digests)?;
        Ok(verdict)
    }

    /// Whether a list of revocations is in a registry.
    pub(crate) fn has_remote_revocations(&self) -> bool {
        let mut sections = self.files.iter().filter_map(|policy| policy.revocations.as_ref());
        sections.any(|section| section.source.starts_with("oci://"))
    }

    /// Reads the lists of revocations of all policies.
    pub(crate) async fn read_revocations(&self, sources: &CodecSources, now: SystemTime) -> RevocationLists {
        let mut lists = RevocationLists::default();
        for policy in &self.files {
            if let Some(section) = &policy.revocations {
                lists.add(section, policy.read_revocations(section, sources, now).await);
            }
        }
        lists
    }
}
