//! Checks whether a broker answers, with the smallest request of Kafka's protocol, and whether a schema registry does.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Where Apicurio has the API of Confluent's.
pub(crate) const REGISTRY_API: &str = "/apis/ccompat/v7";

/// The key of the request ApiVersions, which is sent in version 0.
const API_KEY: i16 = 18;

/// The correlation id of the request, which the response repeats.
const CORRELATION_ID: i32 = 0x6b74;

/// The largest response that is accepted, in bytes. A broker's response is smaller.
const MAX_RESPONSE: usize = 1 << 16;

/// Returns true if a broker at this address answers in time.
///
/// Kafka serves requests only after the controller has registered and unfenced the broker. So a broker that
/// answers also leads its partitions, and can create topics.
pub(crate) fn is_answering(address: &str, timeout: Duration) -> bool {
    address.parse().is_ok_and(|address| request(address, timeout).is_ok_and(|response| is_success(&response)))
}

/// Returns true if a schema registry at this address answers in time.
pub(crate) fn is_registry_answering(address: &str, timeout: Duration) -> bool {
    let probe = || {
        let mut stream = TcpStream::connect_timeout(&address.parse().ok()?, timeout).ok()?;
        stream.set_read_timeout(Some(timeout)).ok()?;
        write!(stream, "GET {REGISTRY_API}/subjects HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).ok()?;
        Some(head.ends_with(b" 200"))
    };
    probe() == Some(true)
}

/// Sends the request. Returns the response without its length.
fn request(address: SocketAddr, timeout: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(&encode_request())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_RESPONSE {
        return Err(io::Error::other("the response is not of Kafka's protocol: it is too long"));
    }
    let mut response = vec![0; length];
    stream.read_exact(&mut response)?;
    Ok(response)
}

/// Returns the request, with its length first.
fn encode_request() -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(API_KEY.to_be_bytes());
    header.extend(0_i16.to_be_bytes());
    header.extend(CORRELATION_ID.to_be_bytes());
    // No client id.
    header.extend((-1_i16).to_be_bytes());
    // OK because the header is 10 bytes long.
    let length = i32::try_from(header.len()).expect("a short header");
    [&length.to_be_bytes()[..], &header].concat()
}

/// Returns true if the response has the request's correlation id and no error code.
fn is_success(response: &[u8]) -> bool {
    response.starts_with(&[&CORRELATION_ID.to_be_bytes()[..], &0_i16.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_kafkas_wire_format() {
        assert_eq!(encode_request(), [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0x6b, 0x74, 0xff, 0xff]);
    }

    #[test]
    fn a_successful_response_repeats_the_correlation_id_and_has_no_error() {
        assert!(is_success(&[0, 0, 0x6b, 0x74, 0, 0, 0, 0, 0, 0]));
        assert!(!is_success(&[0, 0, 0x6b, 0x74, 0, 35]), "UNSUPPORTED_VERSION");
        assert!(!is_success(&[0, 0, 0, 1, 0, 0]), "the response to another request");
        assert!(!is_success(b"HTTP"), "too short");
    }
}
