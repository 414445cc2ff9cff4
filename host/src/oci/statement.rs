//! What signatures cover: cosign's payload, and in-toto statements in DSSE envelopes and sigstore bundles.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::escape::one_line_within;
use crate::oci::Digest;
use crate::oci::manifest::{Annotations, annotations};

/// The media type of cosign's payload.
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The annotation that holds the signature of a payload.
pub(crate) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// What cosign's payload says about its type.
const PAYLOAD_KIND: &str = "cosign container image signature";

/// The media type of a bundle.
pub(crate) const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The media types of bundles that are read.
const BUNDLE_TYPES: [&str; 4] = [
    BUNDLE_TYPE,
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
];

/// The type of what a DSSE envelope holds.
const STATEMENT_PAYLOAD: &str = "application/vnd.in-toto+json";

/// The type of a statement.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The predicates: an approval, a report of tests, a list of revocations.
pub(crate) const APPROVAL: &str = "https://sigstore.dev/cosign/sign/v1";
pub(crate) const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
pub(crate) const REVOCATIONS: &str = "https://ktables.dev/revocations/v1";

/// How much of a malformed signature an error repeats, in bytes.
const SHOWN: usize = 200;

/// Cosign's payload.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    critical: Critical,
    #[serde(default)]
    optional: Option<Optional>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference", default)]
    reference: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Texts; other values are kept as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct Optional(#[serde(deserialize_with = "loose_annotations")] Annotations);

/// What a valid signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) kind: ClaimKind,
    /// The manifests that it is about.
    pub(crate) subjects: Vec<Digest>,
    /// What the signer says beside that.
    pub(crate) annotations: Annotations,
    /// The repository that the signer had in mind; signatures of the older format only.
    pub(crate) reference: Option<String>,
}

/// What a signature is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimKind {
    Approval,
    /// A report of tests, whose text this is.
    Report(Value),
    /// A list of revoked codecs.
    Revocations(Value),
    /// Something that others attach: the type of its predicate.
    Other(String),
}

/// Returns cosign's payload about a manifest.
pub(crate) fn payload(digest: &Digest, reference: &str, annotations: &Annotations) -> Vec<u8> {
    let critical = Critical {
        identity: Identity { reference: reference.to_owned() },
        image: Image { digest: digest.to_string() },
        kind: PAYLOAD_KIND.to_owned(),
    };
    let optional = (!annotations.is_empty()).then(|| Optional(annotations.clone()));
    // OK because texts always serialize.
    serde_json::to_vec(&Payload { critical, optional }).expect("serializes")
}

/// Parses cosign's payload. An error says what is wrong with it.
pub(crate) fn parse_payload(bytes: &[u8]) -> Result<Claim, String> {
    let payload: Payload = parse(bytes)?;
    if payload.critical.kind != PAYLOAD_KIND {
        return Err(format!("it is of type `{}`", one_line_within(&payload.critical.kind, SHOWN)));
    }
    let digest = payload.critical.image.digest.parse().map_err(|_| "its digest is malformed".to_owned())?;
    Ok(Claim {
        kind: ClaimKind::Approval,
        subjects: vec![digest],
        annotations: payload.optional.map(|optional| optional.0).unwrap_or_default(),
        reference: Some(payload.critical.identity.reference),
    })
}

/// A sigstore bundle with a signature by a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<KeyHint>,
    #[serde(default, skip_serializing)]
    certificate: Option<serde::de::IgnoredAny>,
    #[serde(default, skip_serializing)]
    x509_certificate_chain: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeyHint {
    #[serde(default)]
    hint: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    #[serde(default)]
    predicate: Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    digest: SubjectDigests,
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "annotations")]
    annotations: Annotations,
}

#[derive(Debug, Serialize, Deserialize)]
struct SubjectDigests {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// A signature of a bundle, and what it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedStatement {
    pub(crate) claim: Claim,
    /// The bytes that the signature covers.
    pub(crate) signed: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) hint: String,
}

/// Returns a statement about a manifest.
pub(crate) fn statement(
    digest: &Digest,
    predicate_type: &str,
    predicate: &Value,
    annotations: &Annotations,
) -> Vec<u8> {
    let subject =
        Subject { digest: SubjectDigests { sha256: Some(digest.hex()) }, annotations: annotations.clone() };
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![subject],
        predicate_type: predicate_type.to_owned(),
        predicate: predicate.clone(),
    };
    // OK because texts always serialize.
    serde_json::to_vec(&statement).expect("serializes")
}

/// Returns the bytes that a signature of a statement covers.
pub(crate) fn encode_for_signature(statement: &[u8]) -> Vec<u8> {
    let (kind, len) = (STATEMENT_PAYLOAD, statement.len());
    let mut bytes = format!("DSSEv1 {} {kind} {len} ", kind.len()).into_bytes();
    bytes.extend_from_slice(statement);
    bytes
}

/// Returns a bundle of a statement and its signature.
pub(crate) fn bundle(statement: &[u8], signature: &[u8], hint: &str) -> Vec<u8> {
    let bundle = json!({
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": { "publicKey": { "hint": hint } },
        "dsseEnvelope": {
            "payload": BASE64_STANDARD.encode(statement),
            "payloadType": STATEMENT_PAYLOAD,
            "signatures": [{ "sig": BASE64_STANDARD.encode(signature) }],
        },
    });
    bundle.to_string().into_bytes()
}

/// Whether this is the media type of a bundle.
pub(crate) fn is_bundle(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.dev.sigstore.bundle")
}

/// Parses a bundle. An error says what is wrong with it.
pub(crate) fn parse_bundle(bytes: &[u8]) -> Result<SignedStatement, String> {
    let bundle: Bundle = parse(bytes)?;
    if !BUNDLE_TYPES.contains(&bundle.media_type.as_str()) {
        return Err(format!("its version is not supported: {}", one_line_within(&bundle.media_type, SHOWN)));
    }
    let material = bundle.verification_material;
    let Some(key) = material.public_key else {
        let has_certificate = material.certificate.is_some() || material.x509_certificate_chain.is_some();
        return Err(match has_certificate {
            true => "signatures without a key (keyless) are not supported, yet".to_owned(),
            false => "it names no key".to_owned(),
        });
    };
    let envelope = bundle.dsse_envelope.ok_or("it has no DSSE envelope")?;
    let [signature] = &envelope.signatures[..] else {
        return Err(format!("its envelope has {} signatures, not one", envelope.signatures.len()));
    };
    if envelope.payload_type != STATEMENT_PAYLOAD {
        return Err(format!("its payload is {}", one_line_within(&envelope.payload_type, SHOWN)));
    }
    let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| "its base64 is malformed".to_owned());
    let (payload, signature) = (decode(&envelope.payload)?, decode(&signature.sig)?);
    let claim = parse_statement(&payload)?;
    Ok(SignedStatement { claim, signed: encode_for_signature(&payload), signature, hint: key.hint })
}

fn parse_statement(bytes: &[u8]) -> Result<Claim, String> {
    let statement: Statement = parse(bytes)?;
    if statement.kind != STATEMENT_TYPE {
        return Err(format!("its statement is of type `{}`", one_line_within(&statement.kind, SHOWN)));
    }
    let digests = statement.subject.iter().filter_map(|subject| subject.digest.sha256.as_ref());
    let subjects: Vec<Digest> = digests.filter_map(|hex| format!("sha256:{hex}").parse().ok()).collect();
    if subjects.is_empty() {
        return Err("it names no SHA-256 digest".to_owned());
    }
    let kind = match statement.predicate_type.as_str() {
        APPROVAL => ClaimKind::Approval,
        TEST_RESULT => ClaimKind::Report(statement.predicate),
        REVOCATIONS => ClaimKind::Revocations(statement.predicate),
        other => ClaimKind::Other(one_line_within(other, SHOWN).to_string()),
    };
    // An annotation is about its subject; of several, none would be known to be meant.
    let annotations = match <[Subject; 1]>::try_from(statement.subject) {
        Ok([subject]) => subject.annotations,
        Err(_) => Annotations::new(),
    };
    Ok(Claim { kind, subjects, annotations, reference: None })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes)
        .map_err(|error| format!("it is malformed: {}", one_line_within(&error.to_string(), SHOWN)))
}

/// Reads an object whose values are texts, or anything else, which is kept as JSON. A name that appears twice is an error.
fn loose_annotations<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Annotations, D::Error> {
    struct Values;
    impl<'de> serde::de::Visitor<'de> for Values {
        type Value = Annotations;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
            let mut texts = Annotations::new();
            while let Some((name, value)) = map.next_entry::<String, Value>()? {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                if texts.insert(name, text).is_some() {
                    return Err(serde::de::Error::custom("a name appears twice"));
                }
            }
            Ok(texts)
        }
    }
    deserializer.deserialize_map(Values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        Digest::of(b"manifest")
    }

    fn annotations() -> Annotations {
        Annotations::from([("env".to_owned(), "prod".to_owned())])
    }

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        let claim = parse_payload(&payload(&digest(), "a.b/c", &annotations())).unwrap();
        assert_eq!(
            (claim.kind, claim.subjects, claim.annotations),
            (ClaimKind::Approval, vec![digest()], annotations())
        );
        assert_eq!(claim.reference.as_deref(), Some("a.b/c"));
        let without = String::from_utf8(payload(&digest(), "a.b/c", &Annotations::new())).unwrap();
        assert!(without.ends_with("\"optional\":null}"), "as cosign writes it: {without}");
    }

    #[test]
    fn a_payload_is_checked() {
        let good = String::from_utf8(payload(&digest(), "a.b/c", &annotations())).unwrap();
        let hex = digest().hex();
        for (from, to) in [
            (PAYLOAD_KIND, "atomic container signature"),
            (hex.as_str(), &hex.to_uppercase()),
            (hex.as_str(), &hex[..63]),
            ("\"optional\"", "\"critical\":{},\"optional\""),
            ("\"type\"", "\"type\":\"x\",\"type\""),
            ("\"env\":\"prod\"", "\"env\":\"prod\",\"env\":\"test\""),
            ("docker-manifest-digest", "docker-manifest-digesT"),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from}");
            assert!(parse_payload(text.as_bytes()).is_err(), "{text}");
        }
        let more = good.replacen("\"optional\":{", "\"other\":1,\"optional\":{\"n\":{\"a\":1},", 1);
        assert_eq!(parse_payload(more.as_bytes()).unwrap().annotations["n"], "{\"a\":1}");
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written() {
        let text = statement(&digest(), APPROVAL, &json!({}), &annotations());
        let parsed = parse_bundle(&bundle(&text, b"signature", "hint")).unwrap();
        assert_eq!(parsed.claim.kind, ClaimKind::Approval);
        assert_eq!((&parsed.claim.subjects, &parsed.claim.annotations), (&vec![digest()], &annotations()));
        assert_eq!((parsed.signature.as_slice(), parsed.hint.as_str()), (&b"signature"[..], "hint"));
        let expected = format!("DSSEv1 28 application/vnd.in-toto+json {} ", text.len());
        assert_eq!(parsed.signed, [expected.as_bytes(), &text].concat());
    }

    #[test]
    fn a_bundle_is_checked() {
        let text = String::from_utf8(statement(&digest(), APPROVAL, &json!({}), &annotations())).unwrap();
        let with = |statement: &str| bundle(statement.as_bytes(), b"s", "h");
        assert!(parse_bundle(&with(&text)).is_ok());
        for (from, to) in [
            ("Statement/v1", "Statement/v0.1"),
            ("\"sha256\"", "\"sha512\""),
            ("\"predicateType\"", "\"predicateType\":\"x\",\"predicateType\""),
            ("\"env\":\"prod\"", "\"env\":\"prod\",\"env\":\"test\""),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            assert!(parse_bundle(&with(&changed)).is_err(), "{changed}");
        }
        let good: Value = serde_json::from_slice(&with(&text)).unwrap();
        let change = |pointer: &str, value: Value| {
            let mut bundle = good.clone();
            *bundle.pointer_mut(pointer).unwrap() = value;
            parse_bundle(bundle.to_string().as_bytes())
        };
        let signature = json!({ "sig": "AAAA" });
        for (pointer, value) in [
            ("/dsseEnvelope/payloadType", json!("application/json")),
            ("/dsseEnvelope/signatures", json!([])),
            ("/dsseEnvelope/signatures", json!([signature, signature])),
            ("/dsseEnvelope/payload", json!("A A=")),
            ("/dsseEnvelope", Value::Null),
            ("/mediaType", json!("application/vnd.dev.sigstore.bundle.v9+json")),
            ("/verificationMaterial", json!({})),
        ] {
            assert!(change(pointer, value).is_err(), "{pointer}");
        }
        let keyless = change("/verificationMaterial", json!({ "certificate": { "rawBytes": "AAAA" } }));
        assert_eq!(keyless.unwrap_err(), "signatures without a key (keyless) are not supported, yet");
        assert!(change("/mediaType", json!(BUNDLE_TYPES[3])).is_ok());
    }

    #[test]
    fn a_report_is_no_approval() {
        let text = statement(&digest(), TEST_RESULT, &json!({ "result": "FAILED" }), &annotations());
        let claim = parse_bundle(&bundle(&text, b"s", "h")).unwrap().claim;
        assert_eq!(claim.kind, ClaimKind::Report(json!({ "result": "FAILED" })));
        let text = statement(&digest(), "https://slsa.dev/provenance/v1", &json!({}), &annotations());
        let claim = parse_bundle(&bundle(&text, b"s", "h")).unwrap().claim;
        assert_eq!(claim.kind, ClaimKind::Other("https://slsa.dev/provenance/v1".to_owned()));
    }
}
