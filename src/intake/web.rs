//! The connections of collectors. Names are resolved and addresses filtered as for deliveries; redirects are not followed.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use pipeproof_ingest::collect::http::{Answer, Transport, TransportError};
use pipeproof_reports::deliver::egress::{EgressPolicy, FilteringResolver};

/// To connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Until an answer has come whole: a log may be large.
const WHOLE: Duration = Duration::from_secs(120);
/// Without a byte.
const SILENT: Duration = Duration::from_secs(60);

/// A client that connects where its policy allows.
#[derive(Debug)]
pub(super) struct Web {
    client: reqwest::Client,
    policy: EgressPolicy,
}

impl Web {
    /// `plain`: it may speak plain HTTP, which only private networks do.
    pub(super) fn new(policy: EgressPolicy, plain: bool) -> Result<Self, reqwest::Error> {
        let client = connecting(policy, plain).timeout(WHOLE).build()?;
        Ok(Self { client, policy })
    }
}

fn connecting(policy: EgressPolicy, plain: bool) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("pipeproof/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(FilteringResolver { policy, plain })
        // A proxy from the environment would resolve names itself, past the policy.
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT)
}

/// A client for answers that are read piece by piece, however long that takes as long as something comes.
pub(super) fn streaming(policy: EgressPolicy, plain: bool) -> Result<reqwest::Client, reqwest::Error> {
    connecting(policy, plain).read_timeout(SILENT).build()
}

#[async_trait]
impl Transport for Web {
    async fn send(&self, request: Request<Bytes>, body_max: usize) -> Result<Answer, TransportError> {
        let plain = request.uri().scheme_str() != Some("https");
        let host = request.uri().host().unwrap_or_default();
        // An address is not resolved, and so not filtered.
        let literal: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        if literal.is_some_and(|address| !self.policy.allows(address, plain)) {
            return Err(TransportError(format!("{host} is not an address that is connected to")));
        }
        let said = |error: reqwest::Error| TransportError(crate::chain(&error.without_url()));
        let request = reqwest::Request::try_from(request).map_err(said)?;
        let response = self.client.execute(request).await.map_err(said)?;
        let mut answer = Answer { status: response.status(), headers: response.headers().clone(), ..Answer::default() };
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(part) = stream.next().await {
            let part = part.map_err(said)?;
            let room = body_max - body.len();
            body.extend_from_slice(part.get(..room).unwrap_or(&part));
            if part.len() > room {
                answer.cut = true;
                break;
            }
        }
        answer.body = Bytes::from(body);
        Ok(answer)
    }
}
