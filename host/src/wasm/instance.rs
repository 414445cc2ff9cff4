//! One instance of a component in its own store, and the calls into it.

mod byte_len;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Instance as WasmInstance, InstancePre};
use wasmtime::{Store, UpdateDeadline};

use byte_len::ByteLen;

use crate::codec::workers::TICK;
use crate::codec::{
    ComponentId, Encoded, GroupKey, HostFailure, PackedAnswers, RejectKind, Rejection, broken_contract,
    checked_text,
};
use crate::log::Header;
use crate::packed::Packed;
use crate::wasm::bindings::v0_1::exports::ktables::codec as exports;
use crate::wasm::bindings::v0_1::ktables::codec::types;
use crate::wasm::engine::{Metering, STACK_BYTES};
use crate::wasm::fault::{CallError, Fault, budget_spent, classify, exceeded};
use crate::wasm::inspect::Interface;
use crate::wasm::state::{Exceeded, State};
use crate::wasm::{Component, Limits};

/// The answers of one call, one for each item.
type Slots<T> = Result<Vec<Result<T, Rejection>>, CallError>;

/// The same, packed.
type PackedSlots = Result<PackedAnswers<'static>, CallError>;

/// The interfaces of an instance, looked up once.
struct Exports {
    value: Option<exports::value_codec::Guest>,
    value_batch: Option<exports::value_codec_batch::Guest>,
    key: Option<exports::key_codec::Guest>,
    key_batch: Option<exports::key_codec_batch::Guest>,
    scheme: Option<exports::group_scheme::Guest>,
    scheme_batch: Option<exports::group_scheme_batch::Guest>,
    plugin: Option<exports::plugin::Guest>,
}

/// An instance that has answered every call so far.
pub(super) struct Instance {
    store: Store<State>,
    exports: Exports,
    id: Arc<ComponentId>,
    limits: Limits,
    broken: bool,
}

/// What an instance may use where fuel is counted: some minutes of work.
const FUEL: u64 = 1 << 40;

/// The longest key: a record's whole size in Kafka's default configuration. A batch
/// of such keys can still be packed.
const KEY_BYTES: usize = 1 << 20;

/// Looks up an interface if the component has it.
macro_rules! load {
    ($pre:ident $instance:ident $store:ident $interfaces:ident, $interface:ident $module:ident) => {
        if $interfaces.contains(&Interface::$interface) {
            let indices = exports::$module::GuestIndices::new($pre)?;
            Some(indices.load(&mut $store, &$instance)?)
        } else {
            None
        }
    };
}

impl Exports {
    fn load(
        pre: &InstancePre<State>,
        instance: WasmInstance,
        mut store: &mut Store<State>,
        interfaces: &[Interface],
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            value: load!(pre instance store interfaces, ValueCodec value_codec),
            value_batch: load!(pre instance store interfaces, ValueCodecBatch value_codec_batch),
            key: load!(pre instance store interfaces, KeyCodec key_codec),
            key_batch: load!(pre instance store interfaces, KeyCodecBatch key_codec_batch),
            scheme: load!(pre instance store interfaces, GroupScheme group_scheme),
            scheme_batch: load!(pre instance store interfaces, GroupSchemeBatch group_scheme_batch),
            plugin: load!(pre instance store interfaces, Plugin plugin),
        })
    }
}

impl Instance {
    pub(super) fn new(component: &Component) -> Result<Self, CallError> {
        let Component { shared, pre, interfaces, id, limits, host_bytes, common, .. } = component;
        let mut state = State::new(id.clone(), limits.memory, shared.budget.clone(), common.messages.clone());
        state.charge(*host_bytes).map_err(|()| exceeded(&state, limits))?;
        let mut store = Store::new(&shared.engine, state);
        store.limiter(|state| state);
        let slow_calls = common.slow_calls.clone();
        store.epoch_deadline_callback(move |mut store| {
            let state = store.data_mut();
            // The first time the call has become slow, and the second its time is over.
            Ok(match state.ticks_left.take() {
                Some(left) => {
                    state.slow = Some(slow_calls.enter());
                    UpdateDeadline::Continue(left)
                }
                None => UpdateDeadline::Interrupt,
            })
        });
        store.set_hostcall_fuel(limits.output_per_call());
        store.set_epoch_deadline(ticks(limits.start_deadline));
        if shared.metering == Metering::Fuel {
            // OK because this engine meters fuel.
            store.set_fuel(FUEL).expect("an engine that meters fuel");
        }
        let instance = on_guest_stack(|| pre.instantiate(&mut store));
        let instance = instance.map_err(|error| start_failed(&error, &store, limits))?;
        match Exports::load(pre, instance, &mut store, interfaces) {
            Ok(exports) => Ok(Self { store, exports, id: id.clone(), limits: limits.clone(), broken: false }),
            Err(error) => Err(classify(&error, store.data(), limits, limits.start_deadline)),
        }
    }

    /// What the component says of itself.
    pub(super) fn describe(&mut self) -> Result<Option<exports::plugin::Info>, CallError> {
        self.begin_start();
        let Some(plugin) = &self.exports.plugin else { return Ok(None) };
        let info = on_guest_stack(|| plugin.call_describe(&mut self.store));
        info.map(Some).map_err(|error| self.start_call_failed(&error))
    }

    /// Configures the component; its own words if it refuses.
    pub(super) fn configure(
        &mut self,
        context: exports::plugin::Context<'_>,
    ) -> Result<Result<(), String>, CallError> {
        self.begin_start();
        let Some(plugin) = &self.exports.plugin else { return Ok(Ok(())) };
        let answer = on_guest_stack(|| plugin.call_configure(&mut self.store, context));
        answer.map_err(|error| self.start_call_failed(&error))
    }

    /// What the instance has used since it was made, if its engine counts that.
    pub(super) fn fuel_used(&self) -> Option<u64> {
        self.store.get_fuel().ok().map(|left| FUEL - left)
    }

    /// Whether an item of an answer broke a rule: the instance must not be used
    /// again.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether the engine's budget refused it memory during the last call: what it
    /// answered then may not be what it would have.
    pub(super) fn was_starved(&self) -> Option<HostFailure> {
        match self.store.data().exceeded {
            Some(Exceeded::Engine(budget)) => Some(budget_spent(budget)),
            _ => None,
        }
    }

    pub(super) fn decode_values(&mut self, raw: &Packed, headers: &[&[Header]]) -> PackedSlots {
        self.begin(raw.len());
        let lists: Vec<Vec<types::HeaderParam<'_>>> =
            headers.iter().map(|list| header_params(list)).collect();
        if let Some(guest) = &self.exports.value_batch {
            let lists: Vec<_> = lists.iter().map(Vec::as_slice).collect();
            let answer = guest.call_decode(&mut self.store, packed(raw), &lists);
            let answer = answer.map_err(|error| self.failed(&error, raw.len()))?;
            let answers = self.packed_slots(answer.values, answer.errors, raw.len())?;
            return Ok(self.json(answers));
        }
        let Some(guest) = self.exports.value.clone() else { return Err(missing()) };
        let answers = self.one_by_one(raw.len(), |this, index| {
            let headers = lists.get(index).map_or(&[][..], Vec::as_slice);
            let answer = guest.call_decode(&mut this.store, raw.get(index), headers)?;
            Ok(this.answered(answer).and_then(|text| this.sized(text)))
        })?;
        Ok(self.json(answers))
    }

    pub(super) fn encode_values(&mut self, values: &[&str]) -> Slots<Encoded> {
        self.begin(values.len());
        if let Some(guest) = &self.exports.value_batch {
            let answer = guest.call_encode(&mut self.store, packed(&pack(values)?));
            let answer = answer.map_err(|error| self.failed(&error, values.len()))?;
            let mut headers = answer.headers;
            if !headers.is_empty() && headers.len() != values.len() {
                let got = headers.len();
                return Err(Fault::contract(format!("{got} header lists for {} items", values.len())).into());
            }
            headers.resize_with(values.len(), Vec::new);
            let raw = self.packed_slots(answer.raw, answer.errors, values.len())?;
            let encoded = |(raw, headers): (Result<&[u8], &Rejection>, Vec<_>)| {
                let raw = raw.map_err(Clone::clone)?.to_vec();
                Ok(Encoded { raw, headers: owned_headers(headers) })
            };
            return Ok(raw.iter().zip(headers).map(encoded).collect());
        }
        let Some(guest) = self.exports.value.clone() else { return Err(missing()) };
        self.one_by_one(values.len(), |this, index| {
            let answer = guest.call_encode(&mut this.store, values[index])?;
            Ok(this.answered(answer).and_then(|encoded| {
                let raw = this.sized(encoded.raw)?;
                Ok(Encoded { raw, headers: owned_headers(encoded.headers) })
            }))
        })
    }

    pub(super) fn decode_keys(&mut self, raw: &Packed) -> PackedSlots {
        self.begin(raw.len());
        if let Some(guest) = &self.exports.key_batch {
            let answer = guest.call_decode(&mut self.store, packed(raw));
            let answer = answer.map_err(|error| self.failed(&error, raw.len()))?;
            let answers = self.packed_slots(answer.keys, answer.errors, raw.len())?;
            return Ok(self.texts(answers));
        }
        let Some(guest) = self.exports.key.clone() else { return Err(missing()) };
        let answers = self.one_by_one(raw.len(), |this, index| {
            let answer = guest.call_decode(&mut this.store, raw.get(index))?;
            Ok(this.answered(answer))
        })?;
        Ok(self.texts(answers))
    }

    pub(super) fn encode_keys(&mut self, keys: &[&str]) -> PackedSlots {
        self.begin(keys.len());
        if let Some(guest) = &self.exports.key_batch {
            let answer = guest.call_encode(&mut self.store, packed(&pack(keys)?));
            let answer = answer.map_err(|error| self.failed(&error, keys.len()))?;
            return self.packed_slots(answer.keys, answer.errors, keys.len());
        }
        let Some(guest) = self.exports.key.clone() else { return Err(missing()) };
        self.one_by_one(keys.len(), |this, index| {
            let answer = guest.call_encode(&mut this.store, keys[index])?;
            Ok(this.answered(answer).and_then(|raw| this.sized(raw)))
        })
    }

    pub(super) fn split(&mut self, keys: &[&str]) -> Slots<Option<GroupKey>> {
        self.begin(keys.len());
        if let Some(guest) = &self.exports.scheme_batch {
            let answer = guest.call_split(&mut self.store, packed(&pack(keys)?));
            let answer = answer.map_err(|error| self.failed(&error, keys.len()))?;
            let foreign = ascending(answer.foreign, keys.len())?;
            let groups = self.packed_slots(answer.groups, Vec::new(), keys.len())?;
            let members = self.packed_slots(answer.members, Vec::new(), keys.len())?;
            let (groups, members) = (self.texts(groups), self.texts(members));
            let pair = |(index, (group, member)): (usize, (Result<_, &Rejection>, Result<_, &Rejection>))| {
                let (group, member) = (group.map_err(Clone::clone)?, member.map_err(Clone::clone)?);
                let pair =
                    GroupKey { group: checked_text(group).into(), member: checked_text(member).into() };
                Ok(foreign.binary_search(&index).is_err().then_some(pair))
            };
            return Ok(groups.iter().zip(members.iter()).enumerate().map(pair).collect());
        }
        let Some(guest) = self.exports.scheme.clone() else { return Err(missing()) };
        self.one_by_one(keys.len(), |this, index| {
            let Some(pair) = guest.call_split(&mut this.store, keys[index])? else { return Ok(Ok(None)) };
            let names = [pair.group, pair.member].map(|name| this.name(name.as_bytes()).map(|()| name));
            let [group, member] = names;
            Ok(group.and_then(|group| Ok(Some(GroupKey { group: group.into(), member: member?.into() }))))
        })
    }

    pub(super) fn join(&mut self, pairs: &[(&str, &str)]) -> Slots<Box<str>> {
        self.begin(pairs.len());
        if let Some(guest) = &self.exports.scheme_batch {
            let groups = pack(pairs.iter().map(|pair| pair.0))?;
            let members = pack(pairs.iter().map(|pair| pair.1))?;
            let answer = guest.call_join(&mut self.store, packed(&groups), packed(&members));
            let answer = answer.map_err(|error| self.failed(&error, pairs.len()))?;
            let keys = self.packed_slots(answer.keys, answer.errors, pairs.len())?;
            let keys = self.texts(keys);
            let key = |key: Result<&[u8], &Rejection>| {
                key.map(|key| checked_text(key).into()).map_err(Clone::clone)
            };
            return Ok(keys.iter().map(key).collect());
        }
        let Some(guest) = self.exports.scheme.clone() else { return Err(missing()) };
        self.one_by_one(pairs.len(), |this, index| {
            let answer = guest.call_join(&mut this.store, pairs[index].0, pairs[index].1)?;
            Ok(this.answered(answer).and_then(|key| {
                this.name(key.as_bytes())?;
                Ok(key.into())
            }))
        })
    }

    /// Winds the deadline up for a call with this many records.
    fn begin(&mut self, records: usize) {
        let ticks = ticks(self.limits.deadline_for(records));
        let quick = ticks.min(QUICK_TICKS);
        self.store.set_epoch_deadline(quick);
        self.store.data_mut().begin_call(Some(ticks - quick).filter(|&left| left > 0));
    }

    /// Lets other calls of the component be slow.
    pub(super) fn end_call(&mut self) {
        self.store.data_mut().slow = None;
    }

    /// The same for a call that an instance gets once, before its first record.
    fn begin_start(&mut self) {
        self.store.set_epoch_deadline(ticks(self.limits.start_deadline));
        self.store.data_mut().begin_call(None);
    }

    fn failed(&self, error: &wasmtime::Error, records: usize) -> CallError {
        classify(error, self.store.data(), &self.limits, self.limits.deadline_for(records))
    }

    fn start_call_failed(&self, error: &wasmtime::Error) -> CallError {
        classify(error, self.store.data(), &self.limits, self.limits.start_deadline)
    }

    /// The simple form: a call for each item, the deadline over all of them, and the bound of what
    /// a batch form may return.
    fn one_by_one<T: ByteLen, B: FromIterator<Result<T, Rejection>>>(
        &mut self,
        len: usize,
        mut call: impl FnMut(&mut Self, usize) -> wasmtime::Result<Result<T, Rejection>>,
    ) -> Result<B, CallError> {
        let mut left = self.limits.output_per_call();
        let mut bounded = |index| {
            let answer = call(self, index).map_err(|error| self.failed(&error, len))?;
            let bytes = answer.as_ref().map_or(0, ByteLen::byte_len);
            left = left.checked_sub(bytes).ok_or_else(|| Fault::too_much_output(&self.limits))?;
            Ok(answer)
        };
        (0..len).map(&mut bounded).collect()
    }

    /// The answer of the batch form: as many items as were asked for, none too long,
    /// errors in their slots.
    fn packed_slots(
        &mut self,
        items: types::PackedResult,
        errors: Vec<types::SlotError>,
        expected: usize,
    ) -> PackedSlots {
        let items = Packed::from_parts(items.bytes, items.ends)
            .map_err(|reason| Fault::contract(format!("a packed list that is none: {reason}")))?;
        if items.len() != expected {
            return Err(Fault::contract(format!("{} items in the answer for {expected}", items.len())).into());
        }
        ascending(errors.iter().map(|error| error.index).collect(), expected)?;
        let rejection = |error: types::SlotError| (error.index as usize, self.rejected(error.error));
        let rejected = errors.into_iter().map(rejection).collect();
        let may_pass = items.bytes().len() > self.limits.output;
        let mut answers = PackedAnswers::from_parts(items, rejected);
        if may_pass {
            answers.check(|_, item| self.sized(item).map(drop));
        }
        Ok(answers)
    }

    /// What the guest answered for an item, an error in its own words.
    fn answered<T>(&self, answer: Result<T, types::CodecError>) -> Result<T, Rejection> {
        answer.map_err(|error| self.rejected(error))
    }

    fn rejected(&self, error: types::CodecError) -> Rejection {
        let (kind, message) = match error {
            types::CodecError::Malformed(message) => (RejectKind::Malformed, message),
            types::CodecError::Invalid(message) => (RejectKind::Invalid, message),
            types::CodecError::Unsupported(message) => (RejectKind::Unsupported, message),
            types::CodecError::Other(message) => (RejectKind::Other, message),
        };
        self.rejection(kind, message)
    }

    /// The answers that are JSON; an instance that gave others is broken.
    fn json(&mut self, mut answers: PackedAnswers<'static>) -> PackedAnswers<'static> {
        let reject = broken_contract(Some(&self.id));
        let broken = Cell::new(false);
        answers.check_json(|kind, reason| {
            broken.set(true);
            reject(kind, reason)
        });
        self.broken |= broken.get();
        answers
    }

    /// The answers that can be keys or parts of one.
    fn texts(&mut self, mut answers: PackedAnswers<'static>) -> PackedAnswers<'static> {
        answers.check(|_, item| self.name(item));
        answers
    }

    /// Whether this can be a key or a part of one.
    fn name(&mut self, item: &[u8]) -> Result<(), Rejection> {
        if item.len() > KEY_BYTES {
            self.broken = true;
            let message =
                format!("answered with a key of {} bytes; no record has one above {KEY_BYTES}", item.len());
            return Err(self.rejection(RejectKind::Output, message));
        }
        std::str::from_utf8(item).map(drop).map_err(|error| {
            self.broken = true;
            let reject = broken_contract(Some(&self.id));
            reject(RejectKind::InvalidUtf8, format!("not UTF-8: {error}"))
        })
    }

    fn sized<T: AsRef<[u8]>>(&mut self, item: T) -> Result<T, Rejection> {
        let (len, limit) = (item.as_ref().len(), self.limits.output);
        if len <= limit {
            return Ok(item);
        }
        self.broken = true;
        let message = format!("answered with {len} bytes, allowed are {limit} (limits.output)");
        Err(self.rejection(RejectKind::Output, message))
    }

    fn rejection(&self, kind: RejectKind, message: String) -> Rejection {
        Rejection::new(kind, message, Some(self.id.clone()))
    }
}

/// Why an instance could not be made: its own fault only if its code trapped or it
/// needs more memory than it may have.
fn start_failed(error: &wasmtime::Error, store: &Store<State>, limits: &Limits) -> CallError {
    if store.data().exceeded.is_some() || error.downcast_ref::<wasmtime::Trap>().is_some() {
        return classify(error, store.data(), limits, limits.start_deadline);
    }
    let reason = match error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>() {
        Some(_) => "no instance of the component can be made now: all that this process has room for are in \
                    use"
        .to_owned(),
        None => format!("no instance of the component can be made: {error:#}"),
    };
    CallError::Host(HostFailure { reason })
}

/// The indices, if they ascend and are those of items.
fn ascending(indices: Vec<u32>, items: usize) -> Result<Vec<usize>, Fault> {
    let indices: Vec<usize> = indices.into_iter().map(|index| index as usize).collect();
    let ordered = indices.windows(2).all(|pair| pair[0] < pair[1]);
    if ordered && indices.last().is_none_or(|&last| last < items) {
        Ok(indices)
    } else {
        Err(Fault::contract("the indices in the answer do not ascend within the batch"))
    }
}

fn pack<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T, IntoIter: Clone>) -> Result<Packed, CallError> {
    let reason = "more than 4 GiB to be handed to a component at once";
    Packed::checked(items).ok_or_else(|| CallError::Host(HostFailure { reason: reason.to_owned() }))
}

fn packed(list: &Packed) -> types::PackedParam<'_> {
    types::PackedParam { bytes: list.bytes(), ends: list.ends() }
}

fn header_params(headers: &[Header]) -> Vec<types::HeaderParam<'_>> {
    headers.iter().map(|h| types::HeaderParam { name: &h.name, value: h.value.as_deref() }).collect()
}

fn owned_headers(headers: Vec<types::HeaderResult>) -> Vec<Header> {
    headers.into_iter().map(|h| Header { name: h.name, value: h.value }).collect()
}

/// A codec is made only of a component that has its interface.
fn missing() -> CallError {
    CallError::Fault(Fault::contract("the component lacks the interface"))
}

/// What the host needs of a stack besides what the guest may use.
const HOST_STACK_BYTES: usize = 512 << 10;

/// Runs a guest where there is room for its stack: the caller's, or another one if a caller's
/// thread was given too small a stack.
pub(super) fn on_guest_stack<T>(call: impl FnOnce() -> T) -> T {
    let needed = STACK_BYTES + HOST_STACK_BYTES;
    stacker::maybe_grow(needed, 2 * needed, call)
}

/// How many ticks a call may take before it is slow: the one under way, and a whole one.
const QUICK_TICKS: u64 = 2;

/// As good as for ever; wasmtime adds it to the ticks so far.
const MAX_TICKS: u64 = u64::MAX / 2;

fn ticks(deadline: Duration) -> u64 {
    let ticks = deadline.as_nanos().div_ceil(TICK.as_nanos());
    // One more: the tick under way counts for less than a whole one.
    u64::try_from(ticks).unwrap_or(MAX_TICKS).min(MAX_TICKS) + 1
}
