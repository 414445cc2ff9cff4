//! A Kafka broker in the background, for trying things out.

use std::os::unix::process::parent_id;

use ktables_broker::{Broker, BrokerOptions, Detached, is_installed, version};

use crate::run::{Outcome, say, target};

/// Its name, and its folder's below `target/kafka`.
const NAME: &str = "dev";

/// Starts it, unless it runs. It ends with whoever called this, a shell or a script:
/// cargo replaces itself by this program, so that is the parent.
pub(crate) fn up() -> Outcome {
    if let Some(running) = Detached::find(&target(), NAME) {
        say("a broker runs already");
        tell(&running);
        return Ok(());
    }
    if !is_installed(&target()) {
        say(&format!("installing: Apache Kafka {}", version()));
    }
    let caller = parent_id();
    let options = BrokerOptions { name: Some(NAME.to_owned()), ..BrokerOptions::default() };
    Broker::start(&target(), &options)?.detach(caller)?;
    let running = Detached::find(&target(), NAME).ok_or("the broker is gone again")?;
    tell(&running);
    say(&format!("  ends with `cargo xtask kafka down`, or with process {caller}, which called this"));
    Ok(())
}

/// Ends it, and removes what it wrote.
pub(crate) fn down() -> Outcome {
    say(if Detached::end(&target(), NAME)? {
        "the broker is gone, and its folder"
    } else {
        "no broker runs"
    });
    Ok(())
}

/// Tells where it runs.
pub(crate) fn status() -> Outcome {
    let running = Detached::find(&target(), NAME);
    tell(&running.ok_or("no broker runs; start one: cargo xtask kafka up")?);
    Ok(())
}

fn tell(running: &Detached) {
    let address = running.bootstrap();
    say(&format!("Apache Kafka {} at {address}", version()));
    say(&format!("  process {}, folder {}", running.process(), running.folder().display()));
    say(&format!("  next: ktables topic ensure --log kafka://{address} --topic services"));
}
