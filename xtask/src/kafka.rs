//! A Kafka broker in the background, for trying things out.

use std::os::unix::process::parent_id;

use ktables_broker::{BrokerOptions, Cluster, Detached, is_installed, version};

use crate::run::{Outcome, say, target};

/// Its name, and with a node's number its folder's below `target/kafka`.
const NAME: &str = "dev";

/// More nodes do not fit a machine.
const MOST: usize = 9;

/// Starts it, unless it runs. It ends with whoever called this, a shell or a script:
/// cargo replaces itself by this program, so that is the parent.
pub(crate) fn up(nodes: &str) -> Outcome {
    let nodes: usize = nodes
        .parse()
        .ok()
        .filter(|nodes| (1..=MOST).contains(nodes))
        .ok_or(format!("--nodes is a number from 1 to {MOST}"))?;
    let running = running();
    if !running.is_empty() {
        say("Kafka runs already");
        tell(&running);
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
    let running = self::running();
    if running.len() != nodes {
        return Err(format!("{} of {nodes} brokers are gone again", nodes - running.len()));
    }
    tell(&running);
    say(&format!("  ends with `cargo xtask kafka down`, or with process {caller}, which called this"));
    Ok(())
}

/// Ends it, and removes what it wrote.
pub(crate) fn down() -> Outcome {
    let mut any = false;
    for name in names() {
        any |= Detached::end(&target(), &name)?;
    }
    say(if any { "Kafka is gone, and what it wrote" } else { "no broker runs" });
    Ok(())
}

/// Tells where it runs.
pub(crate) fn status() -> Outcome {
    let running = running();
    if running.is_empty() {
        return Err("no broker runs; start one: cargo xtask kafka up".to_owned());
    }
    tell(&running);
    Ok(())
}

fn names() -> impl Iterator<Item = String> {
    (1..=MOST).map(|node| format!("{NAME}-{node}"))
}

fn running() -> Vec<Detached> {
    names().filter_map(|name| Detached::find(&target(), &name)).collect()
}

fn tell(running: &[Detached]) {
    let addresses: Vec<&str> = running.iter().map(Detached::bootstrap).collect();
    let addresses = addresses.join(",");
    say(&format!("Apache Kafka {} at {addresses}", version()));
    for node in running {
        say(&format!("  process {}, folder {}", node.process(), node.folder().display()));
    }
    say(&format!("  next: ktables topic ensure --log kafka://{addresses} --topic services"));
}
