//! Whether a broker answers: the smallest request of Kafka's protocol, and its answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// ApiVersions, version 0.
const API_KEY: i16 = 18;

/// Told by the client, and answered.
const CORRELATION: i32 = 0x6b74;

/// More than an answer of any broker.
const LARGEST: usize = 1 << 16;

/// Whether a broker at this address answers in time.
///
/// Kafka opens its listeners to requests when its controller has let the broker in:
/// one that answers also leads its partitions, and creates topics.
pub(crate) fn answers(address: &str, timeout: Duration) -> bool {
    address.parse().is_ok_and(|address| ask(address, timeout).is_ok_and(|answer| accepted(&answer)))
}

fn ask(address: SocketAddr, timeout: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(&request())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LARGEST {
        return Err(io::Error::other("not Kafka's protocol"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// The request with its length before it.
fn request() -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(API_KEY.to_be_bytes());
    header.extend(0_i16.to_be_bytes());
    header.extend(CORRELATION.to_be_bytes());
    // No client id.
    header.extend((-1_i16).to_be_bytes());
    // OK because the header is 10 bytes long.
    let length = i32::try_from(header.len()).expect("a short header");
    [&length.to_be_bytes()[..], &header].concat()
}

/// Whether this answers the request, without an error.
fn accepted(answer: &[u8]) -> bool {
    answer.starts_with(&[&CORRELATION.to_be_bytes()[..], &0_i16.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_kafkas() {
        assert_eq!(request(), [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0x6b, 0x74, 0xff, 0xff]);
    }

    #[test]
    fn an_answer_repeats_the_correlation_and_has_no_error() {
        assert!(accepted(&[0, 0, 0x6b, 0x74, 0, 0, 0, 0, 0, 0]));
        assert!(!accepted(&[0, 0, 0x6b, 0x74, 0, 35]), "UNSUPPORTED_VERSION");
        assert!(!accepted(&[0, 0, 0, 1, 0, 0]), "of another request");
        assert!(!accepted(b"HTTP"), "too short");
    }
}
