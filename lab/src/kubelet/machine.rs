//! A node's machine: namespaces of its own, and containerd as its first process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::cgroups::Cgroups;
use super::image::Image;
use crate::error::{LabError, Result};
use crate::netns::{NetNs, Output};
use crate::process::Process;
use crate::sandbox::Sandbox;
use crate::underlay::Attachment;

/// What becomes the first process.
const BOOT: &str = include_str!("machine.sh");

/// Runs a program inside: in the machine's cgroups, which a kubelet and containerd have to see as their own.
const STEP_INSIDE: &str =
    "for group in /sys/fs/cgroup/*/cgroup.procs; do echo $$ >\"$group\"; done; exec \"$0\" \"$@\"";

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine that runs. It ends, with everything in it, when this value is dropped.
#[derive(Debug)]
pub struct Machine {
    /// Its host name, and its Node's.
    pub name: String,
    /// Its network namespace.
    pub ns: NetNs,
    /// Where its `eth0` is connected.
    pub underlay: Attachment,
    dir: PathBuf,
    init: u32,
    agents: Vec<Process>,
    // Last: what ends with it are the processes above.
    _world: Process,
}

impl Machine {
    /// The file of this machine that holds the process id of its first process.
    const INIT: &str = "init.pid";

    /// Boots a machine whose network is there already, and waits until containerd answers.
    pub(super) fn boot(ns: NetNs, underlay: Attachment, cgroups: &Cgroups) -> Result<Machine> {
        let name = ns.name().to_string();
        let dir = Path::new(Sandbox::WORK).join(&name);
        fs::create_dir_all(&dir).map_err(LabError::system(format!("create {}", dir.display())))?;
        let config = dir.join("containerd.toml");
        fs::write(&config, containerd_config()).map_err(LabError::system(format!("write {}", config.display())))?;
        let join: String =
            cgroups.add(&name)?.iter().map(|group| format!("echo $$ >'{}/cgroup.procs'\n", group.display())).collect();
        let mut command = Command::new("sh");
        command
            .args([
                "-euc",
                &format!("{join}exec unshare --mount --pid --fork --kill-child --cgroup --uts sh -c \"$@\""),
            ])
            .args(["sh", BOOT, "machine", &name, Sandbox::WORK])
            .arg(&config);
        let world = ns.spawn(with_log(&mut command, &dir.join("containerd.log"))?)?;
        let mut machine = Machine { name, ns, underlay, dir, init: 0, agents: Vec::new(), _world: world };
        machine.wait_booted()?;
        Ok(machine)
    }

    /// A program inside the machine, to which arguments are added. It has to be started in the machine's network namespace.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        step_inside(self.init, program.as_ref())
    }

    /// The same for another process than the one that booted the machine, if `name` is a machine of this sandbox.
    pub fn command_in(name: &str, program: impl AsRef<Path>) -> Option<Command> {
        let init = fs::read_to_string(Path::new(Sandbox::WORK).join(name).join(Self::INIT)).ok()?;
        Some(step_inside(init.parse().ok()?, program.as_ref()))
    }

    /// Runs a program inside to its end, whatever that is.
    pub fn exec(&self, argv: &[&str]) -> Result<Output> {
        self.ns.exec_with(self.command(argv[0]).args(&argv[1..]), "")
    }

    /// Runs a program inside that has to succeed, and returns what it prints.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let output = self.exec(argv)?;
        output.check(argv, &self.name)?;
        Ok(output.stdout)
    }

    /// Starts a program inside that goes on in the background, with a log of its name.
    pub(super) fn start(&mut self, command: &mut Command, log: &str) -> Result<()> {
        let agent = self.ns.spawn(with_log(command, &self.path(log))?)?;
        self.agents.push(agent);
        Ok(())
    }

    /// Gives an image to containerd.
    pub fn import(&self, image: &Image) -> Result<()> {
        self.run(&["ctr", "-n", "k8s.io", "images", "import", &image.file.display().to_string()]).map(drop)
    }

    /// A file of this machine: `containerd.log`, `kubelet.log`, `kube-proxy.log`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The last lines of one of its logs.
    pub fn log_end(&self, name: &str, lines: usize) -> String {
        let log =
            fs::read(self.path(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn wait_booted(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            self.init = self.init.max(only_child(self._world.id()).unwrap_or(0));
            if self.init != 0 && self.exec(&["ctr", "version"]).is_ok_and(|output| output.ok) {
                let file = self.path(Self::INIT);
                let written = fs::write(&file, self.init.to_string());
                return written.map_err(LabError::system(format!("write {}", file.display())));
            }
            let ended = self._world.ended()?;
            if ended.is_some() || begin.elapsed() > PATIENCE {
                return Err(LabError::Timeout {
                    what: format!("an answer of containerd in {}", self.name),
                    seconds: begin.elapsed().as_secs_f64(),
                    last: format!("The end of its log:\n{}", self.log_end("containerd.log", 15)),
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn step_inside(init: u32, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .args(["--target", &init.to_string(), "--mount", "--pid", "--uts", "--cgroup", "--"])
        .args(["sh", "-c", STEP_INSIDE])
        .arg(program);
    command
}

fn only_child(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.split_whitespace().next()?.parse().ok()
}

fn with_log<'a>(command: &'a mut Command, log: &Path) -> Result<&'a mut Command> {
    let file = fs::OpenOptions::new().create(true).append(true).open(log);
    let file = file.map_err(LabError::system(format!("open {}", log.display())))?;
    let twin = file.try_clone().map_err(LabError::system(format!("open {}", log.display())))?;
    Ok(command.stdin(Stdio::null()).stdout(twin).stderr(file))
}

/// Paths are the usual ones: each machine has them for itself.
fn containerd_config() -> String {
    format!(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# A lab may run where this right was taken from root.
restrict_oom_score_adj = true
disable_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
        pause = Image::BUSYBOX
    )
}
