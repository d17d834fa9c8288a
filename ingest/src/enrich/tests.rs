//! Which file an address is looked up in, and what becomes of files that are no files.

use engine::record::{CollectionMode, Envelope};
use engine::source::SourceType;
use engine::time::Timestamp;

use super::*;

#[path = "../../../tests/scenarios/mmdb.rs"]
mod mmdb;

fn record(source_type: SourceType, body: &str) -> Record {
    Record {
        envelope: Envelope {
            source: source_type.name().to_owned(),
            source_type,
            received: Timestamp::from_secs(1_800_000_000),
            auth: if source_type == SourceType::Pipeproof { Authenticity::Own } else { Authenticity::Bearer },
            key_id: None,
            item: "id:1".to_owned(),
            mode: CollectionMode::Live,
            attributes: BTreeMap::new(),
            redacted: Vec::new(),
        },
        salt: [0; 16],
        body: body.as_bytes().to_vec().into(),
    }
}

fn loaded(file: EnrichmentFile, digest: Option<&str>) -> Record {
    let control = Control::EnrichmentLoaded { file, digest: digest.map(str::to_owned) };
    record(SourceType::Pipeproof, &serde_json::to_string(&control).unwrap())
}

fn from(address: &str) -> Record {
    record(SourceType::Json, &format!(r#"{{"action":"cloud.api","src.ip":"{address}"}}"#))
}

fn text(events: &[Event], field: Field) -> Option<String> {
    events[0].fields.get(field).map(ToString::to_string)
}

struct Folder {
    dir: tempfile::TempDir,
    files: AddressFiles,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = AddressFiles::new(dir.path().join("kept"));
        Self { dir, files }
    }

    fn keep(&self, bytes: &[u8]) -> Result<String, EnrichError> {
        let path = self.dir.path().join("given.mmdb");
        std::fs::write(&path, bytes).unwrap();
        self.files.keep(&path)
    }
}

#[test]
fn addresses_are_looked_up_in_the_file_in_force_at_their_record() {
    let folder = Folder::new();
    let first = folder.keep(&mmdb::asn(&[("20.57.79.0/24", 8075, "Microsoft")])).unwrap();
    let second = folder.keep(&mmdb::asn(&[("20.57.79.0/24", 64_500, "Rented")])).unwrap();
    let geo = folder.keep(&mmdb::geo(&[("20.57.79.0/24", "US", 38.95, -77.45)])).unwrap();
    let log = [
        from("20.57.79.5"),
        loaded(EnrichmentFile::Asn, Some(&first)),
        from("20.57.79.5"),
        loaded(EnrichmentFile::Asn, Some(&second)),
        loaded(EnrichmentFile::Geo, Some(&geo)),
        from("::ffff:20.57.79.5"),
        from("192.0.2.1"),
        loaded(EnrichmentFile::Asn, None),
        from("20.57.79.5"),
    ];
    let numbers = |decoder: &mut Decoder, from: usize| -> Vec<Option<String>> {
        let external = (from..log.len()).map(|index| {
            let position = Position { partition: 0, index: index as u64 };
            (index, decoder.decode(position, &log[index]).unwrap())
        });
        external
            .filter(|(index, _)| [0, 2, 5, 6, 8].contains(index))
            .map(|(_, events)| text(&events, Field::SrcAsn))
            .collect()
    };
    let mut decoder = Decoder::new(folder.files.clone(), History::default());
    let all = [None, Some("8075".to_owned()), Some("64500".to_owned()), None, None];
    assert_eq!(numbers(&mut decoder, 0), all);
    // Once more over the same records, and from the middle with what is known then: the same.
    assert_eq!(numbers(&mut decoder, 0), all);
    assert_eq!(numbers(&mut decoder, 2), all[1..]);
    let history: History = serde_json::from_str(&serde_json::to_string(&decoder.history).unwrap()).unwrap();
    assert_eq!(history.now(EnrichmentFile::Geo), Some(&*geo));
    let mut restarted = Decoder::new(AddressFiles::new(folder.files.folder.clone()), history);
    assert_eq!(numbers(&mut restarted, 5), all[2..]);
    let events = restarted.decode(Position { partition: 0, index: 5 }, &log[5]).unwrap();
    assert_eq!(text(&events, Field::SrcCountry).as_deref(), Some("US"));
    assert_eq!(text(&events, Field::SrcOrg).as_deref(), Some("Rented"));
    assert_eq!(text(&events, Field::SrcLatE6).as_deref(), Some("38950000"));
    assert_eq!(text(&events, Field::SrcLonE6).as_deref(), Some("-77450000"));
}

#[test]
fn what_the_source_says_itself_stays() {
    let folder = Folder::new();
    let digest = folder.keep(&mmdb::asn(&[("20.57.79.0/24", 8075, "Microsoft")])).unwrap();
    let mut history = History::default();
    history.observe(0, &Control::EnrichmentLoaded { file: EnrichmentFile::Asn, digest: Some(digest) });
    let mut decoder = Decoder::new(folder.files, history);
    let own = record(SourceType::Json, r#"{"action":"cloud.api","src.ip":"20.57.79.5","src.asn":7}"#);
    let events = decoder.decode(Position { partition: 0, index: 1 }, &own).unwrap();
    assert_eq!(text(&events, Field::SrcAsn).as_deref(), Some("7"));
    // No address at all: clouds write the name of a service there.
    let named = from("ec2.amazonaws.com");
    assert!(
        decoder.decode(Position { partition: 0, index: 2 }, &named).unwrap()[0].fields.get(Field::SrcAsn).is_none()
    );
}

#[test]
fn broken_files_are_refused_and_a_lost_one_says_nothing() {
    let folder = Folder::new();
    let whole = mmdb::asn(&[("20.57.79.0/24", 8075, "Microsoft"), ("203.0.113.0/24", 64_500, "Rented")]);
    for broken in [&b""[..], b"not mmdb", &whole[..whole.len() / 2], &whole[20..]] {
        assert!(matches!(folder.keep(broken), Err(EnrichError::Format { .. })), "{} bytes", broken.len());
    }
    assert!(matches!(folder.files.keep(Path::new("/no/such")), Err(EnrichError::Io { .. })));
    let digest = folder.keep(&whole).unwrap();
    assert_eq!(folder.keep(&whole).unwrap(), digest);
    let mut history = History::default();
    history.observe(0, &Control::EnrichmentLoaded { file: EnrichmentFile::Asn, digest: Some(digest.clone()) });
    std::fs::write(folder.files.path(&digest), &whole[1..]).unwrap();
    let mut decoder = Decoder::new(folder.files, history);
    let events = decoder.decode(Position { partition: 0, index: 1 }, &from("20.57.79.5")).unwrap();
    assert!(events[0].fields.get(Field::SrcAsn).is_none());
}
