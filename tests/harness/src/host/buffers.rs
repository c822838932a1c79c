//! Buffers: bodies, call responses and the configuration.
//!
//! Envoy's side follows `Context::getBuffer` and `Buffer::copyFrom`; Kong's side kong-host.md §5 and
//! `ngx_proxy_wasm_host.c`.

use super::abi::{Answer, Guest, Status, trap};
use super::http::CallOutcome;
use super::settings::Profile;
use super::vm::{Phase, Vm};

/// `proxy_buffer_type_t`, as far as either proxy knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffer {
    RequestBody,
    ResponseBody,
    CallBody,
    VmConfiguration,
    PluginConfiguration,
    /// Network data, gRPC, foreign calls: nothing that an HTTP filter without gRPC could see.
    Other,
}

impl Buffer {
    fn from_abi(buffer: i32) -> Answer<Self> {
        Ok(match buffer {
            0 => Self::RequestBody,
            1 => Self::ResponseBody,
            4 => Self::CallBody,
            6 => Self::VmConfiguration,
            7 => Self::PluginConfiguration,
            2 | 3 | 5 | 8 => Self::Other,
            _ => return Err(Status::BadArgument.into()),
        })
    }
}

pub(crate) fn get(guest: &mut Guest<'_>, buffer: i32, range: (i32, i32), to: (i32, i32)) -> Answer {
    let buffer = Buffer::from_abi(buffer)?;
    let (start, size) = (range.0.cast_unsigned(), range.1.cast_unsigned());
    let vm = guest.vm();
    let profile = vm.profile();
    let content = match profile {
        Profile::Envoy => content_on_envoy(vm, buffer)?,
        Profile::Kong => content_on_kong(vm, buffer)?,
    };
    if start.checked_add(size).is_none() {
        match profile {
            Profile::Envoy => return Err(Status::BadArgument.into()),
            // `ngx_proxy_wasm_host.c` cuts the size to the content before it looks for an overflow.
            Profile::Kong => {}
        }
    }
    // kong-host.md §5: get_buffer ignores `offset` (returns from 0).
    let start =
        if vm.settings.kong(|rules| rules.get_buffer_ignores_offset) { 0 } else { start as usize };
    let part: Vec<u8> = content.iter().skip(start).take(size as usize).copied().collect();
    if part.is_empty() {
        // Both leave the guest without a buffer; Envoy says so.
        if profile == Profile::Envoy {
            guest.write_u32(to.0, 0)?;
            guest.write_u32(to.1, 0)?;
        }
        return Ok(());
    }
    guest.give(&part, to.0, to.1)
}

pub(crate) fn set(
    guest: &mut Guest<'_>,
    buffer: i32,
    range: (i32, i32),
    data: (i32, i32),
) -> Answer {
    let buffer = Buffer::from_abi(buffer)?;
    let data = guest.read(data.0, data.1)?;
    let (start, size) = (range.0.cast_unsigned() as usize, range.1.cast_unsigned() as usize);
    let vm = guest.vm();
    match vm.profile() {
        Profile::Envoy => set_on_envoy(vm, buffer, start, size, &data),
        Profile::Kong => set_on_kong(vm, buffer, start, size, data),
    }
}

fn content_on_envoy(vm: &mut Vm, buffer: Buffer) -> Answer<Vec<u8>> {
    Ok(match buffer {
        Buffer::RequestBody | Buffer::ResponseBody => {
            body(vm, buffer).map(|body| body.clone()).unwrap_or_default()
        }
        Buffer::CallBody => match &vm.answered {
            Some(CallOutcome::Response { body, .. }) => body.clone(),
            _ => return Err(Status::NotFound.into()),
        },
        Buffer::VmConfiguration => Vec::new(),
        // Only `on_configure` has the plugin at hand.
        Buffer::PluginConfiguration if vm.phase == Phase::Configure => vm.configuration.clone(),
        Buffer::PluginConfiguration | Buffer::Other => return Err(Status::NotFound.into()),
    })
}

fn content_on_kong(vm: &mut Vm, buffer: Buffer) -> Answer<Vec<u8>> {
    let phase = vm.phase;
    match buffer {
        Buffer::RequestBody => {
            let allowed = matches!(phase, Phase::RequestHeaders | Phase::RequestBody | Phase::Log);
            // kong-host.md §5: request body get/set only in request_headers/request_body.
            if !allowed && vm.settings.kong.request_body_out_of_phase_traps {
                return trap("can only get request body during \"on_request_body\", \"on_log\"");
            }
            // kong-host.md §5: a body over client_body_buffer_size is in a file: None.
            let limit = vm.settings.client_body_buffer;
            let in_file = vm.settings.kong.large_body_is_in_a_file;
            match vm.exchange_mut().map(|exchange| exchange.request.held.clone()) {
                Some(body) if !(body.is_empty() || in_file && body.len() > limit) => Ok(body),
                _ => Err(Status::NotFound.into()),
            }
        }
        Buffer::ResponseBody => {
            // kong-host.md §4: bad-context calls trap.
            if phase != Phase::ResponseBody && vm.settings.kong.response_body_out_of_phase_traps {
                return trap("can only get response body during \"on_response_body\"");
            }
            match body(vm, buffer) {
                Some(body) => Ok(body.clone()),
                None => Err(Status::NotFound.into()),
            }
        }
        Buffer::CallBody if !matches!(phase, Phase::CallResponse | Phase::Log) => {
            trap("can only get dispatch response body during \"on_http_dispatch_response\"")
        }
        Buffer::CallBody => match &vm.answered {
            Some(CallOutcome::Response { body, .. }) if !body.is_empty() => Ok(body.clone()),
            Some(_) => Err(Status::NotFound.into()),
            None => Err(Status::BadArgument.into()),
        },
        Buffer::VmConfiguration => Ok(Vec::new()),
        Buffer::PluginConfiguration => Ok(vm.configuration.clone()),
        Buffer::Other => Err(Status::BadArgument.into()),
    }
}

fn body(vm: &mut Vm, buffer: Buffer) -> Option<&mut Vec<u8>> {
    let exchange = vm.exchange_mut()?;
    match buffer {
        Buffer::RequestBody => exchange.request.visible_body(),
        Buffer::ResponseBody => exchange.response.visible_body(),
        _ => None,
    }
}

fn set_on_envoy(vm: &mut Vm, buffer: Buffer, start: usize, size: usize, data: &[u8]) -> Answer {
    match buffer {
        Buffer::RequestBody | Buffer::ResponseBody => {}
        Buffer::CallBody if vm.answered.is_some() => return Err(Status::BadArgument.into()),
        Buffer::VmConfiguration => return Err(Status::BadArgument.into()),
        _ => return Err(Status::NotFound.into()),
    }
    let body = body(vm, buffer).ok_or(Status::BadArgument)?;
    if start == 0 {
        // Envoy 1.40, observed: the first `size` bytes are replaced, none if it is 0, all if it is more.
        body.splice(..size.min(body.len()), data.iter().copied());
    } else if start >= body.len() {
        body.extend_from_slice(data);
    } else {
        return Err(Status::BadArgument.into());
    }
    Ok(())
}

fn set_on_kong(
    vm: &mut Vm,
    buffer: Buffer,
    start: usize,
    size: usize,
    mut data: Vec<u8>,
) -> Answer {
    let phase = vm.phase;
    let rules = &vm.settings.kong;
    let allowed = match buffer {
        Buffer::RequestBody => {
            !rules.request_body_out_of_phase_traps
                || matches!(phase, Phase::RequestHeaders | Phase::RequestBody)
        }
        Buffer::ResponseBody => {
            !rules.response_body_out_of_phase_traps || phase == Phase::ResponseBody
        }
        _ => return Err(Status::BadArgument.into()),
    };
    if !allowed {
        return trap("can only set a body during its own callback");
    }
    let cuts = rules.set_buffer_cuts_to_size;
    let Some(exchange) = vm.exchange_mut() else {
        return trap("no request in a root context");
    };
    let body = match buffer {
        Buffer::RequestBody => &mut exchange.request.held,
        _ => exchange.response.visible_body().ok_or(Status::InternalFailure)?,
    };
    if start == 0 && size == 0 && !data.is_empty() {
        body.splice(..0, data);
        return Ok(());
    }
    // kong-host.md §5: new content is cut to the `size` argument.
    if cuts && !(start > 0 && size == 0) {
        data.truncate(size);
    }
    body.truncate(start);
    body.resize(start, b' ');
    body.extend(data);
    Ok(())
}
