//! `GET /read/{model}` and `GET /read/{model}/{key}`: rows of read models, and how fresh they are.
//!
//! Every answer about a known read model carries `Gobo-Position` and its companions, and an `ETag` made from the
//! revision, so that a reader who has the rows already is answered 304 without running the query.

mod headers;
mod past;
mod wait;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use deadpool_postgres::Pool;
use serde_json::json;

use self::headers::Format;
use self::wait::Wanted;
use super::problem::Problem;
use crate::query::board::{Board, Since};
use crate::query::catalog::{Catalog, Readable};
use crate::query::plan::{self, Plan};
use crate::query::scan::{self, Parameter, Plus};
use crate::query::sql::{self, Target};
use crate::query::{Failure, Freshness, Limits, Refusal, as_of, nearest, parse};

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
    board: Board,
    limits: Limits,
}

impl Reader {
    /// `pool` has sessions that can only read and that have a statement timeout.
    pub fn new(pool: Pool, catalog: Catalog, board: Board, limits: Limits) -> Self {
        Self {
            shared: Arc::new(Shared {
                pool,
                catalog,
                board,
                limits,
            }),
        }
    }

    /// The routes below `/read`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/read/{model}", get(rows))
            .route("/read/{model}/{*key}", get(row))
            .with_state(self)
    }
}

async fn rows(State(reader): State<Reader>, uri: Uri, headers: HeaderMap) -> Response {
    let model = uri.path().rsplit('/').next().unwrap_or_default();
    respond(&reader, &uri, model, None, &headers).await
}

async fn row(State(reader): State<Reader>, uri: Uri, headers: HeaderMap) -> Response {
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
    respond(&reader, &uri, model, Some(key), &headers).await
}

/// Answers from the live generation; from the next one, if that is gone meanwhile.
async fn respond(
    reader: &Reader,
    uri: &Uri,
    model: &str,
    key: Option<&str>,
    headers: &HeaderMap,
) -> Response {
    let shared = &*reader.shared;
    let ask = match Ask::new(shared, uri, model, key, headers) {
        Ok(ask) => ask,
        Err(problem) => return problem.into_response(),
    };
    match as_of::find(&ask.parameters) {
        Ok(None) => {}
        Ok(Some(as_of)) => return past::respond(&ask, &as_of).await,
        Err(refusal) => return Problem::from(refusal).into_response(),
    }
    let mut gone = 0;
    loop {
        let live = match ask.live() {
            Ok(live) => live,
            Err(problem) => return problem.into_response(),
        };
        match ask.answer(&live).await {
            Ok(response) => return response,
            Err(Stop::Failed(Failure::Gone)) if gone < MOST_GONE => {
                gone += 1;
                shared.catalog.refreshed(&live).await;
            }
            Err(Stop::Failed(failure)) => return problem(failure, &shared.limits).into_response(),
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

/// One request.
struct Ask<'a> {
    shared: &'a Shared,
    uri: &'a Uri,
    model: String,
    key: Option<&'a str>,
    parameters: Vec<Parameter<'a>>,
    headers: &'a HeaderMap,
    format: Format,
    /// A stale answer is better than none.
    stale_is_ok: bool,
}

impl<'a> Ask<'a> {
    fn new(
        shared: &'a Shared,
        uri: &'a Uri,
        model: &str,
        key: Option<&'a str>,
        headers: &'a HeaderMap,
    ) -> Result<Self, Problem> {
        Ok(Self {
            shared,
            uri,
            model: scan::decode(model, Plus::IsPlus)?,
            key,
            parameters: scan::parameters(uri.query().unwrap_or_default(), &shared.limits)?,
            headers,
            format: Format::negotiate(headers)?,
            stale_is_ok: headers::prefers_stale(headers),
        })
    }

    fn live(&self) -> Result<Arc<Readable>, Problem> {
        let models = self.shared.catalog.models();
        if let Some(live) = models.live.get(&self.model) {
            return Ok(live.clone());
        }
        let shown: String = self.model.chars().take(80).collect();
        let problem = Problem::not_found(
            "unknown_read_model",
            format!("there is no read model \"{shown}\""),
        );
        Err(
            match nearest(&self.model, models.live.keys().map(String::as_str)) {
                Some(near) => problem.with_hint(format!("did you mean \"{near}\"?")),
                None => problem.with_hint("GET /admin/projections lists what is deployed"),
            },
        )
    }

    async fn answer(&self, live: &Arc<Readable>) -> Result<Response, Stop> {
        plan::check_names(&self.parameters, &live.model)?;
        let request = parse::parse(&self.parameters, &self.shared.limits)?;
        let plan = match self.key {
            None => plan::rows(&live.model, &request, &self.shared.limits)?,
            Some(key) => plan::row(&live.model, key, &request)?,
        };
        let target = Target {
            generation: live.generation,
            standing: live.standing,
            schema: &live.schema,
            min_position: Some(i64::MAX),
            answer_bytes: self.shared.limits.answer_bytes,
        };
        let wanted = match self.wait(live, &request).await? {
            Ok(wanted) => wanted,
            Err(response) => return Ok(response),
        };
        let representation = headers::representation(&sql::rows(&plan, target), self.format);
        if self.headers.contains_key(header::IF_NONE_MATCH) {
            let fresh = self.shared.board.look(live, Since::Lately).await?;
            let tag = Self::tag(live, &fresh, &representation);
            if let Some(tag) = tag.filter(|tag| headers::matches(self.headers, tag)) {
                let answered = self.answered(live, &fresh, &wanted).await;
                return Ok(answered.with(StatusCode::NOT_MODIFIED.into_response(), Some(&tag)));
            }
        }
        self.read(live, &wanted, &plan, target, &representation).await
    }

    async fn read(
        &self,
        live: &Readable,
        wanted: &Wanted,
        plan: &Plan<'_>,
        target: Target<'_>,
        representation: &str,
    ) -> Result<Response, Stop> {
        let answer = match crate::query::answer(&self.shared.pool, plan, target).await {
            Ok(answer) => answer,
            Err(Failure::Gone) => return Err(Stop::Failed(Failure::Gone)),
            Err(failure) => {
                return Ok(self.failed(live, wanted, failure).await);
            }
        };
        let fresh = &answer.freshness;
        let answered = self.answered(live, fresh, wanted).await;
        let is_single = self.key.is_some() || self.format == Format::Object;
        if is_single && answer.count != 1 {
            let problem = match self.key {
                Some(key) => no_row(&self.model, key),
                None => not_one_row(&self.model, answer.count),
            };
            return Ok(answered.with(problem.into_response(), None));
        }
        let body = Bytes::from(answer.body);
        let body = match is_single {
            // The array's brackets are left out.
            true => body.slice(1..body.len() - 1),
            false => body,
        };
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.format.content_type());
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        if self.key.is_none() {
            let next = answer.next.as_deref();
            headers::page(
                headers,
                self.uri,
                &self.parameters,
                plan,
                answer.count,
                next,
            );
        }
        let tag = Self::tag(live, fresh, representation);
        Ok(answered.with(response, tag.as_deref()))
    }

    /// The answer to a query that failed, with how fresh its read model is, if that can still be said.
    async fn failed(
        &self,
        live: &Readable,
        wanted: &Wanted,
        failure: Failure,
    ) -> Response {
        let is_away = matches!(failure, Failure::Pool(_) | Failure::Database(_));
        let response = problem(failure, &self.shared.limits).into_response();
        if is_away {
            return response;
        }
        match self.shared.board.look(live, Since::Lately).await {
            Ok(fresh) => {
                let answered = self.answered(live, &fresh, wanted).await;
                answered.with(response, None)
            }
            Err(_) => response,
        }
    }

    /// None while nobody can tell what a revision means.
    fn tag(live: &Readable, fresh: &Freshness, representation: &str) -> Option<String> {
        let incarnation = fresh.incarnation.as_deref()?;
        Some(format!(
            "\"{incarnation}-{}-{}-{representation}\"",
            live.generation, fresh.revision
        ))
    }
}

fn no_row(model: &str, key: &str) -> Problem {
    let shown: String = key.chars().take(80).collect();
    Problem::not_found(
        "row_not_found",
        format!("read model \"{model}\" has no row with key {shown}"),
    )
}

fn not_one_row(model: &str, count: u64) -> Problem {
    let found = if count == 0 { "none" } else { "several" };
    Problem::new(
        StatusCode::NOT_ACCEPTABLE,
        "not_one_row",
        format!("one row of \"{model}\" was asked for, and {found} match"),
    )
    .with_hint("ask for application/json, or filter by the key")
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut problem = Problem::bad_request(refusal.code, refusal.to_string());
        if let Some(hint) = refusal.hint {
            problem = problem.with_hint(hint);
        }
        if let Some(place) = refusal.place {
            problem = problem.with_details(json!({"parameter": place.parameter, "at": place.at}));
        }
        problem
    }
}

fn problem(failure: Failure, limits: &Limits) -> Problem {
    match failure {
        Failure::Gone => Problem::unavailable("the read model is being replaced just now"),
        Failure::Value { column, message } => {
            let problem = match &column {
                Some(column) => Problem::bad_request(
                    "invalid_value",
                    format!("a value for column \"{column}\" is refused: {message}"),
                )
                .with_details(json!({"parameter": column})),
                None => Problem::bad_request("invalid_value", message),
            };
            problem.with_hint("write values as PostgreSQL writes them for the column's type")
        }
        Failure::Timeout => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "statement_timeout",
            "the query took longer than is allowed",
        )
        .with_hint("filter or sort by the key or an indexed column, ask for fewer rows, or page with a cursor"),
        Failure::TooLarge { bytes } => Problem::bad_request(
            "answer_too_large",
            format!(
                "the rows have {bytes} bytes; an answer may have {}",
                limits.answer_bytes
            ),
        )
        .with_hint("ask for fewer rows with limit, or fewer columns with select"),
        Failure::Database(error) => error.into(),
        Failure::Pool(error) => error.into(),
    }
}
