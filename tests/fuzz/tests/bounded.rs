//! The checks over their corpus and a bounded number of its mutations, on any toolchain. A fuzzer does the same
//! with coverage and without an end: `cargo +nightly fuzz run message` in tests/fuzz.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use toolgate_fuzz::CHECKS;

/// Mutations of each corpus that one run tries.
const CASES: u32 = 20_000;

/// Bytes that parsers are sensitive to.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"data:",
    b"id: 1\n",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\0",
    b"-0",
    b"1e99",
    b"9007199254740993",
    b"null",
    b"\"name\"",
    b"\"Name\"",
    b"\"method\"",
    b"\"params\"",
    b"\"x-mcp-header\"",
    b"=?base64?",
    b"?=",
    b"0.1",
];

/// One change of a document.
#[derive(Clone, Debug)]
enum Change {
    Insert(Index, &'static [u8]),
    Remove(Index, usize),
    Set(Index, u8),
    Repeat(Index, usize),
    Append(Index),
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), select(WORDS)).prop_map(|(at, word)| Change::Insert(at, word)),
        (any::<Index>(), 1..20_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, count)| Change::Repeat(at, count)),
        any::<Index>().prop_map(Change::Append),
    ]
}

fn apply(mut bytes: Vec<u8>, change: &Change, corpus: &[Vec<u8>]) -> Vec<u8> {
    match change {
        Change::Insert(at, word) => {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, word.iter().copied());
        }
        Change::Remove(at, count) => {
            let at = at.index(bytes.len() + 1);
            bytes.drain(at..bytes.len().min(at + count));
        }
        Change::Set(at, byte) if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            bytes.splice(at..=at, [*byte]);
        }
        Change::Set(..) => {}
        Change::Repeat(at, count) => {
            let at = at.index(bytes.len() + 1);
            let part: Vec<u8> = bytes.iter().skip(at).take(*count).copied().collect();
            bytes.splice(at..at, part);
        }
        Change::Append(other) => bytes.extend(other.get::<Vec<u8>>(corpus)),
    }
    bytes
}

#[test]
fn every_check_holds_over_its_corpus_and_mutations_of_it() {
    for (name, check) in CHECKS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 5, "the corpus of {name} has {} documents", corpus.len());
        corpus.iter().for_each(|bytes| check(bytes));
        let config =
            ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() };
        let documents = (select(corpus.clone()), vec(change(), 0..6), Just(corpus)).prop_map(
            |(document, changes, corpus)| {
                changes.iter().fold(document, |bytes, change| apply(bytes, change, &corpus))
            },
        );
        TestRunner::new(config)
            .run(&documents, |bytes| {
                check(&bytes);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
