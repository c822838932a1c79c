//! What outlives one VM: shared data of the process, queues and metrics of one host.
//!
//! Statuses follow `shared_data.cc` of proxy-wasm-cpp-host and `ngx_wa_shm_kv.c` of `ngx_wasm_module`.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::abi::Status;

/// The key/value store that every worker of one proxy process shares. Clones are handles to one store.
#[derive(Clone, Debug, Default)]
pub struct SharedData {
    store: Rc<RefCell<Store>>,
}

#[derive(Debug, Default)]
struct Store {
    values: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_cas: u32,
    outruns: u32,
}

/// How a compare-and-swap of 0 is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ZeroCas {
    /// "Whatever is there": Envoy.
    Unconditional,
    /// "Nothing is there": Kong.
    MustBeAbsent,
}

impl SharedData {
    /// The value and its cas.
    #[must_use]
    pub fn value(&self, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        self.store.borrow().values.get(key).cloned()
    }

    /// Removes a key behind the filter's back, as Kong's LRU eviction does.
    pub fn evict(&self, key: &[u8]) {
        self.store.borrow_mut().values.remove(key);
    }

    /// Lets another worker write first, so many times: as often a compare-and-swap comes too late.
    pub fn outrun(&self, times: u32) {
        self.store.borrow_mut().outruns = times;
    }

    /// How often another worker will still write first.
    #[must_use]
    pub fn outruns(&self) -> u32 {
        self.store.borrow().outruns
    }

    /// Every key.
    #[must_use]
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.store.borrow().values.keys().cloned().collect()
    }

    pub(crate) fn set(
        &self,
        key: &[u8],
        value: Option<Vec<u8>>,
        cas: u32,
        zero: ZeroCas,
    ) -> Result<(), Status> {
        let store = &mut *self.store.borrow_mut();
        if cas != 0
            && store.outruns > 0
            && let Some((_, current)) = store.values.get_mut(key)
        {
            store.outruns -= 1;
            store.last_cas += 1;
            *current = store.last_cas;
        }
        let present = store.values.get(key).map(|(_, cas)| *cas);
        let accepted = match (zero, present) {
            (ZeroCas::Unconditional, None) => true,
            (ZeroCas::Unconditional, Some(current)) => cas == 0 || cas == current,
            (ZeroCas::MustBeAbsent, current) => cas == current.unwrap_or(0),
        };
        if !accepted {
            return Err(Status::CasMismatch);
        }
        match value {
            Some(value) => {
                store.last_cas += 1;
                store.values.insert(key.to_vec(), (value, store.last_cas));
                Ok(())
            }
            None if present.is_some() => {
                store.values.remove(key);
                Ok(())
            }
            None => Err(Status::CasMismatch),
        }
    }
}

/// The queues of one host.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    names: Vec<Vec<u8>>,
    items: Vec<VecDeque<Vec<u8>>>,
}

impl Queues {
    /// Tokens start at 1, as in Envoy: 0 means "no such queue".
    pub(crate) fn register(&mut self, name: Vec<u8>) -> u32 {
        if let Some(token) = self.resolve(&name) {
            return token;
        }
        self.names.push(name);
        self.items.push(VecDeque::new());
        u32::try_from(self.names.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn resolve(&self, name: &[u8]) -> Option<u32> {
        let index = self.names.iter().position(|known| known == name)?;
        u32::try_from(index + 1).ok()
    }

    pub(crate) fn push(&mut self, token: u32, item: Vec<u8>) -> Result<(), Status> {
        self.queue(token)?.push_back(item);
        Ok(())
    }

    pub(crate) fn pop(&mut self, token: u32) -> Result<Vec<u8>, Status> {
        self.queue(token)?.pop_front().ok_or(Status::Empty)
    }

    fn queue(&mut self, token: u32) -> Result<&mut VecDeque<Vec<u8>>, Status> {
        let index = (token as usize).checked_sub(1).ok_or(Status::NotFound)?;
        self.items.get_mut(index).ok_or(Status::NotFound)
    }
}

/// The kind of a metric, as the ABI numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// The metrics of one host. They outlive the instance, as in both proxies.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    defined: BTreeMap<u32, (MetricKind, String)>,
    values: BTreeMap<u32, u64>,
}

impl Metrics {
    /// The id keeps the kind in its low bits, as Envoy's do.
    pub(crate) fn define(&mut self, kind: u32, name: &str) -> Result<u32, Status> {
        let (kind, bits) = match kind {
            0 => (MetricKind::Counter, 0),
            1 => (MetricKind::Gauge, 1),
            2 => (MetricKind::Histogram, 2),
            _ => return Err(Status::BadArgument),
        };
        let known = self.defined.iter().find(|(_, (k, n))| *k == kind && n == name);
        if let Some((id, _)) = known {
            return Ok(*id);
        }
        let count = u32::try_from(self.defined.len()).unwrap_or(u32::MAX >> 3);
        let id = ((count + 1) << 2) | bits;
        self.defined.insert(id, (kind, name.to_owned()));
        self.values.insert(id, 0);
        Ok(id)
    }

    pub(crate) fn increment(&mut self, id: u32, offset: i64) -> Result<(), Status> {
        let (kind, _) = self.defined.get(&id).ok_or(Status::NotFound)?;
        let value = self.values.entry(id).or_default();
        match kind {
            MetricKind::Counter if offset > 0 => *value = value.wrapping_add(offset.unsigned_abs()),
            MetricKind::Gauge => *value = value.wrapping_add_signed(offset),
            MetricKind::Counter | MetricKind::Histogram => return Err(Status::BadArgument),
        }
        Ok(())
    }

    pub(crate) fn record(&mut self, id: u32, recorded: u64) -> Result<(), Status> {
        let (kind, _) = self.defined.get(&id).ok_or(Status::NotFound)?;
        let value = self.values.entry(id).or_default();
        match kind {
            MetricKind::Counter => *value = value.wrapping_add(recorded),
            MetricKind::Gauge => *value = recorded,
            // The number of samples: enough to see that something was recorded.
            MetricKind::Histogram => *value += 1,
        }
        Ok(())
    }

    pub(crate) fn value(&self, id: u32) -> Result<u64, Status> {
        match self.defined.get(&id) {
            None => Err(Status::NotFound),
            Some((MetricKind::Histogram, _)) => Err(Status::BadArgument),
            Some(_) => self.values.get(&id).copied().ok_or(Status::NotFound),
        }
    }

    /// All values by name; of histograms, the number of samples.
    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        let value = |id: &u32| self.values.get(id).copied().unwrap_or_default();
        self.defined.iter().map(|(id, (_, name))| (name.clone(), value(id))).collect()
    }

    /// The value by name; of a histogram, the number of samples.
    pub(crate) fn by_name(&self, name: &str) -> Option<u64> {
        let (id, _) = self.defined.iter().find(|(_, (_, known))| known == name)?;
        self.values.get(id).copied()
    }
}
