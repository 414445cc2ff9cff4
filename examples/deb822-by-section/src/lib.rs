//! A group scheme for keys `SECTION/PACKAGE` (`admin/adduser`, `contrib/net/tor`): packages, grouped by
//! section.
//!
//! The name of a package contains no slash, so the last slash ends the section.

use ktables_guest::{CodecError, GroupKey, GroupScheme};

/// The group scheme.
#[derive(Debug, Default)]
pub struct BySection;

ktables_guest::export!(BySection: GroupScheme);

impl GroupScheme for BySection {
    fn split<'a>(&self, key: &'a str) -> Option<GroupKey<'a>> {
        let (section, package) = key.rsplit_once('/')?;
        (!section.is_empty() && !package.is_empty()).then(|| GroupKey::new(section, package))
    }

    fn join(&self, section: &str, package: &str) -> Result<String, CodecError> {
        if section.is_empty() || package.is_empty() || package.contains('/') {
            let problem = "section and package must not be empty, and a package must not contain a slash";
            return Err(CodecError::Invalid(format!("{problem}: {section:?}, {package:?}")));
        }
        Ok(format!("{section}/{package}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_split_and_joined() {
        for (key, section, package) in
            [("admin/adduser", "admin", "adduser"), ("contrib/net/tor", "contrib/net", "tor")]
        {
            assert_eq!(BySection.split(key), Some(GroupKey::new(section, package)));
            assert_eq!(BySection.join(section, package).unwrap(), key);
        }
    }

    #[test]
    fn other_keys_are_foreign() {
        for key in ["adduser", "/adduser", "admin/", ""] {
            assert_eq!(BySection.split(key), None);
        }
        // Splitting `admin/a/b` would return another pair.
        assert!(BySection.join("admin", "a/b").is_err());
    }
}
