//! Which rows of how many: ranges, counts, and what else a reader may prefer.

use super::bench::{Answer, Bench, PATIENT, model};
use gobo::query::Limits;

async fn numbers() -> Bench {
    let limits = Limits {
        rows: 50,
        ..Limits::default()
    };
    let bench = Bench::with(limits, PATIENT).await;
    bench
        .deploy(1, &model("numbers", "n int4, even bool", &["n"]))
        .await;
    bench
        .sql("insert into gobo_g1.numbers select i, i % 2 = 0 from generate_series(0, 99) i; analyze gobo_g1.numbers")
        .await;
    bench
}

async fn ask(bench: &Bench, query: &str, headers: &[(&str, &str)]) -> Answer {
    bench
        .send(
            "GET",
            &format!("/read/numbers?order=n&select=n&{query}"),
            headers,
        )
        .await
}

/// The first and last number of an answer.
fn ends(answer: &Answer) -> Option<(i64, i64)> {
    let rows = answer.json();
    let number = |row: Option<&serde_json::Value>| row?["n"].as_i64();
    let rows = rows.as_array().unwrap();
    Some((number(rows.first())?, number(rows.last())?))
}

#[tokio::test]
async fn a_range_of_items_is_answered() {
    let bench = numbers().await;
    for (query, range, status, content, expected) in [
        ("", "0-9", 200, "0-9/*", Some((0, 9))),
        ("", "10-19", 200, "10-19/*", Some((10, 19))),
        ("", "95-", 200, "95-99/*", Some((95, 99))),
        ("", "90-120", 200, "90-99/*", Some((90, 99))),
        // The row limit holds.
        ("", "0-99", 200, "0-49/*", Some((0, 49))),
        // Both hold.
        ("limit=5", "10-19", 416, "", None),
        ("limit=15", "10-19", 200, "10-14/*", Some((10, 14))),
        ("offset=15", "10-19", 200, "15-19/*", Some((15, 19))),
        ("offset=12&limit=4", "10-", 200, "12-15/*", Some((12, 15))),
        ("limit=0", "10-19", 200, "*/*", None),
        ("", "100-109", 200, "*/*", None),
        ("", "9-0", 416, "", None),
        // No range.
        ("limit=3", "bytes=10-19", 200, "0-2/*", Some((0, 2))),
    ] {
        let headers = [("range-unit", "items"), ("range", range)];
        let answer = ask(&bench, query, &headers).await;
        assert_eq!(answer.status, status, "{query} {range}: {}", answer.body);
        assert_eq!(answer.header("content-range"), content, "{query} {range}");
        match status {
            416 => assert_eq!(answer.code(), "PGRST103"),
            _ => assert_eq!(ends(&answer), expected, "{query} {range}"),
        }
    }
    // HTTP has ranges for GET alone.
    let head = bench
        .send("HEAD", "/read/numbers", &[("range", "10-19")])
        .await;
    assert_eq!(head.header("content-range"), "0-49/*");
}

#[tokio::test]
async fn the_next_page_of_a_range_is_as_long_as_the_range() {
    let bench = numbers().await;
    let first = ask(&bench, "", &[("range", "10-14")]).await;
    let link = first.header("link").to_owned();
    let next = bench.get(&link[1..link.find('>').unwrap()]).await;
    assert_eq!(ends(&next), Some((15, 19)), "{link}");
}

#[tokio::test]
async fn rows_are_counted_as_preferred() {
    let bench = numbers().await;
    let count = |how: &str| format!("count={how}");
    for (query, how, status, content) in [
        ("", "exact", 206, "0-49/100"),
        ("limit=10&offset=20", "exact", 206, "20-29/100"),
        ("n=lt.10", "exact", 200, "0-9/10"),
        ("even=is.true&limit=5", "exact", 206, "0-4/50"),
        ("n=lt.0", "exact", 200, "*/0"),
        ("limit=0", "exact", 206, "*/100"),
        ("offset=100", "exact", 206, "*/100"),
        ("offset=101", "exact", 416, "*/100"),
        ("limit=0&offset=101", "exact", 206, "*/100"),
        ("", "planned", 206, "0-49/100"),
        ("even=is.true", "planned", 200, "0-49/50"),
        // Up to the row limit one by one, and beyond it as the planner thinks.
        ("n=lt.10", "estimated", 200, "0-9/10"),
        ("", "estimated", 206, "0-49/100"),
    ] {
        let prefer = count(how);
        let answer = ask(&bench, query, &[("prefer", &prefer)]).await;
        assert_eq!(answer.status, status, "{query} {how}: {}", answer.body);
        assert_eq!(answer.header("content-range"), content, "{query} {how}");
        assert_eq!(answer.header("preference-applied"), prefer);
    }
    let beyond = ask(&bench, "offset=101", &[("prefer", "count=exact")]).await;
    let problem = beyond.json();
    assert_eq!(problem["code"], "PGRST103");
    assert_eq!(
        problem["details"],
        "An offset of 101 was requested, but there are only 100 rows."
    );
    // Without a count nobody knows that it is beyond.
    assert_eq!(ask(&bench, "offset=101", &[]).await.status, 200);
}

#[tokio::test]
async fn an_estimate_is_the_planner_s_and_never_less_than_what_is_seen() {
    let bench = numbers().await;
    bench
        .sql("insert into gobo_g1.numbers select i, false from generate_series(100, 199) i")
        .await;
    let total = async |query: &str, how: &str| {
        let prefer = format!("count={how}");
        let answer = ask(&bench, query, &[("prefer", &prefer)]).await;
        let content = answer.header("content-range").to_owned();
        let (_, total) = content.split_once('/').unwrap();
        total.parse::<u64>().unwrap()
    };
    assert_eq!(total("", "exact").await, 200);
    // Statistics that are old are the planner's all the same.
    let planned = total("n=gte.150", "planned").await;
    assert!(planned < 100, "{planned}");
    assert_eq!(total("n=lt.40", "estimated").await, 40);
    assert!(total("offset=180", "planned").await >= 200);
}

#[tokio::test]
async fn a_page_after_a_cursor_tells_how_many_there_are_in_all() {
    let bench = numbers().await;
    let exact = [("prefer", "count=exact")];
    let first = ask(&bench, "limit=10", &exact).await;
    let cursor = first.header("gobo-next-cursor").to_owned();
    let next = ask(&bench, &format!("limit=10&cursor={cursor}"), &exact).await;
    assert_eq!(ends(&next), Some((10, 19)));
    assert_eq!(
        (next.status.as_u16(), next.header("content-range")),
        (206, "*/100")
    );
}

#[tokio::test]
async fn count_and_rows_are_of_one_snapshot() {
    let bench = numbers().await;
    let writer = async {
        for n in 100..250 {
            let sql = format!(
                "delete from gobo_g1.numbers; insert into gobo_g1.numbers select i, true from generate_series(1, {}) i",
                n % 40
            );
            bench.sql(&format!("begin; {sql}; commit")).await;
        }
    };
    let reader = async {
        for _ in 0..150 {
            let answer = ask(&bench, "", &[("prefer", "count=exact")]).await;
            let seen = answer.json().as_array().unwrap().len();
            let content = answer.header("content-range").to_owned();
            if seen < 50 {
                assert!(content.ends_with(&format!("/{seen}")), "{seen} {content}");
            }
        }
    };
    tokio::join!(writer, reader);
}

#[tokio::test]
async fn preferences_may_come_in_several_headers_and_unknown_ones_are_refused_when_handling_is_strict()
 {
    let bench = numbers().await;
    let headers = [
        ("prefer", "handling=lenient, foo=bar"),
        ("prefer", "count=exact"),
    ];
    let lenient = ask(&bench, "limit=1", &headers).await;
    assert_eq!(lenient.header("content-range"), "0-0/100");
    assert_eq!(
        lenient.header("preference-applied"),
        "count=exact, handling=lenient"
    );
    let headers = [
        ("prefer", "handling=strict, foo=bar"),
        ("prefer", "count=all"),
    ];
    let strict = ask(&bench, "limit=1", &headers).await;
    assert_eq!(
        (strict.status.as_u16(), strict.code().as_str()),
        (400, "PGRST122")
    );
    assert_eq!(
        strict.json()["details"],
        "Invalid preferences: foo=bar, count=all"
    );
    let strict = [(
        "prefer",
        "handling=strict, count=planned, return=representation",
    )];
    let strict = ask(&bench, "limit=1", &strict).await;
    assert_eq!(
        (strict.status.as_u16(), strict.header("preference-applied")),
        (206, "count=planned, handling=strict")
    );
}
