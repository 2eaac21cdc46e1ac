//! What a server asks for when it answers 401: the header `WWW-Authenticate`.

/// A way to show who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token, which another server gives.
    Bearer {
        /// Where.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best of what the headers offer.
    pub(crate) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let offers: Vec<Self> = headers.filter_map(Self::read).collect();
        let bearer = offers.iter().find(|offer| matches!(offer, Self::Bearer { .. }));
        bearer.or(offers.first()).cloned()
    }

    fn read(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest);
        let value =
            |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
        Some(Self::Bearer { realm: value("realm")?, service: value("service"), scope: value("scope") })
    }
}

/// `name="value", name=value`, where a quoted value may contain commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_owned();
        let after = after.trim_start();
        let value = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut characters = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, c)) = characters.next() {
                    match c {
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        '\\' => value.extend(characters.next().map(|(_, c)| c)),
                        c => value.push(c),
                    }
                }
                rest = &quoted[end..];
                value
            }
            None => {
                let (value, after) = after.split_once(',').unwrap_or((after, ""));
                rest = after;
                value.trim().to_owned()
            }
        };
        found.push((name, value));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(header: &str) -> Option<Challenge> {
        Challenge::choose([header].into_iter())
    }

    #[test]
    fn headers_of_registries() {
        assert_eq!(read("Basic realm=\"Registry Realm\""), Some(Challenge::Basic));
        assert_eq!(
            read(
                "Bearer realm=\"https://auth.example/token\",service=\"r.example\",scope=\"repository:a/b:pull,push\""
            ),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("r.example".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(
            read("bearer Realm=https://a/t , service=\"a \\\"b\\\"\""),
            Some(Challenge::Bearer { realm: "https://a/t".into(), service: Some("a \"b\"".into()), scope: None })
        );
        assert_eq!(read("Bearer service=\"x\""), None);
        assert_eq!(read("Negotiate"), None);
        let offered = ["Negotiate", "Basic realm=x", "Bearer realm=\"y\""];
        assert!(matches!(Challenge::choose(offered.into_iter()), Some(Challenge::Bearer { .. })));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(Bearer |Basic )?[a-zé=\",\\\\ ]{0,40}") {
            let _ = read(&text);
        }
    }
}
