//! Limits the rate of wrong tokens per address. Valid tokens are never limited: they are checked
//! first, so that a client is not locked out by another one behind the same address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;

/// Wrong tokens that an address may send in a burst.
const BURST: f64 = 10.0;
/// Wrong tokens per second that an address may send after the burst.
const PER_SECOND: f64 = 0.2;
/// Addresses with a bucket of their own.
const MAX_ADDRESSES: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn filled(self, now: Duration) -> f64 {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        (self.tokens + elapsed * PER_SECOND).min(BURST)
    }
}

/// The response to a wrong token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleAction {
    /// The token is wrong.
    Refuse,
    /// There were too many wrong tokens; the client may retry after this.
    Slow(Duration),
}

/// A token bucket for each address.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<IpAddr, Bucket>>);

/// The unit of the limit: an IPv4 address, or the /64 network of an IPv6 address, which one client
/// has.
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
    pub(crate) fn record_wrong_token(
        &self,
        address: Option<IpAddr>,
        now: Duration,
    ) -> ThrottleAction {
        let mut buckets = self.0.lock();
        let mut network = network(address);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&network) {
            buckets.retain(|_, bucket| bucket.filled(now) < BURST);
            if buckets.len() >= MAX_ADDRESSES {
                // Addresses beyond the maximum share one bucket.
                network = Ipv6Addr::UNSPECIFIED.into();
            }
        }
        let bucket = buckets.entry(network).or_insert(Bucket { tokens: BURST, at: now });
        let tokens = bucket.filled(now);
        if tokens >= 1.0 {
            *bucket = Bucket { tokens: tokens - 1.0, at: now };
            return ThrottleAction::Refuse;
        }
        *bucket = Bucket { tokens, at: now };
        ThrottleAction::Slow(Duration::from_secs_f64(((1.0 - tokens) / PER_SECOND).ceil()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_limited_and_recovers() {
        let (throttle, start) = (Throttle::default(), Duration::ZERO);
        let (one, two) = (address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..10 {
            assert_eq!(throttle.record_wrong_token(one, start), ThrottleAction::Refuse);
        }
        assert_eq!(
            throttle.record_wrong_token(one, start),
            ThrottleAction::Slow(Duration::from_secs(5))
        );
        assert_eq!(
            throttle.record_wrong_token(two, start),
            ThrottleAction::Refuse,
            "another address is not limited"
        );
        let later = start + Duration::from_secs(5);
        assert_eq!(throttle.record_wrong_token(one, later), ThrottleAction::Refuse);
        assert!(matches!(throttle.record_wrong_token(one, later), ThrottleAction::Slow(_)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (throttle, start) = (Throttle::default(), Duration::ZERO);
        for n in 0..10 {
            throttle.record_wrong_token(address(&format!("2001:db8::{n}")), start);
        }
        assert!(matches!(
            throttle.record_wrong_token(address("2001:db8::ff"), start),
            ThrottleAction::Slow(_)
        ));
        assert_eq!(
            throttle.record_wrong_token(address("2001:db8:0:1::1"), start),
            ThrottleAction::Refuse
        );
    }

    #[test]
    fn the_table_is_bounded() {
        let (throttle, start) = (Throttle::default(), Duration::ZERO);
        for n in 0..MAX_ADDRESSES as u32 + 1_000 {
            throttle.record_wrong_token(Some(IpAddr::V4(n.into())), start);
        }
        assert!(throttle.0.lock().len() <= MAX_ADDRESSES + 1);
        let later = start + Duration::from_secs(60);
        assert_eq!(throttle.record_wrong_token(address("10.0.0.1"), later), ThrottleAction::Refuse);
        assert!(throttle.0.lock().len() <= 2, "full buckets are removed");
    }
}
