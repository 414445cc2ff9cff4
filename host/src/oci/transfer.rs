//! What a repository of a registry is asked for: manifests, blobs, tags and referrers, and to store them.

use std::time::Duration;

use bytesize::ByteSize;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LINK, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::escape::one_line_within;
use crate::oci::auth::{describe, read_bounded};
use crate::oci::client::{Actions, Answer, RegistryClient, Request};
use crate::oci::layout::{BlobWriter, Layout};
use crate::oci::manifest::{
    DOCKER_INDEX_TYPE, DOCKER_MANIFEST_TYPE, Descriptor, INDEX_TYPE, Index, MANIFEST_TYPE,
    MAX_MANIFEST_BYTES, not_a_manifest,
};
use crate::oci::reference::is_tag;
use crate::oci::{Digest, OciError};

/// How many pages of referrers are read.
const MAX_PAGES: usize = 4;

/// How many tags a page has, if the registry agrees, and how many pages are read. Each signature has a tag.
const TAGS_PER_PAGE: usize = 1_000;
const MAX_TAG_PAGES: usize = 20;

/// The media types of a manifest or an index.
const MANIFEST_TYPES: [&str; 4] = [MANIFEST_TYPE, INDEX_TYPE, DOCKER_MANIFEST_TYPE, DOCKER_INDEX_TYPE];

/// The header that says that the registry notes what a manifest is about.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// The media type of blobs.
const BLOB_TYPE: &str = "application/octet-stream";

/// One page of the tags of a repository.
#[derive(Deserialize)]
struct TagList {
    /// Some registries answer `null` for none.
    tags: Option<Vec<String>>,
}

/// The manifests that may be about another one.
#[derive(Debug, Default)]
pub(crate) struct Referrers {
    pub(crate) digests: Vec<Digest>,
    /// Whether there is an API for this question. Otherwise, an index under a tag has the answer.
    pub(crate) has_api: bool,
}

impl RegistryClient {
    /// Reads the manifest that a tag names, and computes its digest.
    pub(crate) async fn manifest_of_tag(&self, tag: &str) -> Result<Vec<u8>, OciError> {
        self.read_manifest(tag).await
    }

    /// Reads a manifest by its digest. Other bytes are an error.
    pub(crate) async fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, OciError> {
        let bytes = match self.read_manifest(&digest.to_string()).await {
            Err(error) if may_be_blob(&error) && self.has_blob(digest).await => {
                return Err(not_a_manifest(digest));
            }
            result => result?,
        };
        self.check_bytes(digest, bytes.len() as u64, &Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Whether the registry answers that it has a blob.
    async fn has_blob(&self, digest: &Digest) -> bool {
        let request = self.request(Method::HEAD, &format!("blobs/{digest}"), Actions::Pull).await;
        match request {
            Ok(request) => self.send(request).await.is_ok_and(|answer| answer.status().is_success()),
            Err(_) => false,
        }
    }

    async fn read_manifest(&self, name: &str) -> Result<Vec<u8>, OciError> {
        let request = self.request(Method::GET, &format!("manifests/{name}"), Actions::Pull).await?;
        let answer = self.send(Self::accept(request, &MANIFEST_TYPES)).await?;
        let what = || format!("manifest {name}");
        self.read_small(self.expect_success(answer, &what())?, &what(), MAX_MANIFEST_BYTES).await
    }

    /// Reads a blob that is at most as large as a manifest.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        self.blob(descriptor, MAX_MANIFEST_BYTES).await
    }

    /// Reads a blob of at most `limit` bytes.
    pub(crate) async fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, OciError> {
        check_size(descriptor, "blob", limit)?;
        let path = format!("blobs/{}", descriptor.digest);
        let answer = self.send(self.request(Method::GET, &path, Actions::Pull).await?).await?;
        let what = format!("blob {}", descriptor.digest);
        let answer = self.expect_success(answer, &what)?;
        let bytes = self.read_small(answer, &what, descriptor.size).await?;
        self.check_bytes(&descriptor.digest, bytes.len() as u64, &Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Fetches a blob into a layout, unless the layout has it. What was fetched in part is continued once.
    pub(crate) async fn fetch_blob(
        &self,
        descriptor: &Descriptor,
        max_size: u64,
        layout: &Layout,
        deadline: Instant,
    ) -> Result<(), OciError> {
        check_size(descriptor, "component", max_size)?;
        let mut writer = layout.begin_blob()?;
        match timeout_at(deadline, self.download(descriptor, &mut writer)).await {
            Ok(result) => result?,
            Err(_) => {
                let shown = |bytes| round(&ByteSize(bytes).display().si().to_string());
                let (arrived, size) = (shown(writer.len()), shown(descriptor.size));
                let seconds = self.limits().artifact.as_secs_f32();
                return Err(OciError::Failed(format!(
                    "cannot fetch the component: only {arrived} of {size} arrived in {seconds} s. Check the network, or pull \
                     from a mirror."
                )));
            }
        }
        self.check_bytes(&descriptor.digest, writer.len(), &writer.digest())?;
        writer.persist().map(drop)
    }

    async fn download(&self, descriptor: &Descriptor, writer: &mut BlobWriter) -> Result<(), OciError> {
        for is_last in [false, true] {
            if writer.len() == descriptor.size {
                // The connection ended after the last byte. The digest decides.
                return Ok(());
            }
            let failure = match self.download_rest(descriptor, writer).await? {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if is_last {
                let (arrived, size) = (writer.len(), descriptor.size);
                return Err(OciError::Failed(format!(
                    "cannot fetch the component: the connection to {} ended after {arrived} of {size} bytes ({failure}). Check \
                     the network, or pull from a mirror.",
                    self.host()
                )));
            }
        }
        Ok(())
    }

    /// Downloads what is missing of a blob. The inner error says why the connection ended early.
    async fn download_rest(
        &self,
        descriptor: &Descriptor,
        writer: &mut BlobWriter,
    ) -> Result<Result<(), String>, OciError> {
        let path = format!("blobs/{}", descriptor.digest);
        let (mut request, begin) = (self.request(Method::GET, &path, Actions::Pull).await?, writer.len());
        if begin > 0 {
            request = request.with_header(RANGE, &format!("bytes={begin}-"));
        }
        let mut answer =
            self.expect_success(self.send(request).await?, &format!("blob {}", descriptor.digest))?;
        let is_rest = answer.status() == StatusCode::PARTIAL_CONTENT
            && answer
                .header(CONTENT_RANGE)
                .is_some_and(|range| range.starts_with(&format!("bytes {begin}-")));
        if begin > 0 && !is_rest {
            return Ok(Err("the registry does not continue a blob".to_owned()));
        }
        let declared = answer.header(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared > descriptor.size - begin) {
            return Err(too_long(descriptor.size));
        }
        loop {
            match answer.response.chunk().await {
                Ok(None) if writer.len() < descriptor.size && declared.is_some() => {
                    return Ok(Err("it sent less than it declared".to_owned()));
                }
                Ok(None) => return Ok(Ok(())),
                Ok(Some(chunk)) if writer.len() + chunk.len() as u64 > descriptor.size => {
                    return Err(too_long(descriptor.size));
                }
                Ok(Some(chunk)) => writer.write(&chunk)?,
                Err(error) => return Ok(Err(describe(&error))),
            }
        }
    }

    /// Lists the manifests that are about another one, as the registry suggests. A registry without the API has no answer,
    /// but an index under a tag.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Referrers, OciError> {
        let mut request = self.request(Method::GET, &format!("referrers/{subject}"), Actions::Pull).await?;
        let mut digests = Vec::new();
        for _ in 0..MAX_PAGES {
            let answer = self.send(Self::accept(request.clone(), &[INDEX_TYPE])).await?;
            // Registries without the API answer with one of these, or with a page for browsers.
            let is_missing = answer.status().is_client_error();
            let is_index =
                answer.header(reqwest::header::CONTENT_TYPE).is_some_and(|kind| kind.contains("json"));
            if is_missing || (answer.status().is_success() && !is_index) {
                let digests = self.fallback_referrers(subject).await?;
                return Ok(Referrers { digests, has_api: false });
            }
            let next = next_page(&answer);
            let what = format!("list of referrers of {subject}");
            let body =
                self.read_small(self.expect_success(answer, &what)?, &what, MAX_MANIFEST_BYTES).await?;
            digests.extend(Index::parse(&body)?.manifests.into_iter().map(|manifest| manifest.digest));
            match next {
                None => return Ok(Referrers { digests, has_api: true }),
                Some(next) if request.is_own(&next) => request.url = next,
                Some(_) => break,
            }
        }
        Err(self.too_many_pages(&format!("list of referrers of {subject}"), MAX_PAGES))
    }

    fn too_many_pages(&self, what: &str, limit: usize) -> OciError {
        OciError::Failed(format!(
            "cannot read the {what}: {} has more than {limit} pages, or continues the list elsewhere. Remove what is not needed.",
            self.host()
        ))
    }

    async fn fallback_referrers(&self, subject: &Digest) -> Result<Vec<Digest>, OciError> {
        match self.manifest_of_tag(&fallback_tag(subject)).await {
            Ok(bytes) => {
                Ok(Index::parse(&bytes)?.manifests.into_iter().map(|manifest| manifest.digest).collect())
            }
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Lists the tags of the repository.
    pub(crate) async fn tags(&self) -> Result<Vec<String>, OciError> {
        let path = format!("tags/list?n={TAGS_PER_PAGE}");
        let mut request = self.request(Method::GET, &path, Actions::Pull).await?;
        let what = "list of tags";
        let mut tags = Vec::new();
        for _ in 0..MAX_TAG_PAGES {
            let answer = self.expect_success(self.send(request.clone()).await?, what)?;
            let next = next_page(&answer);
            let body = self.read_small(answer, what, MAX_MANIFEST_BYTES).await?;
            let page: TagList = serde_json::from_slice(&body)
                .map_err(|_| self.unreadable(what, "answered with something else"))?;
            tags.extend(page.tags.unwrap_or_default().into_iter().filter(|tag| is_tag(tag)));
            match next {
                None => return Ok(tags),
                Some(next) if request.is_own(&next) => request.url = next,
                Some(_) => break,
            }
        }
        Err(self.too_many_pages(what, MAX_TAG_PAGES))
    }

    /// Stores a blob, unless the registry has it.
    pub(crate) async fn push_blob(&self, bytes: &[u8]) -> Result<(), OciError> {
        let digest = Digest::of(bytes);
        let head = self.request(Method::HEAD, &format!("blobs/{digest}"), Actions::Push).await?;
        if self.send(head).await?.status().is_success() {
            return Ok(());
        }
        let body = bytes::Bytes::copy_from_slice(bytes);
        let mut last = None;
        // An upload that was cut begins again, with another address.
        for _ in 0..2 {
            let upload = self.begin_upload(&digest).await?;
            match self.send(upload.with_body(BLOB_TYPE, body.clone())).await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => last = Some(self.unexpected(&answer, &format!("blob {digest}"))),
                Err(error) => last = Some(error),
            }
        }
        // OK because the loop ran.
        Err(last.expect("an error"))
    }

    /// Begins an upload. Returns the request that completes it.
    async fn begin_upload(&self, digest: &Digest) -> Result<Request, OciError> {
        let request = self.request(Method::POST, "blobs/uploads/", Actions::Push).await?;
        let own = request.url.clone();
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.unexpected(&answer, "upload"));
        }
        let host = self.host();
        let location = answer.header(LOCATION).and_then(|location| own.join(location).ok());
        let Some(mut location) = location else {
            return Err(OciError::Failed(format!(
                "cannot push to {host}: it accepts an upload, but does not say where. Check the registry."
            )));
        };
        if location.origin() != own.origin() {
            return Err(OciError::Failed(format!(
                "cannot push to {host}: it sends the upload to another address, {}, which ktables refuses. Check the \
                 registry's configuration.",
                one_line_within(&location.origin().ascii_serialization(), 200)
            )));
        }
        location.query_pairs_mut().append_pair("digest", &digest.to_string());
        let request = self.request(Method::PUT, "", Actions::Push).await?;
        Ok(Request { url: location, ..request })
    }

    /// Stores a manifest under its digest, and under a tag if there is one. Reads it back. Returns whether the registry notes
    /// what the manifest is about.
    pub(crate) async fn push_manifest(
        &self,
        media_type: &str,
        bytes: &[u8],
        tag: Option<&str>,
    ) -> Result<bool, OciError> {
        let digest = Digest::of(bytes);
        let name = tag.map_or_else(|| digest.to_string(), str::to_owned);
        let request = self.request(Method::PUT, &format!("manifests/{name}"), Actions::Push).await?;
        let answer = self.send(request.with_body(media_type, bytes.to_vec())).await?;
        if !answer.status().is_success() {
            return Err(self.unexpected(&answer, &format!("manifest {name}")));
        }
        let notes_subject = answer.header(SUBJECT).is_some();
        let stored = self.read_manifest(&name).await?;
        self.check_bytes(&digest, stored.len() as u64, &Digest::of(&stored))?;
        Ok(notes_subject)
    }

    /// Fails unless the bytes have the digest.
    fn check_bytes(&self, expected: &Digest, len: u64, actual: &Digest) -> Result<(), OciError> {
        if expected == actual {
            return Ok(());
        }
        Err(OciError::Failed(format!(
            "cannot fetch {expected}: {} returned different content ({len} bytes with digest {actual}), and ktables discarded \
             all of it. There is no other mirror to try. Check for a proxy that changes responses, or for a damaged registry.",
            self.host()
        )))
    }

    fn expect_success(&self, answer: Answer, what: &str) -> Result<Answer, OciError> {
        if answer.status().is_success() { Ok(answer) } else { Err(self.unexpected(&answer, what)) }
    }

    /// The error of an answer that is no success.
    fn unexpected(&self, answer: &Answer, what: &str) -> OciError {
        let (host, repository) = (self.host(), &self.repository().name);
        match answer.status() {
            StatusCode::NOT_FOUND => OciError::NotFound(format!(
                "cannot find the {what}: {host} has none in {repository} (404). Check the name, the tag and the digest."
            )),
            status => OciError::Failed(format!(
                "cannot use the {what}: {host} answered with {} for {repository}. Check the registry.",
                status.as_u16()
            )),
        }
    }

    async fn read_small(&self, answer: Answer, what: &str, limit: u64) -> Result<Vec<u8>, OciError> {
        let read = read_bounded(answer.response, limit);
        // A server that sends a byte now and then would be read for long.
        match tokio::time::timeout(self.limits().artifact, read).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(reason)) => Err(self.unreadable(what, &reason)),
            Err(_) => {
                Err(self
                    .unreadable(what, &format!("took more than {} s", self.limits().artifact.as_secs_f32())))
            }
        }
    }

    fn unreadable(&self, what: &str, reason: &str) -> OciError {
        OciError::Failed(format!(
            "cannot fetch the {what}: {} {reason}. Check the registry and the network, or pull from a mirror.",
            self.host()
        ))
    }
}

/// Whether an error may be that of a blob's digest in place of a manifest's: some registries fail then.
fn may_be_blob(error: &OciError) -> bool {
    error.is_not_found() || error.to_string().contains("(500 from ")
}

/// Returns the tag of the index that registries without the API for referrers have instead.
pub(crate) fn fallback_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// Returns the address of the next page of a list, which the header `Link` has.
fn next_page(answer: &Answer) -> Option<Url> {
    let (address, rest) = answer.header(LINK)?.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = rest.split(';').any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next"));
    answer.url.join(address).ok().filter(|_| is_next)
}

/// Fails if a blob is declared to be larger than the limit.
fn check_size(descriptor: &Descriptor, what: &str, limit: u64) -> Result<(), OciError> {
    if descriptor.size <= limit {
        return Ok(());
    }
    let shown = |bytes| round(&ByteSize(bytes).display().iec().to_string());
    let (size, most) = (shown(descriptor.size), shown(limit));
    Err(OciError::Failed(match what {
        "component" => format!(
            "cannot fetch the component: its declared size is {size}, and the limit is {most} (`max_size`). Check the reference, \
             or raise `max_size`."
        ),
        _ => format!(
            "cannot fetch the {what}: its declared size is {size}, and the limit is {most}. Check the reference."
        ),
    }))
}

/// Shows a size without a decimal that is zero.
fn round(size: &str) -> String {
    size.replace(".0 ", " ")
}

fn too_long(size: u64) -> OciError {
    OciError::Failed(format!(
        "cannot fetch the component: the response continued after {size} bytes, its declared size. Check the registry, or pull \
         from a mirror."
    ))
}

/// Returns when fetching an artifact must be done.
pub(crate) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use tempfile::TempDir;

    use super::*;
    use crate::oci::Repository;
    use crate::oci::settings::{NetworkLimits, RegistrySettings};

    /// How long an artifact may take in these tests.
    const LIMIT: Duration = Duration::from_millis(500);

    /// Starts a registry that answers each request with one byte every 5 ms, for ever. Returns its host.
    fn start_slow_registry() -> String {
        fn serve(mut stream: TcpStream) -> std::io::Result<()> {
            // OK to ignore how much it is: the request is small.
            let _ = stream.read(&mut [0; 4096])?;
            stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 40000000\r\n\r\n")?;
            loop {
                stream.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream));
            }
        });
        host
    }

    #[tokio::test]
    async fn what_arrives_slowly_ends_at_the_limit() {
        let repository = Repository { host: start_slow_registry(), name: "x".to_owned() };
        let settings = RegistrySettings { plain_http: Some(true), ..RegistrySettings::default() };
        let limits = NetworkLimits { artifact: LIMIT, ..NetworkLimits::default() };
        let client = RegistryClient::new(&repository, &settings, limits).unwrap();
        let folder = TempDir::new().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let component = Descriptor { size: 40_000_000, ..Descriptor::of("application/wasm", b"x") };

        let fetched = client.fetch_blob(&component, u64::MAX, &layout, deadline(LIMIT)).await;
        let error = fetched.unwrap_err().to_string();
        assert!(error.starts_with("cannot fetch the component: only "), "{error}");
        assert!(
            error.ends_with("B of 40 MB arrived in 0.5 s. Check the network, or pull from a mirror."),
            "{error}"
        );
        assert!(!layout.has_blob(&component.digest));
        // What is small has the same limit.
        let error = client.manifest(&component.digest).await.unwrap_err().to_string();
        assert!(error.contains("took more than 0.5 s"), "{error}");
    }
}
