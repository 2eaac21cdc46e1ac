//! The programs that a cluster is made of.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{LabError, Result};
use crate::kube::KubePrograms;
use crate::netns::Output;

/// Kubernetes' own programs, from one folder, and those that a node has from its distribution.
#[derive(Debug, Clone)]
pub struct ClusterPrograms {
    pub(super) server: KubePrograms,
    /// The folder of the CNI plugins that are on every node.
    pub(super) plugins: PathBuf,
    /// Kubernetes' own.
    pub(super) dir: PathBuf,
}

impl ClusterPrograms {
    /// The environment variable that names the folder of Kubernetes' programs.
    pub const VARIABLE: &str = "TWILL_KUBE_CLUSTER";

    /// Found on the PATH. The name, how it says its version, and Debian's package.
    const INSTALLED: [(&str, &str, &str); 4] = [
        ("containerd", "--version", "containerd"),
        ("runc", "--version", "runc"),
        ("busybox", "--help", "busybox-static"),
        ("kubectl", "version --client", "kubernetes-client"),
    ];

    const KUBERNETES: [&str; 6] =
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];

    /// Those in the folder that [`Self::VARIABLE`] names, and those on the PATH.
    pub fn from_env() -> Result<ClusterPrograms> {
        let server = KubePrograms::from_env(Self::VARIABLE)?;
        let dir = env::var_os(Self::VARIABLE).map(PathBuf::from).unwrap_or_default();
        let advice = format!(
            "{} names its folder, which has to hold all of Kubernetes' programs; those that ship for tests of an API \
             server are not enough",
            Self::VARIABLE
        );
        for program in Self::KUBERNETES {
            LabError::require(&dir.join(program), &advice)?;
        }
        for (program, _, package) in Self::INSTALLED {
            if !on_path(program) {
                let advice = format!("On Debian: apt-get install --no-install-recommends {package}");
                return Err(LabError::Missing { program: program.into(), advice });
            }
        }
        let plugins = env::var_os("CNI_PATH").map_or_else(|| "/usr/lib/cni".into(), PathBuf::from);
        LabError::require(&plugins.join("portmap"), "On Debian: apt-get install containernetworking-plugins")?;
        Ok(ClusterPrograms { server, plugins, dir })
    }

    /// What they are, in one line.
    pub fn versions(&self) -> Result<String> {
        let kubernetes = Self::KUBERNETES.iter().map(|name| (self.dir.join(name), *name, "--version"));
        let installed = Self::INSTALLED.iter().map(|(name, how, _)| (PathBuf::from(name), *name, *how));
        let said: Result<Vec<String>> =
            kubernetes.chain(installed).map(|(program, name, how)| version(&program, name, how)).collect();
        Ok(said?.join(", "))
    }
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The first thing that looks like a version in what it says.
fn version(program: &Path, name: &str, how: &str) -> Result<String> {
    let output = Output::of(Command::new(program).args(how.split(' ')), "the machine", None)?;
    let text = output.stdout + &output.stderr;
    let is_version =
        |word: &&str| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let word = text.split_whitespace().find(is_version).unwrap_or("of an unknown version");
    Ok(format!("{name} {}", word.trim_start_matches('v').trim_end_matches(',')))
}
