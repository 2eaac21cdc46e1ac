//! The compiler process has nothing that it could give to a component that takes it over.

mod support;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use support::guest;
use twill_sandbox::Metering;

/// A process that is killed with the test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn compiler() -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twill-sandbox-compiler"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Child(command.spawn().unwrap())
}

#[test]
fn it_gives_everything_away() {
    let child = compiler();
    let proc = format!("/proc/{}", child.0.id());
    let status = || fs::read_to_string(format!("{proc}/status")).unwrap();
    let line = |key: &str| {
        let text = status();
        let value = text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).map(str::to_owned);
        value.unwrap_or_else(|| panic!("{key} in {text}"))
    };
    // It has not been fed: once it is confined, it waits for its input.
    while !line("NoNewPrivs:").starts_with('1') || !line("State:").starts_with('S') {
        sleep(Duration::from_millis(1));
    }
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    for (limit, most) in [
        ("Max cpu time", "60"),
        ("Max address space", "1073741824"),
        ("Max core file size", "0"),
        ("Max file size", "0"),
        ("Max processes", "0"),
        ("Max open files", "3"),
    ] {
        let values = limits.lines().find_map(|line| line.strip_prefix(limit)).unwrap();
        assert_eq!(values.split_whitespace().take(2).collect::<Vec<_>>(), [most, most], "{limit}");
    }
    let is_root = fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t0");
    let maps_all = fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295");
    if is_root && maps_all {
        assert_eq!(line("Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!(line("Gid:"), "65534\t65534\t65534\t65534");
        assert_eq!(line("Groups:"), "");
    }
}

#[test]
fn it_says_what_is_wrong() {
    let mut child = compiler();
    child.0.stdin.take().unwrap().write_all(b"\0asm\x01\0\0\0").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut text).unwrap();
    assert_eq!(text, "it is a core module, not a component: build with --target wasm32-wasip2\n");
    assert_eq!(child.0.wait().unwrap().code(), Some(1));
}

#[tokio::test]
async fn its_code_is_the_builds() {
    let wasm = guest("host-gw");
    let compiler = env!("CARGO_BIN_EXE_twill-sandbox-compiler");
    let code = twill_sandbox::compile(compiler.as_ref(), Metering::Time, &wasm).await.unwrap();
    assert_eq!(code, twill_engine::compiler().unwrap().precompile_component(&wasm).unwrap());
}
