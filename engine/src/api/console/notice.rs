//! What a form did, carried over the redirect. It is one of a closed set of sentences: nobody can put words into the
//! console's mouth with a link.

use maud::{Markup, html};
use serde::Deserialize;

use super::text;
use crate::api::problem::Problem;

/// What was done.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Done {
    Retry,
    Discard,
    DiscardStream,
    Restart,
    Rebuild,
    Promote,
    PromoteLater,
    Restore,
    Cancel,
    Pause,
    Resume,
    Nothing,
}

/// What was done, and to how many; or to which generation.
#[derive(Debug, Deserialize)]
pub(super) struct Notice {
    done: Done,
    count: u64,
}

/// What the page says about the last form.
pub(super) enum Said<'a> {
    Done(Notice),
    /// Nothing was changed, and why.
    Refused(&'a Problem),
}

impl Done {
    pub(super) fn with(self, count: u64) -> Notice {
        Notice { done: self, count }
    }
}

impl Notice {
    /// The projection's page with this notice.
    pub(super) fn address(&self, projection: &str) -> String {
        let done = match self.done {
            Done::Retry => "retry",
            Done::Discard => "discard",
            Done::DiscardStream => "discard-stream",
            Done::Restart => "restart",
            Done::Rebuild => "rebuild",
            Done::Promote => "promote",
            Done::PromoteLater => "promote-later",
            Done::Restore => "restore",
            Done::Cancel => "cancel",
            Done::Pause => "pause",
            Done::Resume => "resume",
            Done::Nothing => "nothing",
        };
        let path = text::projection_path(projection);
        format!("{path}?done={done}&count={}", self.count)
    }

    fn sentence(&self) -> String {
        match (self.done, self.count) {
            (Done::Retry, 0) => "There was nothing to try again.".to_owned(),
            (Done::Retry, 1) => "One dead letter is tried again.".to_owned(),
            (Done::Retry, count) => {
                format!("{count} dead letters are tried again, each stream\u{2019}s in order.")
            }
            (Done::Discard, 0) => "The event was discarded.".to_owned(),
            (Done::Discard, count) => {
                format!("The event was discarded; {count} that waited behind it are tried again.")
            }
            (Done::DiscardStream, 1) => {
                "One dead letter was discarded; the stream goes on.".to_owned()
            }
            (Done::DiscardStream, count) => {
                format!("{count} dead letters were discarded; the stream goes on.")
            }
            (Done::Restart, 0) => {
                "The projection had not stopped: there was nothing to do.".to_owned()
            }
            (Done::Restart, _) => "The projection tries again from its checkpoint.".to_owned(),
            (Done::Rebuild, generation) => format!(
                "Generation {generation} is being filled from the first event, and becomes the live one when it has caught up."
            ),
            (Done::Promote, generation) => format!("Generation {generation} is live now."),
            (Done::PromoteLater, generation) => {
                format!("Generation {generation} becomes the live one as soon as it can.")
            }
            (Done::Restore, generation) => format!(
                "Generation {generation} goes on with the code that it had before; rows that the newer code wrote are not undone."
            ),
            (Done::Cancel, generation) => {
                format!("Generation {generation} is given up; its tables are dropped.")
            }
            (Done::Pause, generation) => {
                format!("Generation {generation} stops after the batch in flight; its rows stay readable.")
            }
            (Done::Resume, generation) => {
                format!("Generation {generation} goes on from its checkpoint.")
            }
            (Done::Nothing, generation) => {
                format!("There was nothing to do: generation {generation} is on its way already.")
            }
        }
    }
}

/// As a line above the page.
pub(super) fn shown(said: &Said<'_>, projection: &str) -> Markup {
    let path = text::projection_path(projection);
    html! {
        @match said {
            Said::Done(notice) => p.notice role="status" {
                (notice.sentence()) " " a href=(path) { "Look again" }
            },
            Said::Refused(problem) => p.notice.bad role="alert" {
                strong { "Nothing was changed: " } (problem.detail()) " " a href=(path) { "Back" }
            },
        }
    }
}
