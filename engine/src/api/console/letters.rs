//! The events of a projection that could not be processed: per stream in order, each with what an operator can decide.

use std::time::Duration;

use maud::{Markup, html};
use tokio::time::{Instant, timeout_at};

use super::projection::View;
use super::text;
use crate::api::admin::Admin;
use crate::api::admin::letters::{Letter, LetterState, MAX_REASON, Which, letters};
use crate::api::admin::status::Status;
use crate::api::problem::Problem;
use crate::query::scan::encode;

/// Dead letters on one page.
const ON_A_PAGE: i64 = 100;
/// Decisions of the past that are shown.
const DECISIONS: i64 = 20;
/// How long the page waits for all of its events.
const PATIENCE: Duration = Duration::from_secs(3);
/// How much of an event's data is shown.
const SHOWN_BYTES: usize = 8 << 10;

/// What the section shows.
pub(super) struct Letters {
    open: Vec<(Letter, Content)>,
    discarded: Vec<Letter>,
}

/// What happened, as far as it can be shown.
enum Content {
    Event {
        data: Beginning,
        metadata: Option<Beginning>,
    },
    /// Why it is not there.
    Missing(String),
}

/// The beginning of a text, and how many bytes follow.
struct Beginning(String, usize);

impl Beginning {
    fn of(text: &str) -> Self {
        let (shown, left_out) = text::beginning(text, SHOWN_BYTES);
        Self(shown.to_owned(), left_out)
    }
}

impl Letters {
    /// Finds them, and the events that they are about.
    pub(super) async fn find(admin: &Admin, status: &Status, view: &View) -> Result<Self, Problem> {
        let wanted = Which::Open {
            stream_id: view.stream_id.as_deref(),
            after: view.after.unwrap_or(0),
        };
        let found = letters(admin, &status.name, wanted, ON_A_PAGE).await?;
        let mut open = Vec::with_capacity(found.len());
        let until = Instant::now() + PATIENCE;
        for letter in found {
            let content = content(admin, status, &letter, until).await;
            open.push((letter, content));
        }
        let discarded = letters(admin, &status.name, Which::Discarded, DECISIONS).await?;
        Ok(Self { open, discarded })
    }

    /// The streams in the order of their first dead letters, each with its own in order.
    fn by_stream(&self) -> Vec<(&str, Vec<&(Letter, Content)>)> {
        let mut streams: Vec<(&str, Vec<_>)> = Vec::new();
        for found in &self.open {
            let stream_id = found.0.stream_id.as_str();
            match streams.iter_mut().find(|(known, _)| *known == stream_id) {
                Some((_, of)) => of.push(found),
                None => streams.push((stream_id, vec![found])),
            }
        }
        streams
    }
}

async fn content(admin: &Admin, status: &Status, letter: &Letter, until: Instant) -> Content {
    let event = admin.sources.event_at(&status.source, letter.position);
    match timeout_at(until, event).await {
        Ok(Ok(found)) if found.is_empty() => {
            Content::Missing("The event is not in the source any more.".to_owned())
        }
        Ok(Ok(found)) => Content::Event {
            data: Beginning::of(found.data(0)),
            metadata: found.metadata(0).map(Beginning::of),
        },
        Ok(Err(error)) => Content::Missing(format!("The event cannot be read now: {error}")),
        Err(_) => Content::Missing("The event could not be read in time.".to_owned()),
    }
}

/// The section of the page.
pub(super) fn section(status: &Status, view: &View, found: &Letters) -> Markup {
    let path = text::projection_path(&status.name);
    html! {
        section aria-labelledby="dead-letters" {
            h2 #dead-letters { "Dead letters" }
            (extent(status, view, &path))
            @if status.dead_letters > 0 {
                form method="post" action={ (path) "/retry" } { button { "Retry all" } }
            }
            @for (stream_id, letters) in found.by_stream() { (stream(&path, stream_id, &letters)) }
            @if let Some((last, _)) = found.open.last().filter(|_| found.open.len() >= ON_A_PAGE as usize) {
                p { a href=(next(&path, view, last)) { "Further dead letters" } }
            }
            (decisions(&found.discarded))
        }
    }
}

fn next(path: &str, view: &View, last: &Letter) -> String {
    let stream = view.stream_id.as_deref().map(encode);
    let stream = stream.map_or(String::new(), |id| format!("&stream_id={id}"));
    format!("{path}?after={}{stream}#dead-letters", last.position)
}

/// What part of them is shown.
fn extent(status: &Status, view: &View, path: &str) -> Markup {
    let is_part = view.stream_id.is_some() || view.after.is_some();
    html! {
        @match status.dead_letters {
            0 => p.soft { "None waits for a decision." },
            1 => p { "One event could not be processed." },
            count => p { (text::number(count)) " events could not be processed, or wait behind one that could not." },
        }
        @if is_part {
            p.soft {
                "Shown are "
                @if let Some(stream_id) = &view.stream_id { "those of stream " code { (stream_id) } " " }
                @if let Some(after) = view.after { "those after event " (text::number(after)) " " }
                "only. " a href={ (path) "#dead-letters" } { "Show all" }
            }
        }
    }
}

fn stream(path: &str, stream_id: &str, letters: &[&(Letter, Content)]) -> Markup {
    let encoded = encode(stream_id);
    html! {
        article.stream aria-label={ "Stream " (stream_id) } {
            header {
                h3 {
                    "Stream "
                    a href={ (path) "?stream_id=" (encoded) "#dead-letters" } { (stream_id) }
                }
                form method="post" action={ (path) "/retry?stream_id=" (encoded) } {
                    button { "Retry this stream" }
                }
                (discard(
                    "Discard all of this stream \u{2026}",
                    "Discard all",
                    &format!("{path}/discard?stream_id={encoded}&whole_stream=true"),
                ))
            }
            ol { @for (letter, content) in letters { (one(path, letter, content)) } }
        }
    }
}

fn one(path: &str, letter: &Letter, content: &Content) -> Markup {
    html! {
        li #{ "event-" (letter.position) } {
            p.letter {
                strong { (text::number(letter.position)) } " " code { (letter.event_type) } " "
                (state(letter)) " "
                span.soft {
                    // What waits behind another has not been tried on its own account.
                    @match (letter.state, letter.attempts) {
                        (LetterState::Behind, _) => {}
                        (_, 1) => "1 attempt, ",
                        (_, attempts) => { (attempts) " attempts, " }
                    }
                    "since " time datetime=(letter.created_at) { (text::moment(&letter.created_at)) }
                }
            }
            @if let Some(message) = &letter.message { pre.said { (message) } }
            details {
                summary { "Event " (text::number(letter.position)) }
                (event(letter, content))
            }
            // The one before it decides: it may well succeed after that.
            @if letter.state != LetterState::Behind {
                (discard(
                    "Discard this event \u{2026}",
                    "Discard",
                    &format!(
                        "{path}/discard?position={}&stream_id={}", letter.position, encode(&letter.stream_id)
                    ),
                ))
            }
        }
    }
}

fn state(letter: &Letter) -> Markup {
    let (class, word) = match letter.state {
        LetterState::Failed => ("bad", "failed"),
        LetterState::Behind => ("idle", "waits behind"),
        LetterState::Skipped => ("idle", "skipped"),
        LetterState::Discarded => ("idle", "discarded"),
    };
    html! {
        span.badge.(class) { (word) }
        @if letter.retry { " " span.badge.good { "to be retried" } }
    }
}

fn event(letter: &Letter, content: &Content) -> Markup {
    html! {
        p.soft { "Event id " code { (letter.event_id) } }
        @match content {
            Content::Missing(why) => p { (why) },
            Content::Event { data, metadata } => {
                h4 { "Data" } (json(data))
                @if let Some(metadata) = metadata { h4 { "Metadata" } (json(metadata)) }
            }
        }
    }
}

fn json(Beginning(shown, left_out): &Beginning) -> Markup {
    html! {
        pre { (shown) }
        @if *left_out > 0 { p.soft { "\u{2026} and " (text::number(*left_out as i64)) " more bytes" } }
    }
}

/// A form that asks for a reason, folded.
fn discard(title: &str, button: &str, action: &str) -> Markup {
    html! {
        details.decision {
            summary { (title) }
            form method="post" action=(action) {
                label { "Reason " input name="reason" required maxlength=(MAX_REASON) autocomplete="off"; }
                button.grave { (button) }
            }
        }
    }
}

fn decisions(discarded: &[Letter]) -> Markup {
    html! {
        @if !discarded.is_empty() {
            h3 { "Discarded, the latest first" }
            div.scroll tabindex="0" role="region" aria-label="Discarded events" {
                table {
                    thead {
                        tr {
                            th.figure scope="col" { "Event" } th scope="col" { "Stream" }
                            th scope="col" { "Type" } th scope="col" { "When" } th scope="col" { "Reason" }
                        }
                    }
                    tbody {
                        @for letter in discarded {
                            tr {
                                th.figure scope="row" { (text::number(letter.position)) }
                                td { code { (letter.stream_id) } }
                                td { code { (letter.event_type) } }
                                td.still {
                                    time datetime=(letter.updated_at) { (text::moment(&letter.updated_at)) }
                                }
                                td.said { (letter.message.as_deref().unwrap_or_default()) }
                            }
                        }
                    }
                }
            }
        }
    }
}
