//! Counts failed attempts to prove an identity, by address.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::serve::network::network;

/// How many attempts of an address may fail at once.
const BURST: NonZeroU32 = NonZeroU32::new(20).expect("not zero");

/// How many attempts of an address may fail per second afterwards.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(1).expect("not zero");

/// After how many failed attempts the addresses are forgotten that may fail again anyway.
const CLEAN_EVERY: u64 = 1_000;

/// Counts failed attempts by address. A proof that is valid is always accepted, so that nobody can lock out others
/// behind the same address: a token has 256 random bits, and cannot be guessed.
#[derive(Debug)]
pub(in crate::serve) struct FailedAttempts {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    count: AtomicU64,
}

impl FailedAttempts {
    pub(in crate::serve) fn new() -> Self {
        let quota = Quota::per_second(PER_SECOND).allow_burst(BURST);
        Self { limiter: RateLimiter::keyed(quota), count: AtomicU64::new(0) }
    }

    /// Counts a failed attempt. Returns whether the address has had fewer than it may: only then it is logged.
    pub(in crate::serve) fn add(&self, address: Option<IpAddr>) -> bool {
        if self.count.fetch_add(1, Ordering::Relaxed) % CLEAN_EVERY == CLEAN_EVERY - 1 {
            self.limiter.retain_recent();
        }
        // A client of a Unix socket has no address, and the permissions of the socket limit who connects.
        address.is_none_or(|address| self.limiter.check_key(&network(address)).is_ok())
    }

    /// The number of failed attempts.
    pub(in crate::serve) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_often_is_refused_and_others_are_not() {
        let attempts = FailedAttempts::new();
        let (first, second) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        assert!((0..BURST.get()).all(|_| attempts.add(Some(first))));
        assert!(!attempts.add(Some(first)) && !attempts.add(Some(second)), "one network");
        assert!(attempts.add("2001:db8:1::1".parse().ok()) && attempts.add("10.0.0.1".parse().ok()));
        assert!((0..100).all(|_| attempts.add(None)));
        assert_eq!(attempts.count(), 124);
    }
}
