//! A virtual machine with Debian's kernel, for tests of what this machine's kernel lacks.
//!
//! The same tests run in it, with the same programs, as in `cargo xtask test`; here it is the kernel that is another one. The
//! machine is emulated, so it takes minutes. It has no network and no disk, and everything it needs is in its initial RAM
//! disk.

mod initrd;
mod packages;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::build::{program_path, target_dir};
use crate::run::{Outcome, cargo, output};
use initrd::PLUGINS;
use packages::Packages;

/// A test program, and which of its tests are of what not every kernel has.
struct Suite {
    package: &'static str,
    name: &'static str,
    tests: &'static str,
}

/// Those that a kernel with everything would skip are left out.
const SUITES: [Suite; 3] = [
    Suite { package: "twill-netlink", name: "kernel", tests: "wireguard::" },
    Suite { package: "twill-lab", name: "cni", tests: "vlans trunks_and_the_default_vlan" },
    Suite { package: "twill-lab", name: "e2e", tests: "tunnels:: wireguard:: --skip refused_where" },
];
/// MiB of memory that the machine gets. The RAM disk with its programs is in it twice for a moment.
const MEMORY: u32 = 1600;
/// So long it may run: emulated, and beside other work.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Modules that a kernel would load by itself if it had a udev, or that are known by another name than they are asked for.
const MODULES: [&str; 12] = [
    "bridge",
    "br_netfilter",
    "veth",
    "vxlan",
    "nf_tables",
    "nft_compat",
    "nft_masq",
    "nft_chain_nat",
    "nft_ct",
    "xt_comment",
    "xt_MASQUERADE",
    "xt_mark",
];
/// What it says when its kernel runs, with the release behind it.
const BOOTED: &str = "a virtual machine runs Linux ";
/// What the machine says when the tests have ended, with their exit status behind it.
const ENDED: &str = "the tests ended with status ";

/// What became of the machine.
#[derive(Debug)]
pub(crate) enum Machine {
    /// Its tests have ended well, or they have not.
    Ran(Outcome),
    /// It is not to be had here, or its kernel does not come up.
    Absent(String),
}

/// Builds what is to be tested, and runs it.
pub(crate) fn run_with(arguments: &[String]) -> Outcome {
    crate::build::programs()?;
    let say = |line: &str| {
        let _ = writeln!(io::stdout(), "{line}");
    };
    match run(arguments, say)? {
        Machine::Ran(outcome) => outcome,
        Machine::Absent(why) => Err(why),
    }
}

/// Runs end-to-end tests in the machine, by name as `cargo test` has them, or all that it is for. What they say goes to
/// `say`, line by line.
pub(crate) fn run(arguments: &[String], mut say: impl FnMut(&str)) -> Outcome<Machine> {
    let packages = match packages::get() {
        Ok(packages) => packages,
        Err(why) => return Ok(Machine::Absent(why)),
    };
    let begin = Instant::now();
    let dir = target_dir().join("vm");
    fs::create_dir_all(&dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
    let disk = dir.join("initrd");
    let named = arguments.join(" ");
    let [.., end_to_end] = &SUITES;
    let suites = match named.as_str() {
        "" => SUITES.iter().map(|suite| (suite, suite.tests)).collect(),
        named => vec![(end_to_end, named)],
    };
    initrd::write(&disk, &packages, &programs()?, &init(&suites))?;
    let ended = Emulator::start(&packages, &disk)?.watch(&mut say);
    // It is large, and made anew each time.
    let _ = fs::remove_file(&disk);
    say(&format!("MEASURED the virtual machine took {:.0} s", begin.elapsed().as_secs_f64()));
    Ok(ended)
}

/// What is tested, and the names that it has in the machine.
fn programs() -> Outcome<Vec<(PathBuf, String)>> {
    let mut build = cargo();
    build.args(["test", "--release", "--no-run", "--message-format", "json-render-diagnostics"]);
    for suite in &SUITES {
        build.args(["--package", suite.package, "--test", suite.name]);
    }
    let messages = output(&mut build)?;
    let built = |suite: &Suite| {
        let name = format!(r#""name":"{}""#, suite.name);
        let of_it = |line: &&str| line.contains(&name) && line.contains(suite.package);
        let line =
            messages.lines().filter(of_it).find_map(|line| line.split_once(r#""executable":""#)?.1.split_once('"'));
        let missing = || format!("cargo did not say where the tests {} of {} are", suite.name, suite.package);
        line.map(|(path, _)| (PathBuf::from(path), suite.path())).ok_or_else(missing)
    };
    let mut programs = SUITES.iter().map(built).collect::<Outcome<Vec<_>>>()?;
    for name in ["twill", "twill-cni"] {
        programs.push((program_path(name), format!("/test/{name}")));
    }
    Ok(programs)
}

impl Suite {
    /// Where the program is in the machine.
    fn path(&self) -> String {
        format!("/test/{}-{}", self.package, self.name)
    }
}

/// The first process of the machine.
fn init(suites: &[(&Suite, &str)]) -> String {
    let modules: String = MODULES.iter().map(|module| format!("modprobe {module}\n")).collect();
    let runs: String = suites
        .iter()
        .map(|(suite, tests)| format!("{} --test-threads=1 {tests} || status=$?\n", suite.path()))
        .collect();
    format!(
        "#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TWILL_BIN=/test/twill TWILL_CNI=/test/twill-cni CNI_PATH={PLUGINS}
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /run
mount -t tmpfs tmp /tmp
{modules}ip link set lo up
# It stops now and then, and what waits meanwhile must not be dropped.
sysctl -qw net.core.netdev_max_backlog=20000
echo \"{BOOTED}$(cat /proc/sys/kernel/osrelease)\"
status=0
{runs}echo \"{ENDED}$status\"
poweroff -f
"
    )
}

/// A machine that runs. It ends with this value.
struct Emulator(Child);

impl Emulator {
    fn start(packages: &Packages, disk: &Path) -> Outcome<Self> {
        let mut qemu = packages.qemu();
        // Emulated: /dev/kvm inside of a cloud's machine is there and does not work often enough.
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
        qemu.args(["-m", &MEMORY.to_string(), "-smp", "2", "-nodefaults", "-nographic", "-no-reboot", "-nic", "none"]);
        // A busy machine emulates a timer that the kernel would take for broken.
        let parameters = "console=ttyS0 quiet loglevel=3 panic=1 mitigations=off no_timer_check";
        qemu.args(["-serial", "stdio", "-append", parameters]);
        qemu.arg("-kernel").arg(&packages.kernel).arg("-initrd").arg(disk);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = qemu.spawn().map_err(|error| format!("the virtual machine could not be started: {error}"))?;
        Ok(Self(child))
    }

    /// Passes on what its tests say until it is off.
    fn watch(mut self, say: &mut impl FnMut(&str)) -> Machine {
        let (sender, lines) = channel();
        let outs = (self.0.stdout.take(), self.0.stderr.take());
        let mut readers: Vec<Box<dyn BufRead + Send>> = Vec::new();
        readers.extend(outs.0.map(|out| Box::new(BufReader::new(out)) as _));
        readers.extend(outs.1.map(|out| Box::new(BufReader::new(out)) as _));
        for reader in readers {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in reader.split(b'\n').map_while(Result::ok) {
                    if sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let end = Instant::now() + PATIENCE;
        let (mut booted, mut status, mut last) = (false, None, String::new());
        let silence = loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    // Its firmware leaves the line unfinished.
                    booted |= line.contains(BOOTED);
                    status = line.strip_prefix(ENDED).map(|said| said.trim().to_owned()).or(status);
                    // Before that, its firmware speaks.
                    if booted {
                        say(&line);
                    }
                    last = line;
                }
                Err(silence) => break silence,
            }
        };
        let why = match silence {
            RecvTimeoutError::Disconnected => "ended too early".to_owned(),
            RecvTimeoutError::Timeout => format!("was not done after {PATIENCE:?}"),
        };
        match status.as_deref() {
            Some("0") => Machine::Ran(Ok(())),
            Some(status) => Machine::Ran(Err(format!("tests in the virtual machine failed (status {status})"))),
            None if booted => Machine::Ran(Err(format!("the virtual machine {why}; it said last: {last}"))),
            None => Machine::Absent(format!("its kernel does not come up: it {why}, and said last: {last:?}")),
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program out of unpacked packages, with the libraries that are there.
fn with_libraries(root: &Path, program: &Path) -> Command {
    let mut command = crate::run::command(program);
    let libraries =
        ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|dir| root.join(dir).display().to_string());
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    command
}
