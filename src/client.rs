//! The API's client, as the commands use it: a given URL, the server that has the data folder, or a server of the
//! command's own for as long as it runs. Whatever a command does to stored data goes this one way.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::config::Config;
use crate::node::NodeError;
use crate::server::{Server, whereabouts};

/// Where the stored data is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) data: PathBuf,
    pub(crate) url: Option<String>,
    pub(crate) token: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("cannot start on the data folder")]
    Start(#[from] NodeError),
    #[error("a token is needed with --url: set PIPEPROOF_TOKEN")]
    Token,
    #[error("cannot reach {url}")]
    Reach {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{message}")]
    Refused { status: u16, code: String, message: String },
    #[error("the server's answer is not what this version expects: {0}")]
    Answer(String),
    #[error("cannot use file {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Longest an answer may take that comes line by line, or is worked for as long as there is data.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| answer.get("error").and_then(|error| error.get(name)).and_then(Value::as_str);
    ClientError::Refused {
        status: status.as_u16(),
        code: text("code").unwrap_or("unknown").to_owned(),
        message: text("message").map_or_else(|| format!("the server answered {status}"), str::to_owned),
    }
}

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
    own: Option<Server>,
}

impl Client {
    /// Finds the server of a place, or starts one.
    pub(crate) async fn connect(place: &Place) -> Result<Self, ClientError> {
        if let Some(client) = Self::running(place).await? {
            return Ok(client);
        }
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::start(&place.data, &Config::of_commands(), listen).await?;
        let (url, token) = (server.url(), server.local_token.clone());
        Self::new(&url, token, Some(server))
    }

    /// Finds the server of a place, if one runs.
    pub(crate) async fn running(place: &Place) -> Result<Option<Self>, ClientError> {
        if let Some(url) = &place.url {
            let token = place.token.clone().ok_or(ClientError::Token)?;
            return Self::new(url, token, None).map(Some);
        }
        if let Some(found) = whereabouts(&place.data) {
            let client = Self::new(&found.url, found.token, None)?;
            if client.get("/v1/status").await.is_ok() {
                return Ok(Some(client));
            }
        }
        Ok(None)
    }

    /// A client of a known server.
    pub(crate) fn new(base: &str, token: String, own: Option<Server>) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(600))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|source| ClientError::Reach { url: base.to_owned(), source })?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token, own })
    }

    /// The server's URL.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(Method::POST, path, Some(body)).await
    }

    /// The same of work that takes as long as there is data: a backup, a check.
    pub(crate) async fn post_and_wait(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token).timeout(LONGEST);
        let bytes = self.send(request.json(body)).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Answer(error.to_string()))
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Method::DELETE, path, None).await
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let bytes = self.send(request).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Answer(error.to_string()))
    }

    /// Sends a request whose answer is read line by line while it comes, however long that takes.
    pub(crate) async fn lines(
        &self,
        path: &str,
        body: &impl serde::Serialize,
        each: impl FnMut(&[u8]) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        self.read_lines(self.http.post(format!("{}{path}", self.base)).json(body), each).await
    }

    /// The same of something that is only asked for.
    pub(crate) async fn listed(
        &self,
        path: &str,
        query: &[(&str, String)],
        each: impl FnMut(&[u8]) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        self.read_lines(self.http.get(format!("{}{path}", self.base)).query(query), each).await
    }

    async fn read_lines(
        &self,
        request: reqwest::RequestBuilder,
        mut each: impl FnMut(&[u8]) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let reach = |source| ClientError::Reach { url: self.base.clone(), source };
        let request = request.bearer_auth(&self.token);
        let response = request.timeout(LONGEST).send().await.map_err(reach)?;
        if response.status() != StatusCode::OK {
            return Err(refused(response.status(), &response.bytes().await.map_err(reach)?));
        }
        let mut stream = response.bytes_stream();
        let mut rest: Vec<u8> = Vec::new();
        while let Some(piece) = stream.next().await {
            rest.extend_from_slice(&piece.map_err(reach)?);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                each(line.trim_ascii())?;
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(ClientError::Answer("it ends in the middle of a line".to_owned())) }
    }

    /// The bytes of a file the server offers.
    pub(crate) async fn download(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        self.send(self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token)).await
    }

    /// Sends a body to a source and returns how many records were accepted.
    pub(crate) async fn send_events(
        &self,
        source: &str,
        query: &[(String, String)],
        headers: &[(String, String)],
        body: Vec<u8>,
    ) -> Result<u64, ClientError> {
        let answer = self.post_events(source, query, headers, body).await?;
        answer.get("accepted").and_then(Value::as_u64).ok_or_else(|| ClientError::Answer(answer.to_string()))
    }

    /// The same, with the whole answer: where in the log they stand, too.
    pub(crate) async fn post_events(
        &self,
        source: &str,
        query: &[(String, String)],
        headers: &[(String, String)],
        body: Vec<u8>,
    ) -> Result<Value, ClientError> {
        let mut request = self.http.post(format!("{}/v1/events/{source}", self.base)).query(query).body(body);
        // A signed delivery proves itself; anything else needs the token.
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-hub-signature-256")) {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let bytes = self.send(request).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Answer(error.to_string()))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, ClientError> {
        let reach = |source| ClientError::Reach { url: self.base.clone(), source };
        let response = request.send().await.map_err(reach)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(reach)?;
        if status == StatusCode::OK {
            return Ok(bytes.to_vec());
        }
        Err(refused(status, &bytes))
    }

    /// Stops the server if it was started for this client.
    pub(crate) async fn close(self) -> Result<(), ClientError> {
        match self.own {
            Some(server) => Ok(server.stop().await?),
            None => Ok(()),
        }
    }
}
