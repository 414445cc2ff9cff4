//! Encodes writes to records and verifies them. Runs on a codec worker.

use crate::codec::{
    CheckedCodecs, CodecFailure, Codecs, Encoded, HostFailure, RejectReason, contract_violation, json_equal,
};
use crate::escape::escape_name;
use crate::log::{Header, NewRecord};
use crate::packed::Packed;
use crate::writer::error::WriteError;
use crate::writer::write::{Target, Verify, Write};

/// An intermediate result of one write, or why the write failed.
type WriteResult<T> = Result<T, WriteError>;

/// A value to be encoded: the index of its write, its key, and its JSON text.
type Pending<'a> = (usize, &'a str, &'a str);

/// Returns the key and the record of each write, in order.
///
/// # Errors
///
/// [`CodecFailure::Fault`] if a codec faulted. The caller then prepares each write alone, and rejects those
/// that fault again.
pub(super) fn prepare(
    codecs: &Codecs,
    verify: Verify,
    writes: &[Write],
) -> Result<Vec<WriteResult<(String, NewRecord)>>, CodecFailure> {
    let codecs = CheckedCodecs(codecs);
    let keys = resolve_keys(codecs, writes)?;
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

/// Returns the key of each target. With a group scheme, each must be a key of a group and a member.
fn resolve_keys(
    codecs: CheckedCodecs<'_>,
    writes: &[Write],
) -> Result<Vec<WriteResult<String>>, CodecFailure> {
    writes.iter().map(|write| resolve_key(codecs, write.target.clone())).collect()
}

fn resolve_key(codecs: CheckedCodecs<'_>, target: Target) -> Result<WriteResult<String>, CodecFailure> {
    let (group, member) = match target {
        Target::Key(key) => {
            let Some(split) = codecs.split(&[&key]) else { return Ok(Ok(key)) };
            return Ok(match single(split?) {
                Ok(Some(_)) => Ok(key),
                Ok(None) => {
                    let reason =
                        "the group scheme cannot split the key: write a group and a member".to_owned();
                    Err(WriteError::NotVerified { key, reason })
                }
                Err(reason) => Err(WriteError::Rejected { key, action: "split the key", reason }),
            });
        }
        Target::Member { group, member } => (group, member),
    };
    let Some(joined) = codecs.join(&group, &member) else {
        return Ok(Err(WriteError::NoGroupScheme { group, member }));
    };
    let key = match single(joined?) {
        Ok(key) => String::from(key),
        Err(reason) => {
            let key = format!("{group}/{member}");
            return Ok(Err(WriteError::Rejected { key, action: "join group and member to a key", reason }));
        }
    };
    // OK because there is a scheme.
    let seen = match single(codecs.split(&[&key]).expect("a scheme")?) {
        Ok(Some(split)) if *split.group == *group && *split.member == *member => return Ok(Ok(key)),
        Ok(Some(split)) => {
            format!("group `{}`, member `{}`", escape_name(&split.group), escape_name(&split.member))
        }
        Ok(None) => "no group and member".to_owned(),
        Err(reason) => reason.to_string(),
    };
    let (group, member) = (escape_name(&group), escape_name(&member));
    let reason = format!("the key of group `{group}`, member `{member}` splits to {seen}");
    Ok(Err(WriteError::NotVerified { key, reason }))
}

/// Encodes each key, and verifies that it decodes to the same key.
fn encode_keys(
    codecs: CheckedCodecs<'_>,
    keys: &[WriteResult<String>],
) -> Result<Vec<WriteResult<Vec<u8>>>, CodecFailure> {
    let texts: Vec<&str> = keys.iter().flatten().map(String::as_str).collect();
    let encoded = codecs.encode_keys(&texts)?;
    let raw = pack(encoded.iter().map(Result::unwrap_or_default).collect::<Vec<_>>())?;
    let decoded = codecs.decode_keys(&raw)?;
    let mut answers = encoded.iter().zip(decoded.iter());
    let checked = keys.iter().map(|key| {
        let key = key.clone()?;
        // OK because a codec answers for each key.
        let (raw, decoded) = answers.next().expect("one answer for each key");
        let raw = match raw {
            Ok(raw) => raw,
            Err(reason) => return Err(rejected_error(key, "encode the key", reason)),
        };
        match decoded {
            Ok(decoded) if decoded == key.as_bytes() => Ok(raw.to_vec()),
            Ok(decoded) => {
                let decoded = String::from_utf8_lossy(decoded);
                let reason = format!("readers would see the key `{}`", escape_name(&decoded));
                Err(WriteError::NotVerified { key, reason })
            }
            Err(reason) => Err(rejected_error(key, "decode the key again", reason)),
        }
    });
    Ok(checked.collect())
}

/// Encodes and verifies the value of each write; `None` for a delete.
fn encode_values(
    codecs: CheckedCodecs<'_>,
    verify: Verify,
    keys: &[WriteResult<String>],
    writes: &[Write],
) -> Result<Vec<WriteResult<Option<Encoded>>>, CodecFailure> {
    let mut results: Vec<WriteResult<Option<Encoded>>> = Vec::with_capacity(writes.len());
    let mut pending = Vec::new();
    for (index, (key, value)) in keys.iter().zip(writes.iter().map(|write| &write.value)).enumerate() {
        let mut result = Ok(None);
        if let (Ok(key), Some(value)) = (key, value) {
            match ktables_json::check(value) {
                Ok(_) => pending.push((index, key.as_str(), value.as_str())),
                Err(error) => {
                    result = Err(WriteError::InvalidJson { key: key.clone(), reason: error.to_string() });
                }
            }
        }
        results.push(result);
    }
    let texts: Vec<&str> = pending.iter().map(|&(_, _, value)| value).collect();
    let encoded = codecs.encode_values(&texts)?;
    let errors = verify_values(codecs, verify, &pending, &encoded)?;
    for (((index, key, _), encoded), error) in pending.iter().zip(encoded).zip(errors) {
        results[*index] = match (encoded, error) {
            (Err(reason), _) => {
                Err(WriteError::Rejected { key: (*key).to_owned(), action: "encode the value", reason })
            }
            (Ok(_), Some(error)) => Err(error),
            (Ok(encoded), None) => Ok(Some(encoded)),
        };
    }
    Ok(results)
}

/// Decodes the encoded values again. Returns an error for each value that readers would see differently.
fn verify_values(
    codecs: CheckedCodecs<'_>,
    verify: Verify,
    pending: &[Pending<'_>],
    encoded: &[Result<Encoded, RejectReason>],
) -> Result<Vec<Option<WriteError>>, CodecFailure> {
    if verify == Verify::Off {
        return Ok(pending.iter().map(|_| None).collect());
    }
    let empty = Encoded::default();
    let encoded: Vec<&Encoded> = encoded.iter().map(|encoded| encoded.as_ref().unwrap_or(&empty)).collect();
    let raw = pack(encoded.iter().map(|encoded| encoded.raw.as_slice()).collect::<Vec<_>>())?;
    let headers: Vec<&[Header]> = if codecs.wants_headers() {
        encoded.iter().map(|encoded| encoded.headers.as_slice()).collect()
    } else {
        Vec::new()
    };
    let mut decoded = codecs.decode_values(&raw, &headers)?;
    decoded.check_json(contract_violation(None));
    let error = |(&(_, key, value), decoded): (&Pending<'_>, Result<&[u8], &RejectReason>)| {
        let decoded = match decoded {
            // OK because a value that is not UTF-8 was rejected.
            Ok(decoded) => std::str::from_utf8(decoded).expect("UTF-8"),
            Err(reason) => return Some(rejected_error(key.to_owned(), "decode the value again", reason)),
        };
        if verify == Verify::Decodes || json_equal(value, decoded) {
            return None;
        }
        // Values may be secrets: only the position of the difference is reported.
        let same = decoded.bytes().zip(value.bytes()).take_while(|(decoded, value)| decoded == value).count();
        let reason = format!(
            "readers would see another value: {} bytes of JSON instead of {}, which differ from byte {same} \
             on; write it as it is read back, or accept other forms of the same value (verify = \"decodes\")",
            decoded.len(),
            value.len()
        );
        Some(WriteError::NotVerified { key: key.to_owned(), reason })
    };
    Ok(pending.iter().zip(decoded.iter()).map(error).collect())
}

fn rejected_error(key: String, action: &'static str, reason: &RejectReason) -> WriteError {
    WriteError::Rejected { key, action, reason: reason.clone() }
}

fn pack(items: Vec<&[u8]>) -> Result<Packed, CodecFailure> {
    let too_large = || HostFailure::new("cannot write more than 4 GiB at once");
    Ok(Packed::checked(items).ok_or_else(too_large)?)
}

/// Returns the only answer of a call with one item.
fn single<T>(mut answers: Vec<T>) -> T {
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
        single(prepare(codecs, Verify::Equal, &[write]).expect("built in")).map(|(_, record)| record)
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
    fn a_value_that_is_not_json_is_not_published() {
        assert!(matches!(
            check(&Codecs::default(), key("a"), Some("text")),
            Err(WriteError::InvalidJson { .. })
        ));
    }

    #[test]
    fn a_key_or_value_that_its_codec_rejects_is_not_published() {
        let codecs = Codecs::new(Utf8, Utf8);
        assert!(matches!(check(&codecs, key("a"), Some("1")), Err(WriteError::Rejected { .. })));
        let codecs = Codecs::new(Bytes, Utf8);
        assert!(matches!(check(&codecs, key("%"), Some("\"x\"")), Err(WriteError::Rejected { .. })));
    }

    #[test]
    fn with_a_group_scheme_only_keys_of_members_are_accepted() {
        let codecs = Codecs { group_scheme: Some(Arc::new(LengthPrefixed)), ..Codecs::default() };
        let member = Target::Member { group: "äö".to_owned(), member: "x".to_owned() };
        assert_eq!(
            check(&codecs, member.clone(), Some("1")).unwrap().key.as_deref(),
            Some("2:äöx".as_bytes())
        );
        assert!(check(&codecs, key("2:abc"), Some("1")).is_ok());
        assert!(matches!(check(&codecs, key("abc"), Some("1")), Err(WriteError::NotVerified { .. })));
        assert!(matches!(
            check(&Codecs::default(), member, Some("1")),
            Err(WriteError::NoGroupScheme { .. })
        ));
    }

    #[test]
    fn one_bad_write_does_not_block_the_others() {
        let write = |key: &str, value: &str| Write {
            target: Target::Key(key.to_owned()),
            value: Some(value.to_owned()),
        };
        let writes = vec![write("a", "1"), write("b", "{"), write("c", "3")];
        let records = prepare(&Codecs::default(), Verify::Equal, &writes).unwrap();
        assert_eq!(records.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    }
}
