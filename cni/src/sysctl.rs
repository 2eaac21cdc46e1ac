//! Settings of the kernel's network, of the namespace that the thread is in.

use std::fs;

use crate::Error;

/// Sets one, given by its path below `/proc/sys/net`.
pub(crate) fn set(path: &str, value: &str) -> Result<(), Error> {
    let file = format!("/proc/sys/net/{path}");
    fs::write(&file, value).map_err(|source| Error::Sysctl { file, value: value.to_owned(), source })
}

/// Sets one that matters little or that this kernel may not have.
pub(crate) fn try_set(path: &str, value: &str) {
    let _ = set(path, value);
}

/// Sets one unless it says that already: on some machines it may be read but not written.
pub(crate) fn ensure(path: &str, value: &str) -> Result<(), Error> {
    match fs::read_to_string(format!("/proc/sys/net/{path}")) {
        Ok(found) if found.trim_end() == value => Ok(()),
        _ => set(path, value),
    }
}
