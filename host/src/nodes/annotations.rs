//! The names of the annotations through which nodes tell each other how to reach them. They are flannel's, so that both
//! can live in one cluster.

use twill_model::Family;

/// Annotations that only Twill knows begin with this, whatever prefix flannel's have.
pub(super) const OWN_PREFIX: &str = "twill.dev/";

/// The names of annotations under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationKeys {
    prefix: String,
}

/// A type of backend that flannel writes no name of. It has three such; this is the one that Twill has too.
const NAMELESS: &str = "alloc";

/// What the annotation `backend-type` holds for a type of backend.
#[must_use]
pub fn written_type(kind: &str) -> &str {
    if kind == NAMELESS { "" } else { kind }
}

/// The type of backend that the annotation `backend-type` means.
pub(super) fn type_of(written: &str) -> &str {
    if written.is_empty() { NAMELESS } else { written }
}

/// A prefix that makes no annotation names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot begin the names of annotations: --kube-annotation-prefix takes a domain with at least one dot, and after \
     a slash a name if you like, in small letters, digits and \"-_.\", as \"flannel.alpha.coreos.com\" or \"example.org/net\""
)]
pub struct PrefixError(String);

impl AnnotationKeys {
    /// Flannel's own prefix.
    pub const DEFAULT_PREFIX: &'static str = "flannel.alpha.coreos.com";

    /// Completes a prefix as flannel does: a slash after the domain, a dash after the name if there is one.
    ///
    /// # Errors
    /// If the result is not `domain/` or `domain/name-`.
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        let wrong = || PrefixError(prefix.chars().take(100).collect());
        let (domain, name) = prefix.split_once('/').unwrap_or((prefix, ""));
        let plain = |text: &str| {
            text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_' | b'.'))
        };
        let labels = domain.split('.');
        if !plain(domain) || !plain(name) || labels.clone().count() < 2 || labels.clone().any(str::is_empty) {
            return Err(wrong());
        }
        let dash = if name.is_empty() || name.ends_with('-') { "" } else { "-" };
        Ok(Self { prefix: format!("{domain}/{name}{dash}") })
    }

    /// Whether an annotation is one of flannel's or Twill's: no other is kept.
    #[must_use]
    pub fn concerns(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) || key.starts_with(OWN_PREFIX)
    }

    /// `true` on a node that takes part in the network.
    #[must_use]
    pub fn manager(&self) -> String {
        self.key("kube-subnet-manager")
    }

    /// The type of backend that a node is reached by.
    #[must_use]
    pub fn backend_type(&self) -> String {
        self.key("backend-type")
    }

    /// What a node's backend tells its peers, as JSON.
    #[must_use]
    pub fn backend_data(&self, family: Family) -> String {
        self.key(match family {
            Family::V4 => "backend-data",
            Family::V6 => "backend-v6-data",
        })
    }

    /// Everything by which a node can be reached. Only Twill knows it.
    #[must_use]
    pub fn backends(&self) -> String {
        format!("{OWN_PREFIX}backends")
    }

    /// The address that peers send to.
    #[must_use]
    pub fn public_ip(&self, family: Family) -> String {
        self.key(match family {
            Family::V4 => "public-ip",
            Family::V6 => "public-ipv6",
        })
    }

    /// A person's wish to publish another public address than the detected one.
    #[must_use]
    pub fn public_ip_overwrite(&self, family: Family) -> String {
        format!("{}-overwrite", self.public_ip(family))
    }

    /// A person's wish that acts like the flags `--public-ip` and `--public-ipv6`.
    #[must_use]
    pub fn node_public_ip(&self, family: Family) -> String {
        self.key(match family {
            Family::V4 => "node-public-ip",
            Family::V6 => "node-public-ipv6",
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Default for AnnotationKeys {
    fn default() -> Self {
        Self { prefix: format!("{}/", Self::DEFAULT_PREFIX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_completed_as_flannel_does() {
        for (given, key) in [
            ("org.com", "org.com/backend-type"),
            ("org.com/", "org.com/backend-type"),
            ("org.com/9", "org.com/9-backend-type"),
            ("org.com/9-", "org.com/9-backend-type"),
            ("a_b.c-d.e/x.y", "a_b.c-d.e/x.y-backend-type"),
            (AnnotationKeys::DEFAULT_PREFIX, "flannel.alpha.coreos.com/backend-type"),
        ] {
            assert_eq!(AnnotationKeys::new(given).unwrap().backend_type(), key);
        }
        assert_eq!(AnnotationKeys::new(AnnotationKeys::DEFAULT_PREFIX).unwrap(), AnnotationKeys::default());
    }

    #[test]
    fn prefixes_that_are_none() {
        for given in ["", "org", "org.COM", "org.com/a/b", "/x", "org.com/X", ".com", "org..com", "org./x", "a b.c"] {
            assert_eq!(
                AnnotationKeys::new(given).unwrap_err().to_string(),
                format!(
                    "{given:?} cannot begin the names of annotations: --kube-annotation-prefix takes a domain with at \
                     least one dot, and after a slash a name if you like, in small letters, digits and \"-_.\", as \
                     \"flannel.alpha.coreos.com\" or \"example.org/net\""
                )
            );
        }
    }

    #[test]
    fn every_name() {
        let keys = AnnotationKeys::default();
        let names = [
            keys.manager(),
            keys.backend_type(),
            keys.backend_data(Family::V4),
            keys.backend_data(Family::V6),
            keys.public_ip(Family::V4),
            keys.public_ip(Family::V6),
            keys.public_ip_overwrite(Family::V4),
            keys.public_ip_overwrite(Family::V6),
            keys.node_public_ip(Family::V4),
            keys.node_public_ip(Family::V6),
        ];
        let expected = [
            "kube-subnet-manager",
            "backend-type",
            "backend-data",
            "backend-v6-data",
            "public-ip",
            "public-ipv6",
            "public-ip-overwrite",
            "public-ipv6-overwrite",
            "node-public-ip",
            "node-public-ipv6",
        ];
        for (name, end) in names.iter().zip(expected) {
            assert_eq!(*name, format!("flannel.alpha.coreos.com/{end}"));
            assert!(keys.concerns(name));
        }
        assert!(keys.concerns("twill.dev/backends"));
        assert!(!keys.concerns("node.alpha.kubernetes.io/ttl"));
    }
}
