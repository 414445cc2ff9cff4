//! A Kafka broker or cluster in the background, to try things with: `cargo xtask kafka`.

use std::os::unix::process::parent_id;

use ktables_broker::{BrokerOptions, Cluster, DetachedServer, ServerKind, is_installed, version};

use crate::run::{Outcome, say, target};

/// The name of the cluster. With a node's number, it is the name of the node's folder below `target/kafka`.
const NAME: &str = "dev";

/// The largest number of nodes. More do not fit on a machine.
const MAX_NODES: usize = 9;

/// Starts the brokers, unless they are running. They end with the caller of this program, a shell or a
/// script. The caller is the parent process, because cargo replaces itself by this program.
pub(crate) fn start(nodes: &str) -> Outcome {
    let nodes: usize = nodes
        .parse()
        .ok()
        .filter(|nodes| (1..=MAX_NODES).contains(nodes))
        .ok_or(format!("--nodes must be a number from 1 to {MAX_NODES}"))?;
    let running = find_running();
    if nodes > running.len() && !running.is_empty() {
        let advice = "stop it first: cargo xtask kafka down";
        return Err(format!("Kafka is already running, with {} of {nodes} brokers; {advice}", running.len()));
    }
    if !running.is_empty() {
        say("Kafka is already running");
        print_addresses(&running);
        return Ok(());
    }
    if !is_installed(&target()) {
        say(&format!("installing: Apache Kafka {}", version()));
    }
    let caller = parent_id();
    let options = BrokerOptions { name: Some(NAME.to_owned()), ..BrokerOptions::default() };
    for node in Cluster::start(&target(), &options, nodes)?.into_nodes() {
        node.detach(caller)?;
    }
    let running = find_running();
    if running.len() != nodes {
        return Err(format!("{} of {nodes} brokers ended right after their start", nodes - running.len()));
    }
    print_addresses(&running);
    say(&format!("  it ends with `cargo xtask kafka down`, or with process {caller}, which started it"));
    Ok(())
}

/// Stops all brokers, and removes their data.
pub(crate) fn stop() -> Outcome {
    let mut is_any_stopped = false;
    for name in node_names() {
        is_any_stopped |= DetachedServer::stop(&target(), ServerKind::Broker, &name)?;
    }
    say(if is_any_stopped { "Kafka is stopped, and its data is removed" } else { "no broker is running" });
    Ok(())
}

/// Prints the addresses of the brokers that are running.
pub(crate) fn print_status() -> Outcome {
    let running = find_running();
    if running.is_empty() {
        return Err("no broker is running; start one: cargo xtask kafka up".to_owned());
    }
    print_addresses(&running);
    Ok(())
}

/// Returns the names that nodes may have.
fn node_names() -> impl Iterator<Item = String> {
    (1..=MAX_NODES).map(|node| format!("{NAME}-{node}"))
}

fn find_running() -> Vec<DetachedServer> {
    node_names().filter_map(|name| DetachedServer::find(&target(), ServerKind::Broker, &name)).collect()
}

fn print_addresses(running: &[DetachedServer]) {
    let addresses: Vec<&str> = running.iter().map(DetachedServer::address).collect();
    let addresses = addresses.join(",");
    say(&format!("Apache Kafka {} at {addresses}", version()));
    for node in running {
        say(&format!("  process {}, folder {}", node.process(), node.folder().display()));
    }
    say(&format!("  next: ktables topic ensure --log kafka://{addresses} --topic services"));
}
