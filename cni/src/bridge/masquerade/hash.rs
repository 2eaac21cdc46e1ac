//! Names for rules that say whose they are and have the same length for everybody.

use sha2::{Digest, Sha512};

/// The first `digits` of the SHA-512 of a text, in hex.
pub(super) fn hash(digits: usize, text: &str) -> String {
    let bytes = Sha512::digest(text.as_bytes());
    let mut hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(digits);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_beginning_of_the_sum() {
        assert_eq!(hash(24, "net1c1"), "c2d892b58e87e28a12fe6479");
        assert_eq!(hash(16, ""), "cf83e1357eefb8bd");
    }
}
