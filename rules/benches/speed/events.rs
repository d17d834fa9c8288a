//! Events in the shape, size and variety of a delivery pipeline's audit trails: CloudTrail 45 %, Kubernetes audit 35 %,
//! GitHub audit 20 %, and of all of them about one in sixty is what rules look for. The same on every machine.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use pipeproof_engine::event::{Event, EventId};
use pipeproof_engine::fields::Fields;
use pipeproof_engine::record::{Authenticity, CollectionMode, Position};
use pipeproof_engine::source::SourceType;
use pipeproof_engine::time::Timestamp;
use serde_json::{Value, json};

/// Events that are given to the plan at once.
pub(crate) const BATCH: usize = 4_096;

/// Events, one a line, in blocks of memory of their own, as a reader or requests bring them: events of one block share a
/// count of references, and threads that count the same one wait for each other.
#[derive(Default)]
pub(crate) struct Lines {
    blocks: Vec<Block>,
    /// How many lines there are.
    pub(crate) count: usize,
    /// Bytes of all lines, without their ends.
    pub(crate) bytes: usize,
}

#[derive(Default)]
struct Block {
    text: Bytes,
    lines: Vec<Range<usize>>,
}

/// Lines that follow each other in one block.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'l> {
    text: &'l Bytes,
    lines: &'l [Range<usize>],
}

impl<'l> Batch<'l> {
    pub(crate) fn iter(self) -> impl Iterator<Item = &'l [u8]> {
        self.lines.iter().map(move |line| &self.text[line.clone()])
    }

    /// Each line, without a copy of it.
    pub(crate) fn slices(self) -> impl Iterator<Item = Bytes> {
        self.lines.iter().map(move |line| self.text.slice(line.clone()))
    }
}

impl Lines {
    pub(crate) fn read(path: &Path) -> std::io::Result<Self> {
        let mut reader = BufReader::new(File::open(path)?);
        let mut line = Vec::new();
        let mut failed = None;
        let lines = Self::of(std::iter::from_fn(|| {
            line.clear();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => None,
                Ok(_) => Some(line.trim_ascii().to_vec()),
                Err(error) => {
                    failed = Some(error);
                    None
                }
            }
        }));
        failed.map_or(Ok(lines), Err)
    }

    pub(crate) fn generated(events: usize) -> Self {
        Self::of(stream(7).take(events).map(|(_, event)| event.into_bytes()))
    }

    fn of(lines: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut all = Self::default();
        let (mut text, mut block) = (Vec::new(), Block::default());
        for line in lines.filter(|line| !line.is_empty()) {
            block.lines.push(text.len()..text.len() + line.len());
            text.extend_from_slice(&line);
            text.push(b'\n');
            all.count += 1;
            all.bytes += line.len();
            if block.lines.len() == BATCH {
                block.text = Bytes::from(std::mem::take(&mut text));
                all.blocks.push(std::mem::take(&mut block));
            }
        }
        block.text = Bytes::from(text);
        all.blocks.push(block);
        all
    }

    /// The part of one of so many threads: as many lines as the others have, block by block.
    pub(crate) fn share(&self, thread: usize, threads: usize) -> impl Iterator<Item = Batch<'_>> {
        let (from, to) = (self.count * thread / threads, self.count * (thread + 1) / threads);
        self.blocks.iter().enumerate().filter_map(move |(number, block)| {
            let start = number * BATCH;
            let within = |line: usize| line.clamp(start, start + block.lines.len()) - start;
            let lines = &block.lines[within(from)..within(to)];
            (!lines.is_empty()).then_some(Batch { text: &block.text, lines })
        })
    }

    pub(crate) fn batches(&self) -> impl Iterator<Item = Batch<'_>> {
        self.share(0, 1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.batches().flat_map(Batch::iter)
    }

    pub(crate) fn slices(&self) -> impl Iterator<Item = Bytes> {
        self.batches().flat_map(Batch::slices)
    }
}

/// Events without end, each with the trail it is of: `cloudtrail`, `kubernetes` or `github`.
pub(crate) fn stream(seed: u64) -> impl Iterator<Item = (&'static str, String)> {
    let mut dice = Dice(seed);
    (0..).map(move |number| {
        let (trail, event) = match dice.roll(100) {
            0..45 => ("cloudtrail", cloudtrail(&mut dice, number)),
            45..80 => ("kubernetes", kubernetes(&mut dice, number)),
            _ => ("github", github(&mut dice, number)),
        };
        (trail, event.to_string())
    })
}

/// What is the same in all events of the file.
pub(crate) struct Frame {
    source: std::sync::Arc<str>,
    item: std::sync::Arc<str>,
}

impl Default for Frame {
    fn default() -> Self {
        Self { source: "file".into(), item: "id:1".into() }
    }
}

impl Frame {
    /// An event of a line, without a copy of it.
    pub(crate) fn event(&self, index: usize, native: Bytes) -> Event {
        Event {
            id: EventId { position: Position { partition: 0, index: index as u64 }, sub: 0 },
            source: self.source.clone(),
            source_type: SourceType::Json,
            item: self.item.clone(),
            time: Timestamp::from_secs(1_767_614_400),
            time_known: true,
            received: Timestamp::from_secs(1_767_614_400),
            auth: Authenticity::Bearer,
            mode: CollectionMode::Live,
            fields: Fields::default(),
            native,
        }
    }
}

/// A small generator, so that every run sees the same events.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len() as u64) as usize]
    }

    /// Skewed: half of all picks fall on the first tenth.
    fn often(&mut self, sides: u64) -> u64 {
        if self.roll(2) == 0 { self.roll(sides.div_ceil(10)) } else { self.roll(sides) }
    }

    fn hex(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(b"0123456789abcdef"[self.roll(16) as usize])).collect()
    }

    fn base32(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[self.roll(32) as usize])).collect()
    }

    fn uuid(&mut self) -> String {
        format!("{}-{}-{}-{}-{}", self.hex(8), self.hex(4), self.hex(4), self.hex(4), self.hex(12))
    }

    fn rare(&mut self) -> bool {
        self.roll(1_000) < 17
    }
}

fn clock(number: usize) -> String {
    let secs = number / 50;
    format!("2026-01-05T{:02}:{:02}:{:02}Z", secs / 3_600 % 24, secs / 60 % 60, secs % 60)
}

const CALLS: &[(&str, &str, bool)] = &[
    ("s3.amazonaws.com", "GetObject", true),
    ("s3.amazonaws.com", "PutObject", false),
    ("s3.amazonaws.com", "ListObjects", true),
    ("sts.amazonaws.com", "AssumeRoleWithWebIdentity", true),
    ("sts.amazonaws.com", "GetCallerIdentity", true),
    ("ec2.amazonaws.com", "DescribeInstances", true),
    ("ec2.amazonaws.com", "DescribeSecurityGroups", true),
    ("ecr.amazonaws.com", "BatchGetImage", true),
    ("ecr.amazonaws.com", "PutImage", false),
    ("kms.amazonaws.com", "Decrypt", true),
    ("iam.amazonaws.com", "GetRole", true),
    ("logs.amazonaws.com", "PutLogEvents", false),
    ("ecs.amazonaws.com", "DescribeServices", true),
    ("lambda.amazonaws.com", "Invoke", false),
    ("dynamodb.amazonaws.com", "GetItem", true),
];

const ALARMING_CALLS: &[(&str, &str, bool)] = &[
    ("cloudtrail.amazonaws.com", "StopLogging", false),
    ("guardduty.amazonaws.com", "CreateIPSet", false),
    ("iam.amazonaws.com", "CreateLoginProfile", false),
    ("ec2.amazonaws.com", "DisableEbsEncryptionByDefault", false),
    ("config.amazonaws.com", "StopConfigurationRecorder", false),
];

fn cloudtrail(dice: &mut Dice, number: usize) -> Value {
    let call = if dice.rare() { dice.pick(ALARMING_CALLS) } else { dice.pick(CALLS) };
    let account = format!("1234567890{:02}", dice.often(40));
    let role = format!("ci-deploy-{}", dice.often(400));
    let session = format!("GitHubActions-{}", dice.roll(1 << 30));
    let unique = dice.base32(16);
    json!({
        "eventVersion": "1.09",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": format!("AIDA{unique}"),
            "arn": format!("arn:aws:iam::{account}:user/ci/{role}"),
            "accountId": account,
            "accessKeyId": format!("ASIA{}", dice.base32(16)),
            "userName": role,
            "sessionContext": {
                "webIdFederationData": {
                    "federatedProvider": format!("arn:aws:iam::{account}:oidc-provider/token.actions.githubusercontent.com"),
                    "attributes": {"session": session},
                },
                "attributes": {"creationDate": clock(number.saturating_sub(90_000)), "mfaAuthenticated": "false"},
            },
        },
        "eventTime": clock(number),
        "eventSource": call.0,
        "eventName": call.1,
        "awsRegion": dice.pick(&["eu-central-1", "us-east-1", "eu-west-1", "us-west-2"]),
        "sourceIPAddress": format!("{}.{}.{}.{}", dice.pick(&[10, 20, 52, 140]), dice.roll(16), dice.roll(256), dice.roll(256)),
        "userAgent": dice.pick(&[
            "aws-sdk-go-v2/1.30.3 os/linux lang/go#1.22.5 md/GOOS#linux md/GOARCH#amd64",
            "Boto3/1.34.84 md/Botocore#1.34.84 ua/2.0 os/linux#6.5.0-1018-aws md/arch#x86_64 lang/python#3.11.9",
            "APN/1.0 HashiCorp/1.0 Terraform/1.8.5 aws-sdk-go-v2/1.30.0",
            "aws-cli/2.17.20 md/awscrt#0.20.11 ua/2.0 os/linux#6.8.0-1012-azure md/arch#x86_64 command/s3.cp",
        ]),
        "requestParameters": {
            "bucketName": format!("acme-artifacts-{}", dice.often(300)),
            "key": format!("builds/2026/01/05/{}.tar.zst", dice.hex(24)),
            "Host": "acme-artifacts.s3.eu-central-1.amazonaws.com",
        },
        "responseElements": null,
        "additionalEventData": {
            "SignatureVersion": "SigV4",
            "CipherSuite": "TLS_AES_128_GCM_SHA256",
            "bytesTransferredIn": 0,
            "bytesTransferredOut": dice.roll(1_000_000),
            "AuthenticationMethod": "AuthHeader",
        },
        "requestID": dice.base32(16),
        "eventID": dice.uuid(),
        "readOnly": call.2,
        "resources": [{"type": "AWS::S3::Object", "ARN": format!("arn:aws:s3:::acme-artifacts/{}", dice.hex(12))}],
        "eventType": "AwsApiCall",
        "managementEvent": !call.2,
        "recipientAccountId": account,
        "eventCategory": "Data",
        "product": "aws",
        "service": "cloudtrail",
    })
}

fn kubernetes(dice: &mut Dice, number: usize) -> Value {
    let (verb, resource, subresource) = if dice.rare() {
        dice.pick(&[
            ("list", "secrets", ""),
            ("create", "pods", "exec"),
            ("delete", "deployments", ""),
            ("create", "cronjobs", ""),
        ])
    } else {
        let verb = dice.pick(&["get", "list", "watch", "update", "patch", "get", "watch"]);
        (verb, dice.pick(&["pods", "configmaps", "leases", "endpoints", "replicasets", "nodes"]), "")
    };
    let namespace = format!("team-{}", dice.often(60));
    let name = format!("app-{}-{}", dice.often(200), dice.hex(10));
    let mut object = json!({"resource": resource, "namespace": namespace, "name": name, "apiVersion": "v1"});
    if !subresource.is_empty() {
        object["subresource"] = subresource.into();
    }
    json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "auditID": dice.uuid(),
        "stage": "ResponseComplete",
        "requestURI": format!("/api/v1/namespaces/{namespace}/{resource}/{name}?timeout=10s"),
        "verb": verb,
        "user": {
            "username": format!("system:serviceaccount:{namespace}:app-{}", dice.often(300)),
            "uid": dice.uuid(),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            "extra": {"authentication.kubernetes.io/pod-name": [name], "authentication.kubernetes.io/pod-uid": [dice.uuid()]},
        },
        "sourceIPs": [format!("10.{}.{}.{}", dice.roll(4), dice.roll(256), dice.roll(256))],
        "userAgent": dice.pick(&[
            "kube-controller-manager/v1.31.2 (linux/amd64) kubernetes/5864a46/system:serviceaccount",
            "kubelet/v1.31.2 (linux/amd64) kubernetes/5864a46",
            "argocd-application-controller/v2.12.3 (linux/amd64) kubernetes/$Format",
        ]),
        "objectRef": object,
        "responseStatus": {"metadata": {}, "code": 200},
        "requestObject": {
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web", "tier": "front"}},
            "spec": {"containers": [{"name": "web", "image": format!("registry.example/app@sha256:{}", dice.hex(64)), "args": ["--port=8080"]}]},
        },
        "requestReceivedTimestamp": clock(number),
        "stageTimestamp": clock(number),
        "annotations": {
            "authorization.k8s.io/decision": "allow",
            "authorization.k8s.io/reason": format!("RBAC: allowed by RoleBinding \"deploy/{namespace}\" of Role \"deploy\""),
        },
        "product": "kubernetes",
        "service": "audit",
    })
}

fn github(dice: &mut Dice, number: usize) -> Value {
    let action = if dice.rare() {
        dice.pick(&["repo.destroy", "org.disable_two_factor_requirement", "org.add_member", "environment.delete"])
    } else {
        dice.pick(&[
            "git.push",
            "git.fetch",
            "git.clone",
            "workflows.completed_workflow_run",
            "workflows.created_workflow_run",
            "pull_request.merge",
            "pull_request_review.submit",
            "protected_branch.policy_override_seen",
            "checks.completed",
        ])
    };
    let actor = format!("dev-{}", dice.often(500));
    let repo = format!("acme/service-{}", dice.often(400));
    json!({
        "@timestamp": 1_767_571_200_000_u64 + number as u64 * 20,
        "_document_id": dice.base32(22),
        "action": action,
        "actor": actor,
        "actor_id": dice.roll(1 << 26),
        "actor_ip": format!("140.82.{}.{}", dice.roll(256), dice.roll(256)),
        "actor_location": {"country_code": dice.pick(&["DE", "US", "FR", "PL", "IN"])},
        "actor_is_bot": dice.roll(5) == 0,
        "business": "acme-inc",
        "business_id": 4_711,
        "created_at": 1_767_571_200_000_u64 + number as u64 * 20,
        "org": "acme",
        "org_id": 1_234_567,
        "operation_type": dice.pick(&["create", "modify", "access"]),
        "repo": repo,
        "repository": repo,
        "repository_public": false,
        "visibility": "private",
        "hashed_token": format!("{}=", dice.base32(43)),
        "programmatic_access_type": dice.pick(&["GitHub App server-to-server token", "OAuth access token", "Fine-grained personal access token"]),
        "token_id": dice.roll(1 << 30),
        "token_scopes": "repo,workflow,read:org",
        "transport_protocol_name": "http",
        "workflow_run_id": dice.roll(1 << 34),
        "head_sha": dice.hex(40),
        "head_branch": format!("feature/{}-{}", dice.hex(6), dice.roll(9_000)),
        "event": dice.pick(&["push", "pull_request", "schedule", "workflow_dispatch"]),
        "user_agent": dice.pick(&["git/2.45.2", "GitHubActions/2.319.1", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0"]),
        "external_identity_nameid": format!("{actor}@acme.example"),
        "request_id": format!("{}:{}:{}", dice.hex(4), dice.hex(6), dice.hex(8)),
        "product": "github",
        "service": "audit",
    })
}
