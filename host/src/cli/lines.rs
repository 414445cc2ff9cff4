//! Lines of bounded length.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The largest value that is read from standard input or a file: several times the largest record that
/// brokers accept by default.
pub(super) const MAX_VALUE_BYTES: usize = 32 << 20;

/// The longest line that is accepted.
pub(super) const MAX_LINE_BYTES: usize = MAX_VALUE_BYTES;

/// The UTF-8 byte-order mark, with which some editors begin a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads lines of bounded length.
pub(super) struct LineReader<R> {
    input: R,
    line: Vec<u8>,
    is_first: bool,
}

/// The result of reading a line.
pub(super) enum NextLine {
    Line(Vec<u8>),
    /// A line that was longer than [`MAX_LINE_BYTES`], and was skipped.
    TooLong,
    End,
}

impl<R: AsyncBufRead + Unpin> LineReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, line: Vec::new(), is_first: true }
    }

    /// Reads the next line, without its line feed.
    ///
    /// # Cancel safety
    ///
    /// No input is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> io::Result<NextLine> {
        loop {
            let available = self.input.fill_buf().await?;
            let end = available.iter().position(|&byte| byte == b'\n');
            let more = &available[..end.unwrap_or(available.len())];
            // One byte more than the limit is kept, which shows that the line is too long. A byte-order mark
            // does not count.
            let room = (MAX_LINE_BYTES + 1 + BYTE_ORDER_MARK.len()).saturating_sub(self.line.len());
            self.line.extend_from_slice(&more[..more.len().min(room)]);
            let (is_over, consumed) = (available.is_empty(), more.len() + usize::from(end.is_some()));
            self.input.consume(consumed);
            if end.is_some() || is_over && !self.line.is_empty() {
                return Ok(self.take_line());
            }
            if is_over {
                return Ok(NextLine::End);
            }
        }
    }

    fn take_line(&mut self) -> NextLine {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_first) && line.starts_with(BYTE_ORDER_MARK) {
            tracing::warn!("the input begins with a byte-order mark, which is skipped");
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.len() > MAX_LINE_BYTES { NextLine::TooLong } else { NextLine::Line(line) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    async fn read_all(lines: &mut LineReader<BufReader<&[u8]>>) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            match lines.next().await.unwrap() {
                NextLine::Line(line) => found.push(String::from_utf8(line).unwrap()),
                NextLine::TooLong => found.push("too long".to_owned()),
                NextLine::End => return found,
            }
        }
    }

    #[tokio::test]
    async fn a_byte_order_mark_does_not_count() {
        for (length, expected) in
            [(MAX_LINE_BYTES, "x"), (MAX_LINE_BYTES + 1, "t"), (MAX_LINE_BYTES + 9, "t")]
        {
            let text = format!("\u{feff}{}", "x".repeat(length));
            let found = read_all(&mut LineReader::new(BufReader::new(text.as_bytes()))).await;
            assert!(found.len() == 1 && found[0].starts_with(expected), "{length}");
        }
    }

    #[tokio::test]
    async fn lines_are_read_whole_up_to_the_limit() {
        let long = "x".repeat(MAX_LINE_BYTES + 10);
        let text = format!("\u{feff}a\n\n{long}\nlast");
        let mut lines = LineReader::new(BufReader::with_capacity(7, text.as_bytes()));
        assert_eq!(read_all(&mut lines).await, ["a", "", "too long", "last"]);
        // The reader keeps no buffer between lines, not even that of the long one.
        assert_eq!(lines.line.capacity(), 0);
    }
}
