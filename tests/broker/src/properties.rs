//! Generates the server properties of a broker.

use std::fmt::Write;
use std::path::Path;

use crate::install::{Installation, KEYSTORE_PASSWORD};
use crate::options::{ADMIN, USERS};
use crate::ports::{Ports, SecuredPorts, address};

/// Properties of every node: required ones, and some that make tests fast.
const COMMON: &str = "\
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,\
SASL:SASL_PLAINTEXT,TLS:SSL,SASL_TLS:SASL_SSL
auto.create.topics.enable=false
num.partitions=3
# One partition of each internal topic is created faster than 50.
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.num.partitions=1
# Tests hold transactions open for as long as they like: a day.
transaction.max.timeout.ms=86400000
# A group does not wait for more members after its first one.
group.initial.rebalance.delay.ms=0
# A topic is created in 20 ms, not in 45.
controller.quorum.append.linger.ms=0
# After kill -9, a broker is registered again when its old session has expired: after 9 s by default.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=200
# Compaction and retention run soon, because tests wait for them.
log.initial.task.delay.ms=100
log.cleaner.backoff.ms=100
log.cleaner.min.cleanable.ratio=0.01
log.retention.check.interval.ms=100
# The default takes a quarter of the heap.
log.cleaner.dedupe.buffer.size=16777216
";

/// A node, and the controllers of its cluster.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The node id. Ids start at 1.
    pub(crate) id: usize,
    /// The controller ports of all nodes, in the order of their ids.
    pub(crate) controllers: Vec<u16>,
}

impl Node {
    /// Returns the only node of a cluster.
    pub(crate) fn single(ports: &Ports) -> Self {
        Self { id: 1, controllers: vec![ports.controller] }
    }

    fn properties(&self) -> String {
        let nodes = self.controllers.len();
        let voters = (1..).zip(&self.controllers).map(|(id, &port)| format!("{id}@{}", address(port)));
        let voters = voters.collect::<Vec<_>>().join(",");
        let in_sync = nodes.div_ceil(2);
        // Every node has a replica of everything, and at least half of them must be in sync.
        let internal = ["transaction.state.log", "share.coordinator.state.topic"]
            .map(|topic| format!("{topic}.replication.factor={nodes}\n{topic}.min.isr={in_sync}\n"));
        format!(
            "node.id={}\ncontroller.quorum.voters={voters}\noffsets.topic.replication.factor={nodes}\n{}\
             default.replication.factor={nodes}\nmin.insync.replicas={in_sync}\n",
            self.id,
            internal.concat()
        )
    }
}

/// Returns the configuration of a broker without authentication.
pub(crate) fn basic(node: &Node, ports: &Ports, storage: &Path) -> String {
    format!("{COMMON}{}log.dirs={}\nlisteners={}\n", node.properties(), storage.display(), listeners(ports))
}

/// Returns the configuration of a broker. The caller's own properties come last, because the last one wins.
pub(crate) fn server(
    node: &Node,
    ports: &Ports,
    storage: &Path,
    installation: &Installation,
    own: &[(String, String)],
) -> String {
    let mut text = basic(node, ports, storage);
    if ports.secured.is_some() {
        text += &security(installation);
    }
    for (name, value) in own {
        // OK because writing to a string cannot fail.
        writeln!(text, "{name}={value}").expect("written");
    }
    text
}

fn listeners(ports: &Ports) -> String {
    let mut listeners = vec![("PLAINTEXT", ports.plaintext), ("CONTROLLER", ports.controller)];
    if let Some(SecuredPorts { sasl, tls, sasl_tls }) = ports.secured {
        listeners.extend([("SASL", sasl), ("TLS", tls), ("SASL_TLS", sasl_tls)]);
    }
    let listeners = listeners.iter().map(|(name, port)| format!("{name}://{}", address(*port)));
    listeners.collect::<Vec<_>>().join(",")
}

/// Returns the properties for authentication and authorization.
fn security(installation: &Installation) -> String {
    let sasl: String = ["sasl", "sasl_tls"].map(sasl).concat();
    format!(
        "{sasl}\
         ssl.keystore.type=PKCS12\n\
         ssl.keystore.location={}\n\
         ssl.keystore.password={KEYSTORE_PASSWORD}\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         allow.everyone.if.no.acl.found=false\n\
         super.users=User:ANONYMOUS;User:{}\n",
        installation.keystore().display(),
        ADMIN.name
    )
}

/// Returns the SASL mechanisms of a listener. SCRAM's users are in the formatted storage. The signatures of
/// OAUTHBEARER's tokens are not checked.
fn sasl(listener: &str) -> String {
    let modules = "org.apache.kafka.common.security";
    let users: String =
        USERS.iter().map(|user| format!(" user_{}=\"{}\"", user.name, user.password)).collect();
    format!(
        "listener.name.{listener}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER\n\
         listener.name.{listener}.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required{users};\n\
         listener.name.{listener}.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;\n\
         listener.name.{listener}.oauthbearer.sasl.jaas.config={modules}.oauthbearer.OAuthBearerLoginModule required;\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secured_broker_has_a_listener_of_every_kind() {
        let mut ports = Ports::placeholder();
        assert_eq!(listeners(&ports), "PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2");
        ports.secured = Some(SecuredPorts { sasl: 3, tls: 4, sasl_tls: 5 });
        assert_eq!(
            listeners(&ports).split(',').skip(2).collect::<Vec<_>>(),
            ["SASL://127.0.0.1:3", "TLS://127.0.0.1:4", "SASL_TLS://127.0.0.1:5"]
        );
    }

    #[test]
    fn nodes_know_each_other_and_replicate() {
        let text = Node { id: 2, controllers: vec![7, 8, 9] }.properties();
        for line in [
            "node.id=2",
            "controller.quorum.voters=1@127.0.0.1:7,2@127.0.0.1:8,3@127.0.0.1:9",
            "default.replication.factor=3",
            "min.insync.replicas=2",
        ] {
            assert!(text.lines().any(|known| known == line), "{text}");
        }
    }

    #[test]
    fn every_line_is_a_property_or_a_comment() {
        let ports = Ports::placeholder();
        let text = basic(&Node::single(&ports), &ports, Path::new("data"));
        for line in text.lines() {
            assert!(line.starts_with("# ") || line.split_once('=').is_some(), "{line}");
        }
    }
}
