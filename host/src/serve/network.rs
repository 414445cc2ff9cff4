//! What counts as one address.

use std::net::{IpAddr, Ipv6Addr};

/// Returns what counts as one address: a host of IPv6 has a whole network of them.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}
