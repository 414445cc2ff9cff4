//! What is logged while something is done.

use std::future::Future;
use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::instrument::WithSubscriber;
use tracing_subscriber::fmt::MakeWriter;

/// Lines in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics with it").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What a future gives, and what it logs itself, from information upwards: a line each, the
/// level first. Other tasks that it starts are not heard.
///
/// # Panics
///
/// If that is no text.
pub async fn said<F: Future>(future: F) -> (F::Output, Vec<String>) {
    let lines = Lines::default();
    let format = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false);
    let output = future.with_subscriber(format.with_writer(lines.clone()).finish()).await;
    let text = String::from_utf8(lines.0.lock().expect("nobody panics with it").clone()).expect("text");
    (output, text.lines().map(|line| line.trim().to_owned()).collect())
}
