//! Picks free ports for brokers.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// The first port of the range. The range ends below 32768, where the ports begin that Linux gives to
/// outgoing connections and to listeners on port 0. Otherwise another program could take the port of a broker
/// that is down, and a client that keeps trying to reach the broker would eventually connect to itself.
const FIRST: u32 = 20_000;

/// The number of ports in the range.
const COUNT: u32 = 12_000;

/// How far apart the first ports of two processes with consecutive ids are.
const STRIDE: u32 = 40;

/// The ports of a broker.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    pub(crate) plaintext: u16,
    pub(crate) controller: u16,
    pub(crate) secured: Option<SecuredPorts>,
}

/// The ports of the listeners that only a secured broker has.
#[derive(Debug, Clone)]
pub(crate) struct SecuredPorts {
    pub(crate) sasl: u16,
    pub(crate) tls: u16,
    pub(crate) sasl_tls: u16,
}

impl Ports {
    /// Picks ports on which nothing listens.
    pub(crate) fn pick(secured: bool) -> Result<Self, String> {
        let secured = secured.then(SecuredPorts::pick).transpose()?;
        Ok(Self { plaintext: pick_port()?, controller: pick_port()?, secured })
    }

    /// Returns placeholder ports, for a configuration with which no broker is started.
    pub(crate) fn placeholder() -> Self {
        Self { plaintext: 1, controller: 2, secured: None }
    }
}

impl SecuredPorts {
    fn pick() -> Result<Self, String> {
        Ok(Self { sasl: pick_port()?, tls: pick_port()?, sasl_tls: pick_port()? })
    }
}

/// Returns the address of a port on loopback.
pub(crate) fn address(port: u16) -> String {
    format!("{}:{port}", Ipv4Addr::LOCALHOST)
}

/// Picks a port on which nothing listens, and which this process has not handed out before, because the
/// broker that gets it starts to listen only a second later.
pub(crate) fn pick_port() -> Result<u16, String> {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(STRIDE);
    for _ in 0..COUNT {
        let next = start.wrapping_add(HANDED_OUT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + next % COUNT;
        // OK because the range ends far below 65536.
        let port = u16::try_from(port).expect("a port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("cannot find a free port: all from {FIRST} to {} are in use", FIRST + COUNT - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_handed_out_once_and_lies_below_the_ephemeral_range() {
        let ports: Vec<u16> = (0..100).map(|_| pick_port().unwrap()).collect();
        assert!(ports.iter().all(|port| (20_000..32_768).contains(port)), "{ports:?}");
        let distinct: std::collections::HashSet<&u16> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len());
    }
}
