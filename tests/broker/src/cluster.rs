//! A cluster of several nodes. Each is broker and controller, and holds a replica of every partition.

use std::path::Path;

use crate::broker::Broker;
use crate::folder;
use crate::options::BrokerOptions;
use crate::ports::Ports;
use crate::properties::Node;

/// A cluster that belongs to the caller. It works as long as most of its nodes are up.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Broker>,
}

impl Cluster {
    /// Starts a cluster of `nodes` brokers with their folders below a target folder, and waits until each
    /// answers.
    ///
    /// # Errors
    ///
    /// As [`Broker::start`].
    pub fn start(target: &Path, options: &BrokerOptions, nodes: usize) -> Result<Self, String> {
        let ports = (0..nodes).map(|_| Ports::pick(options.secured)).collect::<Result<Vec<_>, _>>()?;
        let controllers: Vec<u16> = ports.iter().map(|ports| ports.controller).collect();
        let name = options.name.clone().unwrap_or_else(folder::unique_name);
        let id = folder::unique_cluster_id(&name);
        let prepare = |(number, ports): (usize, Ports)| {
            let node = Node { id: number, controllers: controllers.clone() };
            Broker::prepare(target, options, &format!("{name}-{number}"), &id, &node, ports)
        };
        let nodes = (1..).zip(ports).map(prepare).collect::<Result<Vec<_>, _>>()?;
        let mut cluster = Self { nodes };
        cluster.heal()?;
        Ok(cluster)
    }

    /// Returns the addresses of all nodes, separated by commas, as clients expect them.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// Returns the node with this Kafka node id. Ids start at 1.
    ///
    /// # Panics
    ///
    /// If the cluster has no such node.
    pub fn node(&mut self, number: usize) -> &mut Broker {
        &mut self.nodes[number - 1]
    }

    /// Returns all nodes.
    pub fn nodes(&mut self) -> impl Iterator<Item = &mut Broker> {
        self.nodes.iter_mut()
    }

    /// Starts the nodes that are down, all at once, and waits until each answers.
    ///
    /// # Errors
    ///
    /// If one does not start.
    pub fn heal(&mut self) -> Result<(), String> {
        let mut starting = Vec::new();
        for node in self.nodes.iter_mut().filter(|node| !node.is_up()) {
            node.start_process()?;
            starting.push(node);
        }
        starting.into_iter().try_for_each(Broker::wait_until_ready)
    }

    /// Returns the nodes, for example to detach each.
    #[must_use]
    pub fn into_nodes(self) -> Vec<Broker> {
        self.nodes
    }
}
