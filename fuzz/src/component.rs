//! The bytes of a component, before anything is compiled: whoever may write into the backends' folder chooses them.

use twill_sandbox::inspect;

/// Whatever it is, a person is told what, on one line that a terminal can bear.
pub(crate) fn run(bytes: &[u8]) {
    if let Err(refusal) = inspect(bytes) {
        let text = refusal.to_string();
        assert!(!text.is_empty());
        assert!(!text.chars().any(char::is_control), "control characters reach the terminal: {text:?}");
        assert!(text.len() < 8192, "{} bytes of message", text.len());
    }
}
