//! Writes to a table of a server.

use reqwest::Method;
use serde::Deserialize;

use crate::cli::CliError;
use crate::cli::remote::table::RemoteTable;
use crate::log::Ack;
use crate::writer::{Target, Write};

/// The acknowledgement of a record.
#[derive(Deserialize)]
struct Written {
    partition: i32,
    offset: Option<i64>,
}

impl RemoteTable {
    /// Writes a record. With `is_visible`, waits until it is visible in the server's table.
    pub(in crate::cli) async fn write(&self, write: Write, is_visible: bool) -> Result<Ack, CliError> {
        let mut query = match &write.target {
            Target::Key(key) => vec![("key", key.as_str())],
            Target::Member { group, member } => vec![("group", group.as_str()), ("member", member.as_str())],
        };
        let timeout = self.timeout();
        query.push(("timeout", &timeout));
        if is_visible {
            query.push(("visible", "true"));
        }
        let method = if write.value.is_some() { Method::PUT } else { Method::DELETE };
        let mut request = self.request(method, &["entry"], &query);
        if let Some(value) = write.value {
            request = request.body(value);
        }
        let reply = self.send(request).await?;
        let Written { partition, offset } = self.parse(&reply.body)?;
        Ok(Ack { partition, offset })
    }
}
