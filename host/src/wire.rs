//! The JSON forms of what tables return: entries, changes, statuses, rejected records. Shared by everything
//! that prints or serves them.

mod entry;
mod event;
mod reject;
mod status;

pub(crate) use entry::{EntryDetails, EntryJson, GroupJson, MemberJson};
pub(crate) use event::EventJson;
pub(crate) use reject::RejectJson;
pub(crate) use status::{FullStatusJson, PartitionJson, StatusJson};
