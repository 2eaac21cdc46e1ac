//! Versions of the CNI protocol: which exist, and which verbs each of them has.

use std::fmt;

use crate::{Error, Verb};

/// Every version of the protocol, oldest first; we speak all of them.
pub const SUPPORTED: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// One of the versions in [`SUPPORTED`]. Ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(usize);

impl Version {
    /// What a configuration without a version means.
    pub const OLDEST: Version = Version(0);
    /// The version of answers to calls whose own version is not known.
    pub const NEWEST: Version = Version(SUPPORTED.len() - 1);

    /// Reads a version; only the literal texts of [`SUPPORTED`] are versions, and an empty one is the oldest.
    pub fn parse(text: &str) -> Result<Version, Error> {
        if text.is_empty() {
            return Ok(Version::OLDEST);
        }
        let known = SUPPORTED.iter().position(|supported| *supported == text);
        known.map(Version).ok_or_else(|| Error::UnsupportedVersion { found: text.to_owned() })
    }

    /// The text of the version.
    pub fn as_str(self) -> &'static str {
        SUPPORTED[self.0]
    }

    /// Whether results of this version have `interfaces` and lists of addresses and routes.
    pub fn has_interfaces(self) -> bool {
        SUPPORTED[self.0] >= "0.3.0"
    }

    /// Whether results of this version say of each address which family it is.
    pub fn names_families(self) -> bool {
        self.has_interfaces() && SUPPORTED[self.0] < "1.0.0"
    }

    /// Says whether a configuration of this version may be used with `verb`.
    pub fn allows(self, verb: Verb) -> Result<(), Error> {
        let needed = match verb {
            Verb::Check => "0.4.0",
            Verb::Gc | Verb::Status => "1.1.0",
            Verb::Add | Verb::Del | Verb::Version => return Ok(()),
        };
        if self < Version::parse(needed)? {
            return Err(Error::VerbNeedsVersion { verb, needed, found: self.as_str() });
        }
        Ok(())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to VERSION.
pub fn listing() -> Vec<u8> {
    let answer = serde_json::json!({ "cniVersion": Version::NEWEST.as_str(), "supportedVersions": SUPPORTED });
    answer.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literal_versions_are_known() {
        for text in SUPPORTED {
            assert_eq!(Version::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(Version::parse("").unwrap(), Version::OLDEST);
        for text in ["0.3", "1.2.0", "v1.0.0", "01.0.0", " 1.0.0", "latest"] {
            assert_eq!(Version::parse(text).unwrap_err().code(), 1, "{text}");
        }
    }

    #[test]
    fn verbs_need_the_version_that_brought_them() {
        let first = |verb| SUPPORTED.iter().find(|v| Version::parse(v).unwrap().allows(verb).is_ok()).copied();
        assert_eq!(first(Verb::Add), Some("0.1.0"));
        assert_eq!(first(Verb::Del), Some("0.1.0"));
        assert_eq!(first(Verb::Check), Some("0.4.0"));
        assert_eq!(first(Verb::Gc), Some("1.1.0"));
        assert_eq!(first(Verb::Status), Some("1.1.0"));
        assert_eq!(Version::OLDEST.allows(Verb::Check).unwrap_err().code(), 1);
    }

    #[test]
    fn the_listing_is_flannels() {
        let expected =
            br#"{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#;
        assert_eq!(listing(), expected);
    }
}
