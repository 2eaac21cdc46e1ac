//! Which API server.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{LabError, Result};

/// etcd and an API server.
#[derive(Debug, Clone)]
pub struct KubePrograms {
    pub(super) etcd: PathBuf,
    pub(super) server: PathBuf,
    /// 20 in v1.20.2; None for a server that is not kube-apiserver but made with its library.
    minor: Option<u32>,
}

impl KubePrograms {
    /// The folder that has etcd and kube-apiserver, of whatever version.
    pub const ANY: &str = "TWILL_KUBE";
    /// The folder that has them so new that lists are streamed, or a `coreapi` built on the library of such a version.
    pub const NEXT: &str = "TWILL_KUBE_NEXT";

    /// The programs in the folder that an environment variable names: [`Self::ANY`] or [`Self::NEXT`].
    pub fn from_env(variable: &str) -> Result<KubePrograms> {
        let dir = env::var_os(variable).map(PathBuf::from).ok_or_else(|| LabError::Missing {
            program: "kube-apiserver".into(),
            advice: format!(
                "{variable} is not set; `cargo xtask test` and `cargo xtask lab up --api` find or build it and set it"
            ),
        })?;
        let advice = format!("{variable} names its folder");
        let etcd = LabError::require(&dir.join("etcd"), &advice)?;
        let coreapi = dir.join("coreapi");
        if coreapi.is_file() {
            return Ok(KubePrograms { etcd, server: coreapi, minor: None });
        }
        let server = LabError::require(&dir.join("kube-apiserver"), &advice)?;
        let minor = Some(minor_version(&server)?);
        Ok(KubePrograms { etcd, server, minor })
    }

    /// Whether it is all of kube-apiserver, with admission, bootstrap roles and tokens for service accounts.
    pub fn is_complete(&self) -> bool {
        self.minor.is_some()
    }

    /// Flags without which this version has no dual-stack Nodes.
    pub(super) fn version_flags(&self) -> &'static [&'static str] {
        match self.minor {
            Some(..=22) => &["--feature-gates=IPv6DualStack=true"],
            _ => &[],
        }
    }
}

fn minor_version(server: &Path) -> Result<u32> {
    let output = Command::new(server).arg("--version").output();
    let output = output.map_err(LabError::system(format!("run {} --version", server.display())))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_string();
    let minor = said.strip_prefix("Kubernetes v1.").and_then(|rest| rest.split('.').next()?.parse().ok());
    minor.ok_or_else(|| LabError::Spec(format!("{} --version says {said:?}, which is no version", server.display())))
}
