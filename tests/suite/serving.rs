//! `ktables serve`: the HTTP API, checked against its contract.

mod access;
mod attacks;
mod authority;
mod clients;
mod lifetime;
mod metrics;
mod overload;
mod protocols;
mod proxy;
mod reads;
mod recovery;
mod remote;
mod statuses;
mod swaps;
mod systemd;
mod watch_model;
mod watches;
mod writes;

use std::collections::BTreeSet;

use ktables_tests::root;
use ktables_tests::server::contract;

/// A configuration with one table.
const SERVICES: &str = "[tables.services]\nlog = \"local\"\ntopic = \"services\"\nensure_topic = true\n";

/// Encodes a key for the parameters of an address.
fn encode(key: &str) -> String {
    key.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn the_router_and_the_contract_have_the_same_paths() {
    let source = std::fs::read_to_string(root().join("host/src/serve/http.rs")).unwrap();
    let mut routes = BTreeSet::new();
    for call in source.split(".route(").skip(1) {
        let argument = call.trim_start();
        let path = argument.split('"').nth(1).unwrap_or_default();
        routes.insert(match argument {
            _ if argument.starts_with("table,") => "/v1/tables/{table}".to_owned(),
            _ if argument.starts_with("&at(") => {
                format!("/v1/tables/{{table}}{path}").replace("{*key}", "{key}")
            }
            _ => path.to_owned(),
        });
    }
    let documented: BTreeSet<String> = contract().operations().into_iter().map(|(_, path)| path).collect();
    assert_eq!(routes, documented);
}
