//! One interface of one container: what a runtime attaches and detaches, and what our state is keyed by.

use std::fmt;

use crate::Error;

/// The longest interface name that Linux has.
const INTERFACE_NAME_LIMIT: usize = 15;

/// A container and the name of one of its interfaces. Both keep to the protocol's rules for names, so neither holds a
/// `/` or a `:`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    container: String,
    ifname: String,
}

impl Attachment {
    /// Checks both names.
    pub fn new(container: &str, ifname: &str) -> Result<Attachment, Error> {
        if !is_identifier(container) {
            return Err(Error::BadEnv {
                name: "CNI_CONTAINERID",
                value: container.to_owned(),
                rule: "it must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'",
            });
        }
        if let Some(rule) = interface_name_fault(ifname) {
            return Err(Error::BadEnv { name: "CNI_IFNAME", value: ifname.to_owned(), rule });
        }
        Ok(Attachment { container: container.to_owned(), ifname: ifname.to_owned() })
    }

    /// The container's id.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The name of the interface inside the container.
    pub fn ifname(&self) -> &str {
        &self.ifname
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of container {}", self.ifname, self.container)
    }
}

/// The protocol's rule for container ids and network names.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The rule of Linux that a name breaks, if it cannot be an interface's.
pub(crate) fn interface_name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it must not be empty")
    } else if name.len() > INTERFACE_NAME_LIMIT {
        Some("it must not be longer than 15 bytes")
    } else if name == "." || name == ".." {
        Some("it must not be '.' or '..'")
    } else if name.contains(['/', ':', '\0']) || name.contains(char::is_whitespace) {
        Some("it must not hold '/', ':' or white space")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_the_protocol() {
        for container in ["c", "0", "A-b_c.d", &"f".repeat(64)] {
            Attachment::new(container, "eth0").unwrap();
        }
        for container in ["", "-a", ".a", "_a", "a/b", "a:b", "a b", "ä", "a\n"] {
            assert_eq!(Attachment::new(container, "eth0").unwrap_err().code(), 4, "{container:?}");
        }
        for ifname in ["e", "eth0", "net1.5", "-", "...", "123456789012345", "a@b"] {
            Attachment::new("c", ifname).unwrap();
        }
        for ifname in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\u{a0}b", "1234567890123456"] {
            assert_eq!(Attachment::new("c", ifname).unwrap_err().code(), 4, "{ifname:?}");
        }
    }
}
