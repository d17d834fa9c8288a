//! S3 and SQS as moto serves them (an implementation of AWS's APIs that knows nothing of ours), behind a relay that counts,
//! and that answers as AWS does when it is asked too often.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, left_out, python_with};

pub(crate) const REGION: &str = "eu-central-1";
/// As it stands in requests whose signature nobody checks: it says which service is meant.
const SCOPE: &str = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/eu-central-1/";

/// What went through.
#[derive(Default)]
pub(crate) struct Seen {
    /// Method and path of each request.
    pub(crate) asked: Vec<String>,
    /// Every so many requests is answered `503 SlowDown`; 0: none.
    pub(crate) slow_every: usize,
    pub(crate) slowed: usize,
    /// Receipts of messages that were given out.
    receipts: Vec<String>,
}

/// The running server.
pub(crate) struct Moto {
    child: Child,
    direct: String,
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
    client: reqwest::Client,
}

#[derive(Clone)]
struct Relay {
    to: String,
    seen: Arc<Mutex<Seen>>,
    client: reqwest::Client,
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Moto {
    /// Starts it; `None`, and says so, where no Python has it.
    pub(crate) async fn start(subject: &str) -> Option<Self> {
        let Some(python) = python_with("moto.server") else {
            left_out(subject, "no Python that imports moto.server; set PIPEPROOF_PYTHON to one");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let direct = format!("http://127.0.0.1:{port}");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Seen>>::default();
        let relay = Relay { to: direct.clone(), seen: Arc::clone(&seen), client: client.clone() };
        let moto = Self { child, direct, url, seen, client };
        let until = std::time::Instant::now() + PATIENCE;
        while moto.client.get(format!("{}/moto-api/", moto.direct)).send().await.is_err() {
            assert!(std::time::Instant::now() < until, "moto does not start");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let router = axum::Router::new().fallback(relayed).with_state(relay);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Some(moto)
    }

    pub(crate) async fn bucket(&self, bucket: &str) {
        let place = format!(
            "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        );
        self.s3(Method::PUT, bucket, &[], place.into_bytes()).await;
    }

    pub(crate) async fn put(&self, bucket: &str, key: &str, body: Vec<u8>) {
        self.s3(Method::PUT, &format!("{bucket}/{key}"), &[], body).await;
    }

    pub(crate) async fn put_signed(&self, bucket: &str, key: &str, body: Vec<u8>, signature: &str) {
        self.s3(Method::PUT, &format!("{bucket}/{key}"), &[("x-amz-meta-signature", signature)], body).await;
    }

    async fn s3(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) {
        let mut request = self.client.request(method, format!("{}/{path}", self.direct)).body(body);
        request = request.header("authorization", format!("{SCOPE}s3/aws4_request, SignedHeaders=host, Signature=0"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }

    async fn sqs(&self, action: &str, question: Value) -> Value {
        let (status, text) = self.ask(action, question).await;
        assert!(status.is_success(), "{action}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn ask(&self, action: &str, question: Value) -> (StatusCode, String) {
        let request = self
            .client
            .post(format!("{}/", self.direct))
            .header("x-amz-target", format!("AmazonSQS.{action}"))
            .header("content-type", "application/x-amz-json-1.0")
            .header("authorization", format!("{SCOPE}sqs/aws4_request, SignedHeaders=host, Signature=0"));
        let answer = request.body(question.to_string()).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// A queue; its URL goes through the relay.
    pub(crate) async fn queue(&self, name: &str) -> String {
        let made = self.sqs("CreateQueue", json!({ "QueueName": name })).await;
        let url = made["QueueUrl"].as_str().unwrap();
        let path = url.splitn(4, '/').nth(3).unwrap();
        format!("{}/{path}", self.url)
    }

    pub(crate) async fn send(&self, queue: &str, message: &Value) {
        let text = message.as_str().map_or_else(|| message.to_string(), ToOwned::to_owned);
        self.sqs("SendMessage", json!({"QueueUrl": queue, "MessageBody": text})).await;
    }

    /// The time is over for which messages were given to somebody: those that were not deleted come again now.
    pub(crate) async fn come_again(&self, queue: &str) {
        let receipts = std::mem::take(&mut self.seen.lock().unwrap().receipts);
        for receipt in receipts {
            self.ask(
                "ChangeMessageVisibility",
                json!({"QueueUrl": queue, "ReceiptHandle": receipt, "VisibilityTimeout": 0}),
            )
            .await;
        }
    }

    /// Messages in a queue, whether or not somebody has them just now.
    pub(crate) async fn waiting(&self, queue: &str) -> u64 {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let told = self.sqs("GetQueueAttributes", json!({"QueueUrl": queue, "AttributeNames": names})).await;
        let attributes: BTreeMap<String, String> = serde_json::from_value(told["Attributes"].clone()).unwrap();
        attributes.values().map(|count| count.parse::<u64>().unwrap()).sum()
    }

    /// An access key of a user who may do this, and from now on every request's signature and permission is checked.
    pub(crate) async fn strict(&self, actions: &[&str]) -> (String, String) {
        let iam = |form: String| {
            let request = self
                .client
                .post(format!("{}/", self.direct))
                .header("content-type", "application/x-www-form-urlencoded")
                .header("authorization", format!("{SCOPE}iam/aws4_request, SignedHeaders=host, Signature=0"));
            async move { request.body(form).send().await.unwrap().text().await.unwrap() }
        };
        iam("Action=CreateUser&UserName=reader&Version=2010-05-08".to_owned()).await;
        let policy =
            json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]});
        let policy: String = policy.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        iam(format!("Action=PutUserPolicy&UserName=reader&PolicyName=p&PolicyDocument={policy}&Version=2010-05-08"))
            .await;
        let made = iam("Action=CreateAccessKey&UserName=reader&Version=2010-05-08".to_owned()).await;
        let part = |tag: &str| {
            let rest = made.split(&format!("<{tag}>")).nth(1).unwrap_or_else(|| panic!("{made}"));
            rest.split('<').next().unwrap().to_owned()
        };
        let strict = self.client.post(format!("{}/moto-api/reset-auth", self.direct)).body("0").send().await.unwrap();
        assert!(strict.status().is_success());
        (part("AccessKeyId"), part("SecretAccessKey"))
    }

    pub(crate) fn asked(&self, part: &str) -> usize {
        self.seen.lock().unwrap().asked.iter().filter(|asked| asked.contains(part)).count()
    }
}

async fn relayed(State(relay): State<Relay>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    // To its end, also when whoever asked was killed: messages may be given to the dead.
    tokio::spawn(relay_one(relay, method, uri, headers, body)).await.unwrap()
}

async fn relay_one(relay: Relay, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    {
        let mut seen = relay.seen.lock().unwrap();
        seen.asked.push(format!("{method} {uri}"));
        if seen.slow_every > 0 && seen.asked.len().is_multiple_of(seen.slow_every) {
            seen.slowed += 1;
            let text = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
        }
    }
    // The host is part of what is signed.
    let request = relay.client.request(method, format!("{}{uri}", relay.to)).headers(headers).body(body);
    match request.send().await {
        Ok(answer) => {
            let mut response = Response::builder().status(answer.status());
            for (name, value) in answer.headers() {
                if name != "transfer-encoding" && name != "connection" {
                    response = response.header(name, value);
                }
            }
            let body = answer.bytes().await.unwrap_or_default();
            if let Ok(json) = serde_json::from_slice::<Value>(&body) {
                let given = json["Messages"].as_array().into_iter().flatten();
                let receipts = given.filter_map(|message| message["ReceiptHandle"].as_str().map(ToOwned::to_owned));
                relay.seen.lock().unwrap().receipts.extend(receipts);
            }
            response.body(axum::body::Body::from(body)).unwrap()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
