//! The machine's RAM disk: an archive in the format `newc` of cpio(5), not compressed, since unpacking is what an emulated
//! machine is slow at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::packages::Packages;
use crate::run::{Outcome, command, find, output};

/// Programs of this machine that tests and daemons call, beside what busybox has.
const PROGRAMS: [&str; 8] = ["ip", "bridge", "ping", "nft", "sysctl", "unshare", "nsenter", "xtables-nft-multi"];
/// Other names of the last one.
const TABLES: [&str; 6] =
    ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];
/// What of the kernel's modules goes in: networking and what it is made of.
const MODULES: [&str; 6] =
    ["kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch/x86/crypto", "kernel/drivers/net", "kernel/fs/nls"];
/// Drivers of hardware, which is not there.
const HARDWARE: &str = "kernel/drivers/net/ethernet";
/// Where Debian has the reference's plugins.
pub(super) const PLUGINS: &str = "/usr/lib/cni";
/// Those that tests compare with, or want to see there.
const REFERENCE: [&str; 5] = ["bridge", "host-local", "portmap", "bandwidth", "tuning"];
/// Extensions of iptables.
const EXTENSIONS: &str = "/usr/lib/x86_64-linux-gnu/xtables";

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// What is at a path.
enum Content {
    Directory,
    File(PathBuf),
    Text(String),
    Link(String),
}

/// Files by their path in the machine, sorted: so a folder comes before what is in it.
#[derive(Default)]
struct Tree(BTreeMap<String, Content>);

/// Writes it, with these programs at these places and this text as the first process.
pub(super) fn write(file: &Path, packages: &Packages, programs: &[(PathBuf, String)], init: &str) -> Outcome {
    let mut tree = Tree::default();
    for dir in ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/var/lib/cni", "/etc", "/mnt"] {
        tree.add(dir, Content::Directory);
    }
    tree.add("/init", Content::Text(init.to_owned()));
    tree.add("/etc/passwd", Content::Text("root:x:0:0::/root:/bin/sh\n".into()));
    for known in ["/etc/protocols", "/etc/services", "/etc/iproute2", "/usr/share/iproute2", EXTENSIONS] {
        tree.copy(Path::new(known), known)?;
    }
    tree.busybox(&packages.busybox())?;
    for name in PROGRAMS {
        let path = find(name).ok_or_else(|| format!("there is no {name} to put into the virtual machine"))?;
        tree.program(&path, &format!("/usr/sbin/{name}"))?;
    }
    for name in TABLES {
        tree.add(&format!("/usr/sbin/{name}"), Content::Link("xtables-nft-multi".into()));
    }
    for name in REFERENCE {
        let plugin = format!("{PLUGINS}/{name}");
        tree.program(Path::new(&plugin), &plugin)?;
    }
    for (path, name) in programs {
        tree.program(path, name)?;
    }
    let extensions: Vec<PathBuf> = tree.files().filter(|path| path.starts_with(EXTENSIONS)).cloned().collect();
    for extension in extensions {
        tree.libraries(&extension)?;
    }
    tree.modules(packages)?;
    tree.write(file).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

impl Tree {
    fn add(&mut self, path: &str, content: Content) {
        for parent in Path::new(path).ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            self.0.entry(parent.display().to_string()).or_insert(Content::Directory);
        }
        self.0.insert(path.to_owned(), content);
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.values().filter_map(|content| if let Content::File(path) = content { Some(path) } else { None })
    }

    /// A file or a folder of this machine, if it is there.
    fn copy(&mut self, from: &Path, to: &str) -> Outcome {
        let failed = |error| format!("cannot read {}: {error}", from.display());
        if from.is_dir() {
            self.add(to, Content::Directory);
            for entry in fs::read_dir(from).map_err(failed)?.flatten() {
                self.copy(&entry.path(), &format!("{to}/{}", entry.file_name().to_string_lossy()))?;
            }
        } else if from.is_file() {
            self.add(to, Content::File(from.to_owned()));
        }
        Ok(())
    }

    fn program(&mut self, from: &Path, to: &str) -> Outcome {
        self.add(to, Content::File(from.to_owned()));
        self.libraries(from)
    }

    /// The libraries that a file names, where it looks for them. A static program has none.
    fn libraries(&mut self, of: &Path) -> Outcome {
        let Ok(listed) = output(command("ldd").arg(of)) else { return Ok(()) };
        for path in listed.split_whitespace().filter(|word| word.starts_with('/')) {
            let path = path.trim_end_matches(':');
            if Path::new(path).is_file() {
                self.add(path, Content::File(path.into()));
            }
        }
        Ok(())
    }

    fn busybox(&mut self, busybox: &Path) -> Outcome {
        self.add("/bin/busybox", Content::File(busybox.to_owned()));
        for applet in output(command(busybox).arg("--list"))?.split_whitespace().filter(|applet| *applet != "busybox") {
            self.add(&format!("/bin/{applet}"), Content::Link("busybox".into()));
        }
        // Where the kernel looks for it when it wants a module.
        self.add("/sbin/modprobe", Content::Link("/bin/busybox".into()));
        Ok(())
    }

    /// Modules, and the lists of what needs what, which Debian makes when a kernel is installed.
    fn modules(&mut self, packages: &Packages) -> Outcome {
        let (from, to) = (packages.modules(), format!("/lib/modules/{}", packages.release));
        if !from.join("modules.dep").is_file() {
            let root = from.ancestors().nth(3).unwrap_or(&from);
            output(command(packages.busybox()).args(["depmod", "-b"]).arg(root).arg(&packages.release))?;
        }
        for dir in MODULES {
            self.copy(&from.join(dir), &format!("{to}/{dir}"))?;
        }
        let hardware = format!("{to}/{HARDWARE}");
        self.0.retain(|path, _| !path.starts_with(&hardware));
        let lists = fs::read_dir(&from).map_err(|error| format!("cannot read {}: {error}", from.display()))?;
        for list in lists.flatten().filter(|entry| entry.path().is_file()) {
            self.copy(&list.path(), &format!("{to}/{}", list.file_name().to_string_lossy()))?;
        }
        Ok(())
    }

    fn write(&self, file: &Path) -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(file)?);
        let mut seen = BTreeSet::new();
        for (path, content) in &self.0 {
            let name = path.trim_start_matches('/');
            if !seen.insert(name) {
                continue;
            }
            match content {
                Content::Directory => record(&mut out, name, DIRECTORY, &[])?,
                Content::Text(text) => record(&mut out, name, EXECUTABLE, text.as_bytes())?,
                Content::Link(target) => record(&mut out, name, LINK, target.as_bytes())?,
                Content::File(from) => {
                    let mode = 0o100_000 | (fs::metadata(from)?.permissions().mode() & 0o777);
                    record(&mut out, name, mode, &fs::read(from)?)?;
                }
            }
        }
        record(&mut out, "TRAILER!!!", 0, &[])?;
        out.flush()
    }
}

/// One record: numbers as eight hexadecimal digits, the name, the content, each padded to four bytes.
fn record(out: &mut impl Write, name: &str, mode: u32, content: &[u8]) -> std::io::Result<()> {
    const HEADER: usize = 110;
    let size = u32::try_from(content.len()).map_err(std::io::Error::other)?;
    let name_size = name.len() + 1;
    // Inode, mode, owner, group, links, time, size, two devices, the name's size, a sum that this format does not use.
    let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size as u32, 0];
    write!(out, "070701")?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    out.write_all(name.as_bytes())?;
    out.write_all(&[0; 4][..1 + padding(HEADER + name_size)])?;
    out.write_all(content)?;
    out.write_all(&[0; 4][..padding(content.len())])
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_cpio_reads_it() {
        let mut archive = Vec::new();
        record(&mut archive, "etc", DIRECTORY, &[]).unwrap();
        record(&mut archive, "etc/name", EXECUTABLE, b"twill").unwrap();
        record(&mut archive, "TRAILER!!!", 0, &[]).unwrap();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive);
        assert!(text.starts_with("07070100000000000041ed"), "{text}");
        let second = &archive[116..];
        assert_eq!(&second[..6], b"070701", "aligned");
        assert_eq!(&second[110..119], b"etc/name\0");
        assert_eq!(&second[120..125], b"twill");
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut tree = Tree::default();
        tree.add("/usr/sbin/ip", Content::Text(String::new()));
        assert_eq!(tree.0.keys().collect::<Vec<_>>(), ["/usr", "/usr/sbin", "/usr/sbin/ip"]);
    }
}
