//! `twill-lab run`, which `twill backend run` hands over to: a component file that is replaced while its pods talk.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use super::common::{guest, privileged, spec};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn replace(file: &Path, bytes: &[u8]) {
    let new = file.with_extension("new");
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, file)).unwrap();
}

#[test]
fn a_file_is_followed_and_what_is_wrong_disturbs_nobody() {
    let (Some(spec), Some(host_gw), Some(vxlan)) = (spec(), guest("host-gw"), guest("vxlan")) else { return };
    if !privileged("a_file_is_followed_and_what_is_wrong_disturbs_nobody") {
        return;
    }
    let folder = Folder(env::temp_dir().join(format!("twill-run-{}", std::process::id())));
    fs::create_dir_all(&folder.0).unwrap();
    let file = folder.0.join("my_hop.wasm");
    replace(&file, &fs::read(host_gw).unwrap());

    let mut command = Command::new(env!("CARGO_BIN_EXE_twill-lab"));
    command.arg("run").arg(&file).args(["--watch", "--nodes", "2", "--seconds", "40"]);
    command.env("TWILL_BIN", &spec.twill).env("TWILL_CNI", &spec.cni);
    let mut lab = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(lab.stdout.take().unwrap()).lines().map_while(Result::ok) {
        // Each thing is done when the one before is seen.
        if line.contains("host-gw 0.1.0") && !said.contains("host-gw 0.1.0") {
            replace(&file, &fs::read(&vxlan).unwrap());
        }
        if line.contains("n1   vxlan 0.1.0") && line.ends_with("at rest") && !said.contains("is not WebAssembly") {
            replace(&file, b"garbage");
        }
        said.push_str(&line);
        said.push('\n');
    }
    let status = lab.wait().unwrap();
    assert!(said.starts_with("2 nodes with the backend \"my-hop\", a pod on each; "), "{said}");
    let swapped = said.lines().any(|line| line.contains("n1   vxlan 0.1.0") && line.ends_with("at rest"));
    assert!(swapped, "{said}");
    assert!(said.contains("n1 refuses it: backend my-hop: "), "{said}");
    assert!(said.contains("is not WebAssembly: it does not begin with"), "{said}");
    assert!(status.success() && said.contains(" sent, 0 lost, "), "{status}: {said}");
}

#[test]
fn what_cannot_be_run_is_said_before_anything_is_built() {
    let Some(spec) = spec() else { return };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twill-lab"));
        command.arg("run").args(arguments).env("TWILL_BIN", &spec.twill).env("TWILL_CNI", &spec.cni);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(
        run(&["/nowhere/hop.wasm"]),
        "twill-lab: cannot read /nowhere/hop.wasm: No such file or directory (os error 2)\n"
    );
    let wrong = run(&["/dev/null", "--config", "[]"]);
    assert_eq!(wrong, "twill-lab: --config is \"[]\", but should be a JSON object: it is none\n");
}
