//! The public test data of formats, through the bundled codecs. docs/schemas.md has the numbers.

use std::fs;
use std::path::{Path, PathBuf};

use apache_avro::writer::datum::GenericDatumWriter;
use avro::Avro;
use ktables::Packed;
use ktables::codec::ValueCodec;
use ktables_guest::{Context, Plugin, Role};
use ktables_tests::component;
use ktables_tests::kafka::target;
use serde_json::{Value, json};

/// The tests of the JSON Schema Test Suite that fail: they need a meta-schema of their own (`$vocabulary`), which a registry
/// does not have.
const OTHER_RESULTS: [(&str, &str); 2] = [
    ("draft2019-09", "no validation: invalid number, but it still validates"),
    ("draft2020-12", "no validation: invalid number, but it still validates"),
];

/// How many tests each draft has: run here, and with a schema that refers to others at some address.
const COUNTS: [(&str, (usize, usize)); 5] = [
    ("draft4", (593, 17)),
    ("draft6", (806, 23)),
    ("draft7", (890, 23)),
    ("draft2019-09", (1196, 31)),
    ("draft2020-12", (1213, 44)),
];

/// The files of fastavro that Avro's library for Rust does not open: one has an `error` as its type, and three are compressed
/// with Snappy.
const UNREAD: [&str; 4] = ["error-type.avro", "snappy.avro", "test-snappy.avro", "weather-snappy.avro"];

/// Returns a folder of test data, which the set-up has installed.
fn data(name: &str) -> PathBuf {
    let folder = target().join("tools/data").join(name);
    assert!(folder.exists(), "{} is missing: run `cargo xtask setup`", folder.display());
    folder
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|own| own == extension)).collect();
    files.sort();
    files
}

fn read_json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// Decodes a value. Returns its JSON, or why it is refused.
fn decode(codec: &dyn ValueCodec, raw: &[u8]) -> Result<String, String> {
    let packed: Packed = [raw].into_iter().collect();
    let answers = codec.decode_values(&packed, &[&[]]).unwrap();
    match answers.into_one() {
        Ok(json) => Ok(String::from_utf8(json).unwrap()),
        Err(reason) => Err(reason.to_string()),
    }
}

#[test]
fn the_json_schema_test_suite_passes() {
    let component = component("json-schema");
    let (mut counts, mut other) = (Vec::new(), Vec::new());
    for (draft, address) in [
        ("draft4", "http://json-schema.org/draft-04/schema#"),
        ("draft6", "http://json-schema.org/draft-06/schema#"),
        ("draft7", "http://json-schema.org/draft-07/schema#"),
        ("draft2019-09", "https://json-schema.org/draft/2019-09/schema"),
        ("draft2020-12", "https://json-schema.org/draft/2020-12/schema"),
    ] {
        let (mut run, mut remote) = (0, 0);
        for file in files(&data("jsonschema/json/tests").join(draft), "json") {
            for group in read_json(&file).as_array().unwrap() {
                let mut schema = group["schema"].clone();
                if let Value::Object(schema) = &mut schema {
                    schema.entry("$schema").or_insert_with(|| json!(address));
                }
                let tests = group["tests"].as_array().unwrap();
                let config = json!({ "plain": schema }).to_string();
                let codec = match component.value_codec("t", &config) {
                    Ok(codec) => codec,
                    Err(error) if error.to_string().contains("not among its references") => {
                        remote += tests.len();
                        continue;
                    }
                    Err(error) => {
                        panic!("{draft}: {}: {error}", group["description"]);
                    }
                };
                for test in tests {
                    run += 1;
                    let is_valid = decode(&*codec, test["data"].to_string().as_bytes()).is_ok();
                    if is_valid != test["valid"] {
                        other.push((draft, test["description"].as_str().unwrap().to_owned()));
                    }
                }
            }
        }
        counts.push((draft, (run, remote)));
    }
    let other: Vec<_> = other.iter().map(|(draft, test)| (*draft, test.as_str())).collect();
    assert_eq!(other, OTHER_RESULTS);
    assert_eq!(counts, COUNTS);
}

#[test]
fn the_files_of_fastavro_are_read_and_written() {
    // Sets the codec's rules for names in this process, too, where the files are opened.
    let config = json!({ "plain": "int" }).to_string();
    Avro::configure(&Context { topic: "t".to_owned(), role: Role::Value, config }).unwrap();
    let component = component("avro");
    let (mut count, mut values, mut unread) = (0, 0, Vec::new());
    for file in files(&data("fastavro/tests/avro-files"), "avro") {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs::read(&file).unwrap();
        let Ok(reader) = apache_avro::Reader::new(&bytes[..]) else {
            unread.push(name);
            continue;
        };
        let schema = reader.writer_schema().clone();
        let Ok(data) = reader.collect::<Result<Vec<_>, _>>() else {
            unread.push(name);
            continue;
        };
        let config = json!({ "plain": schema }).to_string();
        let codec = component.value_codec("t", &config).unwrap_or_else(|error| panic!("{name}: {error}"));
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        count += 1;
        for value in data {
            let raw = writer.write_value_to_vec(value).unwrap();
            let json = decode(&*codec, &raw).unwrap_or_else(|error| panic!("{name}: {error}"));
            let encoded = codec.encode_values(&[&json]).unwrap().remove(0).unwrap();
            assert_eq!(decode(&*codec, &encoded.raw).unwrap(), json, "{name}");
            values += 1;
        }
    }
    assert_eq!(unread, UNREAD);
    assert_eq!((count, values), (32, 3054));
}
