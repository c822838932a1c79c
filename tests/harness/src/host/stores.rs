//! Host calls that touch no stream: log, clock, timer, shared data, queues, metrics.

use std::time::Duration;

use super::abi::{Answer, Guest, Status, trap};
use super::http::{LogLevel, LogLine};
use super::settings::Profile;
use super::shared::ZeroCas;
use super::vm::Timer;

pub(crate) fn log(guest: &mut Guest<'_>, level: i32, text: i32, size: i32) -> Answer {
    let text = guest.read_text(text, size)?;
    let vm = guest.vm();
    match (LogLevel::from_abi(level), vm.profile()) {
        (Some(level), _) => {
            vm.logs.push(LogLine { level, by_filter: true, text });
            Ok(())
        }
        (None, Profile::Kong) => Err(Status::BadArgument.into()),
        (None, Profile::Envoy) => trap(format!("log level {level}: Envoy panics")),
    }
}

pub(crate) fn log_level(guest: &mut Guest<'_>, at: i32) -> Answer {
    guest.write_u32(at, LogLevel::Info as u32)
}

/// kong-host.md §4: the clock does not advance inside one callback; here it never does by itself.
pub(crate) fn current_time(guest: &mut Guest<'_>, at: i32) -> Answer {
    let nanoseconds = u64::try_from(guest.vm().now.as_nanos()).unwrap_or(u64::MAX);
    guest.write(at, &nanoseconds.to_le_bytes())
}

pub(crate) fn set_tick_period(guest: &mut Guest<'_>, period: i32) -> Answer {
    let vm = guest.vm();
    // kong-host.md §4: root only.
    if vm.settings.kong(|rules| rules.tick_period_in_root_only) && !vm.in_root() {
        return trap("can only set tick_period in root context");
    }
    let ticking = vm.timers.iter().any(|timer| !timer.stale);
    // kong-host.md §4: second non-zero call without 0 first traps.
    if vm.settings.kong(|rules| rules.second_tick_period_traps) && period != 0 && ticking {
        return trap("tick_period already set");
    }
    vm.timers.retain(|timer| timer.stale);
    if period != 0 {
        let period = Duration::from_millis(u64::from(period.cast_unsigned()));
        vm.timers.push(Timer { period, stale: false });
    }
    Ok(())
}

pub(crate) fn status(guest: &mut Guest<'_>, code: i32, text: i32, size: i32) -> Answer {
    // kong-host.md §4: NYI.
    if guest.vm().settings.kong(|rules| rules.unimplemented_traps) {
        return trap("NYI - proxy_get_status");
    }
    guest.write_u32(code, 0)?;
    guest.give(b"", text, size)
}

/// Neither proxy offers a function by any name we use (Kong 3.9 is older than `resolve_lua`).
pub(crate) fn foreign_function(guest: &mut Guest<'_>, name: i32, size: i32) -> Answer {
    let name = guest.read_text(name, size)?;
    guest.vm().log(LogLevel::Debug, format!("no foreign function {name:?}"));
    Err(Status::NotFound.into())
}

/// kong-host.md §5: no `shm_kv *` → trap. With `shared_zone_configured` off there is none.
fn require_zone(guest: &mut Guest<'_>) -> Answer {
    let vm = guest.vm();
    if vm.profile() == Profile::Kong && !vm.settings.kong.shared_zone_configured {
        return trap("shared data: could not resolve namespace");
    }
    Ok(())
}

pub(crate) fn get_shared_data(
    guest: &mut Guest<'_>,
    key: (i32, i32),
    to: (i32, i32),
    cas_at: i32,
) -> Answer {
    let key = guest.read(key.0, key.1)?;
    require_zone(guest)?;
    let (value, cas) = guest.vm().settings.shared_data.value(&key).ok_or(Status::NotFound)?;
    guest.give(&value, to.0, to.1)?;
    guest.write_u32(cas_at, cas)
}

pub(crate) fn set_shared_data(
    guest: &mut Guest<'_>,
    key: (i32, i32),
    value: (i32, i32),
    cas: i32,
) -> Answer {
    let key = guest.read(key.0, key.1)?;
    let null = value.0 == 0;
    let value = guest.read(value.0, value.1)?;
    require_zone(guest)?;
    let settings = &guest.vm().settings;
    // kong-host.md §5: delete is a null value, and needs the current cas too.
    let value =
        if null && settings.kong(|rules| rules.null_value_deletes) { None } else { Some(value) };
    // kong-host.md §5: cas 0 on an existing key is CasMismatch; in Envoy 0 is unconditional.
    let zero = if settings.kong(|rules| rules.cas_zero_never_overwrites) {
        ZeroCas::MustBeAbsent
    } else {
        ZeroCas::Unconditional
    };
    Ok(settings.shared_data.set(&key, value, cas.cast_unsigned(), zero)?)
}

pub(crate) fn register_queue(guest: &mut Guest<'_>, name: i32, size: i32, at: i32) -> Answer {
    let name = guest.read(name, size)?;
    // kong-host.md §4: needs shm_queue, which Kong forbids.
    if guest.vm().settings.kong(|rules| rules.shared_queues_trap) {
        return trap("could not find queue");
    }
    let token = guest.vm().queues.register(name);
    guest.write_u32(at, token)
}

pub(crate) fn resolve_queue(guest: &mut Guest<'_>, name: i32, size: i32, at: i32) -> Answer {
    // kong-host.md §4: NYI.
    if guest.vm().settings.kong(|rules| rules.unimplemented_traps) {
        return trap("NYI - proxy_resolve_shared_queue");
    }
    let name = guest.read(name, size)?;
    let token = guest.vm().queues.resolve(&name).ok_or(Status::NotFound)?;
    guest.write_u32(at, token)
}

pub(crate) fn enqueue(guest: &mut Guest<'_>, token: i32, value: i32, size: i32) -> Answer {
    let value = guest.read(value, size)?;
    if guest.vm().settings.kong(|rules| rules.shared_queues_trap) {
        return trap("could not find queue");
    }
    Ok(guest.vm().queues.push(token.cast_unsigned(), value)?)
}

pub(crate) fn dequeue(guest: &mut Guest<'_>, token: i32, at: i32, size_at: i32) -> Answer {
    if guest.vm().settings.kong(|rules| rules.shared_queues_trap) {
        return trap("could not find queue");
    }
    let value = guest.vm().queues.pop(token.cast_unsigned())?;
    guest.give(&value, at, size_at)
}

pub(crate) fn define_metric(
    guest: &mut Guest<'_>,
    kind: i32,
    name: i32,
    size: i32,
    at: i32,
) -> Answer {
    let name = guest.read_text(name, size)?;
    // kong-host.md §5: names limited (256, with the prefix "pw:<filter>:").
    if guest.vm().settings.kong(|rules| rules.long_metric_name_traps)
        && name.len() + "pw:toolgate:".len() > 256
    {
        return trap(format!("could not define metric: name {name:?} too long"));
    }
    let id = guest.vm().metrics.define(kind.cast_unsigned(), &name);
    let id = metric(guest, id)?;
    guest.write_u32(at, id)
}

pub(crate) fn increment_metric(guest: &mut Guest<'_>, id: i32, offset: i64) -> Answer {
    let done = guest.vm().metrics.increment(id.cast_unsigned(), offset);
    metric(guest, done)
}

pub(crate) fn record_metric(guest: &mut Guest<'_>, id: i32, value: i64) -> Answer {
    let done = guest.vm().metrics.record(id.cast_unsigned(), value.cast_unsigned());
    metric(guest, done)
}

pub(crate) fn get_metric(guest: &mut Guest<'_>, id: i32, at: i32) -> Answer {
    let value = guest.vm().metrics.value(id.cast_unsigned());
    let value = metric(guest, value)?;
    guest.write(at, &value.to_le_bytes())
}

/// `ngx_proxy_wasm_host.c`: every metric error traps; Envoy returns the status.
fn metric<T>(guest: &mut Guest<'_>, result: Result<T, Status>) -> Answer<T> {
    match (result, guest.vm().profile()) {
        (Ok(value), _) => Ok(value),
        (Err(status), Profile::Envoy) => Err(status.into()),
        (Err(status), Profile::Kong) => trap(format!("metric: {status:?}")),
    }
}
