//! Appends the simulated markets' events over HTTP, several markets at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::client::Client;
use super::ledger::Ledger;
use super::market::{Market, SYMBOLS};

/// How much a feed appends, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Volume {
    /// The number of events after which it ends; the last step of each market may add a few.
    pub(crate) events: Option<u64>,
    /// Events per second, or as fast as the engine answers.
    pub(crate) rate: Option<u64>,
}

/// What a feed has done so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    appended: AtomicU64,
    position: AtomicI64,
    stop: AtomicBool,
}

impl Progress {
    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// The highest position that an append was given.
    pub(crate) fn position(&self) -> i64 {
        self.position.load(Ordering::Relaxed)
    }
}

/// The running threads, one per symbol: a symbol's events have an order, different symbols' do not.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) progress: Arc<Progress>,
    threads: Vec<JoinHandle<Result<Ledger>>>,
}

impl Feed {
    pub(crate) fn start(client: &Client, seed: u64, run: u64, start: i64, volume: Volume) -> Feed {
        let progress = Arc::new(Progress::default());
        let markets = (0..SYMBOLS.len()).map(|index| Market::new(seed, run, index, start));
        let threads = markets.map(|market| {
            let (client, progress) = (client.clone(), Arc::clone(&progress));
            std::thread::spawn(move || {
                let result = trade(market, &client, &progress, volume);
                if result.is_err() {
                    progress.stop.store(true, Ordering::Relaxed);
                }
                result
            })
        });
        let threads = threads.collect();
        Feed { progress, threads }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Ends the feed after the appends under way. Returns what the markets expect, or the first error.
    pub(crate) fn finish(self, stop: bool) -> Result<Vec<Ledger>> {
        self.progress.stop.fetch_or(stop, Ordering::Relaxed);
        let mut ledgers = Vec::new();
        for thread in self.threads {
            ledgers.push(
                thread
                    .join()
                    .map_err(|_| anyhow!("a market's thread panicked"))??,
            );
        }
        Ok(ledgers)
    }
}

fn trade(
    mut market: Market,
    client: &Client,
    progress: &Progress,
    volume: Volume,
) -> Result<Ledger> {
    let share = volume
        .events
        .map(|events| events.div_ceil(SYMBOLS.len() as u64));
    let rate = volume.rate.map(|rate| rate as f64 / SYMBOLS.len() as f64);
    let begin = Instant::now();
    let mut sent: u64 = 0;
    while share.is_none_or(|share| sent < share) && !progress.stop.load(Ordering::Relaxed) {
        if rate.is_some_and(|rate| sent as f64 > begin.elapsed().as_secs_f64() * rate) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        for append in market.step() {
            let (position, _) = client.append(&append)?;
            let count = append.events.len() as u64;
            sent += count;
            progress.appended.fetch_add(count, Ordering::Relaxed);
            progress.position.fetch_max(position, Ordering::Relaxed);
        }
    }
    Ok(market.into_ledger())
}
