//! Who may do what: clients, how they prove who they are, and their roles by table.

mod attempts;
mod pattern;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use subtle::{Choice, ConstantTimeEq};
use webpki::EndEntityCert;

use crate::config::ClientConfig;

pub(super) use attempts::FailedAttempts;
pub(crate) use token::{NewToken, TokenHash};

use pattern::TablePattern;

/// What a client may do with a table. A role does not include another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Read and watch entries, statuses and rejected records without their bytes.
    Read,
    /// Read raw records back from the log.
    ReadRaw,
    /// Write entries.
    Write,
    /// Swap codecs, and reload the configuration.
    Admin,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadRaw => "read_raw",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// The tables for which a client has each role.
#[derive(Debug, Default)]
pub(super) struct Grants {
    read: Vec<TablePattern>,
    read_raw: Vec<TablePattern>,
    write: Vec<TablePattern>,
    admin: Vec<TablePattern>,
}

impl Grants {
    fn of(&self, role: Role) -> &[TablePattern] {
        match role {
            Role::Read => &self.read,
            Role::ReadRaw => &self.read_raw,
            Role::Write => &self.write,
            Role::Admin => &self.admin,
        }
    }
}

/// Who sent a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The name in the configuration; for logs.
    pub(super) name: Arc<str>,
    grants: Arc<Grants>,
}

impl Caller {
    /// Returns a caller without any role, whom probes have in common.
    pub(super) fn nobody() -> Self {
        Self { name: "nobody".into(), grants: Arc::default() }
    }

    /// Whether the caller has a role for a table.
    pub(super) fn may(&self, role: Role, table: &str) -> bool {
        self.grants.of(role).iter().any(|pattern| pattern.matches(table))
    }

    /// Whether the caller has a role for every table that there may be.
    pub(super) fn may_everywhere(&self, role: Role) -> bool {
        self.grants.of(role).contains(&TablePattern::all())
    }
}

/// A client, and how it proves who it is.
#[derive(Debug)]
struct Client {
    caller: Caller,
    token: Option<TokenHash>,
    certificate_name: Option<ServerName<'static>>,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Access {
    clients: Vec<Client>,
    /// What callers without a proof may do; `None` if they may do nothing.
    anonymous: Option<Caller>,
}

impl Access {
    /// Creates the access of a configuration. An error names the client and what is wrong.
    pub(super) fn new(clients: &BTreeMap<String, ClientConfig>) -> Result<Self, String> {
        let create = |(name, config): (&String, &ClientConfig)| {
            Client::new(name, config).map_err(|reason| format!("access.clients.{name}{reason}"))
        };
        let clients: Vec<Client> = clients.iter().map(create).collect::<Result<_, _>>()?;
        for (index, client) in clients.iter().enumerate() {
            let has_same = |other: &&Client| other.token.is_some() && other.token == client.token;
            if let Some(other) = clients[..index].iter().find(has_same) {
                let (one, other) = (&other.caller.name, &client.caller.name);
                return Err(format!("access.clients: {one} and {other} have the same token"));
            }
        }
        Ok(Self { clients, anonymous: None })
    }

    /// Creates the access of a server without access control: everybody may read and write, and the holder of this
    /// token may do everything.
    pub(super) fn local(token: TokenHash) -> Self {
        let all = || vec![TablePattern::all()];
        let admin = Grants { read: all(), read_raw: all(), write: all(), admin: all() };
        let anonymous = Grants { read: all(), write: all(), ..Grants::default() };
        let caller = |name: &str, grants| Caller { name: name.into(), grants: Arc::new(grants) };
        let admin =
            Client { caller: caller("local admin", admin), token: Some(token), certificate_name: None };
        Self { clients: vec![admin], anonymous: Some(caller("anonymous", anonymous)) }
    }

    /// Returns what callers without a proof may do; `None` if they may do nothing.
    pub(super) fn anonymous(&self) -> Option<&Caller> {
        self.anonymous.as_ref()
    }

    /// Returns the client with this name.
    pub(super) fn find_name(&self, name: &str) -> Option<&Caller> {
        let known = self.clients.iter().map(|client| &client.caller).chain(&self.anonymous);
        known.into_iter().find(|caller| &*caller.name == name)
    }

    /// Returns the client with this token. Compares it with every client's, in constant time.
    pub(super) fn find_token(&self, token: &[u8]) -> Option<&Caller> {
        let hash = TokenHash::of(token);
        let mut found = None;
        for client in &self.clients {
            let is_equal: Choice = client.token.as_ref().map_or(Choice::from(0), |known| known.ct_eq(&hash));
            if bool::from(is_equal) {
                found = Some(&client.caller);
            }
        }
        found
    }

    /// Returns the client whose name is in a certificate, which was verified already.
    pub(super) fn find_certificate(&self, certificate: &CertificateDer<'_>) -> Option<&Caller> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let has_name = |client: &&Client| {
            let name = client.certificate_name.as_ref();
            name.is_some_and(|name| certificate.verify_is_valid_for_subject_name(name).is_ok())
        };
        self.clients.iter().find(has_name).map(|client| &client.caller)
    }
}

impl Client {
    fn new(name: &str, config: &ClientConfig) -> Result<Self, String> {
        let ClientConfig { token_sha256, certificate_name, read, read_raw, write, admin } = config;
        if token_sha256.is_none() && certificate_name.is_none() {
            return Err(": it has no proof: set token_sha256 (see `ktables token new`) or certificate_name"
                .to_owned());
        }
        let parse = |hash: &String| hash.parse().map_err(|reason| format!(".token_sha256: {reason}"));
        let token = token_sha256.as_ref().map(parse).transpose()?;
        let parse = |name: &String| {
            ServerName::try_from(name.clone())
                .map_err(|_| ".certificate_name: it is not a DNS name".to_owned())
        };
        let certificate_name = certificate_name.as_ref().map(parse).transpose()?;
        if [read, read_raw, write, admin].iter().all(|tables| tables.is_empty()) {
            return Err(": it has no role: set read, read_raw, write or admin".to_owned());
        }
        let patterns = |role: &str, texts: &[String]| {
            let parse = |text: &String| text.parse().map_err(|reason| format!(".{role}: {reason}"));
            texts.iter().map(parse).collect::<Result<Vec<TablePattern>, String>>()
        };
        let grants = Grants {
            read: patterns("read", read)?,
            read_raw: patterns("read_raw", read_raw)?,
            write: patterns("write", write)?,
            admin: patterns("admin", admin)?,
        };
        Ok(Self { caller: Caller { name: name.into(), grants: Arc::new(grants) }, token, certificate_name })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(text: &str) -> Result<Access, String> {
        Access::new(&toml::from_str(text).unwrap())
    }

    #[test]
    fn a_token_identifies_its_client_and_no_other_text_does() {
        let (one, two) = (NewToken::generate(), NewToken::generate());
        let text = format!(
            "[a]\ntoken_sha256 = \"{}\"\nread = [\"x*\"]\n[b]\ntoken_sha256 = \"{}\"\nadmin = [\"*\"]",
            one.hash(),
            two.hash()
        );
        let access = access(&text).unwrap();
        let name = |token: &str| access.find_token(token.as_bytes()).map(|caller| caller.name.to_string());
        assert_eq!(name(one.text()).as_deref(), Some("a"));
        assert_eq!(name(two.text()).as_deref(), Some("b"));
        for other in ["", "x", &one.hash().to_string(), &one.text()[1..], &format!("{} ", one.text())] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn a_role_is_for_tables_that_match_and_includes_no_other_role() {
        let hash = NewToken::generate().hash().to_string();
        let text = format!("[a]\ntoken_sha256 = \"{hash}\"\nread = [\"team-*\"]\nwrite = [\"team-x\"]");
        let caller = access(&text).unwrap().clients.remove(0).caller;
        for (role, table, expected) in [
            (Role::Read, "team-x", true),
            (Role::Read, "team-", true),
            (Role::Read, "other", false),
            (Role::Read, "my-team-x", false),
            (Role::Write, "team-x", true),
            (Role::Write, "team-xy", false),
            (Role::ReadRaw, "team-x", false),
            (Role::Admin, "team-x", false),
        ] {
            assert_eq!(caller.may(role, table), expected, "{role} {table}");
        }
        assert!(!caller.may_everywhere(Role::Read));
    }

    #[test]
    fn a_client_that_cannot_be_used_is_an_error_that_names_it() {
        for (text, expected) in [
            ("[a]\nread = [\"*\"]", "access.clients.a: it has no proof"),
            ("[a]\ncertificate_name = \"a.b\"", "access.clients.a: it has no role"),
            ("[a]\ntoken_sha256 = \"abc\"", "access.clients.a.token_sha256: "),
            ("[a]\ncertificate_name = \"a b\"", "access.clients.a.certificate_name: "),
            ("[a]\ncertificate_name = \"a.b\"\nwrite = [\"\"]", "access.clients.a.write: "),
        ] {
            let error = access(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
