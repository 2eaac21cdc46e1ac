//! Whose an address is, and how an address file says it.

use std::fmt;

/// One interface of one container.
///
/// Files that host-local wrote before its version 0.8 name the container only; their owner has an empty interface name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    container: String,
    ifname: String,
}

impl Owner {
    /// The owner with these names, which are as the CNI protocol allows them: not empty and without white space.
    pub fn new(container: &str, ifname: &str) -> Owner {
        Owner { container: container.to_owned(), ifname: ifname.to_owned() }
    }

    /// The container's id.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The name of the interface inside the container; empty where a file does not say it.
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// What host-local writes into an address file.
    pub(crate) fn content(&self) -> String {
        format!("{}\r\n{}", self.container, self.ifname)
    }

    /// The owner that an address file names, white space around it aside. `None` if it names none.
    pub(crate) fn parse(content: &[u8]) -> Option<Owner> {
        let content = str::from_utf8(content).ok()?.trim();
        let (container, ifname) = match content.split_once("\r\n") {
            Some((container, ifname)) if !ifname.is_empty() => (container, ifname),
            Some(_) => return None,
            None => (content, ""),
        };
        let is_word = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control());
        (!container.is_empty() && is_word(container) && is_word(ifname)).then(|| Owner::new(container, ifname))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ifname.as_str() {
            "" => write!(f, "container {}", self.container),
            ifname => write!(f, "{ifname} of container {}", self.container),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_content_is_host_locals_to_the_byte() {
        assert_eq!(Owner::new("c1", "eth0").content().as_bytes(), b"\x63\x31\x0d\x0a\x65\x74\x68\x30");
    }

    #[test]
    fn files_of_old_versions_name_the_container_only() {
        assert_eq!(Owner::parse(b"c1"), Some(Owner::new("c1", "")));
        assert_eq!(Owner::parse(b" c1\r\n"), Some(Owner::new("c1", "")));
        assert_eq!(Owner::parse(b"\nc1\r\neth0\n"), Some(Owner::new("c1", "eth0")));
    }

    #[test]
    fn what_names_nobody_has_no_owner() {
        for content in
            [&b""[..], b" \r\n", b"c1\neth0", b"c1 eth0", b"c1\r\neth0\r\nx", b"c\0", b"\xff\xfe", b"c1\r\ne 0"]
        {
            assert_eq!(Owner::parse(content), None, "{content:?}");
        }
    }

    #[test]
    fn an_owner_is_shown_as_a_person_says_it() {
        assert_eq!(Owner::new("c1", "eth0").to_string(), "eth0 of container c1");
        assert_eq!(Owner::new("c1", "").to_string(), "container c1");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(container in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,70}", ifname in "[^\\s\\p{C}]{1,15}") {
            let owner = Owner::new(&container, &ifname);
            prop_assert_eq!(Owner::parse(owner.content().as_bytes()), Some(owner));
        }

        #[test]
        fn any_bytes_are_an_owner_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Owner::parse(&bytes);
        }
    }
}
