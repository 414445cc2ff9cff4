//! Codecs convert between the bytes of records and the text that tables hold.
//!
//! Codecs are called with batches, on a codec worker, never on a thread of the caller's runtime. A call has
//! three outcomes, which are never mixed: an item is converted; an item is rejected ([`RejectReason`], which
//! says whether the codec *returned* an error or *faulted*: trapped, exceeded a limit, or broke the contract); or the host failed ([`HostFailure`]), and no
//! record is rejected for that. If a codec faults over several items ([`CodecFailure::Fault`]), the caller
//! retries them in smaller parts, down to single items, and lets others use the worker in between.
//!
//! The built-in codecs are `utf8`, `bytes` and `json`, and the length-prefixed group scheme. Components
//! implement the same traits (see [`crate::wasm`]).

mod answers;
mod builtin;
mod call;
mod codecs;
mod equal;
mod length_prefixed;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the command has schema registries"))]
mod need;
mod reject_reason;
mod traits;
pub(crate) mod workers;

pub use answers::PackedAnswers;
pub use builtin::{Bytes, Json, Utf8};
pub use codecs::Codecs;
pub use length_prefixed::LengthPrefixed;
pub use reject_reason::{
    CodecFailure, ComponentId, ComponentOrigin, HostFailure, RejectKind, RejectReason, TrapDetails,
};
pub use traits::{Answers, Codec, Encoded, GroupKey, GroupScheme, KeyCodec, ValueCodec};

pub(crate) use answers::{checked_text, contract_violation};
pub(crate) use call::CheckedCodecs;
pub(crate) use equal::json_equal;
#[cfg(feature = "wasm")]
pub(crate) use need::Need;
#[cfg(feature = "cli")]
pub(crate) use need::Obtain;
