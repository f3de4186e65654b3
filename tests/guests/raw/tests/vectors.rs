//! The guest without the SDK passes the test vectors of sdk/wit/FRAMES.md.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use raw_guest::frame::{hex, read};
use raw_guest::model;
use raw_guest::run::{Run, Step, write_change};

const EVENT: &str =
    "0009 00000008 0000000000000007 00000001 73 00000008 0000000000000000 00000001 54";
const REST: &str = "ffffffff 00000010 00000000000000000000000000000001
    00000008 0000000000000001 00000008 0000000000000001";

fn bytes(text: &str) -> Vec<u8> {
    hex(text).unwrap()
}

fn batch(events: &[&str]) -> Vec<u8> {
    let mut batch = Vec::new();
    for data in events {
        batch.extend(bytes(EVENT));
        batch.extend((data.len() as i32).to_be_bytes());
        batch.extend(data.as_bytes());
        batch.extend(bytes(REST));
    }
    batch
}

#[test]
fn the_batch_of_the_documentation_is_read() {
    let tuples = read(&batch(&["{}"])).unwrap();
    assert_eq!(tuples.len(), 1);
    assert_eq!(tuples[0][4].as_deref(), Some(b"{}".as_slice()));
    assert_eq!(tuples[0][5], None);
}

#[test]
fn needs_and_rows_and_changes_are_those_of_the_documentation() {
    let events = batch(&[r#"{"do":"add","id":"a","n":6}"#]);
    let (mut run, step) = Run::begin(&events).unwrap();
    assert_eq!(step, Step::Need(bytes("0002 00000002 0000 00000001 61")));
    let Step::Done(changes) = run.resume(&bytes("0000")).unwrap() else {
        panic!("asked again")
    };
    let row = read(&changes).unwrap().remove(0);
    assert_eq!(row[3].as_deref(), Some(b"a".as_slice()));
    assert_eq!(
        row[3 + model::place("c_int8").unwrap()].as_deref(),
        Some([0, 0, 0, 0, 0, 0, 0, 6].as_slice())
    );
}

#[test]
fn changes_are_written_as_documented() {
    let mut changes = Vec::new();
    write_change(
        &mut changes,
        0,
        1,
        0,
        &[Some(b"a".to_vec()), Some(6_i64.to_be_bytes().to_vec())],
    );
    write_change(&mut changes, 2, 1, 1, &[Some(b"a".to_vec())]);
    let expected =
        "0005 00000004 00000000 00000002 0001 00000002 0000 00000001 61 00000008 0000000000000006
                    0004 00000004 00000002 00000002 0001 00000002 0001 00000001 61";
    assert_eq!(changes, bytes(expected));
}

#[test]
fn later_events_see_what_earlier_ones_wrote() {
    let add = r#"{"do":"pair","a":"x","b":1,"n":5}"#;
    let (mut run, _) = Run::begin(&batch(&[add, add])).unwrap();
    let row = "0003 00000001 78 00000004 00000001 00000008 0000000000000001";
    let Step::Done(changes) = run.resume(&bytes(&format!("{row} {row}"))).unwrap() else {
        panic!("asked again")
    };
    let changes = read(&changes).unwrap();
    assert_eq!(
        changes[1][5].as_deref(),
        Some([0, 0, 0, 0, 0, 0, 0, 11].as_slice())
    );
}

#[test]
fn every_sample_value_is_hexadecimal_and_has_its_text() {
    let row = model::sample("a").unwrap();
    assert_eq!(row.len(), model::SAMPLE_TEXT.len() + 1);
    assert!(row.iter().all(Option::is_some));
}
