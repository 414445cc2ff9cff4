//! From writes to records, checked. Runs on a codec worker.

use crate::codec::{
    CheckedCodecs, CodecFailure, Codecs, Encoded, HostFailure, RejectReason, broken_contract, json_equal,
};
use crate::escape::name;
use crate::log::{Header, NewRecord};
use crate::packed::Packed;
use crate::writer::error::WriteError;
use crate::writer::write::{Target, Verify, Write};

/// A write on its way, or why it goes no further.
type Step<T> = Result<T, WriteError>;

/// A value to be encoded: its write's index, its key, its JSON text.
type Pending<'a> = (usize, &'a str, &'a str);

/// The key and the record of each write, in order.
///
/// # Errors
///
/// [`CodecFailure::Fault`] if a codec faulted: each write is to be prepared alone, and one that is
/// alone is refused.
pub(super) fn prepare(
    codecs: &Codecs,
    verify: Verify,
    writes: &[Write],
) -> Result<Vec<Step<(String, NewRecord)>>, CodecFailure> {
    let codecs = CheckedCodecs(codecs);
    let keys = keys(codecs, writes)?;
    let raw_keys = encode_keys(codecs, &keys)?;
    let mut values = encode_values(codecs, verify, &keys, writes)?.into_iter();
    let records = keys.into_iter().zip(raw_keys).map(|(name, key)| {
        // OK because there is a value for each key.
        let value = values.next().expect("one value for each key");
        let (key, value) = (key?, value?);
        let (value, headers) =
            value.map_or((None, Vec::new()), |encoded| (Some(encoded.raw), encoded.headers));
        Ok((name?, NewRecord { key: Some(key), value, headers, ..NewRecord::default() }))
    });
    Ok(records.collect())
}

/// The key of each target, which the group scheme, if there is one, must know as
/// its own.
fn keys(codecs: CheckedCodecs<'_>, writes: &[Write]) -> Result<Vec<Step<String>>, CodecFailure> {
    writes.iter().map(|write| key(codecs, write.target.clone())).collect()
}

fn key(codecs: CheckedCodecs<'_>, target: Target) -> Result<Step<String>, CodecFailure> {
    let (group, member) = match target {
        Target::Key(key) => {
            let Some(split) = codecs.split(&[&key]) else { return Ok(Ok(key)) };
            return Ok(match only(split?) {
                Ok(Some(_)) => Ok(key),
                Ok(None) => {
                    let reason =
                        "the group scheme takes it for a foreign key: write a group and a member".to_owned();
                    Err(WriteError::NotVerified { key, reason })
                }
                Err(reason) => Err(WriteError::Rejected { key, action: "split the key", reason }),
            });
        }
        Target::Member { group, member } => (group, member),
    };
    let Some(joined) = codecs.join(&group, &member) else {
        return Ok(Err(WriteError::NoScheme { group, member }));
    };
    let key = match only(joined?) {
        Ok(key) => String::from(key),
        Err(reason) => {
            let key = format!("{group}/{member}");
            return Ok(Err(WriteError::Rejected { key, action: "make a key of group and member", reason }));
        }
    };
    // OK because there is a scheme.
    let back = match only(codecs.split(&[&key]).expect("a scheme")?) {
        Ok(Some(back)) if *back.group == *group && *back.member == *member => return Ok(Ok(key)),
        Ok(Some(back)) => format!("group `{}`, member `{}`", name(&back.group), name(&back.member)),
        Ok(None) => "nothing: it is a foreign key".to_owned(),
        Err(reason) => reason.to_string(),
    };
    let (group, member) = (name(&group), name(&member));
    let reason = format!("the key of group `{group}`, member `{member}` splits to {back}");
    Ok(Err(WriteError::NotVerified { key, reason }))
}

/// The bytes of each key, which must decode to the key again.
fn encode_keys(codecs: CheckedCodecs<'_>, keys: &[Step<String>]) -> Result<Vec<Step<Vec<u8>>>, CodecFailure> {
    let texts: Vec<&str> = keys.iter().flatten().map(String::as_str).collect();
    let encoded = codecs.encode_keys(&texts)?;
    let raw = pack(encoded.iter().map(Result::unwrap_or_default).collect::<Vec<_>>())?;
    let decoded = codecs.decode_keys(&raw)?;
    let mut answers = encoded.iter().zip(decoded.iter());
    let checked = keys.iter().map(|key| {
        let key = key.clone()?;
        // OK because a codec answers for each key.
        let (raw, back) = answers.next().expect("one answer for each key");
        let raw = match raw {
            Ok(raw) => raw,
            Err(reason) => return Err(rejected(key, "encode the key", reason)),
        };
        match back {
            Ok(back) if back == key.as_bytes() => Ok(raw.to_vec()),
            Ok(back) => {
                let back = String::from_utf8_lossy(back);
                let reason = format!("readers would see the key `{}`", name(&back));
                Err(WriteError::NotVerified { key, reason })
            }
            Err(reason) => Err(rejected(key, "decode the key again", reason)),
        }
    });
    Ok(checked.collect())
}

/// The record's value for each key; `None` for a delete.
fn encode_values(
    codecs: CheckedCodecs<'_>,
    verify: Verify,
    keys: &[Step<String>],
    writes: &[Write],
) -> Result<Vec<Step<Option<Encoded>>>, CodecFailure> {
    let mut steps: Vec<Step<Option<Encoded>>> = Vec::with_capacity(writes.len());
    let mut pending = Vec::new();
    for (index, (key, value)) in keys.iter().zip(writes.iter().map(|write| &write.value)).enumerate() {
        let mut step = Ok(None);
        if let (Ok(key), Some(value)) = (key, value) {
            match ktables_json::check(value) {
                Ok(_) => pending.push((index, key.as_str(), value.as_str())),
                Err(error) => {
                    step = Err(WriteError::InvalidJson { key: key.clone(), reason: error.to_string() });
                }
            }
        }
        steps.push(step);
    }
    let texts: Vec<&str> = pending.iter().map(|&(_, _, value)| value).collect();
    let encoded = codecs.encode_values(&texts)?;
    let refusals = refusals(codecs, verify, &pending, &encoded)?;
    for (((index, key, _), encoded), refusal) in pending.iter().zip(encoded).zip(refusals) {
        steps[*index] = match (encoded, refusal) {
            (Err(reason), _) => {
                Err(WriteError::Rejected { key: (*key).to_owned(), action: "encode the value", reason })
            }
            (Ok(_), Some(refusal)) => Err(refusal),
            (Ok(encoded), None) => Ok(Some(encoded)),
        };
    }
    Ok(steps)
}

/// Decodes what was encoded; a refusal for each value that readers would not get
/// as it was meant.
fn refusals(
    codecs: CheckedCodecs<'_>,
    verify: Verify,
    pending: &[Pending<'_>],
    encoded: &[Result<Encoded, RejectReason>],
) -> Result<Vec<Option<WriteError>>, CodecFailure> {
    if verify == Verify::Off {
        return Ok(pending.iter().map(|_| None).collect());
    }
    let nothing = Encoded::default();
    let encoded: Vec<&Encoded> = encoded.iter().map(|encoded| encoded.as_ref().unwrap_or(&nothing)).collect();
    let raw = pack(encoded.iter().map(|encoded| encoded.raw.as_slice()).collect::<Vec<_>>())?;
    let headers: Vec<&[Header]> = if codecs.wants_headers() {
        encoded.iter().map(|encoded| encoded.headers.as_slice()).collect()
    } else {
        Vec::new()
    };
    let mut decoded = codecs.decode_values(&raw, &headers)?;
    decoded.check_json(broken_contract(None));
    let refusal = |(&(_, key, value), decoded): (&Pending<'_>, Result<&[u8], &RejectReason>)| {
        let back = match decoded {
            // OK because what is no text was rejected.
            Ok(back) => std::str::from_utf8(back).expect("UTF-8"),
            Err(reason) => return Some(rejected(key.to_owned(), "decode the value again", reason)),
        };
        if verify == Verify::Decodes || json_equal(value, back) {
            return None;
        }
        // Values may be secrets: only where they begin to differ is said.
        let same = back.bytes().zip(value.bytes()).take_while(|(back, value)| back == value).count();
        let reason = format!(
            "readers would see another value: {} bytes of JSON instead of {}, which differ from byte {same} on",
            back.len(),
            value.len()
        );
        Some(WriteError::NotVerified { key: key.to_owned(), reason })
    };
    Ok(pending.iter().zip(decoded.iter()).map(refusal).collect())
}

fn rejected(key: String, action: &'static str, reason: &RejectReason) -> WriteError {
    WriteError::Rejected { key, action, reason: reason.clone() }
}

fn pack(items: Vec<&[u8]>) -> Result<Packed, CodecFailure> {
    let too_much = || HostFailure { reason: "more than 4 GiB to be written at once".to_owned() };
    Ok(Packed::checked(items).ok_or_else(too_much)?)
}

/// The answer for one item.
fn only<T>(mut answers: Vec<T>) -> T {
    // OK because a scheme answers for each item.
    answers.pop().expect("one answer for one item")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Bytes, LengthPrefixed, Utf8};
    use std::sync::Arc;

    fn check(codecs: &Codecs, target: Target, value: Option<&str>) -> Result<NewRecord, WriteError> {
        let write = Write { target, value: value.map(str::to_owned) };
        only(prepare(codecs, Verify::Equal, &[write]).expect("built in")).map(|(_, record)| record)
    }

    fn key(key: &str) -> Target {
        Target::Key(key.to_owned())
    }

    #[test]
    fn a_delete_is_a_null_value_and_json_null_is_not() {
        let codecs = Codecs::default();
        assert_eq!(check(&codecs, key("a"), None).unwrap().value, None);
        assert_eq!(check(&codecs, key("a"), Some("null")).unwrap().value.as_deref(), Some(&b"null"[..]));
    }

    #[test]
    fn what_is_no_json_is_not_published() {
        assert!(matches!(
            check(&Codecs::default(), key("a"), Some("text")),
            Err(WriteError::InvalidJson { .. })
        ));
    }

    #[test]
    fn what_the_codec_cannot_write_is_not_published() {
        let codecs = Codecs::new(Utf8, Utf8);
        assert!(matches!(check(&codecs, key("a"), Some("1")), Err(WriteError::Rejected { .. })));
        let codecs = Codecs::new(Bytes, Utf8);
        assert!(matches!(check(&codecs, key("%"), Some("\"x\"")), Err(WriteError::Rejected { .. })));
    }

    #[test]
    fn a_grouped_topic_takes_members_and_own_keys_only() {
        let codecs = Codecs { scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
        let member = Target::Member { group: "äö".to_owned(), member: "x".to_owned() };
        assert_eq!(
            check(&codecs, member.clone(), Some("1")).unwrap().key.as_deref(),
            Some("2:äöx".as_bytes())
        );
        assert!(check(&codecs, key("2:abc"), Some("1")).is_ok());
        assert!(matches!(check(&codecs, key("abc"), Some("1")), Err(WriteError::NotVerified { .. })));
        assert!(matches!(check(&Codecs::default(), member, Some("1")), Err(WriteError::NoScheme { .. })));
    }

    #[test]
    fn one_bad_write_does_not_keep_back_its_neighbours() {
        let write = |key: &str, value: &str| Write {
            target: Target::Key(key.to_owned()),
            value: Some(value.to_owned()),
        };
        let writes = vec![write("a", "1"), write("b", "{"), write("c", "3")];
        let records = prepare(&Codecs::default(), Verify::Equal, &writes).unwrap();
        assert_eq!(records.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    }
}
