//! The signatures of codecs that were found: where the codec is, and in its registry.

use std::collections::BTreeSet;

use crate::oci::copy::copy_attached;
use crate::oci::keys::PublicKey;
use crate::oci::repository::ArtifactRepository;
use crate::oci::store::{CodecSource, CodecSources, FoundCodec};
use crate::oci::verify::{FoundSignatures, SignatureResult, Verdict};
use crate::oci::{Location, OciError};

impl CodecSources {
    /// Reads the signatures of a codec from the place where the codec was found.
    pub(crate) async fn local_signatures(&self, codec: &FoundCodec) -> Result<FoundSignatures, OciError> {
        let mut found =
            FoundSignatures::read(&ArtifactRepository::Layout(self.local_layout(codec)), &codec.manifest)
                .await?;
        if let CodecSource::Registry(name) = &codec.source {
            found.place.clone_from(name);
        }
        Ok(found)
    }

    /// Verifies that one of these keys has signed a codec.
    pub(crate) async fn verify_with(
        &self,
        codec: &FoundCodec,
        keys: &[PublicKey],
    ) -> Result<Verdict, OciError> {
        let verify = |found: &FoundSignatures| {
            if found.signatures.is_empty() {
                return Err(found.unsigned_error());
            }
            let results = found.verify(keys);
            let signed_by: BTreeSet<String> =
                results.iter().filter_map(SignatureResult::approving_key).collect();
            if signed_by.is_empty() {
                let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
                return Err(found.insufficient_error(&results, &names.join(" or ")));
            }
            Ok(Verdict { signed_by: signed_by.into_iter().collect(), ..Verdict::default() })
        };
        let local = verify(&self.local_signatures(codec).await?);
        match local {
            // The registry may have others by now.
            Err(error) => match self.remote_signatures(codec).await? {
                Some(found) => verify(&found),
                None => Err(error),
            },
            verdict => verdict,
        }
    }

    /// Reads the signatures of a codec from its registry again, and keeps them. Returns `None` if there is no registry, or the
    /// network is off.
    pub(crate) async fn remote_signatures(
        &self,
        codec: &FoundCodec,
    ) -> Result<Option<FoundSignatures>, OciError> {
        let Location::Registry(repository) = &codec.reference.location else { return Ok(None) };
        if self.is_offline() {
            return Ok(None);
        }
        let (mut found, mut last_error) = (None::<FoundSignatures>, None);
        for candidate in self.candidates(repository)? {
            let read = async {
                let source = self.open_candidate(&candidate, repository)?;
                let signatures = FoundSignatures::read(&source, &codec.manifest).await?;
                if let (false, Ok(store)) = (signatures.signatures.is_empty(), self.own_store()) {
                    let to = ArtifactRepository::Layout(store);
                    if let Err(error) = copy_attached(&source, &codec.manifest, &to).await {
                        tracing::warn!("the signatures of {} were not kept: {error}", codec.manifest);
                    }
                }
                Ok(signatures)
            };
            match self.within(read).await {
                // A mirror may have none, or old ones.
                Ok(signatures) => {
                    found = Some(found.map_or(signatures.clone(), |found| signatures.merge(found)))
                }
                Err(error) => last_error = Some(error),
            }
        }
        match (found, last_error) {
            (Some(found), _) if !found.signatures.is_empty() => Ok(Some(found)),
            // "Not signed" is known only if everybody answered.
            (_, Some(error)) => Err(error),
            (found, None) => Ok(found),
        }
    }
}
