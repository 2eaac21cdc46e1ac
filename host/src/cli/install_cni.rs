//! `twill install-cni` and `install-conf`: put files where the container runtime looks for them.
//!
//! A runtime may call the plugin, or read its configuration, at any moment. So each file is written under another name and
//! moved into place: what is there is the old file or the new one, whole.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::arguments::{InstallCniArguments, InstallConfArguments};
use crate::lease::Conflist;
use crate::nodes::atomic_file::{self, Attributes};

/// The names by which configurations call the plugin.
const NAMES: [&str; 2] = ["flannel", "twill"];
/// The plugin's file beside this program's.
const PLUGIN: &str = "twill-cni";
const MODE: u32 = 0o755;

/// Installs the plugin.
pub(super) fn run(arguments: &InstallCniArguments) -> Result<(), String> {
    let plugin = arguments.plugin.clone().map_or_else(beside_this_program, Ok)?;
    let content = fs::read(&plugin).map_err(|error| {
        format!("cannot read the CNI plugin {}: {error}; name its file with --plugin", plugin.display())
    })?;
    for name in NAMES {
        let file = arguments.bin_dir.join(name);
        let written = install(&file, &content).map_err(|error| refused(&file, &error))?;
        println!("{} {}", if written { "installed" } else { "up to date:" }, file.display());
    }
    Ok(())
}

/// Installs a configuration, as flannel's program of this name does.
pub(super) fn conf(arguments: InstallConfArguments) -> Result<(), String> {
    let conflist = Conflist { source: arguments.source, file: arguments.file };
    let written = conflist.install().map_err(|error| error.to_string())?;
    println!("{} {}", if written { "installed" } else { "up to date:" }, conflist.file.display());
    Ok(())
}

fn beside_this_program() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("finding this program's file: {error}"))?;
    Ok(program.with_file_name(PLUGIN))
}

/// Returns whether the file had to be written.
fn install(file: &Path, content: &[u8]) -> io::Result<bool> {
    let is_right = fs::symlink_metadata(file)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o7777 == MODE)
        && fs::read(file).is_ok_and(|old| old == content);
    if is_right {
        return Ok(false);
    }
    atomic_file::replace(file, content, Attributes { mode: MODE, owner: None })?;
    Ok(true)
}

fn refused(file: &Path, error: &io::Error) -> String {
    let folder = file.parent().unwrap_or(Path::new("")).display();
    let advice = match error.kind() {
        ErrorKind::NotFound => format!("there is no folder {folder}: make it, or name the runtime's with --bin-dir"),
        ErrorKind::PermissionDenied => {
            format!(
                "{folder} belongs to somebody else than this user: give it to this user, or this container the \
                 capability DAC_OVERRIDE"
            )
        }
        _ => "pods cannot be started on this node without it".to_owned(),
    };
    format!("cannot install the CNI plugin as {}: {error}; {advice}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> (tempfile::TempDir, InstallCniArguments) {
        let dir = tempfile::tempdir().unwrap();
        let (plugin, bin_dir) = (dir.path().join("plugin"), dir.path().join("bin"));
        fs::write(&plugin, "#!/bin/sh\necho new\n").unwrap();
        fs::create_dir(&bin_dir).unwrap();
        (dir, InstallCniArguments { bin_dir, plugin: Some(plugin) })
    }

    #[test]
    fn both_names_are_programs() {
        let (_dir, arguments) = given();
        run(&arguments).unwrap();
        for name in NAMES {
            let said = std::process::Command::new(arguments.bin_dir.join(name)).output().unwrap();
            assert_eq!(said.stdout, b"new\n");
        }
        assert_eq!(fs::read_dir(&arguments.bin_dir).unwrap().count(), NAMES.len(), "nothing temporary is left");
    }

    #[test]
    fn a_plugin_that_runs_is_replaced_and_an_equal_one_left_alone() {
        let (_dir, arguments) = given();
        let file = arguments.bin_dir.join("flannel");
        fs::copy("/bin/sleep", &file).unwrap();
        let mut running = std::process::Command::new(&file).arg("30").spawn().unwrap();
        let result = run(&arguments);
        running.kill().unwrap();
        running.wait().unwrap();
        result.unwrap();
        let content = fs::read(arguments.plugin.as_ref().unwrap()).unwrap();
        assert_eq!(fs::read(&file).unwrap(), content);
        assert!(!install(&file, &content).unwrap());
    }

    #[test]
    fn what_is_missing_is_named() {
        let (dir, arguments) = given();
        fs::remove_dir(&arguments.bin_dir).unwrap();
        let bin = arguments.bin_dir.display().to_string();
        assert_eq!(
            run(&arguments).unwrap_err(),
            format!(
                "cannot install the CNI plugin as {bin}/flannel: No such file or directory (os error 2); there is no \
                 folder {bin}: make it, or name the runtime's with --bin-dir"
            )
        );
        let plugin = dir.path().join("nowhere");
        let said = run(&InstallCniArguments { plugin: Some(plugin.clone()), ..arguments }).unwrap_err();
        assert_eq!(
            said,
            format!(
                "cannot read the CNI plugin {}: No such file or directory (os error 2); name its file with --plugin",
                plugin.display()
            )
        );
    }
}
