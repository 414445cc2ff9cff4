//! The calls that decode, encode, split and join. Each prefers the batch form of an interface.

use crate::codec::{Encoded, GroupKey, HostFailure, PackedAnswers, RejectReason, checked_text};
use crate::log::Header;
use crate::packed::Packed;
use crate::wasm::bindings::v0_1::ktables::codec::types;
use crate::wasm::fault::{CallError, Fault};
use crate::wasm::instance::Instance;
use crate::wasm::instance::answers::ascending;

/// The answers of one call, one for each item.
type Slots<T> = Result<Vec<Result<T, RejectReason>>, CallError>;

/// The answers of one call, packed.
type PackedSlots = Result<PackedAnswers<'static>, CallError>;

impl Instance {
    pub(in crate::wasm) fn decode_values(&mut self, raw: &Packed, headers: &[&[Header]]) -> PackedSlots {
        self.begin(raw.len());
        let lists: Vec<Vec<types::HeaderParam<'_>>> =
            headers.iter().map(|list| header_params(list)).collect();
        if let Some(guest) = &self.exports.value_batch {
            let lists: Vec<_> = lists.iter().map(Vec::as_slice).collect();
            let answer = guest.call_decode(&mut self.store, packed(raw), &lists);
            let answer = answer.map_err(|error| self.call_failed(&error, raw.len()))?;
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

    pub(in crate::wasm) fn encode_values(&mut self, values: &[&str]) -> Slots<Encoded> {
        self.begin(values.len());
        if let Some(guest) = &self.exports.value_batch {
            let answer = guest.call_encode(&mut self.store, packed(&pack(values)?));
            let answer = answer.map_err(|error| self.call_failed(&error, values.len()))?;
            let mut headers = answer.headers;
            if !headers.is_empty() && headers.len() != values.len() {
                let got = headers.len();
                return Err(Fault::contract(format!("{got} header lists for {} items", values.len())).into());
            }
            headers.resize_with(values.len(), Vec::new);
            let raw = self.packed_slots(answer.raw, answer.errors, values.len())?;
            let encoded = |(raw, headers): (Result<&[u8], &RejectReason>, Vec<_>)| {
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

    pub(in crate::wasm) fn decode_keys(&mut self, raw: &Packed) -> PackedSlots {
        self.begin(raw.len());
        if let Some(guest) = &self.exports.key_batch {
            let answer = guest.call_decode(&mut self.store, packed(raw));
            let answer = answer.map_err(|error| self.call_failed(&error, raw.len()))?;
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

    pub(in crate::wasm) fn encode_keys(&mut self, keys: &[&str]) -> PackedSlots {
        self.begin(keys.len());
        if let Some(guest) = &self.exports.key_batch {
            let answer = guest.call_encode(&mut self.store, packed(&pack(keys)?));
            let answer = answer.map_err(|error| self.call_failed(&error, keys.len()))?;
            return self.packed_slots(answer.keys, answer.errors, keys.len());
        }
        let Some(guest) = self.exports.key.clone() else { return Err(missing()) };
        self.one_by_one(keys.len(), |this, index| {
            let answer = guest.call_encode(&mut this.store, keys[index])?;
            Ok(this.answered(answer).and_then(|raw| this.sized(raw)))
        })
    }

    pub(in crate::wasm) fn split(&mut self, keys: &[&str]) -> Slots<Option<GroupKey>> {
        self.begin(keys.len());
        if let Some(guest) = &self.exports.scheme_batch {
            let answer = guest.call_split(&mut self.store, packed(&pack(keys)?));
            let answer = answer.map_err(|error| self.call_failed(&error, keys.len()))?;
            let foreign = ascending(answer.foreign, keys.len())?;
            let groups = self.packed_slots(answer.groups, Vec::new(), keys.len())?;
            let members = self.packed_slots(answer.members, Vec::new(), keys.len())?;
            let (groups, members) = (self.texts(groups), self.texts(members));
            let pair =
                |(index, (group, member)): (usize, (Result<_, &RejectReason>, Result<_, &RejectReason>))| {
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

    pub(in crate::wasm) fn join(&mut self, pairs: &[(&str, &str)]) -> Slots<Box<str>> {
        self.begin(pairs.len());
        if let Some(guest) = &self.exports.scheme_batch {
            let groups = pack(pairs.iter().map(|pair| pair.0))?;
            let members = pack(pairs.iter().map(|pair| pair.1))?;
            let answer = guest.call_join(&mut self.store, packed(&groups), packed(&members));
            let answer = answer.map_err(|error| self.call_failed(&error, pairs.len()))?;
            let keys = self.packed_slots(answer.keys, answer.errors, pairs.len())?;
            let keys = self.texts(keys);
            let key = |key: Result<&[u8], &RejectReason>| {
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
