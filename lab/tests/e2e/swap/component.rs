//! Component files for tests.

use std::fs;
use std::path::Path;

use twill_lab::Lab;

/// A custom section: it changes the bytes of a component, and so its digest, but nothing that it does.
fn mark(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [&[0, length + 1, length][..], name.as_bytes()].concat()
}

/// Another build of a component: it does the same, but has another digest.
pub(super) fn rebuilt(component: &Path, mark_name: &str) -> Vec<u8> {
    [fs::read(component).unwrap(), mark(mark_name)].concat()
}

/// Puts bytes into the backends directory, in one step.
pub(super) fn install(lab: &Lab, kind: &str, bytes: &[u8]) {
    let (file, new) = (lab.backends_dir().join(format!("{kind}.wasm")), lab.backends_dir().join(".new"));
    fs::write(&new, bytes).unwrap();
    fs::rename(&new, &file).unwrap();
}

/// Takes a file out of the backends directory.
pub(super) fn uninstall(lab: &Lab, kind: &str) {
    fs::remove_file(lab.backends_dir().join(format!("{kind}.wasm"))).unwrap();
}
