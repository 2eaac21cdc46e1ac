//! Taking netlink datagrams apart, without copying them.
//!
//! Entries are read by the ten thousand, and most messages of a multicast group concern nobody, so this looks at headers in
//! place. Everything here tolerates lengths that lie: what does not fit is left out.

use std::net::IpAddr;

/// The answer to a request: an error number, or 0.
pub const NLMSG_ERROR: u16 = 2;
/// The end of a list.
pub const NLMSG_DONE: u16 = 3;
const NLMSG_MIN_TYPE: u16 = 16;

/// A link is there.
pub const RTM_NEWLINK: u16 = 16;
/// A link is gone.
pub const RTM_DELLINK: u16 = 17;
/// An address is there.
pub const RTM_NEWADDR: u16 = 20;
/// An address is gone.
pub const RTM_DELADDR: u16 = 21;
/// A route is there.
pub const RTM_NEWROUTE: u16 = 24;
/// A route is gone.
pub const RTM_DELROUTE: u16 = 25;
/// A neighbour or FDB entry is there.
pub const RTM_NEWNEIGH: u16 = 28;
/// A neighbour or FDB entry is gone.
pub const RTM_DELNEIGH: u16 = 29;

/// Any family.
pub const AF_UNSPEC: u8 = 0;
/// IPv4.
pub const AF_INET: u8 = 2;
/// Bridges, their ports, VLANs and FDB.
pub const AF_BRIDGE: u8 = 7;
/// IPv6.
pub const AF_INET6: u8 = 10;

const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

const HEADER: usize = 16;

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct RawMessage<'a> {
    /// Its type.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The number of the request that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl RawMessage<'_> {
    /// The error number that an ERROR or DONE message carries, positive; 0 is success. None for any other message.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self.kind {
            NLMSG_ERROR | NLMSG_DONE => Some(u32_at(self.payload, 0).map_or(0, |n| n.cast_signed().wrapping_neg())),
            _ => None,
        }
    }

    /// The kernel's explanation in an ERROR or DONE message.
    #[must_use]
    pub fn explanation(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        // After the number an ERROR repeats the request, or only its header.
        let skip = match self.kind {
            NLMSG_DONE => 4,
            _ if self.flags & NLM_F_CAPPED != 0 => 4 + HEADER,
            _ => 4 + align(u32_at(self.payload, 4)? as usize),
        };
        let text = attributes(self.payload.get(skip..)?).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?.1;
        let text = String::from_utf8_lossy(text);
        Some(text.trim_end_matches('\0').to_owned())
    }

    /// Whether it holds an object, rather than being about the conversation.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.kind >= NLMSG_MIN_TYPE
    }
}

/// The messages of a datagram.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = RawMessage<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        let message = rest.get(..length)?;
        let parsed = RawMessage {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
            payload: message.get(HEADER..)?,
        };
        rest = rest.get(align(length)..).unwrap_or(&[]);
        Some(parsed)
    })
}

/// The attributes of a message, from where they begin: type without flags, and value.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE_MASK: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(align(length)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The next multiple of four.
#[must_use]
pub fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The number at a place, in the machine's order; none if it does not fit.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The number at a place, in the machine's order; none if it does not fit.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// An address of four or sixteen bytes.
#[must_use]
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_end_the_walk() {
        assert_eq!(messages(&[]).count(), 0);
        assert_eq!(messages(&[0; 40]).count(), 0);
        assert_eq!(messages(&[255; 40]).count(), 0);
        assert_eq!(attributes(&[0; 40]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[255; 40]).count(), 0);
    }

    #[test]
    fn attributes_are_aligned_and_masked() {
        let bytes = [5, 0, 1, 0x80, 9, 0, 0, 0, 4, 0, 2, 0];
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &[9][..]), (2, &[][..])]);
    }
}
