//! A scheme for keys that are a group and a member, separated by the first slash.

use ktables_guest::{CodecError, GroupKey, GroupScheme};

#[derive(Default)]
pub struct BySlash;

ktables_guest::export!(BySlash: GroupScheme);

impl GroupScheme for BySlash {
    fn split<'a>(&self, key: &'a str) -> Option<GroupKey<'a>> {
        key.split_once('/').map(|(group, member)| GroupKey::new(group, member))
    }

    fn join(&self, group: &str, member: &str) -> Result<String, CodecError> {
        if group.contains('/') {
            return Err(CodecError::Invalid("a group cannot have a slash in its name".to_owned()));
        }
        Ok(format!("{group}/{member}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_key_join_to_the_key() {
        assert!(BySlash.split("host-1").is_none());
        assert_eq!(BySlash.join("eu", "host-1").unwrap(), "eu/host-1");
    }
}
