//! Host calls of the proxy-wasm ABI 0.2.1, each with the status the host returns.
//!
//! The SDK's own wrappers panic on statuses they do not expect, and a panic takes every request of
//! the worker with it; here a status is a value. Calls that this module does not declare are not
//! imported, `proxy_get_log_level` among them, which one host cannot provide. Outgoing calls alone
//! go through the SDK, whose dispatcher has to know their tokens.

use proxy_wasm::hostcalls;

/// A status other than `Ok` that a host returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u32);

impl Status {
    /// `NotFound`
    pub(crate) const NOT_FOUND: Self = Self(1);
    /// `CasMismatch`: another came first.
    pub(crate) const CAS_MISMATCH: Self = Self(8);
    /// `InternalFailure`: what Kong answers to property reads outside of requests.
    pub(crate) const INTERNAL_FAILURE: Self = Self(10);
}

/// Kinds of metrics of the ABI.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Metric {
    Counter = 0,
    Histogram = 2,
}

/// Buffers of the ABI.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// Header maps of the ABI.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Map {
    Request = 0,
    Response = 2,
    ResponseTrailers = 3,
    CallResponse = 6,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *mut *mut u8,
        data_size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *const u8,
        data_size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, data_size: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        data_size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, metric: *mut u32) -> u32;
    fn proxy_increment_metric(metric: u32, offset: i64) -> u32;
    fn proxy_record_metric(metric: u32, value: u64) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        data_size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        data: *const u8,
        data_size: usize,
        version: u32,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}

unsafe extern "C" {
    /// The SDK's own export.
    #[link_name = "proxy_on_queue_ready"]
    safe fn enter_queue_ready(context: u32, queue: u32);
}

/// The bytes of a buffer; `None` where the host has none, though it may have said that it has.
pub(crate) fn buffer(buffer: Buffer) -> Option<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: both out-pointers are valid for the duration of the call.
    let status = unsafe {
        proxy_get_buffer_bytes(buffer as u32, 0, usize::MAX, &raw mut data, &raw mut size)
    };
    taken(status, data, size).ok().flatten()
}

/// Replaces all bytes of a buffer.
pub(crate) fn replace_buffer(buffer: Buffer, bytes: &[u8]) -> Result<(), Status> {
    // One host cuts the bytes to the size given, the other wants at least the old size: the largest
    // size replaces everything on both.
    // SAFETY: pointer and length describe `bytes`, which outlives the call.
    let status = unsafe {
        proxy_set_buffer_bytes(buffer as u32, 0, usize::MAX, bytes.as_ptr(), bytes.len())
    };
    done(status)
}

/// The header fields of a map, with names as the host has them.
pub(crate) fn headers(map: Map) -> Result<Vec<(String, Vec<u8>)>, Status> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: both out-pointers are valid for the duration of the call.
    let status = unsafe { proxy_get_header_map_pairs(map as u32, &raw mut data, &raw mut size) };
    let bytes = taken(status, data, size)?.unwrap_or_default();
    // A map that cannot be read is as good as none: what follows refuses the request.
    read_pairs(&bytes).ok_or(Status::INTERNAL_FAILURE)
}

/// Sets a header field, replacing what is there.
pub(crate) fn set_header(map: Map, name: &str, value: &str) -> Result<(), Status> {
    // SAFETY: pointers and lengths describe `name` and `value`, which outlive the call.
    let status = unsafe {
        proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    };
    done(status)
}

/// Removes every header field of this name.
pub(crate) fn remove_header(map: Map, name: &str) -> Result<(), Status> {
    // SAFETY: pointer and length describe `name`, which outlives the call.
    done(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// A property of the host; the parts of the path are separated by NUL.
pub(crate) fn property(path: &str) -> Result<Vec<u8>, Status> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: `path` outlives the call and both out-pointers are valid for its duration.
    let status =
        unsafe { proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size) };
    taken(status, data, size).map(Option::unwrap_or_default)
}

/// Sets a property of the host.
pub(crate) fn set_property(path: &str, value: &[u8]) -> Result<(), Status> {
    // SAFETY: pointers and lengths describe `path` and `value`, which outlive the call.
    let status =
        unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) };
    done(status)
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn current_time() -> Result<u64, Status> {
    let mut time = 0;
    // SAFETY: the out-pointer is valid for the duration of the call.
    done(unsafe { proxy_get_current_time_nanoseconds(&raw mut time) })?;
    Ok(time)
}

/// The host's number for the metric of this name, which is made where there is none.
pub(crate) fn define_metric(kind: Metric, name: &str) -> Result<u32, Status> {
    let mut metric = 0;
    // SAFETY: `name` outlives the call and the out-pointer is valid for its duration.
    done(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut metric) })?;
    Ok(metric)
}

/// Adds to a counter.
pub(crate) fn increment_metric(metric: u32, more: u64) -> Result<(), Status> {
    let more = i64::try_from(more).unwrap_or(i64::MAX);
    // SAFETY: passes numbers only.
    done(unsafe { proxy_increment_metric(metric, more) })
}

/// Puts a value into a histogram.
pub(crate) fn record_metric(metric: u32, value: u64) -> Result<(), Status> {
    // SAFETY: passes numbers only.
    done(unsafe { proxy_record_metric(metric, value) })
}

/// What workers share under this key, and what the host calls this state of it.
pub(crate) fn shared_data(key: &str) -> Result<(Vec<u8>, u32), Status> {
    let (mut data, mut size, mut version) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: `key` outlives the call and the out-pointers are valid for its duration.
    let status = unsafe {
        proxy_get_shared_data(
            key.as_ptr(),
            key.len(),
            &raw mut data,
            &raw mut size,
            &raw mut version,
        )
    };
    Ok((taken(status, data, size)?.unwrap_or_default(), version))
}

/// Sets what workers share under this key, if it is still in this state. 0 is a key that is not there:
/// one host then writes over what has come to be there meanwhile.
pub(crate) fn set_shared_data(key: &str, value: &[u8], version: u32) -> Result<(), Status> {
    // SAFETY: pointers and lengths describe `key` and `value`, which outlive the call.
    done(unsafe {
        proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version)
    })
}

/// Lets a held request go on.
pub(crate) fn resume_request() -> Result<(), Status> {
    // SAFETY: passes a number only.
    done(unsafe { proxy_continue_stream(0) })
}

/// Answers the client.
pub(crate) fn reply<N: AsRef<str>>(
    status: u16,
    headers: &[(N, String)],
    body: &[u8],
) -> Result<(), Status> {
    let pairs = write_pairs(headers);
    // SAFETY: pointers and lengths describe `body` and `pairs`, which outlive the call.
    let status = unsafe {
        proxy_send_local_response(
            u32::from(status),
            std::ptr::null(),
            0,
            body.as_ptr(),
            body.len(),
            pairs.as_ptr(),
            pairs.len(),
            -1,
        )
    };
    done(status)
}

/// Makes host calls act on this context from now on, until the callback ends.
pub(crate) fn act_on(context: u32) -> Result<(), Status> {
    // SAFETY: passes a number only.
    done(unsafe { proxy_set_effective_context(context) })
}

/// Asks for `on_tick` on the active root context, this often.
pub(crate) fn set_tick_period(period: std::time::Duration) -> Result<(), Status> {
    let milliseconds = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: passes a number only.
    done(unsafe { proxy_set_tick_period_milliseconds(milliseconds) })
}

/// Enters `on_queue_ready` of a root context from a callback of a request. The SDK's dispatcher hands
/// the answer to a call to the context whose callback made it; a call that is to outlive its request is
/// made there. Must not be called from within a callback of a root context, which the dispatcher holds.
pub(crate) fn enter_root(root: u32) {
    enter_queue_ready(root, 0);
}

/// Makes an outgoing call; its answer arrives at the context whose callback is running.
pub(crate) fn call(
    upstream: &str,
    headers: Vec<(&str, &str)>,
    body: Option<&[u8]>,
    timeout: std::time::Duration,
) -> Result<u32, Status> {
    hostcalls::dispatch_http_call(upstream, headers, body, Vec::new(), timeout)
        .map_err(|status| Status(status as u32))
}

fn done(status: u32) -> Result<(), Status> {
    if status == 0 { Ok(()) } else { Err(Status(status)) }
}

/// Takes over memory that the host filled.
fn taken(status: u32, data: *mut u8, size: usize) -> Result<Option<Vec<u8>>, Status> {
    done(status)?;
    if data.is_null() {
        return Ok(None);
    }
    // SAFETY: the host got this memory from the SDK's `proxy_on_memory_allocate`, which allocates a
    // `Vec<u8>` of exactly `size` bytes and forgets it; the host has filled it and keeps no pointer.
    Ok(Some(unsafe { Vec::from_raw_parts(data, size, size) }))
}

/// Header maps on the wire: a count, the sizes of every name and value, then each followed by NUL.
fn read_pairs(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let number = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let count = number(0)?;
    let mut position = count.checked_mul(8)?.checked_add(4)?;
    let mut pairs = Vec::with_capacity(count.min(256));
    for index in 0..count {
        let sizes = 4 + index * 8;
        let (name_size, value_size) = (number(sizes)?, number(sizes + 4)?);
        let name = bytes.get(position..position.checked_add(name_size)?)?;
        position += name_size + 1;
        let value = bytes.get(position..position.checked_add(value_size)?)?;
        position += value_size + 1;
        pairs.push((String::from_utf8(name.to_vec()).ok()?, value.to_vec()));
    }
    Some(pairs)
}

fn write_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::with_capacity(256);
    bytes.extend(u32::try_from(pairs.len()).unwrap_or(0).to_le_bytes());
    for (name, value) in pairs {
        bytes.extend(size(name.as_ref()));
        bytes.extend(size(value.as_ref()));
    }
    for (name, value) in pairs {
        bytes.extend(name.as_ref().as_bytes());
        bytes.push(0);
        bytes.extend(value.as_ref().as_bytes());
        bytes.push(0);
    }
    bytes
}
