//! What the runtime asks, as it says it in the environment.

use std::fmt;

use crate::{Attachment, Error};

/// The verbs of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach a container.
    Add,
    /// Is the attachment as ADD left it?
    Check,
    /// Detach a container.
    Del,
    /// Detach everything that is not in the given list.
    Gc,
    /// Could an ADD be served now?
    Status,
    /// Which versions of the protocol are spoken?
    Version,
}

impl Verb {
    const ALL: [Verb; 6] = [Verb::Add, Verb::Check, Verb::Del, Verb::Gc, Verb::Status, Verb::Version];

    /// The word in `CNI_COMMAND`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Check => "CHECK",
            Verb::Del => "DEL",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }

    fn required(self) -> &'static [&'static str] {
        match self {
            Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Verb::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Verb::Gc | Verb::Status => &["CNI_PATH"],
            Verb::Version => &[],
        }
    }

    fn is_about_one_attachment(self) -> bool {
        matches!(self, Verb::Add | Verb::Check | Verb::Del)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One call, with every variable present that its verb requires.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub verb: Verb,
    /// The container's network namespace; empty when it is not known any more.
    pub netns: String,
    /// Where delegates are looked for: directories separated by colons.
    pub path: String,
    /// `CNI_ARGS` as it is; [`CniArgs`](crate::cni_args::CniArgs) reads it.
    pub args: String,
    /// The runtime insists on a container namespace that is our own.
    pub netns_override: bool,
    container: String,
    ifname: String,
}

impl Request {
    /// Reads the variables. Missing ones are named together in one error.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Request, Error> {
        let get = |name: &str| env(name).unwrap_or_default();
        let word = get("CNI_COMMAND");
        let verb =
            Verb::ALL.into_iter().find(|verb| verb.as_str() == word).ok_or(Error::UnknownVerb { found: word })?;
        let missing: Vec<&str> = verb.required().iter().filter(|name| get(name).is_empty()).copied().collect();
        if !missing.is_empty() {
            return Err(Error::MissingEnv { verb, missing });
        }
        let insists = get("CNI_NETNS_OVERRIDE");
        Ok(Request {
            verb,
            netns: get("CNI_NETNS"),
            path: get("CNI_PATH"),
            args: get("CNI_ARGS"),
            netns_override: insists == "1" || insists.eq_ignore_ascii_case("true"),
            container: get("CNI_CONTAINERID"),
            ifname: get("CNI_IFNAME"),
        })
    }

    /// The attachment that ADD, CHECK and DEL are about; `None` for the other verbs.
    pub fn attachment(&self) -> Result<Option<Attachment>, Error> {
        if !self.verb.is_about_one_attachment() {
            return Ok(None);
        }
        Attachment::new(&self.container, &self.ifname).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(vars: &[(&str, &str)]) -> Result<Request, Error> {
        Request::from_env(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn all_missing_variables_are_named() {
        let cases = [
            ("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
            ("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
            ("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"),
            ("GC", "CNI_PATH"),
            ("STATUS", "CNI_PATH"),
        ];
        for (verb, names) in cases {
            let error = request(&[("CNI_COMMAND", verb), ("CNI_NETNS", "")]).unwrap_err();
            assert_eq!(error.code(), 4);
            assert!(error.to_string().contains(&format!("[{names}]")), "{verb}: {error}");
        }
        assert_eq!(request(&[("CNI_COMMAND", "VERSION")]).unwrap().verb, Verb::Version);
    }

    #[test]
    fn unknown_verbs_are_refused() {
        for word in ["add", "GET", "ADD ", ""] {
            let error = request(&[("CNI_COMMAND", word)]).unwrap_err();
            assert_eq!(error.code(), 4);
            assert!(error.to_string().contains("CNI_COMMAND"), "{error}");
        }
    }

    #[test]
    fn del_needs_no_namespace() {
        let vars = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/x")];
        let request = request(&vars).unwrap();
        assert_eq!(request.netns, "");
        assert_eq!(request.attachment().unwrap(), Some(Attachment::new("c", "eth0").unwrap()));
    }

    #[test]
    fn the_override_is_1_or_true() {
        for (value, expected) in
            [("1", true), ("TRUE", true), ("true", true), ("", false), ("0", false), ("yes", false)]
        {
            let request = request(&[("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/x"), ("CNI_NETNS_OVERRIDE", value)]);
            assert_eq!(request.unwrap().netns_override, expected, "{value:?}");
        }
    }
}
