//! What the strict parser accepts means the same to other parsers, as it came and as it goes on: to serde_json,
//! to Node's `JSON.parse` and to Python's `json`. All documents go through one process of each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use toolgate_protocol::json::Json;

/// Documents that one run compares.
const DOCUMENTS: usize = 3_000;

/// Reads lines of two documents in base64 each and says of each pair whether they mean the same.
const NODE: &str = r"
const { deepStrictEqual } = require('node:assert');
const decode = text => JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.from(text, 'base64')));
let all = '';
process.stdin.on('data', chunk => (all += chunk)).on('end', () => {
    for (const line of all.split('\n').filter(Boolean)) {
        const [first, second] = line.split(' ');
        try {
            deepStrictEqual(decode(second), decode(first));
            console.log('same');
        } catch (error) {
            console.log(String(error.message).replace(/\s+/g, ' '));
        }
    }
});
";

const PYTHON: &str = r"
import base64, json, sys

def meaning(value):
    # True is 1 to Python, and -0 is a whole number; to others it is not.
    if isinstance(value, dict):
        return {key: meaning(each) for key, each in value.items()}
    if isinstance(value, list):
        return [meaning(each) for each in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return ('number', float(value))
    return (type(value).__name__, value)

for line in sys.stdin:
    first, second = (base64.b64decode(text) for text in line.split())
    try:
        same = meaning(json.loads(first.decode())) == meaning(json.loads(second.decode()))
        print('same' if same else 'not the same')
    except Exception as error:
        print(repr(error).replace('\n', ' '))
";

/// Texts of every kind: escapes in all their forms, and what lies at the edges of Unicode.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a".to_owned()),
        select(
            &["é", "😀", "\u{2028}", "\u{feff}", "\u{7f}", "\u{fffd}", "İ", "ſ", "\u{10ffff}"][..]
        )
        .prop_map(str::to_owned),
        select(&[r#"\""#, r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t"][..])
            .prop_map(str::to_owned),
        select(
            &[
                r"\u0000",
                r"\u001f",
                r"\u0041",
                r"\uFEFF",
                r"\ufffe",
                r"\ud83d\ude00",
                r"\uDBFF\uDFFF"
            ][..]
        )
        .prop_map(str::to_owned),
        // Half a pair: the strict parser refuses it, and nothing is compared.
        Just(r"\ud800".to_owned()),
        any::<char>()
            .prop_filter("must be escaped", |c| !matches!(c, '"' | '\\' | '\0'..='\x1f'))
            .prop_map(String::from),
    ];
    vec(piece, 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<i32>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("is no JSON", |number| number.is_finite())
            .prop_map(|number| format!("{number:?}")),
        (any::<i16>(), 0..20_u8).prop_map(|(number, exponent)| format!("{number}e-{exponent}")),
        (any::<i16>(), any::<u32>()).prop_map(|(whole, rest)| format!("{whole}.{rest}E+2")),
        select(
            &[
                "0",
                "-0",
                "-0.0",
                "9007199254740991",
                "9007199254740992",
                "1e15",
                "1.0",
                "5e-324",
                "0.1",
                "1E2"
            ][..]
        )
        .prop_map(str::to_owned),
    ]
}

/// JSON texts, with white space between their tokens; some with the same key twice, which are refused.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        text(),
        number(),
        select(&["true", "false", "null"][..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let space = select(&["", " ", "\n", "\t", "\r\n"][..]);
        prop_oneof![
            (vec(inner.clone(), 0..6), space.clone()).prop_map(|(elements, space)| format!(
                "[{space}{}{space}]",
                elements.join(&format!(",{space}"))
            )),
            (vec((text(), inner), 0..6), space).prop_map(|(members, space)| {
                let members: Vec<String> = members
                    .iter()
                    .map(|(key, value)| format!("{key}{space}:{space}{value}"))
                    .collect();
                format!("{{{}{space}}}", members.join(","))
            }),
        ]
    })
}

/// What another parser says of each pair.
fn ask(program: &str, arguments: &[&str], pairs: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} must be on PATH: {error}"));
    let mut lines = String::new();
    for (first, second) in pairs {
        lines.push_str(&format!("{} {}\n", STANDARD.encode(first), STANDARD.encode(second)));
    }
    let mut stdin = child.stdin.take().unwrap();
    // Answers are read while questions are written: neither side waits for the other for ever.
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_is_accepted_means_the_same_to_every_parser_before_and_after() {
    let mut runner = TestRunner::default();
    let strategy = document();
    let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut refused = 0;
    while pairs.len() < DOCUMENTS {
        let document = strategy.new_tree(&mut runner).unwrap().current();
        match Json::parse(document.as_bytes()) {
            Ok(json) => pairs.push((document, json.to_bytes())),
            Err(_) => refused += 1,
        }
        assert!(refused < 20 * DOCUMENTS, "too few documents are accepted");
    }
    assert!(refused > DOCUMENTS / 100, "the documents do not try the parser: {refused} refused");
    for (first, second) in &pairs {
        let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        assert_eq!(read(first.as_bytes()), read(second), "serde_json: {first}");
    }
    for (program, arguments) in [("node", ["-e", NODE]), ("python3", ["-c", PYTHON])] {
        let answers = ask(program, &arguments, &pairs);
        assert_eq!(answers.len(), pairs.len(), "{program} did not answer every question");
        for ((first, second), answer) in pairs.iter().zip(answers) {
            let second = String::from_utf8_lossy(second);
            assert_eq!(answer, "same", "{program}: {first} became {second}");
        }
    }
}
