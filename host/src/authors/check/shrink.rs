//! Makes a counterexample smaller, as long as it violates the property.

use std::time::{Duration, Instant};

use crate::authors::check::properties::Property;
use crate::authors::check::subject::Subject;
use crate::codec::{GroupKey, HostFailure};
use crate::wasm::Request;

/// For how long smaller candidates are tried.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Into how many pieces an input is cut at most, to leave one of them out.
const MAX_PIECES: usize = 1024;

/// Returns the smallest requests that were found to violate the property, and how they do. `first` says how these do.
pub(super) fn shrink(
    subject: &Subject,
    property: Property,
    requests: Vec<Request>,
    first: String,
) -> Result<(Vec<Request>, String), HostFailure> {
    let started = Instant::now();
    let mut found = None;
    let mut violates = |candidate: &[Request]| {
        if started.elapsed() > MAX_TIME {
            return Ok(false);
        }
        let violation = property(subject, candidate)?;
        let is_violation = violation.is_some();
        found = violation.or_else(|| found.take());
        Ok::<_, HostFailure>(is_violation)
    };
    if !violates(&requests)? {
        return Ok((
            requests,
            format!("{first}; it did not occur again on a new instance, or without other calls"),
        ));
    }
    let mut requests = remove_parts(requests, &mut violates)?;
    for index in 0..requests.len() {
        while let Some(smaller) = find_simpler(&requests, index, &mut violates)? {
            requests[index] = smaller;
        }
    }
    // The description belongs to the last violation, which has the smallest requests.
    Ok((requests, found.unwrap_or(first)))
}

/// Returns a simpler form of one of the requests with which they still violate the property.
fn find_simpler(
    requests: &[Request],
    index: usize,
    violates: &mut impl FnMut(&[Request]) -> Result<bool, HostFailure>,
) -> Result<Option<Request>, HostFailure> {
    let mut changed = requests.to_vec();
    for candidate in simpler(&requests[index]) {
        changed[index] = candidate;
        if violates(&changed)? {
            return Ok(Some(changed.swap_remove(index)));
        }
    }
    Ok(None)
}

/// Removes as many parts of a list as possible.
fn remove_parts<T: Clone>(
    mut list: Vec<T>,
    violates: &mut impl FnMut(&[T]) -> Result<bool, HostFailure>,
) -> Result<Vec<T>, HostFailure> {
    let mut size = list.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < list.len() {
            let end = (start + size).min(list.len());
            let rest = [&list[..start], &list[end..]].concat();
            if !rest.is_empty() && violates(&rest)? {
                list = rest;
            } else {
                start = end;
            }
        }
        size /= 2;
    }
    Ok(list)
}

/// Returns simpler requests for the same function, one after the other.
fn simpler(request: &Request) -> Box<dyn Iterator<Item = Request> + '_> {
    match request {
        Request::DecodeValue { raw, headers } => {
            let without_headers =
                (!headers.is_empty()).then(|| Request::DecodeValue { raw: raw.clone(), headers: Vec::new() });
            let shorter =
                shorter_bytes(raw).map(|raw| Request::DecodeValue { raw, headers: headers.clone() });
            Box::new(without_headers.into_iter().chain(shorter))
        }
        Request::DecodeKey(raw) => Box::new(shorter_bytes(raw).map(Request::DecodeKey)),
        Request::EncodeValue(text) => {
            let shorter = shorter_texts(text).filter(|text| ktables_json::check(text).is_ok());
            Box::new(shorter.map(Request::EncodeValue))
        }
        Request::EncodeKey(text) => Box::new(shorter_texts(text).map(Request::EncodeKey)),
        Request::Split(text) => Box::new(shorter_texts(text).map(Request::Split)),
        Request::Join(GroupKey { group, member }) => {
            let groups =
                shorter_texts(group).map(|group| GroupKey { group: group.into(), member: member.clone() });
            let members =
                shorter_texts(member).map(|member| GroupKey { group: group.clone(), member: member.into() });
            Box::new(groups.chain(members).map(Request::Join))
        }
    }
}

/// Returns the ranges of a list that may be left out, larger ones first.
fn pieces(len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let least = len.div_ceil(MAX_PIECES).max(1);
    let sizes = std::iter::successors(Some(len), move |size| Some(size / 2).filter(|&size| size >= least));
    let sizes = sizes.filter(|&size| size > 0);
    sizes.flat_map(move |size| (0..len).step_by(size).map(move |start| start..(start + size).min(len)))
}

/// Returns the bytes without parts of them, and then with zeros in the place of others.
fn shorter_bytes(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let shorter = pieces(bytes.len()).map(|piece| [&bytes[..piece.start], &bytes[piece.end..]].concat());
    let others = (0..bytes.len()).filter(|&index| bytes[index] != 0).take(MAX_PIECES);
    let zeroed = others.map(|index| {
        let mut zeroed = bytes.to_vec();
        zeroed[index] = 0;
        zeroed
    });
    shorter.chain(zeroed)
}

/// Returns the text without parts of it, and then with simpler characters.
fn shorter_texts(text: &str) -> impl Iterator<Item = String> + use<> {
    let characters: Vec<char> = text.chars().collect();
    let all = characters.clone();
    let shorter =
        pieces(all.len()).map(move |piece| all[..piece.start].iter().chain(&all[piece.end..]).collect());
    let others: Vec<usize> =
        (0..characters.len()).filter(|&index| !characters[index].is_ascii_alphanumeric()).collect();
    let simpler = others.into_iter().take(MAX_PIECES).map(move |index| {
        let mut simpler = characters.clone();
        simpler[index] = 'a';
        simpler.into_iter().collect()
    });
    shorter.chain(simpler)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_removed_as_long_as_the_rest_violates_the_property() {
        let mut needed = |list: &[i32]| Ok(list.contains(&3) && list.contains(&7));
        assert_eq!(remove_parts((0..100).collect(), &mut needed).unwrap(), [3, 7]);
        assert_eq!(remove_parts(vec![1], &mut |_: &[i32]| Ok(true)).unwrap(), [1]);
    }

    #[test]
    fn candidates_are_shorter_or_simpler() {
        for candidate in shorter_bytes(b"abc") {
            let zeros = candidate.iter().filter(|&&byte| byte == 0).count();
            assert!(candidate.len() < 3 || zeros == 1, "{candidate:?}");
        }
        assert!(shorter_texts("äb").any(|text| text == "b"));
        assert!(shorter_bytes(&[1; 1 << 20]).take(10_000).count() < 10_000);
    }
}
