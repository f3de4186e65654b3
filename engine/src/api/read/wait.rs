//! Waiting for a position or a lag, as a reader asked: the checkpoint in the database decides.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::Instant;

use super::headers::Answered;
use super::{Ask, Problem, Stop};
use crate::query::board::{self, Goal, NoWait, Since};
use crate::query::catalog::{Readable, Standing};
use crate::query::parse::Request;
use crate::query::{Freshness, Place, Refusal};

/// The header in which a client sends back the highest position that it has seen.
const MIN_POSITION: &str = "gobo-min-position";

/// What a reader asked for besides rows, and whether it got it.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) goal: Goal,
    asked: Instant,
    /// It did not come in time, and old rows are better than none.
    pub(super) is_late: bool,
    /// What was seen last since it was asked, if anybody has looked: at the end of the wait, if there was one.
    pub(super) fresh: Option<Arc<Freshness>>,
}

impl Wanted {
    /// The rows as they are.
    pub(super) fn nothing() -> Self {
        Self::of(Goal::default())
    }

    fn of(goal: Goal) -> Self {
        Self {
            goal,
            asked: Instant::now(),
            is_late: false,
            fresh: None,
        }
    }

    /// Whether a crash of the database has taken back what was waited for, if rows are at this position now.
    pub(super) fn is_taken_back(&self, position: i64) -> bool {
        !self.is_late && self.goal.position > Some(position)
    }
}

impl Ask<'_> {
    /// Whether a position is asked for in a header.
    pub(super) fn names_position(&self) -> bool {
        self.headers.contains_key(MIN_POSITION)
    }

    /// Waits as asked, in the request's place. Gives the answer instead, when that was in vain and old rows are not wanted.
    pub(super) async fn wait(
        &self,
        place: &board::Place,
        live: &Readable,
        request: &Request,
    ) -> Result<Result<Wanted, Response>, Stop> {
        let mut wanted = Wanted::of(self.goal(live, request)?);
        if wanted.goal == Goal::default() {
            return Ok(Ok(wanted));
        }
        let shared = self.shared;
        let patience = request.wait.unwrap_or(shared.limits.default_wait);
        match shared.board.wait(place, live, wanted.goal, patience).await {
            Ok(waited) if waited.is_late && !self.preferences.stale_is_ok => Ok(Err(self
                .too_late(live, &waited.fresh, &wanted, patience)
                .await)),
            Ok(waited) => {
                wanted.is_late = waited.is_late;
                wanted.fresh = Some(waited.fresh);
                Ok(Ok(wanted))
            }
            Err(NoWait::Full(waiters)) => {
                let fresh = shared.board.look(live, Since::Lately).await?;
                let answered = self.answered(live, &fresh, &wanted).await;
                Ok(Err(answered.with(full(waiters).into_response(), None)))
            }
            Err(NoWait::Failed(failure)) => Err(failure.into()),
        }
    }

    /// Waits as asked for the read models whose rows are embedded, in what is left of the time. Gives the answer instead, when
    /// that was in vain and old rows are not wanted.
    pub(super) async fn wait_for(
        &self,
        place: &board::Place,
        others: &[&Readable],
        request: &Request,
        wanted: &mut Wanted,
    ) -> Result<Result<(), Response>, Stop> {
        if wanted.goal == Goal::default() {
            return Ok(Ok(()));
        }
        let shared = self.shared;
        let patience = request.wait.unwrap_or(shared.limits.default_wait);
        for other in others {
            let left = patience.saturating_sub(wanted.asked.elapsed());
            let waited = match shared.board.wait(place, other, wanted.goal, left).await {
                Ok(waited) => waited,
                Err(NoWait::Full(waiters)) => return Err(full(waiters).into()),
                Err(NoWait::Failed(failure)) => return Err(failure.into()),
            };
            if waited.is_late && !self.preferences.stale_is_ok {
                let late = self.too_late(other, &waited.fresh, wanted, patience);
                return Ok(Err(late.await));
            }
            wanted.is_late |= waited.is_late;
        }
        Ok(Ok(()))
    }

    /// The headers of an answer with rows that are so fresh.
    pub(super) async fn answered(
        &self,
        live: &Readable,
        fresh: &Freshness,
        wanted: &Wanted,
    ) -> Answered {
        let mut answered = Answered::new(live, fresh, wanted.goal.position).await;
        let is_stale = self.is_stale(live, fresh, wanted).await;
        answered.applied(&self.preferences, is_stale);
        if let Some(profile) = self.profile {
            answered.set("content-profile", profile);
        }
        answered
    }

    /// Whether rows that are so fresh are older than was asked for.
    pub(super) async fn is_stale(
        &self,
        live: &Readable,
        fresh: &Freshness,
        wanted: &Wanted,
    ) -> bool {
        let Wanted { goal, asked, .. } = *wanted;
        // It may have arrived after the wait and before the rows were read.
        wanted.is_late && !self.shared.board.is_reached(live, fresh, goal, asked).await
    }

    /// What the parameters ask for, and the header.
    fn goal(&self, live: &Readable, request: &Request) -> Result<Goal, Problem> {
        // A client may send the header with everything that it asks; the past does not move.
        let seen = match live.standing {
            Standing::Live => self.seen_position()?,
            Standing::Past => None,
        };
        Ok(Goal {
            position: request.min_position.max(seen),
            lag: request.max_lag,
        })
    }

    fn seen_position(&self) -> Result<Option<i64>, Problem> {
        let Some(value) = self.headers.get(MIN_POSITION) else {
            return Ok(None);
        };
        let digits = value
            .to_str()
            .ok()
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(position) => Ok(Some(position)),
            None => Err(Refusal::new(
                "invalid_min_position",
                "the header Gobo-Min-Position is not a whole number that is 0 or more",
                "send back the highest Gobo-Position that was received",
            )
            .at(&Place::Header("Gobo-Min-Position"))
            .into()),
        }
    }

    async fn too_late(
        &self,
        live: &Readable,
        fresh: &Freshness,
        wanted: &Wanted,
        wait: Duration,
    ) -> Response {
        let goal = wanted.goal;
        let head = live.upstream.head.borrow().head.max(fresh.position);
        let at = format!(
            "read model \"{}\" is at position {}",
            live.model.name, fresh.position
        );
        let within = format!("within {} s", wait.as_secs_f64());
        let missed = goal.position.filter(|position| fresh.position < *position);
        let mut details = json!({ "position": fresh.position, "head_position": head });
        let mut detail = match (missed, goal.lag) {
            (Some(position), _) => format!("{at}, and did not reach {position} {within}"),
            (None, lag) => {
                let most = lag.unwrap_or_default().as_secs_f64();
                let now = match live.slot.lag(live, fresh.position).await {
                    Some(lag) => format!("{:.3} s", lag.as_secs_f64()),
                    None => "an unknown time, because the source does not answer,".to_owned(),
                };
                details["max_lag_seconds"] = json!(most);
                format!("{at}, which lags by {now} and did not come down to {most} s {within}")
            }
        };
        if let Some(position) = goal.position {
            details["min_position"] = json!(position);
        }
        if missed.is_some_and(|position| position > head) {
            detail.push_str(&format!(
                "; no event has that position yet, the last one has {head}"
            ));
        }
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_yet", detail)
            .with_details(details)
            .with_hint(
                "try again, wait longer with wait=, or send \"Prefer: stale=ok\" to get the rows as they are",
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"));
        let answered = self.answered(live, fresh, wanted).await;
        answered.with(problem.into_response(), None)
    }
}

/// The refusal of one more who waits.
pub(in crate::api) fn full(waiters: usize) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_waiters",
        format!("{waiters} readers wait already"),
    )
    .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}
