//! `GET /read/{model}` and `GET /read/{model}/{key}`: rows of read models, and how fresh they are.
//!
//! Every answer about a known read model carries `Gobo-Position` and its companions, and an `ETag` made from the
//! revision, so that a reader who has the rows already is answered 304 without running the query.

mod errors;
mod format;
mod headers;
mod live;
mod past;
mod prefer;
mod range;
mod remembered;
mod shown;
mod wait;

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router};

use self::format::Format;
pub(super) use self::headers::matches;
pub use self::live::Live;
use self::prefer::Preferences;
use self::range::Items;
use self::remembered::{Memory, Outline};
use self::wait::Wanted;
use super::problem::Problem;
use crate::access::Identity;
use crate::cache::{self, Cache, Found, Representation};
use crate::db::Sessions;
use crate::query::board::{self, Board, Since};
use crate::query::catalog::{Catalog, Models, Readable};
use crate::query::parse::Request;
use crate::query::plan::{self, Around, Plan};
use crate::query::rules::{Rules, Viewer};
use crate::query::scan::{self, Parameter, Plus};
use crate::query::sql::{self, Lines, Shape, Statement, Target};
use crate::query::{self, Failure, Freshness, Limits, Place, Refusal, as_of, parse};
pub(super) use errors::as_postgrest;

/// How many generations may come and go during one request, which may have waited for long.
const MOST_GONE: usize = 3;

/// Everything that reading needs. Clones are the same.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
    live: Option<Live>,
}

#[derive(Debug)]
struct Shared {
    sessions: Sessions,
    catalog: Catalog,
    board: Board,
    cache: Cache,
    memory: Memory,
    limits: Limits,
    schema: String,
    rules: Arc<Rules>,
}

impl Reader {
    /// `sessions` can only read and have a statement timeout. `schema` is the one that readers may
    /// name: the public one. `rules` say who may read what.
    pub fn new(
        sessions: Sessions,
        catalog: Catalog,
        board: Board,
        cache: Cache,
        limits: Limits,
        schema: &str,
        rules: Arc<Rules>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                sessions,
                catalog,
                board,
                cache,
                memory: Memory::default(),
                limits,
                schema: schema.to_owned(),
                rules,
            }),
            live: None,
        }
    }

    /// Lets readers follow what they read.
    pub fn with_live(self, live: Live) -> Self {
        Self {
            live: Some(live),
            ..self
        }
    }

    /// How often looks and answers were shared.
    pub fn counts(&self) -> (board::Counts, cache::Counts) {
        (self.shared.board.counts(), self.shared.cache.counts())
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
        let hint = "write a slash inside a key as %2F";
        let refusal = Refusal::new("invalid_key", "the key contains a slash", hint);
        return Problem::from(refusal.at(&Place::Path)).into_response();
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
    let mut ask = match Ask::new(shared, identity, asked, headers) {
        Ok(ask) => ask,
        Err(problem) => return problem.into_response(),
    };
    // Before anything else is looked at: what somebody may not read is answered as what does not exist.
    if !ask.may_read(&ask.model) {
        return ask.unknown().into_response();
    }
    if let Some(live) = &reader.live {
        match live::Wish::take(&mut ask) {
            Ok(None) => {}
            Ok(Some(wish)) => return live::respond(&ask, live, wish, &identity.counted_as()).await,
            Err(problem) => return problem.into_response(),
        }
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
                    true => shared.catalog.other_than(&models).await,
                }
            }
            Err(stop) => return stop.response(&shared.limits),
        }
    }
}

/// Why there is no answer from a generation.
enum Stop {
    Failed(Failure),
    Refused(Problem),
}

impl Stop {
    fn response(self, limits: &Limits) -> Response {
        match self {
            Stop::Failed(failure) => errors::failed(failure, limits).into_response(),
            Stop::Refused(problem) => problem.into_response(),
        }
    }
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

/// The read models of other generations whose rows are embedded, and whose positions mean the same.
fn embedded<'m>(live: &Readable, models: &'m Models, plan: &Plan<'_>) -> Vec<&'m Readable> {
    let mut others: Vec<&'m Readable> = Vec::new();
    for link in plan.links().into_iter().filter(|link| link.shares_source) {
        let known = others.iter().map(|other| other.generation);
        if known
            .chain([live.generation])
            .all(|known| known != link.generation)
        {
            let other = models.live.get(&link.model.name);
            others.extend(other.map(|other| &**other));
        }
    }
    others
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
        let format = Format::negotiate(headers)?;
        let mut preferences = Preferences::read(headers)?;
        // CSV has no place for it.
        preferences.metadata &= format.lines != Lines::Csv;
        Ok(Self {
            shared,
            viewer: &identity.viewer,
            uri,
            model: scan::decode(model, Plus::IsPlus)?,
            key,
            range,
            parameters: scan::parameters(uri.query().unwrap_or_default(), &shared.limits)?,
            headers,
            format,
            preferences,
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
        let seen = match self.at_hand(live).await? {
            ControlFlow::Break(response) => return Ok(response),
            ControlFlow::Continue(seen) => seen,
        };
        let models = self.shared.catalog.models();
        let asked = self.checked(live, &models)?;
        let place = board::Place::default();
        let mut wanted = match self.wait(&place, live, &asked.request).await? {
            Ok(wanted) => wanted,
            Err(response) => return Ok(response),
        };
        wanted.fresh = wanted.fresh.or(seen);
        let others = embedded(live, &models, &asked.plan);
        let request = &asked.request;
        if let Err(response) = self.wait_for(&place, &others, request, &mut wanted).await? {
            return Ok(response);
        }
        drop(place);
        let statement = sql::rows(&asked.plan, asked.target, asked.shape);
        let outline = Outline::of(&asked, Representation::of(&statement));
        self.remember(live, &asked, outline);
        let cache = &self.shared.cache;
        // What is kept goes by the revision of one read model.
        let is_kept = !asked.plan.embeds_rows() && !cache.is_off();
        let may_match = self.headers.contains_key(header::IF_NONE_MATCH);
        let fresh = match is_kept || may_match {
            true => Some(self.fresh(live, &asked, &wanted).await?),
            false => None,
        };
        if let Some(fresh) = &fresh
            && let Some(response) = self.spared(live, fresh, &wanted, &outline).await
        {
            return Ok(response);
        }
        let read = async || self.read(live, &asked, &statement).await;
        let found = match fresh.filter(|_| is_kept) {
            Some(fresh) => cache.rows(live, fresh, &outline.shown, read).await,
            None => read().await,
        };
        let found = match found {
            Ok(found) => found,
            Err(Failure::Gone) => return Err(Stop::Failed(Failure::Gone)),
            Err(failure) => return Ok(self.failed(live, &wanted, failure).await),
        };
        if wanted.is_taken_back(found.fresh.position) {
            return Err(Stop::Failed(Failure::Gone));
        }
        Ok(self.found(live, &found, &wanted, &outline).await)
    }

    /// The answer to a query that was asked before, if its rows are in memory or its reader has them. If not: how fresh they
    /// are, where that was looked up.
    async fn at_hand(
        &self,
        live: &Arc<Readable>,
    ) -> Result<ControlFlow<Response, Option<Arc<Freshness>>>, Stop> {
        let cache = &self.shared.cache;
        if cache.is_off() && !self.headers.contains_key(header::IF_NONE_MATCH) {
            return Ok(ControlFlow::Continue(None));
        }
        let Some(outline) = self.remembered(live) else {
            return Ok(ControlFlow::Continue(None));
        };
        let wanted = Wanted::nothing();
        let fresh = self.shared.board.look(live, Since::Lately).await?;
        if let Some(response) = self.spared(live, &fresh, &wanted, &outline).await {
            return Ok(ControlFlow::Break(response));
        }
        let Some(found) = cache.at_hand(live, fresh.clone(), &outline.shown) else {
            return Ok(ControlFlow::Continue(Some(fresh)));
        };
        let response = self.found(live, &found, &wanted, &outline).await;
        Ok(ControlFlow::Break(response))
    }

    /// How fresh the rows are, those of other read models too.
    async fn fresh(
        &self,
        live: &Readable,
        asked: &Asked<'_>,
        wanted: &Wanted,
    ) -> Result<Arc<Freshness>, Failure> {
        if asked.plan.embeds_rows() {
            let links = asked.plan.links();
            let sessions = &self.shared.sessions;
            let fresh = query::freshness(sessions, &self.model, asked.target, &links);
            return fresh.await.map(Arc::new);
        }
        match &wanted.fresh {
            Some(fresh) => Ok(fresh.clone()),
            None => self.shared.board.look(live, Since::Lately).await,
        }
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
            answer_bytes: limits.answer_bytes,
        };
        let count = self.preferences.count.filter(|_| self.key.is_none());
        let hides_rows = plan.hides_rows();
        let shape = Shape {
            lines: self.format.lines,
            // What the planner expects comes from statistics of all rows, also of those that this reader may not see.
            count: count.map(|count| match hides_rows {
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

    /// Asks the database for the rows, and notes how fresh they are.
    async fn read(
        &self,
        live: &Readable,
        asked: &Asked<'_>,
        statement: &Statement,
    ) -> Result<Found, Failure> {
        let Asked {
            plan,
            target,
            shape,
            ..
        } = asked;
        let began = self.shared.board.begin(live);
        let answer = query::answer(&self.shared.sessions, statement, plan, *target, *shape).await?;
        let fresh = Arc::new(answer.freshness);
        // With rows of others it says how fresh all of them are together.
        if !plan.embeds_rows() {
            self.shared.board.saw(live, began, fresh.clone());
        }
        Ok(Found {
            fresh,
            page: Arc::new(answer.page),
        })
    }
}
