//! The work of the `bridge` plugin, with `host-local` as its IPAM, in this process.
//!
//! What it leaves in the kernel, in files and on stdout is what the reference plugins leave, so that pods may be attached
//! by the one and detached by the other. What it promises beyond that:
//!
//! - an ADD that fails leaves nothing but the bridge;
//! - a DEL removes all that there is, whatever is gone already: the namespace, its path, the interface, the state;
//! - when ADD returns, the port forwards and the neighbours know the container's MAC.
//!
//! [`Network`] is a configuration that was read; its functions are the verbs.

mod announce;
mod check;
mod conf;
mod host;
pub mod masquerade;
mod nftables;
mod pod;
pub mod spoof;
mod veth;

use std::thread;
use std::time::{Duration, Instant};

pub use conf::Conf;

use rustix::io::Errno;

use crate::cni_args::CniArgs;
use crate::config::Object;
use crate::host_local;
use crate::netlink::{Link, Socket, mac_text};
use crate::netns::{Found, Namespace};
use crate::result::{Attached, Interface};
use crate::{Attachment, Error, note};

use host::Bridge;
use masquerade::Masquerade;

/// So long a new port may take to come up. The reference plugin's four looks take as long.
const PORT_PATIENCE: Duration = Duration::from_millis(2550);
/// So long a port that is up may take to forward. With the spanning tree protocol it takes half a minute; then nobody
/// waits.
const FORWARDING_PATIENCE: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A bridge network, ready to attach containers to.
#[derive(Debug)]
pub struct Network {
    conf: Conf,
    /// As a whole, for IPAM.
    config: Object,
    args: CniArgs,
}

impl Network {
    /// Whether a delegate's configuration is one that this module can do the work of.
    pub fn serves(config: &Object) -> bool {
        let kind = |object: &Object| object.get("type").and_then(|kind| kind.as_str()).map(str::to_owned);
        let ipam = config.get("ipam").and_then(|ipam| ipam.as_object()).and_then(kind);
        kind(config).as_deref() == Some("bridge") && ipam.as_deref() == Some("host-local")
    }

    /// Reads a delegate's configuration and checks its rules.
    pub fn read(config: Object, args: CniArgs) -> Result<Network, Error> {
        let conf = Conf::read(&config, &args)?;
        host_local::Conf::new(&config, &args)?;
        Ok(Network { conf, config, args })
    }

    /// Reads a configuration for a release, which succeeds with whatever can be understood of it.
    pub fn for_release(config: Object) -> Result<Network, Error> {
        Ok(Network { conf: Conf::for_release(&config)?, config, args: CniArgs::default() })
    }

    /// Attaches a container: the interface, its addresses and routes, the gateway, the rules.
    pub fn add(&self, netns: &str, attachment: &Attachment) -> Result<Attached, Error> {
        let namespace = Namespace::open(netns)?;
        let mut host = Socket::open()?;
        let mut bridge = Bridge::ensure(&mut host, &self.conf)?;
        let port = veth::make(&mut host, &self.conf, &bridge.link, &namespace, attachment)?;
        let mut undo = Undo { network: self, attachment, port: &port, has_addresses: false };
        let done = self.connect(&mut host, &mut bridge, &namespace, netns, &mut undo);
        if done.is_err() {
            undo.run(&mut host);
        }
        done
    }

    fn connect(
        &self,
        host: &mut Socket,
        bridge: &mut Bridge,
        namespace: &Namespace,
        netns: &str,
        undo: &mut Undo<'_>,
    ) -> Result<Attached, Error> {
        let (conf, attachment, port) = (&self.conf, undo.attachment, undo.port);
        host::set_port(host, conf, port)?;
        let (mut inside, container) = namespace.within(|| {
            let mut inside = Socket::open()?;
            let container = inside.question(&Link::by_name(attachment.ifname()), Link::read)?;
            Ok((inside, container))
        })?;
        if conf.mac_spoof_check {
            spoof::add(attachment, &port.name, container.mac)?;
        }
        let ipam = host_local::add(&self.config, &self.args, attachment)?;
        undo.has_addresses = true;

        let gateway = match conf.is_gateway {
            true => Some(bridge.become_gateway(host, conf, &ipam.ips)?),
            false => None,
        };
        if conf.ip_masq {
            let addresses: Vec<_> = ipam.ips.iter().map(|ip| ip.address).collect();
            self.masquerade(attachment).add(conf.ip_masq_backend, &addresses)?;
        }
        let routes = pod::routes(conf, &ipam);
        namespace.within(|| {
            pod::configure(&mut inside, conf, &container, &ipam.ips, &routes)?;
            let forwards = wait_for_port(host, port)?;
            pod::wait_for_addresses(&mut inside, &container, &ipam.ips)?;
            if forwards {
                tell_neighbours(&mut inside, &container);
            }
            Ok(())
        })?;
        let bridge = host.question(&Link::by_index(bridge.link.index), Link::read)?;
        let on_host = [&bridge, port].map(|link| described(link, ""));
        let of_vlan = gateway.filter(|gateway| gateway.index != bridge.index).map(|gateway| described(&gateway, ""));
        let interfaces = on_host.into_iter().chain([described(&container, netns)]).chain(of_vlan);
        Ok(Attached {
            interfaces: interfaces.collect(),
            ips: ipam.ips,
            container: 2,
            routes,
            dns: if conf.dns.is_empty() { ipam.dns } else { conf.dns.clone() },
        })
    }

    /// Compares what there is with what ADD and the plugins after it answered.
    pub fn check(&self, netns: &str, attachment: &Attachment, result: &Attached) -> Result<(), Error> {
        host_local::check(&self.config, attachment)?;
        check::check(&self.conf, attachment, netns, result)
    }

    /// Detaches a container, whatever of it is there. An empty `netns` means that nobody knows it any more.
    ///
    /// The addresses are given back after the interface is gone, so that nobody else gets them too early. All of it is
    /// tried; the first failure is told.
    pub fn del(&self, netns: &str, attachment: &Attachment) -> Result<(), Error> {
        // First, so that the kernel frees these rules while it waits for the interface.
        let unspoofed = if self.conf.mac_spoof_check { spoof::remove(attachment).map_err(Error::from) } else { Ok(()) };
        let unmasked = if self.conf.ip_masq { self.unmask(attachment) } else { Ok(()) };
        if !remove_interface(netns, attachment)? {
            veth::remove(&self.conf, attachment)?;
        }
        let released = host_local::del(&self.config, attachment);
        released.and(unspoofed).and(unmasked)
    }

    fn unmask(&self, attachment: &Attachment) -> Result<(), Error> {
        let is_kept = |address| host_local::is_of_sibling(&self.config, attachment, address);
        Ok(self.masquerade(attachment).remove(is_kept)?)
    }

    fn masquerade<'a>(&'a self, attachment: &'a Attachment) -> Masquerade<'a> {
        Masquerade { network: &self.conf.network, attachment }
    }

    /// Gives back everything of this network that no attachment in `valid` has. All of it is tried; the first failure is told.
    pub fn gc(&self, valid: &[Attachment]) -> Result<(), Error> {
        let disconnected = self.disconnect_others(valid);
        let unmasked =
            if self.conf.ip_masq { masquerade::prune(&self.conf.network, valid).map_err(Error::from) } else { Ok(()) };
        disconnected.and(unmasked).and(host_local::gc(&self.config, valid))
    }

    fn disconnect_others(&self, valid: &[Attachment]) -> Result<(), Error> {
        let mut outcome = Ok(());
        for attachment in veth::attachments(&self.conf)?.iter().filter(|attachment| !valid.contains(attachment)) {
            let unspoofed =
                if self.conf.mac_spoof_check { spoof::remove(attachment).map_err(Error::from) } else { Ok(()) };
            outcome = outcome.and(veth::remove(&self.conf, attachment)).and(unspoofed);
        }
        outcome
    }

    /// Whether an ADD would find an address.
    pub fn status(&self) -> Result<(), Error> {
        host_local::status(&self.config)
    }
}

/// Takes back an ADD that failed half-way.
struct Undo<'a> {
    network: &'a Network,
    attachment: &'a Attachment,
    port: &'a Link,
    has_addresses: bool,
}

impl Undo<'_> {
    fn run(&self, host: &mut Socket) {
        let Network { conf, config, .. } = self.network;
        let steps = [
            host.order(&Link::delete(&self.port.name)).map_err(Error::from),
            if self.has_addresses { host_local::del(config, self.attachment) } else { Ok(()) },
            if conf.mac_spoof_check { spoof::remove(self.attachment).map_err(Error::from) } else { Ok(()) },
            if conf.ip_masq { self.network.unmask(self.attachment) } else { Ok(()) },
        ];
        for error in steps.into_iter().filter_map(Result::err) {
            note(format_args!("after a failed ADD of {}: {error}", self.attachment));
        }
    }
}

/// Returns whether there was something to remove.
fn remove_interface(netns: &str, attachment: &Attachment) -> Result<bool, Error> {
    if netns.is_empty() {
        return Ok(false);
    }
    let namespace = match Namespace::find(netns) {
        Ok(Found::Namespace(namespace)) => namespace,
        Ok(Found::Gone) => return Ok(false),
        // The file that a namespace was mounted on is left. There is no interface in a file.
        Err(error @ Error::NotNetns { .. }) => {
            note(format_args!("{error}; the rest of {attachment} is removed"));
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    namespace.within(|| match Socket::open()?.order(&Link::delete(attachment.ifname())) {
        Ok(()) => Ok(true),
        Err(error) if error.errno == Errno::NODEV => Ok(false),
        Err(error) => Err(error.into()),
    })
}

/// Returns whether the port forwards; an error if it does not come up.
fn wait_for_port(host: &mut Socket, port: &Link) -> Result<bool, Error> {
    let begin = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let link = host.question(&Link::by_index(port.index), Link::read)?;
        if link.is_operational && (link.is_forwarding || begin.elapsed() > FORWARDING_PATIENCE) {
            return Ok(link.is_forwarding);
        }
        if begin.elapsed() > PORT_PATIENCE {
            return Err(Error::PortNotUp { port: port.name.clone() });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

// Pods live without it: neighbours then learn when the pod speaks, or when they forget what they knew.
fn tell_neighbours(inside: &mut Socket, container: &Link) {
    if let Err(error) = announce::announce(inside, container) {
        note(format_args!("the addresses of {} could not be announced: {error}", container.name));
    }
}

fn described(link: &Link, sandbox: &str) -> Interface {
    Interface { name: link.name.clone(), mac: mac_text(link.mac), sandbox: sandbox.to_owned() }
}
