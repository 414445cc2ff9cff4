//! Files that schemas import although no registry has them: clients for Confluent's registry have them built in.

/// A file of `google/type/`, with its name.
macro_rules! google_type {
    ($name:literal) => {
        (
            concat!("google/type/", $name, ".proto"),
            include_str!(concat!("../known/google/type/", $name, ".proto")),
        )
    };
}

const DECIMAL: &str = include_str!("../known/confluent/type/decimal.proto");
const VARIANT: &str = include_str!("../known/confluent/type/variant.proto");

/// The names of the files, and their texts. Those in `confluent/types/` are former names.
const FILES: [(&str, &str); 22] = [
    ("confluent/meta.proto", include_str!("../known/confluent/meta.proto")),
    ("confluent/type/decimal.proto", DECIMAL),
    ("confluent/type/variant.proto", VARIANT),
    ("confluent/types/decimal.proto", DECIMAL),
    ("confluent/types/variant.proto", VARIANT),
    google_type!("calendar_period"),
    google_type!("color"),
    google_type!("date"),
    google_type!("datetime"),
    google_type!("dayofweek"),
    google_type!("decimal"),
    google_type!("expr"),
    google_type!("fraction"),
    google_type!("interval"),
    google_type!("latlng"),
    google_type!("localized_text"),
    google_type!("money"),
    google_type!("month"),
    google_type!("phone_number"),
    google_type!("postal_address"),
    google_type!("quaternion"),
    google_type!("timeofday"),
];

/// Returns the text of a built-in file, by the name in `import`.
pub(crate) fn built_in_file(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
