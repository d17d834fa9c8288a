//! A GitHub App asks in its own name with a signed token, and as its installation with one that it got for that and that expires.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::collectors::{holds, set};
use crate::harness::{Setup, eventually, now};
use crate::provider::{Provider, TOKEN, guids};

const APP: &str = "Iv1.8a61f9b3a7aba766";
const MINUTE: Duration = Duration::from_secs(60);
/// GitHub's tokens last an hour; a client renews what has less than five minutes left.
const LASTS: Duration = Duration::from_secs(300 + 3);

/// Checks who asks, and hands on what it is asked to the provider that knows one token alone.
#[derive(Clone)]
struct Gate {
    inner: Provider,
    public: Vec<u8>,
    client: reqwest::Client,
    state: Arc<Mutex<GateState>>,
}

#[derive(Default)]
struct GateState {
    tokens: Vec<(String, Instant)>,
    offences: Vec<String>,
    as_app: usize,
}

/// What is wrong with a token that should be the App's own.
fn fault(token: &str, public: &[u8]) -> Option<String> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { return Some("no JWT".to_owned()) };
    let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    let signed = format!("{header}.{claims}");
    if UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public).verify(signed.as_bytes(), &signature).is_err() {
        return Some("the signature is not the App's".to_owned());
    }
    let (header, claims) = (json(header).unwrap(), json(claims).unwrap());
    let secs = now().as_micros() / 1_000_000;
    let (from, until) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    let fits = header["alg"] == "RS256" && claims["iss"] == APP && from <= secs && secs < until && until - secs <= 600;
    (!fits).then(|| format!("{header} {claims}"))
}

async fn gate(State(gate): State<Gate>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let token =
        headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")).unwrap_or_default();
    let path = uri.path().to_owned();
    let deliveries = path.contains("/hooks/7/deliveries") || path.starts_with("/app/");
    {
        let mut state = gate.state.lock().unwrap();
        if path.starts_with("/signed/") {
            return (StatusCode::NOT_FOUND, "").into_response();
        }
        if deliveries {
            state.as_app += 1;
            if let Some(fault) = fault(token, &gate.public) {
                state.offences.push(format!("{path}: {fault}"));
                return (StatusCode::UNAUTHORIZED, "A JSON web token could not be decoded").into_response();
            }
        } else if !state.tokens.iter().any(|(known, until)| known == token && Instant::now() < *until) {
            state.offences.push(format!("{path}: no token of the installation"));
            return (StatusCode::UNAUTHORIZED, axum::Json(json!({"message": "Bad credentials"}))).into_response();
        }
        if path == "/app/installations/77/access_tokens" && method == Method::POST {
            let token = format!("ghs_{:036}", state.tokens.len());
            state.tokens.push((token.clone(), Instant::now() + LASTS));
            let expires = now().plus(LASTS);
            return (StatusCode::CREATED, axum::Json(json!({"token": token, "expires_at": expires}))).into_response();
        }
    }
    if path == "/installation/repositories" {
        return axum::Json(json!({"total_count": 1, "repositories": [{"full_name": "acme/shop"}]})).into_response();
    }
    let target = uri.to_string().replace("/app/hook/deliveries", "/repos/acme/shop/hooks/7/deliveries");
    let mut request = gate.client.request(method, format!("{}{target}", gate.inner.url)).bearer_auth(TOKEN).body(body);
    if let Some(etag) = headers.get("if-none-match") {
        request = request.header("if-none-match", etag);
    }
    let answer = request.send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    for name in ["link", "etag", "location", "retry-after", "content-type"] {
        if let Some(value) = answer.headers().get(name) {
            response = response.header(name, value);
        }
    }
    response.body(axum::body::Body::from(answer.bytes().await.unwrap())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_github_app_signs_in_for_itself_and_renews_the_token_of_its_installation() {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = key.as_der().unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        wrapped(&STANDARD.encode(pkcs8.as_ref()))
    );
    let inner = Provider::start().await;
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let state = Arc::<Mutex<GateState>>::default();
    let public = key.public_key().as_ref().to_vec();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(gate);
    let router = router.with_state(Gate { inner: inner.clone(), public, client, state: Arc::clone(&state) });
    tokio::spawn(async move { axum::serve(listener, router).await });

    for number in 0..10 {
        let ago = MINUTE * 5 - Duration::from_secs(10) * number;
        inner.ran(u64::from(number) + 100, u64::from(number) + 500, ago);
        inner.delivered("push", &json!({"ref": "refs/heads/main", "repository": {"full_name": "acme/shop"}}), ago, 502);
    }
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("app.pem");
    std::fs::write(&path, pem).unwrap();
    let app = format!("api: {url}, every: 1s, app: {{id: {APP}, installation: 77, key: {{file: {}}}}}", path.display());
    let config = format!(
        "sources:
  - {{name: hooks, type: github.webhook, secrets: [{{env: HOOK_SECRET}}], collects: {{github: {{{app}, organization: acme}}}}}}
  - {{name: logs, type: github.joblog, collects: {{github: {{{app}, organization: acme}}}}}}
"
    );
    let server = Setup::new().config(&config).env("HOOK_SECRET", "a-secret-of-the-webhook").start();
    holds(&server, "logs", "ci_job_id", &set((500..510).map(|job| job.to_string()))).await;
    holds(&server, "hooks", "item", &set(guids(&inner).into_iter().map(|guid| format!("id:{guid}")))).await;
    eventually("the token was renewed", || async { (state.lock().unwrap().tokens.len() > 2).then_some(()) }).await;
    inner.ran(200, 600, Duration::from_secs(1));
    holds(&server, "logs", "ci_job_id", &set((500..510).chain([600]).map(|job| job.to_string()))).await;
    let state = state.lock().unwrap();
    assert_eq!(state.offences, [] as [String; 0]);
    assert!(state.as_app > 10, "{}", state.as_app);
    let log = server.log().join("\n");
    assert!(!log.contains("ghs_") && !log.contains("eyJ"), "credentials are in the log");
}

fn wrapped(text: &str) -> String {
    text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\n")
}
