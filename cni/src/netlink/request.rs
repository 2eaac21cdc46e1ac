//! One question or order, as bytes.

use twill_wire::Attributes;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;

/// What is asked, and in words for whoever is told that it failed.
#[derive(Debug, Clone)]
pub struct Request {
    /// Completes "could not …".
    pub(super) doing: String,
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// An order; the kernel says that it is done or why not. `header` is the fixed part that follows netlink's own.
    pub(super) fn order(doing: String, kind: u16, flags: u16, header: &[u8], attributes: &Attributes) -> Request {
        let body = [header, attributes.as_bytes()].concat();
        Request { doing, kind, flags: NLM_F_REQUEST | NLM_F_ACK | flags, body }
    }

    /// A question about one object.
    pub(super) fn question(doing: String, kind: u16, header: &[u8], attributes: &Attributes) -> Request {
        let body = [header, attributes.as_bytes()].concat();
        Request { doing, kind, flags: NLM_F_REQUEST, body }
    }

    /// A question about all objects that the header and the attributes describe.
    pub(super) fn list(doing: String, kind: u16, header: &[u8], attributes: &Attributes) -> Request {
        let request = Request::question(doing, kind, header, attributes);
        Request { flags: NLM_F_REQUEST | NLM_F_DUMP, ..request }
    }

    pub(super) fn write(&self, sequence: u32, bytes: &mut Vec<u8>) {
        const HEADER: usize = 16;
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(&self.body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
}
