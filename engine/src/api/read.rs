//! `GET /read/{model}` and `GET /read/{model}/{key}`: rows of read models, and how fresh they are.
//!
//! Every answer about a known read model carries `Gobo-Position` and its companions, and an `ETag` made from the
//! revision, so that a reader who has the rows already is answered 304 without running the query.

mod errors;
mod format;
mod headers;
mod past;
mod prefer;
mod range;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router};
use deadpool_postgres::Pool;
use serde_json::json;
use tokio::sync::Semaphore;

use self::format::Format;
use self::headers::Answered;
pub(super) use self::headers::matches;
use self::prefer::Preferences;
use self::range::{Extent, Items};
use super::problem::Problem;
use crate::access::Identity;
use crate::progress::Progress;
use crate::query::catalog::{Catalog, Models, Readable};
use crate::query::parse::Request;
use crate::query::plan::{self, Around, Plan};
use crate::query::rules::{Rules, Viewer};
use crate::query::scan::{self, Parameter, Plus};
use crate::query::sql::{self, Lines, Shape, Target};
use crate::query::{Answer, Failure, Freshness, Limits, Refusal, as_of, parse};
pub(super) use errors::as_postgrest;

/// How many generations may come and go during one request, which may have waited for long.
const MOST_GONE: usize = 3;

/// Everything that reading needs. Clones are the same.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    catalog: Catalog,
    progress: Progress,
    limits: Limits,
    schema: String,
    rules: Arc<Rules>,
    waiters: Semaphore,
    checkpoints: wait::Checkpoints,
}

impl Reader {
    /// `pool` has sessions that can only read and that have a statement timeout. `schema` is the one that readers may
    /// name: the public one. `rules` say who may read what.
    pub fn new(
        pool: Pool,
        catalog: Catalog,
        progress: Progress,
        limits: Limits,
        schema: &str,
        rules: Arc<Rules>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                waiters: Semaphore::new(limits.waiters),
                pool,
                catalog,
                progress,
                limits,
                schema: schema.to_owned(),
                rules,
                checkpoints: wait::Checkpoints::default(),
            }),
        }
    }

    /// The routes below `/read`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/read/{model}", readable(get(rows)))
            .route("/read/{model}/{*key}", readable(get(row)))
            .layer(map_response(errors::as_postgrest))
            .with_state(self)
    }
}

/// Adds what `OPTIONS` says.
fn readable(route: MethodRouter<Reader>) -> MethodRouter<Reader> {
    route.options(async || [(header::ALLOW, "OPTIONS,GET,HEAD")])
}

async fn rows(
    State(reader): State<Reader>,
    Extension(identity): Extension<Arc<Identity>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let model = uri.path().rsplit('/').next().unwrap_or_default();
    let range = Items::requested(&method, &headers);
    let asked = (&uri, model, None, range);
    respond(&reader, &identity, asked, &headers).await
}

async fn row(
    State(reader): State<Reader>,
    Extension(identity): Extension<Arc<Identity>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let (model, key) = match uri
        .path()
        .split_once("/read/")
        .map(|(_, path)| path.split_once('/'))
    {
        Some(Some((model, key))) => (model, key),
        _ => ("", ""),
    };
    if key.contains('/') {
        return Problem::bad_request("invalid_key", "the key contains a slash")
            .with_hint("write a slash inside a key as %2F")
            .into_response();
    }
    let asked = (&uri, model, Some(key), None);
    respond(&reader, &identity, asked, &headers).await
}

/// Answers from the live generation; from the next one, if that is gone meanwhile.
async fn respond(
    reader: &Reader,
    identity: &Identity,
    asked: (&Uri, &str, Option<&str>, Option<Items>),
    headers: &HeaderMap,
) -> Response {
    let shared = &*reader.shared;
    let ask = match Ask::new(shared, identity, asked, headers) {
        Ok(ask) => ask,
        Err(problem) => return problem.into_response(),
    };
    // Before anything else is looked at: what somebody may not read is answered as what does not exist.
    if !ask.may_read(&ask.model) {
        return ask.unknown().into_response();
    }
    match as_of::find(&ask.parameters) {
        Ok(None) => {}
        Ok(Some(as_of)) => return past::respond(&ask, &as_of).await,
        Err(refusal) => return Problem::from(refusal).into_response(),
    }
    let mut gone = 0;
    loop {
        let models = shared.catalog.models();
        let live = match ask.live() {
            Ok(live) => live,
            Err(problem) => return problem.into_response(),
        };
        match ask.answer(&live).await {
            Ok(response) => return response,
            Err(Stop::Failed(Failure::Gone)) if gone < MOST_GONE => {
                gone += 1;
                match ask.embeds() {
                    false => shared.catalog.refreshed(&live).await,
                    true => shared.catalog.changed(&models).await,
                }
            }
            Err(Stop::Failed(failure)) => {
                return errors::failed(failure, &shared.limits).into_response();
            }
            Err(Stop::Refused(problem)) => return problem.into_response(),
        }
    }
}

/// Why there is no answer from a generation.
enum Stop {
    Failed(Failure),
    Refused(Problem),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Stop::Refused(problem)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal.into())
    }
}

/// The read models that have to reach a position before the rows of a query are complete up to it.
fn with_embedded<'m>(live: &'m Readable, models: &'m Models, plan: &Plan<'_>) -> Vec<&'m Readable> {
    let mut all = vec![live];
    for link in plan.links().into_iter().filter(|link| link.shares_source) {
        let other = models.live.get(&link.model.name);
        let is_new = !all.iter().any(|known| known.generation == link.generation);
        all.extend(other.filter(|_| is_new).map(|other| &**other));
    }
    all
}

/// One request.
struct Ask<'a> {
    shared: &'a Shared,
    viewer: &'a Viewer,
    uri: &'a Uri,
    model: String,
    key: Option<&'a str>,
    range: Option<Items>,
    parameters: Vec<Parameter<'a>>,
    headers: &'a HeaderMap,
    format: Format,
    preferences: Preferences,
    /// The schema that the reader named, which is the one that there is.
    profile: Option<&'a str>,
}

/// The same, checked.
struct Asked<'m> {
    request: Request,
    plan: Plan<'m>,
    target: Target<'m>,
    shape: Shape,
}

impl<'a> Ask<'a> {
    fn new(
        shared: &'a Shared,
        identity: &'a Identity,
        (uri, model, key, range): (&'a Uri, &str, Option<&'a str>, Option<Items>),
        headers: &'a HeaderMap,
    ) -> Result<Self, Problem> {
        Ok(Self {
            shared,
            viewer: &identity.viewer,
            uri,
            model: scan::decode(model, Plus::IsPlus)?,
            key,
            range,
            parameters: scan::parameters(uri.query().unwrap_or_default(), &shared.limits)?,
            headers,
            format: Format::negotiate(headers)?,
            preferences: Preferences::read(headers)?,
            profile: headers::profile(headers, &shared.schema)?,
        })
    }

    fn live(&self) -> Result<Arc<Readable>, Problem> {
        let models = self.shared.catalog.models();
        if let Some(live) = models.live.get(&self.model) {
            return Ok(live.clone());
        }
        Err(self.unknown())
    }

    fn may_read(&self, model: &str) -> bool {
        self.shared.rules.may_read(model, self.viewer)
    }

    /// There is no such read model, for this reader. Nor are those hinted at that it may not read.
    fn unknown(&self) -> Problem {
        let models = self.shared.catalog.models();
        let known = models.live.keys().map(String::as_str);
        errors::unknown_read_model(&self.model, known.filter(|name| self.may_read(name)))
    }

    /// Whether rows of other read models are asked for.
    fn embeds(&self) -> bool {
        !parse::embedded(&self.parameters, &self.shared.limits).is_empty()
    }

    async fn answer(&self, live: &Arc<Readable>) -> Result<Response, Stop> {
        let models = self.shared.catalog.models();
        let asked = self.checked(live, &models)?;
        let mut is_late = false;
        if let Some(position) = asked.request.min_position {
            let wait = asked
                .request
                .wait
                .unwrap_or(self.shared.limits.default_wait);
            let all = with_embedded(live, &models, &asked.plan);
            is_late = match self.shared.reach_all(&all, position, wait).await {
                Ok(is_reached) => !is_reached,
                Err(Stop::Refused(problem)) => {
                    let fresh = self.fresh(&asked).await?;
                    let answered = self.answered(live, &fresh, &asked.request, false).await;
                    return Ok(answered.with(problem.into_response(), None));
                }
                Err(failed) => return Err(failed),
            };
            if is_late && !self.preferences.stale_is_ok {
                return self.too_late(live, &asked, position, wait).await;
            }
        }
        let representation = headers::representation(
            &sql::rows(&asked.plan, asked.target, asked.shape),
            self.format,
        );
        if self.headers.contains_key(header::IF_NONE_MATCH) {
            let fresh = self.fresh(&asked).await?;
            let tag = Self::tag(live, &fresh, &representation);
            if let Some(tag) = tag.filter(|tag| headers::matches(self.headers, tag)) {
                let answered = self.answered(live, &fresh, &asked.request, is_late).await;
                return Ok(answered.with(StatusCode::NOT_MODIFIED.into_response(), Some(&tag)));
            }
        }
        self.read(live, &asked, &representation, is_late).await
    }

    /// What is asked for, checked against the read model as it is in this generation.
    fn checked<'m>(&'m self, live: &'m Readable, models: &'m Models) -> Result<Asked<'m>, Stop> {
        let around = Around {
            models: models.around(live),
            from: live,
            rules: &self.shared.rules,
            viewer: self.viewer,
        };
        let limits = &self.shared.limits;
        plan::check_names(&self.parameters, &live.model, limits)?;
        let mut request = parse::parse(&self.parameters, limits)?;
        if let Some(range) = self.range {
            range.narrow(&mut request)?;
        }
        let plan = match self.key {
            None => plan::rows(&live.model, &around, &request, limits)?,
            Some(key) => plan::row(&live.model, &around, key, &request, limits)?,
        };
        let target = Target {
            generation: live.generation,
            standing: live.standing,
            schema: &live.schema,
            min_position: request.min_position,
            answer_bytes: limits.answer_bytes,
        };
        let count = self.preferences.count.filter(|_| self.key.is_none());
        let shape = Shape {
            lines: self.format.lines,
            // What the planner expects comes from statistics of all rows, also of those that this reader may not see.
            count: count.map(|count| match around.is_restricted(&plan) {
                true => sql::Count::Exact,
                false => count.of_at_most(limits.rows),
            }),
        };
        Ok(Asked {
            request,
            plan,
            target,
            shape,
        })
    }

    async fn read(
        &self,
        live: &Readable,
        asked: &Asked<'_>,
        representation: &str,
        is_late: bool,
    ) -> Result<Response, Stop> {
        let Asked {
            request,
            plan,
            target,
            shape,
        } = asked;
        let answer = match crate::query::answer(&self.shared.pool, plan, *target, *shape).await {
            Ok(answer) => answer,
            Err(Failure::Gone) => return Err(Stop::Failed(Failure::Gone)),
            Err(failure) => return Ok(self.failed(live, asked, failure, is_late).await),
        };
        let answered = self
            .answered(live, &answer.freshness, request, is_late)
            .await;
        let tag = Self::tag(live, &answer.freshness, representation);
        Ok(match self.shown(asked, answer) {
            Ok(response) => answered.with(response, tag.as_deref()),
            Err(problem) => answered.with(problem.into_response(), None),
        })
    }

    /// Rows as the reader wants to see them: all of a page, or the only one on its own.
    fn shown(&self, asked: &Asked<'_>, answer: Answer) -> Result<Response, Problem> {
        let is_single = self.key.is_some() || self.format.is_single;
        if is_single && answer.count != 1 {
            return Err(match self.key {
                Some(key) => errors::no_row(&self.model, key),
                None => errors::not_one_row(answer.count),
            });
        }
        let body = Bytes::from(answer.body);
        let body = match is_single && self.format.lines != Lines::Csv {
            // The array's brackets are left out.
            true => body.slice(1..body.len() - 1),
            false => body,
        };
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.format.content_type());
        headers.insert(header::VARY, headers::VARY);
        if self.key.is_some() {
            return Ok(response);
        }
        let plan = &asked.plan;
        let extent = Extent {
            offset: match (&plan.after, plan.limit) {
                (Some(_), _) => None,
                // Nothing begins anywhere.
                (None, 0) => Some(0),
                (None, _) => Some(plan.offset.unsigned_abs()),
            },
            count: answer.count,
            total: answer.total,
        };
        let status = extent.status()?;
        if extent.is_told() {
            headers.insert(header::CONTENT_RANGE, extent.header());
        }
        if let Some(next) = &answer.next {
            let limit = self.range.and(Some(plan.limit));
            range::link(headers, self.uri, &self.parameters, limit, next);
        }
        *response.status_mut() = status;
        Ok(response)
    }

    async fn fresh(&self, asked: &Asked<'_>) -> Result<Freshness, Failure> {
        let embedded = asked.plan.links();
        let pool = &self.shared.pool;
        crate::query::freshness(pool, &self.model, asked.target, &embedded).await
    }

    /// The answer to a query that failed, with how fresh its read model is, if that can still be said.
    async fn failed(
        &self,
        live: &Readable,
        asked: &Asked<'_>,
        failure: Failure,
        is_late: bool,
    ) -> Response {
        let is_away = matches!(failure, Failure::Pool(_) | Failure::Database(_));
        let response = errors::failed(failure, &self.shared.limits).into_response();
        if is_away {
            return response;
        }
        match self.fresh(asked).await {
            Ok(fresh) => {
                let answered = self.answered(live, &fresh, &asked.request, is_late).await;
                answered.with(response, None)
            }
            Err(_) => response,
        }
    }

    async fn too_late(
        &self,
        live: &Readable,
        asked: &Asked<'_>,
        position: i64,
        wait: Duration,
    ) -> Result<Response, Stop> {
        let fresh = self.fresh(asked).await?;
        let head = live.upstream.head.borrow().head.max(fresh.position);
        let mut detail = format!(
            "read model \"{}\" is at position {}, and did not reach {position} within {} s",
            self.model,
            fresh.position,
            wait.as_secs_f64()
        );
        if position > head {
            detail.push_str(&format!(
                "; no event has that position yet, the last one has {head}"
            ));
        }
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_yet", detail)
            .with_details(json!({
                "position": fresh.position, "min_position": position, "head_position": head
            }))
            .with_hint(
                "try again, wait longer with wait=, or send \"Prefer: stale=ok\" to get the rows as they are",
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"));
        let answered = self.answered(live, &fresh, &asked.request, false).await;
        Ok(answered.with(problem.into_response(), None))
    }

    async fn answered(
        &self,
        live: &Readable,
        fresh: &Freshness,
        request: &Request,
        is_late: bool,
    ) -> Answered {
        // It may have arrived after the wait and before the rows were read.
        let is_behind = request.min_position.is_some_and(|p| fresh.position < p);
        let mut answered = Answered::new(live, fresh, request.min_position).await;
        answered.applied(&self.preferences, is_late && is_behind);
        if let Some(profile) = self.profile {
            answered.set("content-profile", profile);
        }
        answered
    }

    /// None while nobody can tell what a revision means.
    fn tag(live: &Readable, fresh: &Freshness, representation: &str) -> Option<String> {
        let incarnation = fresh.incarnation.as_deref()?;
        let embedded = fresh.embedded.as_deref().map(|others| format!("-{others}"));
        Some(format!(
            "\"{incarnation}-{}-{}{}-{representation}\"",
            live.generation,
            fresh.revision,
            embedded.unwrap_or_default()
        ))
    }
}
