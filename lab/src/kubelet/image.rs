//! Container images made from programs of this machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::error::{LabError, Result};
use crate::netns::Output;

/// An image as a docker-archive file, which `ctr images import` and `docker load` take.
#[derive(Debug, Clone)]
pub struct Image {
    /// The file.
    pub file: PathBuf,
}

impl Image {
    /// The image whose containers sleep until they are told what to do. Pods' sandboxes are made from it too.
    pub const BUSYBOX: &str = "twill.test/busybox:1";

    /// An image that exists.
    pub fn open(file: &Path) -> Result<Image> {
        let file = LabError::require(file, "`cargo xtask image` makes it")?;
        Ok(Image { file })
    }

    /// Busybox and nothing else, made in `dir`.
    pub(super) fn busybox(dir: &Path) -> Result<Image> {
        let root = Root::create(&dir.join("root"))?;
        root.copy(Path::new("/bin/busybox"), "bin/busybox")?;
        let applets = shell(&["/bin/busybox", "--list"])?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            let link = root.dir.join("bin").join(applet);
            symlink("busybox", &link).map_err(LabError::system(format!("create {}", link.display())))?;
        }
        root.pack(dir, Self::BUSYBOX, &["/bin/sleep", "2147483647"])
    }
}

/// The file system of an image to be.
struct Root {
    dir: PathBuf,
}

impl Root {
    fn create(dir: &Path) -> Result<Root> {
        for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "var"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).map_err(LabError::system(format!("create {}", folder.display())))?;
        }
        Ok(Root { dir: dir.into() })
    }

    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.dir.join(to);
        let parent = to.parent().unwrap_or(&self.dir);
        fs::create_dir_all(parent).and_then(|()| fs::copy(from, &to)).map(drop).map_err(LabError::system(format!(
            "copy {} to {}",
            from.display(),
            to.display()
        )))
    }

    fn pack(self, dir: &Path, name: &str, entry_point: &[&str]) -> Result<Image> {
        let path = |name: &str| dir.join(name).display().to_string();
        let tar = ["tar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"];
        shell(&[&tar[..], &["-cf", &path("layer.tar"), "-C", &self.dir.display().to_string(), "."]].concat())?;
        let digest = shell(&["sha256sum", &path("layer.tar")])?;
        let digest = digest.split_whitespace().next().unwrap_or_default().to_string();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Env": ["PATH=/bin"], "Entrypoint": entry_point },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
        for (file, content) in [("config.json", config), ("manifest.json", manifest)] {
            let file = dir.join(file);
            fs::write(&file, content.to_string()).map_err(LabError::system(format!("write {}", file.display())))?;
        }
        shell(&[
            "tar",
            "-cf",
            &path("image.tar"),
            "-C",
            &dir.display().to_string(),
            "manifest.json",
            "config.json",
            "layer.tar",
        ])?;
        Ok(Image { file: dir.join("image.tar") })
    }
}

/// As images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn shell(argv: &[&str]) -> Result<String> {
    let output = Output::of(Command::new(argv[0]).args(&argv[1..]), "the machine", None)?;
    output.check(argv, "the machine")?;
    Ok(output.stdout)
}
