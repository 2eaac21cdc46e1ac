//! What a runtime writes to the CNI plugin. Two lines before it are what the environment and subnet.env would say, so that an
//! input can also reach what depends on those.

use std::path::Path;

use twill_cni::bridge::Network;
use twill_cni::cni_args::CniArgs;
use twill_cni::result::Attached;
use twill_cni::subnet::Subnet;
use twill_cni::{NetConf, Version, complete, config};

/// Complete, as both daemons write it.
const SUBNET: &[u8] =
    b"FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00:10::/32\n\
    FLANNEL_IPV6_SUBNET=fd00:10:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

/// Everything up to the first system call. An error is a result that a runtime can read.
pub(crate) fn run(bytes: &[u8]) {
    let mut version = Version::NEWEST;
    if let Err(error) = read(bytes, &mut version) {
        let said: serde_json::Value = serde_json::from_slice(&error.to_json(version)).unwrap_or_default();
        assert!(said["code"].is_u64() && said["msg"].is_string(), "the error result is {said}");
    }
}

fn read(bytes: &[u8], known: &mut Version) -> Result<(), twill_cni::Error> {
    let (args, stdin) = match bytes.iter().position(|&b| b == b'\n') {
        Some(end) if !bytes.starts_with(b"{") => (&bytes[..end], &bytes[end + 1..]),
        _ => (&b""[..], bytes),
    };
    let object = config::decode(stdin)?;
    let name = config::network_name(&object)?;
    let version = config::version(&object)?;
    *known = version;
    let args = CniArgs::parse(&String::from_utf8_lossy(args));
    let conf = NetConf::new(name, object)?;
    if let Some(result) = &conf.prev_result {
        let attached = Attached::read(result)?;
        let written = attached.to_json(version);
        let again: serde_json::Value = serde_json::from_slice(&written).unwrap_or_default();
        assert!(again.is_object(), "a result is written as {again}");
    }
    let Ok(subnet) = Subnet::parse(SUBNET, Path::new("subnet.env")) else { return Ok(()) };
    for config in [complete::for_release(&conf, None), complete::complete(&conf, &subnet)] {
        let config = config?;
        if Network::serves(&config) {
            let _ = Network::for_release(config.clone());
            Network::read(config, args.as_ref().map_or_else(|_| CniArgs::default(), Clone::clone))?;
        }
    }
    args.map(drop)
}
