//! `twill cleanup`: takes everything of Twill's out of the kernel. Nothing else ever does.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

use twill_firewall::Firewall;
use twill_netlink::{Interest, Key, Links, Operation, Tables, Value};

use super::arguments::CleanupArguments;
use crate::config::NetConf;
use crate::daemon::status::SOCKET;
use crate::daemon::{control, readiness};
use crate::dataplane::{LEDGER_FILE, Ledger, is_own, is_removable};
use crate::uplink::ReversePath;

pub(super) async fn run(arguments: &CleanupArguments) -> Result<(), String> {
    let socket = arguments.run_dir.join(SOCKET);
    if UnixStream::connect(&socket).is_ok() {
        return Err(format!(
            "the daemon runs (it answers at {}) and would put everything back: stop it first",
            socket.display()
        ));
    }
    let (_, conf) = NetConf::read(&arguments.net_config_path).map_err(|error| {
        format!(
            "{error}; cleanup needs the cluster's networks to know its routes: give the file with --net-config-path"
        )
    })?;
    let say = |what: &str| println!("{}{what}", if arguments.dry_run { "would remove " } else { "removed " });
    let links = Links::open().map_err(|e| e.to_string())?;
    let tables = Tables::spawn().map_err(|e| e.to_string())?;
    let ledger = Ledger::open(&arguments.run_dir);
    let all = links.snapshot().await.map_err(|e| e.to_string())?;
    let names: HashMap<u32, String> = all.iter().map(|l| (l.index, l.name.clone())).collect();
    let own: HashSet<u32> = all.iter().filter(|l| is_own(l)).map(|l| l.index).collect();

    let interest = Interest::new(own.iter().copied(), conf.networks.iter().copied());
    let seen = tables.dump(interest).await.map_err(|e| e.to_string())?;
    let mut routes: Vec<Operation> = seen
        .by_key()
        .into_iter()
        .filter_map(|(key, observed)| Some((key, observed.value?, observed.protocol)))
        .filter(|(key, value, protocol)| is_removable(key, value, *protocol, &own, &names, &ledger, &conf.networks))
        .filter(|(key, _, _)| matches!(key, Key::Route { .. }))
        .map(|(key, value, _)| Operation::Delete { key, value })
        .collect();
    routes.sort_by_key(Operation::key);
    if !arguments.dry_run && !routes.is_empty() {
        let applied = tables.apply(routes.clone()).await.map_err(|e| e.to_string())?;
        if let Some((key, error)) = applied.failed.first() {
            return Err(format!("removing {key:?}: {error}"));
        }
    }
    for route in &routes {
        if let Operation::Delete { key: Key::Route { destination, .. }, value: Value::Route(value) } = route {
            let device = names.get(&value.link).map_or("?", String::as_str);
            say(&format!("route {destination} dev {device}"));
        }
    }
    for link in all.iter().filter(|l| own.contains(&l.index)) {
        if !arguments.dry_run {
            links.delete(link.index).await.map_err(|e| e.to_string())?;
        }
        say(&format!("link {}", link.name));
    }
    let rules = if arguments.dry_run { Firewall::find_all().await } else { Firewall::remove_all().await };
    for place in rules.map_err(|e| e.to_string())? {
        say(&place);
    }
    let mut filters = ReversePath::open(&arguments.run_dir);
    let restored = if arguments.dry_run { filters.restorable().collect() } else { filters.restore(&links).await };
    for (sysctl, value) in restored {
        println!("{} the sysctl {sysctl} to {value}", if arguments.dry_run { "would set" } else { "set" });
    }
    let ledger = arguments.run_dir.join(LEDGER_FILE);
    let control = arguments.run_dir.join(control::SOCKET);
    let readiness = arguments.run_dir.join(readiness::SOCKET);
    for file in [arguments.subnet_file.as_path(), &ledger, &socket, &control, &readiness] {
        if remove_file(file, arguments.dry_run)? {
            say(&format!("file {}", file.display()));
        }
    }
    Ok(())
}

fn remove_file(file: &Path, dry_run: bool) -> Result<bool, String> {
    if dry_run {
        return Ok(fs::symlink_metadata(file).is_ok());
    }
    match fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("removing {}: {error}", file.display())),
    }
}
