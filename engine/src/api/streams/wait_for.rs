//! `?wait_for=orders,trading-stats`: an append that is answered when those projections have passed it.
//!
//! Whatever can be refused is refused before the append. After it there is no way back, and a client that is told of an
//! error would append again: so the answer is a success from then on, 200 when all of them have passed the events, 202
//! when some have not within the time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::Instant;

use crate::api::problem::Problem;
use crate::config::OWN_SOURCE;
use crate::event::Position;
use crate::query::board::{Board, Goal, NoWait, Place};
use crate::query::catalog::{Catalog, Readable};
use crate::query::rules::{Rules, Viewer};
use crate::query::{Failure, Limits, nearest, scan};
use crate::store::Appended;

/// The most names in one request.
const MOST: usize = 32;

/// What waiting needs. Clones are the same.
#[derive(Debug, Clone)]
pub struct Projections {
    /// Looks at checkpoints.
    pub board: Board,
    /// Says which projections there are.
    pub catalog: Catalog,
    /// How long a client may wait.
    pub limits: Limits,
    /// Who may read what, so that no hint names anything else.
    pub rules: Arc<Rules>,
}

/// Whom a client waits for, checked.
#[derive(Debug)]
pub(super) struct Awaited<'p> {
    among: &'p Projections,
    names: Vec<String>,
    deadline: Instant,
}

/// How one projection took the events.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    projection: String,
    /// Whether it has passed the last event.
    pub(super) reached: bool,
    /// Where it is, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    /// The positions of the appended events that it could not process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dead_letters: Vec<Position>,
    /// Why it is not known whether it has passed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Projections {
    /// Checks the names of `wait_for`, which are projections or their read models, and the time of `wait`. Whoever knows a name may
    /// wait for it, since writers need not be readers; only what `viewer` may read is suggested.
    pub(super) fn awaited(
        &self,
        names: &str,
        wait: Option<&str>,
        viewer: &Viewer,
    ) -> Result<Awaited<'_>, Problem> {
        let patience = self.patience(wait)?;
        let models = self.catalog.models();
        let mut found: Vec<String> = Vec::new();
        for name in names.split(',') {
            let mut live = models.live.values();
            let model = live
                .find(|model| model.projection == name)
                .or_else(|| models.live.get(name))
                .ok_or_else(|| {
                    let readable = (models.live.iter())
                        .filter(|(name, _)| self.rules.may_read(name, viewer))
                        .flat_map(|(name, model)| [model.projection.as_str(), name.as_str()]);
                    unknown(name, readable)
                })?;
            if model.source != OWN_SOURCE {
                return Err(Problem::bad_request(
                    "other_source",
                    format!(
                        "projection \"{}\" reads source \"{}\", which this append does not go to",
                        model.projection, model.source
                    ),
                ));
            }
            if !found.contains(&model.projection) {
                found.push(model.projection.clone());
            }
        }
        if found.len() > MOST {
            return Err(Problem::bad_request(
                "bad_query",
                format!(
                    "wait_for names {} projections; at most {MOST} are possible",
                    found.len()
                ),
            ));
        }
        Ok(Awaited {
            among: self,
            names: found,
            deadline: Instant::now() + patience,
        })
    }

    fn patience(&self, wait: Option<&str>) -> Result<Duration, Problem> {
        let Some(text) = wait else {
            return Ok(self.limits.default_wait);
        };
        let bad = |what: &str| Problem::bad_request("invalid_wait", what);
        match scan::duration(text) {
            None => Err(bad("wait is not a duration").with_hint("write it as 500ms or 2s")),
            Some(wait) if wait > self.limits.wait => Err(bad(&format!(
                "an append may wait for at most {} s",
                self.limits.wait.as_secs()
            ))),
            Some(wait) => Ok(wait),
        }
    }

    fn model_of(&self, projection: &str) -> Option<Arc<Readable>> {
        let models = self.catalog.models();
        let mut live = models.live.values();
        live.find(|model| model.projection == projection).cloned()
    }
}

impl Awaited<'_> {
    /// Waits until all of them have passed the events, or for as long as was asked for.
    pub(super) async fn pass(&self, appended: &Appended) -> Vec<Outcome> {
        let place = Place::default();
        let outcomes = (self.names.iter()).map(|name| self.passes(&place, name, appended));
        join_all(outcomes).await
    }

    async fn passes(&self, place: &Place, projection: &str, appended: &Appended) -> Outcome {
        let mut outcome = Outcome {
            projection: projection.to_owned(),
            reached: false,
            position: None,
            dead_letters: Vec::new(),
            detail: None,
        };
        let goal = Goal {
            position: Some(appended.position),
            lag: None,
        };
        loop {
            let Some(model) = self.among.model_of(projection) else {
                outcome.detail = Some("it is not there any more".to_owned());
                return outcome;
            };
            let left = self.deadline.saturating_duration_since(Instant::now());
            let board = &self.among.board;
            let waited = match board.wait(place, &model, goal, left).await {
                Ok(waited) => waited,
                // Another generation is the live one now.
                Err(NoWait::Failed(Failure::Gone)) if !left.is_zero() => {
                    self.among.catalog.refreshed(&model).await;
                    continue;
                }
                Err(error) => {
                    outcome.detail = Some(error.to_string());
                    return outcome;
                }
            };
            outcome.reached = !waited.is_late;
            outcome.position = Some(waited.fresh.position);
            if outcome.reached {
                // Who reads next, without asking for a position, sees it as well.
                board.moved(model.generation);
            }
            if waited.fresh.dead_letters > 0 {
                let events: Vec<Position> = appended.events.iter().map(|e| e.position).collect();
                match board.dead_letters(&model, &events).await {
                    Ok(letters) => outcome.dead_letters = letters,
                    Err(error) => outcome.detail = Some(error.to_string()),
                }
            }
            return outcome;
        }
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    let shown: String = name.chars().take(80).collect();
    let problem = Problem::bad_request(
        "unknown_projection",
        format!("there is no projection \"{shown}\" to wait for; nothing was appended"),
    );
    match nearest(name, known) {
        Some(near) => problem.with_hint(format!("did you mean \"{near}\"?")),
        None => problem.with_hint("GET /admin/projections lists what is deployed"),
    }
}
