//! What this host has for backends, and what of it this kernel can do.
//!
//! The contract has words for more than any host does, and kernels differ in the modules that they have. So a backend says
//! what it cannot do without (`descriptor.requires`), and is told what there is (`node.features`). Looking makes nothing and
//! changes nothing: no link, no route. A module is loaded only if a backend cannot do without it, which making the link would
//! do anyway.

use std::fs;

/// Something that a backend may ask for.
#[derive(Debug)]
struct Feature {
    /// As the contract calls it.
    name: &'static str,
    needs: Needs,
}

/// What the kernel must have for a feature.
#[derive(Debug)]
enum Needs {
    /// What every kernel has.
    Nothing,
    /// A kind of link. The kernel's name for it is its module's name too.
    Link { kind: &'static str, option: &'static str },
    /// Routes into tunnels.
    TunnelEncap,
}

const fn link(name: &'static str, kind: &'static str, option: &'static str) -> Feature {
    Feature { name, needs: Needs::Link { kind, option } }
}

const fn always(name: &'static str) -> Feature {
    Feature { name, needs: Needs::Nothing }
}

/// Its links have peers, or it is not there.
const WIREGUARD: Feature = link("link.wireguard", "wireguard", "CONFIG_WIREGUARD");

/// Everything that this host implements.
const KNOWN: &[Feature] = &[
    link("link.vxlan", "vxlan", "CONFIG_VXLAN"),
    link("link.ipip", "ipip", "CONFIG_NET_IPIP"),
    link("link.geneve", "geneve", "CONFIG_GENEVE"),
    WIREGUARD,
    always("route"),
    always("neighbor"),
    always("forwarding"),
    Feature { name: "wireguard-peer", ..WIREGUARD },
    Feature { name: "encap.tunnel", needs: Needs::TunnelEncap },
];

/// The names of everything that this host implements, whatever the kernel: for tools that plan without one.
#[must_use]
pub fn known() -> Vec<&'static str> {
    KNOWN.iter().map(|feature| feature.name).collect()
}

/// A feature that a backend cannot do without, and that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The host has no such thing.
    #[error(
        "it needs {feature}, which this host does not have (twill {version} has {known}); use a newer Twill or another backend",
        version = env!("CARGO_PKG_VERSION"), known = known().join(", ")
    )]
    Host {
        /// What is missing.
        feature: String,
    },
    /// The host has it, and the kernel does not.
    #[error(
        "it needs {feature}, which this kernel ({kernel}) does not have: {help}, or use another backend (twill {version})",
        version = env!("CARGO_PKG_VERSION")
    )]
    Kernel {
        /// What is missing.
        feature: &'static str,
        /// The kernel's release.
        kernel: String,
        /// What a person can do about it.
        help: String,
    },
}

/// What there is for a backend, in the words of `node.features`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features(Vec<String>);

impl Features {
    /// Everything that this host implements, whatever the kernel.
    #[must_use]
    pub fn known() -> Self {
        Self(known().into_iter().map(str::to_owned).collect())
    }

    /// What this host and this kernel can do for a backend that `requires` some of it. Where the kernel may not be asked,
    /// everything that the host implements counts as there: the kernel's own words then come when a link is made.
    ///
    /// Blocks for some system calls, or as long as a module takes to load.
    ///
    /// # Errors
    /// When something that is required is not there.
    pub fn probe(requires: &[String]) -> Result<Self, Missing> {
        Self::known().check(requires)?;
        let is_required = |feature: &Feature| requires.iter().any(|name| name == feature.name);
        let found = KNOWN.iter().filter(|feature| feature.needs.are_met(is_required(feature)));
        let found = Self(found.map(|feature| feature.name.to_owned()).collect());
        found.check(requires)?;
        Ok(found)
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether everything that is required is there.
    ///
    /// # Errors
    /// When it is not; the first that is missing.
    pub fn check(&self, requires: &[String]) -> Result<(), Missing> {
        let Some(missing) = requires.iter().find(|name| !self.0.contains(name)) else { return Ok(()) };
        let Some(feature) = KNOWN.iter().find(|feature| feature.name == missing) else {
            return Err(Missing::Host { feature: missing.clone() });
        };
        Err(Missing::Kernel { feature: feature.name, kernel: kernel(), help: feature.needs.help() })
    }
}

impl Needs {
    fn are_met(&self, is_required: bool) -> bool {
        let answer = match self {
            Self::Nothing => Ok(true),
            Self::Link { kind, .. } => has_link(kind, is_required),
            Self::TunnelEncap => twill_netlink::knows_tunnel_encap(),
        };
        answer.unwrap_or_else(|error| {
            tracing::debug!(needs = ?self, %error, "not known whether the kernel has it: taken for granted");
            true
        })
    }

    fn help(&self) -> String {
        match self {
            Self::Nothing => "use another kernel".to_owned(),
            Self::Link { kind, option } => {
                format!("`modprobe {kind}` loads it where it is a module; else use a kernel with {option}")
            }
            Self::TunnelEncap => "use a kernel with CONFIG_LWTUNNEL".to_owned(),
        }
    }
}

fn has_link(kind: &str, is_required: bool) -> Result<bool, twill_netlink::Error> {
    if twill_netlink::knows_link_kind(kind)? {
        return Ok(true);
    }
    if is_required {
        twill_netlink::load_link_kind(kind)?;
        return twill_netlink::knows_link_kind(kind);
    }
    Ok(is_module(kind))
}

/// Whether the kernel can load a module for this kind of link when somebody makes one. Where the folder of modules is not to
/// be seen, as in most containers, nobody knows.
fn is_module(kind: &str) -> bool {
    let aliases = fs::read_to_string(format!("/lib/modules/{}/modules.alias", kernel())).unwrap_or_default();
    let wanted = format!("alias rtnl-link-{kind} ");
    aliases.lines().any(|line| line.starts_with(&wanted))
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_no_host_has_is_named_with_what_there_is() {
        let error = Features::probe(&required(&["route", "encap.seg6"])).unwrap_err();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            error.to_string(),
            format!(
                "it needs encap.seg6, which this host does not have (twill {version} has link.vxlan, link.ipip, link.geneve, \
                 link.wireguard, route, neighbor, forwarding, wireguard-peer, encap.tunnel); use a newer Twill or another \
                 backend"
            )
        );
    }

    #[test]
    fn what_the_kernel_lacks_is_named_with_the_way_to_it() {
        let few = Features(required(&["route"]));
        let said = |needed: &str| few.check(&required(&["route", needed])).unwrap_err().to_string();
        let (kernel, version) = (kernel(), env!("CARGO_PKG_VERSION"));
        assert_eq!(
            said("link.ipip"),
            format!(
                "it needs link.ipip, which this kernel ({kernel}) does not have: `modprobe ipip` loads it where it is a \
                 module; else use a kernel with CONFIG_NET_IPIP, or use another backend (twill {version})"
            )
        );
        assert!(said("encap.tunnel").contains("use a kernel with CONFIG_LWTUNNEL"));
    }

    #[test]
    fn looking_finds_what_every_kernel_has() {
        let found = Features::probe(&required(&["route", "neighbor"])).unwrap();
        assert!(found.names().iter().all(|name| Features::known().names().contains(name)));
        assert!(found.names().contains(&"forwarding".to_owned()));
    }
}
