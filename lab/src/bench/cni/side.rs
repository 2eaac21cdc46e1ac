//! Who is measured: a program with a host of its own, which attaches and detaches.

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use twill_lab::cni::{Container, Host, Implementation, Network, Stage};
use twill_lab::{LabError, NetNs, Result};

use super::call::{self, Usage};
use crate::bench::sample::Sample;
use crate::bench::system;

/// A program that attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Who {
    /// `bridge` and `host-local`.
    Reference,
    /// Flannel's way: a plugin that executes them.
    Chain,
    /// Our plugin.
    Ours,
    /// The least that can be done.
    Bare,
}

/// Who, on a host of its own.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) who: Who,
    pub(super) host: Host,
    bare: PathBuf,
    bridge: String,
    /// Time that it had, so that a slow one does not take that of the others.
    pub(super) spent: Duration,
}

/// A container that is attached.
#[derive(Debug)]
pub(super) struct Attached {
    container: Container,
    result: Value,
}

impl Who {
    pub(super) const ALL: [Who; 4] = [Who::Reference, Who::Chain, Who::Ours, Who::Bare];

    /// What its column is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Who::Reference => "bridge, host-local",
            Who::Chain => "executed by ours",
            Who::Ours => "ours",
            Who::Bare => "bare",
        }
    }

    fn implementation(self) -> Implementation {
        match self {
            Who::Reference | Who::Bare => Implementation::Reference,
            Who::Chain => Implementation::Executing,
            Who::Ours => Implementation::Ours,
        }
    }
}

impl Side {
    pub(super) fn new(stage: &Stage, who: Who, network: &Network, bare: &Path) -> Result<Side> {
        let host = stage.host(&format!("{who:?}").to_lowercase(), network.clone())?;
        Ok(Side { who, host, bare: bare.into(), bridge: String::new(), spent: Duration::ZERO })
    }

    /// A container that stays, so that the bridge is there and in use.
    pub(super) fn settle_in(&mut self) -> Result<()> {
        let resident = self.host.container("resident")?;
        let call = self.host.call(self.who.implementation(), "ADD", &resident);
        call.run()?.result()?;
        let link = self.host.ns.ip_json(&["link", "show", "dev", "cni0"])?;
        self.bridge = link[0]["ifindex"].to_string();
        Ok(())
    }

    /// Reserves addresses as host-local does.
    pub(super) fn give(&self, addresses: u32) -> Result<()> {
        let Some(IpAddr::V4(gateway)) = self.host.network.subnets.first().map(|net| net.addr()) else {
            return Ok(());
        };
        let pool = self.host.pool_dir();
        fs::create_dir_all(&pool).map_err(system(format!("create {}", pool.display())))?;
        for number in 1..=addresses {
            let address = Ipv4Addr::from_bits(gateway.to_bits() + number).to_string();
            let file = pool.join(&address);
            fs::write(&file, format!("given-{number}\r\neth0")).map_err(system(format!("write {}", file.display())))?;
            if number == addresses {
                let last = pool.join("last_reserved_ip.0");
                fs::write(&last, address).map_err(system(format!("write {}", last.display())))?;
            }
        }
        Ok(())
    }

    /// Attaches a namespace under a container id.
    pub(super) fn attach(&self, id: &str, ns: &NetNs, number: u32) -> Result<(Attached, Usage)> {
        let container = Container { id: id.into(), ns: ns.clone() };
        let (mut command, input) = match self.who {
            Who::Bare => (self.bare_attach(&container, number), String::new()),
            _ => self.host.call(self.who.implementation(), "ADD", &container).command(),
        };
        let (usage, said) = call::run(&self.host.ns, &mut command, &input)?;
        let result = match self.who {
            Who::Bare => Value::Null,
            _ => serde_json::from_str(&said).map_err(|error| LabError::Spec(format!("no result: {error}: {said}")))?,
        };
        Ok((Attached { container, result }, usage))
    }

    /// Detaches it, as a runtime does.
    pub(super) fn detach(&self, attached: &Attached) -> Result<Usage> {
        let Attached { container, result } = attached;
        let (mut command, input) = match self.who {
            Who::Bare => {
                let mut command = Command::new(&self.bare);
                command.args(["detach", &container.ns.path()]).arg(self.bare_file(container));
                (command, String::new())
            }
            _ => self.host.call(self.who.implementation(), "DEL", container).previous(result).command(),
        };
        call::run(&self.host.ns, &mut command, &input).map(|(usage, _)| usage)
    }

    /// The most memory that an ADD and a DEL have, in MiB.
    pub(super) fn peak(&self, container: &Container) -> Result<Sample> {
        let file = self.host.path("peak");
        let mut most = Sample::default();
        for verb in ["ADD", "DEL"] {
            let words = [self.bare.as_os_str(), OsStr::new("peak"), file.as_os_str()];
            self.host.call(self.who.implementation(), verb, container).through(words).run()?;
            let kib = fs::read_to_string(&file).map_err(system(format!("read {}", file.display())))?;
            most.push(kib.parse::<f64>().unwrap_or(f64::NAN) / 1024.0);
        }
        Ok(most)
    }

    /// Takes the bridge away.
    pub(super) fn unbridge(&self) -> Result<()> {
        self.host.ns.run(&["ip", "link", "del", "cni0"]).map(drop)
    }

    fn bare_file(&self, container: &Container) -> PathBuf {
        self.host.pool_dir().join(format!("bare-{}", container.id))
    }

    fn bare_attach(&self, container: &Container, number: u32) -> Command {
        let network = &self.host.network;
        let mut command = Command::new(&self.bare);
        command.args(["attach", &container.ns.path(), &self.bridge, &format!("veth{number:08x}")]);
        command.arg(network.mtu.to_string()).arg(self.bare_file(container));
        for (subnet, wide) in network.subnets.iter().zip(&network.networks) {
            let address = match subnet.addr() {
                IpAddr::V4(gateway) => Ipv4Addr::from_bits(gateway.to_bits() + 2 + number % 200).to_string(),
                IpAddr::V6(gateway) => Ipv6Addr::from_bits(gateway.to_bits() + 2 + u128::from(number)).to_string(),
            };
            command.arg(format!("{address}/{}", subnet.prefix_len())).arg(subnet.addr().to_string());
            command.arg(wide.to_string());
        }
        command
    }
}
