//! Lines for the log of the node.

pub use crate::bindings::twill::backend::log::Level;

/// Writes a line to the node's log. The host adds which backend said it, cuts it at 1 KiB and drops lines when there
/// are too many. In native builds it goes to stderr.
pub fn log(level: Level, message: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::twill::backend::log::emit(level, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level:?}: {message}");
}

/// Logs a line that interests whoever debugs the backend; takes what `format!` takes.
#[macro_export]
macro_rules! debug {
    ($($text:tt)*) => { $crate::log($crate::Level::Debug, &::std::format!($($text)*)) };
}

/// Logs a line that interests the operator; takes what `format!` takes.
#[macro_export]
macro_rules! info {
    ($($text:tt)*) => { $crate::log($crate::Level::Info, &::std::format!($($text)*)) };
}

/// Logs a line that the operator should look into; takes what `format!` takes.
#[macro_export]
macro_rules! warn {
    ($($text:tt)*) => { $crate::log($crate::Level::Warn, &::std::format!($($text)*)) };
}

/// Logs a line about something that failed; takes what `format!` takes.
#[macro_export]
macro_rules! error {
    ($($text:tt)*) => { $crate::log($crate::Level::Error, &::std::format!($($text)*)) };
}
