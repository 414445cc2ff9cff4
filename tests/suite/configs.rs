//! The commands that check and show configurations, and secrets from files.

use std::fs;
use std::path::Path;

use ktables_tests::{component_path, ktables, root, run, succeed};
use serde_json::{Value, json};
use tempfile::TempDir;

fn write(folder: &TempDir, text: &str) -> String {
    let path = folder.path().join("ktables.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_check_names_every_problem() {
    let folder = TempDir::new().unwrap();
    let component = component_path("service-record").display().to_string();
    let good = write(
        &folder,
        &format!(
            "[logs.local]\nurl = \"dir:./data\"\n[codecs.record]\ncomponent = \"{component}\"\n[tables.a]\nlog = \"local\"\n\
             topic = \"a\"\nvalue_codec = \"record\"\n"
        ),
    );
    let checked = succeed(&mut ktables(&["config", "check", "--config", &good]));
    assert_eq!(checked.json(), [json!({ "tables": 1, "problems": 0 })]);
    assert!(!folder.path().join("data").exists(), "a check changes nothing");
    let bad = write(
        &folder,
        "[logs.local]\nurl = \"dir:./data\"\n[logs.secret]\nurl = \"kafka://b:1\"\n\
         properties = { \"sasl.password\" = \"${file:none}\" }\n[codecs.lost]\ncomponent = \"none.wasm\"\n\
         [tables.a]\nlog = \"local\"\ntopic = \"a\"\nvalue_codec = \"lost\"\n\
         [tables.b]\nlog = \"unknown\"\ntopic = \"b\"\n[tables.c]\nlog = \"secret\"\ntopic = \"c\"\n\
         [tables.e]\nlog = \"local\"\ntopic = \"e\"\ndead_letter = \"e\"\n\
         [tables.f]\nlog = \"local\"\ntopic = \"a b\"\ncheckpoint = \"x\"\n\
         [server]\nlisten = [\"0.0.0.0:0\"]\ntables = [\"a\", \"d\"]\n",
    );
    let checked = run(&mut ktables(&["config", "check", "-c", &bad]));
    assert_eq!(checked.code, 2);
    let problems = [
        "logs.secret.properties.sasl.password",
        "codecs.lost",
        "tables.b",
        "tables.e",
        "tables.f",
        "server.listen",
        "there is no table `d`",
    ];
    for problem in problems {
        assert!(checked.stderr.contains(problem), "{problem}: {}", checked.stderr);
    }
    assert_eq!(checked.json(), [json!({ "tables": 5, "problems": problems.len() })], "{}", checked.stderr);
}

#[test]
fn a_table_with_a_name_that_no_address_can_have_is_not_served() {
    let folder = TempDir::new().unwrap();
    for name in ["a/b", "x,y", ".."] {
        let text = format!(
            "[logs.local]\nurl = \"dir:./data\"\n[tables.\"{name}\"]\nlog = \"local\"\ntopic = \"t\"\n"
        );
        let config = write(&folder, &text);
        let refused = run(&mut ktables(&["config", "check", "--config", &config]));
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
    }
}

#[test]
fn tables_with_one_checkpoint_are_refused() {
    let folder = TempDir::new().unwrap();
    let table = |name: &str, checkpoint: &str| {
        format!("[tables.{name}]\nlog = \"local\"\ntopic = \"{name}\"\ncheckpoint = \"{checkpoint}\"\n")
    };
    let text = ["[logs.local]\nurl = \"dir:./data\"\n", &table("a", "c/x"), &table("b", "./c/x")].concat();
    let config = write(&folder, &text);
    for command in [&["config", "check"][..], &["serve"]] {
        let refused = run(ktables(command).args(["--config", &config]));
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains("tables.b.checkpoint"), "{}", refused.stderr);
    }
}

#[test]
fn a_configuration_is_shown_as_it_is_in_effect_without_secrets() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("password"), "sEcReT\n").unwrap();
    let config = write(
        &folder,
        "[logs.prod]\nurl = \"kafka://b:1\"\nproperties = { \"sasl.password\" = \"${file:password}\" }\n\
         [tables.a]\nlog = \"prod\"\ntopic = \"a\"\n",
    );
    let shown = succeed(&mut ktables(&["config", "show", "--config", &config]));
    assert!(!shown.stdout.contains("sEcReT"), "{}", shown.stdout);
    for line in
        ["value_codec = \"json\"", "stale_after = \"10s\"", "request_timeout = \"30s\"", "${file:password}"]
    {
        assert!(shown.stdout.contains(line), "{line}: {}", shown.stdout);
    }
}

#[test]
fn the_schema_accepts_the_documented_file_and_finds_mistakes() {
    let schema: Value = serde_json::from_str(&succeed(&mut ktables(&["config", "schema"])).stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let documented = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let documented = documented.split("```toml\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    let example = fs::read_to_string(root().join("examples/serve/ktables.toml")).unwrap();
    for text in [&documented, &example] {
        let value = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
        if let Err(error) = validator.validate(&value) {
            panic!("{error}: {}", error.instance_path());
        }
    }
    for (from, to) in [
        ("verify = \"equal\"", "verify = \"perhaps\""),
        ("max_requests = 1024", "max_requests = \"many\""),
        ("ensure_topic = true", "ensure_topics = true"),
        ("log = \"prod\"\n", ""),
    ] {
        assert!(documented.contains(from), "{from}");
        let value =
            serde_json::to_value(documented.replacen(from, to, 1).parse::<toml::Table>().unwrap()).unwrap();
        assert!(!validator.is_valid(&value), "{to}");
    }
    for (from, to) in [
        ("verify = \"equal\"", "verify = \"${VERIFY}\""),
        ("acks = \"all\"", "acks = \"${file:acks}\""),
        ("recycle_calls = 1000000", "recycle_calls = \"${CALLS}\""),
    ] {
        assert!(documented.contains(from), "{from}");
        let value =
            serde_json::to_value(documented.replacen(from, to, 1).parse::<toml::Table>().unwrap()).unwrap();
        assert!(validator.is_valid(&value), "{to}");
    }
    // Editors show what a setting means.
    let described = &schema["$defs"]["TableConfig"]["properties"]["verify"];
    assert!(described["description"].as_str().is_some_and(|text| text.contains("verified")), "{described}");
}

#[test]
fn secrets_come_from_files() {
    let folder = TempDir::new().unwrap();
    let url = format!("dir:{}", folder.path().join("data").display());
    fs::write(folder.path().join("url"), format!("{url}\n")).unwrap();
    let config = write(
        &folder,
        "[logs.local]\nurl = \"${file:url}\"\n[tables.a]\nlog = \"local\"\ntopic = \"a\"\nensure_topic = true\n",
    );
    succeed(&mut ktables(&["set", "k", "1", "--config", &config, "-t", "a"]));
    assert!(Path::new(&folder.path().join("data/a")).exists());
    fs::remove_file(folder.path().join("url")).unwrap();
    let missing = run(&mut ktables(&["get", "k", "--config", &config, "-t", "a"]));
    assert_eq!(missing.code, 2);
    assert!(
        missing.stderr.contains("logs.local.url") && missing.stderr.contains("url"),
        "{}",
        missing.stderr
    );
}

#[test]
fn manual_pages_describe_every_command() {
    let folder = TempDir::new().unwrap();
    succeed(&mut ktables(&["man", folder.path().to_str().unwrap()]));
    for page in ["ktables.1", "ktables-serve.1", "ktables-config-check.1", "ktables-codec-compile.1"] {
        let text =
            fs::read_to_string(folder.path().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH"), "{text}");
    }
}

#[test]
fn components_are_compiled_into_the_cache_before_they_are_needed() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    let component = component_path("simple").display().to_string();
    let compile = || {
        let mut command = ktables(&["codec", "compile", &component]);
        succeed(command.env("KTABLES_CACHE_DIR", &cache)).json()
    };
    let compiled = compile();
    assert_eq!(compiled[0]["file"], component);
    let files = fs::read_dir(&cache).unwrap().count();
    assert!(files > 0);
    assert_eq!((compile(), fs::read_dir(&cache).unwrap().count()), (compiled, files));
    let without = run(ktables(&["codec", "compile", &component]).env("KTABLES_CACHE_DIR", ""));
    assert_eq!(without.code, 2, "{}", without.stderr);
}
