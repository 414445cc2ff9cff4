//! Who may do what: roles, tokens, certificates, and what a server without access control accepts.

use ktables_tests::server::{Server, contract, write_config};
use ktables_tests::{TIMEOUT, ktables, run, succeed};
use rcgen::ExtendedKeyUsagePurpose;
use reqwest::{Certificate, Client, Identity, Method};
use tempfile::TempDir;

use super::SERVICES;
use super::authority::Authority;

const TABLES: &str = "[tables.team-a]\nlog = \"local\"\ntopic = \"a\"\nensure_topic = true\n\
                      [tables.hidden-b]\nlog = \"local\"\ntopic = \"b\"\nensure_topic = true\n";

/// A new token, and its hash.
fn new_token() -> (String, String) {
    let token = succeed(&mut ktables(&["token", "new"])).json().remove(0);
    let text = |name: &str| token[name].as_str().unwrap().to_owned();
    (text("token"), text("token_sha256"))
}

/// Returns the path of an operation, for a table.
fn fill(path: &str, table: &str) -> String {
    let filled = path.replace("{table}", table).replace("{key}", "k");
    let filled = filled.replace("{group}", "g").replace("{member}", "m");
    match path {
        "/v1/tables/{table}/entry"
        | "/v1/tables/{table}/entry/record"
        | "/v1/tables/{table}/entry/history" => {
            format!("{filled}?key=k")
        }
        "/v1/watch" => format!("{filled}?tables={table}"),
        _ => filled,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_gives_what_it_says_for_the_tables_of_its_pattern() {
    let roles = ["read", "read_raw", "write", "admin"];
    let tokens: Vec<(String, String)> = roles.iter().map(|_| new_token()).collect();
    let clients: String = roles
        .iter()
        .zip(&tokens)
        .map(|(role, (_, hash))| {
            format!("[access.clients.{role}]\ntoken_sha256 = \"{hash}\"\n{role} = [\"team-*\"]\n")
        })
        .collect();
    let folder = TempDir::new().unwrap();
    let server = Server::start(&write_config(folder.path(), &format!("{TABLES}{clients}")));
    server.wait_until_ready().await;
    let send = async |method: &Method, path: &str, token: Option<&str>| {
        let request = server.request(method.clone(), path).body("{\"tables\": [{\"table\": \"x\"}]}");
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        // Streams do not end, so only the head is read.
        let response = tokio::time::timeout(TIMEOUT, request.send()).await.unwrap().unwrap();
        response.status().as_u16()
    };
    for (method, path) in contract().operations() {
        let public = ["/livez", "/readyz", "/openapi.json"];
        let anonymous = send(&method, &fill(&path, "team-a"), None).await;
        assert_eq!(anonymous == 401, !public.contains(&&*path), "{method} {path}: {anonymous}");
        let Some(role) = contract().role(&method, &path) else { continue };
        let is_of_table = path.contains("{table}") || path == "/v1/watch" && method == Method::GET;
        if !is_of_table {
            continue;
        }
        for (has, (token, _)) in roles.iter().zip(&tokens) {
            let allowed = send(&method, &fill(&path, "team-a"), Some(token)).await;
            assert_eq!(allowed == 403, *has != role, "{has} {method} {path}: {allowed}");
            assert_ne!(allowed, 401, "{has} {method} {path}");
            for table in ["hidden-b", "none"] {
                let refused = send(&method, &fill(&path, table), Some(token)).await;
                assert_eq!(refused, 403, "{has} {method} {path} {table}");
            }
        }
    }
    let reload = send(&Method::POST, "/v1/reload", Some(&tokens[3].0)).await;
    assert_eq!(reload, 403, "reloading is about all tables");
    let reader = server.with(Client::new(), Some(&tokens[0].0));
    assert_eq!(reader.get("/v1/tables/team-none/entry?key=k").await.status, 404);
    for path in ["/v1/tables", "/readyz", "/metrics", "/v1/tables/none"] {
        let answer = reader.request(Method::GET, path).send().await.unwrap().text().await.unwrap();
        assert!(!answer.contains("hidden-b"), "{path}: {answer}");
    }
    assert_eq!(reader.get("/v1/tables").await.json()["tables"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_access_control_serves_local_programs_only() {
    let (server, folder) = Server::with_tables(SERVICES).await;
    let path = "/v1/tables/services/entry?key=a";
    for (name, value) in [
        ("origin", "http://localhost"),
        ("host", "example.com"),
        ("host", "127.0.0.1.nip.io:7470"),
        ("host", "[::2]"),
    ] {
        for method in [Method::GET, Method::PUT] {
            let request = server.request(method, path).header(name, value).body("1");
            let answer = server.send(request).await;
            assert_eq!((answer.status, &*answer.problem()), (403, "not-local"), "{name}: {value}");
        }
    }
    let swap = |token: Option<&str>| {
        let request = server.request(Method::POST, "/v1/reload");
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    };
    assert_eq!(server.send(swap(None)).await.status, 403);
    let file = folder.path().join(".ktables-admin-token");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).unwrap();
    assert_eq!(server.send(swap(Some(token.trim()))).await.status, 200);
    for _ in 0..100 {
        let answer = server.send(swap(Some("wrong"))).await;
        assert!(matches!(answer.status, 401 | 429), "{}", answer.text);
    }
    assert_eq!(server.send(swap(Some("wrong"))).await.problem(), "too-many-attempts");
    assert_eq!(server.send(swap(Some(token.trim()))).await.status, 200, "nobody is locked out");
    let refused = server.log().iter().filter(|line| line.contains("refused a request")).count();
    assert!((1..60).contains(&refused), "{refused}");
    assert_eq!(server.get(&format!("{path}&access_token=x")).await.status, 400);
}

#[tokio::test]
async fn a_server_that_others_can_reach_needs_access_control_and_tls() {
    let (_, hash) = new_token();
    let client = format!("[access.clients.a]\ntoken_sha256 = \"{hash}\"\nread = [\"*\"]\n");
    let exposed = "[server]\nlisten = [\"0.0.0.0:0\"]\n";
    let folder = TempDir::new().unwrap();
    for (text, expected) in [
        (format!("{SERVICES}{exposed}"), "access must be controlled"),
        (format!("{SERVICES}{client}{exposed}"), "--insecure"),
        (format!("{SERVICES}[access.clients.a]\nread = [\"*\"]\n"), "it has no proof"),
        (format!("{SERVICES}[access.clients.a]\ntoken_sha256 = \"{hash}\"\n"), "it has no role"),
        (format!("{SERVICES}{client}{}", client.replace("clients.a", "clients.b")), "have the same token"),
        (format!("{SERVICES}[access]\n"), "nobody has access"),
        (
            format!(
                "{SERVICES}{}",
                client.replace("token_sha256 = ", "certificate_name = \"a.b\"\ntoken_sha256 = ")
            ),
            "client_ca",
        ),
        (format!("{SERVICES}[server]\nlisten = []\n"), "has no address"),
        (format!("{SERVICES}[access.clients.a]\ntoken_sha256 = \"x\"\n"), "64 hexadecimal digits"),
        (format!("{SERVICES}[server]\nlisten = [\"nowhere\"]\n"), "it is not an address"),
        (format!("{SERVICES}[server]\ntables = [\"none\"]\n"), "there is no table `none`"),
        (format!("{SERVICES}[server]\nnonsense = 1\n"), "unknown field `nonsense`"),
        ("[server]\nlisten = [\"127.0.0.1:0\"]\n".to_owned(), "there is no table to serve"),
    ] {
        let config = write_config(folder.path(), &text);
        let refused = run(&mut ktables(&["serve", "--config", config.to_str().unwrap()]));
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    }
    let config = write_config(folder.path(), &format!("{SERVICES}{client}{exposed}"));
    let server =
        Server::start_command(ktables(&["serve", "--config", config.to_str().unwrap(), "--insecure"]));
    assert!(server.url.starts_with("http://0.0.0.0:"), "{}", server.url);
}

// Long because it is one scenario.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_clients_are_read_again_while_requests_go_on() {
    let (server_ca, client_ca) = (Authority::new(), Authority::new());
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        // Replaced in one step, as `kubectl` and `certbot` do.
        let new = folder.path().join(format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, folder.path().join(name)).unwrap();
    };
    let certify = || {
        let (certificate, key) = server_ca.sign("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        write("key.pem", &key);
        write("cert.pem", &certificate);
        certificate
    };
    certify();
    write("ca.pem", &client_ca.pem());
    let (token, hash) = new_token();
    write("clients.toml", &format!("[a]\ntoken_sha256 = \"{hash}\"\nread = [\"*\"]\nwrite = [\"*\"]\n"));
    let text = format!(
        "{SERVICES}[server]\nlisten = [\"127.0.0.1:0\"]\n\
         tls = {{ certificate = \"cert.pem\", key = \"key.pem\", client_ca = \"ca.pem\" }}\n\
         [access]\nclients_file = \"clients.toml\"\n[access.clients.robot]\n\
         certificate_name = \"robot.example\"\nread = [\"*\"]\n"
    );
    let authority = Certificate::from_pem(server_ca.pem().as_bytes()).unwrap();
    // Each request has its own connection, so that it sees the certificate of that time.
    let builder = || Client::builder().tls_certs_only([authority.clone()]).pool_max_idle_per_host(0);
    let server = Server::start(&write_config(folder.path(), &text));
    let server = server.with_url(|url| url.replace("http://127.0.0.1", "https://localhost"));
    let server = server.with(builder().build().unwrap(), Some(&token));
    server.wait_until_ready().await;
    server.set("services", "a", "1").await;
    let path = "/v1/tables/services/entry?key=a";
    let identity = |(certificate, key): (String, String)| {
        let identity = Identity::from_pem(format!("{certificate}\n{key}").as_bytes()).unwrap();
        builder().identity(identity).build().unwrap()
    };
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let get = async |client: &Client| {
        client.get(format!("{}{path}", server.url)).send().await.map(|response| response.status().as_u16())
    };
    assert_eq!(get(&identity(client_ca.sign("robot.example", usage.clone()))).await.unwrap(), 200);
    assert_eq!(get(&identity(client_ca.sign("other.example", usage.clone()))).await.unwrap(), 401);
    assert!(get(&identity(server_ca.sign("robot.example", usage))).await.is_err(), "of another authority");
    assert_eq!(get(&builder().build().unwrap()).await.unwrap(), 401);
    let http2 = builder().http2_prior_knowledge().build().unwrap();
    assert_eq!(get(&http2).await.unwrap(), 401);
    // Everything is replaced while requests go on.
    let requests = async {
        for _ in 0..300 {
            assert_eq!(server.get(path).await.status, 200);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let replace = async {
        let (other_token, other_hash) = new_token();
        certify();
        let both = format!(
            "[a]\ntoken_sha256 = \"{hash}\"\nread = [\"*\"]\n[b]\ntoken_sha256 = \"{other_hash}\"\nread = [\"*\"]\n"
        );
        write("clients.toml", &both);
        let client = builder().build().unwrap();
        let with_other = async || {
            let request = client.get(format!("{}{path}", server.url)).bearer_auth(&other_token);
            request.send().await.unwrap().status().as_u16()
        };
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        while with_other().await != 200 {
            assert!(tokio::time::Instant::now() < deadline, "the new token is known");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        // Broken files change nothing.
        write("clients.toml", "nonsense");
        write("cert.pem", "nonsense");
        let log = || server.log().join("\n");
        while !(log().contains("keeping the clients") && log().contains("keeping the certificate")) {
            assert!(tokio::time::Instant::now() < deadline, "{}", log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(with_other().await, 200);
    };
    tokio::join!(requests, replace);
    assert!(server.log().iter().any(|line| line.contains("read the certificate of the server again")));
}
