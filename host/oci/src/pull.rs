//! Pulling: the manifest, then what the artifact says of itself, then the component. Each is checked before the next is asked
//! for, and a component that is not whole is no component.

use std::time::Duration;

use http::{Method, StatusCode};
use twill_model::Digest;

use super::artifact::{Content, Interface, MAX_MANIFEST, Manifest, WasmConfig, Wrong};
use super::error::{Error, Problem};
use super::reference::{Pinned, Reference};
use super::session::{Purpose, Session};
use super::transport::{Access, read};

/// A pull that takes longer is given up: the largest component over a line of two Mbit/s.
const LONGEST: Duration = Duration::from_secs(300);
/// What is understood, or at least recognised.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json";

/// An artifact that came whole.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// What it is, by its digest.
    pub reference: Pinned,
    /// The manifest, as the bytes are that have that digest.
    pub manifest: Vec<u8>,
    /// The component.
    pub component: Vec<u8>,
    /// The component's own digest.
    pub digest: Digest,
}

/// Pulls an artifact with a component of at most `limit` bytes. `accept` is asked about what it exports and imports before
/// the component is fetched, if the artifact says that.
///
/// # Errors
/// If there is none, or it is not what was asked for; nothing is kept then.
pub async fn pull(
    reference: &Reference,
    access: &Access,
    limit: u64,
    accept: &(dyn Fn(&Interface) -> Result<(), String> + Send + Sync),
) -> Result<Pulled, Error> {
    let pulled = tokio::time::timeout(LONGEST, try_pull(reference, access, limit, accept)).await;
    let pulled = pulled.unwrap_or(Err(Problem::Slow { seconds: LONGEST.as_secs() }));
    pulled.map_err(|problem| Error { doing: "pulling", reference: reference.to_string(), problem })
}

async fn try_pull(
    reference: &Reference,
    access: &Access,
    limit: u64,
    accept: &(dyn Fn(&Interface) -> Result<(), String> + Send + Sync),
) -> Result<Pulled, Problem> {
    let name = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => format!("sha256:{digest}"),
        (None, Some(tag)) => tag.clone(),
        (None, None) => return Err(Problem::WhichOne),
    };
    let mut session = Session::open(&reference.repository, access, Purpose::Pull).await?;
    let answer = session.get(Method::GET, &format!("manifests/{name}"), Some(ACCEPT)).await?;
    if answer.status() != StatusCode::OK {
        return Err(session.unexpected(answer).await);
    }
    let bytes = read("the manifest", &session.host(), answer.into_body(), None, MAX_MANIFEST).await?;
    let found = Digest::of(&bytes);
    if let Some(wanted) = reference.digest.filter(|wanted| *wanted != found) {
        return Err(Problem::OtherDigest { what: "the manifest", found, wanted });
    }
    let manifest = Manifest::read(&bytes, limit)?;
    if manifest.describes_itself {
        let config = blob(&mut session, "the configuration", manifest.config).await?;
        accept(&WasmConfig::read(&config)?).map_err(Wrong::Interface)?;
    }
    let component = blob(&mut session, "the component", manifest.component).await?;
    let digest = manifest.component.digest;
    Ok(Pulled { reference: reference.clone().pin(found), manifest: bytes, component, digest })
}

/// Content that a manifest describes, whole and as it is described.
async fn blob(session: &mut Session<'_>, what: &'static str, content: Content) -> Result<Vec<u8>, Problem> {
    let answer = session.get(Method::GET, &format!("blobs/sha256:{}", content.digest), None).await?;
    if answer.status() != StatusCode::OK {
        return Err(session.unexpected(answer).await);
    }
    let bytes = read(what, &session.host(), answer.into_body(), Some(content.size), content.size).await?;
    let found = Digest::of(&bytes);
    if found != content.digest {
        return Err(Problem::OtherDigest { what, found, wanted: content.digest });
    }
    Ok(bytes)
}
