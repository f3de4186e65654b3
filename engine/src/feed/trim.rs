//! What nobody needs any more.

use std::time::Duration;

use deadpool_postgres::Pool;

use crate::db::describe_pool;
use crate::shutdown::Shutdown;

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(10);
/// Commits of one read model that one statement forgets: a transaction is short.
const AT_ONCE: i64 = 5_000;

/// What is kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// For how long.
    pub minutes: u32,
    /// Of how many of a projection's last commits.
    pub commits: u32,
}

/// Forgets old changes, apart from the commits, which are not made slower by it. Any node may.
#[derive(Debug)]
pub struct Trimmer {
    pool: Pool,
    kept: Kept,
}

impl Trimmer {
    /// Looks through sessions of `pool`.
    pub fn new(pool: Pool, kept: Kept) -> Self {
        Self { pool, kept }
    }

    /// Looks again and again until the end.
    pub async fn run(self, mut shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            loop {
                match self.run_once().await {
                    Ok(forgotten) if forgotten >= AT_ONCE as u64 => {}
                    Ok(_) => break,
                    Err(error) => {
                        let error = describe_pool(&error);
                        tracing::warn!(error, "old changes could not be forgotten");
                        break;
                    }
                }
            }
        }
    }

    /// Forgets some, and gives how many commits.
    pub async fn run_once(&self) -> Result<u64, deadpool_postgres::PoolError> {
        let client = self.pool.get().await?;
        let (minutes, commits) = (f64::from(self.kept.minutes), i64::from(self.kept.commits));
        let sql = include_str!("trim.sql");
        Ok(client.execute(sql, &[&minutes, &commits, &AT_ONCE]).await?)
    }
}
