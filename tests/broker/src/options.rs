//! The options of a broker, and its users.

/// The options of a broker.
#[derive(Debug, Clone, Default)]
pub struct BrokerOptions {
    /// The name of the broker's folder below `target/kafka`. By default, a unique name.
    pub name: Option<String>,
    /// Further server properties. They override those that this crate sets.
    pub properties: Vec<(String, String)>,
    /// Whether the broker also has listeners with SASL, with TLS and with both, and an authorizer. The
    /// authorizer allows nothing to [`ALICE`], and everything to [`ADMIN`] and to anonymous clients
    /// (`bootstrap()`, `tls_bootstrap()`).
    pub secured: bool,
}

/// A user of a secured broker, who can log in with PLAIN and SCRAM-SHA-512.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: &'static str,
    /// The password.
    pub password: &'static str,
}

/// A user without any right, until an ACL grants one.
pub const ALICE: User = User { name: "alice", password: "alice-secret" };

/// A user with all rights.
pub const ADMIN: User = User { name: "admin", password: "admin-secret" };

/// All users.
pub(crate) const USERS: [User; 2] = [ALICE, ADMIN];
