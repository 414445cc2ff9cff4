//! The calls that decode, encode, split and join. Each uses the batch form of an interface if the component
//! exports it.

use crate::codec::{Encoded, GroupKey, HostFailure, PackedAnswers, RejectReason, checked_text};
use crate::log::Header;
use crate::packed::Packed;
use crate::wasm::bindings::v0_1::ktables::codec::types;
use crate::wasm::fault::{CallError, Fault};
use crate::wasm::instance::Instance;
use crate::wasm::instance::answers::check_indices;

/// The answers of one call, one for each item.
type CallResult<T> = Result<Vec<Result<T, RejectReason>>, CallError>;

/// The packed answers of one call, one for each item.
type PackedCallResult = Result<PackedAnswers<'static>, CallError>;

impl Instance {
    pub(in crate::wasm) fn decode_values(&mut self, raw: &Packed, headers: &[&[Header]]) -> PackedCallResult {
        self.begin_call(raw.len());
        let lists: Vec<Vec<types::HeaderParam<'_>>> =
            headers.iter().map(|list| header_params(list)).collect();
        if let Some(guest) = &self.exports.value_batch {
            let lists: Vec<_> = lists.iter().map(Vec::as_slice).collect();
            let answer = guest.call_decode(&mut self.store, packed_param(raw), &lists);
            let answer = answer.map_err(|error| self.call_error(&error, raw.len()))?;
            let answers = self.check_packed(answer.values, answer.errors, raw.len())?;
            return Ok(self.check_json(answers));
        }
        let Some(guest) = self.exports.value.clone() else { return Err(missing_interface()) };
        let answers = self.call_each(raw.len(), |this, index| {
            let headers = lists.get(index).map_or(&[][..], Vec::as_slice);
            let answer = guest.call_decode(&mut this.store, raw.get(index), headers)?;
            Ok(this.map_codec_error(answer).and_then(|text| this.check_size(text)))
        })?;
        Ok(self.check_json(answers))
    }

    pub(in crate::wasm) fn encode_values(&mut self, values: &[&str]) -> CallResult<Encoded> {
        self.begin_call(values.len());
        if let Some(guest) = &self.exports.value_batch {
            let answer = guest.call_encode(&mut self.store, packed_param(&pack(values)?));
            let answer = answer.map_err(|error| self.call_error(&error, values.len()))?;
            let mut headers = answer.headers;
            if !headers.is_empty() && headers.len() != values.len() {
                let got = headers.len();
                let message = format!("answered with {got} header lists for {} items", values.len());
                return Err(Fault::contract(message).into());
            }
            headers.resize_with(values.len(), Vec::new);
            let raw = self.check_packed(answer.raw, answer.errors, values.len())?;
            let encoded = |(raw, headers): (Result<&[u8], &RejectReason>, Vec<_>)| {
                let raw = raw.map_err(Clone::clone)?.to_vec();
                Ok(Encoded { raw, headers: owned_headers(headers) })
            };
            return Ok(raw.iter().zip(headers).map(encoded).collect());
        }
        let Some(guest) = self.exports.value.clone() else { return Err(missing_interface()) };
        self.call_each(values.len(), |this, index| {
            let answer = guest.call_encode(&mut this.store, values[index])?;
            Ok(this.map_codec_error(answer).and_then(|encoded| {
                let raw = this.check_size(encoded.raw)?;
                Ok(Encoded { raw, headers: owned_headers(encoded.headers) })
            }))
        })
    }

    pub(in crate::wasm) fn decode_keys(&mut self, raw: &Packed) -> PackedCallResult {
        self.begin_call(raw.len());
        if let Some(guest) = &self.exports.key_batch {
            let answer = guest.call_decode(&mut self.store, packed_param(raw));
            let answer = answer.map_err(|error| self.call_error(&error, raw.len()))?;
            let answers = self.check_packed(answer.keys, answer.errors, raw.len())?;
            return Ok(self.check_key_texts(answers));
        }
        let Some(guest) = self.exports.key.clone() else { return Err(missing_interface()) };
        let answers = self.call_each(raw.len(), |this, index| {
            let answer = guest.call_decode(&mut this.store, raw.get(index))?;
            Ok(this.map_codec_error(answer))
        })?;
        Ok(self.check_key_texts(answers))
    }

    pub(in crate::wasm) fn encode_keys(&mut self, keys: &[&str]) -> PackedCallResult {
        self.begin_call(keys.len());
        if let Some(guest) = &self.exports.key_batch {
            let answer = guest.call_encode(&mut self.store, packed_param(&pack(keys)?));
            let answer = answer.map_err(|error| self.call_error(&error, keys.len()))?;
            return self.check_packed(answer.keys, answer.errors, keys.len());
        }
        let Some(guest) = self.exports.key.clone() else { return Err(missing_interface()) };
        self.call_each(keys.len(), |this, index| {
            let answer = guest.call_encode(&mut this.store, keys[index])?;
            Ok(this.map_codec_error(answer).and_then(|raw| this.check_size(raw)))
        })
    }

    pub(in crate::wasm) fn split(&mut self, keys: &[&str]) -> CallResult<Option<GroupKey>> {
        self.begin_call(keys.len());
        if let Some(guest) = &self.exports.scheme_batch {
            let answer = guest.call_split(&mut self.store, packed_param(&pack(keys)?));
            let answer = answer.map_err(|error| self.call_error(&error, keys.len()))?;
            let foreign = check_indices(answer.foreign, keys.len())?;
            let groups = self.check_packed(answer.groups, Vec::new(), keys.len())?;
            let members = self.check_packed(answer.members, Vec::new(), keys.len())?;
            let (groups, members) = (self.check_key_texts(groups), self.check_key_texts(members));
            let pair =
                |(index, (group, member)): (usize, (Result<_, &RejectReason>, Result<_, &RejectReason>))| {
                    let (group, member) = (group.map_err(Clone::clone)?, member.map_err(Clone::clone)?);
                    let pair =
                        GroupKey { group: checked_text(group).into(), member: checked_text(member).into() };
                    Ok(foreign.binary_search(&index).is_err().then_some(pair))
                };
            return Ok(groups.iter().zip(members.iter()).enumerate().map(pair).collect());
        }
        let Some(guest) = self.exports.scheme.clone() else { return Err(missing_interface()) };
        self.call_each(keys.len(), |this, index| {
            let Some(pair) = guest.call_split(&mut this.store, keys[index])? else { return Ok(Ok(None)) };
            let names =
                [pair.group, pair.member].map(|name| this.check_key_text(name.as_bytes()).map(|()| name));
            let [group, member] = names;
            Ok(group.and_then(|group| Ok(Some(GroupKey { group: group.into(), member: member?.into() }))))
        })
    }

    pub(in crate::wasm) fn join(&mut self, pairs: &[(&str, &str)]) -> CallResult<Box<str>> {
        self.begin_call(pairs.len());
        if let Some(guest) = &self.exports.scheme_batch {
            let groups = pack(pairs.iter().map(|pair| pair.0))?;
            let members = pack(pairs.iter().map(|pair| pair.1))?;
            let answer = guest.call_join(&mut self.store, packed_param(&groups), packed_param(&members));
            let answer = answer.map_err(|error| self.call_error(&error, pairs.len()))?;
            let keys = self.check_packed(answer.keys, answer.errors, pairs.len())?;
            let keys = self.check_key_texts(keys);
            let key = |key: Result<&[u8], &RejectReason>| {
                key.map(|key| checked_text(key).into()).map_err(Clone::clone)
            };
            return Ok(keys.iter().map(key).collect());
        }
        let Some(guest) = self.exports.scheme.clone() else { return Err(missing_interface()) };
        self.call_each(pairs.len(), |this, index| {
            let answer = guest.call_join(&mut this.store, pairs[index].0, pairs[index].1)?;
            Ok(this.map_codec_error(answer).and_then(|key| {
                this.check_key_text(key.as_bytes())?;
                Ok(key.into())
            }))
        })
    }
}

fn pack<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T, IntoIter: Clone>) -> Result<Packed, CallError> {
    let reason = "one call cannot pass more than 4 GiB to a component: use smaller batches";
    Packed::checked(items).ok_or_else(|| CallError::Host(HostFailure::new(reason)))
}

fn packed_param(list: &Packed) -> types::PackedParam<'_> {
    types::PackedParam { bytes: list.bytes(), ends: list.ends() }
}

fn header_params(headers: &[Header]) -> Vec<types::HeaderParam<'_>> {
    headers.iter().map(|h| types::HeaderParam { name: &h.name, value: h.value.as_deref() }).collect()
}

fn owned_headers(headers: Vec<types::HeaderResult>) -> Vec<Header> {
    headers.into_iter().map(|h| Header { name: h.name, value: h.value }).collect()
}

/// Returns the error for an interface that the component does not export. Never happens: a codec is created
/// only from a component that exports its interface.
fn missing_interface() -> CallError {
    CallError::Fault(Fault::contract("the component does not export the interface"))
}
