//! `as_of`: rows as they were at a point in the past, from a generation that was made for it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;
use std::sync::Arc;

use super::{Ask, Problem, Stop};
use crate::query::as_of::{self, AsOf};
use crate::query::catalog::Readable;
use crate::query::past::{Candidate, Past, past};
use crate::query::{Failure, Refusal};

/// Answers from the generation at that point; when it is gone in that moment, from another one, if there is one.
pub(super) async fn respond(ask: &Ask<'_>, as_of: &AsOf) -> Response {
    let mut gone = Vec::new();
    loop {
        let model = match ask.past(as_of, &gone).await {
            Ok(model) => model,
            Err(stop) => return stop.response(&ask.shared.limits),
        };
        match ask.answer(&model).await {
            Ok(response) => return response,
            Err(Stop::Failed(Failure::Gone)) => gone.push(model.generation),
            Err(stop) => return stop.response(&ask.shared.limits),
        }
    }
}

impl Ask<'_> {
    /// The read model in a complete generation at that point, those that are `gone` excepted.
    async fn past(&self, as_of: &AsOf, gone: &[i64]) -> Result<Arc<Readable>, Stop> {
        let Some(mut past) = past(&self.shared.sessions, &self.model).await? else {
            return match self.live() {
                Ok(live) => Err(missing(&live.projection, as_of).into()),
                Err(unknown) => Err(unknown.into()),
            };
        };
        past.generations
            .retain(|candidate| !gone.contains(&candidate.generation));
        if let AsOf::Time(time, text) = as_of
            && *time > past.now
        {
            let message = format!("{text} lies in the future");
            let hint = "ask without as_of for the rows as they are now";
            let refusal = Refusal::new("invalid_as_of", message, hint);
            return Err(refusal.at(&as_of::place()).into());
        }
        let found = self.find(&past, as_of).await?;
        let found = found.ok_or_else(|| missing(&past.projection, as_of))?;
        if !found.is_done {
            return Err(unfinished(&past.projection, found, as_of).into());
        }
        let models = self.shared.catalog.past(found.generation).await;
        let models = models.ok_or_else(|| {
            Problem::unavailable(format!(
                "generation {} is not known on this node yet",
                found.generation
            ))
        })?;
        let there = models.past.get(&found.generation);
        let model = there.and_then(|models| models.get(&self.model));
        model.cloned().ok_or_else(|| {
            let names = there.into_iter().flatten().map(|(name, _)| &**name);
            let mut names: Vec<&str> = names.filter(|name| self.may_read(name)).collect();
            names.sort_unstable();
            let problem = Problem::not_found(
                "unknown_read_model",
                format!(
                    "generation {} of projection \"{}\", which is at {as_of}, has no read model \"{}\"",
                    found.generation, past.projection, self.model
                ),
            );
            problem.with_hint(format!("it has: {}", names.join(", "))).into()
        })
    }

    /// The generation that was made for that point, or that is at the position which a time turns out to be.
    async fn find<'p>(&self, past: &'p Past, as_of: &AsOf) -> Result<Option<&'p Candidate>, Stop> {
        let find = |as_of: &AsOf| past.generations.iter().find(|one| one.is_at(as_of));
        let found = find(as_of);
        let AsOf::Time(time, _) = as_of else {
            return Ok(found);
        };
        if found.is_some() || past.generations.is_empty() {
            return Ok(found);
        }
        let models = self.shared.catalog.models();
        let of_projection = |model: &&Arc<Readable>| model.projection == past.projection;
        let Some(model) = models.live.values().find(of_projection) else {
            return Ok(None);
        };
        let position = (model.upstream.position_at)(*time).await.map_err(|error| {
            Problem::unavailable(format!("the source does not answer: {error}"))
        })?;
        Ok(find(&AsOf::Position(position)))
    }
}

/// Nobody has made it: how to.
fn missing(projection: &str, as_of: &AsOf) -> Problem {
    let (until, name) = match as_of {
        AsOf::Position(position) => (position.to_string(), "NAME"),
        AsOf::Time(_, text) => (text.clone(), "NAME"),
        AsOf::Label(label) => ("POSITION".to_owned(), label.as_str()),
    };
    Problem::not_found(
        "no_such_past",
        format!("there are no rows of projection \"{projection}\" as of {as_of}"),
    )
    .with_hint(format!(
        "make them with `gobo replay {projection} --until {until} --as {name}`"
    ))
}

fn unfinished(projection: &str, candidate: &Candidate, as_of: &AsOf) -> Problem {
    let Candidate {
        generation,
        position,
        until,
        ..
    } = candidate;
    let details = json!({ "generation": generation, "position": position, "until": until });
    if candidate.has_stopped {
        return Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopped",
            format!(
                "generation {generation} of projection \"{projection}\", which is to be at {as_of}, has stopped at position \
                 {position} of {until}, before an event that it cannot process"
            ),
        )
        .with_details(details)
        .with_hint(format!(
            "`gobo generations {projection}` says why; `gobo cancel {projection} --generation {generation}` gives it up"
        ));
    }
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not_yet",
        format!(
            "generation {generation} of projection \"{projection}\", which is to be at {as_of}, is at position {position} of {until}"
        ),
    )
    .with_details(details)
    .with_hint("try again when it is complete")
    .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}
