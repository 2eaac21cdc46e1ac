//! A repository, asked as somebody: whoever pulls or pushes needs a token for that, or a password, and finds out by being refused.

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;

use super::artifact::shown;
use super::challenge::Challenge;
use super::credentials::{Credentials, Keyring};
use super::error::Problem;
use super::reference::Repository;
use super::transport::{Access, Transport, host, is_same_origin, read, said};

/// Larger answers are no token.
const MAX_TOKEN: u64 = 1 << 20;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To read.
    Pull,
    /// To write, which includes looking what is there already.
    Push,
}

/// A repository of a registry.
pub(crate) struct Session<'a> {
    pub(crate) transport: Transport,
    repository: &'a Repository,
    keyring: Keyring<'a>,
    purpose: Purpose,
    /// Where the registry's interface begins.
    base: Uri,
    authorization: Option<HeaderValue>,
}

/// What is asked.
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

/// What a token server gives.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Session<'a> {
    pub(crate) async fn open(
        repository: &'a Repository,
        access: &'a Access,
        purpose: Purpose,
    ) -> Result<Self, Problem> {
        let transport = Transport::new(access)?;
        let base = transport.begin(repository.server()).await?;
        let keyring = Keyring { file: access.config.as_deref(), helpers: access.helpers };
        Ok(Self { transport, repository, keyring, purpose, base, authorization: None })
    }

    /// Host and port of the registry.
    pub(crate) fn host(&self) -> String {
        host(&self.base)
    }

    /// The address of something in the repository.
    pub(crate) fn uri(&self, rest: &str) -> Result<Uri, Problem> {
        let text = format!("{}{}/{rest}", self.base, self.repository.name());
        text.parse().map_err(|error: http::uri::InvalidUri| self.confused(error.to_string()))
    }

    /// Something that the registry should not have said.
    pub(crate) fn confused(&self, problem: String) -> Problem {
        Problem::Answer { host: self.host(), problem }
    }

    /// Asks for content, wherever it lies.
    pub(crate) async fn get(
        &mut self,
        method: Method,
        rest: &str,
        accept: Option<&'static str>,
    ) -> Result<Response<Incoming>, Problem> {
        let uri = self.uri(rest)?;
        let headers = accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))).into_iter().collect();
        self.ask(Question { method, uri: &uri, headers, body: Bytes::new() }).await
    }

    /// Asks, and once more with a token or a password, if that is what the registry wants.
    pub(crate) async fn ask(&mut self, question: Question<'_>) -> Result<Response<Incoming>, Problem> {
        let answer = self.try_once(&question).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenges: Vec<String> = answer
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let known = self.log_in(&challenges).await?;
        let answer = self.try_once(&question).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        Err(if known { self.denied(&self.host(), answer).await } else { self.nobody() })
    }

    async fn try_once(&self, question: &Question<'_>) -> Result<Response<Incoming>, Problem> {
        let Question { method, uri, headers, body } = question;
        let mut headers = headers.clone();
        if let Some(authorization) = self.authorization.as_ref().filter(|_| is_same_origin(&self.base, uri)) {
            headers.push((AUTHORIZATION, authorization.clone()));
        }
        if matches!(*method, Method::GET | Method::HEAD) {
            return self.transport.get(method, uri, &headers).await;
        }
        self.transport.send(method.clone(), uri, &headers, body.clone()).await
    }

    /// Gets what the registry wants to see. Tells whether that shows who asks.
    async fn log_in(&mut self, challenges: &[String]) -> Result<bool, Problem> {
        let credentials = self.keyring.find(self.repository)?;
        let challenge = Challenge::choose(challenges.iter().map(String::as_str));
        let unknown = || Problem::Challenge { host: self.host(), said: shown(&challenges.join(", ")) };
        self.authorization = match (challenge, &credentials) {
            (None, _) => return Err(unknown()),
            (Some(Challenge::Basic), None) => return Err(self.nobody()),
            (_, Some(Credentials::Token(_))) | (Some(Challenge::Basic), Some(Credentials::Basic { .. })) => {
                credentials.as_ref().and_then(Credentials::header)
            }
            (Some(Challenge::Basic), Some(Credentials::Identity(_))) => return Err(unknown()),
            (Some(Challenge::Bearer { realm, service, scope }), credentials) => {
                Some(self.token(&realm, service.as_deref(), scope.as_deref(), credentials.as_ref()).await?)
            }
        };
        Ok(credentials.is_some())
    }

    /// Asks the server that gives tokens.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        credentials: Option<&Credentials>,
    ) -> Result<HeaderValue, Problem> {
        let unusable = || Problem::Challenge { host: self.host(), said: format!("Bearer realm={:?}", shown(realm)) };
        let address: Uri = realm.parse().map_err(|_| unusable())?;
        // Passwords go there: not without TLS, unless the registry itself is trusted without.
        let is_plain = address.scheme() == Some(&Scheme::HTTP);
        let may_be_plain = self.base.scheme() == Some(&Scheme::HTTP) && self.transport.may_be_plain(&address);
        let is_tls = address.scheme() == Some(&Scheme::HTTPS);
        if !(is_tls || is_plain && may_be_plain) || address.authority().is_none_or(|a| a.as_str().contains('@')) {
            return Err(unusable());
        }
        let actions = match self.purpose {
            Purpose::Pull => "pull",
            Purpose::Push => "pull,push",
        };
        let default_scope = format!("repository:{}:{actions}", self.repository.name());
        let mut query: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
        query.push(("scope", scope.unwrap_or(&default_scope)));
        let answer = if let Some(Credentials::Identity(token)) = credentials {
            query.extend([("grant_type", "refresh_token"), ("client_id", "twill"), ("refresh_token", token)]);
            let form = (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            self.transport.send(Method::POST, &address, &[form], Bytes::from(encoded(&query))).await?
        } else {
            let separator = if address.query().is_some() { '&' } else { '?' };
            let uri: Uri = format!("{address}{separator}{}", encoded(&query)).parse().map_err(|_| unusable())?;
            let header = credentials.and_then(Credentials::header).map(|value| (AUTHORIZATION, value));
            self.transport.get(&Method::GET, &uri, &header.into_iter().collect::<Vec<_>>()).await?
        };
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST if credentials.is_some() => {
                return Err(self.denied(&host(&address), answer).await);
            }
            StatusCode::UNAUTHORIZED => return Err(self.nobody()),
            _ => return Err(status(&host(&address), answer).await),
        }
        let server = host(&address);
        let bytes = read("the token", &server, answer.into_body(), None, MAX_TOKEN).await?;
        let confused = || Problem::Answer { host: server.clone(), problem: "there is no token in it".to_owned() };
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| confused())?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty()).ok_or_else(confused)?;
        Credentials::Token(token).header().ok_or_else(confused)
    }

    fn nobody(&self) -> Problem {
        Problem::NoCredentials { host: self.repository.registry().to_owned(), file: self.keyring.place() }
    }

    pub(crate) async fn denied(&self, host: &str, answer: Response<Incoming>) -> Problem {
        let status = answer.status();
        let said = format!("{status}{}", said(answer.into_body()).await);
        Problem::Denied { host: host.to_owned(), file: self.keyring.place(), said }
    }

    /// What an answer means that was not expected.
    pub(crate) async fn unexpected(&self, answer: Response<Incoming>) -> Problem {
        match answer.status() {
            StatusCode::NOT_FOUND => Problem::NotFound { host: self.host() },
            StatusCode::FORBIDDEN if self.authorization.is_some() => self.denied(&self.host(), answer).await,
            _ => status(&self.host(), answer).await,
        }
    }
}

async fn status(host: &str, answer: Response<Incoming>) -> Problem {
    let status = answer.status();
    Problem::Status { host: host.to_owned(), status, said: said(answer.into_body()).await }
}

/// Names and values as forms and addresses have them.
fn encoded(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        let byte = |b: u8| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        assert_eq!(
            encoded(&[("service", "a b"), ("scope", "repository:x/y:pull,push&é")]),
            "service=a%20b&scope=repository%3Ax%2Fy%3Apull%2Cpush%26%C3%A9"
        );
    }
}
