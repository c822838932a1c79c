//! The WASI snapshot preview 1 that both proxies offer: clock, randomness, environment, standard output.
//!
//! No files, no arguments, no sleeping.

use wasmtime::{Caller, Error, Linker};

use super::abi::{Answer, Fault, Guest};
use super::http::{LogLevel, LogLine};
use super::settings::Profile;
use super::vm::Vm;

/// WASI errno values.
const SUCCESS: i32 = 0;
const BADF: i32 = 8;
const FAULT: i32 = 21;
const NOENT: i32 = 44;
const NOSYS: i32 = 52;
const NOTSUP: i32 = 58;

fn settle(answer: Answer<i32>) -> wasmtime::Result<i32> {
    match answer {
        Ok(errno) => Ok(errno),
        Err(Fault::Status(_)) => Ok(FAULT),
        Err(Fault::Trap(message)) => Err(Error::msg(message)),
    }
}

macro_rules! wasi {
    ($linker:ident: $($name:literal => |$guest:ident $(, $arg:ident: $type:ty)*| $body:expr;)+) => {
        $($linker.func_wrap("wasi_snapshot_preview1", $name, |caller: Caller<'_, Vm> $(, $arg: $type)*| {
            let $guest = &mut Guest::new(caller);
            settle($body)
        })?;)+
    };
}

/// Registers the imports.
pub(crate) fn link(linker: &mut Linker<Vm>) -> wasmtime::Result<()> {
    wasi! { linker:
        "args_get" => |_g, _argv: i32, _buffer: i32| Ok(SUCCESS);
        "args_sizes_get" => |g, count: i32, size: i32| two_words(g, (count, 0), (size, 0));
        "environ_get" => |g, pointers: i32, buffer: i32| environ(g, pointers, buffer);
        "environ_sizes_get" => |g, count: i32, size: i32| environ_sizes(g, count, size);
        "clock_time_get" => |g, clock: i32, _precision: i64, at: i32| clock_time(g, clock, at);
        "random_get" => |g, at: i32, size: i32| random(g, at, size);
        "fd_write" => |g, fd: i32, parts: i32, count: i32, written: i32| write(g, fd, parts, count, written);
        "fd_read" => |_g, _fd: i32, _parts: i32, _count: i32, _read: i32| Ok(NOSYS);
        "fd_close" => |_g, _fd: i32| Ok(SUCCESS);
        "fd_seek" => |_g, _fd: i32, _offset: i64, _whence: i32, _at: i32| Ok(SUCCESS);
        "fd_fdstat_get" => |g, fd: i32, at: i32| descriptor(g, fd, at);
        "fd_fdstat_set_flags" => |_g, _fd: i32, _flags: i32| Ok(NOSYS);
        "fd_prestat_get" => |_g, _fd: i32, _at: i32| Ok(BADF);
        "fd_prestat_dir_name" => |_g, _fd: i32, _path: i32, _size: i32| Ok(NOSYS);
        "path_open" =>
            |_g, _fd: i32, _dir: i32, _path: i32, _size: i32, _open: i32, _base: i64, _inherit: i64, _flags: i32,
             _at: i32| Ok(NOENT);
        "sched_yield" => |g| Ok(if g.vm().profile() == Profile::Envoy { SUCCESS } else { NOTSUP });
        "poll_oneoff" => |_g, _in: i32, _out: i32, _count: i32, _events: i32| Ok(NOTSUP);
    }
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |code: i32| -> wasmtime::Result<()> { Err(Error::msg(format!("proc_exit({code})"))) },
    )?;
    Ok(())
}

fn two_words(guest: &mut Guest<'_>, first: (i32, u32), second: (i32, u32)) -> Answer<i32> {
    guest.write_u32(first.0, first.1)?;
    guest.write_u32(second.0, second.1)?;
    Ok(SUCCESS)
}

/// `NAME=value` NUL, for every variable the filter may see.
fn variables(vm: &Vm) -> Vec<Vec<u8>> {
    // kong-host.md §4: env: only RUST_BACKTRACE/WASMTIME_BACKTRACE_DETAILS.
    let bare = vm.settings.kong(|rules| rules.environment_is_bare);
    let visible =
        |name: &str| !bare || ["RUST_BACKTRACE", "WASMTIME_BACKTRACE_DETAILS"].contains(&name);
    vm.environment
        .iter()
        .filter(|(name, _)| visible(name))
        .map(|(name, value)| format!("{name}={value}\0").into_bytes())
        .collect()
}

fn environ_sizes(guest: &mut Guest<'_>, count_at: i32, size_at: i32) -> Answer<i32> {
    let variables = variables(guest.vm());
    let size = variables.iter().map(Vec::len).sum::<usize>();
    let word = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    two_words(guest, (count_at, word(variables.len())), (size_at, word(size)))
}

fn environ(guest: &mut Guest<'_>, mut pointer_at: i32, mut at: i32) -> Answer<i32> {
    for variable in variables(guest.vm()) {
        guest.write_u32(pointer_at, at.cast_unsigned())?;
        guest.write(at, &variable)?;
        pointer_at += 4;
        at += i32::try_from(variable.len()).unwrap_or(0);
    }
    Ok(SUCCESS)
}

fn clock_time(guest: &mut Guest<'_>, clock: i32, at: i32) -> Answer<i32> {
    if !(0..=1).contains(&clock) {
        return Ok(NOTSUP);
    }
    let nanoseconds = u64::try_from(guest.vm().now.as_nanos()).unwrap_or(u64::MAX);
    guest.write(at, &nanoseconds.to_le_bytes())?;
    Ok(SUCCESS)
}

fn random(guest: &mut Guest<'_>, at: i32, size: i32) -> Answer<i32> {
    let vm = guest.vm();
    let bytes: Vec<u8> = (0..size.cast_unsigned()).map(|_| vm.random_byte()).collect();
    guest.write(at, &bytes)?;
    Ok(SUCCESS)
}

fn write(guest: &mut Guest<'_>, fd: i32, parts: i32, count: i32, written_at: i32) -> Answer<i32> {
    // kong-host.md §4: 1→info, 2→error; the same in Envoy.
    let level = match fd {
        1 => LogLevel::Info,
        2 => LogLevel::Error,
        _ => return Ok(BADF),
    };
    let mut bytes = Vec::new();
    for index in 0..count {
        let part = guest.read(parts + index * 8, 8)?;
        let mut words =
            part.chunks_exact(4).filter_map(|word| Some(i32::from_le_bytes(word.try_into().ok()?)));
        if let (Some(at), Some(size)) = (words.next(), words.next()) {
            bytes.extend(guest.read(at, size)?);
        }
    }
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if !bytes.is_empty() {
        let text = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
        guest.vm().logs.push(LogLine { level, by_filter: true, text });
    }
    guest.write_u32(written_at, size)?;
    Ok(SUCCESS)
}

/// Standard output and error may be written, nothing else.
fn descriptor(guest: &mut Guest<'_>, fd: i32, at: i32) -> Answer<i32> {
    if !(1..=2).contains(&fd) {
        return Ok(BADF);
    }
    let mut stat = [0; 24];
    stat[8] = 64; // fs_rights_base: FD_WRITE
    guest.write(at, &stat)?;
    Ok(SUCCESS)
}
