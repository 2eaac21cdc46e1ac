//! The built plugin as a runtime sees it: environment and stdin in; stdout, exit code and kernel state out.

mod calls;
mod delegates;
mod observed;
mod protocol;
