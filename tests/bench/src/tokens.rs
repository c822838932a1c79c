//! What it costs to know the caller: a token that was verified before against no token, and the first
//! verification of one, by algorithm.

use std::error::Error;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolgate_core::Gateway;

use crate::{Case, Spent, exchange, head, messages, typical};

/// How often each algorithm verifies a token that it has not seen.
const FIRSTS: u32 = 24;

/// Keys and tokens come from `BENCH_TOKENS` (`tests/bench/tokens.py`).
pub(crate) fn report(plugin: &Value) -> Result<(), Box<dyn Error>> {
    let made = std::env::var("BENCH_TOKENS").map_err(|_| "BENCH_TOKENS is not set")?;
    let made: Value = serde_json::from_str(&made)?;
    let made = made.as_object().ok_or("BENCH_TOKENS is no object")?;
    let mut out = io::stdout().lock();
    writeln!(out, "{:<44} {:>10} {:>10}   µs", "caller", "head+body", "more")?;

    let gateway = gateway(plugin, made)?;
    let mut cases = vec![("no token".to_owned(), case(None))];
    for (name, made) in made {
        let token = made["token"].as_str().ok_or("no token")?;
        cases.push((format!("{name} token of {} bytes, cached", token.len()), case(Some(token))));
    }
    // In turns, so that all meet the same disturbances.
    let mut spent: Vec<Spent> = cases.iter().map(|_| Spent::default()).collect();
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        for ((_, case), spent) in cases.iter().zip(&mut spent) {
            for _ in 0..16 {
                exchange(&gateway, case, spent)?;
            }
        }
    }
    let costs: Vec<f64> = spent.iter().map(|s| typical(&s.head) + typical(&s.body)).collect();
    for ((name, _), cost) in cases.iter().zip(&costs) {
        let more = cost - costs.first().copied().unwrap_or_default();
        writeln!(out, "{name:<44} {cost:>10.2} {more:>10.2}")?;
    }

    let none = costs.first().copied().unwrap_or_default();
    for (name, token) in made {
        let case = case(Some(token["token"].as_str().ok_or("no token")?));
        let mut spent = Spent::default();
        for _ in 0..FIRSTS {
            // A gateway remembers, a new one does not.
            exchange(&self::gateway(plugin, made)?, &case, &mut spent)?;
        }
        let cost = typical(&spent.head) + typical(&spent.body);
        let name = format!("{name} token, verified");
        writeln!(out, "{name:<44} {cost:>10.2} {:>10.2}", cost - none)?;
    }
    writeln!(out)?;
    Ok(())
}

/// A gateway that takes tokens of all algorithms and callers without one, and permits everything.
fn gateway(
    plugin: &Value,
    made: &serde_json::Map<String, Value>,
) -> Result<Rc<Gateway>, Box<dyn Error>> {
    let mut plugin = plugin.clone();
    let issuer = &mut plugin["identity"]["issuers"][0];
    issuer["jwks"] = json!({"keys": made.values().map(|made| &made["jwk"]).collect::<Vec<_>>()});
    issuer["algorithms"] = made.keys().map(String::as_str).collect();
    plugin["identity"]["anonymous"] = json!(true);
    plugin["policy"] =
        json!({"name": "bench", "policies": "@id(\"all\") permit (principal, action, resource);"});
    let compiled = Gateway::compile(plugin.to_string().as_bytes(), &|_: &str| None);
    Ok(Rc::new(compiled.map_err(|problems| format!("{problems:?}"))?))
}

fn case(token: Option<&str>) -> Case {
    let body = messages::call("echo", &json!({"message": "hi, it is me again"}));
    let mut head = head("everything", &body, token.unwrap_or_default());
    if token.is_none() {
        head.retain(|(name, _)| name != "authorization");
    }
    Case { name: "caller", head, body, answer: messages::call_answer() }
}
