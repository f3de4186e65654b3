//! How often somebody may ask.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};

/// Names may be long and come from outside; what is kept of each is this.
type Key = [u8; 16];

/// Counts requests per identity.
pub(super) struct Limiter {
    limiter: DefaultKeyedRateLimiter<Key>,
    clock: DefaultClock,
}

impl Limiter {
    /// `None` when any number is allowed.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        Some(Self::with(quota(per_second, burst)?))
    }

    fn with(quota: Quota) -> Self {
        Self {
            limiter: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a request. Fails with the time to wait.
    pub(super) fn admit(&self, name: &str) -> Result<(), Duration> {
        let digest = Sha256::digest(name.as_bytes());
        let mut key = Key::default();
        key.copy_from_slice(&digest[..16]);
        match self.limiter.check_key(&key) {
            Ok(()) => Ok(()),
            Err(not_until) => Err(not_until.wait_time_from(self.clock.now())),
        }
    }

    /// Forgets who has not asked for so long that nothing is to be remembered of them.
    pub(super) fn tidy(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
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
    fn who_has_not_asked_for_long_is_forgotten() {
        let limiter = Limiter::new(1_000_000, 0).unwrap();
        for n in 0..1_000 {
            assert_eq!(limiter.admit(&n.to_string()), Ok(()));
        }
        std::thread::sleep(Duration::from_millis(5));
        limiter.tidy();
        assert!(limiter.limiter.is_empty());
    }
}
