//! `/console`: every projection in one table.

use maud::{Markup, html};

use super::layout::Page;
use super::text;
use crate::api::admin::status::{State, Status};
use crate::projection::StopError;

/// How often the page is loaded again.
const REFRESH_SECONDS: u32 = 5;

/// Whether the page is loaded again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refresh {
    On,
    Off,
}

/// The page.
pub(super) fn page(statuses: &[Status], refresh: Refresh) -> Page {
    let body = html! {
        h1 { "Projections" }
        @if statuses.is_empty() {
            p { "No projection is deployed yet. " code { "gobo deploy FILE.wasm" } " deploys one." }
        } @else {
            (table(statuses))
        }
        p.soft {
            @match refresh {
                Refresh::On => {
                    "Loaded again every " (REFRESH_SECONDS) " seconds. "
                    a href="/console?refresh=off" { "Stop that" }
                }
                Refresh::Off => a href="/console" { "Load again by itself" },
            }
        }
    };
    let page = Page::new("Projections", body);
    match refresh {
        Refresh::On => page.refreshed_every(REFRESH_SECONDS),
        Refresh::Off => page,
    }
}

// The roles are those that the elements have anyway: browsers drop them where a narrow page shows rows as blocks.
fn table(statuses: &[Status]) -> Markup {
    html! {
        table.cards role="table" {
            caption.unseen { "Every projection, and how far it is" }
            thead role="rowgroup" {
                tr role="row" {
                    @for (title, class) in [
                        ("Projection", ""), ("State", ""), ("Position / head", "figure"), ("Lag", "figure"),
                        ("Events/s", "figure"), ("Dead letters", "figure"), ("Owner", ""),
                    ] {
                        th scope="col" role="columnheader" class=(class) { (title) }
                    }
                }
            }
            tbody role="rowgroup" {
                @for status in statuses { (row(status)) }
            }
        }
    }
}

fn row(status: &Status) -> Markup {
    let path = text::projection_path(&status.name);
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                a href=(path) { (status.name) } " " span.soft { (status.version) }
                @if status.diverged { " " (diverged()) }
            }
            td role="cell" data-label="State" { (state(status.state)) }
            td.figure role="cell" data-label="Position / head" {
                (text::number(status.position)) " / " (text::maybe(status.head_position))
            }
            td.figure role="cell" data-label="Lag" { (lag(status)) }
            td.figure role="cell" data-label="Events/s" { (rate(status)) }
            td.figure role="cell" data-label="Dead letters" {
                @if status.dead_letters > 0 {
                    a.count href={ (path) "#dead-letters" } { (text::number(status.dead_letters)) }
                } @else { "0" }
            }
            td role="cell" data-label="Owner" { (status.owner.as_deref().unwrap_or(text::UNKNOWN)) }
        }
        @if let Some(error) = &status.error {
            tr.trouble role="row" { td role="cell" colspan="7" { (trouble(error)) } }
        }
    }
}

/// A state in words and, beside them, as a colour.
pub(super) fn state(state: State) -> Markup {
    let (class, word) = match state {
        State::Running => ("good", "running"),
        State::Waiting => ("idle", "waiting"),
        State::Stopped => ("bad", "stopped"),
        State::Failed => ("bad", "failed"),
        State::Paused => ("idle", "paused"),
        State::Done => ("good", "done"),
    };
    html! { span.badge.(class) { (word) } }
}

/// The mark of a projection whose rows a replay may not give.
pub(super) fn diverged() -> Markup {
    html! { span.badge.idle title="A replay may give other rows" { "diverged" } }
}

/// How old the oldest event is that was not processed yet.
pub(super) fn lag(status: &Status) -> String {
    status
        .lag_seconds
        .map_or(text::UNKNOWN.to_owned(), text::duration)
}

/// How fast the process that was asked works.
pub(super) fn rate(status: &Status) -> String {
    status
        .events_per_second
        .map_or(text::UNKNOWN.to_owned(), |rate| format!("{rate:.1}"))
}

/// Why a projection makes no progress.
pub(super) fn trouble(error: &StopError) -> Markup {
    html! {
        @if let Some(position) = error.position {
            p {
                "At event " (text::number(position))
                @if let Some(kind) = &error.event_type { ", " code { (kind) } }
                @if let Some(stream_id) = &error.stream_id { ", of stream " code { (stream_id) } }
            }
        }
        pre.said { (error.message) }
        @if let Some(hint) = &error.hint { p.soft { (hint) } }
        @if let Some(file) = &error.file {
            p.soft { "To run the event again: " code { "gobo replay --frame " (file) " --plugin PLUGIN.wasm" } }
        }
    }
}
