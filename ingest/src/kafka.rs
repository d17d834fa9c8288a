//! Topics of Apache Kafka and what speaks its protocol, read as a consumer group. An offset is committed once its message is
//! durable with us; what was not is read again, and recognised by topic, partition and offset where it has no id.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::record::Authenticity;
use http::{HeaderMap, HeaderName, HeaderValue};
use pipeproof_engine as engine;
use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::receive::Way;

/// Where to read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Brokers to begin with, `host:port`.
    pub brokers: Vec<String>,
    /// Topics.
    pub topics: Vec<String>,
    /// Name of the consumer group: who reads on where it stopped.
    pub group: String,
}

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
    consumer: StreamConsumer,
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
    /// [`KafkaError`] for settings that librdkafka does not take. That no broker answers is no error: one may later.
    pub fn join(settings: &Settings) -> Result<Self, KafkaError> {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", settings.brokers.join(","))
            .set("group.id", &settings.group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            // What a killed reader held is free again after so long; the default is 45 s.
            .set("session.timeout.ms", "10000")
            // What waits for us in memory at most.
            .set("queued.max.messages.kbytes", "16384")
            .create()?;
        consumer.subscribe(&settings.topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(Self { consumer })
    }

    /// The next messages: waits for one, and takes those that are there already, up to `max`.
    ///
    /// # Errors
    /// [`KafkaError`] from the broker or on the way; reading may go on.
    pub async fn next(&self, max: usize) -> Result<Vec<Arrived>, KafkaError> {
        let mut arrived = vec![arrived(&self.consumer.recv().await?)];
        while arrived.len() < max {
            // Only what has arrived already.
            match tokio::time::timeout(std::time::Duration::ZERO, self.consumer.recv()).await {
                Ok(message) => arrived.push(self::arrived(&message?)),
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
