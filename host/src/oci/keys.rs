//! Keys for signatures: ECDSA on P-256 with SHA-256, in the files that OpenSSL and cosign read.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::sign::{Signer, Verifier};
use openssl::symm::Cipher;
use sha2::{Digest as _, Sha256};

use crate::file::{FileError, read_bounded};
use crate::oci::OciError;

/// The largest key file that is read, in bytes.
const MAX_KEY_BYTES: usize = 64 << 10;

/// How cosign marks a private key in its own encryption.
const COSIGN_MARKS: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];

/// A key that verifies signatures.
#[derive(Clone)]
pub(crate) struct PublicKey {
    /// The name in the policy, or the name of the file.
    pub(crate) name: String,
    key: PKey<Public>,
    hint: String,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("name", &self.name)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl PublicKey {
    /// Reads a key in PEM format.
    pub(crate) fn read(name: &str, path: &Path) -> Result<Self, OciError> {
        let pem =
            read_bounded(path, MAX_KEY_BYTES).map_err(FileError::of::<OciError>("read the key", path))?;
        Self::parse(name, &pem, &path.display().to_string())
    }

    fn parse(name: &str, pem: &[u8], shown: &str) -> Result<Self, OciError> {
        if String::from_utf8_lossy(pem).contains("PRIVATE KEY") {
            return Err(OciError::Usage(format!(
                "cannot use the key {shown}: it is a private key. Name the file with the public key (.pub)."
            )));
        }
        let key = PKey::public_key_from_pem(pem).map_err(|_| malformed(shown, "a public key"))?;
        check_curve(&key, shown)?;
        Self::new(name, key).map_err(|error| unusable(shown, &error))
    }

    fn new(name: &str, key: PKey<Public>) -> Result<Self, ErrorStack> {
        let hint = BASE64_STANDARD.encode(Sha256::digest(key.public_key_to_der()?));
        Ok(Self { name: name.to_owned(), key, hint })
    }

    /// Returns the hash of the key, which signatures mention.
    pub(crate) fn hint(&self) -> &str {
        &self.hint
    }

    /// Whether a signature of these bytes is valid: DER of a signature with SHA-256.
    pub(crate) fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        let verify = || {
            let mut verifier = Verifier::new(MessageDigest::sha256(), &self.key)?;
            verifier.verify_oneshot(signature, bytes)
        };
        // An error says that the signature is malformed.
        verify().unwrap_or(false)
    }
}

/// A key that makes signatures.
pub(crate) struct PrivateKey {
    key: PKey<Private>,
    public: PublicKey,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// Creates a key.
    pub(crate) fn generate() -> Result<Self, OciError> {
        let generate = || {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
            PKey::from_ec_key(EcKey::generate(&group)?)
        };
        let failed = |error: ErrorStack| OciError::Failed(format!("cannot create a key: {error}"));
        Self::new(generate().map_err(failed)?, "the new key")
    }

    fn new(key: PKey<Private>, shown: &str) -> Result<Self, OciError> {
        check_curve(&key, shown)?;
        let public = || PublicKey::new(shown, PKey::public_key_from_der(&key.public_key_to_der()?)?);
        let public = public().map_err(|error| unusable(shown, &error))?;
        Ok(Self { key, public })
    }

    /// Reads a key in PEM format: PKCS#8, encrypted or not, or SEC1. Asks for the password only if one is needed.
    pub(crate) fn read(
        path: &Path,
        password: impl FnOnce() -> Result<String, OciError>,
    ) -> Result<Self, OciError> {
        let pem =
            read_bounded(path, MAX_KEY_BYTES).map_err(FileError::of::<OciError>("read the key", path))?;
        Self::parse(&pem, &path.display().to_string(), password)
    }

    fn parse(
        pem: &[u8],
        shown: &str,
        password: impl FnOnce() -> Result<String, OciError>,
    ) -> Result<Self, OciError> {
        let text = String::from_utf8_lossy(pem);
        if COSIGN_MARKS.iter().any(|mark| text.contains(mark)) {
            return Err(OciError::Usage(format!(
                "cannot read the key {shown}: it uses cosign's own encryption. Sign with `cosign sign`, or use `--payload` and \
                 `--attach`."
            )));
        }
        if text.contains("BEGIN PUBLIC KEY") {
            return Err(OciError::Usage(format!(
                "cannot use the key {shown}: it is a public key. Name the file with the private key (.key)."
            )));
        }
        let is_encrypted =
            text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED");
        let key = if is_encrypted {
            let password = password()?;
            PKey::private_key_from_pem_passphrase(pem, password.as_bytes()).map_err(|_| {
                OciError::Usage(format!(
                    "cannot read the key {shown}: the password is wrong. Check the password (`KTABLES_KEY_PASSWORD`)."
                ))
            })?
        } else {
            // A callback that gives no password, because OpenSSL would ask on the terminal.
            PKey::private_key_from_pem_callback(pem, |_| Ok(0))
                .map_err(|_| malformed(shown, "a private key"))?
        };
        Self::new(key, shown)
    }

    /// Returns the file of the private key: PKCS#8 in PEM format, encrypted if there is a password.
    pub(crate) fn to_pem(&self, password: Option<&str>) -> Result<Vec<u8>, OciError> {
        let pem = match password {
            Some(password) => {
                self.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), password.as_bytes())
            }
            None => self.key.private_key_to_pem_pkcs8(),
        };
        pem.map_err(|error| OciError::Failed(format!("cannot write the key: {error}")))
    }

    /// Returns the file of the public key.
    pub(crate) fn public_pem(&self) -> Result<Vec<u8>, OciError> {
        self.key
            .public_key_to_pem()
            .map_err(|error| OciError::Failed(format!("cannot write the key: {error}")))
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs bytes. Returns DER.
    pub(crate) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, OciError> {
        let sign = || Signer::new(MessageDigest::sha256(), &self.key)?.sign_oneshot_to_vec(bytes);
        sign().map_err(|error: ErrorStack| OciError::Failed(format!("cannot sign: {error}")))
    }
}

fn check_curve<T: openssl::pkey::HasPublic>(key: &PKey<T>, shown: &str) -> Result<(), OciError> {
    let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
    if key.id() == Id::EC && curve == Some(Nid::X9_62_PRIME256V1) {
        return Ok(());
    }
    Err(OciError::Usage(format!("cannot use the key {shown}: it is not a P-256 key. Use a P-256 key.")))
}

fn malformed(shown: &str, what: &str) -> OciError {
    OciError::Usage(format!("cannot read the key {shown}: it is not {what} in PEM format. Check the file."))
}

fn unusable(shown: &str, error: &ErrorStack) -> OciError {
    OciError::Usage(format!("cannot use the key {shown}: {error}. Use a P-256 key."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_password() -> Result<String, OciError> {
        panic!("no password is needed")
    }

    #[test]
    fn what_a_key_signs_is_verified_by_its_public_key_alone() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let signature = key.sign(b"text").unwrap();
        assert!(key.public().verifies(b"text", &signature));
        assert!(!key.public().verifies(b"texT", &signature));
        assert!(!other.public().verifies(b"text", &signature));
        let mut longer = signature.clone();
        longer.push(0);
        // r = 0 and s = 0.
        for malformed in [&b""[..], b"\x30\x06\x02\x01\x00\x02\x01\x00", &longer, &signature[1..]] {
            assert!(!key.public().verifies(b"text", malformed));
        }
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let key = PrivateKey::generate().unwrap();
        let public = PublicKey::parse("a", &key.public_pem().unwrap(), "a.pub").unwrap();
        assert_eq!(public.hint(), key.public().hint());
        let plain = PrivateKey::parse(&key.to_pem(None).unwrap(), "a.key", no_password).unwrap();
        assert_eq!(plain.public().hint(), public.hint());
        let encrypted = key.to_pem(Some("secret")).unwrap();
        let read = |password: &str| PrivateKey::parse(&encrypted, "a.key", || Ok(password.to_owned()));
        assert_eq!(read("secret").unwrap().public().hint(), public.hint());
        assert_eq!(
            read("wrong").unwrap_err().to_string(),
            "cannot read the key a.key: the password is wrong. Check the password (`KTABLES_KEY_PASSWORD`)."
        );
    }

    #[test]
    fn other_keys_are_refused() {
        let group = EcGroup::from_curve_name(Nid::SECP384R1).unwrap();
        let p384 = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let rsa = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
        let ed25519 = PKey::generate_ed25519().unwrap();
        for key in [p384, rsa, ed25519] {
            let error = PublicKey::parse("a", &key.public_key_to_pem().unwrap(), "a.pub").unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot use the key a.pub: it is not a P-256 key. Use a P-256 key."
            );
            let pem = key.private_key_to_pem_pkcs8().unwrap();
            let error = PrivateKey::parse(&pem, "a.key", no_password).unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot use the key a.key: it is not a P-256 key. Use a P-256 key."
            );
        }
        let key = PrivateKey::generate().unwrap();
        let error = PublicKey::parse("a", &key.to_pem(None).unwrap(), "a.key").unwrap_err().to_string();
        assert!(error.contains("is a private key"), "{error}");
        let error =
            PrivateKey::parse(&key.public_pem().unwrap(), "a.pub", no_password).unwrap_err().to_string();
        assert!(error.contains("is a public key"), "{error}");
        for text in ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert!(PublicKey::parse("a", text.as_bytes(), "a.pub").is_err(), "{text}");
        }
        let cosign = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n";
        let error = PrivateKey::parse(cosign.as_bytes(), "cosign.key", no_password).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the key cosign.key: it uses cosign's own encryption. Sign with `cosign sign`, or use `--payload` and \
             `--attach`."
        );
    }
}
