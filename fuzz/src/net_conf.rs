//! net-conf.json: an operator's mistakes are told, and never taken for something else.

use twill::config::NetConf;

/// What is accepted is consistent; what is not is told on one line.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match NetConf::parse(text) {
        Ok(conf) => {
            assert!(conf.families().count() >= 1, "no family is on");
            for family in conf.families() {
                let network = conf.network(family);
                assert!(network.is_some_and(|n| n.trunc() == n), "{family}: the network is {network:?}");
            }
            assert!(!conf.backends.is_empty(), "no backend");
            for backend in &conf.backends {
                let config: Result<serde_json::Value, _> = serde_json::from_str(&backend.config);
                assert!(config.is_ok_and(|c| c.is_object()), "a backend is given {:?}", backend.config);
            }
            assert_eq!(NetConf::parse(text).ok(), Some(conf), "the same text means the same");
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.chars().any(char::is_control), "control characters reach the terminal: {text:?}");
        }
    }
}
