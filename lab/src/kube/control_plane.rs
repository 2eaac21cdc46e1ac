//! etcd and the API server.

use std::cell::RefCell;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::account::Account;
use super::kubeconfig::{Credentials, kubeconfig};
use super::kubectl::Kubectl;
use super::pki::{Authority, Certificate};
use super::programs::KubePrograms;
use crate::error::{LabError, Result};
use crate::netns::NetNs;
use crate::process::Process;

/// How long a server may take until it is ready. Seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a server may take to end in peace, with watches open.
const GRACE: Duration = Duration::from_secs(15);

const ETCD: &str = "http://127.0.0.1:2379";

/// A control plane. Its processes end with it.
#[derive(Debug)]
pub struct ControlPlane {
    /// The programs it is made of.
    pub programs: KubePrograms,
    ns: NetNs,
    address: IpAddr,
    dir: PathBuf,
    flags: Vec<String>,
    pub(super) authority: Authority,
    certificate: Certificate,
    kubectl: Kubectl,
    // The server before its store.
    server: RefCell<Option<Process>>,
    etcd: RefCell<Option<Process>>,
}

impl ControlPlane {
    /// The server's port.
    pub const PORT: u16 = 6443;

    /// Starts it in a namespace, on an address of that namespace, with more flags for the server, and waits until it is
    /// ready. Its files are in `dir`.
    pub fn start(
        programs: KubePrograms,
        ns: &NetNs,
        address: IpAddr,
        dir: PathBuf,
        flags: &[String],
    ) -> Result<ControlPlane> {
        fs::create_dir_all(&dir).map_err(LabError::system(format!("create {}", dir.display())))?;
        let authority = Authority::create(dir.join("pki"))?;
        let certificate = authority.server(&[address, [127, 0, 0, 1].into(), [10, 96, 0, 1].into()])?;
        let kubectl = Kubectl { ns: ns.clone(), kubeconfig: dir.join("admin.kubeconfig"), cache: dir.join("cache") };
        let control_plane = ControlPlane {
            programs,
            ns: ns.clone(),
            address,
            dir,
            flags: flags.to_vec(),
            authority,
            certificate,
            kubectl,
            server: RefCell::new(None),
            etcd: RefCell::new(None),
        };
        let admin = control_plane.user("admin", &["system:masters"])?;
        control_plane.write_kubeconfig("admin", &admin)?;
        Account::write_static_tokens(&control_plane)?;
        *control_plane.etcd.borrow_mut() = Some(control_plane.start_etcd()?);
        control_plane.start_server()?;
        Ok(control_plane)
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// `kubectl` as somebody else.
    pub fn kubectl_as(&self, name: &str, credentials: &Credentials) -> Result<Kubectl> {
        Ok(Kubectl { kubeconfig: self.write_kubeconfig(name, credentials)?, ..self.kubectl.clone() })
    }

    /// `https://…`
    pub fn url(&self) -> String {
        format!("https://{}", std::net::SocketAddr::from((self.address, Self::PORT)))
    }

    /// The address it listens on.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The certificate by which clients know the server.
    pub fn certificate_authority(&self) -> PathBuf {
        self.authority.certificate()
    }

    /// The folder of its files: `kube-apiserver.log`, `admin.kubeconfig`, ….
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A user with a client certificate.
    pub fn user(&self, name: &str, groups: &[&str]) -> Result<Credentials> {
        let Certificate { certificate, key } = self.authority.client(name, groups)?;
        Ok(Credentials::Certificate { certificate, key })
    }

    /// Writes `<name>.kubeconfig` and returns its path.
    pub fn write_kubeconfig(&self, name: &str, credentials: &Credentials) -> Result<PathBuf> {
        let file = self.dir.join(format!("{name}.kubeconfig"));
        let content = kubeconfig(&self.url(), &self.authority.certificate(), credentials);
        fs::write(&file, format!("{content:#}\n")).map_err(LabError::system(format!("write {}", file.display())))?;
        Ok(file)
    }

    /// Starts the server again after [`Self::stop_server`] or [`Self::kill_server`], with the objects and the port it had.
    pub fn start_server(&self) -> Result<()> {
        let mut server = self.spawn("kube-apiserver", &mut self.server_command())?;
        self.wait_until("kube-apiserver", &mut server, || {
            self.kubectl.exec(&["get", "--raw", "/readyz", "--request-timeout=5s"]).is_ok_and(|out| out.stdout == "ok")
        })?;
        *self.server.borrow_mut() = Some(server);
        Ok(())
    }

    /// Stops the server in peace; the store stays.
    pub fn stop_server(&self) -> Result<()> {
        let Some(mut server) = self.server.borrow_mut().take() else { return Ok(()) };
        server.signal(Signal::TERM)?;
        // One that waits for open watches is killed, as Kubernetes does.
        server.wait(GRACE).or_else(|_| server.kill()).map(drop)
    }

    /// Ends the server at once, as a crash does; the store stays.
    pub fn kill_server(&self) -> Result<()> {
        let Some(mut server) = self.server.borrow_mut().take() else { return Ok(()) };
        server.kill().map(drop)
    }

    fn start_etcd(&self) -> Result<Process> {
        let mut command = Command::new(&self.programs.etcd);
        command.arg("--data-dir").arg(self.dir.join("etcd"));
        for (flag, value) in [
            ("--logger", "zap"),
            ("--log-level", "warn"),
            ("--listen-client-urls", ETCD),
            ("--advertise-client-urls", ETCD),
            ("--listen-peer-urls", "http://127.0.0.1:2380"),
            ("--initial-advertise-peer-urls", "http://127.0.0.1:2380"),
            ("--initial-cluster", "default=http://127.0.0.1:2380"),
        ] {
            command.args([flag, value]);
        }
        // The server waits for it by itself.
        self.spawn("etcd", &mut command)
    }

    fn server_command(&self) -> Command {
        let mut command = Command::new(&self.programs.server);
        let address = self.address.to_string();
        let (authority, accounts) = (self.authority.certificate(), self.authority.accounts_key());
        for (flag, file) in [
            ("--tls-cert-file", &self.certificate.certificate),
            ("--tls-private-key-file", &self.certificate.key),
            ("--client-ca-file", &authority),
            ("--service-account-key-file", &accounts),
            ("--service-account-signing-key-file", &accounts),
            ("--token-auth-file", &Account::static_tokens(self)),
        ] {
            command.arg(format!("{flag}={}", file.display()));
        }
        for (flag, value) in [
            ("--etcd-servers", ETCD),
            ("--bind-address", &address),
            ("--advertise-address", &address),
            ("--secure-port", &Self::PORT.to_string()),
            ("--authorization-mode", "Node,RBAC"),
            ("--allow-privileged", "true"),
            ("--service-account-issuer", Account::ISSUER),
            ("--service-cluster-ip-range", "10.96.0.0/16"),
            ("--endpoint-reconciler-type", "none"),
            // Pods can be made although no controller makes accounts.
            ("--disable-admission-plugins", "ServiceAccount"),
            ("--kubelet-preferred-address-types", "InternalIP,Hostname"),
        ] {
            // Of a list that is given twice, the server takes both.
            let flag = format!("{flag}=");
            if !self.flags.iter().any(|given| given.starts_with(&flag)) {
                command.arg(flag + value);
            }
        }
        command.args(self.programs.version_flags()).args(&self.flags);
        command
    }

    pub(super) fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.dir.join(format!("{name}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.map_err(LabError::system(format!("open {}", log.display())))?;
        let twin = file.try_clone().map_err(LabError::system(format!("open {}", log.display())))?;
        self.ns.spawn(command.stdin(Stdio::null()).stdout(twin).stderr(file))
    }

    fn wait_until(&self, name: &str, process: &mut Process, ready: impl Fn() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !ready() {
            let ended = process.ended()?;
            if ended.is_some() || begin.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(15).collect();
                let end: Vec<&str> = end.into_iter().rev().collect();
                return Err(LabError::Timeout {
                    what: format!("{name} ready"),
                    seconds: begin.elapsed().as_secs_f64(),
                    last: format!(
                        "It {}. The end of its log:\n{}",
                        ended.map_or("runs".into(), |s| s.to_string()),
                        end.join("\n")
                    ),
                });
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The server first: it would complain about its store. Both are killed in any case.
        self.server.borrow_mut().take();
    }
}
