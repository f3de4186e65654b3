//! The one signal that ends every background service.

use tokio::sync::watch;

/// Ends the services that hold the matching [`Shutdown`]; dropping it does the same.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Handed to every service's `run`.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A trigger and its signal.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks every service to end. Asking twice is the same as asking once.
    pub fn shut_down(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether the end has been asked for.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until the end is asked for. Safe to cancel.
    pub async fn requested(&mut self) {
        // An error means that the trigger is gone, which is as good a reason to end.
        let _ = self.0.wait_for(|asked| *asked).await;
    }
}
