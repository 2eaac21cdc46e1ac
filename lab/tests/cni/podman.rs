//! A real runtime: podman makes and removes containers, and knows of the plugin only what a configuration file says.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use twill_lab::cni::{Host, Network, Stage};

use super::common::{current_test, eventually, residue, skip, stage};

const PORT: u16 = 18_081;

/// podman with everything of its own, on a host. Its containers end with this value, and by themselves after two minutes.
struct Podman {
    host: Host,
    rootfs: PathBuf,
}

impl Podman {
    /// Ready for use, or None and a loud word.
    fn new(stage: &Stage, network: Network) -> Option<Podman> {
        let host = stage.host("h", network).unwrap();
        let rootfs = host.path("rootfs");
        let podman = Podman { host, rootfs };
        match podman.set_up() {
            Ok(()) => Some(podman),
            Err(why) => {
                skip(&current_test(), &why);
                None
            }
        }
    }

    fn set_up(&self) -> Result<(), String> {
        for program in ["podman", "runc", "busybox"] {
            let found =
                env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).is_file());
            if !found {
                return Err(format!("`{program}` is not there. On Debian: apt-get install podman runc busybox-static"));
            }
        }
        if !fs::read_to_string("/proc/self/uid_map").unwrap_or_default().contains("4294967295") {
            return Err("podman as it is used here needs root, and not that of a user namespace".into());
        }
        self.make_rootfs();
        self.configure();
        // What podman keeps where nothing else is configurable goes with the test.
        self.host.ns.run(&["mount", "-t", "tmpfs", "none", "/var/lib"]).unwrap();
        let said = self.call(&["info", "--format", "{{.Host.NetworkBackend}}"])?;
        if said.trim() == "cni" { Ok(()) } else { Err(format!("this podman speaks {}, and not CNI", said.trim())) }
    }

    fn make_rootfs(&self) {
        for dir in ["bin", "proc", "sys", "dev", "tmp", "etc", "root", "var", "run", "www"] {
            fs::create_dir_all(self.rootfs.join(dir)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|file| Path::new(file).is_file()).unwrap();
        fs::copy(busybox, self.rootfs.join("bin/busybox")).unwrap();
        for name in ["sh", "httpd", "hostname", "sleep", "wget", "ip"] {
            std::os::unix::fs::symlink("busybox", self.rootfs.join("bin").join(name)).unwrap();
        }
        for (file, text) in [("resolv.conf", ""), ("hosts", ""), ("passwd", "root:x:0:0:root:/root:/bin/sh\n")] {
            fs::write(self.rootfs.join("etc").join(file), text).unwrap();
        }
    }

    fn configure(&self) {
        let Host { network, plugins, .. } = &self.host;
        let (own, configs) = (self.host.path("bin"), self.host.path("net.d"));
        fs::create_dir_all(&configs).unwrap();
        let entry = network.entry(&self.host.subnet_file(), &self.host.state_dir(), &self.host.pools_dir());
        let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
        let conflist = json!({ "cniVersion": network.version, "name": network.name, "plugins": [entry, portmap] });
        fs::write(configs.join("10-twill.conflist"), conflist.to_string()).unwrap();
        let conf = format!(
            "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [{own:?}, {:?}]\nnetwork_config_dir = {configs:?}\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n",
            plugins.reference
        );
        fs::write(self.host.path("containers.conf"), conf).unwrap();
    }

    fn call(&self, words: &[&str]) -> Result<String, String> {
        let mut podman = Command::new("podman");
        podman.env("CONTAINERS_CONF", self.host.path("containers.conf"));
        podman.args(["--runtime", "runc", "--storage-driver", "vfs", "--root"]).arg(self.host.path("root"));
        podman.arg("--runroot").arg(self.host.path("runroot")).args(words);
        let output = self.host.ns.exec_with(&mut podman, "").map_err(|error| error.to_string())?;
        if output.ok { Ok(output.stdout) } else { Err(format!("podman {words:?}: {}", output.stderr.trim())) }
    }

    /// Starts a web server that says its name.
    fn start(&self, name: &str, more: &[&str]) {
        let serve = format!(
            "mkdir -p /tmp/{name}; echo {name} >/tmp/{name}/index.html; httpd -p 80 -h /tmp/{name}; exec sleep 120"
        );
        // Below the machine's own limits.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
        let words = [&["run", "-d", "--name", name, "--network", &self.host.network.name], &limits[..], more].concat();
        let rootfs = self.rootfs.display().to_string();
        let words = [&words[..], &["--rootfs", &rootfs, "/bin/busybox", "sh", "-c", &serve]].concat();
        self.call(&words).unwrap_or_else(|why| panic!("{why}"));
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let said: Value = serde_json::from_str(&self.call(&["inspect", name]).unwrap()).unwrap();
        let network = &said[0]["NetworkSettings"]["Networks"][&self.host.network.name];
        let found =
            ["IPAddress", "GlobalIPv6Address"].into_iter().filter_map(|key| network[key].as_str()?.parse().ok());
        found.collect()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Of those that a test has removed there is none.
        let _ = self.call(&["rm", "-f", "-a", "-t", "0"]);
    }
}

/// The page of a web server, asked for from the host.
fn page(host: &Host, address: IpAddr, port: u16) -> std::io::Result<String> {
    let fetch = || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_string())
    };
    host.ns.within(fetch).unwrap()
}

#[test]
fn podman_makes_and_removes_containers() {
    let Some(stage) = stage() else { return };
    let Some(podman) = Podman::new(&stage, Network::dual().with_version("0.4.0")) else { return };
    let host = &podman.host;
    podman.start("one", &["-p", &format!("{PORT}:80")]);
    podman.start("two", &[]);
    let (one, two) = (podman.addresses("one"), podman.addresses("two"));
    assert_eq!((one.len(), two.len()), (2, 2), "{one:?} {two:?}");
    for address in one.iter().chain(&two) {
        assert!(host.pool_dir().join(address.to_string()).is_file(), "{address} is reserved");
    }

    let gateway: IpAddr = "10.244.3.1".parse().unwrap();
    eventually("the page behind the host's port", || page(host, gateway, PORT).is_ok_and(|page| page == "one"));
    for (from, to, name) in [("one", &two, "two"), ("two", &one, "one")] {
        for address in to {
            let url = format!("http://{}/", SocketAddr::new(*address, 80));
            let said = podman.call(&["exec", from, "/bin/busybox", "wget", "-q", "-O-", &url]).unwrap();
            assert_eq!(said.trim(), name, "from {from}");
        }
    }

    podman.call(&["rm", "-f", "-t", "0", "one"]).unwrap();
    assert!(page(host, gateway, PORT).is_err(), "the port is closed");
    assert_eq!(page(host, two[0], 80).unwrap(), "two", "the other goes on");
    podman.call(&["rm", "-f", "-t", "0", "two"]).unwrap();
    // portmap keeps its chains, empty.
    let left: Vec<String> = residue(host).into_iter().filter(|line| !line.contains("CNI-HOSTPORT-")).collect();
    assert_eq!(left, [""; 0]);
}
