//! How often somebody may ask, and how often somebody may fail to say who they are.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;
use sha2::{Digest, Sha256};

/// Names may be long and come from outside; what is kept of each is this.
type Key = [u8; 16];

/// How many are counted apart. While there are more, all of them share a few counts.
const MOST: usize = 100_000;
/// After how many requests it is looked at whether there are that many.
const LOOK_AFTER: usize = 1_024;
/// For how long it is remembered, at most, that somebody has to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Where a request comes from, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(Option<IpAddr>);

impl Peer {
    /// An address. Of an IPv6 address the network counts: whoever has one has all of it.
    pub fn new(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        }))
    }

    fn key(self) -> Key {
        match self.0 {
            None => Key::default(),
            Some(IpAddr::V4(address)) => address.to_ipv6_mapped().octets(),
            Some(IpAddr::V6(address)) => address.octets(),
        }
    }
}

/// Counts requests, per identity and, of those that have no name, per address.
pub(super) struct Limiter {
    named: Counts,
    unnamed: Counts,
}

impl Limiter {
    /// `None` when any number is allowed.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        Some(Self::with(quota(per_second, burst)?))
    }

    fn with(quota: Quota) -> Self {
        Self {
            named: Counts::new(quota),
            unnamed: Counts::new(quota),
        }
    }

    /// Counts a request of whoever has this name. Fails with the time to wait.
    pub(super) fn admit(&self, name: &str) -> Result<(), Duration> {
        let digest = Sha256::digest(name.as_bytes());
        let mut key = Key::default();
        key.copy_from_slice(&digest[..16]);
        self.named.count(key)
    }

    /// Counts a request of somebody without a name.
    pub(super) fn admit_from(&self, peer: Peer) -> Result<(), Duration> {
        self.unnamed.count(peer.key())
    }

    /// Forgets who has not asked for so long that nothing is to be remembered of them.
    pub(super) fn tidy(&self) {
        self.named.tidy();
        self.unnamed.tidy();
    }
}

/// Counts credentials that were refused, per address.
pub(super) struct Refusals {
    counts: Counts,
    /// Those who have had too many, until when.
    waiting: Cache<Key, Instant>,
}

impl Refusals {
    /// `None` when any number is allowed.
    pub(super) fn new(per_minute: u32) -> Option<Self> {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute)?);
        Some(Self {
            counts: Counts::new(quota),
            waiting: Cache::builder()
                .max_capacity(MOST as u64)
                .time_to_live(LONGEST_WAIT)
                .build(),
        })
    }

    /// Fails with the time to wait while there have been too many.
    pub(super) fn check(&self, peer: Peer) -> Result<(), Duration> {
        let until = self.waiting.get(&peer.key());
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        match left {
            None | Some(Duration::ZERO) => Ok(()),
            Some(left) => Err(left),
        }
    }

    /// Counts one. Fails with the time to wait when there were too many.
    pub(super) fn count(&self, peer: Peer) -> Result<(), Duration> {
        let counted = self.counts.count(peer.key());
        if let Err(wait) = counted {
            self.waiting.insert(peer.key(), Instant::now() + wait);
        }
        counted
    }

    /// Forgets what need not be remembered.
    pub(super) fn tidy(&self) {
        self.counts.tidy();
    }
}

/// Counts for many, in bounded memory.
struct Counts {
    limiter: DefaultKeyedRateLimiter<Key>,
    clock: DefaultClock,
    since_looked: AtomicUsize,
    is_full: AtomicBool,
}

impl Counts {
    fn new(quota: Quota) -> Self {
        Self {
            limiter: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            since_looked: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
        }
    }

    fn count(&self, mut key: Key) -> Result<(), Duration> {
        if self.since_looked.fetch_add(1, Ordering::Relaxed) >= LOOK_AFTER {
            self.look();
        }
        if self.is_full.load(Ordering::Relaxed) {
            let fold = key.iter().fold(0, |all, byte| all ^ byte);
            key = Key::default();
            key[0] = fold;
        }
        match self.limiter.check_key(&key) {
            Ok(()) => Ok(()),
            Err(not_until) => Err(not_until.wait_time_from(self.clock.now())),
        }
    }

    fn look(&self) {
        self.since_looked.store(0, Ordering::Relaxed);
        let is_full = self.limiter.len() >= MOST;
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    fn tidy(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        self.look();
    }
}

/// So many in a second, and so many at once; as many as in a second when nobody says.
fn quota(per_second: u32, burst: u32) -> Option<Quota> {
    let quota = Quota::per_second(NonZeroU32::new(per_second)?);
    Some(match NonZeroU32::new(burst) {
        Some(burst) => quota.allow_burst(burst),
        None => quota,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::new(Some(text.parse().unwrap()))
    }

    #[test]
    fn everybody_is_counted_apart() {
        // By the hour, so that none comes back while the test runs.
        let three = NonZeroU32::new(3).unwrap();
        let limiter = Limiter::with(Quota::per_hour(NonZeroU32::MIN).allow_burst(three));
        for _ in 0..3 {
            assert_eq!(limiter.admit("a"), Ok(()));
        }
        let wait = limiter.admit("a").unwrap_err();
        assert!(
            wait > Duration::ZERO && wait <= Duration::from_secs(3_600),
            "{wait:?}"
        );
        assert_eq!(limiter.admit("b"), Ok(()));
    }

    #[test]
    fn the_configuration_counts_by_the_second() {
        let of = |per_second, burst| {
            let quota = quota(per_second, burst)?;
            Some((quota.replenish_interval(), quota.burst_size().get()))
        };
        assert_eq!(of(1, 3), Some((Duration::from_secs(1), 3)));
        assert_eq!(of(4, 0), Some((Duration::from_millis(250), 4)));
        assert!(Limiter::new(0, 3).is_none());
    }

    #[test]
    fn who_has_no_name_is_counted_by_address_and_a_network_of_ipv6_is_one() {
        let limiter = Limiter::with(Quota::per_hour(NonZeroU32::MIN));
        for (first, same) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.2", "::ffff:192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:1"),
        ] {
            assert_eq!(limiter.admit_from(peer(first)), Ok(()), "{first}");
            assert!(limiter.admit_from(peer(same)).is_err(), "{same}");
        }
        assert_eq!(limiter.admit_from(peer("2001:db8:0:1::1")), Ok(()));
        assert_eq!(limiter.admit_from(Peer::new(None)), Ok(()));
        assert!(limiter.admit_from(Peer::new(None)).is_err());
    }

    #[test]
    fn who_has_not_asked_for_long_is_forgotten() {
        let limiter = Limiter::new(1_000_000, 0).unwrap();
        for n in 0..1_000 {
            assert_eq!(limiter.admit(&n.to_string()), Ok(()));
        }
        std::thread::sleep(Duration::from_millis(5));
        limiter.tidy();
        assert!(limiter.named.limiter.is_empty());
    }

    #[test]
    fn however_many_addresses_there_are_what_is_kept_of_them_is_bounded() {
        let refusals = Refusals::new(1).unwrap();
        for n in 0..2 * MOST as u32 {
            let _ = refusals.count(Peer::new(Some(IpAddr::from(n.to_be_bytes()))));
        }
        let kept = refusals.counts.limiter.len();
        assert!(kept <= MOST + LOOK_AFTER + 256, "{kept}");
    }

    #[test]
    fn whoever_was_refused_too_often_waits_and_others_do_not() {
        let refusals = Refusals::new(2).unwrap();
        let (guesser, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        for _ in 0..2 {
            assert_eq!(refusals.check(guesser), Ok(()));
            assert_eq!(refusals.count(guesser), Ok(()));
        }
        assert!(refusals.count(guesser).is_err());
        let wait = refusals.check(guesser).unwrap_err();
        assert!(wait <= Duration::from_secs(30), "{wait:?}");
        assert_eq!(refusals.check(other), Ok(()));
    }
}
