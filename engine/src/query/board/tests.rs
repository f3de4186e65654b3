//! What is seen never goes back.

use super::*;

fn state(incarnation: &str, position: i64, revision: i64) -> Arc<Freshness> {
    Arc::new(Freshness {
        position,
        incarnation: Some(incarnation.to_owned()),
        revision,
        embedded: None,
        dead_letters: 0,
        dead_positions: Vec::new(),
    })
}

fn began(start: Instant, ms: u64, moves: u64) -> Began {
    Began {
        at: start + Duration::from_millis(ms),
        moves,
    }
}

#[test]
fn the_later_state_stays_whichever_look_ends_first() {
    let (slot, start) = (Slot::default(), Instant::now());
    let saw = |ms, position, revision| {
        let seen = slot.saw(began(start, ms, 0), state("a", position, revision));
        (seen.position, seen.revision)
    };
    assert_eq!(saw(10, 5, 1), (5, 1));
    assert_eq!(saw(0, 7, 2), (7, 2), "a slow look may have seen more");
    assert_eq!(saw(20, 6, 1), (7, 2), "and a quick one less");
    assert_eq!(
        saw(20, 7, 3),
        (7, 3),
        "a late retry moves the revision only"
    );
    assert_eq!(saw(20, 8, 3), (8, 3));
}

#[test]
fn a_state_counts_as_seen_when_the_last_look_began_that_did_not_see_less() {
    let (slot, start) = (Slot::default(), Instant::now());
    let after = |ms| start + Duration::from_millis(ms);
    slot.saw(began(start, 0, 1), state("a", 7, 2));
    assert!(slot.found(after(1), None).is_none());
    slot.saw(began(start, 10, 2), state("a", 6, 1));
    assert_eq!(slot.found(after(10), Some(2)).unwrap().position, 7);
    assert!(slot.found(after(11), None).is_none());
    assert!(
        slot.found(after(10), Some(3)).is_none(),
        "it has moved since"
    );
}

#[test]
fn another_incarnation_is_another_history() {
    let (slot, start) = (Slot::default(), Instant::now());
    slot.saw(began(start, 10, 0), state("a", 7, 2));
    assert_eq!(slot.saw(began(start, 20, 0), state("b", 5, 1)).position, 5);
    let old = slot.saw(began(start, 15, 0), state("a", 7, 2));
    assert_eq!(
        old.position, 5,
        "what was seen before the crash is not so any more"
    );
}
