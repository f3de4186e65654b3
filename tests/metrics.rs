//! `/metrics` is what Prometheus can read, and says what is so.

use std::collections::{BTreeMap, HashSet};

use gobo_tests::{Cluster, Database, Gobo, Options, wait_until};
use serde_json::json;

use crate::generations::{ask, bookings, generation, generations};
use crate::scene::{Event, Scene};

/// A sample: its labels and its value.
type Sample = (BTreeMap<String, String>, f64);

/// The families of a page: name -> type and samples. Fails where the text breaks the format's rules.
fn families(text: &str) -> BTreeMap<String, (String, Vec<Sample>)> {
    let mut families: BTreeMap<String, (String, Vec<Sample>)> = BTreeMap::new();
    let (mut helped, mut current) = (None, String::new());
    let mut series = HashSet::new();
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.'), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(helped.as_deref(), Some(name), "a type without help");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let before = families.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
            assert!(before.is_none(), "{name} comes twice");
            current = name.to_owned();
        } else {
            let (place, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(place.to_owned()), "{place} comes twice");
            let (name, labels) = match place.split_once('{') {
                None => (place, BTreeMap::new()),
                Some((name, rest)) => (name, labels(rest.strip_suffix('}').unwrap())),
            };
            assert_eq!(name, current, "a sample outside its family");
            let legal = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(
                name.starts_with("gobo_") && name.chars().all(legal),
                "{name}"
            );
            let samples = &mut families.get_mut(name).unwrap().1;
            samples.push((labels, value.parse().unwrap()));
        }
    }
    families
}

fn labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().expect("a label has an end") {
                (end, '"') => break end,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    c @ ('"' | '\\') => value.push(c),
                    c => panic!("\\{c} in {text}"),
                },
                (_, c) => value.push(c),
            }
        };
        assert!(
            labels.insert(name.to_owned(), value).is_none(),
            "{name} twice"
        );
        text = rest[end + 1..]
            .strip_prefix(',')
            .unwrap_or(&rest[end + 1..]);
    }
    assert_eq!(text, "");
    labels
}

fn scrape(gobo: &Gobo) -> BTreeMap<String, (String, Vec<Sample>)> {
    let answer = gobo.get("/metrics").expect(200);
    let kind = answer.header("content-type").unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    families(&answer.text())
}

/// The value of the one sample that has all of these labels.
fn value(
    page: &BTreeMap<String, (String, Vec<Sample>)>,
    name: &str,
    wanted: &[(&str, &str)],
) -> Option<f64> {
    let fits = |labels: &BTreeMap<String, String>| {
        let mut wanted = wanted.iter();
        wanted.all(|(label, value)| labels.get(*label).is_some_and(|found| found == value))
    };
    let samples = page.get(name)?.1.iter().filter(|(labels, _)| fits(labels));
    let found: Vec<f64> = samples.map(|(_, value)| *value).collect();
    assert!(found.len() <= 1, "{name} {wanted:?}: {found:?}");
    found.first().copied()
}

fn poison(stream: &str) -> Event {
    (
        stream.to_owned(),
        "Booked",
        json!({ "amount": 1, "fee": 9 }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_follow_the_format_and_tell_of_every_generation() {
    let scene = Scene::new(
        "[projections.ledger]\npolicy = \"park\"",
        &["ledger", "page-views"],
    )
    .await;
    let mut events = bookings(10, 10);
    events.push(poison("p"));
    let last = *scene.append(&events).await.last().unwrap();
    scene.wait_for("ledger", last);
    scene.gobo.get("/read/nothing").expect(404);
    let page = scrape(&scene.gobo);
    let live = scene.status("ledger")["generation"].to_string();
    let one = [("projection", "ledger"), ("generation", live.as_str())];
    let of = |name: &str| value(&page, name, &one);
    assert_eq!(of("gobo_generation_position"), Some(last as f64));
    assert_eq!(of("gobo_generation_head_position"), Some(last as f64));
    assert_eq!(of("gobo_generation_lag_seconds"), Some(0.0));
    assert_eq!(of("gobo_generation_dead_letters"), Some(1.0));
    assert_eq!(of("gobo_generation_diverged"), Some(0.0));
    assert!(of("gobo_generation_events_per_second").is_some());
    let info = [
        one[0],
        one[1],
        ("stage", "live"),
        ("purpose", "projection"),
        ("source", "gobo"),
    ];
    assert_eq!(value(&page, "gobo_generation_info", &info), Some(1.0));
    let state = |word| {
        value(
            &page,
            "gobo_generation_state",
            &[one[0], one[1], ("state", word)],
        )
    };
    assert_eq!((state("running"), state("stopped")), (Some(1.0), Some(0.0)));
    let source = [("source", "gobo")];
    assert_eq!(value(&page, "gobo_source_up", &source), Some(1.0));
    assert_eq!(
        value(&page, "gobo_source_head_position", &source),
        Some(last as f64)
    );
    assert_eq!(
        value(&page, "gobo_source_safe_position", &source),
        Some(last as f64)
    );
    let revision = scene.status("ledger")["read_models"][0]["revision"].as_f64();
    assert_eq!(
        value(
            &page,
            "gobo_read_model_revision",
            &[("read_model", "accounts")]
        ),
        revision
    );
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(value(&page, "gobo_build_info", &version), Some(1.0));
    assert_eq!(value(&page, "gobo_database_up", &[]), Some(1.0));
    let answers =
        |page: &_, class| value(page, "gobo_http_requests_total", &[("status", class)]).unwrap();
    let before = (answers(&page, "2xx"), answers(&page, "4xx"));
    assert!(before.1 >= 1.0);
    scene.gobo.get("/read/nothing").expect(404);
    let after = scrape(&scene.gobo);
    assert!(answers(&after, "2xx") > before.0);
    assert_eq!(answers(&after, "4xx"), before.1 + 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_has_a_progress_and_its_series_end_with_it() {
    let scene = Scene::new("", &["ledger"]).await;
    let last = *scene.append(&bookings(10, 10)).await.last().unwrap();
    scene.wait_for("ledger", last);
    assert!(!scrape(&scene.gobo).contains_key("gobo_rebuild_progress_ratio"));
    let begun = ask(&scene.gobo, "ledger", "rebuild", json!({ "hold": true }))
        .expect(202)
        .json();
    let number = generation(&begun).to_string();
    let one = [("projection", "ledger"), ("generation", number.as_str())];
    wait_until("the progress to be whole", || {
        match value(&scrape(&scene.gobo), "gobo_rebuild_progress_ratio", &one) {
            Some(1.0) => Ok(()),
            other => Err(other),
        }
    });
    ask(&scene.gobo, "ledger", "cancel", json!({})).expect(200);
    wait_until("the candidate's series to end", || {
        let page = scrape(&scene.gobo);
        match value(&page, "gobo_generation_position", &one) {
            None => Ok(()),
            Some(_) => Err(generations(&scene.gobo, "ledger")),
        }
    });
    assert!(!scrape(&scene.gobo).contains_key("gobo_rebuild_progress_ratio"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_tells_of_itself_while_its_database_is_away() {
    let mut cluster = Cluster::start(Options::ephemeral()).unwrap();
    let scene = Scene::over(Database::create_in(&cluster).await, "", &["ledger"]);
    cluster.kill().unwrap();
    wait_until("the database to be missed", || {
        let page = scrape(&scene.gobo);
        assert!(page.contains_key("gobo_build_info"));
        match value(&page, "gobo_database_up", &[]) {
            Some(0.0) => Ok(()),
            up => Err(up),
        }
    });
    assert!(!scrape(&scene.gobo).contains_key("gobo_generation_info"));
}
