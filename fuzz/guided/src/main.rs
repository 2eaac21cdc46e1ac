//! The targets of `twill-fuzz` under libFuzzer. `cargo xtask fuzz` builds and runs it.
//!
//! One program for all targets, since what takes time is building it: TWILL_FUZZ_TARGET says which. Everything else are
//! libFuzzer's own arguments.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use twill_fuzz::{TARGETS, Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TWILL_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let names = TARGETS.map(|target| target.name).join(", ");
        panic!("TWILL_FUZZ_TARGET is {name:?}, and should be one of {names}")
    })
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
