//! Wrong tokens are slowed down per address. Right ones never are: they are checked first, so nobody
//! who shares an address with a stranger is locked out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Wrong tokens that an address may send at once.
const BURST: f64 = 10.0;
/// Wrong tokens that an address may send a second, later.
const PER_SECOND: f64 = 0.2;
/// Addresses that are remembered.
const MOST: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn filled(self, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        (self.tokens + passed * PER_SECOND).min(BURST)
    }
}

/// What to do with a wrong token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Say that it is wrong.
    Refuse,
    /// Say that there were too many, and when to come again.
    Slow(Duration),
}

/// A token bucket for each address.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<IpAddr, Bucket>>);

/// One customer has one IPv4 address, or a /64 network of IPv6.
fn network(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(v6)) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        Some(v4) => v4,
        None => Ipv6Addr::UNSPECIFIED.into(),
    }
}

impl Throttle {
    /// Counts a wrong token of an address; `now` is a time of [`Clock::elapsed`].
    ///
    /// [`Clock::elapsed`]: throng_model::Clock::elapsed
    pub(super) fn wrong(&self, address: Option<IpAddr>, now: Duration) -> Verdict {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = network(address);
        if buckets.len() >= MOST && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| bucket.filled(now) < BURST);
            if buckets.len() >= MOST {
                // More strangers at once than are remembered share one bucket.
                key = Ipv6Addr::UNSPECIFIED.into();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: BURST, at: now });
        let tokens = bucket.filled(now);
        if tokens >= 1.0 {
            *bucket = Bucket { tokens: tokens - 1.0, at: now };
            return Verdict::Refuse;
        }
        *bucket = Bucket { tokens, at: now };
        Verdict::Slow(Duration::from_secs_f64(((1.0 - tokens) / PER_SECOND).ceil()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_slowed_down_and_recovers() {
        let (throttle, start) = (Throttle::default(), Duration::ZERO);
        let (one, two) = (address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..10 {
            assert_eq!(throttle.wrong(one, start), Verdict::Refuse);
        }
        assert_eq!(throttle.wrong(one, start), Verdict::Slow(Duration::from_secs(5)));
        assert_eq!(throttle.wrong(two, start), Verdict::Refuse, "another address is not");
        let later = start + Duration::from_secs(5);
        assert_eq!(throttle.wrong(one, later), Verdict::Refuse);
        assert!(matches!(throttle.wrong(one, later), Verdict::Slow(_)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (throttle, start) = (Throttle::default(), Duration::ZERO);
        for n in 0..10 {
            throttle.wrong(address(&format!("2001:db8::{n}")), start);
        }
        assert!(matches!(throttle.wrong(address("2001:db8::ff"), start), Verdict::Slow(_)));
        assert_eq!(throttle.wrong(address("2001:db8:0:1::1"), start), Verdict::Refuse);
    }

    #[test]
    fn the_table_is_bounded() {
        let (throttle, start) = (Throttle::default(), Duration::ZERO);
        for n in 0..30_000_u32 {
            throttle.wrong(Some(IpAddr::V4(n.into())), start);
        }
        assert!(throttle.0.lock().unwrap().len() <= MOST + 1);
        let later = start + Duration::from_secs(60);
        assert_eq!(throttle.wrong(address("10.0.0.1"), later), Verdict::Refuse);
        assert!(throttle.0.lock().unwrap().len() <= 2, "full buckets are forgotten");
    }
}
