//! Arguments of typed tools: what reaches policies, and what is refused before.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use toolgate_policy::{PolicyEngine, Refusal};

use crate::support::*;

fn permit_all() -> PolicyEngine {
    engine(r#"@id("all") permit(principal, action, resource);"#)
}

/// An engine that permits `bank/book` when `condition` holds.
#[track_caller]
fn book_when(condition: &str) -> PolicyEngine {
    engine(&format!(
        r#"@id("p") permit(principal, action == MCP::Action::"bank/book", resource)
             when {{ {condition} }};"#
    ))
}

#[test]
fn arguments_of_the_declared_type_reach_policies() {
    let arguments = r#"{"lines": [{"amount": 1}, {"amount": 2}], "price": 12.5,
        "on": "2026-11-23T11:00:00+01:00", "from": "10.0.0.7", "urgent": true}"#;
    for condition in [
        r#"context.arguments.lines.contains({amount: 2})"#,
        r#"context.arguments has price && context.arguments.price == decimal("12.5")"#,
        r#"context.arguments has on && context.arguments.on == datetime("2026-11-23T10:00:00Z")"#,
        r#"context.arguments has from && context.arguments.from.isInRange(ip("10.0.0.0/8"))"#,
        r#"context.arguments has urgent && context.arguments.urgent"#,
    ] {
        assert!(call(&book_when(condition), "bank/book", arguments).is_permit(), "{condition}");
    }
}

#[test]
fn wrong_types_are_refused_with_path_and_expectation_and_without_the_value() {
    let engine = permit_all();
    for (arguments, message) in [
        (r#"[]"#, "`arguments` must be an object, found an array"),
        (r#"{"amount": 1}"#, "missing member `arguments.to`, expected a string"),
        (r#"{"to": null, "amount": 1}"#, "`arguments.to` must be a string, found null"),
        (r#"{"to": 7, "amount": 1}"#, "`arguments.to` must be a string, found an integer"),
        (
            r#"{"to": "b", "amount": "secret"}"#,
            "`arguments.amount` must be an integer, written without fraction or exponent, found a string",
        ),
        (
            r#"{"to": "b", "amount": 1, "Memo": "m"}"#,
            "unknown member `arguments.Memo`, expected members: amount, memo, to",
        ),
    ] {
        assert_eq!(invalid(&call(&engine, "bank/pay", arguments)), message);
    }
    let nested = r#"{"lines": [{"amount": 1}, {"amount": "5"}]}"#;
    let message = "`arguments.lines[1].amount` must be an integer, written without fraction or exponent, found a string";
    assert_eq!(invalid(&call(&engine, "bank/book", nested)), message);
    let unknown = r#"{"lines": [{"amount": 1, "x": 5}]}"#;
    assert!(invalid(&call(&engine, "bank/book", unknown)).contains("`arguments.lines[0].x`"));
}

#[test]
fn a_set_of_a_million_is_refused_and_a_megabyte_of_text_is_decided_on() {
    let lines = |count: usize| {
        let lines: Vec<String> = (0..count).map(|at| format!(r#"{{"amount": {at}}}"#)).collect();
        format!(r#"{{"lines": [{}]}}"#, lines.join(","))
    };
    let last = book_when("context.arguments.lines.contains({amount: 999})");
    assert!(call(&last, "bank/book", &lines(1000)).is_permit());
    assert!(!call(&last, "bank/book", &lines(999)).is_permit());
    let refused = call(&last, "bank/book", &lines(1_000_000));
    assert_eq!(invalid(&refused), "`arguments` holds more than 10000 values");
    let memo = "m".repeat(1 << 20);
    let pay = format!(r#"{{"to": "b", "amount": 1, "memo": "{memo}"}}"#);
    assert!(call(&permit_all(), "bank/pay", &pay).is_permit());
}

#[test]
fn floats_are_no_integers_however_they_are_written() {
    let engine = permit_all();
    for amount in ["5.0", "5e0", "0.5", "1e3", "-0.0"] {
        let decision = call(&engine, "bank/pay", &format!(r#"{{"to": "b", "amount": {amount}}}"#));
        assert!(invalid(&decision).starts_with("`arguments.amount`"), "{amount}");
    }
    for amount in ["0", "-5", "9007199254740991"] {
        let decision = call(&engine, "bank/pay", &format!(r#"{{"to": "b", "amount": {amount}}}"#));
        assert!(decision.is_permit(), "{amount}");
    }
}

#[test]
fn null_leaves_an_optional_member_out_and_is_invalid_elsewhere() {
    let engine = engine(
        r#"@id("p") permit(principal, action == MCP::Action::"bank/pay", resource)
             unless { context.arguments has memo };
           @id("b") permit(principal, action == MCP::Action::"bank/book", resource);"#,
    );
    assert!(call(&engine, "bank/pay", r#"{"to": "b", "amount": 1, "memo": null}"#).is_permit());
    let with_memo = call(&engine, "bank/pay", r#"{"to": "b", "amount": 1, "memo": ""}"#);
    assert!(matches!(refusal(&with_memo), Refusal::Arguments { .. }));
    invalid(&call(&engine, "bank/pay", r#"{"to": "b", "amount": null}"#));
    invalid(&call(&engine, "bank/book", r#"{"lines": [null]}"#));
    invalid(&call(&engine, "bank/book", r#"{"lines": null}"#));
}

#[test]
fn decimals_are_exact_or_invalid() {
    let engine = |price: &str| {
        book_when(&format!(
            r#"context.arguments has price && context.arguments.price == decimal("{price}")"#
        ))
    };
    for (json, cedar) in [
        ("12", "12.0"),
        ("-0.5", "-0.5"),
        ("0.1", "0.1"),
        ("1.0", "1.0"),
        ("1e2", "100.0"),
        ("12.3456", "12.3456"),
        ("\"12.3456\"", "12.3456"),
        ("\"7\"", "7.0"),
    ] {
        let arguments = format!(r#"{{"lines": [], "price": {json}}}"#);
        assert!(call(&engine(cedar), "bank/book", &arguments).is_permit(), "{json}");
    }
    let permit_all = permit_all();
    for json in [
        "1.23456",
        "1e-5",
        "922337203685478",
        "1e15",
        "\"1.23456\"",
        "\"\"",
        "\"1,5\"",
        "\"1e2\"",
        "\" 1\"",
        "\"NaN\"",
        "true",
        "[1]",
    ] {
        let arguments = format!(r#"{{"lines": [], "price": {json}}}"#);
        let decision = call(&permit_all, "bank/book", &arguments);
        assert!(invalid(&decision).starts_with("`arguments.price`"), "{json}");
    }
}

#[test]
fn datetimes_are_rfc_3339_or_invalid() {
    let engine = book_when(
        r#"context.arguments has on && context.arguments.on == datetime("2026-11-23T10:00:00Z")"#,
    );
    for on in [
        "2026-11-23T10:00:00Z",
        "2026-11-23T10:00:00.0Z",
        "2026-11-23T10:00:00.000000Z",
        "2026-11-23T11:00:00+01:00",
        "2026-11-23T04:30:00.000-05:30",
    ] {
        let arguments = format!(r#"{{"lines": [], "on": "{on}"}}"#);
        assert!(call(&engine, "bank/book", &arguments).is_permit(), "{on}");
    }
    for on in [
        "",
        "now",
        "2026-11-23T10:00:00",
        "2026-11-23T10:00:00.0001Z",
        "2026-13-01T00:00:00Z",
        "2026-11-23T25:00:00Z",
        "2026-11-23T10:00:00+0100",
        "2026-11-23t10:00:00z",
        "2026-11-23T10:00:00.Z",
        "2026-11-23T10:00:00Zé",
        "2026-11-23T10:00:00+é1:0",
    ] {
        let decision =
            call(&permit_all(), "bank/book", &format!(r#"{{"lines": [], "on": "{on}"}}"#));
        assert!(invalid(&decision).starts_with("`arguments.on`"), "{on}");
    }
    assert!(call(&permit_all(), "bank/book", r#"{"lines": [], "on": "2026-11-23"}"#).is_permit());
}

#[test]
fn addresses_are_addresses_or_invalid() {
    let engine = permit_all();
    for from in ["10.0.0.1", "10.0.0.0/8", "::1"] {
        let arguments = format!(r#"{{"lines": [], "from": "{from}"}}"#);
        assert!(call(&engine, "bank/book", &arguments).is_permit(), "{from}");
    }
    for from in ["", "localhost", "10.0.0.1:80", "010.0.0.1"] {
        let arguments = format!(r#"{{"lines": [], "from": "{from}"}}"#);
        invalid(&call(&engine, "bank/book", &arguments));
    }
}

#[test]
fn escapes_of_cedars_json_stay_plain_data() {
    let engine = book_when(
        r#"context.arguments has extra.__extn.arg && context.arguments.extra.__extn.arg == "10.0.0.1""#,
    );
    let arguments = r#"{"lines": [], "extra": {"__extn": {"fn": "ip", "arg": "10.0.0.1"}}}"#;
    assert!(call(&engine, "bank/book", arguments).is_permit());
    let engine = permit_all();
    let entity = r#"{"__entity": {"type": "MCP::Group", "id": "admins"}}"#;
    for arguments in [
        format!(r#"{{"lines": [], "extra": {entity}}}"#),
        format!(r#"{{"lines": [{entity}]}}"#),
        r#"{"lines": [], "from": {"__extn": {"fn": "ip", "arg": "10.0.0.1"}}}"#.to_owned(),
        format!(r#"{{"lines": [], "on": {entity}}}"#),
        entity.to_owned(),
    ] {
        invalid(&call(&engine, "bank/book", &arguments));
    }
}

#[test]
fn arguments_of_untyped_tools_do_not_reach_policies() {
    let engine = permit_all();
    for arguments in [r#"{"__entity": {"type": "MCP::User", "id": "root"}}"#, "null", "[1.5]"] {
        assert!(call(&engine, "files/list", arguments).is_permit());
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let engine = permit_all();
    let lines = |count: usize| {
        let lines: Vec<_> = (0..count).map(|n| format!(r#"{{"amount": {n}}}"#)).collect();
        format!(r#"{{"lines": [{}]}}"#, lines.join(","))
    };
    assert!(call(&engine, "bank/book", &lines(4_000)).is_permit());
    let decision = call(&engine, "bank/book", &lines(100_000));
    assert_eq!(invalid(&decision), "`arguments` holds more than 10000 values");
    let deep = format!(r#"{{"lines": [], "extra": {}}}"#, "[".repeat(60) + &"]".repeat(60));
    invalid(&call(&engine, "bank/book", &deep));
    let long = format!(r#"{{"path": "{}"}}"#, "é".repeat(1_000_000));
    assert!(call(&engine, "files/read", &long).is_permit());
    let name = format!(r#"{{"path": "", "{}": 1}}"#, "é".repeat(1_000_000));
    assert!(invalid(&call(&engine, "files/read", &name)).len() < 300);
}

#[test]
fn no_arguments_are_an_empty_object() {
    let engine = permit_all();
    let message = invalid(&call(&engine, "files/read", "null")).to_owned();
    assert_eq!(message, invalid(&call(&engine, "files/read", "{}")));
    assert_eq!(message, "missing member `arguments.path`, expected a string");
}
