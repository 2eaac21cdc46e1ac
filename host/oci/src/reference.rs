//! Names of artifacts: `registry.example/team/backend:1.2@sha256:…`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use twill_model::Digest;

/// Longest name of a repository, registry included: what registries and other clients take.
const LONGEST_NAME: usize = 255;
/// Longest tag.
const LONGEST_TAG: usize = 128;

/// A place in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    registry: String,
    name: String,
}

/// What is to be pulled, or where something is to be pushed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where.
    pub repository: Repository,
    /// A name that can be given to something else later.
    pub tag: Option<String>,
    /// The digest of the manifest: a name that cannot.
    pub digest: Option<Digest>,
}

/// A reference that can only mean one thing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pinned {
    /// Where.
    pub repository: Repository,
    /// For people; nobody looks it up.
    pub tag: Option<String>,
    /// The digest of the manifest.
    pub digest: Digest,
}

/// Text that names no artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no artifact: {problem}; expected one as registry.example/team/backend:1.2 or registry.example/team/backend@sha256:… (64 hexadecimal digits)"
)]
pub struct ParseReferenceError {
    text: String,
    problem: &'static str,
}

impl Repository {
    /// Host and port of the registry, as they were written.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name inside the registry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Host and port of the server that answers: Docker's registry has another name than its artifacts.
    pub(crate) fn server(&self) -> &str {
        match self.registry.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            registry => registry,
        }
    }
}

impl Reference {
    /// The same as something that can only mean one thing, if it has a digest.
    #[must_use]
    pub fn pinned(self) -> Option<Pinned> {
        let Self { repository, tag, digest } = self;
        Some(Pinned { repository, tag, digest: digest? })
    }

    /// The same with the digest that it was found to have.
    #[must_use]
    pub fn pin(self, digest: Digest) -> Pinned {
        Pinned { repository: self.repository, tag: self.tag, digest }
    }
}

impl From<Pinned> for Reference {
    fn from(pinned: Pinned) -> Self {
        Self { repository: pinned.repository, tag: pinned.tag, digest: Some(pinned.digest) }
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    /// Reads a reference, with `oci://` in front of it or without.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |problem| ParseReferenceError { text: text.chars().take(400).collect(), problem };
        let rest = text.strip_prefix("oci://").unwrap_or(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                let digest =
                    digest.strip_prefix("sha256:").ok_or(wrong("what is behind the @ is not a SHA-256 digest"))?;
                let digest = digest.parse().map_err(|_| wrong("what is behind the @ is not a SHA-256 digest"))?;
                (rest, Some(digest))
            }
            None => (rest, None),
        };
        let (registry, rest) = rest.split_once('/').ok_or(wrong("it has no name behind the registry"))?;
        if !is_registry(registry) {
            return Err(wrong("it does not begin with a registry's host name and port"));
        }
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        if registry.len() + 1 + name.len() > LONGEST_NAME || !name.split('/').all(is_part) {
            return Err(wrong(
                "its name is not made of lower-case letters, digits, single separators (. _ -) and slashes",
            ));
        }
        if !tag.is_none_or(is_tag) {
            return Err(wrong("its tag is not made of letters, digits, dots, dashes and underscores"));
        }
        let repository = Repository { registry: registry.to_owned(), name: name.to_owned() };
        Ok(Self { repository, tag: tag.map(str::to_owned), digest })
    }
}

/// Host and port: with a dot or a port, or `localhost`. Other clients take what is neither for a name at Docker's
/// registry, which is left to them.
fn is_registry(text: &str) -> bool {
    let Some((host, port)) = host_and_port(text) else { return false };
    let is_host = host.parse::<IpAddr>().is_ok()
        || (!host.is_empty()
            && host.split('.').all(|label| {
                let plain = |c: u8| c.is_ascii_alphanumeric();
                label.bytes().next().is_some_and(plain)
                    && label.bytes().last().is_some_and(plain)
                    && label.bytes().all(|c| plain(c) || c == b'-')
            }));
    is_host && (host.contains(['.', ':']) || port.is_some() || host == "localhost")
}

/// Takes host and port apart; an IPv6 address comes without its brackets.
pub(crate) fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0 && text.bytes().all(|c| c.is_ascii_digit()));
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match rest.strip_prefix(':') {
            Some(text) => Some((host, Some(port(text)?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((host, text)) => Some((host, Some(port(text)?))),
        None => Some((text, None)),
    }
}

/// Letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_part(text: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.iter().all(|c| c.is_some_and(is_plain))
        && text.bytes().all(|c| is_plain(c) || b"._-".contains(&c))
        && text
            .split(|c: char| c.is_ascii_alphanumeric())
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|c| c == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(is_plain)
        && text.bytes().all(|c| is_plain(c) || b".-".contains(&c))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@sha256:{digest}"))
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Reference::from(self.clone()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parts_of_a_reference() {
        let read = |text: &str| text.parse::<Reference>().unwrap();
        let full = read(&format!("oci://[2001:db8::1]:5000/team/my-backend__x:1.2@sha256:{DIGEST}"));
        assert_eq!(full.repository.registry(), "[2001:db8::1]:5000");
        assert_eq!(full.repository.name(), "team/my-backend__x");
        assert_eq!(full.tag.as_deref(), Some("1.2"));
        assert_eq!(full.digest, Some(Digest::of(b"")));
        assert_eq!(full.to_string(), format!("oci://[2001:db8::1]:5000/team/my-backend__x:1.2@sha256:{DIGEST}"));
        assert_eq!(full.clone().pinned().unwrap().to_string(), full.to_string());
        for text in ["localhost/x", "registry.example/x", "r:5000/a/b/c:v1", "127.0.0.1:5000/a---b"] {
            assert_eq!(read(text).to_string(), format!("oci://{text}"));
            assert_eq!(read(text).pinned(), None);
        }
        assert_eq!(read("docker.io/library/x").repository.server(), "registry-1.docker.io");
    }

    #[test]
    fn what_is_none_says_why() {
        let problem = |text: &str| text.parse::<Reference>().unwrap_err().to_string();
        assert_eq!(
            problem("backend:1"),
            "\"backend:1\" names no artifact: it has no name behind the registry; expected one as \
             registry.example/team/backend:1.2 or registry.example/team/backend@sha256:… (64 hexadecimal digits)"
        );
        for (text, why) in [
            ("team/backend", "does not begin with a registry's"),
            ("https://r.example/x", "does not begin with a registry's"),
            ("user@r.example/x", "behind the @"),
            ("r.example:0/x", "does not begin"),
            ("r.example:65536/x", "does not begin"),
            ("r.example:+5/x", "does not begin"),
            ("-r.example/x", "does not begin"),
            ("[::1/x", "does not begin"),
            ("r.example/X", "its name"),
            ("r.example/", "its name"),
            ("r.example/a//b", "its name"),
            ("r.example/../b", "its name"),
            ("r.example/a..b", "its name"),
            ("r.example/a%2fb", "its name"),
            ("r.example/a?b", "its name"),
            ("r.example/x:", "its tag"),
            ("r.example/x:.a", "its tag"),
            ("r.example/x:a/b", "its tag"),
            ("r.example/x@sha256:12", "behind the @"),
            ("r.example/x@sha512:12", "behind the @"),
        ] {
            assert!(problem(text).contains(why), "{}", problem(text));
        }
        assert!(problem(&format!("r.example/{}", "a".repeat(300))).contains("its name"));
        assert!(problem(&format!("r.example/a:{}", "a".repeat(129))).contains("its tag"));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(text in "(oci://)?[a-z0-9.:\\[\\]-]{1,12}/[a-z0-9._/-]{1,12}(:[a-zA-Z0-9._-]{1,8})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference.clone());
                // It becomes part of an address, and must stay where it was put.
                let uri: http::Uri = format!("https://{}/v2/{}/", reference.repository.server(), reference.repository.name()).parse().unwrap();
                let path = format!("/v2/{}/", reference.repository.name());
                prop_assert_eq!(uri.path(), path.as_str());
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in ".*") {
            let _ = text.parse::<Reference>();
        }
    }
}
