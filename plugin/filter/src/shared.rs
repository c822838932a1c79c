//! The memory that all workers share, where calls are counted.

use toolgate_core::{Event, Gateway, SharedAccess, SharedSlot, SharedValue};

use crate::abi::{self, Status};
use crate::host::Host;

/// Makes the slots of a gateway, before any worker counts: Envoy creates a key by writing over whatever
/// another worker has written there meanwhile. It configures the plugin once on its main thread before it
/// does so on its workers.
pub(crate) fn prepare(gateway: &Gateway, host: Host) {
    if host.creates_shared_data() {
        return;
    }
    for (slot, empty) in gateway.shared_slots() {
        let key = slot.key();
        if let Err(Status::NOT_FOUND) = abi::shared_data(&key)
            && let Err(Status(status)) = abi::set_shared_data(&key, empty, 0)
        {
            log::error!(
                "{key} could not be made, calls that count there are refused: status {status}"
            );
        }
    }
}

/// Does what a decision asks for, and says what came of it.
pub(crate) fn access(access: &SharedAccess, host: Host) -> Event<'static> {
    match access {
        SharedAccess::Read(slots) => {
            Event::SharedRead(slots.iter().map(|slot| read(*slot, host)).collect())
        }
        SharedAccess::Write { slot, value } => Event::SharedWritten(write(*slot, value)),
    }
}

fn read(slot: SharedSlot, host: Host) -> Option<SharedValue> {
    let key = slot.key();
    match abi::shared_data(&key) {
        Ok((bytes, version)) => Some(SharedValue { bytes, version }),
        Err(Status::NOT_FOUND) if host.creates_shared_data() => {
            Some(SharedValue { bytes: Vec::new(), version: 0 })
        }
        Err(Status(status)) => {
            log::error!("{key} could not be read: status {status}");
            None
        }
    }
}

fn write(slot: SharedSlot, value: &SharedValue) -> bool {
    match abi::set_shared_data(&slot.key(), &value.bytes, value.version) {
        Ok(()) => true,
        Err(Status::CAS_MISMATCH) => false,
        Err(Status(status)) => {
            log::error!("{} could not be written: status {status}", slot.key());
            false
        }
    }
}
