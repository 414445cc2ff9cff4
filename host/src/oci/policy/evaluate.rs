//! Decides about a codec by the rules of a policy.

use bytesize::ByteSize;

use crate::escape::one_line_within;
use crate::oci::policy::file::{Decision, Files, PolicyFile, RequiredReport, Rule};
use crate::oci::policy::request::{Use, for_table, join_or};
use crate::oci::store::{CodecSources, FoundCodec};
use crate::oci::verify::{Approval, FoundSignatures, Report, SignatureResult, Verdict};
use crate::oci::{Digest, Location, OciError};

/// The signatures of a codec, which are read when a rule needs them.
pub(super) struct SignatureCache<'a> {
    sources: &'a CodecSources,
    codec: &'a FoundCodec,
    local: Option<Result<FoundSignatures, OciError>>,
    remote: Option<Result<Option<FoundSignatures>, OciError>>,
}

impl<'a> SignatureCache<'a> {
    pub(super) fn new(sources: &'a CodecSources, codec: &'a FoundCodec) -> Self {
        Self { sources, codec, local: None, remote: None }
    }

    /// Checks the signatures where the codec was found. If they do not suffice, checks those that its registry has by now.
    async fn check<T>(
        &mut self,
        check: impl Fn(&FoundSignatures) -> Result<T, OciError>,
    ) -> Result<T, OciError> {
        if self.local.is_none() {
            self.local = Some(self.sources.local_signatures(self.codec).await);
        }
        // OK because it was set above.
        let local = self.local.as_ref().expect("read").as_ref().map_err(Clone::clone).and_then(&check);
        let Err(error) = local else { return local };
        if self.remote.is_none() {
            self.remote = Some(self.sources.remote_signatures(self.codec).await);
        }
        match &self.remote {
            Some(Ok(Some(found))) => check(found),
            Some(Err(error)) => Err(error.clone()),
            _ => Err(error),
        }
    }
}

/// Returns the name by which policies know a place: without its scheme if it is in a registry.
fn source_name(location: &Location) -> String {
    match location {
        Location::Registry(repository) => repository.to_string(),
        // The folder itself, and not one of the paths that lead to it.
        Location::Layout(folder) => {
            Location::Layout(folder.canonicalize().unwrap_or_else(|_| folder.clone())).to_string()
        }
    }
}

impl PolicyFile {
    /// Decides about a component that is a file, or was uploaded.
    pub(super) fn check_file(&self, what: &str, component: &Digest, usage: Use<'_>) -> Result<(), OciError> {
        if !self.allows_file(component) {
            return Err(OciError::Refused(format!(
                "cannot approve {what}{}: the policy {} does not allow files. Use a codec from an allowed source{}, or add \
                 {component} to `files` in the policy.",
                for_table(usage),
                self.path.display(),
                self.shown_sources()
            )));
        }
        // Rules about tables limit files, too.
        let rule = self.rules.iter().find(|rule| rule.sources.is_empty() && rule.matches("", usage.table));
        rule.map_or(Ok(()), |rule| rule.check_limits(usage))
    }

    fn allows_file(&self, component: &Digest) -> bool {
        match &self.registries.files {
            Some(Files::Allow) => true,
            Some(Files::Refuse) => false,
            Some(Files::Digests(digests)) => digests.contains(component),
            None => self.default == Decision::Allow,
        }
    }

    /// Decides about a codec from a registry or a layout.
    pub(super) async fn check(
        &self,
        codec: &FoundCodec,
        usage: Use<'_>,
        signatures: &mut SignatureCache<'_>,
        verdict: &mut Verdict,
    ) -> Result<(), OciError> {
        let name = source_name(&codec.reference.location);
        let allowed = self.registries.allow.as_ref();
        if !allowed.is_none_or(|allowed| allowed.iter().any(|glob| glob.matches(&name))) {
            return Err(self.not_allowed(&name, usage));
        }
        let mut last_error = None;
        let rules = self.rules.iter().enumerate().filter(|(_, rule)| rule.matches(&name, usage.table));
        for (index, rule) in rules {
            match self.check_rule(rule, &name, codec, usage, signatures).await {
                Ok((signed_by, report)) => {
                    verdict.signed_by.extend(signed_by);
                    verdict.report = report.or(verdict.report.take());
                    verdict.rules.push(format!("{}: rule {}", self.path.display(), index + 1));
                    return Ok(());
                }
                // For a table, the first rule decides. Without one, any of them may approve.
                Err(error) if usage.table.is_some() => return Err(error),
                Err(error) => last_error = Some(error),
            }
        }
        if let Some(error) = last_error {
            return Err(error);
        }
        if self.default == Decision::Refuse {
            return Err(self.not_allowed(&name, usage));
        }
        if matches!(codec.reference.location, Location::Layout(_)) {
            self.check_file(&name, &codec.component, usage)?;
        }
        verdict.rules.push(format!("{}: default", self.path.display()));
        Ok(())
    }

    /// Decides by a rule. Returns the keys, and the result of the report.
    async fn check_rule(
        &self,
        rule: &Rule,
        name: &str,
        codec: &FoundCodec,
        usage: Use<'_>,
        signatures: &mut SignatureCache<'_>,
    ) -> Result<(Vec<String>, Option<String>), OciError> {
        rule.check_limits(usage)?;
        if rule.needs_signatures() {
            return signatures.check(|found| self.check_signatures(rule, found, name, usage)).await;
        }
        // A folder that anybody can name is no better than a file, unless the rule names it.
        if matches!(codec.reference.location, Location::Layout(_)) && rule.sources.is_empty() {
            self.check_file(name, &codec.component, usage)?;
        }
        Ok((Vec::new(), None))
    }

    fn not_allowed(&self, name: &str, usage: Use<'_>) -> OciError {
        OciError::Refused(format!(
            "cannot approve {name}{}: no rule allows it. Use a codec from an allowed source{}, or add a rule to the policy.",
            for_table(usage),
            self.shown_sources()
        ))
    }

    /// Lists the sources that may be approved, for errors.
    fn shown_sources(&self) -> String {
        let allowed = self.registries.allow.iter().flatten();
        let mut sources: Vec<String> = allowed.map(ToString::to_string).collect();
        if sources.is_empty() {
            sources = self.rules.iter().flat_map(|rule| &rule.sources).map(ToString::to_string).collect();
        }
        sources.dedup();
        if sources.is_empty() { String::new() } else { format!(" ({})", sources.join(", ")) }
    }

    /// Checks the signatures and the report that a rule requires. Returns the keys, and the result of the report.
    fn check_signatures(
        &self,
        rule: &Rule,
        found: &FoundSignatures,
        name: &str,
        usage: Use<'_>,
    ) -> Result<(Vec<String>, Option<String>), OciError> {
        let results = found.verify(&self.keys);
        let mut signed_by = Vec::new();
        if let Some(required) = &rule.signed_by {
            if found.signatures.is_empty() {
                return Err(found.unsigned_error());
            }
            let trusted: Vec<&Approval> = results
                .iter()
                .filter_map(|result| match result {
                    SignatureResult::Approval(approval) if required.any_of.contains(&approval.key) => {
                        Some(approval)
                    }
                    _ => None,
                })
                .collect();
            let mut refusal = None;
            for approval in &trusted {
                match rule.check_approval(approval, name, usage) {
                    Ok(()) => signed_by.push(approval.key.clone()),
                    Err(error) => drop(refusal.get_or_insert(error)),
                }
            }
            signed_by.sort();
            signed_by.dedup();
            if signed_by.is_empty() {
                return Err(
                    refusal.unwrap_or_else(|| found.insufficient_error(&results, &join_or(&required.any_of)))
                );
            }
            if signed_by.len() < required.at_least {
                return Err(OciError::Refused(format!(
                    "cannot approve the codec: {} of the required keys signed it ({}), and the rule{} requires {}. Sign the codec \
                     with more of {}.",
                    signed_by.len(),
                    signed_by.join(", "),
                    shown_tables(rule),
                    required.at_least,
                    join_or(&required.any_of)
                )));
            }
        }
        let report = rule.report.as_ref().map(|required| required.check(&results)).transpose()?;
        Ok((signed_by, report))
    }
}

/// Says which tables a rule is for.
fn shown_tables(rule: &Rule) -> String {
    match &rule.tables {
        Some(tables) => {
            format!(" for {}", tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        None => String::new(),
    }
}

impl Rule {
    fn matches(&self, source: &str, table: Option<&str>) -> bool {
        let has_source = self.sources.is_empty() || self.sources.iter().any(|glob| glob.matches(source));
        let has_table = match (&self.tables, table) {
            (Some(globs), Some(table)) => globs.iter().any(|glob| glob.matches(table)),
            (None, _) | (_, None) => true,
        };
        has_source && has_table
    }

    fn needs_signatures(&self) -> bool {
        self.signed_by.is_some() || self.report.is_some()
    }

    /// Fails if the configuration asks for more than the rule permits.
    fn check_limits(&self, usage: Use<'_>) -> Result<(), OciError> {
        let Some(limits) = usage.limits else { return Ok(()) };
        let refuse = |what: &str, asked: String, most: String| {
            OciError::Refused(format!(
                "cannot approve the codec{}: its configuration asks for {what} = {asked}, and the policy permits at most {most}. \
                 Lower `limits.{what}`.",
                for_table(usage)
            ))
        };
        if let Some(most) = self.limits.memory.filter(|most| limits.memory as u64 > *most) {
            let shown = |bytes| ByteSize(bytes).display().iec().to_string();
            return Err(refuse("memory", shown(limits.memory as u64), shown(most)));
        }
        if let Some(most) = self.limits.deadline.filter(|most| limits.deadline > *most) {
            let shown = |time| humantime::format_duration(time).to_string();
            return Err(refuse("deadline", shown(limits.deadline), shown(most)));
        }
        Ok(())
    }

    /// Fails if an approval does not say what the rule requires.
    fn check_approval(&self, approval: &Approval, name: &str, usage: Use<'_>) -> Result<(), OciError> {
        for (key, wanted) in &self.signed_annotations {
            let signed = approval.annotations.get(key);
            if signed == Some(wanted) {
                continue;
            }
            let signed = signed.map_or_else(
                || format!("without {key}"),
                |value| format!("with {key} = \"{}\"", one_line_within(value, 100)),
            );
            let tables = if self.tables.is_some() { shown_tables(self) } else { for_table(usage) };
            return Err(OciError::Refused(format!(
                "cannot approve the codec: {} signed it {signed}, but the rule{tables} requires {key} = \"{wanted}\". Use a codec \
                 that is signed with {key} = \"{wanted}\".",
                approval.key
            )));
        }
        if self.identity_must_match && approval.reference.as_deref() != Some(name) {
            let signed = approval.reference.as_ref().map_or_else(
                || "for no repository".to_owned(),
                |reference| format!("as {}", one_line_within(reference, 200)),
            );
            return Err(OciError::Refused(format!(
                "cannot approve the codec: {} signed it {signed}, and the rule requires {name} (identity = \"match\"). Sign the \
                 codec in this repository, with `--format tag` or `both`.",
                approval.key
            )));
        }
        Ok(())
    }
}

impl RequiredReport {
    /// Returns the result of the report, if one of them is as required.
    fn check(&self, results: &[SignatureResult]) -> Result<String, OciError> {
        let reports = results.iter().filter_map(|result| match result {
            SignatureResult::Report(report) if self.signed_by.contains(&report.key) => Some(report),
            _ => None,
        });
        let signers = join_or(&self.signed_by);
        let of_suite: Vec<&Report> = reports
            .filter(|report| self.suite.as_ref().is_none_or(|suite| is_of_suite(report, suite)))
            .collect();
        let result_of = |report: &Report| report.predicate["result"].as_str().unwrap_or("none").to_owned();
        if of_suite.iter().any(|report| result_of(report) == self.result) {
            return Ok(self.result.clone());
        }
        let Some(report) = of_suite.last() else {
            return Err(OciError::Refused(format!(
                "cannot approve the codec: it has no conformance report signed by `{signers}`. Attach one with `ktables codec \
                 attest`."
            )));
        };
        let failed = report.predicate["failedTests"].as_array();
        let failed: Vec<&str> =
            failed.into_iter().flatten().filter_map(|test| test.as_str()).take(10).collect();
        let shown = format!("{}: {}", result_of(report), failed.join(", "));
        Err(OciError::Refused(format!(
            "cannot approve the codec: its conformance report says {}. Fix the codec, and attach a new report with `ktables codec \
             attest`.",
            one_line_within(shown.trim_end_matches(": "), 300)
        )))
    }
}

/// Whether a report is about this suite.
fn is_of_suite(report: &Report, suite: &str) -> bool {
    let configuration = report.predicate["configuration"].as_array();
    configuration.into_iter().flatten().any(|entry| entry["name"].as_str() == Some(suite))
}
