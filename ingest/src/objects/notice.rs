//! What a message in a queue says about objects that were put into a bucket: S3's own notifications, the same through SNS or
//! EventBridge, and CloudTrail's (Amazon S3 User Guide, "Event message structure", "EventBridge event message structure").

use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// Largest message: a queue takes 1 MiB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most objects in one message.
const OBJECTS_MAX: usize = 1_000;
/// How deep one message may be wrapped in another.
const WRAPPED_MAX: usize = 3;

/// An object that was created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Created {
    /// Bucket.
    pub bucket: String,
    /// Key, as it is: not encoded for a URL.
    pub key: String,
    /// Version, where the bucket keeps versions.
    pub version: Option<String>,
    /// Entity tag, without quotes.
    pub etag: Option<String>,
    /// Size in bytes.
    pub size: Option<u64>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// These were created.
    Created(Vec<Created>),
    /// Nothing that has to be read: a test of the set-up, objects that went, a subscription.
    Nothing(&'static str),
}

/// Why a message says nothing that can be understood. It is kept as it is, so that somebody sees it.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// It is larger than a queue's message.
    #[error("the message has more than {MESSAGE_BYTES_MAX} bytes")]
    Large,
    /// It is no JSON object.
    #[error("the message is no JSON object")]
    Json(#[source] serde_json::Error),
    /// It is of no known form.
    #[error("the message is no notification about objects of a bucket (S3, S3 through SNS or EventBridge, CloudTrail)")]
    Form,
    /// It names too many objects.
    #[error("the message names more than {OBJECTS_MAX} objects")]
    Objects,
    /// A key is not encoded as S3 encodes it.
    #[error("the message names an object by a key that is not encoded as S3 does")]
    Key,
}

/// Every form in one, told apart by the fields that are there.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "Records")]
    records: Option<Vec<S3Record>>,
    #[serde(rename = "Event")]
    event: Option<String>,
    #[serde(rename = "Type")]
    kind: Option<String>,
    #[serde(rename = "Message")]
    message: Option<String>,
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    source: Option<String>,
    detail: Option<Detail>,
    #[serde(rename = "s3Bucket")]
    trail_bucket: Option<String>,
    #[serde(rename = "s3ObjectKey")]
    trail_keys: Option<OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
struct S3Record {
    #[serde(rename = "eventName")]
    event_name: String,
    s3: S3,
}

#[derive(Deserialize)]
struct S3 {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Option<Bucket>,
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
    size: Option<u64>,
    #[serde(alias = "eTag")]
    etag: Option<String>,
    #[serde(rename = "versionId", alias = "version-id")]
    version: Option<String>,
}

impl Notice {
    /// Reads a message of a queue.
    ///
    /// # Errors
    /// [`NoticeError`] if it says nothing that is understood.
    pub fn read(message: &str) -> Result<Self, NoticeError> {
        Self::unwrapped(message, 0)
    }

    fn unwrapped(text: &str, depth: usize) -> Result<Self, NoticeError> {
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(NoticeError::Large);
        }
        let message: Message = serde_json::from_str(text).map_err(NoticeError::Json)?;
        if let Some(records) = message.records {
            return Self::records(records);
        }
        if message.event.as_deref() == Some("s3:TestEvent") {
            return Ok(Self::Nothing("S3 tests that it may send here"));
        }
        match (message.kind.as_deref(), message.message) {
            (Some("Notification"), Some(inner)) if depth < WRAPPED_MAX => return Self::unwrapped(&inner, depth + 1),
            (Some("SubscriptionConfirmation" | "UnsubscribeConfirmation"), _) => {
                return Ok(Self::Nothing("SNS speaks of the subscription"));
            }
            _ => {}
        }
        if message.source.as_deref() == Some("aws.s3") {
            return match (message.detail_type.as_deref(), message.detail) {
                (Some("Object Created"), Some(Detail { bucket: Some(bucket), object: Some(object) })) => {
                    Ok(Self::Created(vec![created(bucket, object.key.clone(), object)]))
                }
                (Some("Object Created"), _) => Err(NoticeError::Form),
                _ => Ok(Self::Nothing("no object was created")),
            };
        }
        if let (Some(bucket), Some(keys)) = (message.trail_bucket, message.trail_keys) {
            let keys = match keys {
                OneOrMore::One(key) => vec![key],
                OneOrMore::More(keys) => keys,
            };
            if keys.len() > OBJECTS_MAX {
                return Err(NoticeError::Objects);
            }
            let all = keys.into_iter().map(|key| Created { bucket: bucket.clone(), key, ..Created::default() });
            return Ok(Self::Created(all.collect()));
        }
        Err(NoticeError::Form)
    }

    fn records(records: Vec<S3Record>) -> Result<Self, NoticeError> {
        if records.len() > OBJECTS_MAX {
            return Err(NoticeError::Objects);
        }
        let mut all = Vec::new();
        for record in records.into_iter().filter(|record| record.event_name.starts_with("ObjectCreated:")) {
            let S3 { bucket, object } = record.s3;
            let key = decoded(&object.key).ok_or(NoticeError::Key)?;
            all.push(created(bucket, key, object));
        }
        Ok(if all.is_empty() { Self::Nothing("no object was created") } else { Self::Created(all) })
    }
}

fn created(bucket: Bucket, key: String, object: Object) -> Created {
    let etag = object.etag.map(|etag| etag.trim_matches('"').to_owned());
    Created { bucket: bucket.name, key, version: object.version, etag, size: object.size }
}

/// A key of S3's own notifications: encoded as a form's field is (`+` for a blank).
fn decoded(key: &str) -> Option<String> {
    Some(percent_decode_str(&key.replace('+', " ")).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn s3(event: &str, key: &str) -> Value {
        json!({"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1",
               "eventTime": "2026-11-26T10:00:00.000Z", "eventName": event,
               "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": "trail", "arn": "arn:aws:s3:::trail"},
                      "object": {"key": key, "size": 7, "eTag": "d41d", "versionId": "v1", "sequencer": "00"}}})
    }

    fn read(message: &Value) -> Notice {
        Notice::read(&message.to_string()).unwrap()
    }

    fn trail() -> Created {
        Created {
            bucket: "trail".into(),
            key: "AWSLogs/1 a/ü+.json.gz".into(),
            version: Some("v1".into()),
            etag: Some("d41d".into()),
            size: Some(7),
        }
    }

    #[test]
    fn every_form_names_the_same_object() {
        let direct = json!({"Records": [s3("ObjectCreated:Put", "AWSLogs/1+a/%C3%BC%2B.json.gz")]});
        let bridge = json!({"version": "0", "id": "1", "detail-type": "Object Created", "source": "aws.s3", "account": "1",
            "detail": {"version": "0", "bucket": {"name": "trail"}, "reason": "PutObject",
                       "object": {"key": "AWSLogs/1 a/ü+.json.gz", "size": 7, "etag": "d41d", "version-id": "v1"}}});
        let sns = |inner: &Value| json!({"Type": "Notification", "MessageId": "1", "TopicArn": "arn", "Message": inner.to_string()});
        for message in [&direct, &bridge, &sns(&direct), &sns(&bridge), &sns(&sns(&direct))] {
            assert_eq!(read(message), Notice::Created(vec![trail()]), "{message}");
        }
        let own = sns(&json!({"s3Bucket": "trail", "s3ObjectKey": ["a.json.gz", "b.json.gz"]}));
        let Notice::Created(files) = read(&own) else { panic!("{own}") };
        assert_eq!(files.iter().map(|file| file.key.as_str()).collect::<Vec<_>>(), ["a.json.gz", "b.json.gz"]);
    }

    #[test]
    fn what_needs_no_reading_is_nothing() {
        for message in [
            json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-26T10:00:00Z", "Bucket": "trail"}),
            json!({"Records": [s3("ObjectRemoved:Delete", "a")]}),
            json!({"Type": "SubscriptionConfirmation", "Message": "You have chosen to subscribe", "SubscribeURL": "https://x"}),
            json!({"source": "aws.s3", "detail-type": "Object Deleted", "detail": {}}),
        ] {
            assert!(matches!(read(&message), Notice::Nothing(_)), "{message}");
        }
        let both =
            json!({"Records": [s3("ObjectRemoved:Delete", "a"), s3("ObjectCreated:CompleteMultipartUpload", "b")]});
        let Notice::Created(files) = read(&both) else { panic!("{both}") };
        assert_eq!((files.len(), files[0].key.as_str()), (1, "b"));
    }

    #[test]
    fn nonsense_is_told_and_never_followed_too_deep() {
        for message in ["", "[]", "{}", "{\"Type\":\"Notification\",\"Message\":\"hello\"}", "{\"Records\":[{}]}"] {
            assert!(Notice::read(message).is_err(), "{message}");
        }
        assert!(matches!(
            Notice::read(&json!({"Records": [s3("ObjectCreated:Put", "%ff")]}).to_string()),
            Err(NoticeError::Key)
        ));
        let mut deep = json!({"Records": [s3("ObjectCreated:Put", "a")]});
        for _ in 0..10 {
            deep = json!({"Type": "Notification", "Message": deep.to_string()});
        }
        assert!(matches!(Notice::read(&deep.to_string()), Err(NoticeError::Form)));
        let many: Vec<Value> = (0..1_001).map(|_| s3("ObjectCreated:Put", "a")).collect();
        assert!(matches!(Notice::read(&json!({"Records": many}).to_string()), Err(NoticeError::Objects)));
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,400}", key in "[%+a-zA-Z0-9]{0,20}") {
            Notice::read(&text).ok();
            decoded(&key);
        }
    }
}
