//! Host calls that steer a stream: resume, close, local reply, call out, change context.
//!
//! In Envoy they take effect after the callback (`addAfterVmCallAction`), so they are queued as [`Deferred`].

use std::time::Duration;

use super::abi::{Answer, Guest, Status, trap};
use super::http::{LogLevel, PendingCall};
use super::settings::Profile;
use super::vm::{Deferred, Phase, Vm};

pub(crate) fn resume(guest: &mut Guest<'_>, kind: i32) -> Answer {
    let vm = guest.vm();
    let context = vm.context();
    let profile = vm.profile();
    let deferred = match (kind, profile) {
        (0, Profile::Envoy) => Deferred::ResumeRequest(context),
        (1, Profile::Envoy) => Deferred::ResumeResponse(context),
        (2, Profile::Envoy) => return Ok(()),
        (3, Profile::Envoy) => return Err(Status::Unimplemented.into()),
        (_, Profile::Envoy) => return Err(Status::BadArgument.into()),
        // `ngx_proxy_wasm_hfuncs_continue`: either HTTP stream type resumes the request.
        (0 | 1, Profile::Kong) => Deferred::ResumeRequest(context),
        (_, Profile::Kong) => return Err(Status::InternalFailure.into()),
    };
    if let (Profile::Envoy, Some(exchange)) = (profile, vm.exchange_mut()) {
        // `Context::continueStream` forgets the request headers, whichever stream it continues.
        exchange.request.visible = false;
        exchange.request.chunk = None;
    }
    if !vm.in_root() {
        vm.deferred.push(deferred);
    }
    Ok(())
}

pub(crate) fn close(guest: &mut Guest<'_>, kind: i32) -> Answer {
    let vm = guest.vm();
    // kong-host.md §4: NYI.
    if vm.settings.kong(|rules| rules.unimplemented_traps) {
        return trap("NYI - proxy_close_stream");
    }
    if !(0..=3).contains(&kind) {
        return Err(Status::BadArgument.into());
    }
    if !vm.in_root() && kind < 2 {
        let context = vm.context();
        vm.deferred.push(Deferred::Close(context));
    }
    Ok(())
}

pub(crate) fn set_effective_context(guest: &mut Guest<'_>, context: i32) -> Answer {
    let vm = guest.vm();
    let context = context.cast_unsigned();
    // kong-host.md §4: a no-op.
    if vm.settings.kong(|rules| rules.effective_context_ignored) {
        return Ok(());
    }
    let alive = vm.exchanges.get(&context).is_some_and(|exchange| exchange.created);
    if context != super::vm::ROOT && !alive {
        return Err(Status::BadArgument.into());
    }
    vm.effective = Some(context);
    Ok(())
}

pub(crate) fn done(guest: &mut Guest<'_>) -> Answer {
    // kong-host.md §4: NYI. Envoy: NotFound, as no context waits for it here.
    if guest.vm().settings.kong(|rules| rules.unimplemented_traps) {
        return trap("NYI - proxy_done");
    }
    Err(Status::NotFound.into())
}

/// Neither host has gRPC services configured; kong-host.md §4: NYI there.
pub(crate) fn grpc(guest: &mut Guest<'_>) -> Answer {
    if guest.vm().settings.kong(|rules| rules.unimplemented_traps) {
        return trap("NYI - gRPC");
    }
    Err(Status::Unimplemented.into())
}

pub(crate) fn local_response(
    guest: &mut Guest<'_>,
    status: i32,
    details: (i32, i32),
    body: (i32, i32),
    pairs: (i32, i32),
) -> Answer {
    let details = guest.read_text(details.0, details.1)?;
    let body = guest.read(body.0, body.1)?;
    let headers = guest.read_pairs(pairs.0, pairs.1)?;
    let vm = guest.vm();
    let kong = vm.profile() == Profile::Kong;
    let status = u16::try_from(status).unwrap_or(0);
    if kong && !(100..=999).contains(&status) {
        return Err(Status::BadArgument.into());
    }
    let context = vm.context();
    let phase = vm.phase;
    let rules = vm.settings.kong.clone();
    let Some(exchange) = vm.exchanges.get_mut(&context) else {
        return if kong { trap("no request in a root context") } else { Ok(()) };
    };
    if kong {
        // kong-host.md §5: in response_body → trap.
        if phase == Phase::ResponseBody && rules.local_reply_in_response_body_traps {
            return trap("response already sent");
        }
        if exchange.stashed && rules.second_local_reply_traps {
            return trap("local response already stashed");
        }
        exchange.stashed = true;
        // `ngx_proxy_wasm_dispatch_ops_cancel`.
        let before = vm.calls.len();
        vm.calls.retain(|_, call| call.context != context);
        if vm.calls.len() != before {
            vm.log(
                LogLevel::Info,
                "local response produced, cancelling pending dispatch operations",
            );
        }
    }
    vm.stopped = true;
    let details = details.replace(char::is_whitespace, "_");
    vm.deferred.push(Deferred::Reply { exchange: context, status, details, headers, body });
    Ok(())
}

pub(crate) fn http_call(
    guest: &mut Guest<'_>,
    cluster: (i32, i32),
    headers: (i32, i32),
    body: (i32, i32),
    trailers: (i32, i32),
    timeout: i32,
    token_at: i32,
) -> Answer {
    check_dispatch_phase(guest.vm())?;
    let cluster = guest.read_text(cluster.0, cluster.1)?;
    let mut headers = guest.read_pairs(headers.0, headers.1)?;
    let body = guest.read(body.0, body.1)?;
    let trailers = guest.read_pairs(trailers.0, trailers.1)?;
    let vm = guest.vm();
    let has = |name: &str| headers.get(name).is_some_and(|value| !value.is_empty());
    match vm.profile() {
        Profile::Envoy => {
            let known =
                vm.settings.clusters.as_ref().is_none_or(|clusters| clusters.contains(&cluster));
            let complete = has(":method") && has(":path") && has(":authority");
            let refused = timeout < 0 || !known || !complete;
            if refused && vm.settings.envoy.bad_call_is_bad_argument {
                return Err(Status::BadArgument.into());
            }
            if !body.is_empty() {
                headers.set("content-length", body.len().to_string());
            }
        }
        Profile::Kong => {
            // kong-host.md §5: :method and :path mandatory (missing → trap, not a status).
            if !(has(":method") && has(":path")) && vm.settings.kong.dispatch_needs_method_and_path
            {
                return trap("dispatch failed: no :method or no :path");
            }
            // kong-host.md §5: Host = :authority, Connection: close, content-length added.
            headers.remove("host");
            headers.remove("connection");
            if !has_authority(&headers) {
                headers.add(":authority", cluster.as_bytes());
            }
            headers.add("connection", "close");
            if headers.get("content-length").is_none() {
                headers.add("content-length", body.len().to_string());
            }
        }
    }
    let timeout = (timeout > 0).then(|| Duration::from_millis(u64::from(timeout.cast_unsigned())));
    let request =
        PendingCall { token: 0, exchange: None, cluster, headers, body, trailers, timeout };
    let token = vm.add_call(request);
    guest.write_u32(token_at, token)
}

fn has_authority(headers: &super::http::Headers) -> bool {
    headers.get(":authority").is_some_and(|value| !value.is_empty())
}

/// kong-host.md §5: allowed in request_headers, request_body, on_tick, on_http_call_response; elsewhere → trap.
fn check_dispatch_phase(vm: &Vm) -> Answer {
    if !vm.settings.kong(|rules| rules.dispatch_out_of_phase_traps) {
        return Ok(());
    }
    match vm.phase {
        Phase::RequestHeaders
        | Phase::RequestBody
        | Phase::CallResponse
        | Phase::Tick { stale: false } => Ok(()),
        // kong-host.md §5: after a trap the old timer's on_tick dispatch traps.
        _ => trap(
            "can only send HTTP dispatch during \"on_request_headers\", \"on_request_body\", ...",
        ),
    }
}
