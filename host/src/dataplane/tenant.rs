//! Whose links are.

use twill_model::LinkKind;
use twill_netlink::LinkInfo;

use super::ALIAS;
use crate::intent::policy::Holder;

/// Whether a link carries our mark.
#[must_use]
pub fn is_own(link: &LinkInfo) -> bool {
    link.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS))
}

/// Whose a link is, as far as that can be told before knowing what a plan wants of its name.
#[derive(Debug, Clone)]
pub struct Tenant {
    own: bool,
    unmarked: bool,
    kind: Option<String>,
}

impl Tenant {
    /// Whose this link is.
    #[must_use]
    pub fn of(link: &LinkInfo) -> Self {
        let kind = link.kind.name().map(str::to_owned);
        Self { own: is_own(link), unmarked: link.alias.is_none(), kind }
    }

    /// Whether a plan may have a link of that name and kind: one of ours, or one that flannel left.
    #[must_use]
    pub fn holder(&self, kind: &LinkKind) -> Holder {
        let flannels = matches!(kind, LinkKind::Vxlan(_) | LinkKind::Ipip(_) | LinkKind::Wireguard { .. });
        let left = self.unmarked && flannels && self.kind.as_deref() == kind.name();
        if self.own || left { Holder::Free } else { Holder::Foreign }
    }
}
