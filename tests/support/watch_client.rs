//! A client that watches a table of a server, and keeps its entries.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::Value;

use crate::TIMEOUT;
use crate::server::{Server, contract};

/// A watch, as lines of JSON or as server-sent events.
#[derive(Debug)]
pub struct WatchClient {
    response: Response,
    buffer: Vec<u8>,
    is_sse: bool,
    /// The id of the last event that had one.
    pub last_id: Option<String>,
}

impl WatchClient {
    /// Opens a watch. `path` has its parameters.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    pub async fn open(server: &Server, path: &str, is_sse: bool) -> Self {
        let accept = if is_sse { "text/event-stream" } else { "application/x-ndjson" };
        let response =
            server.request(Method::GET, path).header("accept", accept).send().await.expect("answers");
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], accept);
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, buffer: Vec::new(), is_sse, last_id: None }
    }

    /// Returns the next event; `None` at the end of the stream.
    ///
    /// # Panics
    ///
    /// If none arrives in time, or the contract does not allow it.
    pub async fn next(&mut self) -> Option<Value> {
        let next = self.next_unchecked();
        tokio::time::timeout(TIMEOUT, next).await.expect("an event in time")
    }

    /// Returns the next event, if one arrives within this time.
    pub async fn next_within(&mut self, time: Duration) -> Option<Value> {
        tokio::time::timeout(time, self.next_unchecked()).await.ok().flatten()
    }

    /// Returns the next event of this type, and skips the others.
    ///
    /// # Panics
    ///
    /// If the stream ends before.
    pub async fn next_of_type(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("no `{kind}` before the end"));
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// Returns all events up to one of this type.
    pub async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            let is_last = event["type"] == kind;
            events.push(event);
            if is_last {
                break;
            }
        }
        events
    }

    async fn next_unchecked(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.end_of_event() {
                let block: Vec<u8> = self.buffer.drain(..end).collect();
                let text = String::from_utf8(block).expect("UTF-8");
                if let Some(event) = self.parse(text.trim_end()) {
                    contract().check_event(&event);
                    return Some(event);
                }
                continue;
            }
            let chunk = self.response.chunk().await.ok().flatten()?;
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// Returns where the next event in the buffer ends.
    fn end_of_event(&self) -> Option<usize> {
        let end: &[u8] = if self.is_sse { b"\n\n" } else { b"\n" };
        let at = self.buffer.windows(end.len()).position(|window| window == end)?;
        Some(at + end.len())
    }

    fn parse(&mut self, text: &str) -> Option<Value> {
        if !self.is_sse {
            let event: Value = serde_json::from_str(text).expect("JSON");
            self.last_id = event["id"].as_str().map(str::to_owned).or(self.last_id.take());
            return Some(event);
        }
        let mut event = None;
        for line in text.lines() {
            match line.split_once(": ").expect("a field") {
                ("id", id) => self.last_id = Some(id.to_owned()),
                ("data", data) => event = Some(serde_json::from_str(data).expect("JSON")),
                ("retry", millis) => assert!(millis.parse::<u64>().is_ok()),
                field => panic!("{field:?}"),
            }
        }
        event
    }
}

/// Applies an event to the entries that a client keeps.
pub fn apply_event(entries: &mut BTreeMap<String, Value>, event: &Value) {
    let key = || event["key"].as_str().expect("a key").to_owned();
    match event["type"].as_str().expect("a type") {
        "entry" | "put" => drop(entries.insert(key(), event["value"].clone())),
        "delete" => drop(entries.remove(&key())),
        "restarted" => entries.clear(),
        _ => {}
    }
}
