//! Tables that nobody needs any more.

use super::{GenerationError, Generations, decide};
use crate::read_model::schema;

/// The bytes of so many of a projection's last deploys are kept.
const DEPLOYS: i64 = 20;

impl Generations {
    /// Drops what is to be dropped and is not written to any more. What somebody still reads is tried again later.
    pub(super) async fn collect(&self) -> Result<(), GenerationError> {
        let mut client = self.pool.get().await?;
        client.execute(include_str!("expire.sql"), &[]).await?;
        let rows = client.query(include_str!("droppable.sql"), &[]).await?;
        let mut is_done = false;
        for row in rows {
            let (generation, projection): (i64, String) = (row.get(0), row.get(1));
            let transaction = client.transaction().await?;
            // Names that become free must not be reserved meanwhile by tables that cannot be seen yet.
            super::decide(&transaction).await?;
            transaction
                .batch_execute("set local lock_timeout = '200ms'")
                .await?;
            let dropped = schema::drop_tables(&transaction, generation).await;
            let trouble = match dropped {
                Ok(()) => {
                    transaction
                        .execute(include_str!("forget.sql"), &[&generation, &projection])
                        .await?;
                    transaction.commit().await?;
                    tracing::info!(projection, generation, "its tables are dropped");
                    is_done = true;
                    continue;
                }
                Err(error) => error.to_string(),
            };
            transaction.rollback().await?;
            tracing::debug!(projection, generation, trouble, "cannot be dropped now");
            client
                .execute(
                    "update gobo.generations set trouble = $2 where id = $1 and trouble is distinct from $2",
                    &[&generation, &trouble],
                )
                .await?;
        }
        self.forget_removed().await?;
        if is_done {
            // No deploy may bring the same bytes meanwhile.
            let transaction = client.transaction().await?;
            decide(&transaction).await?;
            transaction
                .execute(include_str!("forget_bytes.sql"), &[&DEPLOYS])
                .await?;
            transaction.commit().await?;
        }
        Ok(())
    }
}
