//! Connections to S3 and SQS: object_store speaks and signs, over connections that go only where collectors' may.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientOptions, RetryConfig};
use pipeproof_ingest::collect::CollectError;
use pipeproof_ingest::collect::http::TransportError;
use pipeproof_ingest::collect::objects::Sign;
use pipeproof_reports::deliver::egress::EgressPolicy;
use reqwest::Url;

use super::{listing, web};
use crate::config::SecretText;

/// Answers that ask to come again (500, 503 SlowDown) are asked again so often, and so long, before it is told.
const RETRIES: usize = 6;
const RETRY_FOR: Duration = Duration::from_secs(60);
/// Variables by which AWS tells a program on its machines where its credentials are.
const OF_THE_MACHINE: &[(&str, AmazonS3ConfigKey)] = &[
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];

/// Where a bucket is, and as whom it is read.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) region: String,
    /// Of a server that is not AWS's.
    pub(super) endpoint: Option<Url>,
    /// Unless given, the identity of the machine: web identity, container or instance.
    pub(super) key: Option<AccessKey>,
}

/// An access key.
#[derive(Debug)]
pub(super) struct AccessKey {
    pub(super) id: SecretText,
    pub(super) secret: SecretText,
    pub(super) session: Option<SecretText>,
}

impl Account {
    /// A bucket of the account.
    pub(super) fn bucket(&self, name: &str) -> Result<AmazonS3, object_store::Error> {
        let plain = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_region(&self.region)
            .with_client_options(ClientOptions::new().with_allow_http(plain))
            .with_retry(RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_FOR, ..RetryConfig::default() })
            .with_http_connector(Wires { plain, machine: self.key.is_none() });
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
        }
        match &self.key {
            Some(key) => {
                builder = builder.with_access_key_id(&key.id.0).with_secret_access_key(&key.secret.0);
                if let Some(session) = &key.session {
                    builder = builder.with_token(&session.0);
                }
            }
            None => {
                for (name, key) in OF_THE_MACHINE {
                    if let Ok(value) = std::env::var(name) {
                        builder = builder.with_config(*key, value);
                    }
                }
            }
        }
        builder.build()
    }
}

/// Makes connections for a store.
#[derive(Debug)]
struct Wires {
    plain: bool,
    /// The services of AWS's machines that give credentials may be asked, on their link-local addresses.
    machine: bool,
}

impl HttpConnector for Wires {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = |plain| web::streaming(EgressPolicy::AllowPrivate, plain);
        let generic = |error: reqwest::Error| object_store::Error::Generic { store: "S3", source: error.into() };
        let plain = if self.plain || self.machine { Some(client(true).map_err(generic)?) } else { None };
        let secure = client(false).map_err(generic)?;
        Ok(HttpClient::new(Wire { plain, secure, machine: self.machine }))
    }
}

/// A client for each kind of connection.
#[derive(Debug)]
struct Wire {
    plain: Option<reqwest::Client>,
    secure: reqwest::Client,
    machine: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotConnected(String);

fn is_of_the_machine(address: IpAddr) -> bool {
    // Instance, tasks of ECS, pods of EKS.
    [[169, 254, 169, 254], [169, 254, 170, 2], [169, 254, 170, 23]]
        .into_iter()
        .any(|known| address == IpAddr::from(known))
}

fn failed(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_body() || error.is_decode() {
        HttpErrorKind::Interrupted
    } else {
        HttpErrorKind::Request
    };
    HttpError::new(kind, error.without_url())
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let refused = |text: String| HttpError::new(HttpErrorKind::Unknown, NotConnected(text));
        let (parts, body) = request.into_parts();
        let uri = parts.uri.clone();
        let host = parts.uri.host().unwrap_or_default().to_owned();
        let plain = parts.uri.scheme_str() != Some("https");
        // An address is not resolved, and so not filtered.
        let literal: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        if literal.is_some_and(|address| {
            let machine = self.machine && plain && is_of_the_machine(address);
            !machine && !EgressPolicy::AllowPrivate.allows(address, plain)
        }) {
            return Err(refused(format!("{host} is not an address that is connected to")));
        }
        let client = if plain { self.plain.as_ref() } else { Some(&self.secure) };
        let client = client.ok_or_else(|| refused(format!("{host} is not asked in plain text")))?;
        let body = match body.as_bytes() {
            Some(bytes) => bytes.clone(),
            None if body.is_empty() => Bytes::new(),
            None => return Err(refused("a body in parts is never sent".to_owned())),
        };
        let request = reqwest::Request::try_from(http::Request::from_parts(parts, body)).map_err(failed)?;
        let lists = listing::is_listing(&uri);
        let response: http::Response<reqwest::Body> = client.execute(request).await.map_err(failed)?.into();
        let (mut parts, body) = response.into_parts();
        if lists && parts.status.is_success() {
            let whole = Limited::new(body.map_err(failed), listing::LISTING_BYTES_MAX).collect().await;
            let whole =
                whole.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, NotConnected(error.to_string())))?;
            let answer = whole.to_bytes();
            let answer = listing::readable(&answer).map_or(answer, Bytes::from);
            parts.headers.remove(http::header::CONTENT_LENGTH);
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(answer)));
        }
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body.map_err(failed))))
    }
}

/// Signs requests to SQS as the account whose bucket it is.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) credentials: AwsCredentialProvider,
    pub(super) region: String,
}

#[async_trait]
impl Sign for Signer {
    async fn signed(&self, request: http::Request<Bytes>) -> Result<http::Request<Bytes>, CollectError> {
        let credential = self.credentials.get_credential().await;
        let credential = credential.map_err(|error| CollectError::Transport {
            asked: "credentials of the machine".to_owned(),
            source: TransportError(crate::chain(&error)),
        })?;
        let (parts, body) = request.into_parts();
        let mut signed = HttpRequest::from_parts(parts, HttpRequestBody::from(body.clone()));
        AwsAuthorizer::new(&credential, "sqs", &self.region).authorize(&mut signed, None);
        Ok(http::Request::from_parts(signed.into_parts().0, body))
    }
}

/// Buckets share what speaks with them.
pub(super) fn shared(store: AmazonS3) -> Arc<dyn object_store::ObjectStore> {
    Arc::new(store)
}
