//! Many writes in one call, independent of each other or atomic.

use std::future::IntoFuture;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::codec::{CodecFailure, workers};
use crate::log::{Ack, LogError, NewRecord};
use crate::writer::error::WriteError;
use crate::writer::prepare::prepare;
use crate::writer::publisher::Publisher;
use crate::writer::write::{Target, Write};

/// The most writes that are encoded together.
const MAX_CHUNK_WRITES: usize = 1024;

/// The most bytes of values that are encoded together. The last value of a chunk may exceed the limit.
const MAX_CHUNK_BYTES: usize = 4 << 20;

/// Writes that start when this is awaited; see [`Writer::set_many`](crate::writer::Writer::set_many).
#[derive(Debug)]
#[must_use = "nothing is written before it is awaited"]
pub struct SetMany<'a, W: Iterator<Item = Write>> {
    publisher: &'a Publisher,
    writes: Peekable<W>,
}

type Prepared = Result<(String, NewRecord), WriteError>;

impl<'a, W: Iterator<Item = Write> + Send + 'a> IntoFuture for SetMany<'a, W> {
    type Output = Vec<Result<Ack, WriteError>>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    /// # Cancel safety
    ///
    /// If this is dropped before it returns, any number of the records may be written.
    fn into_future(self) -> Self::IntoFuture {
        self.write_each().boxed()
    }
}

impl<'a, W: Iterator<Item = Write>> SetMany<'a, W> {
    pub(super) fn new(publisher: &'a Publisher, writes: W) -> Self {
        Self { publisher, writes: writes.peekable() }
    }

    /// Writes all records, or none: on a cluster in one transaction, in a directory as one batch of one
    /// partition. Readers see the records one after the other, and do not see that they belong together.
    ///
    /// # Errors
    ///
    /// The first error, and nothing was written, with two exceptions: [`WriteError::Log`] with
    /// [`LogError::Undelivered`] if it is unknown whether all records were written, or none;
    /// [`WriteError::NotVisible`] if all were written, but did not become visible in time.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it returns, all of the records may be written, or none.
    pub async fn atomic(mut self) -> Result<Vec<Ack>, WriteError> {
        let mut records = Vec::new();
        while self.writes.peek().is_some() {
            for prepared in self.prepare_next().await {
                records.push(prepared?.1);
            }
        }
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let acks = self.publisher.log.send_atomically(&self.publisher.topic, records).await;
        let acks = acks.map_err(WriteError::Log)?;
        let visible = self.publisher.wait_until_visible(&acks).await;
        match (visible, acks.last()) {
            (Err(reason), Some(&ack)) => Err(WriteError::NotVisible { ack, reason: Box::new(reason) }),
            _ => Ok(acks),
        }
    }

    async fn write_each(mut self) -> Vec<Result<Ack, WriteError>> {
        let mut deliveries = Vec::new();
        while self.writes.peek().is_some() {
            for record in self.prepare_next().await {
                deliveries.push(match record {
                    Ok((key, record)) => match self.publisher.log.send(&self.publisher.topic, record).await {
                        Ok(delivery) => Ok((key, delivery)),
                        Err(error) => Err(log_error(key, error)),
                    },
                    Err(error) => Err(error),
                });
            }
        }
        let mut results = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            results.push(match delivery {
                Ok((key, delivery)) => delivery.await.map_err(|error| log_error(key, error)),
                Err(error) => Err(error),
            });
        }
        let acks: Vec<Ack> = results.iter().flatten().copied().collect();
        if let Err(reason) = self.publisher.wait_until_visible(&acks).await {
            for result in &mut results {
                if let Ok(ack) = *result {
                    *result = Err(WriteError::NotVisible { ack, reason: Box::new(reason.clone()) });
                }
            }
        }
        results
    }

    /// Encodes and verifies the next writes on a codec worker.
    async fn prepare_next(&mut self) -> Vec<Prepared> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < MAX_CHUNK_WRITES
            && bytes < MAX_CHUNK_BYTES
            && let Some(write) = self.writes.next()
        {
            bytes += write.value.as_ref().map_or(0, String::len);
            chunk.push(write);
        }
        let chunk: Arc<[Write]> = chunk.into();
        match prepare_range(self.publisher, &chunk, 0..chunk.len()).await {
            Ok(prepared) => prepared,
            Err(CodecFailure::Host(failure)) => vec![Err(WriteError::Codec(failure)); chunk.len()],
            // One by one, so that only writes that fault are rejected.
            Err(CodecFailure::Fault(_)) => {
                let mut prepared = Vec::with_capacity(chunk.len());
                for index in 0..chunk.len() {
                    match prepare_range(self.publisher, &chunk, index..index + 1).await {
                        Ok(one) => prepared.extend(one),
                        Err(failure) => prepared.push(Err(codec_error(&chunk[index], failure))),
                    }
                }
                prepared
            }
        }
    }
}

/// Prepares a range of the writes on a codec worker.
async fn prepare_range(
    publisher: &Publisher,
    writes: &Arc<[Write]>,
    range: Range<usize>,
) -> Result<Vec<Prepared>, CodecFailure> {
    let (codecs, verify, writes) = (publisher.codecs.clone(), publisher.verify, writes.clone());
    let prepare = move || CodecFailure::split(prepare(&codecs, verify, &writes[range.clone()]));
    workers::run_codecs(&publisher.lane, prepare).await?.map_err(CodecFailure::Fault)
}

/// Returns the error of a write for which a codec faulted, or which the host could not encode.
fn codec_error(write: &Write, failure: CodecFailure) -> WriteError {
    let key = match &write.target {
        Target::Key(key) => key.clone(),
        Target::Member { group, member } => format!("{group}/{member}"),
    };
    match failure {
        CodecFailure::Host(failure) => WriteError::Codec(failure),
        CodecFailure::Fault(reason) => WriteError::Rejected { key, action: "encode and verify it", reason },
    }
}

/// Returns the error of a record that the log did not write: it refused the record, or it failed.
fn log_error(key: String, error: LogError) -> WriteError {
    match error {
        source @ (LogError::InvalidRecord { .. } | LogError::UnknownPartition { .. }) => {
            WriteError::InvalidRecord { key, source }
        }
        error => WriteError::Log(error),
    }
}
