//! The file of a policy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};

use crate::file::{FileError, read_text};
use crate::oci::keys::PublicKey;
use crate::oci::policy::glob::Glob;
use crate::oci::{Digest, OciError, Reference};

/// The largest policy that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// What happens to a codec that no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Decision {
    Allow,
    Refuse,
}

/// Whether codecs may be files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Files {
    Allow,
    Refuse,
    /// Only components with these digests.
    Digests(Vec<Digest>),
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected \"refuse\", \"allow\", or a list of digests of components")]
        enum Form {
            Decision(Decision),
            Digests(Vec<Digest>),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Decision(Decision::Allow) => Self::Allow,
            Form::Decision(Decision::Refuse) => Self::Refuse,
            Form::Digests(digests) => Self::Digests(digests),
        })
    }
}

/// `[registries]`: where codecs may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AllowedRegistries {
    /// The repositories; `None` if all may be used.
    pub(super) allow: Option<Vec<Glob>>,
    /// Whether files may be used; `None` for the default of the policy.
    pub(super) files: Option<Files>,
}

/// `[keys.NAME]`: a key that signs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    file: PathBuf,
}

/// `signed_by = { any_of = [...], at_least = 1 }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequiredSigners {
    pub(super) any_of: Vec<String>,
    /// How many of the keys must have signed.
    #[serde(default = "one")]
    pub(super) at_least: usize,
}

fn one() -> usize {
    1
}

/// `report = { ... }`: a report of tests that a codec must have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequiredReport {
    /// The name of the test suite; `None` accepts a report of any suite.
    pub(super) suite: Option<String>,
    #[serde(default = "passed")]
    pub(super) result: String,
    pub(super) signed_by: Vec<String>,
}

fn passed() -> String {
    "PASSED".to_owned()
}

/// `limits = { ... }`: the most that a configuration may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MostLimits {
    /// In bytes.
    #[serde(default, deserialize_with = "size")]
    pub(super) memory: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) deadline: Option<Duration>,
}

/// Whether a signature must name the repository where the codec is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum IdentityRule {
    Match,
    Ignore,
}

/// `[[rule]]`. The first rule that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// The tables; `None` for all.
    pub(super) tables: Option<Vec<Glob>>,
    /// The repositories; empty for all.
    pub(super) sources: Vec<Glob>,
    pub(super) signed_by: Option<RequiredSigners>,
    /// What a signature must say.
    pub(super) signed_annotations: BTreeMap<String, String>,
    pub(super) identity_must_match: bool,
    pub(super) report: Option<RequiredReport>,
    pub(super) limits: MostLimits,
}

/// A rule, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    tables: Option<Vec<Glob>>,
    #[serde(default)]
    sources: Vec<Glob>,
    signed_by: Option<RequiredSigners>,
    #[serde(default)]
    signed_annotations: BTreeMap<String, String>,
    identity: Option<IdentityRule>,
    report: Option<RequiredReport>,
    #[serde(default)]
    limits: MostLimits,
}

/// What happens while the list of revocations is too old or cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WhenStale {
    #[default]
    Warn,
    Refuse,
}

/// What happens to a running table whose codec is revoked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WhenRevoked {
    /// A message is logged.
    Warn,
    /// It keeps following, and its status says so.
    #[default]
    Degrade,
    /// It stops applying, and its contents stay readable.
    Freeze,
}

/// `[revocations]`: which codecs are revoked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevocationsSection {
    /// A tag of a registry or of a layout, or a file.
    pub(super) source: String,
    pub(super) signed_by: Vec<String>,
    /// How old the list may be; `None` as long as it is valid.
    #[serde(default, deserialize_with = "duration")]
    pub(super) max_age: Option<Duration>,
    #[serde(default)]
    pub(super) when_stale: WhenStale,
    #[serde(default)]
    pub(super) running: WhenRevoked,
}

/// A policy, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    version: u32,
    default: Decision,
    #[serde(default)]
    registries: AllowedRegistries,
    #[serde(default)]
    keys: BTreeMap<String, KeyFile>,
    #[serde(default)]
    rule: Vec<toml::Spanned<RuleText>>,
    revocations: Option<toml::Spanned<RevocationsSection>>,
}

/// A policy.
#[derive(Debug, Clone)]
pub(super) struct PolicyFile {
    pub(super) path: PathBuf,
    pub(super) default: Decision,
    pub(super) registries: AllowedRegistries,
    pub(super) keys: Vec<PublicKey>,
    pub(super) rules: Vec<Rule>,
    pub(super) revocations: Option<RevocationsSection>,
}

impl PolicyFile {
    pub(super) fn read(path: &Path) -> Result<Self, OciError> {
        let text = read_text(path, MAX_BYTES).map_err(FileError::of::<OciError>("read the policy", path))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let parsed = Self::parse(&text, |name, file| PublicKey::read(name, &folder.join(file)));
        let mut policy = parsed.map_err(|error| match error {
            PolicyError::Malformed(reason) => {
                OciError::Usage(format!("cannot read the policy {}: {reason}", path.display()))
            }
            PolicyError::Key(error) => error.about(&format!("cannot read the policy {}", path.display())),
        })?;
        policy.path = path.to_owned();
        Ok(policy)
    }

    fn parse(
        text: &str,
        mut read_key: impl FnMut(&str, &Path) -> Result<PublicKey, OciError>,
    ) -> Result<Self, PolicyError> {
        let line_at = |offset: usize| text.get(..offset).unwrap_or(text).matches('\n').count() + 1;
        let parsed: PolicyText = toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_at(span.start));
            PolicyError::Malformed(format!(
                "line {line}: {}. Correct the line.",
                error.message().trim_end_matches('.')
            ))
        })?;
        if parsed.version != 1 {
            let version = parsed.version;
            return Err(PolicyError::Malformed(format!(
                "its version is {version}, and this program knows version 1. Use a newer version of ktables."
            )));
        }
        // The problem of a section that begins at `start`, with the line that it is about.
        let describe = |start: usize, RuleProblem { near, reason }: RuleProblem| {
            let section = text.get(start..).unwrap_or_default();
            let offset = near.and_then(|near| section.find(&near)).unwrap_or(0);
            PolicyError::Malformed(format!("line {} {reason}", line_at(start + offset)))
        };
        let mut rules = Vec::new();
        for rule in parsed.rule {
            let span = rule.span();
            let rule = rule.into_inner();
            check_rule(&rule, &parsed.keys).map_err(|problem| describe(span.start, problem))?;
            rules.push(Rule {
                tables: rule.tables,
                sources: rule.sources,
                signed_by: rule.signed_by,
                signed_annotations: rule.signed_annotations,
                identity_must_match: rule.identity == Some(IdentityRule::Match),
                report: rule.report,
                limits: rule.limits,
            });
        }
        let revocations = parsed.revocations.map(|section| {
            let span = section.span();
            let section = section.into_inner();
            let checked = check_keys(&section.signed_by, &parsed.keys).and_then(|()| check_source(&section));
            checked.map_err(|problem| describe(span.start, problem))?;
            Ok(section)
        });
        let revocations = revocations.transpose()?;
        let mut keys = Vec::new();
        for (name, key) in &parsed.keys {
            keys.push(read_key(name, &key.file).map_err(PolicyError::Key)?);
        }
        check_reporters(&rules, &keys)?;
        let PolicyText { default, registries, .. } = parsed;
        Ok(Self { path: PathBuf::new(), default, registries, keys, rules, revocations })
    }
}

/// Fails if a key signs both approvals and reports.
fn check_reporters(rules: &[Rule], keys: &[PublicKey]) -> Result<(), PolicyError> {
    // A signature of a report by a key of approvals would be an approval to others.
    let signers = |rules: &[Rule]| -> Vec<String> {
        rules.iter().filter_map(|rule| rule.signed_by.as_ref()).flat_map(|by| by.any_of.clone()).collect()
    };
    let approvers = signers(rules);
    let reporter = rules.iter().filter_map(|rule| rule.report.as_ref()).flat_map(|report| &report.signed_by);
    for name in reporter {
        let hint = |name: &str| keys.iter().find(|key| key.name == *name).map(|key| key.hint().to_owned());
        if approvers.iter().any(|approver| approver == name || hint(approver) == hint(name)) {
            return Err(PolicyError::Malformed(format!(
                "key `{name}` signs both approvals and reports: other programs would take a report for an approval. Use \
                 another key for reports."
            )));
        }
    }
    Ok(())
}

/// Why a policy cannot be read.
#[derive(Debug)]
enum PolicyError {
    Malformed(String),
    Key(OciError),
}

/// A problem of a rule.
struct RuleProblem {
    /// A text near the problem, to find its line.
    near: Option<String>,
    reason: String,
}

fn check_rule(rule: &RuleText, keys: &BTreeMap<String, KeyFile>) -> Result<(), RuleProblem> {
    let problem = |near: &str, reason: String| Err(RuleProblem { near: Some(near.to_owned()), reason });
    let of_report = rule.report.iter().flat_map(|report| &report.signed_by);
    check_keys(rule.signed_by.iter().flat_map(|by| &by.any_of).chain(of_report), keys)?;
    if let Some(by) = &rule.signed_by {
        if by.at_least == 0 || by.at_least > by.any_of.len() {
            let (wanted, count) = (by.at_least, by.any_of.len());
            let reason =
                format!("requires {wanted} of {count} keys. Write `at_least` from 1 to the number of keys.");
            return problem("at_least", reason);
        }
        if let Some(twice) =
            by.any_of.iter().find(|key| by.any_of.iter().filter(|other| other == key).count() > 1)
        {
            return problem("any_of", format!("names key `{twice}` twice. Name each key once."));
        }
    } else if !rule.signed_annotations.is_empty() || rule.identity == Some(IdentityRule::Match) {
        let reason = "requires something of signatures, but no signature. Add `signed_by`.".to_owned();
        return problem("signed_annotations", reason);
    }
    if rule.report.as_ref().is_some_and(|report| report.signed_by.is_empty()) {
        return problem("report", "requires a report by nobody. Name keys in `signed_by`.".to_owned());
    }
    Ok(())
}

/// Fails if nobody may revoke, or if the source is malformed.
fn check_source(section: &RevocationsSection) -> Result<(), RuleProblem> {
    let problem = |near: &str, reason: String| Err(RuleProblem { near: Some(near.to_owned()), reason });
    if section.signed_by.is_empty() {
        return problem("signed_by", "has revocations by nobody. Name keys in `signed_by`.".to_owned());
    }
    if !Reference::is_reference(&section.source) {
        return Ok(());
    }
    match section.source.parse::<Reference>() {
        Ok(Reference { tag: Some(_), .. }) => Ok(()),
        Ok(_) => problem("source", "names a list without a tag. Write `oci://HOST/REPO:TAG`.".to_owned()),
        Err(error) => problem("source", format!("has a malformed `source`: {error}")),
    }
}

/// Fails if a key is not among those of the policy.
fn check_keys<'a>(
    names: impl IntoIterator<Item = &'a String>,
    keys: &BTreeMap<String, KeyFile>,
) -> Result<(), RuleProblem> {
    let Some(name) = names.into_iter().find(|name| !keys.contains_key(*name)) else { return Ok(()) };
    let known: Vec<&str> = keys.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let reason = format!(
        "uses key `{name}`, which is not among [keys] ({known}). Correct the name, or add the key to [keys]."
    );
    Err(RuleProblem { near: Some(name.clone()), reason })
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let size: ByteSize =
        text.parse().map_err(|_| serde::de::Error::custom("expected a size like \"64MiB\""))?;
    Ok(Some(size.as_u64()))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = humantime::parse_duration(&text)
        .map_err(|_| serde::de::Error::custom("expected a time like \"1s\""))?;
    Ok(Some(time))
}

#[cfg(any(feature = "fuzzing", test))]
/// Reads a policy, for the fuzz target.
pub(crate) fn check_policy(text: &str) {
    // OK to ignore: the text may be valid or not.
    let _ = PolicyFile::parse(text, |name, _| Err(OciError::Usage(name.to_owned())));
}
