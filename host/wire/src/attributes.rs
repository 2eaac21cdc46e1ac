//! Writing attributes.

/// An attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// Attributes, one behind the other, each aligned to four bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds a value as it is.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a text, with the zero behind it that the kernel expects.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds a number in the machine's order, as rtnetlink has them.
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network order, as netfilter has them.
    #[must_use]
    pub fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds attributes inside of one.
    #[must_use]
    pub fn nest(self, kind: u16, inner: Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// Adds others behind these.
    #[must_use]
    pub fn and(mut self, others: &Attributes) -> Self {
        self.0.extend(&others.0);
        self
    }

    /// What goes into the message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes;

    #[test]
    fn what_is_written_can_be_read() {
        let inner = Attributes::default().u32(1, 7).be32(2, 7);
        let written = Attributes::default().text(3, "eth0").nest(4, inner).bytes(5, &[]);
        let read: Vec<(u16, &[u8])> = attributes(written.as_bytes()).collect();
        assert_eq!((read[0], read[2]), ((3, &b"eth0\0"[..]), (5, &[][..])));
        let inner: Vec<(u16, &[u8])> = attributes(read[1].1).collect();
        assert_eq!(inner, [(1, &7_u32.to_ne_bytes()[..]), (2, &[0, 0, 0, 7])]);
    }
}
