//! The built plugin as a runtime sees it: environment and stdin in; stdout, exit code and kernel state out.

mod calls;
mod delegates;
mod host_local;
mod observed;
mod protocol;
