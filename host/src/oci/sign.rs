//! Signs manifests, and attaches reports to them, in the formats that cosign reads.

use std::fmt::Display;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::oci::attached::{Wanted, find_attached, signature_tag};
use crate::oci::keys::{PrivateKey, PublicKey};
use crate::oci::manifest::{
    Annotations, CodecManifest, Descriptor, EMPTY, EMPTY_TYPE, MANIFEST_TYPE, Manifest,
};
use crate::oci::repository::ArtifactRepository;
use crate::oci::statement::{
    APPROVAL, BUNDLE_TYPE, ClaimKind, PAYLOAD_TYPE, SIGNATURE, SignedStatement, TEST_RESULT, bundle,
    encode_for_signature, is_bundle, parse_bundle, parse_payload, payload, statement,
};
use crate::oci::{Digest, Location, OciError};

/// The configuration of a manifest with signatures of the older format.
const IMAGE_CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// The annotations of a manifest with a bundle.
const BUNDLE_CONTENT: &str = "dev.sigstore.bundle.content";
const BUNDLE_PREDICATE: &str = "dev.sigstore.bundle.predicateType";

/// The beginning of the bytes that a signature of a statement covers.
const STATEMENT_MARK: &[u8] = b"DSSEv1 ";

/// The formats of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SignatureFormat {
    /// Both.
    Both,
    /// Under a tag, as cosign 2, Kubewarden and Podman read it.
    Tag,
    /// A bundle, as cosign 3 writes it.
    Bundle,
}

/// A manifest that is signed.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Describes the manifest.
    pub(crate) manifest: Descriptor,
    /// The repository, as signatures of the older format name it.
    pub(crate) reference: String,
}

impl Subject {
    /// Reads the manifest with this digest.
    pub(crate) async fn read(repository: &ArtifactRepository, digest: &Digest) -> Result<Self, OciError> {
        let bytes = repository.manifest(digest).await?;
        let manifest = Manifest::parse(&bytes).map_err(|error| malformed(digest, &error))?;
        // A signature approves a codec. Anything else would be approved unseen.
        CodecManifest::parse(&bytes)?;
        let media_type = manifest.media_type.unwrap_or_else(|| MANIFEST_TYPE.to_owned());
        let reference = match repository.location() {
            Location::Registry(repository) => repository.to_string(),
            Location::Layout(folder) => folder.display().to_string(),
        };
        Ok(Self { manifest: Descriptor::of(&media_type, &bytes), reference })
    }

    /// Returns the bytes that a signature covers, for keys that another program holds.
    pub(crate) fn bytes_to_sign(&self, format: SignatureFormat, annotations: &Annotations) -> Vec<u8> {
        match format {
            SignatureFormat::Bundle => encode_for_signature(&self.approval(annotations)),
            SignatureFormat::Tag | SignatureFormat::Both => self.payload(annotations),
        }
    }

    fn payload(&self, annotations: &Annotations) -> Vec<u8> {
        payload(&self.manifest.digest, &self.reference, annotations)
    }

    fn approval(&self, annotations: &Annotations) -> Vec<u8> {
        statement(&self.manifest.digest, APPROVAL, &json!({}), annotations)
    }

    /// Approves the manifest.
    pub(crate) async fn sign(
        &self,
        repository: &ArtifactRepository,
        key: &PrivateKey,
        annotations: &Annotations,
        format: SignatureFormat,
    ) -> Result<(), OciError> {
        if format != SignatureFormat::Bundle {
            let payload = self.payload(annotations);
            let signature = key.sign(&payload)?;
            self.attach_payload(repository, key.public(), &payload, &signature).await?;
        }
        if format != SignatureFormat::Tag {
            self.attest(repository, key, APPROVAL, &json!({}), annotations).await?;
        }
        Ok(())
    }

    /// Attaches a report of tests.
    pub(crate) async fn attach_report(
        &self,
        repository: &ArtifactRepository,
        key: &PrivateKey,
        predicate: &Value,
    ) -> Result<(), OciError> {
        self.attest(repository, key, TEST_RESULT, predicate, &Annotations::new()).await
    }

    async fn attest(
        &self,
        repository: &ArtifactRepository,
        key: &PrivateKey,
        predicate_type: &str,
        predicate: &Value,
        annotations: &Annotations,
    ) -> Result<(), OciError> {
        let statement = statement(&self.manifest.digest, predicate_type, predicate, annotations);
        let signature = key.sign(&encode_for_signature(&statement))?;
        self.attach_bundle(repository, &statement, &signature, key.public(), predicate_type).await
    }

    /// Attaches a signature that another program made of [`Subject::bytes_to_sign`]. It must be valid.
    pub(crate) async fn attach(
        &self,
        repository: &ArtifactRepository,
        key: &PublicKey,
        signed: &[u8],
        signature: &str,
    ) -> Result<(), OciError> {
        let signature = BASE64_STANDARD.decode(signature.trim()).map_err(|_| {
            OciError::Usage(
                "cannot attach the signature: it is not base64. Encode it with `base64 -w0`.".to_owned(),
            )
        })?;
        if !key.verifies(signed, &signature) {
            return Err(OciError::Refused(format!(
                "cannot attach the signature: it is not valid for these bytes and the key {}. Sign the SHA-256 hash of the \
                 bytes with ECDSA, in DER.",
                key.name
            )));
        }
        let other = || {
            OciError::Refused(format!(
                "cannot attach the signature: the bytes that were signed are about another manifest than {}. Print them again \
                 with `--payload`.",
                self.manifest.digest
            ))
        };
        if !signed.starts_with(STATEMENT_MARK) {
            let claim = parse_payload(signed).map_err(|reason| {
                OciError::Refused(format!(
                    "cannot attach the signature: {reason}. Print the bytes with `--payload`."
                ))
            })?;
            if !claim.subjects.contains(&self.manifest.digest) {
                return Err(other());
            }
            return self.attach_payload(repository, key, signed, &signature).await;
        }
        // The statement is the last of the parts, which spaces separate.
        let statement = signed.splitn(5, |byte| *byte == b' ').nth(4).unwrap_or_default();
        let claim = parse_bundle(&bundle(statement, &signature, key.hint())).map(|bundle| bundle.claim);
        let is_approval = claim.is_ok_and(|claim| {
            claim.kind == ClaimKind::Approval && claim.subjects.contains(&self.manifest.digest)
        });
        if !is_approval || encode_for_signature(statement) != signed {
            return Err(other());
        }
        self.attach_bundle(repository, statement, &signature, key, APPROVAL).await
    }

    /// Adds a payload and its signature to the manifest with signatures, unless the key has signed the same before.
    async fn attach_payload(
        &self,
        repository: &ArtifactRepository,
        key: &PublicKey,
        payload: &[u8],
        signature: &[u8],
    ) -> Result<(), OciError> {
        let tag = signature_tag(&self.manifest.digest);
        let mut layers = match repository.manifest_of_tag(&tag).await {
            Ok(bytes) => Manifest::parse(&bytes).map_err(|error| malformed(&tag, &error))?.layers,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error),
        };
        let layer = Descriptor::of(PAYLOAD_TYPE, payload);
        let is_same = |known: &Descriptor| {
            let signature =
                known.annotations.get(SIGNATURE).and_then(|text| BASE64_STANDARD.decode(text).ok());
            known.digest == layer.digest
                && signature.is_some_and(|signature| key.verifies(payload, &signature))
        };
        if layers.iter().any(is_same) {
            return Ok(());
        }
        layers.push(layer.with_annotation(SIGNATURE, &BASE64_STANDARD.encode(signature)));
        repository.push_blob(payload).await?;
        push_signatures(repository, layers, &tag).await
    }

    /// Attaches a bundle of a statement and its signature.
    async fn attach_bundle(
        &self,
        repository: &ArtifactRepository,
        statement: &[u8],
        signature: &[u8],
        key: &PublicKey,
        predicate_type: &str,
    ) -> Result<(), OciError> {
        if self.has_bundle(repository, key, statement).await? {
            return Ok(());
        }
        let bundle = bundle(statement, signature, key.hint());
        let mut manifest =
            Manifest::new(Descriptor::of(EMPTY_TYPE, EMPTY), vec![Descriptor::of(BUNDLE_TYPE, &bundle)]);
        manifest.artifact_type = Some(BUNDLE_TYPE.to_owned());
        manifest.subject = Some(self.manifest.clone());
        manifest.annotations = Annotations::from([
            (BUNDLE_CONTENT.to_owned(), "dsse-envelope".to_owned()),
            (BUNDLE_PREDICATE.to_owned(), predicate_type.to_owned()),
        ]);
        repository.push_blob(EMPTY).await?;
        repository.push_blob(&bundle).await?;
        repository.push_referrer(&manifest, &manifest.to_bytes()).await
    }

    /// Whether a key has signed a statement before, and the signature is attached.
    async fn has_bundle(
        &self,
        repository: &ArtifactRepository,
        key: &PublicKey,
        statement: &[u8],
    ) -> Result<bool, OciError> {
        let signed = encode_for_signature(statement);
        let attached = find_attached(repository, &self.manifest.digest, Wanted::Signatures).await?;
        let layers = attached.manifests.iter().filter(|attached| attached.tag.is_none());
        for layer in
            layers.flat_map(|attached| &attached.manifest.layers).filter(|layer| is_bundle(&layer.media_type))
        {
            let bytes = repository.small_blob(layer).await?;
            let is_same =
                |bundle: SignedStatement| bundle.signed == signed && key.verifies(&signed, &bundle.signature);
            if parse_bundle(&bytes).is_ok_and(is_same) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The error of a manifest that cannot be parsed; `name` is its digest or tag.
fn malformed(name: impl Display, error: &OciError) -> OciError {
    OciError::Refused(format!("cannot use {name}: {error}. Remove it from the registry."))
}

/// Stores the manifest with these signatures under a tag. Their payloads must be stored before.
pub(super) async fn push_signatures(
    repository: &ArtifactRepository,
    layers: Vec<Descriptor>,
    tag: &str,
) -> Result<(), OciError> {
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    // As cosign writes it.
    let created = "0001-01-01T00:00:00Z";
    let history: Vec<Value> = digests.iter().map(|_| json!({ "created": created })).collect();
    let config = json!({
        "architecture": "", "created": created, "history": history, "os": "",
        "rootfs": { "type": "layers", "diff_ids": digests }, "config": {},
    });
    let config = config.to_string().into_bytes();
    repository.push_blob(&config).await?;
    let manifest = Manifest::new(Descriptor::of(IMAGE_CONFIG_TYPE, &config), layers);
    repository.push_manifest(MANIFEST_TYPE, &manifest.to_bytes(), Some(tag)).await
}
