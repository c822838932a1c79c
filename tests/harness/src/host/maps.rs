//! Header maps: which of them exist in which callback, and what changing them does.
//!
//! Envoy's side follows `Context::getMap` and `getConstMap` of `source/extensions/common/wasm/context.cc`;
//! Kong's side follows kong-host.md §4 and §5 and `ngx_proxy_wasm_maps.c`.

use super::abi::{Answer, Fault, Guest, Status, marshal, trap};
use super::http::{CallOutcome, Headers, LogLevel};
use super::settings::Profile;
use super::vm::{Phase, Vm};

/// `proxy_map_type_t`, as far as either proxy knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Map {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    CallHeaders,
    CallTrailers,
    Grpc,
}

impl Map {
    fn from_abi(map: i32) -> Answer<Self> {
        Ok(match map {
            0 => Self::RequestHeaders,
            1 => Self::RequestTrailers,
            2 => Self::ResponseHeaders,
            3 => Self::ResponseTrailers,
            4 | 5 => Self::Grpc,
            6 => Self::CallHeaders,
            7 => Self::CallTrailers,
            _ => return Err(Status::BadArgument.into()),
        })
    }
}

/// A change of one header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    Replace,
    Add,
    Remove,
}

pub(crate) fn pairs(guest: &mut Guest<'_>, map: i32, at: i32, size_at: i32) -> Answer {
    let map = Map::from_abi(map)?;
    let vm = guest.vm();
    let bytes = match (readable(vm, map)?, vm.profile()) {
        (Some(headers), Profile::Envoy) if headers.is_empty() => Vec::new(),
        (Some(headers), _) => marshal(&headers),
        // A map that is not there is an empty one in Envoy.
        (None, Profile::Envoy) => Vec::new(),
        (None, Profile::Kong) => return Err(Status::BadArgument.into()),
    };
    guest.give(&bytes, at, size_at)
}

pub(crate) fn value(guest: &mut Guest<'_>, map: i32, name: (i32, i32), to: (i32, i32)) -> Answer {
    let map = Map::from_abi(map)?;
    let name = guest.read_text(name.0, name.1)?;
    let vm = guest.vm();
    let headers = match (readable(vm, map)?, vm.profile()) {
        (Some(headers), _) => headers,
        (None, Profile::Envoy) if vm.phase != Phase::Log => return Err(Status::BadArgument.into()),
        (None, _) => return Err(Status::NotFound.into()),
    };
    let value = headers.get(&name).ok_or(Status::NotFound)?;
    guest.give(value, to.0, to.1)
}

pub(crate) fn set_pairs(guest: &mut Guest<'_>, map: i32, data: i32, size: i32) -> Answer {
    let map = Map::from_abi(map)?;
    let lines = guest.read_pairs(data, size)?;
    let vm = guest.vm();
    match vm.profile() {
        Profile::Envoy => *writable(vm, map)? = lines,
        Profile::Kong => {
            // `ngx_http_wasm_clear_req_headers` knows the list only; pseudo-headers live elsewhere. Each line is
            // then set, so that a repeated name keeps its last value.
            let headers = writable(vm, map)?;
            *headers = headers.iter().filter(|(name, _)| name.starts_with(':')).collect();
            for (name, value) in lines.iter() {
                edit_on_kong(vm, map, Edit::Replace, name, value)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn edit(
    guest: &mut Guest<'_>,
    map: i32,
    edit: Edit,
    name: (i32, i32),
    value: (i32, i32),
) -> Answer {
    let map = Map::from_abi(map)?;
    let name = guest.read_text(name.0, name.1)?;
    let value = guest.read(value.0, value.1)?;
    let vm = guest.vm();
    match vm.profile() {
        Profile::Envoy => {
            apply(writable(vm, map)?, edit, &name.to_ascii_lowercase(), &value);
            Ok(())
        }
        Profile::Kong => edit_on_kong(vm, map, edit, &name, &value),
    }
}

fn apply(headers: &mut Headers, edit: Edit, name: &str, value: &[u8]) {
    match edit {
        Edit::Replace => headers.set(name, value),
        Edit::Add => headers.add(name, value),
        Edit::Remove => headers.remove(name),
    }
}

fn edit_on_kong(vm: &mut Vm, map: Map, edit: Edit, name: &str, value: &[u8]) -> Answer {
    // kong-host.md §5: :authority read-only (logged, returns Ok). `ngx_proxy_wasm_maps.c` has no setter for
    // :scheme either.
    let read_only = map == Map::RequestHeaders
        && (name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case(":scheme"));
    let ignored = read_only && vm.settings.kong.authority_is_read_only;
    let headers = writable(vm, map)?;
    if ignored {
        vm.log(LogLevel::Error, format!("cannot set read-only \"{name}\" header"));
    } else {
        apply(headers, edit, name, value);
    }
    Ok(())
}

/// The map as a copy; `None` when the proxy has none now.
fn readable(vm: &Vm, map: Map) -> Answer<Option<Headers>> {
    if matches!(map, Map::CallHeaders | Map::CallTrailers) {
        return Ok(call_map(vm, map));
    }
    let Some(exchange) = vm.exchange() else {
        return match vm.profile() {
            Profile::Envoy => Ok(None),
            Profile::Kong => trap("no request in a root context"),
        };
    };
    // Envoy hands the access log its own view, whatever happened before.
    let always = vm.profile() == Profile::Kong
        || vm.phase == Phase::Log
        || !vm.settings.envoy.headers_gone_after_continue;
    Ok(match map {
        Map::RequestHeaders if always || exchange.request.visible => {
            Some(exchange.request.headers.clone())
        }
        Map::ResponseHeaders
            if always && !exchange.response.headers.is_empty() || exchange.response.visible =>
        {
            Some(exchange.response.headers.clone())
        }
        Map::ResponseHeaders if vm.profile() == Profile::Kong => {
            Some(exchange.response.headers.clone())
        }
        // kong-host.md §4: trailers are not there.
        Map::RequestTrailers if vm.profile() == Profile::Envoy => exchange.request.trailers.clone(),
        _ => None,
    })
}

fn call_map(vm: &Vm, map: Map) -> Option<Headers> {
    let answered = vm.answered.as_ref()?;
    if map == Map::CallTrailers {
        return None;
    }
    match (answered, vm.profile()) {
        (CallOutcome::Response { headers, .. }, Profile::Envoy) => Some(headers.clone()),
        (_, Profile::Envoy) => None,
        (CallOutcome::Response { headers, .. }, Profile::Kong) => {
            let mut headers = headers.clone();
            headers.add(":dispatch_status", "ok");
            Some(headers)
        }
        // kong-host.md §5: failure → no :status, only `:dispatch_status`.
        (failure, Profile::Kong) => {
            let rules = &vm.settings.kong;
            let reason = match failure {
                CallOutcome::TimedOut => "timeout",
                // kong-host.md §5: "ok" when the Lua resolver fails.
                CallOutcome::Unresolved if rules.unresolved_name_says_ok => "ok",
                CallOutcome::Unresolved => "resolver failure",
                _ => "broken connection",
            };
            rules
                .failed_call_has_dispatch_status
                .then(|| Headers::from([(":dispatch_status", reason)]))
        }
    }
}

/// The map for writing, or the answer to the attempt.
fn writable(vm: &mut Vm, map: Map) -> Answer<&mut Headers> {
    let profile = vm.profile();
    let phase = vm.phase;
    let guarded = vm.settings.kong(|rules| rules.headers_out_of_phase_trap);
    let kept = profile == Profile::Envoy && !vm.settings.envoy.headers_gone_after_continue;
    let Some(exchange) = vm.exchange_mut() else {
        return match profile {
            Profile::Envoy => Err(Status::BadArgument.into()),
            Profile::Kong => trap("no request in a root context"),
        };
    };
    if profile == Profile::Kong {
        // kong-host.md §4: the map calls know request and response headers only, and §5: until the response
        // starts (request) or until its headers are sent (response).
        let requesting =
            matches!(phase, Phase::RequestHeaders | Phase::RequestBody | Phase::CallResponse);
        return match map {
            Map::RequestHeaders if guarded && (!requesting || exchange.responding) => {
                trap("can only set request headers before response is produced")
            }
            Map::ResponseHeaders if guarded && !requesting && phase != Phase::ResponseHeaders => {
                trap("can only set response headers before \"on_response_body\"")
            }
            Map::RequestHeaders => Ok(&mut exchange.request.headers),
            Map::ResponseHeaders => Ok(&mut exchange.response.headers),
            _ => Err(Status::BadArgument.into()),
        };
    }
    let found = match map {
        Map::RequestHeaders if kept || exchange.request.visible => {
            Some(&mut exchange.request.headers)
        }
        Map::ResponseHeaders if kept || exchange.response.visible => {
            Some(&mut exchange.response.headers)
        }
        Map::RequestTrailers => exchange.request.trailers.as_mut(),
        _ => None,
    };
    found.ok_or(Fault::Status(Status::BadArgument))
}
