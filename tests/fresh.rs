//! Reading one's own writes, on one node and on several, and out of caches.

mod away;
mod redis;
mod slow;
mod tag;
mod truth;
mod wait_for;

pub(crate) use truth::count;
