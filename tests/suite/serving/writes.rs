//! Writes of single entries and of many.

use ktables_tests::server::Server;
use reqwest::Method;
use serde_json::{Value, json};

use super::SERVICES;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_acknowledged_and_a_bad_one_changes_nothing() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    assert_eq!(server.set("services", "a", "1").await.json(), json!({ "partition": 0, "offset": 0 }));
    let put = |path: &str| server.request(Method::PUT, &format!("/v1/tables/services/{path}"));
    for (request, status, problem) in [
        (put("entry?key=a").body("not json"), 400, "invalid-json"),
        (put("entry?key=a").body(vec![0xff, 0xfe]), 400, "bad-request"),
        (put("entry").body("1"), 400, "bad-request"),
        (put("entry?key=a&group=b&member=c").body("1"), 400, "bad-request"),
        (put("entry?group=b&member=c").body("1"), 400, "no-groups"),
        (put("entry?key=a").header("if-match", "\"x\"").body("2"), 501, "no-conditional-writes"),
        (put("entry?key=a").header("if-none-match", "*").body("2"), 501, "no-conditional-writes"),
        (server.request(Method::PUT, "/v1/tables/none/entry?key=a").body("1"), 404, "unknown-table"),
        (server.request(Method::DELETE, "/v1/tables/services"), 405, "wrong-method"),
        (server.request(Method::POST, "/v1/tables/services/entry?key=a"), 405, "wrong-method"),
    ] {
        let answer = server.send(request).await;
        assert_eq!((answer.status, &*answer.problem()), (status, problem), "{}", answer.text);
    }
    let read = server.get("/v1/tables/services/entry?key=a&fresh").await;
    assert_eq!((&*read.text, read.header("ktables-positions")), ("1", "0:1"));
    let delete = server.request(Method::DELETE, "/v1/tables/services/entry?key=a&visible");
    assert_eq!(server.send(delete).await.json(), json!({ "partition": 0, "offset": 1 }));
    assert_eq!(server.get("/v1/tables/services/entry?key=a").await.status, 404);
    let log = server.log();
    let audited = |what: &str| log.iter().any(|line| line.contains(what) && line.contains("client="));
    assert!(audited("set key `a`: written at partition 0, offset 0") && audited("delete key `a`"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writes_have_an_outcome_each_or_are_atomic() {
    let (server, _folder) = Server::with_tables(SERVICES).await;
    let lines =
        "{\"key\": \"a\", \"value\": 1}\n\nnonsense\n{\"key\": \"b\", \"value\": null}\n{\"key\": \"c\"}\n";
    let write = |parameters: &str| {
        let path = format!("/v1/tables/services/entries:write?visible{parameters}");
        server.request(Method::POST, &path).body(lines)
    };
    let refused = server.send(write("&atomic")).await;
    assert_eq!((refused.status, &*refused.problem()), (400, "bad-request"));
    assert!(refused.text.contains("nothing was written: line 3"), "{}", refused.text);
    assert_eq!(server.get("/v1/tables/services").await.json()["entries"], 0);
    let answer = server.send(write("")).await.text;
    let outcomes: Vec<Value> = answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcome =
        |line: usize| outcomes.iter().find(|outcome| outcome["line"] == line).map(|it| &it["outcome"]);
    let expected = [(1, "written"), (3, "bad-request"), (4, "written"), (5, "bad-request")];
    for (line, expected) in expected {
        assert_eq!(outcome(line).unwrap(), expected, "{answer}");
    }
    assert_eq!(outcome(2), None);
    assert_eq!(server.get("/v1/tables/services/entry?key=b").await.text, "null");
    let both = "{\"key\": \"x\", \"value\": 1}\n{\"key\": \"a\", \"delete\": true}";
    let path = "/v1/tables/services/entries:write?atomic&visible";
    let answer = server.send(server.request(Method::POST, path).body(both)).await;
    assert_eq!(answer.text.lines().count(), 2, "{}", answer.text);
    assert_eq!(server.get("/v1/tables/services/entry?key=a").await.status, 404);
    assert_eq!(server.get("/v1/tables/services/entry?key=x").await.text, "1");
}
