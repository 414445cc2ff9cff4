//! The requests of the schema registry API.

use std::collections::BTreeSet;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::registry::client::Request;
use crate::registry::{Registry, RegistryError, Schema, SubjectVersion, VersionName, WireId};

/// How many subjects are listed.
const MAX_SUBJECTS: usize = 100_000;

/// How many subjects are asked for at once.
const PAGE: usize = 500;

/// Which changes of a subject are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Compatibility {
    None,
    Backward,
    BackwardTransitive,
    Forward,
    ForwardTransitive,
    Full,
    FullTransitive,
}

/// The answer to a check of compatibility.
#[derive(Debug, Deserialize)]
pub(crate) struct CompatibilityCheck {
    pub(crate) is_compatible: bool,
    /// Why it is not compatible. Not every registry says so.
    #[serde(default)]
    pub(crate) messages: Vec<String>,
}

/// What a registry answers for a schema that was registered.
#[derive(Debug, Deserialize)]
pub(crate) struct Registered {
    pub(crate) id: u32,
    /// The version that has it. Not every registry says so.
    pub(crate) version: Option<i32>,
}

/// The setting of a registry, or of a subject: servers name it differently.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(alias = "compatibilityLevel")]
    compatibility: Compatibility,
}

impl Registry {
    /// The schema with an id.
    pub(crate) async fn schema(&self, id: u32) -> Result<Schema, RegistryError> {
        self.send(Request::get(&["schemas", "ids", &id.to_string()])).await
    }

    /// The schema that records name so.
    pub(crate) async fn schema_of(&self, id: WireId) -> Result<Schema, RegistryError> {
        match id {
            WireId::Number(id) => self.schema(id).await,
            WireId::Guid(guid) => self.send(Request::get(&["schemas", "guids", &guid.to_string()])).await,
        }
    }

    /// The version of a subject that has a schema.
    pub(crate) async fn lookup(
        &self,
        subject: &str,
        schema: &Schema,
    ) -> Result<SubjectVersion, RegistryError> {
        self.send(Request::new(Method::POST, &["subjects", subject]).with_body(to_json(schema))).await
    }

    /// The names of all subjects, in order, with those that were deleted and can be restored if they are wanted.
    pub(crate) async fn subjects(&self, with_deleted: bool) -> Result<Vec<String>, RegistryError> {
        let mut subjects = BTreeSet::new();
        loop {
            let (offset, limit) = (subjects.len().to_string(), PAGE.to_string());
            let request =
                Request::get(&["subjects"]).with_parameter("offset", &offset).with_parameter("limit", &limit);
            let page: Vec<String> = self.send(with_deleted_too(request, with_deleted)).await?;
            let before = subjects.len();
            subjects.extend(page);
            if subjects.len() > MAX_SUBJECTS {
                let reason = format!("it has more than {MAX_SUBJECTS} subjects");
                return Err(RegistryError::BadSchema { registry: self.name().to_owned(), reason });
            }
            // Older registries ignore the parameters, and answer everything at once.
            if subjects.len() == before {
                return Ok(subjects.into_iter().collect());
            }
        }
    }

    /// The versions of a subject, in order, with those that were deleted and can be restored if they are wanted.
    pub(crate) async fn versions(
        &self,
        subject: &str,
        with_deleted: bool,
    ) -> Result<Vec<i32>, RegistryError> {
        let path = ["subjects", subject, "versions"];
        let mut versions: Vec<i32> = self.send(with_deleted_too(Request::get(&path), with_deleted)).await?;
        versions.sort_unstable();
        Ok(versions)
    }

    pub(crate) async fn version(
        &self,
        subject: &str,
        version: VersionName,
    ) -> Result<SubjectVersion, RegistryError> {
        self.send(Request::get(&["subjects", subject, "versions", &version.to_string()])).await
    }

    /// A schema that another one refers to. It may have been deleted since, unless permanently.
    pub(super) async fn referenced(&self, subject: &str, version: i32) -> Result<Schema, RegistryError> {
        let path = ["subjects", subject, "versions", &version.to_string()];
        let found: SubjectVersion = self.send(with_deleted_too(Request::get(&path), true)).await?;
        Ok(found.schema)
    }

    /// Adds a version to a subject, unless it has the schema already.
    pub(crate) async fn register(&self, subject: &str, schema: &Schema) -> Result<Registered, RegistryError> {
        let path = ["subjects", subject, "versions"];
        self.send(Request::new(Method::POST, &path).with_body(to_json(schema))).await
    }

    /// Checks whether a schema may become the next version of a subject. Without a version of it, each schema may.
    pub(crate) async fn check(
        &self,
        subject: &str,
        schema: &Schema,
    ) -> Result<CompatibilityCheck, RegistryError> {
        let path = ["compatibility", "subjects", subject, "versions"];
        let request =
            Request::new(Method::POST, &path).with_body(to_json(schema)).with_parameter("verbose", "true");
        match self.send(request).await {
            // A schema that this one refers to may be missing, too.
            Err(error) if error.is_not_found() => match self.versions(subject, false).await {
                Err(missing) if missing.is_not_found() => {
                    Ok(CompatibilityCheck { is_compatible: true, messages: Vec::new() })
                }
                _ => Err(error),
            },
            result => result,
        }
    }

    /// Deletes a version. With `is_permanent`, it cannot be restored.
    pub(crate) async fn delete_version(
        &self,
        subject: &str,
        version: i32,
        is_permanent: bool,
    ) -> Result<(), RegistryError> {
        self.delete(&["subjects", subject, "versions", &version.to_string()], is_permanent).await
    }

    /// Deletes a subject with all of its versions. With `is_permanent`, they cannot be restored.
    pub(crate) async fn delete_subject(
        &self,
        subject: &str,
        is_permanent: bool,
    ) -> Result<(), RegistryError> {
        self.delete(&["subjects", subject], is_permanent).await
    }

    async fn delete(&self, path: &[&str], is_permanent: bool) -> Result<(), RegistryError> {
        let request = Request::new(Method::DELETE, path);
        // A permanent deletion needs one before that can be undone.
        let deleted = self.send::<Value>(request.clone()).await;
        if !is_permanent {
            return deleted.map(drop);
        }
        match deleted {
            // One that was deleted before is missing, or cannot be deleted again, which permits this.
            Err(error) if !error.is_not_found() && !matches!(error, RegistryError::Refused { .. }) => {
                Err(error)
            }
            _ => self.send::<Value>(request.with_parameter("permanent", "true")).await.map(drop),
        }
    }

    /// Which changes of a subject are allowed; without a subject, of those that have no setting of their own. `None` if a
    /// subject has none.
    pub(crate) async fn compatibility(
        &self,
        subject: Option<&str>,
    ) -> Result<Option<Compatibility>, RegistryError> {
        let path: Vec<&str> = ["config"].into_iter().chain(subject).collect();
        match self.send::<Config>(Request::get(&path)).await {
            Ok(config) => Ok(Some(config.compatibility)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn set_compatibility(
        &self,
        subject: Option<&str>,
        compatibility: Compatibility,
    ) -> Result<(), RegistryError> {
        let path: Vec<&str> = ["config"].into_iter().chain(subject).collect();
        let body = json!({ "compatibility": compatibility });
        self.send::<Value>(Request::new(Method::PUT, &path).with_body(body)).await.map(drop)
    }
}

fn with_deleted_too(request: Request<'_>, is_wanted: bool) -> Request<'_> {
    if is_wanted { request.with_parameter("deleted", "true") } else { request }
}

fn to_json(schema: &Schema) -> Value {
    // OK because texts and numbers always serialize.
    serde_json::to_value(schema).expect("serializes")
}
