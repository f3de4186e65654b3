//! Which rows of all: `Range` and `Range-Unit` from a reader, `Content-Range`, the status and the link to the next page
//! for it.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use super::Problem;
use crate::query::parse::Request;
use crate::query::scan::Parameter;

/// Rows from the first to the last one, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Items {
    first: u64,
    last: Option<u64>,
}

impl Items {
    /// `Range: 0-9` or `10-`, of the unit `items`. Other units, and what is no range, are passed over, as RFC 9110 has
    /// it; so is a range with any other method than GET.
    pub(super) fn requested(method: &Method, headers: &HeaderMap) -> Option<Self> {
        let unit = headers.get(HeaderName::from_static("range-unit"));
        if method != Method::GET || unit.is_some_and(|unit| unit != "items") {
            return None;
        }
        let text = headers.get(header::RANGE)?.to_str().ok()?.trim();
        let (first, last) = text
            .strip_prefix("items=")
            .unwrap_or(text)
            .split_once('-')?;
        let number = |text: &str| -> Option<u64> {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            // No table has more rows, whatever is asked for.
            digits.then(|| text.parse().unwrap_or(u64::MAX).min(i64::MAX as u64))
        };
        Some(Self {
            first: number(first)?,
            last: match last {
                "" => None,
                last => Some(number(last)?),
            },
        })
    }

    /// Cuts what the query asks for to these rows: the ones that are both in the range and within `limit` and `offset`.
    pub(super) fn narrow(self, request: &mut Request) -> Result<(), Problem> {
        if self.last.is_some_and(|last| last < self.first) {
            return Err(nothing(
                "The lower boundary must be lower than or equal to the upper boundary in the Range header.",
            ));
        }
        let offset = request.offset.unsigned_abs();
        let first = self.first.max(offset);
        let within = match request.limit {
            None => None,
            Some(0) => return Ok(()),
            Some(limit) => Some(offset.saturating_add(limit - 1)),
        };
        let last = match (self.last, within) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if last.is_some_and(|last| last < first) {
            return Err(nothing(
                "The Range header and the limit and offset of the query have no row in common.",
            ));
        }
        request.offset = i64::try_from(first).unwrap_or(i64::MAX);
        request.limit = last.map(|last| (last - first).saturating_add(1));
        Ok(())
    }
}

/// The rows of an answer among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// How many come before; after a cursor, nobody knows.
    pub(super) offset: Option<u64>,
    /// How many there are here.
    pub(super) count: u64,
    /// How many there are in all, where that was asked for.
    pub(super) total: Option<u64>,
}

impl Extent {
    /// 206 when there are more rows than these; a problem when they would begin behind the last one.
    pub(super) fn status(self) -> Result<StatusCode, Problem> {
        match (self.total, self.offset) {
            (Some(total), Some(offset)) if offset > total && self.count == 0 => Err(nothing(
                &format!("An offset of {offset} was requested, but there are only {total} rows."),
            )
            .with_header(header::CONTENT_RANGE, self.header())),
            (Some(total), _) if self.count < total => Ok(StatusCode::PARTIAL_CONTENT),
            _ => Ok(StatusCode::OK),
        }
    }

    /// Whether there is anything to say.
    pub(super) fn is_told(self) -> bool {
        self.offset.is_some() || self.total.is_some()
    }

    /// `0-9/100`, or `*` for what is unknown or empty.
    pub(super) fn header(self) -> HeaderValue {
        let rows = match self.offset {
            Some(offset) if self.count > 0 && self.total != Some(0) => {
                format!("{offset}-{}", offset + self.count - 1)
            }
            _ => "*".to_owned(),
        };
        let total = self.total.map_or("*".to_owned(), |total| total.to_string());
        // Digits, dashes, stars.
        HeaderValue::try_from(format!("{rows}/{total}")).unwrap_or(HeaderValue::from_static("*/*"))
    }
}

fn nothing(details: &str) -> Problem {
    Problem::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "range_not_satisfiable",
        "Requested range not satisfiable",
    )
    .with_details(details.into())
    .with_hint("ask for rows that there are: Range: 0-9, or limit=10&offset=0")
}

/// Says where the next page is. `limit` is how many rows a page has, if the query itself does not say it.
pub(super) fn link(
    headers: &mut HeaderMap,
    uri: &Uri,
    parameters: &[Parameter<'_>],
    limit: Option<u64>,
    next: &str,
) {
    let left_out = |name: &str| match name {
        "cursor" | "offset" => true,
        "limit" => limit.is_some(),
        _ => false,
    };
    let kept = parameters.iter().filter(|p| !left_out(&p.name));
    let mut query: Vec<String> = kept.map(|parameter| parameter.raw.to_owned()).collect();
    query.extend(limit.map(|limit| format!("limit={limit}")));
    query.push(format!("cursor={next}"));
    let link = format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"));
    for (name, value) in [
        (header::LINK, link.as_str()),
        (HeaderName::from_static("gobo-next-cursor"), next),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowed(
        range: &'static str,
        limit: Option<u64>,
        offset: i64,
    ) -> Option<(i64, Option<u64>)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static(range));
        let mut request = Request {
            limit,
            offset,
            ..Request::default()
        };
        if let Some(items) = Items::requested(&Method::GET, &headers) {
            items.narrow(&mut request).ok()?;
        }
        Some((request.offset, request.limit))
    }

    #[test]
    fn a_range_and_limit_and_offset_hold_together() {
        for (range, limit, offset, expected) in [
            ("0-9", None, 0, Some((0, Some(10)))),
            ("items=5-9", None, 0, Some((5, Some(5)))),
            ("5-", None, 0, Some((5, None))),
            ("0-9", Some(3), 0, Some((0, Some(3)))),
            ("0-9", Some(100), 5, Some((5, Some(5)))),
            ("3-", Some(5), 1, Some((3, Some(3)))),
            ("0-9", None, 4, Some((4, Some(6)))),
            ("0-9", Some(0), 7, Some((7, Some(0)))),
            ("9-0", None, 0, None),
            ("0-4", Some(5), 5, None),
            ("0-4", None, 5, None),
            ("99999999999999999999999-", None, 0, Some((i64::MAX, None))),
            // No ranges.
            ("bytes=0-9", None, 2, Some((2, None))),
            ("a-b", None, 2, Some((2, None))),
            ("-5", None, 2, Some((2, None))),
            ("0-9,20-29", None, 2, Some((2, None))),
            ("0--1", None, 2, Some((2, None))),
        ] {
            assert_eq!(
                narrowed(range, limit, offset),
                expected,
                "{range} {limit:?} {offset}"
            );
        }
    }

    #[test]
    fn other_units_and_methods_have_no_range() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("0-9"));
        assert!(Items::requested(&Method::GET, &headers).is_some());
        assert!(Items::requested(&Method::HEAD, &headers).is_none());
        headers.insert("range-unit", HeaderValue::from_static("items"));
        assert!(Items::requested(&Method::GET, &headers).is_some());
        headers.insert("range-unit", HeaderValue::from_static("bytes"));
        assert!(Items::requested(&Method::GET, &headers).is_none());
    }

    #[test]
    fn an_extent_says_what_is_known() {
        for (offset, count, total, status, header) in [
            (Some(0), 10, None, 200, "0-9/*"),
            (Some(0), 10, Some(100), 206, "0-9/100"),
            (Some(90), 10, Some(100), 206, "90-99/100"),
            (Some(0), 100, Some(100), 200, "0-99/100"),
            (Some(0), 0, None, 200, "*/*"),
            (Some(0), 0, Some(0), 200, "*/0"),
            (Some(100), 0, Some(100), 206, "*/100"),
            (Some(101), 0, Some(100), 416, "*/100"),
            (Some(1), 0, Some(0), 416, "*/0"),
            (None, 5, Some(100), 206, "*/100"),
            (None, 5, None, 200, "*/*"),
        ] {
            let extent = Extent {
                offset,
                count,
                total,
            };
            let found = extent.status().unwrap_or_else(|p| p.status());
            assert_eq!(found.as_u16(), status, "{extent:?}");
            assert_eq!(extent.header(), header, "{extent:?}");
        }
    }
}
