//! The configuration of the bridge plugin, and the rules that it has to keep.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::masquerade::Backend;
use crate::cni_args::CniArgs;
use crate::config::{Object, find};
use crate::netlink::{Mac, Vlans, parse_mac};
use crate::{Error, attachment};

const DEFAULT_BRIDGE: &str = "cni0";
const LAST_VLAN: u16 = 4094;
/// What the kernel accepts as an MTU of a veth: IPv4's smallest packet and the largest that its length field can say.
const MTU: RangeInclusive<u64> = 68..=65535;

/// What ADD, CHECK and DEL have to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Conf {
    /// The network's name.
    pub network: String,
    /// The bridge's name.
    pub bridge: String,
    /// The bridge has the gateway's addresses, and the host forwards.
    pub is_gateway: bool,
    /// The container's default routes lead to the gateway.
    pub is_default_gateway: bool,
    /// Another address of the bridge in the gateway's place is removed instead of refused.
    pub force_address: bool,
    /// Traffic from the container to the outside gets the host's address.
    pub ip_masq: bool,
    /// What writes the rules for that.
    pub ip_masq_backend: Backend,
    /// The MTU of the bridge when it is made, and of both ends of the veth pair; the kernel's default if not given.
    pub mtu: Option<u32>,
    /// Frames may leave by the port that they came in by.
    pub hairpin_mode: bool,
    /// The bridge receives all frames.
    pub promisc_mode: bool,
    /// The VLANs of the port. Without any the bridge does not look at tags.
    pub vlans: Vec<Vlans>,
    /// The VLAN of the gateway's address; 0 for none.
    pub vlan: u16,
    /// The port stays in the VLANs that it is in as soon as it is one. That is the default, as it was when there was no choice.
    pub preserve_default_vlan: bool,
    /// Frames with a MAC that is not the container's are dropped.
    pub mac_spoof_check: bool,
    /// Duplicate address detection in the container.
    pub enable_dad: bool,
    /// The container's interface stays down.
    pub disable_container_interface: bool,
    /// No frames between this port and other isolated ones.
    pub port_isolation: bool,
    /// The MAC that the container's interface shall have.
    pub mac: Option<Mac>,
    /// What the result says of name servers, if anything is configured; else IPAM's word counts.
    pub dns: Object,
}

impl Conf {
    /// Reads a delegate's configuration. `args` are the runtime's `CNI_ARGS`.
    pub fn read(config: &Object, args: &CniArgs) -> Result<Conf, Error> {
        let conf = Conf::parse(config, args)?;
        conf.rules()?;
        Ok(conf)
    }

    /// Reads one for a release, which must not fail for anything that only matters to ADD. Where nothing says whether there
    /// are masquerade rules, there may be.
    pub fn for_release(config: &Object) -> Result<Conf, Error> {
        let args = CniArgs::default();
        let conf = Conf::parse(config, &args).or_else(|_| {
            let known =
                ["name", "bridge"].into_iter().filter_map(|key| Some((key.to_owned(), find(config, key)?.clone())));
            Conf::parse(&known.collect(), &args)
        })?;
        Ok(Conf { ip_masq: conf.ip_masq || find(config, "ipMasq").is_none_or(|masq| !masq.is_boolean()), ..conf })
    }

    fn parse(config: &Object, args: &CniArgs) -> Result<Conf, Error> {
        let is_default_gateway = flag(config, "isDefaultGateway")?;
        let vlan = vlan_id(config, "vlan")?.unwrap_or(0);
        Ok(Conf {
            network: text(config, "name")?.unwrap_or_default(),
            bridge: text(config, "bridge")?.unwrap_or_else(|| DEFAULT_BRIDGE.to_owned()),
            is_gateway: flag(config, "isGateway")? || is_default_gateway,
            is_default_gateway,
            force_address: flag(config, "forceAddress")?,
            ip_masq: flag(config, "ipMasq")?,
            ip_masq_backend: text(config, "ipMasqBackend")?.map(|name| name.parse()).transpose()?.unwrap_or_default(),
            mtu: mtu(config)?,
            hairpin_mode: flag(config, "hairpinMode")?,
            promisc_mode: flag(config, "promiscMode")?,
            vlans: vlans(config, vlan)?,
            vlan,
            preserve_default_vlan: flag_or(config, "preserveDefaultVlan", true)?,
            mac_spoof_check: flag(config, "macspoofchk")?,
            enable_dad: flag(config, "enabledad")?,
            disable_container_interface: flag(config, "disableContainerInterface")?,
            port_isolation: flag(config, "portIsolation")?,
            mac: mac(config, args)?,
            dns: dns(config)?,
        })
    }

    fn rules(&self) -> Result<(), Error> {
        if let Some(rule) = attachment::interface_name_fault(&self.bridge) {
            return Err(bad(format!("bridge {:?} is no name of an interface: {rule}", self.bridge)));
        }
        if self.hairpin_mode && self.promisc_mode {
            return Err(bad("cannot set hairpin mode and promiscuous mode at the same time"));
        }
        if self.disable_container_interface {
            return Err(bad("cannot use IPAM when the container interface is disabled (disableContainerInterface)"));
        }
        Ok(())
    }

    /// Whether the bridge has to look at VLAN tags.
    pub fn uses_vlans(&self) -> bool {
        !self.vlans.is_empty()
    }
}

fn bad(problem: impl Into<String>) -> Error {
    Error::Bridge { problem: problem.into() }
}

fn flag(config: &Object, key: &str) -> Result<bool, Error> {
    flag_or(config, key, false)
}

fn flag_or(config: &Object, key: &str, default: bool) -> Result<bool, Error> {
    match find(config, key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(bad(format!("{key} must be true or false, it is {other}"))),
    }
}

fn text(config: &Object, key: &str) -> Result<Option<String>, Error> {
    match find(config, key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(other) => Err(bad(format!("{key} must be a text, it is {other}"))),
    }
}

fn mtu(config: &Object) -> Result<Option<u32>, Error> {
    match find(config, "mtu") {
        None | Some(Value::Null) => Ok(None),
        Some(found) => match found.as_u64() {
            Some(0) => Ok(None),
            Some(mtu) if MTU.contains(&mtu) => Ok(u32::try_from(mtu).ok()),
            _ => Err(bad(format!(
                "mtu must be a number from {} to {}, or 0 for the kernel's default; it is {found}",
                MTU.start(),
                MTU.end()
            ))),
        },
    }
}

fn vlan_id(object: &Object, key: &str) -> Result<Option<u16>, Error> {
    match find(object, key) {
        None | Some(Value::Null) => Ok(None),
        Some(found) => match found.as_u64().and_then(|id| u16::try_from(id).ok()) {
            Some(0) => Ok(None),
            Some(id) if id <= LAST_VLAN => Ok(Some(id)),
            _ => Err(bad(format!("invalid VLAN ID {found} in {key} (must be between 1 and {LAST_VLAN})"))),
        },
    }
}

fn vlans(config: &Object, vlan: u16) -> Result<Vec<Vlans>, Error> {
    let mut vlans = Vec::new();
    let trunk = match find(config, "vlanTrunk") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(trunk)) => trunk,
        Some(other) => return Err(bad(format!("vlanTrunk must be a list, it is {other}"))),
    };
    for entry in trunk {
        let wrong = || bad(format!("vlanTrunk holds {entry}; each entry needs `id`, or `minID` and `maxID`"));
        let entry = entry.as_object().ok_or_else(wrong)?;
        let id = vlan_id(entry, "id")?;
        let ends = (vlan_id(entry, "minID")?, vlan_id(entry, "maxID")?);
        vlans.extend(id.map(|id| Vlans { ids: id..=id, untagged: false }));
        match ends {
            (None, None) if id.is_some() => {}
            (Some(first), Some(last)) if first <= last => vlans.push(Vlans { ids: first..=last, untagged: false }),
            _ => return Err(wrong()),
        }
    }
    if vlan != 0 {
        vlans.push(Vlans::access(vlan));
    }
    Ok(vlans)
}

// The runtime's word counts most, then the arguments in the configuration, then those in the environment.
fn mac(config: &Object, args: &CniArgs) -> Result<Option<Mac>, Error> {
    let inner = |key: &str| config.get(key).and_then(Value::as_object);
    let given = [
        inner("runtimeConfig").and_then(|runtime| find(runtime, "mac")).and_then(Value::as_str),
        inner("args").and_then(|args| args.get("cni")?.get("mac")?.as_str()),
        args.mac.as_deref(),
    ];
    let Some(text) = given.into_iter().flatten().find(|text| !text.is_empty()) else { return Ok(None) };
    let mac = parse_mac(text)
        .ok_or_else(|| bad(format!("the requested MAC {text:?} is none; it looks like 02:00:00:00:00:01")))?;
    if mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(bad(format!("the requested MAC {text:?} is not one station's: a group has it, or nobody")));
    }
    Ok(Some(mac))
}

fn dns(config: &Object) -> Result<Object, Error> {
    match find(config, "dns") {
        None | Some(Value::Null) => Ok(Object::new()),
        Some(Value::Object(dns)) => Ok(dns
            .iter()
            .filter(|(_, value)| !is_empty(value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()),
        Some(other) => Err(bad(format!("dns must be an object, it is {other}"))),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
