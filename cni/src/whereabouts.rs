//! Where an attached container lives: the second line of a state file.
//!
//! A container can go without a DEL: a runtime that lost its state, a machine that lost its power. Its address then stays
//! taken for ever, unless somebody can prove that the container is gone. This line is for them: the namespace that the
//! container had, and the boot of the machine in which it had it. Delegates never see it, and it is not in the double,
//! which stays flannel's bytes.

use std::fs;

/// A name that the kernel gives to each boot of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The line for a container that lives in `netns` now, with the end of the line before it.
pub(crate) fn line(netns: &str) -> String {
    let mut told = serde_json::json!({ "netns": netns });
    if let Ok(boot) = fs::read_to_string(BOOT_ID) {
        told["boot"] = boot.trim_end().into();
    }
    format!("\n{told}")
}

/// A state file without it.
pub(crate) fn without(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_that_can_be_taken_off() {
        let line = line("/run/netns/odd \"name\"\n");
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(told["netns"], "/run/netns/odd \"name\"\n");
        assert_eq!(told["boot"].as_str().map(str::len), Some(36), "{told}");
        assert_eq!(without(format!("{{}}{line}").as_bytes()), b"{}");
        assert_eq!(without(b"{}"), b"{}");
    }
}
