//! Pushing: the configuration and the component, unless they are there, and then the manifest that makes them an artifact.

use std::collections::BTreeMap;

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode, Uri};
use hyper::body::Bytes;
use twill_model::Digest;

use super::artifact::{Interface, MANIFEST, Manifest, WasmConfig};
use super::error::{Error, Problem};
use super::reference::{Pinned, Reference};
use super::session::{Purpose, Question, Session};
use super::transport::Access;

/// The header in which a registry says what it has kept.
const KEPT: &str = "docker-content-digest";

/// A component to push.
#[derive(Debug, Clone)]
pub struct Push<'a> {
    /// The component.
    pub component: &'a [u8],
    /// What it exports and imports.
    pub interface: Interface,
    /// The name of its file, for those who pull it to a file.
    pub title: Option<&'a str>,
    /// What else the manifest says, as `org.opencontainers.image.source`.
    pub annotations: BTreeMap<String, String>,
}

/// Pushes a component, under a tag if the reference has one. The same component always gets the same digest.
///
/// # Errors
/// If the registry does not take it. What it took of it until then is in no artifact, and it throws that away.
pub async fn push(reference: &Reference, access: &Access, push: Push<'_>) -> Result<Pinned, Error> {
    let pushed = try_push(reference, access, push).await;
    pushed.map_err(|problem| Error { doing: "pushing", reference: reference.to_string(), problem })
}

async fn try_push(reference: &Reference, access: &Access, push: Push<'_>) -> Result<Pinned, Problem> {
    let Push { component, interface, title, annotations } = push;
    let json = |error: serde_json::Error| Problem::Answer { host: String::new(), problem: error.to_string() };
    let config = serde_json::to_vec(&WasmConfig::new(component, interface)).map_err(json)?;
    let manifest = Manifest::write(component, title, &config, annotations).map_err(json)?;
    let digest = Digest::of(&manifest);
    if let Some(wanted) = reference.digest.filter(|wanted| *wanted != digest) {
        return Err(Problem::OtherDigest { what: "the manifest", found: digest, wanted });
    }
    let mut session = Session::open(&reference.repository, access, Purpose::Push).await?;
    upload(&mut session, Bytes::from(config)).await?;
    upload(&mut session, Bytes::copy_from_slice(component)).await?;
    let name = reference.tag.clone().unwrap_or_else(|| format!("sha256:{digest}"));
    let uri = session.uri(&format!("manifests/{name}"))?;
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(MANIFEST))];
    let body = Bytes::from(manifest);
    let answer = session.ask(Question { method: Method::PUT, uri: &uri, headers, body }).await?;
    if answer.status() != StatusCode::CREATED {
        return Err(session.unexpected(answer).await);
    }
    let kept = answer.headers().get(KEPT).and_then(|value| value.to_str().ok());
    if let Some(kept) = kept.filter(|kept| *kept != format!("sha256:{digest}")) {
        let problem = format!("it has kept {}, and not sha256:{digest}", super::artifact::shown(kept));
        return Err(session.confused(problem));
    }
    Ok(reference.clone().pin(digest))
}

/// Brings content to the registry, if it is not there.
async fn upload(session: &mut Session<'_>, content: Bytes) -> Result<(), Problem> {
    let digest = Digest::of(&content);
    let there = session.get(Method::HEAD, &format!("blobs/sha256:{digest}"), None).await?;
    match there.status() {
        StatusCode::OK => return Ok(()),
        StatusCode::NOT_FOUND => {}
        _ => return Err(session.unexpected(there).await),
    }
    let begin = session.uri("blobs/uploads/")?;
    let question = Question { method: Method::POST, uri: &begin, headers: Vec::new(), body: Bytes::new() };
    let answer = session.ask(question).await?;
    if answer.status() != StatusCode::ACCEPTED || !answer.headers().contains_key(LOCATION) {
        return Err(session.unexpected(answer).await);
    }
    let place = session.transport.next(&begin, &answer)?;
    let separator = if place.query().is_some() { '&' } else { '?' };
    let place: Uri = format!("{place}{separator}digest=sha256%3A{digest}")
        .parse()
        .map_err(|error: http::uri::InvalidUri| session.confused(error.to_string()))?;
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
    let answer = session.ask(Question { method: Method::PUT, uri: &place, headers, body: content }).await?;
    if answer.status() == StatusCode::CREATED { Ok(()) } else { Err(session.unexpected(answer).await) }
}
