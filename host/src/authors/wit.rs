//! The WIT package of this program, which components are built against.

/// The line that each file of the package begins with.
const HEADER: &str = "package ktables:codec@0.1.0;\n";

/// The files of the package: their names and their texts.
const FILES: [(&str, &str); 8] = [
    ("types.wit", include_str!("../../wit/0.1/types.wit")),
    ("value-codec.wit", include_str!("../../wit/0.1/value-codec.wit")),
    ("key-codec.wit", include_str!("../../wit/0.1/key-codec.wit")),
    ("group-scheme.wit", include_str!("../../wit/0.1/group-scheme.wit")),
    ("plugin.wit", include_str!("../../wit/0.1/plugin.wit")),
    ("logging.wit", include_str!("../../wit/0.1/logging.wit")),
    ("schemas.wit", include_str!("../../wit/0.1/schemas.wit")),
    ("worlds.wit", include_str!("../../wit/0.1/worlds.wit")),
];

/// Returns the names and the texts of the files of the package.
pub(super) fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.into_iter()
}

/// Returns the package as one file.
pub(crate) fn package() -> String {
    let contents = FILES.map(|(_, file)| file.strip_prefix(HEADER).unwrap_or(file));
    [&[HEADER][..], &contents].concat().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_one_valid_file_with_all_interfaces() {
        let mut resolve = wit_parser::Resolve::default();
        let package = resolve.push_str("ktables.wit", &package()).unwrap();
        let interfaces: Vec<&str> = resolve.packages[package].interfaces.keys().map(String::as_str).collect();
        let expected = [
            "types",
            "value-codec",
            "value-codec-batch",
            "key-codec",
            "key-codec-batch",
            "group-scheme",
            "group-scheme-batch",
            "plugin",
            "logging",
            "schemas",
        ];
        assert_eq!(interfaces, expected);
        assert_eq!(resolve.packages[package].worlds.len(), 9);
    }
}
