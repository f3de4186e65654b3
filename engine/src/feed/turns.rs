//! Turns at what only a few may do at the same time. One reader never has all of them.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Turns, in the order in which they are asked for. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    count: usize,
    /// Those that one reader may have.
    own: Option<Arc<Semaphore>>,
}

/// A turn, which ends with this.
pub(super) struct Turn<'t> {
    _own: Option<SemaphorePermit<'t>>,
    _one: Option<SemaphorePermit<'t>>,
}

impl Turns {
    pub(super) fn new(count: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count)),
            count,
            own: None,
        }
    }

    /// The same turns for one reader, who has three in four of them at most.
    pub(super) fn of_one(&self) -> Self {
        Self {
            own: Some(Arc::new(Semaphore::new((self.count * 3 / 4).max(1)))),
            ..self.clone()
        }
    }

    /// Waits for a turn.
    pub(super) async fn take(&self) -> Turn<'_> {
        // Neither is ever closed. First the own one: whoever waits for it stands in nobody else's way.
        let own = match &self.own {
            Some(own) => own.acquire().await.ok(),
            None => None,
        };
        Turn {
            _own: own,
            _one: self.all.acquire().await.ok(),
        }
    }
}
