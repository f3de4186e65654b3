//! A scratch generation with the live one's code, to be compared with it and dropped.

use super::{Decision, GenerationError, Generations, Plan, begin, decide, operate::known, tell};
use crate::registry::Purpose;

/// After how many hours a scratch generation is dropped that nobody has cancelled.
const HOURS: i32 = 12;

impl Generations {
    /// Begins to compute all rows of a projection anew, with the code that is live, for a comparison. One at a time.
    pub async fn verify(&self, projection: &str) -> Result<Decision, GenerationError> {
        self.load_ahead(projection).await?;
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        decide(&transaction).await?;
        let known = known(&transaction, projection).await?;
        let other = transaction
            .query_opt(
                "select id from gobo.generations where projection = $1 and purpose = 'verify' and state = 'building'",
                &[&projection],
            )
            .await?;
        if let Some(other) = other {
            let other: i64 = other.get(0);
            return Err(GenerationError::Conflict(format!(
                "projection \"{projection}\" is being verified already, with generation {other} \
                 (to give that up: gobo cancel {projection} --generation {other})"
            )));
        }
        let plugin = self.registry.load_stored(known.hash).await?;
        let live = known.live;
        let reason = format!("to be compared with generation {live}");
        let generation = begin(
            &transaction,
            &Plan {
                purpose: Purpose::Verify,
                hours: Some(HOURS),
                ..Plan::new(projection, &known.source, &plugin, &reason)
            },
        )
        .await?;
        tell(&*transaction).await?;
        transaction.commit().await?;
        self.registry.look_again().await;
        Ok(Decision {
            projection: projection.to_owned(),
            outcome: "verifying",
            generation,
            detail: format!(
                "generation {generation} is filled from the first event with the code of generation {live}, to be compared with it; \
                 it is dropped after {HOURS} hours at the latest"
            ),
        })
    }
}
