//! The corpus of the fuzz target, replayed and varied: what must hold for any query string holds for these.

#[path = "../../fuzz/query.rs"]
mod harness;

use gobo_tests::{Random, workspace};

fn corpus() -> Vec<String> {
    let folder = workspace().join("fuzz/corpus/query");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect()
}

#[test]
fn the_corpus_makes_no_statement_of_a_readers_words() {
    let harness = harness::Harness::new();
    let corpus = corpus();
    let accepted = corpus.iter().filter(|query| harness.check(query)).count();
    // Both kinds are worth keeping.
    assert!(
        accepted > 10 && corpus.len() > accepted + 5,
        "{accepted} of {} are accepted",
        corpus.len()
    );
}

#[test]
fn variations_of_the_corpus_make_no_statement_of_a_readers_words() {
    let harness = harness::Harness::new();
    let corpus = corpus();
    let mut random = Random::new(0xc0_ffee);
    let mut accepted = 0;
    for _ in 0..30_000 {
        let mut query: Vec<char> = corpus[random.below(corpus.len() as u64) as usize]
            .chars()
            .collect();
        for _ in 0..=random.below(4) {
            let other = &corpus[random.below(corpus.len() as u64) as usize];
            let at = random.below(query.len() as u64 + 1) as usize;
            match random.below(4) {
                0 if at < query.len() => {
                    query.remove(at);
                }
                1 => query.insert(
                    at,
                    random.one_of(&[
                        '.', ',', '(', ')', '"', '\'', '-', '>', ':', '{', '}', '%', '\\', '&',
                        '=', 'é', '\u{0}',
                    ]),
                ),
                2 => {
                    let other: Vec<char> = other.chars().collect();
                    let from = random.below(other.len() as u64 + 1) as usize;
                    let to = from + random.below((other.len() - from) as u64 + 1) as usize;
                    query.splice(at..at, other[from..to].iter().copied());
                }
                _ => query.truncate(at),
            }
        }
        accepted += usize::from(harness.check(&query.into_iter().collect::<String>()));
    }
    assert!(accepted > 1_000, "only {accepted} are accepted");
}
