//! `/console`: what is deployed and what waits for a decision, as pages for people.
//!
//! Pages are made here from what the handlers of `/admin` work with, and buttons are forms that do what those handlers
//! do. There is no script, and nothing is loaded from anywhere. A form that did its work sends back to the page
//! (303), so that a reload does not do it again; one that did not is answered with the page, and why.

mod generations;
mod layout;
mod letters;
mod notice;
mod origin;
mod overview;
mod projection;
mod text;

use axum::Router;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Form, Path, Query, State};
use axum::http::Uri;
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use self::layout::{Failed, Page};
use self::notice::{Done, Notice, Said};
use self::projection::View;
use super::admin::letters::{Target, ask_to_retry, give_up, try_again};
use super::admin::{Admin, status};
use super::problem::Problem;
use crate::event::Position;

/// The largest form.
const FORM_BYTES: usize = 64 << 10;

/// `/`, `/console` and what is below it.
pub fn router(admin: Admin) -> Router {
    let one = "/console/projections/{name}";
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/console") }))
        .route("/console", get(overview))
        .route("/console/", get(|| async { Redirect::to("/console") }))
        .route("/console/{*rest}", get(lost))
        .route(one, get(projection))
        .route(&format!("{one}/retry"), post(retry).get(back))
        .route(&format!("{one}/discard"), post(discard).get(back))
        .route(&format!("{one}/restart"), post(restart).get(back))
        .route(
            &format!("{one}/rebuild"),
            post(generations::rebuild).get(back),
        )
        .route(
            &format!("{one}/promote"),
            post(generations::promote).get(back),
        )
        .route(
            &format!("{one}/rollback"),
            post(generations::rollback).get(back),
        )
        .route(
            &format!("{one}/cancel"),
            post(generations::cancel).get(back),
        )
        .route(&format!("{one}/pause"), post(generations::pause).get(back))
        .route(
            &format!("{one}/resume"),
            post(generations::resume).get(back),
        )
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .layer(middleware::from_fn(origin::own_forms_only))
        .with_state(admin)
}

async fn lost(uri: Uri) -> Failed {
    let what = format!("there is nothing at {}", uri.path());
    Failed(Problem::not_found("no_such_path", what))
}

#[derive(Default, Deserialize)]
struct Glance {
    refresh: Option<String>,
}

async fn overview(
    State(admin): State<Admin>,
    glance: Result<Query<Glance>, QueryRejection>,
) -> Result<Page, Failed> {
    let Query(glance) = glance.unwrap_or_default();
    let refresh = match glance.refresh.as_deref() {
        Some("off") => overview::Refresh::Off,
        _ => overview::Refresh::On,
    };
    Ok(overview::page(&status::statuses(&admin).await?, refresh))
}

async fn projection(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    view: Result<Query<View>, QueryRejection>,
    notice: Result<Query<Notice>, QueryRejection>,
) -> Result<Page, Failed> {
    let Query(view) = view.unwrap_or_default();
    let said = notice.ok().map(|Query(notice)| Said::Done(notice));
    Ok(projection::page(&admin, &name, &view, said).await?)
}

/// For somebody who asks for a form's address: it is only there to be posted to.
async fn back(Path(name): Path<String>) -> Redirect {
    Redirect::to(&text::projection_path(&name))
}

/// What a form is about. It is in the form's address, because browsers change line breaks in its fields.
#[derive(Deserialize)]
struct Subject {
    stream_id: Option<String>,
    position: Option<Position>,
    #[serde(default)]
    whole_stream: bool,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

async fn retry(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    subject: Result<Query<Subject>, QueryRejection>,
) -> Response {
    let retried = async {
        let Query(subject) = subject.map_err(|error| bad_form(&error.body_text()))?;
        let count = ask_to_retry(&admin, &name, subject.stream_id.as_deref()).await?;
        Ok(Done::Retry.with(count))
    };
    answer(&admin, &name, retried.await).await
}

async fn discard(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    subject: Result<Query<Subject>, QueryRejection>,
    reason: Result<Form<Reason>, FormRejection>,
) -> Response {
    let discarded = async {
        let Query(subject) = subject.map_err(|error| bad_form(&error.body_text()))?;
        let Form(Reason { reason }) = reason.map_err(|error| bad_form(&error.body_text()))?;
        let stream_id = subject.stream_id.as_deref();
        let (target, done) = match (subject.position, stream_id) {
            (None, Some(stream_id)) if subject.whole_stream => {
                (Target::Stream(stream_id), Done::DiscardStream)
            }
            (Some(position), stream_id) if !subject.whole_stream => {
                let position = Some(position);
                let target = Target::One {
                    stream_id,
                    position,
                };
                (target, Done::Discard)
            }
            _ => return Err(bad_form("it names neither one event nor a whole stream")),
        };
        let discarded = give_up(&admin, &name, target, &reason).await?;
        Ok(done.with(match done {
            Done::DiscardStream => discarded.count,
            _ => discarded.retried,
        }))
    };
    answer(&admin, &name, discarded.await).await
}

async fn restart(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    let restarted = try_again(&admin, &name).await;
    let done = restarted.map(|restarted| Done::Restart.with(u64::from(restarted)));
    answer(&admin, &name, done).await
}

fn bad_form(why: &str) -> Problem {
    Problem::bad_request("bad_form", format!("the form cannot be read: {why}"))
}

/// Back to the projection's page when something was done; else the page at once, and why nothing was.
async fn answer(admin: &Admin, name: &str, done: Result<Notice, Problem>) -> Response {
    match done {
        Ok(notice) => Redirect::to(&notice.address(name)).into_response(),
        Err(problem) => {
            let said = Some(Said::Refused(&problem));
            match projection::page(admin, name, &View::default(), said).await {
                Ok(page) => page.with_status(problem.status()).into_response(),
                Err(worse) => Failed(worse).into_response(),
            }
        }
    }
}
