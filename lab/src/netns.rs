//! Network namespaces by name, and programs run inside them.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use rustix::io::Errno;
use rustix::mount::mount_bind;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use serde_json::Value;

use crate::error::{LabError, Result};
use crate::process::{Process, ends_with_us};
use crate::sandbox::set_sysctl;

/// A named network namespace of the sandbox. Holds nothing open, so that a deleted namespace really goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetNs {
    name: String,
}

/// How a program ended and what it said.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether its exit code was 0.
    pub ok: bool,
    /// How it ended, in words.
    pub status: String,
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl NetNs {
    /// Makes a namespace in which the loopback interface is up and duplicate address detection is off (it would cost
    /// every test two seconds per address).
    pub fn add(name: &str) -> Result<NetNs> {
        let output = Output::of(Command::new("ip").args(["netns", "add", name]), "the sandbox", None)?;
        output.check(&["ip", "netns", "add", name], "the sandbox")?;
        let ns = NetNs { name: name.into() };
        ns.within(|| {
            for conf in ["all", "default"] {
                set_sysctl(&format!("net/ipv6/conf/{conf}/accept_dad"), "0")?;
                set_sysctl(&format!("net/ipv6/conf/{conf}/keep_addr_on_down"), "1")?;
            }
            Ok(())
        })??;
        ns.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// Makes a namespace as the kernel makes it, except that the loopback interface is up.
    pub fn plain(name: &str) -> Result<NetNs> {
        let ns = NetNs { name: name.into() };
        let path = ns.path();
        File::create_new(&path).map_err(LabError::system(format!("create {path}")))?;
        let make = || {
            // SAFETY: only the namespace of this thread changes, which ends here.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            mount_bind("/proc/thread-self/ns/net", &path)
        };
        let made = thread::scope(|scope| scope.spawn(make).join().unwrap_or(Err(Errno::IO)));
        made.map_err(LabError::errno(format!("make the network namespace {name}")))?;
        ns.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// A namespace that is there already.
    pub fn open(name: &str) -> Result<NetNs> {
        let ns = NetNs { name: name.into() };
        ns.file().map(|_| ns)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Takes the name away. The namespace ends with the last process and socket in it.
    pub fn delete(&self) -> Result<()> {
        let args = ["ip", "netns", "del", &self.name];
        Output::of(Command::new(args[0]).args(&args[1..]), "the sandbox", None)?.check(&args, "the sandbox")
    }

    fn file(&self) -> Result<File> {
        let path = self.path();
        File::open(&path).map_err(LabError::system(format!("open {path} (is the name right?)")))
    }

    /// Runs `work` with the calling thread inside. Sockets made there stay there; threads started there too.
    pub fn within<R>(&self, work: impl FnOnce() -> R) -> Result<R> {
        let home = File::open("/proc/thread-self/ns/net").map_err(LabError::system("open /proc/thread-self/ns/net"))?;
        let there = self.file()?;
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(LabError::errno(format!("enter the network namespace {}", self.name)))?;
        let _back = Return(home);
        Ok(work())
    }

    /// Runs a program to its end, whatever that is.
    pub fn exec(&self, argv: &[&str]) -> Result<Output> {
        self.within(|| Output::of(Command::new(argv[0]).args(&argv[1..]), &self.name, None))?
    }

    /// Runs a program with text on its standard input.
    pub fn exec_with(&self, command: &mut Command, input: &str) -> Result<Output> {
        self.within(|| Output::of(command, &self.name, Some(input)))?
    }

    /// Runs a program that has to succeed, and returns what it wrote to standard output.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let output = self.exec(argv)?;
        output.check(argv, &self.name)?;
        Ok(output.stdout)
    }

    /// `ip` commands, one a line, in one go.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-batch", "-"]);
        self.exec_with(&mut ip, lines)?.check(&["ip", "-batch", "-"], &format!("{} (lines: {lines})", self.name))
    }

    /// What `ip -json -details …` prints; an empty list where it prints nothing.
    pub fn ip_json(&self, args: &[&str]) -> Result<Value> {
        self.json(&[&["ip", "-json", "-details"], args].concat())
    }

    /// What `bridge -json …` prints.
    pub fn bridge_json(&self, args: &[&str]) -> Result<Value> {
        self.json(&[&["bridge", "-json"], args].concat())
    }

    fn json(&self, argv: &[&str]) -> Result<Value> {
        let text = self.run(argv)?;
        if text.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&text).map_err(LabError::json(format!("output of `{}`", argv.join(" ")), &text))
    }

    /// Starts a program that goes on in the background. It ends at the latest with the calling thread.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        self.within(|| Process::spawn(command, &self.name))?
    }
}

/// Brings the thread back on every way out.
struct Return(File);

impl Drop for Return {
    fn drop(&mut self) {
        if let Err(errno) = move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)) {
            // Going on would do things in the wrong namespace.
            eprintln!("cannot return to the network namespace of the lab: {errno}");
            std::process::abort();
        }
    }
}

impl Output {
    /// Runs `command` to its end.
    pub(crate) fn of(command: &mut Command, place: &str, input: Option<&str>) -> Result<Output> {
        let program = command.get_program().to_string_lossy().into_owned();
        ends_with_us(command);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => LabError::Missing {
                program: program.clone(),
                advice: "`cargo xtask demo` installs what the lab needs (as root), or says what to install".into(),
            },
            _ => LabError::System { doing: format!("start {program} in {place}"), source },
        })?;
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            // A program may end without reading all of it; how it ended says more than the broken pipe.
            let _ = std::io::Write::write_all(&mut pipe, input.as_bytes());
        }
        let output = child.wait_with_output().map_err(LabError::system(format!("wait for {program} in {place}")))?;
        Ok(Output {
            ok: output.status.success(),
            status: output.status.to_string(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// An error unless the program succeeded.
    pub fn check(&self, argv: &[&str], place: &str) -> Result<()> {
        if self.ok {
            return Ok(());
        }
        Err(LabError::Command {
            command: argv.join(" "),
            place: place.into(),
            status: self.status.clone(),
            output: format!("{} {}", self.stderr.trim(), self.stdout.trim()).trim().into(),
        })
    }
}
