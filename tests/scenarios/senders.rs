//! What `sources add` prints is what works: for every type, a sender that does exactly what is printed there is believed,
//! by the strongest proof it speaks.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use pipeproof_engine::source::SourceType;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{Server, Setup, fixture, has_tool, left_out, now, stdout, token_of};
use crate::ingest::gzip;
use crate::tls::{Authority, localhost};

/// A part of what is printed: where it belongs, and what it is in which language.
struct Part {
    at: String,
    language: Option<String>,
    text: String,
}

/// A request as a sender makes it.
struct Sent {
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// What its proof is recorded as.
    auth: &'static str,
}

/// A type's printed text in its parts.
struct Printed {
    kind: SourceType,
    whole: String,
    parts: Vec<Part>,
}

fn external() -> impl Iterator<Item = SourceType> {
    SourceType::ALL.iter().copied().filter(|kind| kind.is_external())
}

/// A source's name: the type's with dashes.
fn name_of(kind: SourceType) -> String {
    format!("acme-{}", kind.name().replace('.', "-"))
}

fn printed(server: &Server, kind: SourceType) -> Printed {
    let added = server.add_source(&name_of(kind), kind.name(), &["team=delivery"]);
    let whole = added["sender"].as_str().expect("a text for the sender").to_owned();
    let mut parts: Vec<Part> = Vec::new();
    let mut fenced = false;
    for line in whole.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fenced = !fenced;
            if fenced {
                parts.last_mut().expect("a heading").language = Some(language.to_owned());
            }
        } else if fenced || line.starts_with("  ") {
            let part = parts.last_mut().expect("a heading");
            part.text.push_str(&format!("{line}\n"));
        } else if !line.is_empty() && !line.starts_with('#') {
            parts.push(Part { at: line.to_owned(), language: None, text: String::new() });
        }
    }
    assert!(!fenced && parts.iter().all(|part| !part.text.is_empty()), "{kind}: {whole}");
    Printed { kind, whole, parts }
}

impl Printed {
    /// The part whose heading or text has this in it.
    #[track_caller]
    fn part(&self, has: &str) -> &Part {
        let found = self.parts.iter().find(|part| part.at.contains(has) || part.text.contains(has));
        found.unwrap_or_else(|| panic!("{}: nothing is printed about {has}: {}", self.kind, self.whole))
    }

    /// All documents of the YAML that has this in it.
    #[track_caller]
    fn yaml(&self, has: &str) -> Vec<Value> {
        documents(&self.part(has).text)
    }
}

/// The documents of YAML.
#[track_caller]
fn documents(text: &str) -> Vec<Value> {
    let read = |text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("not YAML ({error}): {text}"));
    text.split("\n---\n").map(read).collect()
}

impl Part {
    /// The value of a setting.
    #[track_caller]
    fn setting(&self, label: &str) -> &str {
        let value = self.text.lines().find_map(|line| line.trim_start().strip_prefix(label)?.strip_prefix("  "));
        value.unwrap_or_else(|| panic!("no setting `{label}` in {}", self.text)).trim()
    }

    /// What its last curl sends, with this as the body. Variables of the shell have values.
    #[track_caller]
    fn curl(&self, body: &[u8]) -> Sent {
        let (_, command) = self.text.rsplit_once("curl ").unwrap_or_else(|| panic!("no curl in {}", self.text));
        let (mut url, mut headers, mut auth) = (String::new(), Vec::new(), "bearer");
        let command = command.replace("\\\n", " ");
        let mut words = words(&command).into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "-H" => {
                    let header = words.next().unwrap();
                    let (name, value) = header.split_once(": ").unwrap();
                    let mut value = value.to_owned();
                    if let Some((scheme, program)) = value.split_once("$(openssl dgst -sha256 -hmac '") {
                        value = format!("{scheme}{}", mac(program.split('\'').next().unwrap().as_bytes(), &[body]));
                        auth = "hmac";
                    }
                    headers.push((name.to_owned(), value));
                }
                "--data-binary" | "--retry" => drop(words.next()),
                "-fsS" => {}
                address => {
                    assert!(url.is_empty(), "{address}: {command}");
                    address.clone_into(&mut url);
                }
            }
        }
        for (variable, value) in
            [("$REPO", "acme/shop"), ("$RUN", "11"), ("$JOB", "22"), ("$ATTEMPT", "1"), ("$PROJECT", "3")]
        {
            url = url.replace(variable, value);
        }
        let gzipped = headers.iter().any(|(_, value)| value == "gzip");
        Sent { url, headers, body: if gzipped { gzip(body) } else { body.to_vec() }, auth }
    }
}

/// The words of a command as a shell cuts them; what is substituted stays as it is written.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut quote, mut depth) = (None, 0_u32);
    for letter in command.chars() {
        match (quote, letter) {
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), letter) if letter == open && depth == 0 => quote = None,
            (None, ' ' | '\n') => words.extend(word.take()),
            (_, letter) => {
                match letter {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                word.get_or_insert_default().push(letter);
            }
        }
    }
    words.extend(word);
    words
}

/// HMAC-SHA256 in hexadecimal digits.
fn mac(key: &[u8], parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    hex::encode(mac.finalize().into_bytes())
}

fn sent(url: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>, auth: &'static str) -> Sent {
    let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    Sent { url: url.to_owned(), headers, body: body.into(), auth }
}

/// A JSON value as OTLP writes one.
fn any_value(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(truth) => json!({ "boolValue": truth }),
        Value::Number(number) if number.is_i64() => json!({ "intValue": number.to_string() }),
        Value::Number(number) => json!({ "doubleValue": number }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(items) => json!({"arrayValue": {"values": items.iter().map(any_value).collect::<Vec<_>>()}}),
        Value::Object(members) => {
            let pair = |(key, value): (&String, &Value)| json!({"key": key, "value": any_value(value)});
            json!({"kvlistValue": {"values": members.iter().map(pair).collect::<Vec<_>>()}})
        }
    }
}

/// What the OpenTelemetry Collector sends of an object, as its printed exporter says.
fn collector(printed: &Printed, body: &[u8]) -> Sent {
    let exporter = &printed.yaml("otlphttp/pipeproof")[0]["exporters"]["otlphttp/pipeproof"];
    let body: Value = serde_json::from_slice(body).unwrap();
    let record = json!({"timeUnixNano": "1773568800000000000", "body": any_value(&body)});
    let request = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]});
    let headers = [
        ("content-type", "application/json"),
        ("authorization", exporter["headers"]["Authorization"].as_str().unwrap()),
    ];
    sent(exporter["logs_endpoint"].as_str().unwrap(), &headers, request.to_string(), "bearer")
}

/// What Fluent Bit sends of a line, as its printed output says.
fn fluent_bit(printed: &Printed, line: &[u8]) -> Sent {
    let configuration = &printed.yaml("storage.path")[0];
    let output = &configuration["pipeline"]["outputs"][0];
    assert_eq!(output["match"], configuration["pipeline"]["inputs"][0]["tag"]);
    let text = |key: &str| output[key].as_str().unwrap_or_else(|| panic!("{key} of {output}"));
    // `on` and `off` are truth in YAML.
    let scheme = if output["tls"] == true { "https" } else { "http" };
    let (name, value) = text("header").split_once(' ').unwrap();
    let headers = [(name, value), ("content-encoding", text("compress")), ("content-type", "application/x-ndjson")];
    sent(
        &format!("{scheme}://{}:{}{}", text("host"), output["port"], text("uri")),
        &headers,
        gzip(&[line, b"\n"].concat()),
        "bearer",
    )
}

/// The first line of a fixture.
fn first(name: &str) -> Vec<u8> {
    let all = fixture(name);
    let all = all.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&all);
    all.split(|byte| *byte == b'\n').next().unwrap().to_vec()
}

/// The first line of a fixture of the decoders.
fn decoded(name: &str) -> Vec<u8> {
    first(&format!("../../ingest/tests/fixtures/{name}"))
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// What a sender of a type does with what is printed for it; nothing where pipeproof fetches, or another test sends.
#[allow(clippy::too_many_lines, reason = "one arm for each type")]
fn requests(printed: &Printed) -> Vec<Sent> {
    use SourceType as T;
    let at = now().as_micros() / 1_000_000;
    match printed.kind {
        T::GithubWebhook => {
            let hook = printed.part("Payload URL");
            let body = fixture("github_webhook/push/push.json");
            let signature = format!("sha256={}", mac(hook.setting("Secret").as_bytes(), &[&body]));
            let headers = [
                ("content-type", hook.setting("Content type")),
                ("x-github-event", "push"),
                ("x-github-delivery", "d-1"),
                ("x-hub-signature-256", &signature),
            ];
            vec![sent(hook.setting("Payload URL"), &headers, body, "hmac")]
        }
        T::GithubJoblog => vec![printed.part("curl").curl(&fixture("github_joblog/ghaperf.log"))],
        T::GithubAudit => {
            let stream = printed.part("Log streaming");
            let base = printed.part("Splunk HEC").setting("Splunk HEC").split(' ').next().unwrap();
            let scheme = base.split("://").next().unwrap();
            let url = format!("{scheme}://{}:{}/services/collector", stream.setting("Domain"), stream.setting("Port"));
            let event: Value = serde_json::from_slice(&first("github_audit/ocsf-examples-raw.ndjson")).unwrap();
            let token = format!("Splunk {}", stream.setting("Token"));
            vec![sent(&url, &[("authorization", &token), JSON], json!({ "event": event }).to_string(), "bearer")]
        }
        T::GitlabWebhook => {
            let hook = printed.part("Signing token");
            let body = first("gitlab_webhook/drone-go-scm.ndjson");
            let key = STANDARD.decode(hook.setting("Signing token").strip_prefix("whsec_").unwrap()).unwrap();
            assert_eq!(key.len(), 32, "GitLab takes keys of 32 bytes");
            let time = at.to_string();
            let signature = hex::decode(mac(&key, &[b"m-1.", time.as_bytes(), b".", &body])).unwrap();
            let signature = format!("v1,{}", STANDARD.encode(signature));
            let signed = [
                JSON,
                ("x-gitlab-event", "Push Hook"),
                ("webhook-id", "m-1"),
                ("webhook-timestamp", &time),
                ("webhook-signature", &signature),
            ];
            let token = hook.setting("Secret token").split(' ').next().unwrap();
            let named = [JSON, ("x-gitlab-event", "Push Hook"), ("idempotency-key", "m-2"), ("x-gitlab-token", token)];
            let url = hook.setting("URL");
            vec![sent(url, &signed, body.clone(), "hmac"), sent(url, &named, body, "token")]
        }
        T::GitlabAudit => {
            let mutation = &printed.part("verificationToken").text;
            let argument = |name: &str| {
                mutation.split_once(&format!("{name}: \"")).and_then(|(_, rest)| rest.split('"').next()).unwrap()
            };
            let token = argument("verificationToken");
            assert!((16..=24).contains(&token.len()), "GitLab takes 16 to 24 characters: {token}");
            // GitLab sends JSON with the content type of a form.
            let form = ("content-type", "application/x-www-form-urlencoded");
            let body = first("gitlab_audit/streamed.ndjson");
            let own = [form, ("x-gitlab-event-streaming-token", token)];
            let stream = printed.part("Custom HTTP headers");
            let (name, value) = stream.setting("Custom HTTP headers").split_once(": ").unwrap();
            let second = fixture("gitlab_audit/streamed.ndjson");
            let second = second.split(|byte| *byte == b'\n').nth(1).unwrap();
            vec![
                sent(argument("destinationUrl"), &own, body, "token"),
                sent(stream.setting("Destination URL"), &[form, (name, value)], second, "bearer"),
            ]
        }
        T::GitlabJoblog => vec![printed.part("curl").curl(&fixture("gitlab_joblog/sections.log"))],
        T::Jenkins => {
            let logger = printed.part("Elastic Search");
            let (user, password) = logger.setting("Credentials").rsplit_once(": ").unwrap().1.split_once(", ").unwrap();
            let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            let body = first("jenkins/elasticsearch.ndjson");
            vec![sent(logger.setting("URL"), &[JSON, ("authorization", &basic)], body, "bearer")]
        }
        T::CircleciWebhook => {
            let hook = printed.part("Receiver URL");
            let body = first("circleci_webhook/completed.ndjson");
            let signature = format!("v1={}", mac(hook.setting("Secret token").as_bytes(), &[&body]));
            let headers = [JSON, ("circleci-event-type", "workflow-completed"), ("circleci-signature", &signature)];
            vec![sent(hook.setting("Receiver URL"), &headers, body, "hmac")]
        }
        T::CircleciAudit => vec![printed.part("curl").curl(&fixture("circleci_audit/streamed.ndjson"))],
        T::Buildkite => {
            let hook = printed.part("Webhook URL");
            let (url, token) = (hook.setting("Webhook URL"), hook.setting("Token"));
            let both = fixture("buildkite/webhook.ndjson");
            let mut bodies = both.split(|byte| *byte == b'\n');
            let (body, other) = (bodies.next().unwrap(), bodies.next().unwrap());
            let time = at.to_string();
            let signature = mac(token.as_bytes(), &[time.as_bytes(), b".", body]);
            let signature = format!("timestamp={time},signature={signature}");
            let event = ("x-buildkite-event", "build.scheduled");
            vec![
                sent(url, &[JSON, event, ("x-buildkite-signature", &signature)], body, "hmac"),
                sent(url, &[JSON, event, ("x-buildkite-token", token)], other, "token"),
            ]
        }
        T::Okta => {
            let hook = printed.part("Authentication field");
            let body = decoded("okta/after-documentation.ndjson");
            let field = (hook.setting("Authentication field"), hook.setting("Authentication secret"));
            vec![sent(hook.setting("URL"), &[JSON, field], body, "bearer")]
        }
        T::AwsCloudtrail => {
            let stream = printed.part("Firehose");
            let record = first("aws_cloudtrail/stratus-red-team.ndjson");
            let body = json!({"requestId": "r-1", "timestamp": 1, "records": [{"data": STANDARD.encode(&record)}]});
            let headers = [
                JSON,
                ("content-encoding", "gzip"),
                ("x-amz-firehose-request-id", "r-1"),
                ("x-amz-firehose-access-key", stream.setting("Access key")),
            ];
            let file = json!({"Records": [serde_json::from_slice::<Value>(&record).unwrap()]}).to_string();
            vec![
                sent(stream.setting("HTTP endpoint URL"), &headers, gzip(body.to_string().as_bytes()), "bearer"),
                printed.part("s3://").curl(file.as_bytes()),
            ]
        }
        T::GcpAudit => vec![printed.part("gcloud logging read").curl(&decoded("gcp_audit/gcp-docs-wif.ndjson"))],
        T::KubernetesAudit => {
            let config = &printed.yaml("current-context")[0];
            let bearer = format!("Bearer {}", config["users"][0]["user"]["token"].as_str().unwrap());
            let event: Value = serde_json::from_slice(&first("kubernetes_audit/audit2rbac.ndjson")).unwrap();
            let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [event]});
            let url = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
            vec![sent(url, &[JSON, ("authorization", &bearer)], list.to_string(), "bearer")]
        }
        T::OpaDecision => {
            let service = &printed.yaml("decision_logs")[0];
            let own = &service["services"]["pipeproof"];
            let (url, resource) =
                (own["url"].as_str().unwrap(), service["decision_logs"]["resource"].as_str().unwrap());
            let bearer = format!("Bearer {}", own["credentials"]["bearer"]["token"].as_str().unwrap());
            let body = [b"[".as_slice(), &decoded("opa_decision/after-documentation.ndjson"), b"]"].concat();
            let headers = [JSON, ("content-encoding", "gzip"), ("authorization", &bearer)];
            vec![sent(&format!("{url}{resource}"), &headers, gzip(&body), "bearer")]
        }
        T::Argocd => {
            let objects = printed.yaml("argocd-notifications-cm");
            let token = objects[0]["stringData"]["pipeproof-token"].as_str().unwrap();
            let service = &documents(objects[1]["data"]["service.webhook.pipeproof"].as_str().unwrap())[0];
            documents(objects[1]["data"]["template.pipeproof"].as_str().unwrap());
            let text = |value: &Value| value.as_str().unwrap().replace("$pipeproof-token", token);
            let headers: Vec<(String, String)> = service["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|header| (text(&header["name"]), text(&header["value"])))
                .collect();
            let body = decoded("argocd/after-source.ndjson");
            vec![Sent { url: text(&service["url"]), headers, body, auth: "bearer" }]
        }
        T::Flux => {
            let objects = printed.yaml("generic-hmac");
            let provider = &objects[1]["spec"];
            assert_eq!(provider["secretRef"]["name"], objects[0]["metadata"]["name"]);
            let body = decoded("flux/notification-controller-docs.ndjson");
            let signature = mac(objects[0]["stringData"]["token"].as_str().unwrap().as_bytes(), &[&body]);
            let headers = [JSON, ("x-signature", &*format!("sha256={signature}"))];
            vec![sent(provider["address"].as_str().unwrap(), &headers, body, "hmac")]
        }
        T::Falco => {
            let hook = &printed.yaml("customHeaders")[0]["webhook"];
            let headers = [JSON, ("Authorization", hook["customHeaders"]["Authorization"].as_str().unwrap())];
            vec![sent(hook["address"].as_str().unwrap(), &headers, decoded("falco/falco-website.ndjson"), "bearer")]
        }
        T::VaultAudit => vec![fluent_bit(printed, &first("vault_audit/audit.ndjson"))],
        T::GatekeeperAudit => vec![fluent_bit(printed, &decoded("gatekeeper/after-source.ndjson"))],
        T::Tetragon => vec![fluent_bit(printed, &decoded("tetragon/tetragon-docs.ndjson"))],
        T::Tracee => vec![fluent_bit(printed, &decoded("tracee/tracee-docs.ndjson"))],
        T::KubernetesEvent => vec![collector(printed, &decoded("k8s_event/after-source.ndjson"))],
        T::KyvernoReport => vec![collector(printed, &decoded("policy_report/openreports.ndjson"))],
        T::Otlp => vec![collector(printed, br#"{"action":"deploy.finished"}"#)],
        T::AzureSignin | T::AzureActivity | T::AzureKeyvault => {
            vec![printed.part("curl").curl(&decoded("azure_monitor/after-documentation.ndjson"))]
        }
        T::KubernetesAdmission => {
            let review = decoded("k8s_admissionreview/after-api.ndjson");
            let hook = &printed.yaml("ValidatingWebhookConfiguration")[0]["webhooks"][0];
            let url = hook["clientConfig"]["url"].as_str().unwrap();
            let user = &printed.yaml("AdmissionConfiguration")[1]["users"][0];
            assert!(url.contains(user["name"].as_str().unwrap()), "{user} is not by the host of {url}");
            let token = format!("Bearer {}", user["user"]["token"].as_str().unwrap());
            let asked = sent(url, &[JSON, ("Authorization", &token)], review.clone(), "bearer");
            vec![asked, printed.part("curl").curl(&review)]
        }
        T::HardenRunner => vec![printed.part("curl").curl(&decoded("harden_runner/after-source.ndjson"))],
        T::SigstoreBundle => vec![printed.part("curl").curl(&fixture("sigstore_bundle/happy-path-v0.3.json"))],
        T::RekorEntry => {
            vec![printed.part("curl").curl(&first("rekor_entry/rekor-types.ndjson"))]
        }
        T::IntotoStatement => vec![printed.part("curl").curl(&first("intoto_statement/slsa-verifier.ndjson"))],
        T::SbomCyclonedx => vec![printed.part("curl").curl(&first("sbom_cyclonedx/bom-examples.ndjson"))],
        T::SbomSpdx => vec![printed.part("curl").curl(&first("sbom_spdx/spdx-examples.ndjson"))],
        T::Trivy => vec![printed.part("curl").curl(&first("trivy/goldens.ndjson"))],
        T::Grype => vec![printed.part("curl").curl(&first("grype/grype.ndjson"))],
        T::Sarif => vec![printed.part("curl").curl(&first("sarif/codeql-action.ndjson"))],
        T::Gitleaks => vec![printed.part("curl").curl(&first("gitleaks/gitleaks.ndjson"))],
        T::Json | T::Cdevents => {
            let events = fixture("cdevents/cdevents-spec.ndjson");
            let mut events = events.split(|byte| *byte == b'\n');
            let plain = printed.part("Bearer").curl(events.next().unwrap());
            vec![plain, printed.part("openssl").curl(events.next().unwrap())]
        }
        T::Cloudevents => {
            let events = fixture("../../ingest/tests/fixtures/cloudevents/spec-md.ndjson");
            let mut events = events.split(|byte| *byte == b'\n');
            let plain = printed.part("Bearer").curl(events.next().unwrap());
            vec![plain, printed.part("openssl").curl(events.next().unwrap())]
        }
        // What is fetched.
        T::JenkinsJoblog | T::BuildkiteJoblog | T::ProviderLedger => Vec::new(),
        T::Pipeproof => unreachable!("nobody sends it"),
    }
}

async fn send(client: &reqwest::Client, sent: &Sent) -> (u16, String) {
    let mut request = client.post(&sent.url).body(sent.body.clone());
    for (name, value) in &sent.headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.unwrap_or_else(|error| panic!("{}: {error}", sent.url));
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Nothing that a reader would have to replace, and could overlook.
fn is_whole(printed: &Printed) {
    const PLACEHOLDERS: &[&str] = &[
        "TYPE", "NAME", "SOURCE", "TOKEN", "SECRET", "HOST", "PORT", "OWNER", "REPO", "BUCKET", "REGION", "ACCOUNT",
        "PROJECT", "ACME", "RUN", "JOB", "KEY", "RESOURCE", "ARTIFACT", "ORG",
    ];
    let kind = printed.kind;
    let text = &printed.whole;
    for word in PLACEHOLDERS {
        for (at, _) in text.match_indices(word) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            let after = text[at + word.len()..].chars().next().unwrap_or(' ');
            let alone = !before.is_alphanumeric() && before != '_' && !after.is_alphanumeric() && after != '_';
            // A variable of the shell says so by itself, and where it is set.
            let variable = before == '$' || after == '=';
            assert!(!alone || variable, "{kind}: the placeholder {word} is left: {text}");
        }
    }
    assert!(!text.contains('<') || text.contains(" < event.json"), "{kind}: {text}");
    for part in &printed.parts {
        match part.language.as_deref() {
            Some("yaml") => drop(documents(&part.text)),
            Some("graphql") => {
                for (open, close) in [('{', '}'), ('(', ')')] {
                    assert_eq!(part.text.matches(open).count(), part.text.matches(close).count(), "{}", part.text);
                }
            }
            Some("sh") => {
                let checked = std::process::Command::new("sh").args(["-n", "-c", &part.text]).output().unwrap();
                assert!(
                    checked.status.success(),
                    "{kind}: {}: {}",
                    part.text,
                    String::from_utf8_lossy(&checked.stderr)
                );
            }
            None => {}
            Some(other) => panic!("{kind}: {other} is not checked"),
        }
    }
}

#[tokio::test]
async fn who_sends_as_printed_is_believed_for_every_type() {
    let server = Server::start();
    let client = reqwest::Client::new();
    let mut expected = Vec::new();
    for kind in external() {
        let printed = printed(&server, kind);
        is_whole(&printed);
        assert!(printed.whole.starts_with("# public_url is not set"), "{kind}: {}", printed.whole);
        let requests = requests(&printed);
        for request in &requests {
            assert!(request.url.starts_with(server.public_url()), "{kind}: {}", request.url);
            let (status, said) = send(&client, request).await;
            assert_eq!(status, 200, "{kind} at {}: {said}", request.url);
        }
        let auths: BTreeSet<&str> = requests.iter().map(|request| request.auth).collect();
        expected.push((name_of(kind), auths));
    }
    server.settled().await;
    for (name, auths) in expected {
        let rows = server.sql(&format!("SELECT DISTINCT auth FROM events WHERE source = '{name}'")).await;
        let found: BTreeSet<&str> = rows.iter().filter_map(|row| row[0].as_str()).collect();
        assert_eq!(found, auths, "how senders of {name} were proven");
        let dead = format!("SELECT count(*) FROM events WHERE source = '{name}' AND dead_letter IS NOT NULL");
        let of_other_kinds = ["acme-azure-activity", "acme-azure-keyvault"].contains(&&*name);
        assert!(of_other_kinds || server.count(&dead).await == 0, "{name}: what was sent cannot be decoded");
    }
}

#[tokio::test]
async fn an_event_hook_is_verified_at_the_address_that_is_printed() {
    let server = Server::start();
    let printed = printed(&server, SourceType::Okta);
    let hook = printed.part("Authentication field");
    let request = reqwest::Client::new()
        .get(hook.setting("URL"))
        .header(hook.setting("Authentication field"), hook.setting("Authentication secret"))
        .header("x-okta-verification-challenge", "abc");
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({"verification": "abc"}));
}

/// Runs openssl.
fn openssl(args: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn pubsub_pushes_as_printed_are_believed_with_the_identity_that_is_printed() {
    if !has_tool("openssl") {
        return left_out("Pub/Sub push", "no openssl to sign a token with");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let public = "public_url: https://pipeproof.example/\n";
    let server = Setup::new().config(public).on(&data).start();
    let printed = printed(&server, SourceType::GcpAudit);
    server.terminate();
    let mut source = printed.yaml("identity:")[0]["sources"][0].clone();
    let commands = &printed.part("subscriptions create").text;
    let option = |name: &str| {
        let (_, rest) = commands.split_once(&format!("--{name}='")).unwrap_or_else(|| panic!("--{name}: {commands}"));
        rest.split('\'').next().unwrap().to_owned()
    };
    let (endpoint, audience) = (option("push-endpoint"), option("push-auth-token-audience"));
    assert_eq!(source["identity"]["audience"], *audience, "what is asked for is what is accepted");
    let account = commands.split_once("--push-auth-service-account=\"").unwrap().1.split('"').next().unwrap();
    let account = account.replace("$PROJECT", "your-project");
    assert_eq!(source["identity"]["email"], *account);

    openssl(&["genrsa", "-out", &path("key.pem"), "2048"]);
    let modulus = String::from_utf8(openssl(&["rsa", "-in", &path("key.pem"), "-noout", "-modulus"])).unwrap();
    let modulus = hex::decode(modulus.trim().strip_prefix("Modulus=").unwrap()).unwrap();
    let key = json!({"kty": "RSA", "alg": "RS256", "kid": "k1", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB"});
    std::fs::write(path("keys.json"), json!({ "keys": [key] }).to_string()).unwrap();
    source["identity"]["keys_file"] = path("keys.json").into();
    let server = Setup::new().config(&format!("{public}sources: [{source}]\n")).on(&data).start();

    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let at = now().as_micros() / 1_000_000;
    let claims = json!({"iss": "https://accounts.google.com", "aud": audience, "iat": at, "exp": at + 3600,
        "email": account, "email_verified": true});
    let message = format!("{}.{}", part(json!({"alg": "RS256", "kid": "k1"})), part(claims));
    std::fs::write(path("message"), &message).unwrap();
    let signature = openssl(&["dgst", "-sha256", "-sign", &path("key.pem"), &path("message")]);
    let bearer = format!("Bearer {message}.{}", URL_SAFE_NO_PAD.encode(signature));
    let entry = STANDARD.encode(decoded("gcp_audit/gcp-docs-wif.ndjson"));
    let push = json!({"message": {"data": entry, "messageId": "1"}, "subscription": "projects/p/subscriptions/s"});
    let target = endpoint.replace("https://pipeproof.example", server.public_url());
    let request = sent(&target, &[JSON, ("authorization", &bearer)], push.to_string(), "jwt");
    let (status, said) = send(&reqwest::Client::new(), &request).await;
    assert_eq!(status, 200, "{said}");
    server.settled().await;
    let name = name_of(SourceType::GcpAudit);
    let rows = server.sql(&format!("SELECT DISTINCT auth, dead_letter FROM events WHERE source = '{name}'")).await;
    assert_eq!(rows, [[json!("jwt"), Value::Null]]);
    let labelled = format!("SELECT count(*) FROM events WHERE source = '{name}' AND envelope LIKE '%delivery%'");
    assert!(server.count(&labelled).await > 0, "what is pasted keeps the source's labels");
}

#[tokio::test]
async fn with_tls_the_public_listener_is_printed_and_never_the_door_of_commands() {
    let authority = Authority::new("authority");
    authority.signs("server", "server", 1, localhost());
    let tls = format!(
        "tls: {{cert: {}, key: {}}}\n",
        authority.path("server.pem").display(),
        authority.path("server.key").display()
    );
    let server = Setup::new().config(&tls).start();
    assert!(server.public_url().starts_with("https://") && server.url().starts_with("http://"));
    let client = authority.client(None);
    for kind in external() {
        let printed = printed(&server, kind);
        assert!(!printed.whole.contains("http://"), "{kind}: {}", printed.whole);
        let door = server.url().rsplit(':').next().unwrap();
        assert!(
            !printed.whole.contains(&format!(":{door}")) && !printed.whole.contains(&format!("port: {door}")),
            "{kind}"
        );
        // One of each way to name an address.
        if matches!(kind, SourceType::GithubWebhook | SourceType::VaultAudit | SourceType::Otlp | SourceType::Flux) {
            for request in requests(&printed) {
                let (status, said) = send(&client, &request).await;
                assert_eq!(status, 200, "{kind} at {}: {said}", request.url);
            }
        }
    }
}

#[tokio::test]
async fn a_public_url_is_what_is_printed_and_a_reload_changes_it() {
    let authority = Authority::new("authority");
    authority.signs("server", "server", 1, localhost());
    let config = |public: &str| {
        let (cert, key) = (authority.path("server.pem"), authority.path("server.key"));
        format!("tls: {{cert: {}, key: {}}}\npublic_url: {public}\n", cert.display(), key.display())
    };
    let public = "https://pipeproof.example/in";
    let server = Setup::new().config(&config(public)).start();
    let client = authority.client(None);
    for kind in external() {
        let printed = printed(&server, kind);
        assert!(
            !printed.whole.contains("127.0.0.1") && !printed.whole.contains("public_url"),
            "{kind}: {}",
            printed.whole
        );
        for mut request in requests(&printed) {
            // Fluent Bit and GitHub's stream write the port, which is https's.
            request.url = request.url.replace("pipeproof.example:443", "pipeproof.example");
            // GitHub's stream takes no path.
            let base = if kind == SourceType::GithubAudit { "https://pipeproof.example" } else { public };
            let rest = request.url.strip_prefix(base).unwrap_or_else(|| panic!("{kind}: {}", request.url));
            // What a proxy in front does.
            request.url = format!("{}{rest}", server.public_url());
            let (status, said) = send(&client, &request).await;
            assert_eq!(status, 200, "{kind} at {}: {said}", request.url);
        }
    }
    let rotated = server.cli_json(&["sources", "rotate", &name_of(SourceType::Flux)]);
    assert!(rotated["sender"].as_str().unwrap().contains(&format!("{public}/v1/events/")), "{rotated}");

    let path = server.data().with_extension("yaml");
    std::fs::write(&path, format!("version: 1\n{}", config("https://elsewhere.example"))).unwrap();
    server.signal("HUP");
    let mut number = 0;
    let added = crate::harness::eventually("the new address is printed", || {
        number += 1;
        let added = server.add_source(&format!("later-{number}"), "json", &[]);
        let url = added["url"].as_str().unwrap().to_owned();
        async move { url.starts_with("https://elsewhere.example/").then_some(added) }
    })
    .await;
    assert!(!token_of(&added).is_empty());
}

#[test]
fn a_public_url_that_is_none_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("pipeproof.yaml");
    std::fs::write(&path, "version: 1\npublic_url: pipeproof.example\n").unwrap();
    let data = folder.path().join("data");
    let refused = crate::harness::program().args(["serve", "--config"]).arg(&path).arg("--data").arg(&data).output();
    let refused = refused.unwrap();
    let said = crate::harness::stderr(&refused);
    assert!(!refused.status.success() && said.contains("public_url"), "{said}");
    let refused = crate::harness::program().args(["serve", "--public-url", "no address", "--data"]).arg(&data).output();
    assert!(!refused.unwrap().status.success());
}

#[test]
fn without_a_server_the_address_of_one_that_is_told_nothing_is_printed() {
    let folder = tempfile::TempDir::new().unwrap();
    let add = ["sources", "add", "hooks", "--type", "github.webhook", "--format", "human", "--data"];
    let output = crate::harness::program().args(add).arg(folder.path().join("data")).output().unwrap();
    let text = stdout(&output);
    assert!(text.contains("http://127.0.0.1:7391/v1/events/hooks") && text.contains("public_url"), "{text}");
}
