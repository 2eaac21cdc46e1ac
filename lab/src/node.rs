//! One node: its namespace, its files, its daemon.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::process::Signal;
use serde_json::Value;

use crate::error::{LabError, Result};
use crate::manifest::Manifest;
use crate::netns::{NetNs, Output};
use crate::process::Process;
use crate::source::Source;
use crate::spec::LabSpec;
use crate::status::Status;
use crate::underlay::Attachment;

/// A node. What a real one has below `/etc`, `/run` and `/var/lib` it has in a folder of its own.
#[derive(Debug)]
pub struct Node {
    /// `n1`, …
    pub name: String,
    /// Its network namespace.
    pub ns: NetNs,
    /// Where its `eth0` is connected.
    pub underlay: Attachment,
    /// Its podCIDRs, IPv4 first.
    pub pod_cidrs: Vec<IpNet>,
    dir: PathBuf,
    source: Source,
    backends: PathBuf,
    twill: PathBuf,
    daemon_args: Vec<String>,
    daemon: Mutex<Option<Process>>,
}

impl Node {
    pub(crate) fn new(
        spec: &LabSpec,
        number: usize,
        ns: NetNs,
        underlay: Attachment,
        source: Source,
        work: &Path,
    ) -> Result<Node> {
        let name = ns.name().to_string();
        let dir = work.join(&name);
        fs::create_dir_all(&dir).map_err(LabError::system(format!("create {}", dir.display())))?;
        let pod_cidrs = spec.pod_cidrs(u32::try_from(number).unwrap_or_default());
        let node = Node {
            backends: spec.backends_dir.clone().unwrap_or_else(|| work.join("backends")),
            twill: spec.twill.clone(),
            daemon_args: spec.daemon_args.clone(),
            daemon: Mutex::new(None),
            name,
            ns,
            underlay,
            pod_cidrs,
            dir,
            source,
        };
        node.write_net_conf(&spec.net_conf.clone().unwrap_or_else(|| spec.net_conf_with(&spec.backend)))?;
        Ok(node)
    }

    /// Its manifest before anything was published.
    pub fn manifest(&self) -> Manifest {
        let mut manifest = Manifest::new(&self.name, &self.pod_cidrs);
        manifest.addresses = self.underlay.addresses.iter().map(ToString::to_string).collect();
        manifest
    }

    /// The annotations that its Node has now.
    pub fn annotations(&self) -> Result<BTreeMap<String, String>> {
        self.source.annotations(&self.name)
    }

    /// Its Node as it is now.
    pub(crate) fn object(&self) -> Result<Value> {
        self.source.read(&self.name)
    }

    /// Sets annotations and a condition of its Node, as whoever else may do.
    pub(crate) fn publish(&self, annotations: &Value, condition: &Value) -> Result<()> {
        self.source.publish(&self.name, annotations, condition)
    }

    /// A file or folder of this node: `net-conf.json`, `subnet.env`, `log`, `run`, `state`, `cni`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Replaces its net-conf.json.
    pub fn write_net_conf(&self, text: &str) -> Result<()> {
        let (file, new) = (self.path("net-conf.json"), self.path(".net-conf.json.new"));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &file))
            .map_err(LabError::system(format!("write {}", file.display())))
    }

    /// Its subnet.env, as the bytes are.
    pub fn subnet_env(&self) -> Result<String> {
        let file = self.path("subnet.env");
        fs::read_to_string(&file).map_err(LabError::system(format!("read {}", file.display())))
    }

    /// The value of a key of subnet.env.
    pub fn subnet_env_value(&self, key: &str) -> Result<String> {
        let text = self.subnet_env()?;
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(str::to_string)
            .ok_or_else(|| LabError::Spec(format!("no {key} in {}: {text}", self.path("subnet.env").display())))
    }

    /// The command line of its daemon.
    pub fn daemon_command(&self) -> Command {
        let mut command = Command::new(&self.twill);
        command.arg("run");
        for (flag, value) in [
            ("--net-config-path", self.path("net-conf.json")),
            ("--subnet-file", self.path("subnet.env")),
            ("--backends-dir", self.backends.clone()),
            ("--state-dir", self.path("state")),
            ("--run-dir", self.path("run")),
            ("--pool-dir", self.path("cni/networks/cbr0")),
            ("--cni-state-dir", self.path("cni/flannel")),
        ] {
            command.arg(flag).arg(value);
        }
        self.source.tell(&mut command);
        command.args(&self.daemon_args);
        command.env("NODE_NAME", &self.name);
        command
    }

    /// Starts the daemon. It ends at the latest with the calling thread.
    pub fn start(&self) -> Result<()> {
        self.start_with(&[])
    }

    /// Starts the daemon so that it kills itself when a change of backends gets to that point.
    pub fn start_to_die_at(&self, point: &str) -> Result<()> {
        let mut command = self.daemon_command();
        command.env("TWILL_DIE_AT", point);
        self.launch(command)
    }

    /// Starts the daemon with more flags.
    pub fn start_with(&self, flags: &[&str]) -> Result<()> {
        let mut command = self.daemon_command();
        command.args(flags);
        self.launch(command)
    }

    fn launch(&self, mut command: Command) -> Result<()> {
        let mut daemon = self.daemon();
        if let Some(running) = daemon.as_mut()
            && running.ended()?.is_none()
        {
            return Err(LabError::Spec(format!("the daemon of {} runs already", self.name)));
        }
        let log = self.path("log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.map_err(LabError::system(format!("open {}", log.display())))?;
        let twin = file.try_clone().map_err(LabError::system(format!("open {}", log.display())))?;
        command.stdin(Stdio::null()).stdout(twin).stderr(file);
        *daemon = Some(self.ns.spawn(&mut command)?);
        Ok(())
    }

    /// Runs the daemon in the foreground until it ends by itself: for inputs with which it must not start.
    pub fn run_daemon(&self, flags: &[&str], limit: Duration) -> Result<Output> {
        let before = self.log().len();
        self.start_with(flags)?;
        let ended = self.daemon().as_mut().map(|daemon| daemon.wait(limit)).transpose();
        if ended.is_err() {
            self.kill9()?;
        }
        let status = ended?.ok_or_else(|| LabError::Spec("no daemon".into()))?;
        *self.daemon() = None;
        Ok(Output {
            ok: status.success(),
            status: status.to_string(),
            code: status.code(),
            stdout: String::new(),
            stderr: self.log().get(before..).unwrap_or_default().to_string(),
        })
    }

    /// Waits until the daemon ends by itself.
    pub fn wait_death(&self, limit: Duration) -> Result<ExitStatus> {
        let mut daemon = self.daemon();
        let running = daemon.as_mut().ok_or_else(|| LabError::Spec(format!("no daemon runs on {}", self.name)))?;
        let status = running.wait(limit).map_err(|error| LabError::Spec(format!("{error}\n{}", self.log_end())))?;
        *daemon = None;
        Ok(status)
    }

    /// Stops the daemon as Kubernetes does, with SIGTERM, and says how it ended.
    pub fn stop(&self) -> Result<Option<ExitStatus>> {
        let Some(mut daemon) = self.daemon().take() else { return Ok(None) };
        daemon.signal(Signal::TERM)?;
        daemon.wait(Duration::from_secs(10)).map(Some)
    }

    /// Ends the daemon with SIGKILL.
    pub fn kill9(&self) -> Result<()> {
        if let Some(mut daemon) = self.daemon().take() {
            daemon.kill()?;
        }
        Ok(())
    }

    /// Freezes the daemon: it hears nothing until [`Self::resume`].
    pub fn pause(&self) -> Result<()> {
        self.daemon().as_mut().map_or(Ok(()), |daemon| daemon.signal(Signal::STOP))
    }

    /// Lets a frozen daemon go on.
    pub fn resume(&self) -> Result<()> {
        self.daemon().as_mut().map_or(Ok(()), |daemon| daemon.signal(Signal::CONT))
    }

    /// Makes the next daemon start as if none had been there: it takes what the configuration says, without trying it first.
    pub fn forget(&self) -> Result<()> {
        let file = self.path("state").join("backends.json");
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LabError::system(format!("remove {}", file.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// Stops and starts the daemon.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// The daemon's process id, while it runs.
    pub fn daemon_pid(&self) -> Option<u32> {
        let mut daemon = self.daemon();
        let running = daemon.as_mut()?;
        matches!(running.ended(), Ok(None)).then(|| running.id())
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Process>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything its daemons wrote so far.
    pub fn log(&self) -> String {
        fs::read(self.path("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Asks the daemon.
    pub fn status(&self) -> Result<Status> {
        Status::ask(&self.ns, &self.twill)
    }

    /// Waits until the daemon's status is as wished. Fails at once if the daemon ends.
    pub fn wait_for(&self, what: &str, limit: Duration, wished: impl Fn(&Status) -> bool) -> Result<Status> {
        let start = Instant::now();
        loop {
            if let Some(running) = self.daemon().as_mut()
                && let Some(status) = running.ended()?
            {
                let (node, status, log) = (self.name.clone(), status.to_string(), self.log_end());
                return Err(LabError::DaemonEnded { node, status, log });
            }
            let status = self.status();
            if let Ok(status) = &status
                && wished(status)
            {
                return Ok(status.clone());
            }
            if start.elapsed() > limit {
                let last = match status {
                    Ok(status) => format!("Its status: {status:#?}"),
                    Err(error) => error.to_string(),
                };
                return Err(LabError::Timeout {
                    what: format!("{}: {what}", self.name),
                    seconds: limit.as_secs_f64(),
                    last: format!("{last}\nThe end of its log:\n{}", self.log_end()),
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the daemon says that the node is ready.
    pub fn wait_ready(&self, limit: Duration) -> Result<Status> {
        self.wait_for("ready", limit, |status| status.ready)
    }

    /// Waits until the daemon knows exactly `peers` peers and has nothing left to do for them.
    pub fn wait_settled(&self, peers: usize, limit: Duration) -> Result<Status> {
        self.wait_for(&format!("{peers} peers settled"), limit, |status| {
            status.settled() && status.peers.len() == peers
        })
    }

    /// Counts the configurations of backends that the daemon accepted.
    pub fn generation(&self) -> Result<u64> {
        self.status().map(|status| status.generation())
    }

    /// Waits until a change of backends that came after `generation` is done, and nothing is left to do for any peer.
    pub fn wait_swapped(&self, generation: u64, limit: Duration) -> Result<Status> {
        self.wait_for("the change of backends", limit, |status| {
            status.generation() > generation && status.phase().is_none() && status.settled()
        })
    }

    /// Puts the default routes back, as whoever manages a machine's network does after its interface was down.
    pub fn restore_default_routes(&self) -> Result<()> {
        self.ns.ip_batch(&self.underlay.default_routes())
    }
}
