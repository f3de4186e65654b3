//! One fetch for all who ask for the same at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::{Found, Key};

/// What is being fetched.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<State>>>>,
}

/// Held by whoever fetches.
#[derive(Debug, Default)]
enum State {
    #[default]
    Flying,
    Landed(Found),
    /// The others fetch on their own, at the same time: one after the other they would wait for the sum of all time limits.
    Failed,
}

/// One reader's part in a flight.
#[derive(Debug)]
pub(super) struct Flight<'f> {
    all: &'f Flights,
    key: Key,
    state: Arc<tokio::sync::Mutex<State>>,
    /// Held by the one who fetches. When that reader goes away, the next one fetches.
    pilot: Option<OwnedMutexGuard<State>>,
    /// It has landed, or failed.
    is_over: bool,
}

impl Flights {
    pub(super) fn join(&self, key: Key) -> Flight<'_> {
        let state = self.flights().entry(key).or_default().clone();
        Flight {
            all: self,
            key,
            state,
            pilot: None,
            is_over: false,
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Arc<tokio::sync::Mutex<State>>>> {
        // Nothing that holds the lock can leave the map half changed.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.flights().len()
    }
}

impl Flight<'_> {
    /// What another reader has fetched meanwhile; `None` when it is this reader's turn to fetch.
    pub(super) async fn landed(&mut self) -> Option<Found> {
        let state = self.state.clone().lock_owned().await;
        match &*state {
            State::Flying => {
                self.pilot = Some(state);
                None
            }
            State::Landed(found) => {
                self.is_over = true;
                Some(found.clone())
            }
            State::Failed => {
                self.is_over = true;
                None
            }
        }
    }

    pub(super) fn landed_with(mut self, found: Found) {
        self.end(State::Landed(found));
    }

    pub(super) fn failed(&mut self) {
        self.end(State::Failed);
    }

    fn end(&mut self, how: State) {
        self.is_over = true;
        if let Some(mut state) = self.pilot.take() {
            *state = how;
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = self.all.flights();
        let is_ours = (flights.get(&self.key)).is_some_and(|state| Arc::ptr_eq(state, &self.state));
        // The map has one, this reader has one, and one more if it was its turn: then nobody else is aboard.
        let alone = 2 + usize::from(self.pilot.is_some());
        // Whoever joins from now on begins another flight.
        if is_ours && (self.is_over || Arc::strong_count(&self.state) <= alone) {
            flights.remove(&self.key);
        }
    }
}
