//! `/console/projections/{name}`: one projection in full, one section after the other.

use maud::{Markup, html};
use serde::Deserialize;

use super::layout::Page;
use super::letters::{self, Letters};
use super::notice::{self, Said};
use super::{generations as section, overview, text};
use crate::api::admin::Admin;
use crate::api::admin::status::{Line, State, Status, generations, log_lines, status_of};
use crate::api::problem::Problem;
use crate::event::Position;
use crate::query::scan::encode;

/// The latest lines of the log that are shown.
const LINES: i64 = 50;

/// Which part of the dead letters is looked at.
#[derive(Debug, Default, Deserialize)]
pub(super) struct View {
    /// Only this stream's.
    pub(super) stream_id: Option<String>,
    /// Only those after this position.
    pub(super) after: Option<Position>,
}

/// The page, with what is to be said of the last form.
pub(super) async fn page(
    admin: &Admin,
    name: &str,
    view: &View,
    said: Option<Said<'_>>,
) -> Result<Page, Problem> {
    let status = status_of(admin, name).await?;
    let found = Letters::find(admin, &status, view).await?;
    let all = generations(admin, name).await?;
    let settings = admin.generations.settings(name).await?;
    let lines = log_lines(admin, name, None, LINES).await?;
    let body = html! {
        p.path { a href="/console" { "All projections" } }
        h1 {
            (status.name) " " (overview::state(status.state))
            @if status.diverged { " " (overview::diverged()) }
        }
        @if let Some(said) = &said { (notice::shown(said, name)) }
        (error(&status))
        (facts(&status))
        (section::section(&status, &all))
        (read_models(&status))
        (letters::section(&status, view, &found))
        (section::settings(&status.name, &settings))
        (log(&lines))
    };
    Ok(Page::new(status.name, body))
}

fn error(status: &Status) -> Markup {
    let path = text::projection_path(&status.name);
    html! {
        @if let Some(error) = &status.error {
            section.trouble aria-labelledby="error" {
                h2 #error { "Why it makes no progress" }
                (overview::trouble(error))
                @if status.state == State::Stopped {
                    form method="post" action={ (path) "/restart" } {
                        button { "Restart" }
                        span.soft { "It tries again from its checkpoint." }
                    }
                }
            }
        }
    }
}

fn facts(status: &Status) -> Markup {
    let facts = [
        ("Version", status.version.clone()),
        ("Position", text::number(status.position)),
        ("Head", text::maybe(status.head_position)),
        ("Lag", overview::lag(status)),
        ("Events/s", overview::rate(status)),
        ("Dead letters", text::number(status.dead_letters)),
        ("Source", status.source.clone()),
        ("Generation", status.generation.to_string()),
        (
            "Owner",
            status
                .owner
                .clone()
                .unwrap_or_else(|| text::UNKNOWN.to_owned()),
        ),
        (
            "Diverged",
            match status.diverged {
                true => "yes: a replay may give other rows".to_owned(),
                false => "no".to_owned(),
            },
        ),
    ];
    html! {
        section aria-labelledby="status" {
            h2 #status { "Status" }
            dl.facts {
                @for (term, value) in &facts { div { dt { (term) } dd { (value) } } }
                div.wide { dt { "Plugin (SHA-256)" } dd { code { (status.hash) } } }
            }
        }
    }
}

fn read_models(status: &Status) -> Markup {
    html! {
        section aria-labelledby="read-models" {
            h2 #read-models { "Read models" }
            table {
                thead {
                    tr { th scope="col" { "Name" } th.figure scope="col" { "Revision" } }
                }
                tbody {
                    @for model in &status.read_models {
                        tr {
                            th scope="row" { a href={ "/read/" (encode(&model.name)) } { (model.name) } }
                            td.figure { (text::number(model.revision)) }
                        }
                    }
                }
            }
        }
    }
}

fn log(lines: &[Line]) -> Markup {
    html! {
        section aria-labelledby="log" {
            h2 #log { "Log, the latest first" }
            @if lines.is_empty() {
                p.soft { "The plugin has logged nothing." }
            } @else {
                div.scroll tabindex="0" role="region" aria-label="The latest lines of the log" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Time" } th scope="col" { "Level" }
                                th.figure scope="col" { "Up to event" } th scope="col" { "Message" }
                            }
                        }
                        tbody {
                            @for line in lines.iter().rev() {
                                tr {
                                    td.still { time datetime=(line.at) { (text::moment(&line.at)) } }
                                    td { (line.level) }
                                    td.figure { (text::number(line.position)) }
                                    td.said { (line.message) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
