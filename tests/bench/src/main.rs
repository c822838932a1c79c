//! What a call through toolgate costs: `scripts/bench`.
//!
//! One Envoy with one worker has a listener for every variant; clients load one at a time, in short
//! slices that alternate. What counts is the CPU time of the Envoy process for each request as a
//! multiple of what a plain proxy spends in the same round: latency and throughput of a machine that
//! does other things too say little, and both ends of the bench run on it.
#![allow(clippy::indexing_slicing, reason = "into a document of this repository, in a bench")]

mod envoy;
mod http;
mod load;
mod messages;
mod noop;
mod upstream;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use serde_json::json;

use envoy::{Envoy, Filter, Log, Place};
use load::Clients;
use noop::HostCalls;
use upstream::{Seen, Upstream, serve};

/// Measures what a call through toolgate costs, in multiples of a plain Envoy's.
#[derive(Parser)]
struct Options {
    /// Fewer and shorter slices: under a minute.
    #[arg(long)]
    quick: bool,
    /// A build of the plugin; may be given more than once, to compare.
    #[arg(long, value_name = "FILE", default_value = "target/toolgate.wasm")]
    wasm: Vec<PathBuf>,
    /// The proxy to run.
    #[arg(long, value_name = "PROGRAM")]
    envoy: PathBuf,
    /// Instead of toolgate, what single calls from a filter to Envoy cost.
    #[arg(long)]
    host_calls: bool,
    /// Only variants whose name contains this, beside the plain proxy.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Load this one variant for so many seconds and print the process, for a profiler.
    #[arg(long, value_name = "SECONDS", requires = "only")]
    hold: Option<u64>,
    /// Requests that are under way at the same time.
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    connections: usize,
    /// How often every variant gets its slice.
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// An access token of somebody in the group `finance`.
    #[arg(long, env = "BENCH_TOKEN", hide_env_values = true)]
    token: String,
}

/// One way to the server.
struct Variant {
    name: String,
    place: Place,
    request: Vec<u8>,
    /// The variant that this one is compared with.
    baseline: usize,
    /// What the answer has, and what the server gets.
    expected: Expected,
}

#[derive(Default)]
struct Expected {
    tools: Option<usize>,
    server_gets: &'static [&'static str],
    server_gets_not: &'static [&'static str],
}

struct Lengths {
    rounds: usize,
    slice: Duration,
    warm_up: Duration,
}

/// What was measured of one variant.
#[derive(Default)]
struct Measured {
    /// Microseconds of CPU time for each request, slice by slice.
    cpu: Vec<f64>,
    /// Microseconds from request to answer, one request at a time.
    latency: Vec<f64>,
}

const CALLS: &str = "calls";
const LIST_20: &str = "list-20";
const LIST_500: &str = "list-500";

/// The typed tools of the demo that somebody in `finance` sees, and one that nobody does.
const TYPED: &[&str] = &["list_invoices", "statement", "refund", "delete_customer"];

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let lengths = if options.quick {
        Lengths {
            rounds: options.rounds.unwrap_or(20),
            slice: Duration::from_millis(120),
            warm_up: Duration::from_millis(500),
        }
    } else {
        Lengths {
            rounds: options.rounds.unwrap_or(60),
            slice: Duration::from_millis(200),
            warm_up: Duration::from_secs(2),
        }
    };
    let folder = Path::new("target/bench");
    fs::create_dir_all(folder)?;

    let upstreams = [
        (CALLS, Upstream::new(&messages::call_answer())?),
        (LIST_20, Upstream::new(&messages::list_answer(TYPED, 20))?),
        (LIST_500, Upstream::new(&messages::list_answer(TYPED, 500))?),
    ];
    let mut servers = Vec::new();
    let mut seen = Vec::new();
    for (name, upstream) in &upstreams {
        servers.push((*name, upstream.port()?));
        seen.push((*name, upstream.seen()));
    }
    serve(upstreams.into_iter().map(|(_, upstream)| upstream).collect());

    let variants = variants(&options, folder)?;
    let (places, variants): (Vec<Place>, Vec<Running>) = variants
        .into_iter()
        .map(|Variant { name, place, request, baseline, expected }| {
            (place, Running { name, request, baseline, expected })
        })
        .unzip();
    let envoy = Envoy::start(&options.envoy, folder, &places, &servers)?;
    let mut clients = Vec::new();
    for ((variant, place), port) in variants.iter().zip(&places).zip(&envoy.ports) {
        let mut connected = Clients::connect(*port, options.connections, variant.request.clone())?;
        let seen = seen.iter().find(|(name, _)| *name == place.cluster).map(|(_, seen)| seen);
        variant.check(&connected.ask()?, seen)?;
        clients.push(connected);
    }
    for (_, seen) in &seen {
        seen.stop();
    }
    if let Some(seconds) = options.hold {
        return hold(&envoy, &mut clients, options.connections, seconds);
    }
    let measured = measure(&envoy, &mut clients, &lengths, options.connections)?;
    report(&variants, &measured, &lengths, options.connections)?;
    Ok(())
}

/// A variant whose listener is up.
struct Running {
    name: String,
    request: Vec<u8>,
    baseline: usize,
    expected: Expected,
}

impl Running {
    /// Whether the way works as the variant says: a number about the wrong thing is worse than none.
    fn check(&self, answer: &str, server: Option<&Arc<Seen>>) -> Result<(), String> {
        let server = server.map(|seen| seen.last()).unwrap_or_default();
        let tools = answer.matches("\"inputSchema\"").count();
        let as_expected = answer.starts_with("HTTP/1.1 200 ")
            && self.expected.tools.is_none_or(|expected| expected == tools)
            && self.expected.server_gets.iter().all(|part| server.contains(part))
            && !self.expected.server_gets_not.iter().any(|part| server.contains(part));
        if as_expected {
            Ok(())
        } else {
            let answer: String = answer.chars().take(1000).collect();
            Err(format!(
                "{}: not as expected ({tools} tools). The server got:\n{server}\nThe client got:\n{answer}",
                self.name
            ))
        }
    }
}

fn variants(options: &Options, folder: &Path) -> Result<Vec<Variant>, Box<dyn Error>> {
    let token = &options.token;
    let refund_body =
        messages::call("refund", &json!({"invoice": "I-1001", "amount": 40, "reason": "late"}));
    let refund = messages::request("billing", &refund_body, token);
    let echo_body = messages::call("echo", &json!({"message": "hi, it is me again"}));
    let echo = messages::request("everything", &echo_body, token);
    let list = |server: &str| messages::request(server, &messages::list(), token);
    let place = |filter: Filter, cluster| Place { filter, log: Log::Full, cluster };
    let simple = |name: &str, place: Place, request: &[u8], baseline| Variant {
        name: name.to_owned(),
        place,
        request: request.to_vec(),
        baseline,
        expected: Expected::default(),
    };

    let mut all = vec![simple("plain proxy", place(Filter::Plain, CALLS), &refund, 0)];
    let bare = |file: &str, calls: HostCalls| -> Result<Filter, Box<dyn Error>> {
        let path = folder.join(format!("{file}.wasm"));
        fs::write(&path, noop::filter(calls, &refund_body)?)?;
        Ok(Filter::Bare(path))
    };
    if options.host_calls {
        for (name, file, calls) in host_calls() {
            all.push(simple(name, place(bare(file, calls)?, CALLS), &refund, 0));
        }
        return Ok(all);
    }
    let short = Place { filter: Filter::Plain, log: Log::Short, cluster: CALLS };
    all.push(simple("plain proxy, log without audit fields", short, &refund, 0));
    let noop = bare("noop", HostCalls::default())?;
    all.push(simple("filter that does nothing", place(noop, CALLS), &refund, 0));
    for file in &options.wasm {
        let mark = match options.wasm.len() {
            1 => String::new(),
            _ => format!(" [{}]", file.file_stem().unwrap_or_default().display()),
        };
        let toolgate = |cluster| place(Filter::Toolgate(file.clone()), cluster);
        all.push(Variant {
            expected: Expected {
                server_gets: &["x-billing-key: only-the-server", "post /mcp http"],
                server_gets_not: &["authorization:", "x-toolgate"],
                ..Expected::default()
            },
            ..simple(
                &format!("toolgate: typed call with credential{mark}"),
                toolgate(CALLS),
                &refund,
                0,
            )
        });
        all.push(Variant {
            expected: Expected {
                server_gets: &["post /mcp http"],
                server_gets_not: &["authorization:", "x-billing-key"],
                ..Expected::default()
            },
            ..simple(&format!("toolgate: untyped call{mark}"), toolgate(CALLS), &echo, 0)
        });
    }
    for (count, cluster, server, shown) in [
        (20, LIST_20, "everything", 20),
        (20, LIST_20, "billing", 3),
        (500, LIST_500, "everything", 500),
    ] {
        let baseline = match all
            .iter()
            .position(|known| known.place.cluster == cluster && known.place.filter == Filter::Plain)
        {
            Some(known) => known,
            None => {
                let name = format!("plain proxy: list of {count}");
                all.push(simple(&name, place(Filter::Plain, cluster), &list(server), all.len()));
                all.len() - 1
            }
        };
        for file in &options.wasm {
            let mark = match options.wasm.len() {
                1 => String::new(),
                _ => format!(" [{}]", file.file_stem().unwrap_or_default().display()),
            };
            let kind = if shown == count { "all shown" } else { "3 typed ones shown" };
            let name = format!("toolgate: list of {count}, {kind}{mark}");
            let place = place(Filter::Toolgate(file.clone()), cluster);
            all.push(Variant {
                expected: Expected { tools: Some(shown), ..Expected::default() },
                ..simple(&name, place, &list(server), baseline)
            });
        }
    }
    if !options.only.is_empty() {
        all = only(all, &options.only);
    }
    Ok(all)
}

/// The chosen variants and what they are compared with.
fn only(all: Vec<Variant>, chosen: &[String]) -> Vec<Variant> {
    let keep: Vec<bool> = all
        .iter()
        .map(|variant| chosen.iter().any(|text| variant.name.contains(text.as_str())))
        .collect();
    let is_baseline = |index: usize| {
        all.iter().zip(&keep).any(|(variant, keep)| *keep && variant.baseline == index)
    };
    let keep: Vec<bool> =
        keep.iter().enumerate().map(|(index, keep)| *keep || is_baseline(index)).collect();
    let position = |index: usize| keep.iter().take(index).filter(|keep| **keep).count();
    let kept: Vec<usize> = all.iter().map(|variant| position(variant.baseline)).collect();
    all.into_iter()
        .zip(kept)
        .zip(&keep)
        .filter(|(_, keep)| **keep)
        .map(|((variant, baseline), _)| Variant { baseline, ..variant })
        .collect()
}

fn host_calls() -> Vec<(&'static str, &'static str, HostCalls)> {
    let none = HostCalls::default();
    let holds = HostCalls { read_body: 1, ..none };
    vec![
        ("filter that does nothing", "noop", none),
        ("+ 1 clock", "clock-1", HostCalls { read_clock: 1, ..none }),
        ("+ 1 client address", "address-1", HostCalls { read_property: 1, ..none }),
        ("+ 1 read of the headers", "headers-1", HostCalls { read_headers: 1, ..none }),
        ("+ holds and reads the body", "body-1", holds),
        ("+ holds, reads and replaces the body", "replace-1", HostCalls { write_body: 1, ..holds }),
        ("+ holds, reads, removes 5 headers", "remove-5", HostCalls { remove_headers: 5, ..holds }),
        ("+ holds, reads, sets 1 header", "set-1", HostCalls { set_headers: 1, ..holds }),
        ("+ holds, reads, sets 7 headers", "set-7", HostCalls { set_headers: 7, ..holds }),
        ("+ 1 property at the end", "property-1", HostCalls { set_properties: 1, ..none }),
        ("+ 10 properties at the end", "property-10", HostCalls { set_properties: 10, ..none }),
        ("+ 20 properties at the end", "property-20", HostCalls { set_properties: 20, ..none }),
        (
            "all of toolgate's",
            "all",
            HostCalls {
                read_headers: 2,
                read_body: 1,
                write_body: 1,
                set_headers: 7,
                remove_headers: 4,
                set_properties: 1,
                read_clock: 4,
                read_property: 1,
            },
        ),
    ]
}

fn measure(
    envoy: &Envoy,
    clients: &mut [Clients],
    lengths: &Lengths,
    connections: usize,
) -> Result<Vec<Measured>, Box<dyn Error>> {
    let mut measured: Vec<Measured> = clients.iter().map(|_| Measured::default()).collect();
    // Envoy has V8 compile everything at the start; what still warms up is caches.
    for clients in clients.iter_mut() {
        clients.run(connections, lengths.warm_up, |_| ())?;
    }
    for round in 0..lengths.rounds {
        // Each round begins with another variant, so that none always follows the same one.
        for index in 0..clients.len() {
            let index = (index + round) % clients.len();
            let (Some(clients), Some(measured)) = (clients.get_mut(index), measured.get_mut(index))
            else {
                continue;
            };
            let mut count = 0_u32;
            let before = envoy.cpu()?;
            clients.run(connections, lengths.slice, |_| count += 1)?;
            let spent = envoy.cpu()?.saturating_sub(before);
            measured.cpu.push(spent.as_secs_f64() * 1e6 / f64::from(count.max(1)));
            clients.run(1, lengths.slice / 4, |latency| {
                measured.latency.push(latency.as_secs_f64() * 1e6);
            })?;
        }
    }
    Ok(measured)
}

fn hold(
    envoy: &Envoy,
    clients: &mut [Clients],
    connections: usize,
    seconds: u64,
) -> Result<(), Box<dyn Error>> {
    let chosen = clients.last_mut().ok_or("there is no such variant")?;
    chosen.run(connections, Duration::from_secs(4), |_| ())?;
    writeln!(io::stdout(), "{}", envoy.id())?;
    let (mut count, before) = (0_u32, envoy.cpu()?);
    chosen.run(connections, Duration::from_secs(seconds), |_| count += 1)?;
    let spent = envoy.cpu()?.saturating_sub(before) / count.max(1);
    writeln!(io::stdout(), "{count} requests, {spent:?} each")?;
    Ok(())
}

fn report(
    variants: &[Running],
    measured: &[Measured],
    lengths: &Lengths,
    connections: usize,
) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "CPU time of Envoy (1 worker) per request at {connections} under way, {} alternating slices of {:?} each; \
         latency of one request at a time.\nTimes depend on the machine and on what else it does, multiples less so. x: median of the rounds; \
         quiet x: of the tenth of the slices that the machine disturbed least.\n",
        lengths.rounds, lengths.slice
    )?;
    writeln!(
        out,
        "{:<48} {:>8}   {:>6} {:>17} {:>7}   {:>8} {:>8}",
        "", "CPU", "x", "(min to max)", "quiet x", "p50", "p99"
    )?;
    for (index, (variant, own)) in variants.iter().zip(measured).enumerate() {
        let baseline = measured.get(variant.baseline).ok_or("a variant without a baseline")?;
        let ratios: Vec<f64> =
            own.cpu.iter().zip(&baseline.cpu).map(|(own, other)| own / other).collect();
        let is_baseline = variant.baseline == index;
        let latency = |share: f64| {
            let own = quantile(&own.latency, share);
            if is_baseline {
                format!("{own:.0} µs")
            } else {
                format!("{:+.0} µs", own - quantile(&baseline.latency, share))
            }
        };
        writeln!(
            out,
            "{:<48} {:>5.0} µs   {:>6.2} {:>17} {:>7.2}   {:>8} {:>8}",
            variant.name,
            quantile(&own.cpu, 0.5),
            quantile(&ratios, 0.5),
            format!("({:.2} to {:.2})", quantile(&ratios, 0.0), quantile(&ratios, 1.0)),
            quantile(&own.cpu, 0.1) / quantile(&baseline.cpu, 0.1),
            latency(0.5),
            latency(0.99),
        )?;
    }
    Ok(())
}

/// The value below which this share of the values lies.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index, from a share of a length"
    )]
    let index = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
