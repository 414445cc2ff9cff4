//! Lists of tags and of referrers: whatever a registry answers, they only suggest, and they are bounded.

use ktables_tests::{Reply, digest, run_and_measure};
use serde_json::{Value, json};

use crate::codec_registries::hostile::{Attack, MAX_MEMORY, endless};
use crate::codec_registries::{Workspace, text};

#[test]
fn lists_of_tags_are_checked_and_bounded() {
    let attack = Attack::new();
    attack.workspace.configure(&text(&attack.pushed, "reference"), "");
    let answer = |reply: Box<dyn Fn() -> Reply + Send + Sync>| {
        attack.registry.script(move |request| request.path.contains("/tags/").then(&reply));
        let (output, memory) =
            run_and_measure(&mut attack.workspace.ktables(&["codec", "report", "--online"]));
        assert!(output.code == 0 && memory.own < MAX_MEMORY, "{} {memory:?}", output.stderr);
        (output.json()[0]["newer"].clone(), output.stderr)
    };
    let tags = |tags: &[&str]| json!({ "tags": tags }).to_string().into_bytes();
    let long = format!("9.0.0-{}", "x".repeat(100_000));
    let bad = tags(&["2.0.0\u{1b}[31m", "9.0.0+x", "v1.2.3", "../3.0.0", &long, "1.2.x", ""]);
    assert_eq!(answer(Box::new(move || Reply::Answer(200, Vec::new(), bad.clone()))).0, "v1.2.3");
    let (newer, message) = answer(Box::new(|| Reply::Answer(200, Vec::new(), b"<html>".to_vec())));
    assert!(newer.is_null() && message.contains("answered with something else"), "{message}");
    let (_, message) =
        answer(Box::new(|| endless("HTTP/1.1 200 X\r\nContent-Length: 1073741824\r\n\r\n", &[b' '; 4096])));
    assert!(message.contains("sent more than 1048576 bytes"), "{message}");
    for next in ["</v2/codecs/service/tags/list?last=x>; rel=\"next\"", "<http://127.0.0.1:1/x>; rel=next"] {
        let page = tags(&["1.5.0"]);
        let headers = vec![("Link".to_owned(), next.to_owned())];
        let _ = attack.registry.take_requests();
        let (newer, message) = answer(Box::new(move || Reply::Answer(200, headers.clone(), page.clone())));
        assert!(newer.is_null() && message.contains("has more than 20 pages, or continues"), "{message}");
        assert!(attack.registry.take_requests().len() < 30);
    }
}

// Long because it lists the answers.
#[test]
fn lists_of_referrers_only_suggest() {
    let attack = Attack::new();
    attack.workspace.keygen("platform");
    let reference = text(&attack.pushed, "reference");
    attack.workspace.succeed(&["codec", "sign", &reference, "--key", "platform.key", "--format", "bundle"]);
    let verify = ["codec", "verify", &reference, "--key", "platform.pub"];
    let fresh = || {
        let workspace = Workspace::new();
        std::fs::copy(attack.workspace.path("platform.pub"), workspace.path("platform.pub")).unwrap();
        workspace
    };
    let answer = |status: u16, kind: &'static str, body: Value| {
        attack.registry.script(move |request| {
            let headers = vec![("Content-Type".to_owned(), kind.to_owned())];
            let is_list = request.path.contains("/referrers/");
            is_list.then(|| Reply::Answer(status, headers, body.to_string().into_bytes()))
        });
    };
    let index = "application/vnd.oci.image.index.v1+json";
    let entry = |digest: &str| json!({ "mediaType": "x", "digest": digest, "size": 1 });
    for (case, status, kind, body, expected) in [
        ("404", 404, "text/plain", json!(""), 1),
        ("400", 400, "text/plain", json!(""), 1),
        ("HTML", 200, "text/html", json!("<html>"), 1),
        ("500", 500, "text/plain", json!(""), 3),
        ("unknown", 200, index, json!({ "schemaVersion": 2, "manifests": [entry(&digest(b"x"))] }), 1),
        (
            "others",
            200,
            index,
            json!({ "schemaVersion": 2, "manifests": [entry(&text(&attack.pushed, "manifest"))] }),
            1,
        ),
        (
            "10,000",
            200,
            index,
            json!({ "schemaVersion": 2, "manifests": vec![entry(&digest(b"x")); 5_000] }),
            1,
        ),
    ] {
        answer(status, kind, body);
        let output = ktables_tests::run(&mut fresh().ktables(&verify));
        assert_eq!(output.code, expected, "{case}: {}", output.stderr);
    }
    // Pages that never end.
    attack.registry.script(move |request| {
        let headers = vec![
            ("Content-Type".to_owned(), index.to_owned()),
            ("Link".to_owned(), format!("<{}>; rel=\"next\"", request.path)),
        ];
        let body = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
        request.path.contains("/referrers/").then(|| Reply::Answer(200, headers, body))
    });
    let _ = attack.registry.take_requests();
    ktables_tests::run(&mut fresh().ktables(&verify));
    let pages =
        attack.registry.take_requests().iter().filter(|request| request.path.contains("/referrers/")).count();
    assert!(pages <= 12, "four pages each: {pages}");
    attack.registry.end_script();
    fresh().succeed(&verify);
}
