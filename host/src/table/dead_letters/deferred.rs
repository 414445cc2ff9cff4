//! The dead letters of a swap, which are written when it succeeds.

use crate::table::dead_letters::letter::DeadLetter;

/// How many bytes of dead letters a swap may keep until it succeeds.
const MAX_BYTES: usize = 64 << 20;

/// The dead letters of a swap that may still be given up.
#[derive(Debug, Default)]
pub(in crate::table) struct DeferredLetters {
    letters: Vec<DeadLetter>,
    bytes: usize,
}

impl DeferredLetters {
    /// Adds dead letters.
    ///
    /// # Errors
    ///
    /// The reason why the swap must be given up: it has too many.
    pub(in crate::table) fn add(&mut self, letters: Vec<DeadLetter>) -> Result<(), String> {
        self.bytes += letters.iter().map(DeadLetter::byte_len).sum::<usize>();
        self.letters.extend(letters);
        if self.bytes <= MAX_BYTES {
            return Ok(());
        }
        Err(format!(
            "the swap was given up, because the other codecs reject too many records: their dead letters exceed 64 MiB \
             ({} records so far). Check the codecs; to use them nevertheless, start the table with them",
            self.letters.len()
        ))
    }

    /// Takes all of them.
    pub(in crate::table) fn take(&mut self) -> Vec<DeadLetter> {
        std::mem::take(self).letters
    }
}
