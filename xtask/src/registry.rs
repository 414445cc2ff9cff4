//! A schema registry in the background, to try things with: `cargo xtask registry`.

use std::os::unix::process::parent_id;

use ktables_broker::{DetachedServer, SchemaRegistry, ServerKind, is_registry_installed, registry_version};

use crate::run::{Outcome, say, target};

/// The name of its folder below `target/kafka`.
const NAME: &str = "dev-registry";

/// Starts the registry, unless it is running. It ends with the caller of this program, a shell or a script.
pub(crate) fn start() -> Outcome {
    if let Some(running) = find() {
        say("the schema registry is already running");
        print_address(&running);
        return Ok(());
    }
    if !is_registry_installed(&target()) {
        say(&format!("installing: the schema registry Apicurio {}", registry_version()));
    }
    // The caller is the parent process, because cargo replaces itself by this program.
    let caller = parent_id();
    SchemaRegistry::start(&target(), Some(NAME))?.detach(caller)?;
    let running = find().ok_or("the schema registry ended right after its start")?;
    print_address(&running);
    say(&format!("  it ends with `cargo xtask registry down`, or with process {caller}, which started it"));
    Ok(())
}

/// Stops the registry. Its schemas are gone, because it keeps them in memory.
pub(crate) fn stop() -> Outcome {
    let is_stopped = DetachedServer::stop(&target(), ServerKind::SchemaRegistry, NAME)?;
    say(if is_stopped { "the schema registry is stopped" } else { "no schema registry is running" });
    Ok(())
}

/// Prints the address of the registry.
pub(crate) fn print_status() -> Outcome {
    let running = find().ok_or("no schema registry is running; start one: cargo xtask registry up")?;
    print_address(&running);
    Ok(())
}

fn find() -> Option<DetachedServer> {
    DetachedServer::find(&target(), ServerKind::SchemaRegistry, NAME)
}

fn print_address(running: &DetachedServer) {
    let url = SchemaRegistry::url_at(running.address());
    say(&format!("Apicurio {} at {url}", registry_version()));
    say(&format!("  process {}, folder {}", running.process(), running.folder().display()));
    say(&format!("  next: ktables schema ls --registry {url}"));
}
