//! What a lab shall look like.

use std::env;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use crate::error::{LabError, Result};
use crate::kube::KubePrograms;

/// The address families that pods have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both.
    Dual,
}

/// A lab before it is built.
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// How many nodes, `n1`, `n2`, ….
    pub nodes: usize,
    /// Pods that [`crate::Lab::up`] makes on each node: `a`, `b`, ….
    pub pods_per_node: usize,
    /// The families of the pod network. The nodes themselves have addresses of both.
    pub families: Families,
    /// Network segments of the underlay, 1 or 2. With 2 the first half of the nodes is in one, the rest in the other, and a
    /// router joins them.
    pub segments: usize,
    /// MTU of the underlay.
    pub mtu: u32,
    /// The `Backend` object of net-conf.json.
    pub backend: Value,
    /// The whole net-conf.json instead of the one made from the fields above.
    pub net_conf: Option<String>,
    /// The cluster's pod network for each family. A node's part of it is a /24 or a /64.
    pub pod_networks: (Ipv4Net, Ipv6Net),
    /// A folder of component files outside the lab, instead of one of its own.
    pub backends_dir: Option<PathBuf>,
    /// Run an API server, from which the daemons have their nodes, instead of the folder of manifests.
    pub api: Option<KubePrograms>,
    /// Run a registry with this program, which the daemons know by its certificate.
    pub registry: Option<PathBuf>,
    /// More flags for the API server.
    pub api_flags: Vec<String>,
    /// More flags for `twill run`.
    pub daemon_args: Vec<String>,
    /// The daemon.
    pub twill: PathBuf,
    /// The CNI plugin.
    pub cni: PathBuf,
    /// Where the plugins are that it calls (`bridge`, `host-local`).
    pub cni_delegates: PathBuf,
}

impl Families {
    /// IPv4 pods?
    pub fn ipv4(self) -> bool {
        self != Families::Ipv6
    }

    /// IPv6 pods?
    pub fn ipv6(self) -> bool {
        self != Families::Ipv4
    }
}

impl LabSpec {
    /// Three dual-stack nodes with two pods each on one segment, with `vxlan`, and the programs that `TWILL_BIN` and
    /// `TWILL_CNI` name. Without these, the programs lie beside the running one, or one folder above it (tests).
    pub fn from_env() -> Result<LabSpec> {
        Ok(LabSpec::with_programs(program("TWILL_BIN", "twill")?, program("TWILL_CNI", "twill-cni")?))
    }

    /// The same with the programs given.
    pub fn with_programs(twill: PathBuf, cni: PathBuf) -> LabSpec {
        LabSpec {
            nodes: 3,
            pods_per_node: 2,
            families: Families::Dual,
            segments: 1,
            mtu: 1500,
            backend: json!({"Type": "vxlan"}),
            net_conf: None,
            pod_networks: (
                Ipv4Net::new_assert([10, 244, 0, 0].into(), 16),
                Ipv6Net::new_assert([0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0].into(), 48),
            ),
            backends_dir: None,
            api: None,
            registry: None,
            api_flags: Vec::new(),
            // As kube-flannel's manifest does.
            daemon_args: vec!["--ip-masq".into()],
            twill,
            cni,
            cni_delegates: env::var_os("CNI_PATH").map_or_else(|| "/usr/lib/cni".into(), PathBuf::from),
        }
    }

    /// The content of net-conf.json with this `Backend` object.
    pub fn net_conf_with(&self, backend: &Value) -> String {
        let mut conf = json!({ "EnableIPv4": self.families.ipv4(), "EnableIPv6": self.families.ipv6() });
        for network in self.networks() {
            let key = if network.addr().is_ipv4() { "Network" } else { "IPv6Network" };
            conf[key] = json!(network.to_string());
        }
        conf["Backend"] = backend.clone();
        format!("{conf:#}\n")
    }

    /// The pod networks in use, IPv4 first.
    pub fn networks(&self) -> Vec<IpNet> {
        let (v4, v6) = self.pod_networks;
        let v4 = self.families.ipv4().then_some(IpNet::V4(v4));
        let v6 = self.families.ipv6().then_some(IpNet::V6(v6));
        v4.into_iter().chain(v6).collect()
    }

    /// The podCIDRs of node number `number` (`n1` is 1): the /24 and the /64 of that number.
    pub fn pod_cidrs(&self, number: u32) -> Vec<IpNet> {
        self.networks().iter().map(|network| nth_subnet(network, number)).collect()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |what: String| Err(LabError::Spec(what));
        if !(1..=200).contains(&self.nodes) {
            return wrong(format!("{} nodes: a lab has 1 to 200", self.nodes));
        }
        if !(1..=2).contains(&self.segments) {
            return wrong(format!("{} segments: a lab has 1 or 2", self.segments));
        }
        if self.pods_per_node > 26 {
            return wrong(format!("{} pods per node: a lab has 26 at the most", self.pods_per_node));
        }
        Ok(())
    }
}

fn nth_subnet(network: &IpNet, number: u32) -> IpNet {
    match network {
        IpNet::V4(net) => {
            let base = u32::from(net.network()) + (number << 8);
            IpNet::V4(Ipv4Net::new_assert(base.into(), 24))
        }
        IpNet::V6(net) => {
            let base = u128::from(net.network()) + (u128::from(number) << 64);
            IpNet::V6(Ipv6Net::new_assert(base.into(), 64))
        }
    }
}

/// A program under test: as the variable names it, beside the running program, or one folder above it (tests).
pub(crate) fn program(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return LabError::require(Path::new(&path), &format!("{variable} names it"));
    }
    let here = env::current_exe().map_err(LabError::system("find the running program"))?;
    here.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        LabError::Missing {
            program: name.into(),
            advice: format!(
                "Build it with `cargo build --release`, or name it in {variable}; `cargo xtask demo` and `cargo xtask \
                 test` do that"
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_follow_the_number() {
        let spec = LabSpec::with_programs("twill".into(), "twill-cni".into());
        let cidrs: Vec<String> = spec.pod_cidrs(3).iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["10.244.3.0/24", "fd00:10:244:3::/64"]);
    }

    #[test]
    fn net_conf_names_only_the_families_in_use() {
        let mut spec = LabSpec::with_programs("twill".into(), "twill-cni".into());
        spec.families = Families::Ipv4;
        let conf: Value = serde_json::from_str(&spec.net_conf_with(&json!({"Type": "host-gw"}))).unwrap();
        assert_eq!(conf["Network"], "10.244.0.0/16");
        assert_eq!(conf["IPv6Network"], Value::Null);
        assert_eq!(conf["Backend"]["Type"], "host-gw");
    }
}
