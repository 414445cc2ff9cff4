//! How messages name an entry.

use crate::escape::escape_name;
use crate::writer::Target;

/// Names an entry in a message.
pub(super) fn describe(target: &Target) -> String {
    match target {
        Target::Key(key) => format!("key `{}`", escape_name(key)),
        Target::Member { group, member } => {
            format!("member `{}` of group `{}`", escape_name(member), escape_name(group))
        }
    }
}
