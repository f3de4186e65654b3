//! How often somebody may ask, and how often somebody may fail to say who they are.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{HashMapStateStore, ShrinkableKeyedStateStore};
use governor::{Quota, RateLimiter};
use moka::sync::Cache;
use sha2::{Digest, Sha256};

/// Names may be long and come from outside; what is kept of each is this.
type Key = [u8; 16];

/// How many are counted apart. While there are that many, those who come new share a few counts.
const MOST: usize = 100_000;
/// For how long it is remembered, at most, that somebody has to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How many signatures are checked in a second all the same for an address from which too many were wrong: others may share it.
const TRIALS_PER_SECOND: u32 = 10;

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

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "address {address}"),
            None => f.write_str("an unknown address"),
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
        self.named.count(key).map_err(|refused| refused.wait)
    }

    /// Counts a request of somebody without a name.
    pub(super) fn admit_from(&self, peer: Peer) -> Result<(), Duration> {
        let counted = self.unnamed.count(peer.key());
        counted.map_err(|refused| refused.wait)
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
    /// What is tried for them meanwhile.
    trials: Counts,
}

impl Refusals {
    /// `None` when any number is allowed.
    pub(super) fn new(per_minute: u32) -> Option<Self> {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute)?);
        let trials = Quota::per_second(NonZeroU32::new(TRIALS_PER_SECOND)?);
        Some(Self {
            counts: Counts::new(quota),
            waiting: Cache::builder()
                .max_capacity(MOST as u64)
                .time_to_live(LONGEST_WAIT)
                .build(),
            trials: Counts::new(trials),
        })
    }

    /// Asks whether a signature may be checked. Fails with the time to wait while there have been too many refusals, and enough
    /// is tried already.
    pub(super) fn check(&self, peer: Peer) -> Result<(), Duration> {
        match self.waiting.get(&peer.key()) {
            Some(until) if until > Instant::now() => {
                let tried = self.trials.count(peer.key());
                tried.map_err(|refused| refused.wait)
            }
            _ => Ok(()),
        }
    }

    /// Counts one. Fails with the time to wait when there were too many.
    pub(super) fn count(&self, peer: Peer) -> Result<(), Duration> {
        let counted = self.counts.count(peer.key());
        // What others did under a shared count is not held against this address.
        if let Err(Refused {
            wait,
            is_apart: true,
        }) = counted
        {
            self.waiting.insert(peer.key(), Instant::now() + wait);
        }
        counted.map_err(|refused| refused.wait)
    }

    /// Forgets what need not be remembered.
    pub(super) fn tidy(&self) {
        self.counts.tidy();
        self.trials.tidy();
    }
}

/// Counts for many, in bounded memory.
struct Counts {
    limiter: RateLimiter<Key, Store, DefaultClock>,
    store: Store,
    clock: DefaultClock,
}

/// One too many.
#[derive(Debug, Clone, Copy)]
struct Refused {
    wait: Duration,
    /// Whether the count is of this one alone.
    is_apart: bool,
}

impl Counts {
    fn new(quota: Quota) -> Self {
        let (store, clock) = (Store::default(), DefaultClock::default());
        Self {
            limiter: RateLimiter::new(quota, store.clone(), clock.clone()),
            store,
            clock,
        }
    }

    fn count(&self, key: Key) -> Result<(), Refused> {
        let is_apart = self.store.has_room_for(&key);
        let key = match is_apart {
            true => key,
            false => folded(key),
        };
        let counted = self.limiter.check_key(&key);
        counted.map_err(|not_until| Refused {
            wait: not_until.wait_time_from(self.clock.now()),
            is_apart,
        })
    }

    fn tidy(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

/// One of 256 keys.
fn folded(key: Key) -> Key {
    let mut folded = Key::default();
    folded[0] = key.iter().fold(0, |all, byte| all ^ byte);
    folded
}

/// The limiter's own store, which can also be asked whom it has.
#[derive(Clone, Default)]
struct Store(Arc<HashMapStateStore<Key>>);

impl Store {
    /// Whether this one is counted apart, or may be. Requests at the same moment may take a few places more.
    fn has_room_for(&self, key: &Key) -> bool {
        let states = self.0.lock();
        states.len() < MOST || states.contains_key(key)
    }
}

impl StateStore for Store {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

impl ShrinkableKeyedStateStore<Key> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn shrink_to_fit(&self) {
        self.0.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        assert!(limiter.named.store.is_empty());
    }

    #[test]
    fn however_many_addresses_there_are_what_is_kept_of_them_is_bounded_and_those_who_were_there_stay_apart()
     {
        let refusals = Refusals::new(1).unwrap();
        let numbered = |n: u32| Peer::new(Some(IpAddr::from(n.to_be_bytes())));
        let all = 2 * MOST as u32;
        for n in 0..all {
            let _ = refusals.count(numbered(n));
        }
        let kept = refusals.counts.store.len();
        assert!(kept <= MOST + 256, "{kept}");
        assert!(refusals.counts.store.has_room_for(&numbered(0).key()));
        // Whoever came later was refused for what others did, and that is not remembered.
        assert!(refusals.count(numbered(all)).is_err());
        assert!(!refusals.waiting.contains_key(&numbered(all).key()));
        assert!(refusals.count(numbered(0)).is_err());
        assert!(refusals.waiting.contains_key(&numbered(0).key()));
    }

    #[test]
    fn whoever_was_refused_too_often_is_slowed_down_and_others_are_not() {
        let refusals = Refusals::new(2).unwrap();
        let (guesser, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        for _ in 0..2 {
            assert_eq!(refusals.check(guesser), Ok(()));
            assert_eq!(refusals.count(guesser), Ok(()));
        }
        let wait = refusals.count(guesser).unwrap_err();
        assert!(wait <= Duration::from_secs(30), "{wait:?}");
        // Not for ever: whoever shares the address gets a turn.
        let began = Instant::now();
        let mut tried = 0;
        while refusals.check(guesser).is_ok() {
            tried += 1;
        }
        let most = 10.0 + 10.0 * began.elapsed().as_secs_f64();
        assert!((10.0..=most).contains(&f64::from(tried)), "{tried}");
        let wait = refusals.check(guesser).unwrap_err();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        assert_eq!(refusals.check(other), Ok(()));
    }
}
