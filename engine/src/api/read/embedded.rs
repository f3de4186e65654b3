//! Rows with rows of related read models in them: as fresh as the oldest of them, under a tag that names them all.
//!
//! What is kept in memory, and what was seen lately of one read model, says nothing about several: such an answer always comes
//! from the database.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::headers::matches;
use super::wait::Wanted;
use super::{Ask, Asked, Stop};
use crate::cache::Representation;
use crate::query::catalog::{Models, Readable};
use crate::query::plan::Plan;
use crate::query::{Failure, answer, freshness_of_all, sql};

impl Ask<'_> {
    /// The answer to a query that embeds, once the read model's own rows are as fresh as was asked for.
    pub(super) async fn embedded(
        &self,
        live: &Arc<Readable>,
        models: &Models,
        asked: &Asked<'_>,
        mut wanted: Wanted,
    ) -> Result<Response, Stop> {
        for other in others(live, models, &asked.plan) {
            match self.wait(other, &asked.request).await? {
                Ok(waited) => wanted.is_late |= waited.is_late,
                Err(response) => return Ok(response),
            }
        }
        let pool = &self.shared.pool;
        let (plan, target) = (&asked.plan, asked.target);
        let statement = sql::rows(plan, target, asked.shape);
        let shown = Representation::of(&statement);
        if self.headers.contains_key(header::IF_NONE_MATCH) {
            let fresh = freshness_of_all(pool, plan, target).await?;
            if let Some(tag) = self.tag(live, &fresh, &shown)
                && matches(self.headers, &tag)
            {
                let answered = self.answered(live, &fresh, &wanted).await;
                return Ok(answered.with(StatusCode::NOT_MODIFIED.into_response(), Some(&tag)));
            }
        }
        let found = match answer(pool, &statement, plan, target, asked.shape).await {
            Ok(found) => found,
            Err(Failure::Gone) => return Err(Stop::Failed(Failure::Gone)),
            Err(failure) => return Ok(self.failed(live, &wanted, failure).await),
        };
        let fresh = &found.freshness;
        if !wanted.is_late && wanted.goal.position > Some(fresh.position) {
            // A crash of the database has taken back what was seen before.
            return Err(Stop::Failed(Failure::Gone));
        }
        let answered = self.answered(live, fresh, &wanted).await;
        let tag = self.tag(live, fresh, &shown);
        Ok(match self.shown(asked, &found.page, &answered) {
            Ok(response) => answered.with(response, tag.as_deref()),
            Err(problem) => answered.with(problem.into_response(), None),
        })
    }
}

/// One read model of each other generation that embedded rows come from and whose positions mean the same.
fn others<'m>(live: &Readable, models: &'m Models, plan: &Plan<'_>) -> Vec<&'m Arc<Readable>> {
    let mut seen = vec![live.generation];
    let mut others = Vec::new();
    for link in plan.links().into_iter().filter(|link| link.shares_source) {
        if seen.contains(&link.generation) {
            continue;
        }
        seen.push(link.generation);
        others.extend(models.live.get(&link.model.name));
    }
    others
}
