//! Labs that keep standing.
//!
//! A background process, the holder, is the lab: its namespaces live as long as it does. A small file in the temporary
//! folder says which process that is. A process id alone may have been given to somebody else meanwhile, so the file also
//! has the time at which the process started.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, geteuid, getuid, pidfd_open, pidfd_send_signal, setsid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde::{Deserialize, Serialize};
use twill_lab::{Lab, LabError, Machine, NetNs, Result};

use super::Shape;
use super::cluster;
use super::picture::{NodeView, PodView};

/// By which kubectl is the administrator of a lab with an API server. It exists only inside.
const ADMIN: &str = "/run/twill-lab/kube/admin.kubeconfig";

/// What the holder prints when the lab stands.
const READY: &str = "ready";

/// The content of the small file.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pid: i32,
    /// Field 22 of `/proc/<pid>/stat`.
    started: u64,
    shape: Shape,
    twill: PathBuf,
}

/// The files that belong to a standing lab.
struct Files {
    name: String,
    dir: PathBuf,
}

impl Files {
    fn new(name: &str) -> Result<Files> {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            return Err(LabError::Spec(format!("{name:?} cannot be a lab's name: use letters, digits, - and _")));
        }
        let dir = env::temp_dir().join(format!("twill-lab-{}", getuid().as_raw()));
        Ok(Files { name: name.into(), dir })
    }

    fn record(&self) -> PathBuf {
        self.dir.join(format!("{}.json", self.name))
    }

    fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// By which the user outside reaches a cluster.
    fn kubeconfig(&self) -> PathBuf {
        self.dir.join(format!("{}.kubeconfig", self.name))
    }

    /// The folder is ours alone: what its files say is acted upon.
    fn create_dir(&self) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt};
        let made = fs::DirBuilder::new().mode(0o700).create(&self.dir);
        if let Err(source) = made
            && source.kind() != ErrorKind::AlreadyExists
        {
            return Err(LabError::System { doing: format!("create {}", self.dir.display()), source });
        }
        let found = fs::symlink_metadata(&self.dir)
            .map_err(|source| LabError::System { doing: format!("look at {}", self.dir.display()), source })?;
        if !found.is_dir() || found.uid() != getuid().as_raw() || found.mode() & 0o022 != 0 {
            let dir = self.dir.display();
            return Err(LabError::Spec(format!("{dir} is not a folder that only you can write to: remove it")));
        }
        Ok(())
    }

    fn remove(&self) {
        // What is missing need not be removed.
        let _ = fs::remove_file(self.record());
        let _ = fs::remove_file(self.log());
        let _ = fs::remove_file(self.kubeconfig());
        let _ = fs::remove_dir(&self.dir);
    }

    /// The standing lab's record and its holder.
    fn open(&self) -> Result<Option<(Record, OwnedFd)>> {
        let path = self.record();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LabError::System { doing: format!("read {}", path.display()), source }),
        };
        self.create_dir()?;
        let record: Record = serde_json::from_str(&text).map_err(|source| LabError::Json {
            what: path.display().to_string(),
            source,
            text,
        })?;
        Ok(holder(&record).map(|holder| (record, holder)))
    }

    fn standing(&self) -> Result<(Record, OwnedFd)> {
        self.open()?.ok_or_else(|| {
            let ended = if self.record().exists() { "its holder has ended" } else { "it was never built, or is down" };
            LabError::Spec(format!("no lab {:?} stands here ({ended}): `twill-lab up` builds one", self.name))
        })
    }
}

/// The holder, if it still runs and is the same process. The open descriptor keeps it the same from here on.
fn holder(record: &Record) -> Option<OwnedFd> {
    let descriptor = pidfd_open(Pid::from_raw(record.pid)?, PidfdFlags::empty()).ok()?;
    (started(record.pid)? == record.started).then_some(descriptor)
}

fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Builds a lab in a holder of its own and waits until it stands.
pub(super) fn up(name: &str, shape: &Shape) -> Result<()> {
    let files = Files::new(name)?;
    files.create_dir()?;
    if files.open()?.is_some() {
        return Err(LabError::Spec(format!("the lab {name:?} stands already: `twill-lab down` ends it")));
    }
    let system = |doing: &str| {
        let doing = doing.to_string();
        move |source| LabError::System { doing, source }
    };
    let spec = shape.spec()?;
    let log = fs::File::create(files.log()).map_err(system("create the lab's log"))?;
    let shape_text = serde_json::to_string(shape).map_err(|error| LabError::Spec(error.to_string()))?;
    let program = env::current_exe().map_err(system("find the running program"))?;
    let mut command = Command::new(program);
    command.args(["hold", &shape_text]).arg(files.kubeconfig()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().map_err(system("start the lab's holder"))?;
    let pid = child.id().cast_signed();
    let record = Record { pid, started: started(pid).unwrap_or(0), shape: shape.clone(), twill: spec.twill };
    let text = serde_json::to_string(&record).map_err(|error| LabError::Spec(error.to_string()))?;
    let written = fs::write(files.record(), text).map_err(system("write the lab's record"));

    let mut line = String::new();
    if let (Ok(()), Some(pipe)) = (&written, child.stdout.take()) {
        // End of file, without the word, is an answer too: the holder has ended. What it says before are steps.
        for said in BufReader::new(pipe).lines().map_while(std::result::Result::ok) {
            line = said;
            if line == READY {
                break;
            }
            println!("{line}");
        }
    }
    if line == READY && shape.kubelet {
        println!("The cluster {name:?} stands.");
        println!("  export KUBECONFIG={}", files.kubeconfig().display());
        println!("  kubectl get nodes,pods -A -o wide");
        println!("  twill-lab exec n1         a shell on a node; underlay is the switch between them");
        println!("  twill-lab down            ends it");
        return Ok(());
    }
    if line == READY {
        println!("The lab {name:?} stands: nodes n1 to n{}, in each the pods n<node>-a, -b, ….", shape.nodes);
        println!("  twill-lab status          what the nodes hold");
        println!("  twill-lab exec n1-a       a shell in a pod; n1 is a node, underlay is the switch between them");
        if shape.api {
            println!("  twill-lab exec underlay -- kubectl get nodes -o wide");
        }
        println!("  twill-lab down            ends it");
        return Ok(());
    }
    // Errors would say that it has ended.
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(files.log()).unwrap_or_default();
    files.remove();
    written?;
    Err(LabError::Spec(format!("the lab could not be built.\n{}", said.trim())))
}

/// Is the lab: builds it, says so, and stays until it is ended by a signal.
pub(super) fn hold(shape: &Shape, kubeconfig: &Path) -> Result<ExitCode> {
    // Fails if the process leads a group already, which serves as well.
    let _ = setsid();
    // One of them stands; it goes with the process.
    let _standing = match shape.kubelet {
        true => (Some(cluster::up(shape.nodes, kubeconfig)?), None),
        false => (None, Some(Lab::up(shape.spec()?)?)),
    };
    println!("{READY}");
    loop {
        thread::park();
    }
}

/// Ends a lab.
pub(super) fn down(name: &str) -> Result<()> {
    let files = Files::new(name)?;
    let Some((_, holder)) = files.open()? else {
        let there_was = files.record().exists();
        files.remove();
        println!("The lab {name:?} {}.", if there_was { "had ended already" } else { "does not stand" });
        return Ok(());
    };
    pidfd_send_signal(&holder, Signal::TERM)
        .map_err(|errno| LabError::System { doing: format!("end the lab {name:?}"), source: errno.into() })?;
    let begin = Instant::now();
    while files.open()?.is_some() {
        if begin.elapsed() > Duration::from_secs(10) {
            return Err(LabError::Timeout {
                what: format!("the end of the lab {name:?}"),
                seconds: 10.0,
                last: "Its holder does not react.".into(),
            });
        }
        thread::sleep(Duration::from_millis(10));
    }
    files.remove();
    println!("The lab {name:?} is down.");
    Ok(())
}

/// Steps into a standing lab. The process must still have one thread only.
fn enter(name: &str) -> Result<Record> {
    let (record, holder) = Files::new(name)?.standing()?;
    let mut spaces = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::NETWORK;
    if !geteuid().is_root() {
        spaces |= ThreadNameSpaceType::USER;
    }
    move_into_thread_name_spaces(holder.as_fd(), spaces)
        .map_err(|errno| LabError::System { doing: format!("enter the lab {name:?}"), source: errno.into() })?;
    Ok(record)
}

/// Runs a command at a place of a standing lab.
pub(super) fn exec(name: &str, place: &str, command: &[String]) -> Result<ExitCode> {
    enter(name)?;
    let ns = NetNs::open(place).map_err(|_| {
        LabError::Spec(format!("no {place:?} in the lab: nodes are n1, n2, …, pods n1-a, n1-b, …, the switch underlay"))
    })?;
    let shell = [env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into())];
    let command = if command.is_empty() { &shell } else { command };
    let mut program = Machine::command_in(place, &command[0]).unwrap_or_else(|| Command::new(&command[0]));
    program.args(&command[1..]);
    if Path::new(ADMIN).is_file() {
        program.env("KUBECONFIG", ADMIN).env("KUBECACHEDIR", Path::new(ADMIN).with_extension("cache"));
    }
    let error = ns.within(|| program.exec())?;
    Err(LabError::System { doing: format!("run {} in {place}", command[0]), source: error })
}

/// Shows a standing lab.
pub(super) fn status(name: &str) -> Result<ExitCode> {
    let record = enter(name)?;
    if record.shape.kubelet {
        let underlay = NetNs::open("underlay")?;
        let mut kubectl = Command::new("kubectl");
        kubectl.env("KUBECONFIG", ADMIN).args(["get", "nodes,pods", "-A", "-o", "wide"]);
        let error = underlay.within(|| kubectl.exec())?;
        return Err(LabError::System { doing: "run kubectl".into(), source: error });
    }
    let (mut all_well, mut picture) = (true, String::new());
    for number in 1..=record.shape.nodes {
        let view = NodeView::of(&NetNs::open(&format!("n{number}"))?, &record.twill);
        all_well &= view.is_well();
        picture.push_str(&view.to_string());
    }
    for pod in PodView::all(Path::new("/run/netns")) {
        picture.push_str(&format!("{pod}\n"));
    }
    // Whoever reads may have seen enough (`| head`).
    let _ = io::stdout().write_all(picture.as_bytes());
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
