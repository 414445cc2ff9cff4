//! Manifests and indexes of OCI artifacts, and what the manifest of a codec looks like: one layer, which is the component.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::escape::one_line_within;
use crate::oci::{Digest, OciError};

/// The largest manifest, index, configuration, signature or list that is read, in bytes.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// The largest component that is fetched by default, in bytes.
pub(crate) const MAX_COMPONENT_BYTES: u64 = 64 << 20;

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const WASM_CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
pub(crate) const WASM_TYPE: &str = "application/wasm";
pub(crate) const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// The content of an empty configuration.
pub(crate) const EMPTY: &[u8] = b"{}";

/// The annotation with the file name of a layer.
pub(crate) const TITLE: &str = "org.opencontainers.image.title";

/// The annotation with the version of what an artifact holds.
pub(crate) const VERSION: &str = "org.opencontainers.image.version";

/// The annotation that gives an entry of a layout's index its tag.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How much of what a manifest says an error repeats, in bytes.
const SHOWN: usize = 200;

/// Texts by name.
pub(crate) type Annotations = BTreeMap<String, String>;

/// Names a blob or a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// Its length in bytes.
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "annotations")]
    pub(crate) annotations: Annotations,
}

impl Descriptor {
    /// Describes these bytes.
    pub(crate) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: Annotations::new(),
        }
    }

    pub(crate) fn with_annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// The manifest of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    /// What the artifact is about, for signatures and reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "annotations")]
    pub(crate) annotations: Annotations,
}

/// A list of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "annotations")]
    pub(crate) annotations: Annotations,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(INDEX_TYPE.to_owned()),
            manifests: Vec::new(),
            annotations: Annotations::new(),
        }
    }
}

impl Manifest {
    /// Creates the manifest of an artifact without a configuration of its own.
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: Annotations::new(),
        }
    }

    /// Parses the manifest of any artifact.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        parse(bytes, "manifest")
    }

    /// Returns its bytes, which are the same for the same contents.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Returns the blobs that it names.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Describes this manifest, whose bytes these are.
    pub(crate) fn describe(&self, bytes: &[u8]) -> Descriptor {
        Descriptor { artifact_type: self.artifact_type.clone(), ..Descriptor::of(MANIFEST_TYPE, bytes) }
    }
}

impl Index {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        parse(bytes, "index")
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    // OK because texts and numbers always serialize.
    serde_json::to_vec(value).expect("serializes")
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let error = error.to_string();
        OciError::Refused(format!("the {what} is malformed: {}", one_line_within(&error, SHOWN)))
    })
}

/// The manifest of a codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodecManifest {
    /// The component.
    pub(crate) component: Descriptor,
    /// Its description, which other tools write and read.
    pub(crate) config: Descriptor,
    pub(crate) annotations: Annotations,
}

/// What tells a manifest from an index.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
    manifests: Option<Vec<de::IgnoredAny>>,
}

impl CodecManifest {
    /// Parses the manifest of a codec. Anything else is refused.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let refuse = |what: String| {
            OciError::Refused(format!(
                "cannot load the codec: {what}. A codec has one layer, {WASM_TYPE}. Check the reference."
            ))
        };
        let malformed = |error: OciError| refuse(format!("the reference names no manifest ({error})"));
        let kind: Kind = parse(bytes, "manifest").map_err(malformed)?;
        let is_index =
            kind.media_type.as_deref().is_some_and(|kind| [INDEX_TYPE, DOCKER_INDEX_TYPE].contains(&kind));
        if is_index || kind.manifests.is_some() {
            let count = kind.manifests.map_or(0, |manifests| manifests.len());
            let platforms = if count == 1 { "platform" } else { "platforms" };
            return Err(refuse(format!("the reference names an index of {count} {platforms}")));
        }
        let manifest = Manifest::parse(bytes).map_err(malformed)?;
        let shown = |text: &str| one_line_within(text, SHOWN).to_string();
        if manifest.schema_version != 2 {
            return Err(refuse(format!(
                "the manifest has schema version {}, not 2",
                manifest.schema_version
            )));
        }
        if manifest.config.media_type != WASM_CONFIG_TYPE {
            let is_image = manifest.config.media_type.ends_with("image.config.v1+json")
                || manifest.config.media_type.contains("docker.container.image");
            let what = if is_image { "an image" } else { "another kind of artifact" };
            return Err(refuse(format!(
                "the reference names {what} (config {})",
                shown(&manifest.config.media_type)
            )));
        }
        let [component] = &manifest.layers[..] else {
            return Err(refuse(format!("the manifest has {} layers", manifest.layers.len())));
        };
        if component.media_type != WASM_TYPE {
            return Err(refuse(format!("the layer of the manifest is {}", shown(&component.media_type))));
        }
        Ok(Self { component: component.clone(), config: manifest.config, annotations: manifest.annotations })
    }
}

/// A codec as an artifact: its manifest, and the configuration that the manifest names. The layer is the component itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodecArtifact {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
}

/// What an artifact says about its component.
#[derive(Debug, Clone, Default)]
pub(crate) struct ComponentFacts<'a> {
    /// The name of the file.
    pub(crate) title: &'a str,
    pub(crate) imports: &'a [String],
    pub(crate) exports: &'a [String],
    /// When it was built; by default, the beginning of 1970.
    pub(crate) created: Option<&'a str>,
    pub(crate) annotations: Annotations,
}

impl CodecArtifact {
    /// Describes a component. The same component and facts result in the same bytes.
    pub(crate) fn new(component: &[u8], facts: ComponentFacts<'_>) -> Self {
        let layer = Descriptor::of(WASM_TYPE, component).with_annotation(TITLE, facts.title);
        let config = json!({
            "created": facts.created.unwrap_or("1970-01-01T00:00:00Z"),
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [layer.digest],
            "component": { "exports": facts.exports, "imports": facts.imports },
        });
        let config = to_bytes(&config);
        let mut manifest = Manifest::new(Descriptor::of(WASM_CONFIG_TYPE, &config), vec![layer]);
        manifest.annotations = facts.annotations;
        Self { manifest: manifest.to_bytes(), config }
    }
}

/// The error of a reference with the digest of a component, which users see beside that of the manifest.
pub(crate) fn not_a_manifest(digest: &Digest) -> OciError {
    OciError::Usage(format!(
        "cannot resolve the reference: {digest} is the digest of a component, but a reference names a manifest. Use the digest of \
         the manifest, which `ktables codec resolve` prints."
    ))
}

/// Reads annotations: an object of texts, or null. A name that appears twice is an error, because readers would disagree.
pub(crate) fn annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Annotations, D::Error> {
    struct Texts;
    impl<'de> Visitor<'de> for Texts {
        type Value = Annotations;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Annotations, E> {
            Ok(Annotations::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
            let mut texts = Annotations::new();
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                if texts.insert(name.clone(), value).is_some() {
                    return Err(de::Error::custom(format!("the name `{name}` appears twice")));
                }
            }
            Ok(texts)
        }
    }
    deserializer.deserialize_any(Texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec() -> serde_json::Value {
        let component = Descriptor::of(WASM_TYPE, b"\0asm");
        let config = Descriptor::of(WASM_CONFIG_TYPE, EMPTY);
        serde_json::to_value(Manifest::new(config, vec![component])).unwrap()
    }

    fn refusal(manifest: &serde_json::Value) -> String {
        CodecManifest::parse(manifest.to_string().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_codec_has_one_layer() {
        let parsed = CodecManifest::parse(codec().to_string().as_bytes()).unwrap();
        assert_eq!(parsed.component.digest, Digest::of(b"\0asm"));
        let mut image = codec();
        image["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
        assert_eq!(
            refusal(&image),
            "cannot load the codec: the reference names an image (config application/vnd.oci.image.config.v1+json). A \
             codec has one layer, application/wasm. Check the reference."
        );
        let mut index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [{}, {}] });
        let expected = "cannot load the codec: the reference names an index of 2 platforms. A codec has one layer, \
                        application/wasm. Check the reference.";
        assert_eq!(refusal(&index), expected);
        index["mediaType"].take();
        assert_eq!(refusal(&index), expected);
        let mut layers = codec();
        let layer = layers["layers"][0].clone();
        layers["layers"] = json!([layer, layer, layer]);
        assert_eq!(
            refusal(&layers),
            "cannot load the codec: the manifest has 3 layers. A codec has one layer, application/wasm. Check the \
             reference."
        );
        layers["layers"] = json!([]);
        assert!(refusal(&layers).contains("the manifest has 0 layers"));
        let mut gzip = codec();
        gzip["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip");
        assert!(
            refusal(&gzip)
                .contains("the layer of the manifest is application/vnd.oci.image.layer.v1.tar+gzip")
        );
    }

    #[test]
    fn malformed_manifests_are_refused() {
        for size in ["-1", "1e400", "\"3\"", "18446744073709551616"] {
            let text = codec().to_string().replacen("\"size\":4", &format!("\"size\":{size}"), 1);
            assert!(CodecManifest::parse(text.as_bytes()).is_err(), "{size}");
        }
        let good = codec().to_string();
        let twice = good.replacen("\"schemaVersion\":2", "\"schemaVersion\":2,\"schemaVersion\":2", 1);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let annotated = good.replacen('{', "{\"annotations\":{\"a\":\"1\",\"a\":\"2\"},", 1);
        for text in [&twice, &deep, &annotated, "", "<html>", "null", "{}"] {
            assert!(CodecManifest::parse(text.as_bytes()).is_err(), "{}", &text[..text.len().min(200)]);
        }
    }

    #[test]
    fn the_same_component_has_the_same_manifest() {
        let facts = || ComponentFacts {
            title: "codec.wasm",
            exports: &[],
            imports: &[],
            created: None,
            annotations: Annotations::from([(VERSION.to_owned(), "1.0.0".to_owned())]),
        };
        let artifact = CodecArtifact::new(b"\0asm", facts());
        assert_eq!(artifact, CodecArtifact::new(b"\0asm", facts()));
        // Other versions of ktables must not change it, or a push would move tags.
        assert_eq!(
            Digest::of(&artifact.manifest).to_string(),
            "sha256:f2f01e425c84a094a5a061843deac7e86e8ee18be110b9be4509764b01b80bff"
        );
        let parsed = CodecManifest::parse(&artifact.manifest).unwrap();
        assert_eq!(parsed.config.digest, Digest::of(&artifact.config));
        assert_eq!(parsed.component.digest, Digest::of(b"\0asm"));
    }
}
