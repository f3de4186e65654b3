//! What is answered once, and cannot be followed.

use serde_json::Value;

use super::follow::Stream;
use crate::clients::library;

/// A request, and what of it is refused to those who follow.
struct Once {
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    refused: &'static str,
}

fn once(path: &str, refused: &'static str) -> Once {
    Once {
        path: path.to_owned(),
        headers: Vec::new(),
        refused,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_once_but_cannot_be_followed_is_refused_in_every_manner() {
    let scene = library().await;
    let page = scene.gobo.get("/read/books?order=id&limit=1").expect(200);
    let cursor = page.header("gobo-next-cursor").unwrap();
    let (embed, functions) = ("an embedded read model", "functions over rows");
    let (pages, headers) = ("limit, offset and Range", |more| vec![more]);
    let mut all = vec![
        once("/read/books?select=title,authors(name)", embed),
        once("/read/books?select=title,...authors(name)", embed),
        once("/read/books?select=title,authors!inner(name)", embed),
        once("/read/books?authors.name=eq.x&select=authors(name)", embed),
        once(
            "/read/books?select=title,authors()&authors=not.is.null",
            embed,
        ),
        once("/read/authors?select=name,books(title)", embed),
        once("/read/authors?select=name,books(count())", embed),
        once("/read/books/1?select=title,authors(name)", embed),
        once("/read/books?select=count()", functions),
        once("/read/books?select=author_id,pages.max()", functions),
        once("/read/books?order=id&limit=1", pages),
        once("/read/books?order=id&offset=1", pages),
        once(&format!("/read/books?order=id&cursor={cursor}"), "cursor"),
    ];
    all.push(Once {
        headers: headers(("range", "0-1")),
        ..once("/read/books?order=id", pages)
    });
    all.push(Once {
        headers: headers(("accept", "text/csv")),
        ..once("/read/books?order=id", "text/csv")
    });
    for Once {
        path,
        headers,
        refused,
    } in all
    {
        scene.gobo.request("GET", &path, &headers, b"").expect(200);
        for manner in ["rows", "changes", "poll"] {
            let joint = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{joint}live={manner}");
            let stream = Stream::open_with(scene.gobo.url(), &path, &headers);
            assert_eq!(stream.status, 400, "{path}");
            let problem: Value = serde_json::from_str(&stream.rest()).unwrap();
            assert_eq!(problem["reason"], "unsupported_parameter", "{path}");
            let message = problem["message"].as_str().unwrap();
            let expected = format!("{refused} cannot be had live: ");
            assert!(message.starts_with(&expected), "{path}: {message}");
        }
    }
}
