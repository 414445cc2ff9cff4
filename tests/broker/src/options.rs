//! What a caller chooses about a broker.

/// How a broker is set up.
#[derive(Debug, Clone, Default)]
pub struct BrokerOptions {
    /// Its folder's name below `target/kafka`; a unique one by default.
    pub name: Option<String>,
    /// Server properties of the test's own; they win over those of this crate.
    pub properties: Vec<(String, String)>,
    /// Whether there are also listeners with SASL, TLS and both, and an authorizer
    /// that allows nothing to [`ALICE`] and everything to [`ADMIN`] and to whoever
    /// comes without a name (over `bootstrap()` and `tls_bootstrap()`).
    pub secured: bool,
}

/// Somebody whom a secured broker knows, by PLAIN and by SCRAM-SHA-512.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: &'static str,
    /// The password.
    pub password: &'static str,
}

/// May do nothing until an ACL allows it.
pub const ALICE: User = User { name: "alice", password: "alice-secret" };

/// May do everything.
pub const ADMIN: User = User { name: "admin", password: "admin-secret" };

/// All users.
pub(crate) const USERS: [User; 2] = [ALICE, ADMIN];
