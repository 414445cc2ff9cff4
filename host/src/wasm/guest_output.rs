//! What a guest writes about itself: its log messages, and what it prints. It explains a fault.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// How many bytes are kept: the newest ones. The reason of a rejection holds more.
const KEPT_BYTES: usize = 3 << 10;

/// How many bytes of an incomplete first line are left out at most.
const INCOMPLETE_LINE_BYTES: usize = 512;

/// The newest bytes that a guest wrote during a call. Clones share the bytes. The std lock is held only to copy.
#[derive(Debug, Clone, Default)]
pub(super) struct GuestOutput(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// Whether earlier bytes are missing.
    is_cut: bool,
    /// Whether the last bytes are about an error.
    ends_with_error: bool,
}

/// What a guest wrote until it ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LastWords {
    pub(super) text: String,
    /// Whether the guest wrote about an error last: a panic or an exception, for example.
    pub(super) ends_with_error: bool,
}

/// What bytes are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// They were logged as an error, or written to standard error.
    Error,
    Other,
}

impl Kept {
    fn write(&mut self, bytes: &[u8], about: About) {
        let newest = &bytes[bytes.len().saturating_sub(KEPT_BYTES)..];
        let excess = (self.bytes.len() + newest.len()).saturating_sub(KEPT_BYTES);
        self.is_cut |= excess > 0 || newest.len() < bytes.len();
        self.bytes.drain(..excess);
        self.bytes.extend(newest);
        self.ends_with_error = about == About::Error;
    }
}

impl GuestOutput {
    /// Adds bytes.
    pub(super) fn write(&self, bytes: &[u8], about: About) {
        lock(&self.0).write(bytes, about);
    }

    /// Adds a log message, on a line of its own. But some runtimes print one text with several calls, for example
    /// `panic: ` and then the reason. So there is no line break between two messages if the first one ends with
    /// white space, or the second one begins with it.
    pub(super) fn write_message(&self, message: &str, about: About) {
        let mut kept = lock(&self.0);
        let ends_with_space = kept.bytes.back().is_none_or(u8::is_ascii_whitespace);
        if !ends_with_space && !message.starts_with(char::is_whitespace) {
            kept.write(b"\n", about);
        }
        kept.write(message.as_bytes(), about);
    }

    /// Takes what was written. If earlier bytes are missing, the rest of their line is left out, unless it is long.
    pub(super) fn take(&self) -> LastWords {
        let Kept { bytes, is_cut, ends_with_error } = std::mem::take(&mut *lock(&self.0));
        let bytes = Vec::from(bytes);
        let line_end = bytes.iter().take(INCOMPLETE_LINE_BYTES).position(|&byte| byte == b'\n');
        let start = line_end.filter(|_| is_cut).map_or(0, |line_end| line_end + 1);
        LastWords { text: String::from_utf8_lossy(&bytes[start..]).trim().to_owned(), ends_with_error }
    }

    /// Forgets what was written.
    pub(super) fn clear(&self) {
        *lock(&self.0) = Kept::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_lines_are_kept() {
        let output = GuestOutput::default();
        output.write(b"one\n", About::Error);
        output.write(b"two\n", About::Other);
        assert_eq!(output.take(), LastWords { text: "one\ntwo".to_owned(), ends_with_error: false });
        assert_eq!(output.take(), LastWords::default());
        for n in 0..10_000 {
            output.write(format!("line {n}\n").as_bytes(), About::Error);
        }
        let LastWords { text, ends_with_error } = output.take();
        assert!(
            text.starts_with("line 9") && text.ends_with("line 9999") && text.len() < KEPT_BYTES,
            "{text}"
        );
        assert!(ends_with_error);
    }

    #[test]
    fn a_long_line_is_cut_and_not_lost() {
        let output = GuestOutput::default();
        output.write(format!("{}\n", "x".repeat(10 * KEPT_BYTES)).as_bytes(), About::Error);
        assert_eq!(output.take().text.len(), KEPT_BYTES - 1);
        output.write(format!("first\n{}", "x".repeat(KEPT_BYTES - 6)).as_bytes(), About::Error);
        assert!(output.take().text.starts_with("first"));
    }

    #[test]
    fn messages_are_lines_and_pieces_of_a_text_are_joined() {
        let output = GuestOutput::default();
        for message in ["cannot decode", "panic: ", "no such team", "\n\n", "goroutine ", "1"] {
            output.write_message(message, About::Error);
        }
        assert_eq!(output.take().text, "cannot decode\npanic: no such team\n\ngoroutine 1");
    }
}
