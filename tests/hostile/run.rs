//! Runs a hostile guest in a table, and checks what its host does.

use std::time::Duration;

use ktables::codec::{Codecs, RejectKind};
use ktables::table::{Status, Table};
use ktables::wasm::{Component, Engine, Limits, LoadOptions, Profile, WasmError};
use ktables_tests::{Scratch, TOPIC, contents, engine, eventually_async, record};
use procfs::process::Process;

use crate::guest::{Guest, Interface, VALUE};

/// The resident memory that this process may use at any time, in bytes.
pub(crate) const MAX_RESIDENT_BYTES: u64 = 1 << 30;

/// The resident memory that may stay after a guest is gone, in bytes: what allocators keep. A quarter of what one guest
/// may use.
const MAX_KEPT_BYTES: u64 = 64 << 20;

/// How many harmless records a topic has.
const HARMLESS: usize = 20;

/// What a host does with a guest.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// It does not load the guest, and says this.
    Refused(&'static str),
    /// It rejects the poison with a message that contains this, and applies all other records.
    Rejected(RejectKind, &'static str),
    /// It rejects each record with a message that contains this.
    AllRejected(RejectKind, &'static str),
    /// It applies all records.
    Applied,
    /// It does not group the poison, and applies all other records.
    Foreign,
}

/// Where a guest comes from.
pub(crate) trait Source {
    /// Returns the component.
    fn component(&self) -> Vec<u8>;

    /// Returns the interface that the component exports.
    fn interface(&self) -> Interface;
}

impl Source for Guest {
    fn component(&self) -> Vec<u8> {
        self.build()
    }

    fn interface(&self) -> Interface {
        self.interface
    }
}

/// A file that is refused before its interface matters.
impl<F: Fn() -> Vec<u8>> Source for F {
    fn component(&self) -> Vec<u8> {
        self()
    }

    fn interface(&self) -> Interface {
        Interface::Value
    }
}

/// The limits of a guest: the memory of an interpreter, and short deadlines.
pub(crate) fn limits() -> Limits {
    Limits {
        deadline: Duration::from_millis(500),
        deadline_per_record: Duration::from_millis(1),
        start_deadline: Duration::from_secs(1),
        ..Limits::new(Profile::Large)
    }
}

/// Held by each test, so that a guest is alone in this process.
pub(crate) static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs a guest, alone in this process, and checks that its memory returns.
pub(crate) async fn run(guest: &impl Source, expected: Expected) {
    let _turn = TURN.lock().await;
    // Starts the engine and its workers.
    check(&VALUE, Expected::Applied).await;
    let before = memory().0;
    check(guest, expected).await;
    eventually_async("the memory of the guest returns", || {
        (memory().0 <= before + MAX_KEPT_BYTES).then_some(())
    })
    .await;
    assert_memory_is_bounded();
}

/// Checks that this process never used more memory than it may.
pub(crate) fn assert_memory_is_bounded() {
    let peak = memory().1;
    assert!(peak <= MAX_RESIDENT_BYTES, "{} MiB", peak >> 20);
}

/// Returns the resident memory of this process, and its peak, in bytes.
fn memory() -> (u64, u64) {
    let status = Process::myself().unwrap().status().unwrap();
    (status.vmrss.unwrap() * 1024, status.vmhwm.unwrap() * 1024)
}

/// Loads a guest, and creates codecs with it.
pub(crate) fn load(engine: &Engine, guest: &impl Source) -> Result<(Component, Codecs), WasmError> {
    let options = LoadOptions { limits: limits(), ..LoadOptions::default() };
    let component = engine.load_bytes("hostile", guest.component(), options)?;
    let codecs = match guest.interface() {
        Interface::Value | Interface::ValueBatch => {
            Codecs { value: component.value_codec(TOPIC, "{}")?, ..Codecs::default() }
        }
        Interface::Key => Codecs { key: component.key_codec(TOPIC, "{}")?, ..Codecs::default() },
        Interface::Group => {
            Codecs { group_scheme: Some(component.group_scheme(TOPIC, "{}")?), ..Codecs::default() }
        }
    };
    Ok((component, codecs))
}

/// Runs a table whose topic has a poison among harmless records.
async fn check(guest: &impl Source, expected: Expected) {
    let loaded = load(engine(), guest);
    if let Expected::Refused(text) = expected {
        let refusal = loaded.map(|_| ()).unwrap_err().to_string();
        assert!(refusal.contains(text), "{refusal}");
        assert_is_printable(&refusal);
        return;
    }
    let (component, codecs) = loaded.unwrap();
    assert_is_printable(&component.id().to_string());
    let scratch = Scratch::new(2).await;
    let mut records: Vec<_> = (0..HARMLESS).map(|n| record(&format!("k{n}"), Some(b"1"))).collect();
    let poison = match guest.interface() {
        Interface::Value | Interface::ValueBatch => record("poison", Some(b"\"!\"")),
        Interface::Key | Interface::Group => record("!", Some(b"1")),
    };
    records.insert(HARMLESS / 2, poison);
    scratch.write(records).await;
    let table = scratch.table(codecs).await;
    assert!(matches!(table.status(), Status::CaughtUp), "{:?}", table.status());
    check_rejects(&table, expected);
    // The table continues.
    scratch.put("k0", Some(b"2")).await;
    scratch.sync(&table).await;
    if !matches!(expected, Expected::AllRejected(..)) {
        assert_eq!(table.get("k0").unwrap().json(), "2");
    }
}

fn check_rejects(table: &Table, expected: Expected) {
    let rejects = table.rejects();
    let (entries, rejected, foreign) = match expected {
        Expected::Rejected(..) => (HARMLESS, 1, 0),
        Expected::AllRejected(..) => (0, HARMLESS + 1, 0),
        Expected::Applied | Expected::Refused(_) => (HARMLESS + 1, 0, 0),
        Expected::Foreign => (HARMLESS, 0, 1),
    };
    assert_eq!((contents(table).len(), rejects.len()), (entries, rejected), "{rejects:#?}");
    assert_eq!(table.stats().foreign.count, foreign);
    for reject in rejects {
        let (Expected::Rejected(kind, text) | Expected::AllRejected(kind, text)) = expected else {
            unreachable!()
        };
        let message = reject.reason.to_string();
        assert!(reject.reason.kind == kind && message.contains(text), "{message}");
        assert!(message.len() < 8 << 10, "{} bytes", message.len());
        assert_is_printable(&message);
    }
}

/// Checks that a text cannot change a terminal, or add lines to a log.
fn assert_is_printable(text: &str) {
    assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
    assert!(!text.contains("\nFORGED"), "{text:?}");
}
