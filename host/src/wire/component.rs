//! The JSON forms of components and codecs: their identity, and where they came from.

use serde::Serialize;

use crate::codec::{Codecs, ComponentId};

/// A component.
#[derive(Debug, Serialize)]
pub(crate) struct ComponentJson<'a> {
    name: &'a str,
    digest: &'a str,
    /// What names it: a path, a bundled codec, or an artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    /// The digest of the manifest of an artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<&'a str>,
    /// Where it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
}

impl<'a> ComponentJson<'a> {
    pub(crate) fn new(id: &'a ComponentId) -> Self {
        let origin = id.origin.as_deref();
        Self {
            name: &id.name,
            digest: &id.digest,
            reference: origin.map(|origin| origin.reference.as_str()),
            manifest: origin.and_then(|origin| origin.manifest.as_deref()),
            source: origin.map(|origin| origin.source.as_str()),
        }
    }
}

/// The codecs of a table; `None` for a codec that is built in.
#[derive(Debug, Serialize)]
pub(crate) struct CodecsJson<'a> {
    key: Option<ComponentJson<'a>>,
    value: Option<ComponentJson<'a>>,
    group: Option<ComponentJson<'a>>,
}

impl<'a> CodecsJson<'a> {
    pub(crate) fn new(codecs: &'a Codecs) -> Self {
        let group = codecs.group_scheme.as_ref().and_then(|scheme| scheme.component());
        Self {
            key: codecs.key.component().map(ComponentJson::new),
            value: codecs.value.component().map(ComponentJson::new),
            group: group.map(ComponentJson::new),
        }
    }
}
