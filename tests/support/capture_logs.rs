//! Captures log lines.

use std::future::Future;
use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::instrument::WithSubscriber;
use tracing_subscriber::fmt::MakeWriter;

/// A buffer for log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
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

/// Awaits a future, and returns its output and the lines that it logs at level INFO and above. Each line
/// begins with its level. Lines of other tasks that the future starts are not captured.
///
/// # Panics
///
/// If the lines are not UTF-8.
pub async fn capture_logs<F: Future>(future: F) -> (F::Output, Vec<String>) {
    let lines = Lines::default();
    let format = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false);
    let output = future.with_subscriber(format.with_writer(lines.clone()).finish()).await;
    let text = String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("UTF-8");
    (output, text.lines().map(|line| line.trim().to_owned()).collect())
}
