//! The `env` imports of proxy-wasm ABI 0.2.1: registration, guest memory, statuses, pair serialisation.
//!
//! What each call does is in `maps`, `buffers`, `stream`, `properties` and below; this file only knows how
//! arguments travel.

use wasmtime::{Caller, Error, Extern, Linker, Memory, Val};

use super::http::Headers;
use super::settings::Profile;
use super::vm::Vm;
use super::{buffers, maps, properties, stores, stream};

/// `proxy_status_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
}

/// Why a host call does not answer Ok.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The filter is told.
    Status(Status),
    /// The instance dies.
    Trap(String),
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// The result of a host call.
pub(crate) type Answer<T = ()> = Result<T, Fault>;

pub(crate) fn trap<T>(message: impl Into<String>) -> Answer<T> {
    Err(Fault::Trap(message.into()))
}

/// Guest memory and the proxy's state during one host call.
pub(crate) struct Guest<'a> {
    caller: Caller<'a, Vm>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(caller: Caller<'a, Vm>) -> Self {
        Self { caller }
    }
}

impl Guest<'_> {
    pub(crate) fn vm(&mut self) -> &mut Vm {
        self.caller.data_mut()
    }

    /// Envoy answers InvalidMemoryAccess, wasmtime under Kong traps.
    fn out_of_bounds(&self) -> Fault {
        match self.caller.data().profile() {
            Profile::Envoy => Status::InvalidMemoryAccess.into(),
            Profile::Kong => Fault::Trap("out of bounds memory access".to_owned()),
        }
    }

    fn memory(&mut self) -> Answer<Memory> {
        match self.caller.get_export("memory") {
            Some(Extern::Memory(memory)) => Ok(memory),
            _ => trap("the module exports no memory"),
        }
    }

    pub(crate) fn read(&mut self, pointer: i32, size: i32) -> Answer<Vec<u8>> {
        let memory = self.memory()?;
        let start = pointer.cast_unsigned() as usize;
        let bytes = memory
            .data(&self.caller)
            .get(start..)
            .and_then(|tail| tail.get(..size.cast_unsigned() as usize));
        match bytes {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Err(self.out_of_bounds()),
        }
    }

    pub(crate) fn read_text(&mut self, pointer: i32, size: i32) -> Answer<String> {
        Ok(String::from_utf8_lossy(&self.read(pointer, size)?).into_owned())
    }

    pub(crate) fn write(&mut self, pointer: i32, bytes: &[u8]) -> Answer {
        let memory = self.memory()?;
        match memory.write(&mut self.caller, pointer.cast_unsigned() as usize, bytes) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.out_of_bounds()),
        }
    }

    pub(crate) fn write_u32(&mut self, pointer: i32, value: u32) -> Answer {
        self.write(pointer, &value.to_le_bytes())
    }

    /// Copies bytes into memory that the guest allocates, and stores where they are.
    pub(crate) fn give(&mut self, bytes: &[u8], pointer_at: i32, size_at: i32) -> Answer {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // Envoy allocates nothing for nothing; ngx_wasm_module asks the guest for 0 bytes.
        let pointer = if bytes.is_empty() && self.vm().profile() == Profile::Envoy {
            0
        } else {
            self.allocate(size)?
        };
        self.write(pointer, bytes)?;
        self.write_u32(pointer_at, pointer.cast_unsigned())?;
        self.write_u32(size_at, size)
    }

    fn allocate(&mut self, size: u32) -> Answer<i32> {
        let found = ["proxy_on_memory_allocate", "malloc"]
            .iter()
            .find_map(|name| self.caller.get_export(name));
        let Some(Extern::Func(allocate)) = found else {
            return trap("the module exports neither proxy_on_memory_allocate nor malloc");
        };
        let mut results = [Val::I32(0)];
        match allocate.call(&mut self.caller, &[Val::I32(size.cast_signed())], &mut results) {
            Ok(()) => Ok(results.first().and_then(Val::i32).unwrap_or(0)),
            Err(error) => trap(format!("allocating {size} bytes: {error}")),
        }
    }
}

/// Turns the result of a host call into what wasm sees.
fn settle(answer: Answer) -> wasmtime::Result<i32> {
    match answer {
        Ok(()) => Ok(Status::Ok as i32),
        Err(Fault::Status(status)) => Ok(status as i32),
        Err(Fault::Trap(message)) => Err(Error::msg(message)),
    }
}

/// `u32 count, (u32 name size, u32 value size)*, (name NUL value NUL)*`.
pub(crate) fn marshal(headers: &Headers) -> Vec<u8> {
    let word = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = word(headers.len()).to_vec();
    for (name, value) in headers.iter() {
        bytes.extend(word(name.len()));
        bytes.extend(word(value.len()));
    }
    for (name, value) in headers.iter() {
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(value);
        bytes.push(0);
    }
    bytes
}

/// The inverse of [`marshal`]; `None` when the bytes are not pairs.
pub(crate) fn unmarshal(bytes: &[u8]) -> Option<Headers> {
    fn word<'a>(rest: &mut &'a [u8]) -> Option<usize> {
        let (head, tail): (&'a [u8; 4], &'a [u8]) = rest.split_first_chunk()?;
        *rest = tail;
        Some(u32::from_le_bytes(*head) as usize)
    }
    fn text<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
        let (head, tail) = rest.split_at_checked(size)?;
        *rest = tail.strip_prefix(&[0])?;
        Some(head)
    }
    let mut rest = bytes;
    let count = word(&mut rest)?;
    if count > rest.len() {
        return None;
    }
    let sizes = (0..count)
        .map(|_| Some((word(&mut rest)?, word(&mut rest)?)))
        .collect::<Option<Vec<_>>>()?;
    let mut headers = Headers::new();
    for (name, value) in sizes {
        let name = String::from_utf8_lossy(text(&mut rest, name)?).into_owned();
        headers.add(name, text(&mut rest, value)?);
    }
    rest.is_empty().then_some(headers)
}

impl Guest<'_> {
    /// Pairs from guest memory. Malformed ones are no pairs at all in Envoy and a failure in Kong.
    pub(crate) fn read_pairs(&mut self, pointer: i32, size: i32) -> Answer<Headers> {
        let bytes = self.read(pointer, size)?;
        if bytes.is_empty() {
            return Ok(Headers::new());
        }
        match (unmarshal(&bytes), self.vm().profile()) {
            (Some(pairs), Profile::Envoy) => Ok(pairs.lowercase_names()),
            (Some(pairs), Profile::Kong) => Ok(pairs),
            (None, Profile::Envoy) => Ok(Headers::new()),
            (None, Profile::Kong) => Err(Status::InternalFailure.into()),
        }
    }
}

macro_rules! imports {
    ($linker:ident: $($name:literal => |$guest:ident $(, $arg:ident: $type:ty)*| $body:expr;)+) => {
        $($linker.func_wrap("env", $name, |caller: Caller<'_, Vm> $(, $arg: $type)*| {
            let $guest = &mut Guest::new(caller);
            settle($body)
        })?;)+
    };
}

/// Registers every `env` import the profile offers.
pub(crate) fn link(linker: &mut Linker<Vm>, offers_log_level: bool) -> wasmtime::Result<()> {
    imports! { linker:
        "proxy_log" => |g, level: i32, text: i32, size: i32| stores::log(g, level, text, size);
        "proxy_get_current_time_nanoseconds" => |g, at: i32| stores::current_time(g, at);
        "proxy_set_tick_period_milliseconds" => |g, period: i32| stores::set_tick_period(g, period);
        "proxy_get_status" => |g, code: i32, text: i32, size: i32| stores::status(g, code, text, size);
        "proxy_call_foreign_function" =>
            |g, name: i32, name_size: i32, _data: i32, _data_size: i32, _at: i32, _size_at: i32|
            stores::foreign_function(g, name, name_size);
        "proxy_get_shared_data" => |g, key: i32, key_size: i32, at: i32, size_at: i32, cas_at: i32|
            stores::get_shared_data(g, (key, key_size), (at, size_at), cas_at);
        "proxy_set_shared_data" => |g, key: i32, key_size: i32, value: i32, size: i32, cas: i32|
            stores::set_shared_data(g, (key, key_size), (value, size), cas);
        "proxy_register_shared_queue" => |g, name: i32, size: i32, at: i32|
            stores::register_queue(g, name, size, at);
        "proxy_resolve_shared_queue" => |g, _vm: i32, _vm_size: i32, name: i32, size: i32, at: i32|
            stores::resolve_queue(g, name, size, at);
        "proxy_enqueue_shared_queue" => |g, token: i32, value: i32, size: i32|
            stores::enqueue(g, token, value, size);
        "proxy_dequeue_shared_queue" => |g, token: i32, at: i32, size_at: i32|
            stores::dequeue(g, token, at, size_at);
        "proxy_define_metric" => |g, kind: i32, name: i32, size: i32, at: i32|
            stores::define_metric(g, kind, name, size, at);
        "proxy_increment_metric" => |g, id: i32, offset: i64| stores::increment_metric(g, id, offset);
        "proxy_record_metric" => |g, id: i32, value: i64| stores::record_metric(g, id, value);
        "proxy_get_metric" => |g, id: i32, at: i32| stores::get_metric(g, id, at);

        "proxy_get_buffer_bytes" => |g, kind: i32, start: i32, size: i32, at: i32, size_at: i32|
            buffers::get(g, kind, (start, size), (at, size_at));
        "proxy_set_buffer_bytes" => |g, kind: i32, start: i32, size: i32, data: i32, data_size: i32|
            buffers::set(g, kind, (start, size), (data, data_size));

        "proxy_get_header_map_pairs" => |g, map: i32, at: i32, size_at: i32| maps::pairs(g, map, at, size_at);
        "proxy_set_header_map_pairs" => |g, map: i32, data: i32, size: i32| maps::set_pairs(g, map, data, size);
        "proxy_get_header_map_value" => |g, map: i32, name: i32, name_size: i32, at: i32, size_at: i32|
            maps::value(g, map, (name, name_size), (at, size_at));
        "proxy_replace_header_map_value" => |g, map: i32, name: i32, name_size: i32, value: i32, size: i32|
            maps::edit(g, map, maps::Edit::Replace, (name, name_size), (value, size));
        "proxy_add_header_map_value" => |g, map: i32, name: i32, name_size: i32, value: i32, size: i32|
            maps::edit(g, map, maps::Edit::Add, (name, name_size), (value, size));
        "proxy_remove_header_map_value" => |g, map: i32, name: i32, name_size: i32|
            maps::edit(g, map, maps::Edit::Remove, (name, name_size), (0, 0));

        "proxy_get_property" => |g, path: i32, size: i32, at: i32, size_at: i32|
            properties::get(g, (path, size), (at, size_at));
        "proxy_set_property" => |g, path: i32, size: i32, value: i32, value_size: i32|
            properties::set(g, (path, size), (value, value_size));

        "proxy_continue_stream" => |g, kind: i32| stream::resume(g, kind);
        "proxy_close_stream" => |g, kind: i32| stream::close(g, kind);
        "proxy_set_effective_context" => |g, context: i32| stream::set_effective_context(g, context);
        "proxy_done" => |g| stream::done(g);
        "proxy_send_local_response" =>
            |g, status: i32, details: i32, details_size: i32, body: i32, body_size: i32, pairs: i32,
             pairs_size: i32, _grpc: i32|
            stream::local_response(g, status, (details, details_size), (body, body_size), (pairs, pairs_size));
        "proxy_http_call" =>
            |g, cluster: i32, cluster_size: i32, headers: i32, headers_size: i32, body: i32, body_size: i32,
             trailers: i32, trailers_size: i32, timeout: i32, at: i32|
            stream::http_call(
                g, (cluster, cluster_size), (headers, headers_size), (body, body_size),
                (trailers, trailers_size), timeout, at,
            );

        "proxy_grpc_call" =>
            |g, _a: i32, _b: i32, _c: i32, _d: i32, _e: i32, _f: i32, _h: i32, _i: i32, _j: i32, _k: i32, _l: i32,
             _m: i32| stream::grpc(g);
        "proxy_grpc_stream" =>
            |g, _a: i32, _b: i32, _c: i32, _d: i32, _e: i32, _f: i32, _h: i32, _i: i32, _j: i32| stream::grpc(g);
        "proxy_grpc_send" => |g, _token: i32, _data: i32, _size: i32, _end: i32| stream::grpc(g);
        "proxy_grpc_cancel" => |g, _token: i32| stream::grpc(g);
        "proxy_grpc_close" => |g, _token: i32| stream::grpc(g);
    }
    if offers_log_level {
        imports! { linker:
            "proxy_get_log_level" => |g, at: i32| stores::log_level(g, at);
        }
    }
    Ok(())
}
