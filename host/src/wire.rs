//! The JSON forms of what tables return: entries, changes, statuses, rejected records. Shared by everything
//! that prints or serves them.

mod component;
mod entry;
mod event;
mod reject;
mod server_event;
mod status;
mod watch;
mod write_line;

pub(crate) use component::CodecsJson;
pub(crate) use entry::{EntryDetails, EntryJson, GroupJson, MemberJson};
pub(crate) use event::EventJson;
pub(crate) use reject::RejectJson;
pub(crate) use server_event::ServerEvent;
pub(crate) use status::{FullStatusJson, PartitionJson, StatusJson};
pub(crate) use watch::WatchJson;
pub(crate) use write_line::{WriteLine, format_write_line, parse_write_line};
