//! The real host-local on our pool.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::Bench;

/// Where host-local is, or a loud word that `test` does nothing without it.
pub(crate) fn installed(test: &str) -> bool {
    let found = program().is_file();
    if !found {
        let _ = writeln!(io::stderr(), "SKIPPED {test}: host-local is in no directory of CNI_PATH");
    }
    found
}

fn program() -> PathBuf {
    let path = std::env::var("CNI_PATH").unwrap_or_else(|_| "/usr/lib/cni".to_owned());
    path.split(':').map(|dir| Path::new(dir).join("host-local")).find(|file| file.is_file()).unwrap_or_default()
}

impl Bench {
    /// Has host-local do it: the addresses of an ADD, or its message.
    pub(crate) fn theirs(&self, verb: &str, container: &str, requested: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
        let ranges = self.sets.iter().map(|set| {
            let range = set.ranges().iter().map(|range| {
                json!({ "subnet": range.subnet().to_string(), "rangeStart": range.start().to_string(),
                    "rangeEnd": range.end().to_string(), "gateway": range.gateway().to_string() })
            });
            range.collect::<Value>()
        });
        let requested: Vec<String> = requested.iter().map(IpAddr::to_string).collect();
        let config = json!({ "name": "net", "cniVersion": "1.0.0", "args": { "cni": { "ips": requested } },
            "ipam": { "type": "host-local", "dataDir": self.data_dir(), "ranges": ranges.collect::<Value>() } });
        let mut command = Command::new(program());
        command.env_clear().env("CNI_COMMAND", verb).env("CNI_CONTAINERID", container);
        command.env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/none").env("CNI_PATH", "/none");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if !output.status.success() {
            return Err(answer["msg"].as_str().unwrap().to_owned());
        }
        let ips = answer["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        let address = |ip: &Value| ip["address"].as_str()?.split_once('/')?.0.parse().ok();
        Ok(ips.iter().map(|ip| address(ip).unwrap()).collect())
    }
}
