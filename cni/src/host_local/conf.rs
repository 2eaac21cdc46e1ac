//! host-local's configuration: the `ipam` object, and what a runtime asks for on top of it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::Value;
use twill_ipam::{Pool, Range, RangeSet, check_overlaps};

use super::resolv_conf;
use crate::cni_args::CniArgs;
use crate::config::{self, Object};
use crate::result::Route;
use crate::{Error, Version, cidr};

const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// The configuration, checked by host-local's rules.
#[derive(Debug, Clone)]
pub struct Conf {
    pool: Pool,
    sets: Vec<RangeSet>,
    requested: Vec<IpAddr>,
    routes: Vec<Route>,
    resolv_conf: Option<PathBuf>,
}

impl Conf {
    /// Takes a whole network configuration apart. Faults have host-local's words where it has understandable ones.
    ///
    /// The sets are those of `runtimeConfig.ipRanges`, then the one range of the old form directly under `ipam`, then
    /// `ipam.ranges`. Addresses may be asked for by `CNI_ARGS`, `args.cni.ips` and `runtimeConfig.ips`, all together.
    pub fn new(config: &Object, args: &CniArgs) -> Result<Conf, Error> {
        let ipam = config::find(config, "ipam").filter(|ipam| !ipam.is_null());
        let ipam = ipam.ok_or_else(|| problem("IPAM config missing 'ipam' key"))?;
        let ipam = ipam.as_object().ok_or_else(|| problem(format!("ipam must be an object, it is {ipam}")))?;
        let runtime_config = object(config, "runtimeConfig")?;
        let cni = object(config, "args")?.map(|args| object(args, "cni")).transpose()?.flatten();

        let mut requested: Vec<IpAddr> = args.ip.into_iter().collect();
        for asking in [cni, runtime_config].into_iter().flatten() {
            for text in list(asking, "ips")? {
                let address = text.as_str().and_then(cidr::address);
                requested.push(address.ok_or_else(|| problem(format!("invalid IP address {}", bare(text))))?);
            }
        }
        let sets = sets(ipam, runtime_config)?;
        check_families(&sets, config::version(config)?)?;
        check_overlaps(&sets).map_err(|error| problem(error.to_string()))?;
        let routes = list(ipam, "routes")?.iter().map(|route| Route::read(route).map_err(problem));
        Ok(Conf {
            pool: pool(config)?,
            sets,
            requested,
            routes: routes.collect::<Result<_, _>>()?,
            resolv_conf: text(ipam, "resolvConf")?.map(PathBuf::from),
        })
    }

    /// The files of the network.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Where one address each is taken from.
    pub fn sets(&self) -> &[RangeSet] {
        &self.sets
    }

    /// Addresses that the attachment shall have.
    pub fn requested(&self) -> &[IpAddr] {
        &self.requested
    }

    /// Routes that go into the result as they are.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// What `resolvConf` says, as `dns` of the result.
    pub fn dns(&self) -> Result<Object, Error> {
        self.resolv_conf.as_deref().map_or_else(|| Ok(Object::new()), resolv_conf::read)
    }
}

/// The pool of a configuration of which no more may be known than `name`.
pub(super) fn pool(config: &Object) -> Result<Pool, Error> {
    let network = config::network_name(config)?;
    let ipam = config::find(config, "ipam").and_then(Value::as_object);
    let data_dir = ipam.and_then(|ipam| text(ipam, "dataDir").ok().flatten()).unwrap_or(DEFAULT_DATA_DIR);
    Ok(Pool::new(Path::new(data_dir), &network))
}

/// A range as it is written, before its rules are looked at. A subnet may be missing where nothing is said.
#[derive(Debug, Default)]
struct Given {
    subnet: Option<IpNet>,
    start: Option<IpAddr>,
    end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

impl Given {
    fn read(object: &Object) -> Result<Given, Error> {
        let address = |key: &str| match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(none)) if none.is_empty() => Ok(None),
            Some(found) => {
                let address = found.as_str().and_then(|text| text.parse().ok());
                address.map(Some).ok_or_else(|| problem(format!("invalid IP address: {}", bare(found))))
            }
        };
        let (gateway, end, start) = (address("gateway")?, address("rangeEnd")?, address("rangeStart")?);
        let subnet = match object.get("subnet") {
            None | Some(Value::Null) => None,
            Some(found) => {
                let subnet = found.as_str().and_then(cidr::network);
                Some(subnet.ok_or_else(|| problem(format!("invalid CIDR address: {}", bare(found))))?)
            }
        };
        Ok(Given { subnet, start, end, gateway })
    }

    fn read_set(set: &Value) -> Result<Vec<Given>, Error> {
        let bad = || problem(format!("a range set must be a list of objects with a subnet, it is {set}"));
        let ranges = match set {
            Value::Null => return Ok(Vec::new()),
            Value::Array(ranges) => ranges,
            _ => return Err(bad()),
        };
        let range = |range: &Value| match range {
            Value::Null => Ok(Given::default()),
            Value::Object(range) => Given::read(range),
            _ => Err(bad()),
        };
        ranges.iter().map(range).collect()
    }

    fn range(&self) -> Result<Range, String> {
        let subnet = self.subnet.ok_or("a range without a subnet")?;
        Range::new(subnet, self.start, self.end, self.gateway).map_err(|error| error.to_string())
    }
}

fn sets(ipam: &Object, runtime_config: Option<&Object>) -> Result<Vec<RangeSet>, Error> {
    let asked = runtime_config.map(|runtime_config| list(runtime_config, "ipRanges")).transpose()?.unwrap_or_default();
    let mut given = asked.iter().map(Given::read_set).collect::<Result<Vec<_>, Error>>()?;
    let old_form = Given::read(ipam)?;
    if old_form.subnet.is_some() {
        given.push(vec![old_form]);
    }
    for set in list(ipam, "ranges")? {
        given.push(Given::read_set(set)?);
    }
    if given.is_empty() {
        return Err(problem("no IP ranges specified"));
    }
    let checked = given.iter().enumerate().map(|(number, ranges)| {
        let ranges = ranges.iter().map(Given::range).collect::<Result<Vec<Range>, String>>();
        let set = ranges.and_then(|ranges| RangeSet::new(ranges).map_err(|error| error.to_string()));
        set.map_err(|error| problem(format!("invalid range set {number}: {error}")))
    });
    checked.collect()
}

fn check_families(sets: &[RangeSet], version: Version) -> Result<(), Error> {
    let ipv4 = sets.iter().filter(|set| set.is_ipv4()).count();
    if ipv4.max(sets.len() - ipv4) > 1 && version < Version::parse("0.3.0")? {
        return Err(problem(format!("CNI version {version} does not support more than 1 address per family")));
    }
    Ok(())
}

fn object<'a>(of: &'a Object, key: &str) -> Result<Option<&'a Object>, Error> {
    match config::find(of, key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(found)) => Ok(Some(found)),
        Some(other) => Err(problem(format!("{key} must be an object, it is {other}"))),
    }
}

fn list<'a>(of: &'a Object, key: &str) -> Result<&'a [Value], Error> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(found)) => Ok(found),
        Some(other) => Err(problem(format!("{key} must be a list, it is {other}"))),
    }
}

fn text<'a>(of: &'a Object, key: &str) -> Result<Option<&'a str>, Error> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(found)) => Ok(Some(found.as_str()).filter(|text| !text.is_empty())),
        Some(other) => Err(problem(format!("{key} must be a text, it is {other}"))),
    }
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn problem(problem: impl Into<String>) -> Error {
    Error::HostLocal { problem: problem.into() }
}
