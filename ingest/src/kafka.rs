//! Topics of Apache Kafka and what speaks its protocol, read as a consumer group. An offset is committed once its message is
//! durable with us; what was not is read again, and recognised by topic, partition and offset where it has no id.

mod settings;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use engine::record::Authenticity;
use http::{HeaderMap, HeaderName, HeaderValue};
use pipeproof_engine as engine;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

pub use self::settings::{Mechanism, Sasl, Security, Settings, Tls};
use crate::receive::Way;

/// A message, as something a source sent.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Headers that say what the value is: those of a CloudEvent.
    pub headers: HeaderMap,
    /// The value; empty for a tombstone.
    pub body: Bytes,
    /// Where it stood.
    pub way: Way,
    place: (String, i32, i64),
}

/// A consumer of topics.
pub struct Topics {
    consumer: StreamConsumer<Told>,
}

/// Why topics cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// librdkafka does not take the settings: a file is missing, or a certificate and its key do not fit.
    #[error("cannot use these settings for the brokers")]
    Settings(#[source] KafkaError),
    /// Brokers, or the way to them. Reading may go on.
    #[error("cannot read from the brokers{}", why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default())]
    Read {
        /// What the library told last of a connection: a certificate that is not trusted, a name or password refused.
        why: Option<String>,
        /// What it answers.
        #[source]
        source: KafkaError,
    },
}

/// What librdkafka tells of its connections: its errors alone do not say why.
#[derive(Debug, Default)]
struct Told {
    last: Mutex<Option<String>>,
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 || facility == "FAIL" {
            self.keep(message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = %error, reason, "librdkafka");
        self.keep(reason);
    }
}

impl ConsumerContext for Told {}

impl Told {
    fn keep(&self, why: &str) {
        // Where in the library it happened says nothing to who reads it.
        let why = why.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(why, |(_, why)| why);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.trim().chars().take(500).collect());
    }

    fn take(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Topics").finish_non_exhaustive()
    }
}

impl Topics {
    /// Joins the group. What no member ever read is read from the beginning.
    ///
    /// # Errors
    /// [`TopicsError::Settings`] for settings that librdkafka does not take. That no broker answers is no error: one may later.
    pub fn join(settings: &Settings) -> Result<Self, TopicsError> {
        let mut config = ClientConfig::new();
        for (name, value) in settings::properties(settings) {
            config.set(name, value);
        }
        let consumer: StreamConsumer<Told> =
            config.create_with_context(Told::default()).map_err(TopicsError::Settings)?;
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(TopicsError::Settings)?;
        Ok(Self { consumer })
    }

    /// The next messages: waits for one, and takes those that are there already, up to `max`.
    ///
    /// # Errors
    /// [`TopicsError::Read`] from the broker or on the way; reading may go on.
    pub async fn next(&self, max: usize) -> Result<Vec<Arrived>, TopicsError> {
        let first = self.consumer.recv().await;
        let first = first.map_err(|source| TopicsError::Read { why: self.consumer.context().take(), source })?;
        let mut arrived = vec![arrived(&first)];
        while arrived.len() < max {
            // Only what has arrived already.
            match tokio::time::timeout(std::time::Duration::ZERO, self.consumer.recv()).await {
                Ok(Ok(message)) => arrived.push(self::arrived(&message)),
                // What came before it is here and must not be lost with it: a later commit would pass over it.
                Ok(Err(error)) => {
                    tracing::debug!(error = %error, "cannot read on from the brokers just now");
                    break;
                }
                Err(_) => break,
            }
        }
        Ok(arrived)
    }

    /// Commits that these were taken.
    ///
    /// # Errors
    /// [`KafkaError`]: they will be read again, and recognised.
    pub fn commit(&self, taken: &[Arrived]) -> Result<(), KafkaError> {
        let mut next: BTreeMap<(&str, i32), i64> = BTreeMap::new();
        for message in taken {
            let (topic, partition, offset) = &message.place;
            let at = next.entry((topic, *partition)).or_default();
            *at = (*at).max(offset + 1);
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), offset) in next {
            offsets.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        }
        self.consumer.commit(&offsets, CommitMode::Async)
    }
}

fn arrived(message: &BorrowedMessage<'_>) -> Arrived {
    let (topic, partition, offset) = (message.topic().to_owned(), message.partition(), message.offset());
    let way = Way {
        // Who may write to a topic is for its broker to decide.
        proven: Some((Authenticity::Unverified, None)),
        place: Some(format!("kafka/{topic}/{partition}/{offset}")),
        attributes: vec![
            ("kafka.topic", topic.clone()),
            ("kafka.partition", partition.to_string()),
            ("kafka.offset", offset.to_string()),
        ],
        keep: true,
        ..Way::default()
    };
    let body = message.payload().map(Bytes::copy_from_slice).unwrap_or_default();
    Arrived { headers: headers(message), body, way, place: (topic, partition, offset) }
}

/// Headers of a CloudEvent (Kafka Protocol Binding §3.2: `ce_` and `content-type`) under the names that HTTP gives them.
fn headers(message: &BorrowedMessage<'_>) -> HeaderMap {
    let mut found = HeaderMap::new();
    let Some(headers) = message.headers() else { return found };
    for header in headers.iter() {
        let name = match header.key.to_ascii_lowercase().strip_prefix("ce_") {
            Some(attribute) => format!("ce-{attribute}"),
            None if header.key.eq_ignore_ascii_case("content-type") => "content-type".to_owned(),
            None => continue,
        };
        let value = header.value.and_then(|value| HeaderValue::from_bytes(value).ok());
        if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            found.insert(name, value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::message::{Header, OwnedHeaders};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{FutureProducer, FutureRecord};

    use super::*;

    fn settings(cluster: &MockCluster<'_, rdkafka::producer::DefaultProducerContext>) -> Settings {
        Settings {
            brokers: vec![cluster.bootstrap_servers()],
            topics: vec!["audit".to_owned()],
            group: "pipeproof".to_owned(),
            security: Security::default(),
        }
    }

    async fn read(topics: &Topics, count: usize) -> Vec<Arrived> {
        let mut found = Vec::new();
        while found.len() < count {
            let more = tokio::time::timeout(Duration::from_secs(60), topics.next(100)).await.expect("a message comes");
            found.extend(more.unwrap());
        }
        found
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_group_goes_on_where_it_committed() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("audit", 1, 1).unwrap();
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
        let send = async |body: &str, headers: OwnedHeaders| {
            let record = FutureRecord::<(), str>::to("audit").payload(body).headers(headers);
            producer.send(record, Duration::from_secs(30)).await.unwrap();
        };
        let event = OwnedHeaders::new()
            .insert(Header { key: "ce_specversion", value: Some("1.0") })
            .insert(Header { key: "ce_id", value: Some("7") })
            .insert(Header { key: "secret", value: Some("x") });
        send("{\"a\":1}", event).await;
        send("{\"a\":2}", OwnedHeaders::new()).await;
        let topics = Topics::join(&settings(&cluster)).unwrap();
        let first = read(&topics, 2).await;
        assert_eq!(first[0].way.place.as_deref(), Some("kafka/audit/0/0"));
        assert_eq!((&first[0].body[..], first[0].headers["ce-id"].to_str().unwrap()), (&b"{\"a\":1}"[..], "7"));
        assert!(!first[0].headers.contains_key("secret"));
        topics.commit(&first[..1]).unwrap();
        // Leaves the group, which sends what it committed.
        topics.consumer.unsubscribe();
        drop(topics);
        let again = read(&Topics::join(&settings(&cluster)).unwrap(), 1).await;
        assert_eq!(again[0].way.place.as_deref(), Some("kafka/audit/0/1"), "what was not committed comes again");
    }
}
