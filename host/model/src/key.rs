//! Keys of WireGuard: 32 bytes each, written in base64 as wg(8) does.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of every key.
const LENGTH: usize = 32;

/// What everybody may know of a key pair, and what tells one WireGuard peer from another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; LENGTH]);

impl PublicKey {
    /// A key of nobody's that a kernel takes for a peer's: the point whose multiples public keys are.
    pub const NOBODY: Self = {
        let mut bytes = [0; LENGTH];
        bytes[0] = 9;
        Self(bytes)
    };

    /// Whether somebody can have it: neither the key of all zeros nor [`Self::NOBODY`].
    #[must_use]
    pub fn is_usable(self) -> bool {
        self.0 != [0; LENGTH] && self != Self::NOBODY
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decode(text).map(Self)
    }
}

/// A private or pre-shared key. Nothing prints it: who wants its text has to ask for [`SecretKey::reveal`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretKey([u8; LENGTH]);

impl SecretKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }

    /// The key itself, for the kernel and for computing with it.
    #[must_use]
    pub fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The key as text, for a file that only its owner can read.
    #[must_use]
    pub fn reveal(&self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromStr for SecretKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decode(text).map(Self)
    }
}

/// Text that is no key. Does not repeat the text, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard key: 32 bytes in base64 are, 44 characters of which the last is \"=\"")]
pub struct ParseKeyError;

fn decode(text: &str) -> Result<[u8; LENGTH], ParseKeyError> {
    // One more than a key has, so that a longer text is not cut.
    let mut bytes = [0; LENGTH + 1];
    match STANDARD.decode_slice(text, &mut bytes) {
        Ok(LENGTH) => bytes[..LENGTH].try_into().map_err(|_| ParseKeyError),
        _ => Err(ParseKeyError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn text_round_trips() {
        let public: PublicKey = TEXT.parse().unwrap();
        assert_eq!(public.0[31], 31);
        assert_eq!(public.to_string(), TEXT);
        assert_eq!(TEXT.parse::<SecretKey>().unwrap().reveal(), TEXT);
    }

    #[test]
    fn what_is_no_key() {
        let short = STANDARD.encode([1; 31]);
        let long = STANDARD.encode([1; 33]);
        let longer = STANDARD.encode([1; 4096]);
        let spaced = format!(" {TEXT}\n");
        for text in ["", "=", &TEXT[..43], &short, &long, &longer, &spaced, "ü", &TEXT.replace("8=", "9=")] {
            assert_eq!(text.parse::<PublicKey>(), Err(ParseKeyError), "{text:?}");
            assert_eq!(text.parse::<SecretKey>(), Err(ParseKeyError), "{text:?}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret: SecretKey = TEXT.parse().unwrap();
        assert_eq!(format!("{secret:?}"), "(secret)");
        assert!(!ParseKeyError.to_string().contains(TEXT));
    }
}
