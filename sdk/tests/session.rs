//! A batch on its way: need, rows, changes, failures, byte by byte.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use gobo_sdk::prelude::*;
use gobo_sdk::serde_json::{Value, json};
use gobo_sdk::testing::{event, event_text, given};
use gobo_sdk::{Batch, Failure, JsonObject, Session, Step, describe};

/// Not asked about in these tests; it only takes the first place.
#[derive(ReadModel, Clone)]
struct Other {
    #[key]
    id: i64,
}

/// Totals by name.
///
/// In two paragraphs,
/// the second of two lines.
#[derive(ReadModel, Clone)]
#[read_model(table = "totals", per_stream, index(total, name))]
struct Total {
    /// Whose total.
    #[key]
    name: String,
    total: i64,
}

#[payload]
struct Added<'e> {
    name: Cow<'e, str>,
    n: i64,
    #[serde(default)]
    from: Option<Cow<'e, str>>,
}

#[payload]
struct Named<'e> {
    name: Cow<'e, str>,
}

#[derive(Events)]
#[events(unknown = "ignore")]
enum Event<'e> {
    T,
    Added(Added<'e>),
    #[event(type = "total.moved")]
    Moved(Added<'e>),
    Removed(Named<'e>),
    Swallowed(Added<'e>),
    Renamed(Named<'e>),
    Spoiled(Named<'e>),
}

struct Totals;

fn add(rows: &mut Rows, name: &str, n: i64) -> Result {
    let new = || Total {
        name: name.to_owned(),
        total: 0,
    };
    rows.modify_or_insert::<Total, _>(name, new, |total| total.total += n)
}

impl Projection for Totals {
    type Event<'e> = Event<'e>;
    type ReadModels = (Other, Total);

    const UPCASTS: &'static [Upcast] = &[
        upcast("Added", 1, |data: &mut JsonObject| {
            data.rename("amount", "n");
            Ok(())
        }),
        upcast("Added", 2, |data| match data.get::<i64>("cents")? {
            Some(cents) => data.set("n", cents / 100),
            None => Ok(()),
        }),
    ];

    fn handle(event: &Event<'_>, at: &Meta<'_>, rows: &mut Rows) -> Result {
        info!("{} {}", at.event_type, at.position);
        match event {
            Event::T => Ok(()),
            Event::Added(added) => add(rows, &added.name, added.n),
            Event::Moved(moved) => {
                let from = moved.from.as_deref().unwrap_or_default();
                rows.modify::<Total, _>(from, |total| total.total -= moved.n)?;
                ensure!(
                    rows.get::<Total>(from)?.is_some_and(|from| from.total >= 0),
                    "{from} has too little"
                );
                add(rows, &moved.name, moved.n)
            }
            Event::Removed(removed) => {
                rows.delete::<Total>(&removed.name);
                Ok(())
            }
            Event::Swallowed(added) => {
                let known = rows.exists::<Total>(&added.name).unwrap_or(false);
                rows.upsert(Total {
                    name: format!("{} was known: {known}", added.name),
                    total: 0,
                });
                Ok(())
            }
            Event::Renamed(named) => {
                rows.modify::<Total, _>(&named.name, |total| total.name.push('2'))
            }
            Event::Spoiled(named) => {
                rows.upsert(Total {
                    name: format!("{}\0", named.name),
                    total: 0,
                });
                Ok(())
            }
        }
    }
}

export!(Totals, name = "totals");

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

fn batch(events: &[(&str, &str)]) -> Batch {
    let mut bytes = Vec::new();
    for (position, (event_type, data)) in (7_i64..).zip(events) {
        bytes.extend(hex("0009 00000008"));
        bytes.extend(position.to_be_bytes());
        bytes.extend(hex("00000001 73 00000008 0000000000000000"));
        for field in [event_type, data] {
            bytes.extend((field.len() as i32).to_be_bytes());
            bytes.extend(field.as_bytes());
        }
        bytes.extend(hex("ffffffff 00000010 00000000000000000000000000000001"));
        bytes.extend(hex("00000008 0000000000000001 00000008 0000000000000001"));
    }
    Batch::new(bytes, Totals::UPCASTS).unwrap()
}

fn messages(session: &mut Session<'_, Totals>) -> Vec<String> {
    session
        .take_log()
        .into_iter()
        .map(|line| line.message)
        .collect()
}

#[test]
fn the_documented_batch_needs_nothing_and_changes_nothing() {
    let batch = batch(&[("T", "{}")]);
    assert_eq!(
        Session::<Totals>::new(&batch).unwrap().begin(),
        Ok(Step::Done(Vec::new()))
    );
}

#[test]
fn needs_rows_and_changes_are_the_documented_bytes() {
    let batch = batch(&[
        ("Added", r#"{"name":"a","n":1}"#),
        ("T", "{}"),
        ("Removed", r#"{"name":"b"}"#),
    ]);
    let mut session = Session::<Totals>::new(&batch).unwrap();
    assert_eq!(
        session.begin(),
        Ok(Step::Need(hex("0002 00000002 0001 00000001 61")))
    );
    let row = hex("0002 00000001 61 00000008 0000000000000005");
    let changes =
        "0005 00000004 00000000 00000002 0001 00000002 0000 00000001 61 00000008 0000000000000006
                   0004 00000004 00000002 00000002 0001 00000002 0001 00000001 62";
    assert_eq!(session.resume(row), Ok(Step::Done(hex(changes))));
}

#[test]
fn an_event_that_met_a_missing_row_runs_again_in_its_place() {
    // The second event sees a total that lacks what the first one moves there; nothing of that run may stay.
    let batch = batch(&[
        ("total.moved", r#"{"from":"a","name":"b","n":5}"#),
        ("total.moved", r#"{"from":"b","name":"c","n":7}"#),
    ]);
    let mut session = Session::<Totals>::new(&batch).unwrap();
    assert_eq!(
        session.begin(),
        Ok(Step::Need(hex(
            "0002 00000002 0001 00000001 61 0002 00000002 0001 00000001 62"
        )))
    );
    let rows =
        "0002 00000001 61 00000008 0000000000000005 0002 00000001 62 00000008 0000000000000002";
    assert_eq!(
        session.resume(hex(rows)),
        Ok(Step::Need(hex("0002 00000002 0001 00000001 63")))
    );
    let changes = "0005 00000004 00000000 00000002 0001 00000002 0000 00000001 61 00000008 0000000000000000
                   0005 00000004 00000001 00000002 0001 00000002 0000 00000001 62 00000008 0000000000000000
                   0005 00000004 00000001 00000002 0001 00000002 0000 00000001 63 00000008 0000000000000007";
    assert_eq!(session.resume(hex("0000")), Ok(Step::Done(hex(changes))));
    assert_eq!(messages(&mut session), ["total.moved 7", "total.moved 8"]);
}

#[test]
fn a_missing_row_is_fetched_even_if_the_handler_hides_it() {
    let batch = batch(&[("Swallowed", r#"{"name":"a","n":1}"#)]);
    let mut session = Session::<Totals>::new(&batch).unwrap();
    assert_eq!(
        session.begin(),
        Ok(Step::Need(hex("0002 00000002 0001 00000001 61")))
    );
    let Ok(Step::Done(changes)) = session.resume(hex("0000")) else {
        panic!("not done")
    };
    assert!(String::from_utf8_lossy(&changes).contains("a was known: false"));
    assert!(!String::from_utf8_lossy(&changes).contains("a was known: true"));
    assert_eq!(messages(&mut session), ["Swallowed 7"]);
}

#[test]
fn changes_are_the_last_of_every_key_in_the_order_of_their_events() {
    given::<Totals>([
        event("Added", json!({"name": "b", "n": 1})),
        event("Added", json!({"name": "a", "n": 1})),
        event("Removed", json!({"name": "b"})),
        event("Added", json!({"name": "b", "n": 5})),
        event("Removed", json!({"name": "a"})),
    ])
    .expect([Total {
        name: "b".into(),
        total: 5,
    }]);
}

#[test]
fn the_first_event_at_fault_is_named() {
    let batch = batch(&[
        ("T", "{}"),
        ("Renamed", r#"{"name":"a"}"#),
        ("Added", "{\"name\":1}"),
    ]);
    let mut session = Session::<Totals>::new(&batch).unwrap();
    assert!(matches!(session.begin(), Ok(Step::Need(_))));
    let message = "Renamed at position 8 (stream s, version 0): no row in read model `totals` with name = \"a\"";
    assert_eq!(
        session.resume(hex("0000")),
        Err(Failure {
            event: 1,
            message: message.into()
        })
    );
    assert_eq!(messages(&mut session), ["T 7", "Renamed 8"]);
}

#[test]
fn an_event_that_does_not_fit_names_the_place_in_its_data() {
    let batch = batch(&[("T", "{}"), ("Added", "{\"name\":1}")]);
    let failure = Session::<Totals>::new(&batch).unwrap().begin().unwrap_err();
    assert_eq!(failure.event, 1);
    assert_eq!(
        failure.message,
        "Added at position 8 (stream s, version 0): its data does not fit: \
         invalid type: integer `1`, expected a string at line 1 column 9"
    );
}

#[test]
fn a_row_whose_key_is_changed_is_refused() {
    given::<Totals>([
        event("Added", json!({"name": "a", "n": 1})),
        event("Renamed", json!({"name": "a"})),
    ])
    .expect_error("the row with name = \"a\" came back with name = \"a2\"");
}

#[test]
fn a_row_that_cannot_be_stored_is_refused_when_it_is_written() {
    given::<Totals>([
        event("Spoiled", json!({"name": "a"})),
        event("Removed", json!({"name": "a\0"})),
    ])
    .expect_error("column `name`: PostgreSQL cannot store U+0000 in text");
}

#[test]
fn older_events_are_brought_to_the_newest_shape_digit_for_digit() {
    given::<Totals>([
        event("Added", json!({"name": "a", "amount": 1})),
        event_text("Added", r#"{"name": "a", "cents": 900719925474099300}"#)
            .metadata(json!({"schema_version": 2})),
        event("Added", json!({"name": "a", "n": 1})).metadata(json!({"schema_version": 3})),
    ])
    .expect([Total {
        name: "a".into(),
        total: 9_007_199_254_740_995,
    }]);
}

#[test]
fn frames_that_are_not_as_documented_are_refused() {
    for frame in ["00", "0009", "0008 ffffffff", "0001 00000004 00", "fffe"] {
        let batch = Batch::new(hex(frame), &[]).unwrap();
        assert!(Session::<Totals>::new(&batch).is_err(), "{frame}");
    }
    let batch = batch(&[("Added", r#"{"name":"a","n":1}"#)]);
    for rows in [
        "",
        "0001 00000001 61",
        "0000 0000",
        "0002 00000001 61 00000004 00000000",
        "0002 00000001 61 ffffffff",
    ] {
        let mut session = Session::<Totals>::new(&batch).unwrap();
        session.begin().unwrap();
        assert!(session.resume(hex(rows)).is_err(), "{rows}");
    }
}

#[test]
fn the_descriptor_says_what_the_types_say() {
    let descriptor: Value = gobo_sdk::serde_json::from_str(&describe::<Totals>()).unwrap();
    let expected = json!({
        "descriptor": 1,
        "name": "totals",
        "version": env!("CARGO_PKG_VERSION"),
        "sdk": concat!("gobo-sdk ", env!("CARGO_PKG_VERSION")),
        "event_types": ["T", "Added", "total.moved", "Removed", "Swallowed", "Renamed", "Spoiled"],
        "on_change": "rebuild",
        "read_models": [
            {
                "name": "other",
                "comment": "Not asked about in these tests; it only takes the first place.",
                "per_stream": false,
                "columns": [{"name": "id", "type": "int8", "nullable": false}],
                "key": ["id"],
                "indexes": [],
            },
            {
                "name": "totals",
                "comment": "Totals by name.\nIn two paragraphs, the second of two lines.",
                "per_stream": true,
                "columns": [
                    {"name": "name", "type": "text", "nullable": false, "comment": "Whose total."},
                    {"name": "total", "type": "int8", "nullable": false},
                ],
                "key": ["name"],
                "indexes": [{"columns": ["total", "name"]}],
            },
        ],
    });
    assert_eq!(descriptor, expected);
}
