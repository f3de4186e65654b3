//! The generations of a projection with what can be done with them, and the settings that its loops work with.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Shared};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use std::time::Duration;

use super::notice::{Done, Notice};
use super::{answer, bad_form, overview, text};
use crate::api::admin::Admin;
use crate::api::admin::status::{GenerationStatus, State, Status};
use crate::api::problem::Problem;
use crate::generations::{Decision, Origin, Setting};

/// How long a browser waits for a switch; after that it happens in the background.
const PATIENCE: Duration = Duration::from_secs(3);

/// Which generation a form is about; without one, it is about the projection.
#[derive(Deserialize)]
pub(super) struct Which {
    generation: Option<i64>,
}

type Asked = Result<Query<Which>, QueryRejection>;

fn one(asked: Asked) -> Result<Option<i64>, Problem> {
    let Query(which) = asked.map_err(|error| bad_form(&error.body_text()))?;
    Ok(which.generation)
}

fn notice(decision: &Decision) -> Notice {
    let done = match decision.outcome {
        "rebuilding" => Done::Rebuild,
        "waiting" => Done::PromoteLater,
        "promoted" => Done::Promote,
        "restored" => Done::Restore,
        "cancelled" => Done::Cancel,
        "paused" => Done::Pause,
        "resumed" => Done::Resume,
        _ => Done::Nothing,
    };
    done.with(u64::try_from(decision.generation).unwrap_or(0))
}

pub(super) async fn rebuild(Shared(admin): Shared<Admin>, Path(name): Path<String>) -> Response {
    let begun = admin.generations.rebuild(&name, false, false).await;
    let done = begun.map(|begun| notice(&begun)).map_err(Problem::from);
    answer(&admin, &name, done).await
}

pub(super) async fn rollback(Shared(admin): Shared<Admin>, Path(name): Path<String>) -> Response {
    let back = admin.generations.rollback(&name).await;
    let done = back.map(|back| notice(&back)).map_err(Problem::from);
    answer(&admin, &name, done).await
}

pub(super) async fn promote(
    Shared(admin): Shared<Admin>,
    Path(name): Path<String>,
    asked: Asked,
) -> Response {
    let promoted = async {
        let generation = one(asked)?;
        let generations = &admin.generations;
        let promoted = generations
            .promote_named(&name, generation, PATIENCE)
            .await?;
        Ok(notice(&promoted))
    };
    answer(&admin, &name, promoted.await).await
}

pub(super) async fn cancel(
    Shared(admin): Shared<Admin>,
    Path(name): Path<String>,
    asked: Asked,
) -> Response {
    let cancelled = async { Ok(notice(&admin.generations.cancel(&name, one(asked)?).await?)) };
    answer(&admin, &name, cancelled.await).await
}

pub(super) async fn pause(
    Shared(admin): Shared<Admin>,
    Path(name): Path<String>,
    asked: Asked,
) -> Response {
    let paused = async {
        Ok(notice(
            &admin.generations.pause(&name, one(asked)?, true).await?,
        ))
    };
    answer(&admin, &name, paused.await).await
}

pub(super) async fn resume(
    Shared(admin): Shared<Admin>,
    Path(name): Path<String>,
    asked: Asked,
) -> Response {
    let resumed = async {
        Ok(notice(
            &admin.generations.pause(&name, one(asked)?, false).await?,
        ))
    };
    answer(&admin, &name, resumed.await).await
}

/// The section of the page.
pub(super) fn section(status: &Status, generations: &[GenerationStatus]) -> Markup {
    let path = text::projection_path(&status.name);
    let building = generations
        .iter()
        .any(|one| one.stage == "building" && one.purpose == "projection");
    html! {
        section aria-labelledby="generations" {
            h2 #generations { "Generations" }
            table.cards role="table" {
                caption.unseen { "Every generation, where it is, and what can be done with it" }
                thead role="rowgroup" {
                    tr role="row" {
                        @for (title, class) in [
                            ("Generation", ""), ("Stage", ""), ("State", ""), ("Position / end", "figure"),
                            ("Version", ""), ("Actions", ""),
                        ] {
                            th scope="col" role="columnheader" class=(class) { (title) }
                        }
                    }
                }
                tbody role="rowgroup" {
                    @for one in generations { (row(one, &path)) }
                }
            }
            div.actions {
                @if !building { (button(&path, "rebuild", None, "Rebuild", "")) }
                (button(&path, "rollback", None, "Roll back", ""))
                @match status.state {
                    State::Paused => (button(&path, "resume", None, "Resume", "")),
                    _ => (button(&path, "pause", None, "Pause", "")),
                }
            }
        }
    }
}

fn row(one: &GenerationStatus, path: &str) -> Markup {
    let status = &one.status;
    let end = one.until.or(status.head_position);
    let kind = if one.purpose == "projection" {
        &one.stage
    } else {
        &one.purpose
    };
    let number = Some(status.generation);
    let is_building = one.stage == "building";
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                (status.generation)
                @if let Some(label) = &one.label { " " span.soft { (label) } }
            }
            td role="cell" data-label="Stage" { (kind) @if one.hold { " " span.soft { "held" } } }
            td role="cell" data-label="State" { (overview::state(status.state)) }
            td.figure role="cell" data-label="Position / end" {
                (text::number(status.position)) " / " (text::maybe(end)) (progress(one))
            }
            td role="cell" data-label="Version" { (status.version) }
            td role="cell" data-label="Actions" {
                div.actions {
                    @if one.purpose == "projection" && (is_building || one.stage == "kept") {
                        (button(path, "promote", number, "Promote", ""))
                    }
                    @if one.stage != "live" {
                        @match status.state {
                            State::Paused => (button(path, "resume", number, "Resume", "")),
                            State::Done => {},
                            _ => (button(path, "pause", number, "Pause", "")),
                        }
                        (button(path, "cancel", number, if is_building { "Cancel" } else { "Drop" }, "grave"))
                    }
                }
            }
        }
        @let note = [&one.trouble, &one.reason].into_iter().flatten().next();
        @if note.is_some() || status.error.is_some() && one.stage != "live" {
            tr.trouble role="row" {
                td role="cell" colspan="6" {
                    @if let Some(note) = note { p.soft { (note) } }
                    @if let Some(error) = status.error.as_ref().filter(|_| one.stage != "live") {
                        (overview::trouble(error))
                    }
                }
            }
        }
    }
}

fn progress(one: &GenerationStatus) -> Markup {
    let end = one
        .until
        .or(one.status.head_position)
        .filter(|end| *end > 0);
    html! {
        @if let Some(end) = end.filter(|_| one.stage == "building") {
            br;
            progress max=(end) value=(one.status.position.min(end)) { (one.status.position) }
        }
    }
}

fn button(path: &str, verb: &str, generation: Option<i64>, word: &str, class: &str) -> Markup {
    let action = match generation {
        None => format!("{path}/{verb}"),
        Some(generation) => format!("{path}/{verb}?generation={generation}"),
    };
    html! { form method="post" action=(action) { button class=(class) { (word) } } }
}

/// What is in force, to look at.
pub(super) fn settings(projection: &str, settings: &[Setting]) -> Markup {
    html! {
        section aria-labelledby="settings" {
            h2 #settings { "Settings" }
            table {
                thead {
                    tr { th scope="col" { "Setting" } th.figure scope="col" { "Value" } th scope="col" { "From" } }
                }
                tbody {
                    @for setting in settings {
                        tr {
                            th scope="row" { code { (setting.key) } }
                            td.figure { (plain(&setting.value)) }
                            td {
                                @match setting.origin {
                                    Origin::Default => "default",
                                    Origin::Configuration => { "configuration: " code { (setting.configured_as) } }
                                    Origin::RunTime => { "set at run time; otherwise " (plain(&setting.otherwise)) }
                                }
                            }
                        }
                    }
                }
            }
            p.soft { "Changed while it runs with " code { "gobo settings " (projection) " KEY=VALUE" } }
        }
    }
}

fn plain(value: &serde_json::Value) -> String {
    match (value.as_i64(), value.as_str()) {
        (Some(number), _) => text::number(number),
        (None, Some(word)) => word.to_owned(),
        (None, None) => value.to_string(),
    }
}
