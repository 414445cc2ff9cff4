//! Verifies the signatures of a manifest: which of them are valid, by which keys, and why the others do not count.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::escape::one_line_within;
use crate::oci::attached::{Attached, MAX_ATTACHED, Wanted, find_attached, signature_tag};
use crate::oci::keys::PublicKey;
use crate::oci::manifest::Annotations;
use crate::oci::repository::ArtifactRepository;
use crate::oci::statement::{
    Claim, ClaimKind, PAYLOAD_TYPE, SIGNATURE, is_bundle, parse_bundle, parse_payload,
};
use crate::oci::{Digest, OciError};

/// How much of a hint an error repeats, in bytes.
const SHOWN: usize = 60;

/// Why a codec is approved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The keys whose signatures were required and found.
    pub(crate) signed_by: Vec<String>,
    /// The file and the number of the rule that decided, for each policy.
    pub(crate) rules: Vec<String>,
    /// The result of the required report.
    pub(crate) report: Option<String>,
}

/// A signature that was found: what it claims, and what it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundSignature {
    /// The claim, or why it cannot be read.
    claim: Result<Claim, String>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    /// Which key the signature mentions.
    hint: String,
}

/// The signatures of a manifest, as they were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundSignatures {
    pub(crate) subject: Digest,
    /// Where they were found, for errors.
    pub(crate) place: String,
    has_referrers_api: bool,
    pub(crate) signatures: Vec<FoundSignature>,
}

/// A valid signature by a trusted key, which approves the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Approval {
    /// The name of the key.
    pub(crate) key: String,
    pub(crate) annotations: Annotations,
    /// The repository that the signer had in mind, if the signature says so.
    pub(crate) reference: Option<String>,
}

/// A valid report of tests by a trusted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// The name of the key.
    pub(crate) key: String,
    pub(crate) predicate: serde_json::Value,
}

/// What became of one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignatureResult {
    Approval(Approval),
    Report(Report),
    /// Valid, and about something else: the type of its predicate.
    Other {
        key: String,
        kind: String,
    },
    /// No trusted key verifies it. The key that it mentions.
    UnknownKey {
        hint: String,
    },
    /// It is by a trusted key, but signs another manifest.
    OtherManifest {
        key: String,
    },
    /// It cannot be read.
    Malformed(String),
}

impl SignatureResult {
    /// Returns the key, if the signature approves the manifest.
    pub(crate) fn approving_key(&self) -> Option<String> {
        match self {
            Self::Approval(approval) => Some(approval.key.clone()),
            _ => None,
        }
    }
}

impl FoundSignatures {
    /// Reads the signatures of a manifest. That there are none is no error, and that they cannot be read is one.
    pub(crate) async fn read(repository: &ArtifactRepository, subject: &Digest) -> Result<Self, OciError> {
        let found = find_attached(repository, subject, Wanted::Signatures)
            .await
            .map_err(|error| unreadable(&error))?;
        let mut signatures = Vec::new();
        for attached in &found.manifests {
            signatures.extend(read_signatures(repository, attached).await?);
            if signatures.len() > MAX_ATTACHED {
                return Err(OciError::Refused(format!(
                    "cannot verify the codec: it has more than {MAX_ATTACHED} signatures. Remove those that are not needed from \
                     {}.",
                    repository.name()
                )));
            }
        }
        let place = repository.name();
        Ok(Self { subject: *subject, place, has_referrers_api: found.has_referrers_api, signatures })
    }

    /// Verifies each signature with each of these keys.
    pub(crate) fn verify(&self, keys: &[PublicKey]) -> Vec<SignatureResult> {
        self.signatures.iter().map(|found| self.verify_one(found, keys)).collect()
    }

    fn verify_one(&self, found: &FoundSignature, keys: &[PublicKey]) -> SignatureResult {
        let claim = match &found.claim {
            Ok(claim) => claim,
            Err(reason) => return SignatureResult::Malformed(reason.clone()),
        };
        let key = keys.iter().find(|key| key.verifies(&found.signed, &found.signature));
        let Some(key) = key.map(|key| key.name.clone()) else {
            return SignatureResult::UnknownKey { hint: one_line_within(&found.hint, SHOWN).to_string() };
        };
        if !claim.subjects.contains(&self.subject) {
            return SignatureResult::OtherManifest { key };
        }
        match &claim.kind {
            ClaimKind::Approval => SignatureResult::Approval(Approval {
                key,
                annotations: claim.annotations.clone(),
                reference: claim.reference.clone(),
            }),
            ClaimKind::Report(predicate) => {
                SignatureResult::Report(Report { key, predicate: predicate.clone() })
            }
            // Such a list is no signature of the codec, whatever it is about.
            ClaimKind::Revocations(_) => {
                SignatureResult::Other { key, kind: "a list of revocations".to_owned() }
            }
            ClaimKind::Other(kind) => SignatureResult::Other { key, kind: kind.clone() },
        }
    }

    /// Returns the error of a manifest without any signature.
    pub(crate) fn unsigned_error(&self) -> OciError {
        let tag = signature_tag(&self.subject);
        let note = if self.has_referrers_api { "" } else { " (this registry has no referrers API)" };
        OciError::Refused(format!(
            "cannot verify the codec: it is not signed. {} has neither {tag} nor a referrer{note}. If this is a mirror, the copy may \
             have lost the signatures: copy the codec again with `ktables codec mirror`, which carries them. Otherwise, sign \
             it with `ktables codec sign`.",
            self.place
        ))
    }

    /// Adds signatures that were found elsewhere.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        for signature in other.signatures {
            if !self.signatures.contains(&signature) {
                self.signatures.push(signature);
            }
        }
        self.signatures.truncate(MAX_ATTACHED);
        self
    }

    /// Returns the error of a manifest whose signatures do not suffice. `required` names the keys.
    pub(crate) fn insufficient_error(&self, results: &[SignatureResult], required: &str) -> OciError {
        let mut reasons = Vec::new();
        let count = |reasons: &mut Vec<String>, count: usize, one: &str, many: &str| match count {
            0 => {}
            1 => reasons.push(format!("1 {one}")),
            count => reasons.push(format!("{count} {many}")),
        };
        let unknown: Vec<&str> = results
            .iter()
            .filter_map(|result| match result {
                SignatureResult::UnknownKey { hint } => Some(hint.as_str()),
                _ => None,
            })
            .collect();
        let mut hints: Vec<String> =
            unknown.iter().filter(|hint| !hint.is_empty()).map(|hint| shorten(hint)).collect();
        hints.dedup();
        let hints = if hints.is_empty() { String::new() } else { format!(" (hint {})", hints.join(", ")) };
        let (one, many) = (format!("is by an unknown key{hints}"), format!("are by unknown keys{hints}"));
        count(&mut reasons, unknown.len(), &one, &many);
        let matching =
            |wanted: fn(&SignatureResult) -> bool| results.iter().filter(|result| wanted(result)).count();
        let of_others = matching(|result| matches!(result, SignatureResult::OtherManifest { .. }));
        count(&mut reasons, of_others, "names another manifest", "name another manifest");
        let reports =
            matching(|result| matches!(result, SignatureResult::Report(_) | SignatureResult::Other { .. }));
        count(&mut reasons, reports, "is a report and no approval", "are reports and no approvals");
        let malformed = results.iter().filter_map(|result| match result {
            SignatureResult::Malformed(reason) => Some(reason),
            _ => None,
        });
        reasons.extend(malformed.map(|reason| format!("1 cannot be used ({reason})")));
        let by_others = results.iter().filter_map(|result| match result {
            SignatureResult::Approval(approval) => Some(&approval.key),
            _ => None,
        });
        reasons.extend(by_others.map(|key| format!("1 is by {key}")));
        let reasons = match reasons.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, [first])) => format!("{first}, and {last}"),
            Some((last, before)) => format!("{}, and {last}", before.join(", ")),
            None => "there are none".to_owned(),
        };
        let signatures = if results.len() == 1 { "signature" } else { "signatures" };
        OciError::Refused(format!(
            "cannot verify the codec: it has {} {signatures}, but none by {required}. {}. Sign the codec with one of the \
             required keys.",
            results.len(),
            reasons
        ))
    }
}

/// Shortens a hint for people.
fn shorten(hint: &str) -> String {
    match hint.char_indices().nth(4) {
        Some((end, _)) if hint.len() > 8 => format!("{}…", &hint[..end]),
        _ => hint.to_owned(),
    }
}

/// Reads the signatures of a manifest that is attached to another one.
async fn read_signatures(
    repository: &ArtifactRepository,
    attached: &Attached,
) -> Result<Vec<FoundSignature>, OciError> {
    let mut signatures = Vec::new();
    for layer in attached.manifest.layers.iter().take(MAX_ATTACHED + 1) {
        let is_payload = attached.has_signatures() && layer.media_type == PAYLOAD_TYPE;
        let is_bundle = attached.tag.is_none() && is_bundle(&layer.media_type);
        if !is_payload && !is_bundle {
            continue;
        }
        let bytes = match repository.small_blob(layer).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(unreadable(&error)),
        };
        signatures.push(if is_payload {
            let signature = layer.annotations.get(SIGNATURE).ok_or_else(|| "it has no signature".to_owned());
            let signature = signature.and_then(|text| {
                BASE64_STANDARD.decode(text).map_err(|_| "its base64 is malformed".to_owned())
            });
            FoundSignature {
                claim: signature.as_ref().map_err(Clone::clone).and_then(|_| parse_payload(&bytes)),
                signed: bytes,
                signature: signature.unwrap_or_default(),
                hint: String::new(),
            }
        } else {
            match parse_bundle(&bytes) {
                Ok(bundle) => FoundSignature {
                    claim: Ok(bundle.claim),
                    signed: bundle.signed,
                    signature: bundle.signature,
                    hint: bundle.hint,
                },
                Err(reason) => FoundSignature {
                    claim: Err(reason),
                    signed: Vec::new(),
                    signature: Vec::new(),
                    hint: String::new(),
                },
            }
        });
    }
    Ok(signatures)
}

/// The error of signatures that are there, or may be there, and cannot be read.
fn unreadable(error: &OciError) -> OciError {
    if let OciError::Refused(_) = error {
        return error.clone();
    }
    let text = error.to_string();
    // An answer of a registry is said in few words.
    let answer = text.split(['(', ')']).find(|part| {
        part.split_once(" from ")
            .is_some_and(|(status, _)| status.len() == 3 && status.parse::<u16>().is_ok())
    });
    let reason = answer.unwrap_or(text.trim_end_matches('.'));
    OciError::Failed(format!(
        "cannot verify the codec: ktables could not read its signatures ({reason}). It does not treat the codec as unsigned. Try \
         again when the registry responds."
    ))
}
