//! A real registry beside the nodes: Debian's `docker-registry`, with TLS, on the router's address.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};
use crate::kube::pki::{Authority, Certificate};
use crate::netns::NetNs;
use crate::process::Process;

/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(60);

/// A registry. Its process ends with it; what was pushed stays while the lab stands.
#[derive(Debug)]
pub struct Registry {
    program: PathBuf,
    ns: NetNs,
    address: SocketAddr,
    dir: PathBuf,
    authority: Authority,
    process: RefCell<Option<Process>>,
}

impl Registry {
    /// The program, as this variable names it.
    pub const PROGRAM: &str = "TWILL_REGISTRY";
    const PORT: u16 = 5000;

    /// The program that the environment names.
    pub fn program() -> Result<PathBuf> {
        let named = env::var_os(Self::PROGRAM).map(PathBuf::from).ok_or_else(|| LabError::Missing {
            program: "docker-registry".into(),
            advice: format!("{} is not set; `cargo xtask test` fetches it and sets it", Self::PROGRAM),
        })?;
        LabError::require(&named, &format!("{} names it", Self::PROGRAM))
    }

    /// Starts it in a namespace, on an address of that namespace. Its files are in `dir`.
    pub(crate) fn start(program: &Path, ns: &NetNs, address: IpAddr, dir: PathBuf) -> Result<Registry> {
        fs::create_dir_all(&dir).map_err(LabError::system(format!("create {}", dir.display())))?;
        let authority = Authority::create(dir.join("pki"))?;
        let Certificate { certificate, key } = authority.server(&[address])?;
        let address = SocketAddr::from((address, Self::PORT));
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: \
             \"{address}\"\n  tls: {{certificate: {}, key: {}}}\n",
            dir.join("storage").display(),
            certificate.display(),
            key.display()
        );
        let file = dir.join("config.yml");
        fs::write(&file, config).map_err(LabError::system(format!("write {}", file.display())))?;
        let (program, ns, process) = (program.to_owned(), ns.clone(), RefCell::new(None));
        let registry = Registry { program, ns, address, dir, authority, process };
        registry.resume()?;
        Ok(registry)
    }

    /// The certificate by which clients know it.
    pub fn certificate_authority(&self) -> PathBuf {
        self.authority.certificate()
    }

    /// A name in it: `192.0.2.254:5000/…`.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Ends it, as a machine ends that loses its power.
    pub fn stop(&self) -> Result<()> {
        self.process.borrow_mut().take().map_or(Ok(()), |mut process| process.kill().map(drop))
    }

    /// Starts it again, with what it had.
    pub fn resume(&self) -> Result<()> {
        let log = self.dir.join("log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.map_err(LabError::system(format!("open {}", log.display())))?;
        let twin = file.try_clone().map_err(LabError::system(format!("open {}", log.display())))?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg(self.dir.join("config.yml")).stdin(Stdio::null()).stdout(twin).stderr(file);
        *self.process.borrow_mut() = Some(self.ns.spawn(&mut command)?);
        let begin = Instant::now();
        while self.ns.within(|| TcpStream::connect(self.address))?.is_err() {
            if begin.elapsed() > PATIENCE {
                let last = fs::read_to_string(&log).unwrap_or_default();
                return Err(LabError::Timeout { what: "the registry".into(), seconds: PATIENCE.as_secs_f64(), last });
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Puts a component there with `twill backend push`, and returns the reference that pins it.
    pub fn push(&self, twill: &Path, component: &Path, name: &str) -> Result<String> {
        let words = [twill.display().to_string(), component.display().to_string(), self.name(name)];
        let authority = self.certificate_authority().display().to_string();
        let said = self.ns.run(&[&words[0], "backend", "push", &words[1], &words[2], "--registry-ca", &authority])?;
        Ok(said.trim().to_owned())
    }
}
