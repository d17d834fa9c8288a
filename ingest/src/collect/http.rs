//! Asking a provider's API: who we are, how often we may ask, where the next page is, where a log lies.
//!
//! Answers are hostile: bodies have limits, a next page must be of the same host, and what is elsewhere is asked without our
//! credentials. Addresses stand in errors without their queries, which may hold signatures.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ACCEPT, AUTHORIZATION, ETAG, IF_NONE_MATCH, LINK, LOCATION, RETRY_AFTER};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use async_trait::async_trait;
use bytes::Bytes;
use engine::clock::Clock;
use engine::time::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use pipeproof_engine as engine;
use serde_json::Value;
use url::Url;

use super::auth::Credentials;
use super::etags::Etags;
pub use super::quota::Quota;
use super::{CollectError, limits, links};

/// Largest answer that is read as JSON, bytes.
pub const ANSWER_BYTES_MAX: usize = 32 << 20;
/// How long to wait before an answer that may be another in a moment is asked for again.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// Redirects followed to a log.
const REDIRECTS_MAX: usize = 3;
/// What of a refusal is told.
const TOLD_CHARS: usize = 160;

/// What stands for something else in an address (RFC 3986 §2.3 lists what does not).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Sends one request and reads one answer. Redirects are not followed.
#[async_trait]
pub trait Transport: Send + Sync + std::fmt::Debug {
    /// Sends it. No more than `body_max` bytes of the body are read; [`Answer::cut`] says that there was more.
    ///
    /// # Errors
    /// [`TransportError`] if no whole answer came.
    async fn send(&self, request: Request<Bytes>, body_max: usize) -> Result<Answer, TransportError>;
}

/// Why no answer came, in words that hold no address.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Whether the body went on.
    pub cut: bool,
}

/// An API with our credentials for it.
#[derive(Debug)]
pub struct Api {
    base: Url,
    headers: HeaderMap,
    credentials: Arc<Credentials>,
    inside: Arc<dyn Transport>,
    outside: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    quota: Arc<Quota>,
    pub(super) etags: Etags,
}

/// A page of an API that has lists.
#[derive(Debug)]
pub struct Listed {
    /// The answer's body.
    pub body: Bytes,
    /// The path and query of the next page.
    pub next: Option<String>,
    /// What to ask with next time, to be told whether anything changed.
    pub etag: Option<String>,
    /// Elements that a page of the list has at most, where the answer says so.
    pub per_page: Option<usize>,
    asked: String,
}

impl Api {
    /// An API. `inside` connects to it, `outside` to where it sends us.
    #[must_use]
    pub fn new(
        base: Url,
        credentials: Arc<Credentials>,
        inside: Arc<dyn Transport>,
        outside: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        Self { base, headers, credentials, inside, outside, clock, quota: Arc::default(), etags: Etags::default() }
    }

    /// The same, within the limits of others that ask in the name of the same account.
    #[must_use]
    pub fn within(mut self, quota: Arc<Quota>) -> Self {
        self.quota = quota;
        self
    }

    /// The same, sending this header with every request.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// The present time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether we ask as a GitHub App.
    #[must_use]
    pub fn is_app(&self) -> bool {
        self.credentials.is_app()
    }

    /// Host and port, for people.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Requests that the provider said are left in this window.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        self.quota.left()
    }

    /// Whether few requests are left in this window: what may as well be asked later waits, so that others can ask.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.quota.is_scarce()
    }

    /// A list's page. `None`: nothing changed since `etag`.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn list(&self, path: &str, etag: Option<&str>) -> Result<Option<Listed>, CollectError> {
        let mut headers = HeaderMap::new();
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        let url = self.url(path)?;
        let asked = told(&Method::GET, &url);
        let answer = self.ask(Method::GET, &url, headers, Bytes::new(), false).await?;
        if answer.status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let answer = whole(answer, &asked)?;
        let next = answer.headers.get(LINK).and_then(|link| links::target(link.to_str().ok()?, "next"));
        let next = next.map(|next| self.own(&url, next, &asked)).transpose()?;
        let etag = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(ToOwned::to_owned);
        let text = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let per_page = text("x-per-page").and_then(|count| count.parse().ok());
        Ok(Some(Listed { body: answer.body, next, etag, per_page, asked }))
    }

    /// One document.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn get(&self, path: &str) -> Result<Listed, CollectError> {
        self.list(path, None).await?.ok_or_else(|| CollectError::Content {
            asked: format!("GET {path}"),
            problem: "it says that nothing changed although nothing was known".to_owned(),
        })
    }

    /// One document that only the application itself may ask for, not one of its installations.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn list_as_app(&self, path: &str) -> Result<Listed, CollectError> {
        let url = self.url(path)?;
        let asked = told(&Method::GET, &url);
        let answer = self.ask(Method::GET, &url, HeaderMap::new(), Bytes::new(), true).await?;
        let answer = whole(answer, &asked)?;
        let next = answer.headers.get(LINK).and_then(|link| links::target(link.to_str().ok()?, "next"));
        let next = next.map(|next| self.own(&url, next, &asked)).transpose()?;
        Ok(Listed { body: answer.body, next, etag: None, per_page: None, asked })
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn post(&self, path: &str, body: Bytes, as_app: bool) -> Result<Listed, CollectError> {
        let url = self.url(path)?;
        let answer = self.ask(Method::POST, &url, HeaderMap::new(), body, as_app).await?;
        Ok(Listed { body: answer.body, next: None, etag: None, per_page: None, asked: told(&Method::POST, &url) })
    }

    /// A file that may lie elsewhere: the redirect is followed without our credentials. At most `body_max` bytes of it.
    ///
    /// # Errors
    /// [`CollectError`]. An address that has expired is [`CollectError::Answer`]: ask again for a new one.
    pub async fn file(&self, path: &str, body_max: usize) -> Result<Answer, CollectError> {
        let mut url = self.url(path)?;
        let mut answer = self.send(Method::GET, &url, HeaderMap::new(), Bytes::new(), false, body_max).await?;
        let mut asked = told(&Method::GET, &url);
        for step in 0..=REDIRECTS_MAX {
            if !answer.status.is_redirection() {
                return check(answer, &asked).map_err(|error| if step == 0 { error } else { elsewhere(error) });
            }
            let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
            let target = location.and_then(|location| url.join(location).ok());
            let target =
                target.filter(|target| is_web(target) && (target.scheme() == "https" || url.scheme() == "http"));
            url = target.ok_or_else(|| CollectError::Content {
                asked: asked.clone(),
                problem: "it redirects to where nothing is fetched from".to_owned(),
            })?;
            asked = told(&Method::GET, &url);
            let request = request(Method::GET, &url, HeaderMap::new(), Bytes::new(), &asked)?;
            let sent = self.outside.send(request, body_max).await;
            answer = sent.map_err(|source| CollectError::Transport { asked: asked.clone(), source })?;
        }
        Err(CollectError::Content { asked, problem: "it redirects again and again".to_owned() })
    }

    async fn ask(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        as_app: bool,
    ) -> Result<Answer, CollectError> {
        let asked = told(&method, url);
        check(self.send(method, url, headers, body, as_app, ANSWER_BYTES_MAX).await?, &asked)
    }

    /// Sends with credentials, within the limits the provider told. Redirects come back as they are.
    async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        as_app: bool,
        body_max: usize,
    ) -> Result<Answer, CollectError> {
        let (name, value) = match self.credentials.header(as_app, self.clock.now())? {
            Some(header) => header,
            None => {
                self.installation().await?;
                let header = self.credentials.header(as_app, self.clock.now())?;
                header.ok_or_else(|| {
                    CollectError::Credentials("the token of the installation expires at once".to_owned())
                })?
            }
        };
        let mut all = headers;
        all.insert(name, value);
        self.exchange(method, url, all, body, body_max).await
    }

    /// Fetches a token of the installation of a GitHub App.
    async fn installation(&self) -> Result<(), CollectError> {
        let Some((path, header)) = self.credentials.exchange(self.clock.now())? else { return Ok(()) };
        let url = self.url(&path)?;
        let asked = told(&Method::POST, &url);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, header)]);
        let answer = self.exchange(Method::POST, &url, headers, Bytes::new(), ANSWER_BYTES_MAX).await?;
        // Without it nothing can be asked: that is not about whatever was to be asked next.
        let signing_in =
            |error: CollectError| if error.is_of_one() { CollectError::Credentials(error.to_string()) } else { error };
        let answer = check(answer, &asked).map_err(signing_in)?;
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let exchanged = self.credentials.exchanged(&json);
        exchanged.map_err(|problem| CollectError::Credentials(format!("{asked}: {problem}")))
    }

    async fn exchange(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        body_max: usize,
    ) -> Result<Answer, CollectError> {
        let asked = told(&method, url);
        let mut all = self.headers.clone();
        all.extend(headers);
        // What passes by itself does not cost the page it met: asking for something changes nothing and is done again.
        let mut pauses = if method == Method::GET { &PAUSES[..] } else { &[] }.iter();
        let answer = loop {
            // Somebody else of the account may have been refused meanwhile.
            self.may_ask()?;
            let request = request(method.clone(), url, all.clone(), body.clone(), &asked)?;
            let sent = self.inside.send(request, body_max).await;
            match pauses.next().filter(|_| sent.as_ref().map_or(true, is_passing)) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => break sent.map_err(|source| CollectError::Transport { asked, source })?,
            }
        };
        let now = self.clock.now();
        if let Some(left) = limits::remaining(&answer.headers) {
            self.quota.told(left, limits::total(&answer.headers));
        }
        if let Some((until, why)) = limits::refused(answer.status, &answer.headers, &answer.body, now) {
            self.quota.hold(until, why.clone());
            return Err(CollectError::Limited { host: self.host(), until, why });
        }
        if let Some(until) = limits::spent(&answer.headers, now) {
            self.quota.hold(until, "no requests are left in this window".to_owned());
        }
        Ok(answer)
    }

    fn may_ask(&self) -> Result<(), CollectError> {
        let now = self.clock.now();
        match self.quota.held(now) {
            Some((until, why)) => Err(CollectError::Limited { host: self.host(), until, why }),
            None => Ok(()),
        }
    }

    /// The address of a path, which may have a query.
    fn url(&self, path: &str) -> Result<Url, CollectError> {
        let unusable = || CollectError::Content { asked: path.to_owned(), problem: "it is no address".to_owned() };
        let base = self.base.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/{}", path.trim_start_matches('/'))).map_err(|_| unusable())
    }

    /// A link of an answer as path and query below our base, whatever host it names: behind a proxy a server may not know its
    /// own, and elsewhere our credentials have no business.
    fn own(&self, from: &Url, link: &str, asked: &str) -> Result<String, CollectError> {
        let target = from.join(link).ok();
        let base = self.base.path().trim_end_matches('/');
        let path = target.as_ref().and_then(|target| target.path().strip_prefix(base));
        let Some((target, path)) = target.as_ref().zip(path.filter(|path| path.starts_with('/'))) else {
            let problem = "its next page is not part of the API".to_owned();
            return Err(CollectError::Content { asked: asked.to_owned(), problem });
        };
        Ok(target.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")))
    }
}

/// An error of the server or before it, without a word on when to come again.
fn is_passing(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 500 | 502 | 503 | 504) && !answer.headers.contains_key(RETRY_AFTER)
}

impl Listed {
    /// The body as JSON.
    ///
    /// # Errors
    /// [`CollectError::Content`].
    pub fn json(&self) -> Result<Value, CollectError> {
        serde_json::from_slice(&self.body).map_err(|error| self.wrong(&error.to_string()))
    }

    /// The elements of the array that the body is, or that its member `name` is, each as its bytes and as JSON.
    ///
    /// # Errors
    /// [`CollectError::Content`] if there is no such array, or it has more than `max` elements.
    pub fn elements(&self, name: Option<&str>, max: usize) -> Result<Vec<(Bytes, Value)>, CollectError> {
        let array = match name {
            Some(name) => crate::skim::member(crate::skim::trim(&self.body), name)
                .ok_or_else(|| self.wrong("the list is missing"))?,
            None => crate::skim::trim(&self.body),
        };
        let places =
            crate::skim::elements(array, max).ok_or_else(|| self.wrong("it holds no list, or too long a one"))?;
        let one = |place: std::ops::Range<usize>| {
            let bytes = array.get(place).unwrap_or_default();
            let json = serde_json::from_slice(bytes).map_err(|error| self.wrong(&error.to_string()))?;
            Ok((self.body.slice_ref(bytes), json))
        };
        places.into_iter().map(one).collect()
    }

    /// That it is not what is documented.
    #[must_use]
    pub fn wrong(&self, problem: &str) -> CollectError {
        CollectError::Content { asked: self.asked.clone(), problem: problem.to_owned() }
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "https" | "http") && url.has_host()
}

fn request(
    method: Method,
    url: &Url,
    headers: HeaderMap,
    body: Bytes,
    asked: &str,
) -> Result<Request<Bytes>, CollectError> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = url
        .as_str()
        .parse()
        .map_err(|_| CollectError::Content { asked: asked.to_owned(), problem: "it is no address".to_owned() })?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// What is told about a request: its query may hold a signature.
fn told(method: &Method, url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("{method} {host}{}", url.path())
}

fn whole(answer: Answer, asked: &str) -> Result<Answer, CollectError> {
    if answer.cut {
        let problem = format!("it is larger than {ANSWER_BYTES_MAX} bytes");
        return Err(CollectError::Content { asked: asked.to_owned(), problem });
    }
    Ok(answer)
}

/// Sorts answers that bring nothing.
fn check(answer: Answer, asked: &str) -> Result<Answer, CollectError> {
    let status = answer.status.as_u16();
    let (asked, said) = (asked.to_owned(), said(&answer.body));
    match status {
        200..=299 | 304 => Ok(answer),
        401 | 403 => Err(CollectError::Refused { asked, status, answer: said }),
        404 | 410 | 451 => Err(CollectError::Missing { asked, status, answer: said }),
        _ => Err(CollectError::Answer { asked, status, answer: said }),
    }
}

/// A refusal of somebody to whom we never said who we are: an address that has expired.
fn elsewhere(error: CollectError) -> CollectError {
    match error {
        CollectError::Refused { asked, status, answer } | CollectError::Missing { asked, status, answer } => {
            CollectError::Answer { asked, status, answer }
        }
        other => other,
    }
}

/// The beginning of what a refusal says, printable.
fn said(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let message = json
        .as_ref()
        .and_then(|json| ["message", "error", "error_description"].iter().find_map(|key| json.get(key)?.as_str()));
    let text = message.map_or_else(|| String::from_utf8_lossy(body.get(..1_024).unwrap_or(body)), Into::into);
    let text: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(TOLD_CHARS).collect();
    if text.trim().is_empty() { "without a word".to_owned() } else { text.trim().to_owned() }
}

/// A part of a path, escaped: names come from outside.
#[must_use]
pub fn escaped(part: &str) -> String {
    // A path of dots alone would be another path.
    if part.bytes().all(|byte| byte == b'.') {
        return part.replace('.', "%2E");
    }
    utf8_percent_encode(part, RESERVED).to_string()
}
