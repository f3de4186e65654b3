//! The answer that a reader sees: rows in the form that was asked for, 304, or what went wrong.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::headers::{self, Answered};
use super::range::{self, Extent};
use super::remembered::Outline;
use super::wait::Wanted;
use super::{Ask, Problem, errors};
use crate::cache::{Found, Representation};
use crate::query::board::Since;
use crate::query::catalog::Readable;
use crate::query::sql::Lines;
use crate::query::{Failure, Freshness, Page};

impl Ask<'_> {
    /// 304, if the reader has the rows already.
    pub(super) async fn spared(
        &self,
        live: &Readable,
        fresh: &Freshness,
        wanted: &Wanted,
        outline: &Outline,
    ) -> Option<Response> {
        let tag = self.tag(live, fresh, &outline.shown)?;
        if !headers::matches(self.headers, &tag) {
            return None;
        }
        self.shared.cache.spared();
        let answered = self.answered(live, fresh, wanted).await;
        Some(answered.with(StatusCode::NOT_MODIFIED.into_response(), Some(&tag)))
    }

    /// The answer with rows that were found.
    pub(super) async fn found(
        &self,
        live: &Readable,
        found: &Found,
        wanted: &Wanted,
        outline: &Outline,
    ) -> Response {
        let answered = self.answered(live, &found.fresh, wanted).await;
        let tag = self.tag(live, &found.fresh, &outline.shown);
        let response = match self.status(outline, &found.page) {
            // Only now it is known that there is anything.
            Ok(_) if headers::matches_any(self.headers) => StatusCode::NOT_MODIFIED.into_response(),
            Ok(status) => (status, self.shown(outline, &found.page, &answered)).into_response(),
            Err(problem) => return answered.with(problem.into_response(), None),
        };
        answered.with(response, tag.as_deref())
    }

    fn is_single(&self) -> bool {
        self.key.is_some() || self.format.is_single
    }

    /// Which rows of how many a page has.
    fn extent(outline: &Outline, page: &Page) -> Extent {
        Extent {
            offset: outline.offset,
            count: page.count,
            total: page.total,
        }
    }

    /// Whether a page is what the reader wants to see.
    fn status(&self, outline: &Outline, page: &Page) -> Result<StatusCode, Problem> {
        match self.key {
            Some(key) if page.count != 1 => Err(errors::no_row(&self.model, key)),
            None if self.is_single() && page.count != 1 => Err(errors::not_one_row(page.count)),
            Some(_) => Ok(StatusCode::OK),
            None => Self::extent(outline, page).status(),
        }
    }

    /// Rows as the reader wants to see them: all of a page, or the only one on its own.
    fn shown(&self, outline: &Outline, page: &Page, answered: &Answered) -> Response {
        let body = &page.body;
        let body = match self.is_single() && self.format.lines != Lines::Csv {
            // The array's brackets are left out.
            true => body.slice(1..body.len() - 1),
            false => body.clone(),
        };
        let body = match self.preferences.metadata {
            true => answered.around(&body, page),
            false => body,
        };
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.format.content_type());
        if self.key.is_some() {
            return response;
        }
        let extent = Self::extent(outline, page);
        if extent.is_told() {
            headers.insert(header::CONTENT_RANGE, extent.header());
        }
        if let Some(next) = &page.next {
            let limit = self.range.and(Some(outline.limit));
            range::link(headers, self.uri, &self.parameters, limit, next);
        }
        response
    }

    /// The answer to a query that failed, with how fresh its read model is, if that can still be said.
    pub(super) async fn failed(
        &self,
        live: &Readable,
        wanted: &Wanted,
        failure: Failure,
    ) -> Response {
        let is_away = matches!(failure, Failure::Pool(_) | Failure::Database(_));
        let response = errors::failed(failure, &self.shared.limits).into_response();
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
    fn tag(&self, live: &Readable, fresh: &Freshness, shown: &Representation) -> Option<String> {
        let incarnation = fresh.incarnation.as_deref()?;
        // Metadata change without the rows: such an answer is the same only as far as the rows go.
        let (weak, form) = match (self.preferences.metadata, self.format.is_single) {
            (false, false) => ("", ""),
            (false, true) => ("", "o"),
            (true, false) => ("W/", "m"),
            (true, true) => ("W/", "om"),
        };
        let embedded = fresh.embedded.as_deref().map(|others| format!("-{others}"));
        Some(format!(
            "{weak}\"{incarnation}-{}-{}{}-{}{form}\"",
            live.generation,
            fresh.revision,
            embedded.unwrap_or_default(),
            shown.short()
        ))
    }
}
