//! Nodes and containers, and which program plays the plugin.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::call::Call;
use super::network::Network;
use crate::error::{LabError, Result};
use crate::netns::NetNs;
use crate::sandbox::{Sandbox, set_sysctl};
use crate::spec;

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Implementation {
    /// Our plugin, in its own process.
    Ours,
    /// Our plugin, executing the delegate as flannel's does.
    Executing,
    /// The reference plugins, with the configuration that flannel's plugin would give them.
    Reference,
}

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Plugins {
    /// Our plugin.
    pub ours: PathBuf,
    /// The folder of the reference plugins.
    pub reference: PathBuf,
}

/// A private world (see [`Sandbox`]) in which plugins can be called. It belongs to the thread that made it, and all that is
/// in it goes with that thread, also after a panic. Threads that this one starts may use its hosts.
#[derive(Debug)]
pub struct Stage {
    plugins: Plugins,
    _sandbox: Sandbox,
}

/// A node: a network namespace, and folders of its own for the files of plugins.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub ns: NetNs,
    /// What containers are attached to.
    pub network: Network,
    /// The programs.
    pub plugins: Plugins,
    dir: PathBuf,
    containers: Mutex<Vec<Container>>,
}

/// A container as a runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its namespace.
    pub ns: NetNs,
}

impl Implementation {
    /// All of them.
    pub const ALL: [Implementation; 3] = [Implementation::Ours, Implementation::Executing, Implementation::Reference];
}

impl Plugins {
    /// Ours as `TWILL_CNI` names it or beside the running program; the others from `CNI_PATH`, or where Debian has them.
    pub fn from_env() -> Result<Plugins> {
        let reference = env::var_os("CNI_PATH").map_or_else(|| "/usr/lib/cni".into(), PathBuf::from);
        for plugin in ["bridge", "host-local", "portmap", "bandwidth", "tuning"] {
            LabError::require(&reference.join(plugin), "On Debian: apt-get install containernetworking-plugins")?;
        }
        Ok(Plugins { ours: spec::program("TWILL_CNI", "twill-cni")?, reference })
    }
}

impl Stage {
    /// Takes the current thread into a world of its own.
    pub fn enter() -> Result<Stage> {
        let plugins = Plugins::from_env()?;
        let sandbox = Sandbox::enter()?;
        let advice = "The stage has a /run of its own, so its programs cannot be below /run";
        LabError::require(&plugins.ours, advice)?;
        Ok(Stage { plugins, _sandbox: sandbox })
    }

    /// Makes a node. Its daemon has written `subnet.env`. Its links do without duplicate address detection.
    pub fn host(&self, name: &str, network: Network) -> Result<Host> {
        Host::new(&self.plugins, name, network)
    }
}

impl Host {
    fn new(plugins: &Plugins, name: &str, network: Network) -> Result<Host> {
        let dir = Path::new(Sandbox::WORK).join(name);
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).map_err(LabError::system(format!("create {}", bin.display())))?;
        let link = bin.join("flannel");
        symlink(&plugins.ours, &link).map_err(LabError::system(format!("create {}", link.display())))?;
        let ns = NetNs::plain(name)?;
        // It would cost every test two seconds. Containers have it as the kernel has it.
        ns.within(|| set_sysctl("net/ipv6/conf/default/accept_dad", "0"))??;
        let host = Host { ns, network, plugins: plugins.clone(), dir, containers: Mutex::default() };
        host.write_subnet_env(&host.network.subnet_env())?;
        Ok(host)
    }

    /// Another node on the same stage: for threads, which have no [`Stage`].
    pub fn another(&self, name: &str, network: Network) -> Result<Host> {
        Host::new(&self.plugins, name, network)
    }

    /// Makes a container. Its namespace is as the kernel makes it, but for the loopback interface, which is up.
    pub fn container(&self, id: &str) -> Result<Container> {
        let container = Container { id: id.into(), ns: NetNs::plain(&format!("{}.{id}", self.ns.name()))? };
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).push(container.clone());
        Ok(container)
    }

    /// Takes a container's namespace away.
    pub fn forget(&self, container: &Container) -> Result<()> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != container);
        container.ns.delete()
    }

    /// The containers whose namespaces were not taken away by [`Self::forget`].
    pub fn containers(&self) -> Vec<Container> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call of the plugin, about the interface `eth0` of a container.
    pub fn call(&self, implementation: Implementation, verb: &str, container: &Container) -> Call<'_> {
        Call::attach(self, implementation, verb, container)
    }

    /// A call that is about no container: GC, STATUS, VERSION.
    pub fn ask(&self, implementation: Implementation, verb: &str) -> Call<'_> {
        Call::general(self, implementation, verb)
    }

    /// A call of another plugin of a chain, with its own entry of the conflist; `cniVersion` and `name` are added.
    pub fn chained(&self, plugin: &str, entry: &serde_json::Value, verb: &str, container: &Container) -> Call<'_> {
        Call::chained(self, plugin, entry, verb, container)
    }

    /// A file or folder of this node.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The daemon's file.
    pub fn subnet_file(&self) -> PathBuf {
        self.path("subnet.env")
    }

    /// Where our plugin keeps its state (`dataDir`). It makes the folder itself.
    pub fn state_dir(&self) -> PathBuf {
        self.path("flannel")
    }

    /// Where the pools of all networks are (`ipam.dataDir`). The plugins make the folder themselves.
    pub fn pools_dir(&self) -> PathBuf {
        self.path("networks")
    }

    /// The pool of this host's network.
    pub fn pool_dir(&self) -> PathBuf {
        self.pools_dir().join(&self.network.name)
    }

    /// Writes the daemon's file.
    pub fn write_subnet_env(&self, text: &str) -> Result<()> {
        let file = self.subnet_file();
        fs::write(&file, text).map_err(LabError::system(format!("write {}", file.display())))
    }
}
