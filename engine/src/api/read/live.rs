//! Live queries: the rows, then what enters, changes or leaves them, as server-sent events or by long polling.

mod poll;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::prefer::Preferences;
use super::wait::Wanted;
use super::{Ask, Asked, MOST_GONE, Stop, headers};
use crate::api::problem::Problem;
use crate::feed::{self, End, Event, Full, Hub, Place, Question, Realm, Reason, Subscription};
use crate::query::board;
use crate::query::catalog::{Models, Readable};
use crate::query::live::{self, Matcher};
use crate::query::sql::{self, Count, Lines, Shape};
use crate::query::{self, Failure, Refusal, as_of};

/// How long a poll waits when it does not say.
const POLL: Duration = Duration::from_secs(25);

/// What live queries need. Clones are the same.
#[derive(Debug, Clone)]
pub struct Live {
    /// Who follows what.
    pub hub: Hub,
    /// After how long without an event a sign of life is sent.
    pub heartbeat: Duration,
}

impl Live {
    /// The last event of a stream whose reader's token counts no more.
    pub const DENIED: &'static str = "event: dropped\ndata: {\"reason\":\"access_ended\",\"detail\":\"the token that this was asked for with \
         has expired or was revoked: come back with another one, and with the last id\"}\n\n";
}

/// How a reader wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// First the rows, then changes.
    Rows,
    /// Changes from now on.
    Changes,
    /// One answer per request.
    Poll,
}

/// What a reader wants besides the query.
pub(super) struct Wish {
    manner: Manner,
    /// Everything up to here is known.
    id: Option<String>,
}

impl Wish {
    /// Takes what is about following out of a request; `None` if it wants the rows as they are, once.
    pub(super) fn take(ask: &mut Ask<'_>) -> Result<Option<Self>, Problem> {
        let mut take = |name: &str| {
            let place = ask.parameters.iter().position(|found| found.name == name)?;
            Some(ask.parameters.remove(place).value)
        };
        let (live, parameter) = (take("live"), take("last_event_id"));
        let manner = match live.as_deref() {
            None if ask.format.is_live => Manner::Rows,
            None if parameter.is_some() => {
                return Err(Refusal::new(
                    "unsupported_parameter",
                    "last_event_id is for those who follow: there is neither live nor Accept: text/event-stream",
                    "add live=rows, live=changes or live=poll, or leave last_event_id out",
                )
                .at(&query::Place::of("last_event_id", 1))
                .into());
            }
            None => return Ok(None),
            Some("rows") => Manner::Rows,
            Some("changes") => Manner::Changes,
            Some("poll") => Manner::Poll,
            Some(other) => {
                let shown: String = other.chars().take(40).collect();
                return Err(Refusal::new(
                    "unsupported_parameter",
                    format!("there is no way to follow called \"{shown}\""),
                    "live=rows (the rows, then changes), live=changes (changes alone), live=poll (one answer per request)",
                )
                .at(&query::Place::of("live", 1))
                .into());
            }
        };
        let header = ask.headers.get("last-event-id");
        // The header is newer: a browser goes on from there by itself, with the address as it was.
        let id = match header.map(|id| id.to_str()) {
            Some(id) => Some(id.unwrap_or_default().to_owned()),
            None => parameter,
        };
        Ok(Some(Self {
            manner,
            id: id.filter(|id| !id.is_empty()),
        }))
    }
}

/// A subscription, with what is told first.
struct Begun {
    subscription: Subscription,
    first: Option<Event>,
    /// How long a poll waits.
    wait: Duration,
    /// It begins before the moment that was asked for, which had not come in time.
    is_stale: bool,
}

/// Answers from the live generation; from the next one, if that is gone meanwhile.
pub(super) async fn respond(ask: &Ask<'_>, live: &Live, wish: Wish, reader: &str) -> Response {
    // Where access is not controlled, everybody is the same.
    let reader = Some(reader).filter(|_| !ask.viewer.sees_everything());
    let mut place = match live.hub.place(reader) {
        Ok(place) => Some(place),
        Err(full) => return too_many(full).into_response(),
    };
    let mut gone = 0;
    loop {
        let readable = match ask.live() {
            Ok(readable) => readable,
            Err(problem) => return problem.into_response(),
        };
        match begin(ask, live, &wish, &readable, &mut place).await {
            Ok(Ok(begun)) => {
                let is_stale = begun.is_stale;
                let mut response = match wish.manner {
                    Manner::Poll => poll::response(live, begun),
                    Manner::Rows | Manner::Changes => stream::response(live, begun),
                };
                // Events are neither counted nor wrapped.
                let followed = Preferences {
                    count: None,
                    metadata: false,
                    ..ask.preferences.clone()
                };
                headers::applied(response.headers_mut(), &followed, is_stale);
                return response;
            }
            Ok(Err(too_late)) => return too_late,
            Err(refused) if gone < refused.worth_waiting() => {
                gone += 1;
                ask.shared.catalog.refreshed(&readable).await;
            }
            Err(Refused::Ended(reason)) => return ended(live, wish.manner, reason),
            Err(Refused::Ahead) => return ended(live, wish.manner, Reason::Generation),
            Err(Refused::Stopped(stop)) => return stop.response(&ask.shared.limits),
        }
    }
}

fn too_many(full: Full) -> Problem {
    let (status, why) = match full {
        Full::Everybody => (
            StatusCode::SERVICE_UNAVAILABLE,
            "as many as may follow already do (live.max_subscribers)",
        ),
        Full::Reader => (
            StatusCode::TOO_MANY_REQUESTS,
            "you follow as often as one reader may (live.max_subscribers_each)",
        ),
    };
    Problem::new(status, "too_many_subscribers", why)
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
}

/// An answer that says only that the rows have to be read anew.
fn ended(live: &Live, manner: Manner, reason: Reason) -> Response {
    let last = last(live, End::Refetch(reason));
    match manner {
        Manner::Poll => poll::ended(last),
        Manner::Rows | Manner::Changes => stream::ended(last),
    }
}

enum Refused {
    Stopped(Stop),
    /// The id is of a generation after the one that is live here.
    Ahead,
    /// The id leads nowhere.
    Ended(Reason),
}

impl Refused {
    /// How often it is worth waiting for this node to learn what is live now.
    fn worth_waiting(&self) -> usize {
        match self {
            // Another node may have learnt of a promotion first; after a rollback, there is none to learn of.
            Refused::Ahead => 1,
            Refused::Stopped(Stop::Failed(Failure::Gone)) => MOST_GONE,
            Refused::Stopped(_) | Refused::Ended(_) => 0,
        }
    }
}

impl<E: Into<Stop>> From<E> for Refused {
    fn from(error: E) -> Self {
        Refused::Stopped(error.into())
    }
}

/// Begins where the reader is, or at the moment that it asks for. Gives the answer instead, when that does not come in time.
async fn begin(
    ask: &Ask<'_>,
    live: &Live,
    wish: &Wish,
    readable: &Arc<Readable>,
    place: &mut Option<Place>,
) -> Result<Result<Begun, Response>, Refused> {
    let models = ask.shared.catalog.models();
    let asked = checked(ask, readable, &models)?;
    live::check(&asked.plan)?;
    let readers = &ask.shared.sessions;
    let Start {
        realm,
        at,
        first,
        is_stale,
    } = match &wish.id {
        // Whatever has come since is told from here on.
        Some(id) => known(readable, id)?,
        None => {
            let place = board::Place::default();
            let wanted = match ask.wait(&place, readable, &asked.request).await? {
                Ok(wanted) => wanted,
                Err(too_late) => return Ok(Err(too_late)),
            };
            match wish.manner {
                Manner::Changes => present(live, readable, &wanted).await?,
                Manner::Rows | Manner::Poll => rows(ask, live, readable, &asked, &wanted).await?,
            }
        }
    };
    let question = Question {
        statement: live::statement(&asked.plan, &readable.schema),
        matcher: Matcher::of(&asked.plan, readers).await?.map(Arc::new),
    };
    let Some(place) = place.take() else {
        return Err(Failure::Gone.into());
    };
    let most = ask.shared.limits.wait;
    Ok(Ok(Begun {
        subscription: Subscription::new(
            live.hub.clone(),
            place,
            &readable.model.name,
            question,
            realm,
            at,
        ),
        first,
        wait: asked.request.wait.unwrap_or(POLL).min(most),
        is_stale,
    }))
}

/// What can be followed: rows as they are, whichever there are.
fn checked<'m>(
    ask: &'m Ask<'_>,
    readable: &'m Readable,
    models: &'m Models,
) -> Result<Asked<'m>, Refused> {
    if as_of::find(&ask.parameters)
        .map_err(Problem::from)?
        .is_some()
    {
        return Err(unsupported("as_of", "the past does not change", as_of::place()).into());
    }
    let asked = ask.checked(readable, models)?;
    let request = &asked.request;
    let refused = [
        (
            ask.range.is_some() || request.limit.is_some() || request.offset > 0,
            "limit, offset and Range",
            "what lies beyond a page cannot be told from what entered or left it",
            match (ask.range, request.limit) {
                (Some(_), _) => query::Place::Header("Range"),
                (None, Some(_)) => query::Place::of("limit", 1),
                (None, None) => query::Place::of("offset", 1),
            },
        ),
        (
            request.cursor.is_some(),
            "cursor",
            "what lies beyond a page cannot be told from what entered or left it",
            query::Place::of("cursor", 1),
        ),
        (
            !asked.plan.embeds.is_empty(),
            "an embedded read model",
            "its rows change by themselves: follow it on its own",
            query::Place::of("select", 1),
        ),
        (
            asked.plan.is_grouped(),
            "functions over rows",
            "one changed row changes a group",
            query::Place::of("select", 1),
        ),
        (
            ask.format.lines == Lines::Csv,
            "text/csv",
            "events are JSON",
            query::Place::Header("Accept"),
        ),
    ];
    match refused.into_iter().find(|(is_asked, ..)| *is_asked) {
        Some((_, what, why, place)) => Err(unsupported(what, why, place).into()),
        None => Ok(asked),
    }
}

fn unsupported(what: &str, why: &str, place: query::Place) -> Problem {
    let message = format!("{what} cannot be had live: {why}");
    let hint = "filters, select and order can";
    Refusal::new("unsupported_parameter", message, hint)
        .at(&place)
        .into()
}

/// Where a subscription begins.
struct Start {
    realm: Realm,
    /// The revision.
    at: i64,
    first: Option<Event>,
    is_stale: bool,
}

/// From where a reader goes on.
fn known(readable: &Readable, id: &str) -> Result<Start, Refused> {
    let (realm, at) = Realm::read(id).ok_or(Refused::Ended(Reason::UnknownId))?;
    if realm.generation > readable.generation {
        return Err(Refused::Ahead);
    }
    match realm.generation == readable.generation {
        true => Ok(Start {
            realm,
            at,
            first: None,
            is_stale: false,
        }),
        false => Err(Refused::Ended(Reason::Generation)),
    }
}

/// Where the read model is at present.
async fn present(live: &Live, readable: &Readable, wanted: &Wanted) -> Result<Start, Refused> {
    let page = live.hub.present(&readable.model.name).await?;
    let page = page.filter(|page| page.generation == readable.generation);
    let page = page.filter(|page| !wanted.is_taken_back(page.position));
    let page = page.ok_or(Failure::Gone)?;
    Ok(Start {
        realm: realm(page.incarnation, readable)?,
        at: page.revision,
        first: None,
        is_stale: wanted.is_late,
    })
}

fn realm(incarnation: Option<String>, readable: &Readable) -> Result<Realm, Problem> {
    Ok(Realm {
        incarnation: incarnation.ok_or_else(|| {
            Problem::unavailable("the database has just come back from a crash: ask again")
        })?,
        generation: readable.generation,
    })
}

/// The rows as they are, as the first event.
async fn rows(
    ask: &Ask<'_>,
    live: &Live,
    readable: &Readable,
    asked: &Asked<'_>,
    wanted: &Wanted,
) -> Result<Start, Refused> {
    let shape = Shape {
        lines: Lines::Json,
        count: Some(Count::Exact),
    };
    let (plan, target) = (&asked.plan, asked.target);
    let statement = sql::rows(plan, target, shape);
    let answer = query::answer(&ask.shared.sessions, &statement, plan, target, shape).await?;
    if answer
        .page
        .total
        .is_none_or(|total| total > answer.page.count)
    {
        return Err(Problem::bad_request(
            "answer_too_large",
            format!(
                "more than {} rows match, as many as one answer may have (api.max_rows)",
                ask.shared.limits.rows
            ),
        )
        .with_hint(
            "filter more narrowly; or follow with live=changes, and read the rows in pages once that stream is open",
        )
        .into());
    }
    let fresh = answer.freshness;
    if wanted.is_taken_back(fresh.position) {
        return Err(Failure::Gone.into());
    }
    // Rows that a crash could take back are told no more than changes.
    live.hub.flushed().await?;
    let is_stale = ask.is_stale(readable, &fresh, wanted).await;
    let realm = realm(fresh.incarnation, readable)?;
    let data = format!(
        "{{\"position\":{},\"revision\":{},\"rows\":{}}}",
        fresh.position,
        fresh.revision,
        String::from_utf8_lossy(&answer.page.body)
    );
    let event = feed::frame("rows", &realm.id(fresh.revision), fresh.revision, &data);
    Ok(Start {
        realm,
        at: fresh.revision,
        first: Some(event),
        is_stale,
    })
}

/// The event after which nothing comes.
struct Last {
    kind: &'static str,
    data: String,
}

/// Says how it ends; the end of the engine is none of a subscriber's business.
fn last(live: &Live, end: End) -> Option<Last> {
    let stats = live.hub.stats();
    let (kind, number, reason, detail) = match end {
        End::Closed => return None,
        End::Refetch(reason) => ("refetch", &stats.refetches, reason.code(), reason.text()),
        End::Dropped(reason) => ("dropped", &stats.dropped, reason.code(), reason.text()),
    };
    number.add(1);
    let data = serde_json::json!({ "reason": reason, "detail": detail }).to_string();
    Some(Last { kind, data })
}
