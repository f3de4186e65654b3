//! How often each page is viewed.

use gobo_sdk::prelude::*;

/// One row per page.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "page_views", index(views))]
struct PageViews {
    /// The page's path.
    #[key]
    page: String,
    /// How often it was viewed.
    views: i64,
    /// When it was viewed last.
    last_viewed_at: Timestamp,
}

#[payload]
struct Viewed<'e> {
    page: Cow<'e, str>,
}

#[derive(Events)]
#[events(unknown = "ignore")]
enum Event<'e> {
    PageViewed(Viewed<'e>),
}

struct Pages;

impl Projection for Pages {
    type Event<'e> = Event<'e>;
    type ReadModels = PageViews;

    fn handle(event: &Event<'_>, at: &Meta<'_>, rows: &mut Rows) -> Result {
        let Event::PageViewed(viewed) = event;
        rows.modify_or_insert::<PageViews, _>(
            &viewed.page,
            || PageViews {
                page: viewed.page.to_string(),
                views: 0,
                last_viewed_at: at.occurred_at,
            },
            |row| {
                row.views += 1;
                row.last_viewed_at = at.occurred_at;
            },
        )?;
        Ok(())
    }
}

export!(Pages);

#[cfg(test)]
mod tests {
    use super::*;
    use gobo_sdk::testing::{event, given};
    use serde_json::json;

    #[test]
    fn views_are_counted_per_page() {
        given::<Pages>([
            event("PageViewed", json!({"page": "/"}))
                .stream("visit-1")
                .at("2026-01-01T10:00:00Z"),
            event("PageViewed", json!({"page": "/"}))
                .stream("visit-2")
                .at("2026-01-01T10:05:00Z"),
        ])
        .expect([PageViews {
            page: "/".into(),
            views: 2,
            last_viewed_at: "2026-01-01T10:05:00Z".parse().unwrap(),
        }]);
    }
}
