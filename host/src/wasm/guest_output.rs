//! What a guest writes about itself: its log messages, and what it prints. It explains a fault.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// How many bytes are kept. The reason of a rejection holds more.
const KEPT_BYTES: usize = 3 << 10;

/// How many of them are the first ones about the last error. The others are the newest ones. Go, for example, prints a
/// panic before the stacks of all goroutines.
const FIRST_BYTES: usize = 1 << 10;

/// What stands for the bytes between.
const GAP: &str = "\n…\n";

/// How many bytes of an incomplete first line are left out at most.
const INCOMPLETE_LINE_BYTES: usize = 512;

/// What a guest wrote during a call, as far as it is kept. Clones share the bytes. The std lock is held only to copy.
#[derive(Debug, Clone, Default)]
pub(super) struct GuestOutput(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// Whether bytes before all others are missing.
    is_cut: bool,
    /// Where bytes are missing.
    gap: Option<usize>,
    /// Where the output about the last error begins.
    error: usize,
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
        if about == About::Error && !self.ends_with_error {
            self.error = self.bytes.len();
        }
        self.ends_with_error = about == About::Error;
        if bytes.len() <= KEPT_BYTES {
            self.append(bytes);
        } else {
            // The bytes between would be dropped anyway.
            self.append(&bytes[..KEPT_BYTES]);
            self.drop_after_first(KEPT_BYTES - FIRST_BYTES);
            self.append(&bytes[bytes.len() - (KEPT_BYTES - FIRST_BYTES)..]);
        }
    }

    /// Appends bytes, and drops older ones: first those before the last error, then those after its first ones.
    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(KEPT_BYTES);
        let before = excess.min(self.error);
        if before > 0 {
            self.bytes.drain(..before);
            self.error -= before;
            self.is_cut = self.error > 0;
            self.gap = self.gap.and_then(|gap| gap.checked_sub(before)).filter(|&gap| gap > 0);
        }
        self.drop_after_first(excess - before);
    }

    /// Drops bytes after the first ones about the last error.
    fn drop_after_first(&mut self, count: usize) {
        let at = self.bytes.len().min(self.error + FIRST_BYTES);
        let end = self.bytes.len().min(at + count);
        if at < end {
            self.bytes.drain(at..end);
            self.gap = Some(at);
        }
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

    /// Takes what was kept. Where bytes are missing, the rest of their line is left out, too, unless it is long.
    pub(super) fn take(&self) -> LastWords {
        let Kept { bytes, is_cut, gap, ends_with_error, .. } = std::mem::take(&mut *lock(&self.0));
        let bytes = Vec::from(bytes);
        let (first, newest) = bytes.split_at(gap.unwrap_or(0));
        let text = match gap {
            None => to_text(newest, is_cut),
            Some(_) => [to_text(first, is_cut), to_text(newest, true)].join(GAP),
        };
        LastWords { text, ends_with_error }
    }

    /// Forgets what was written.
    pub(super) fn clear(&self) {
        *lock(&self.0) = Kept::default();
    }
}

/// Converts bytes to text. If earlier bytes are missing, leaves out the rest of their line.
fn to_text(bytes: &[u8], is_cut: bool) -> String {
    let line_end = bytes.iter().take(INCOMPLETE_LINE_BYTES).position(|&byte| byte == b'\n');
    let start = line_end.filter(|_| is_cut).map_or(0, |line_end| line_end + 1);
    String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_newest_whole_lines_are_kept() {
        let output = GuestOutput::default();
        output.write(b"one\n", About::Error);
        output.write(b"two\n", About::Other);
        assert_eq!(output.take(), LastWords { text: "one\ntwo".to_owned(), ends_with_error: false });
        assert_eq!(output.take(), LastWords::default());
        for n in 0..10_000 {
            output.write(format!("line {n}\n").as_bytes(), About::Other);
        }
        let LastWords { text, ends_with_error } = output.take();
        assert!(text.starts_with("line 0\n") && text.contains("\n…\nline 9"), "{text}");
        assert!(text.ends_with("line 9999") && text.len() < KEPT_BYTES + GAP.len() && !ends_with_error);
    }

    #[test]
    fn the_first_lines_about_the_last_error_are_kept() {
        let output = GuestOutput::default();
        for n in 0..10_000 {
            output.write(format!("line {n}\n").as_bytes(), About::Other);
        }
        output.write(b"panic: no such team\n", About::Error);
        for n in 0..10_000 {
            output.write(format!("goroutine {n}\n").as_bytes(), About::Error);
        }
        let LastWords { text, ends_with_error } = output.take();
        assert!(text.starts_with("panic: no such team\ngoroutine 0\n"), "{text}");
        assert!(
            text.contains("\n…\ngoroutine 9") && text.ends_with("goroutine 9999") && ends_with_error,
            "{text}"
        );
    }

    #[test]
    fn a_long_line_is_cut_and_not_lost() {
        let output = GuestOutput::default();
        output.write(format!("{}\n", "x".repeat(10 * KEPT_BYTES)).as_bytes(), About::Error);
        assert_eq!(output.take().text.len(), KEPT_BYTES - 1 + GAP.len());
        output.write(format!("first\n{}", "x".repeat(KEPT_BYTES - 6)).as_bytes(), About::Error);
        assert!(output.take().text.starts_with("first"));
    }

    #[test]
    fn any_writes_keep_at_most_the_bytes_that_fit() {
        let output = GuestOutput::default();
        for n in 0..2_000_usize {
            let about = if n % 7 < 3 { About::Error } else { About::Other };
            output.write(&vec![b'x'; n * 37 % 5_000], about);
            assert!(lock(&output.0).bytes.len() <= KEPT_BYTES);
        }
        assert!(output.take().text.len() <= KEPT_BYTES + GAP.len());
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
