//! What the operator's own files (MMDB) say about an address: its network, country and place.
//!
//! A file changes what rules conclude, so the log says from which record on which file holds ([`Control::EnrichmentLoaded`]),
//! and every file that ever held is kept under its digest: a replay looks addresses up in the file that was in force then.
//! Fields the source itself gave are left as they are.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use engine::control::{Control, EnrichmentFile, OWN_SOURCE};
use engine::detect::Undecoded;
use engine::event::Event;
use engine::fields::{Field, Fields, Value};
use engine::record::{Authenticity, Position, Record};
use maxminddb::{MaxMindDbError, Reader};
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::decode::{Undecodable, decode, leaks_of};

/// Largest file that is loaded: it is held in memory.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum EnrichError {
    /// The file system refuses.
    #[error("cannot {doing} the address file {}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Too large to hold in memory.
    #[error("the address file {} has {bytes} bytes, more than the {FILE_BYTES_MAX} allowed", path.display())]
    Large {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is no MMDB file, or a damaged one.
    #[error("{} is not a whole MMDB file", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: MaxMindDbError,
    },
}

/// Which files were in force, by log position: a fold over control records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Index of the record that says so; it holds for those after it.
    index: u64,
    file: EnrichmentFile,
    digest: Option<String>,
}

impl History {
    /// Takes in the control record at `index`. Records that were taken in before change nothing.
    pub fn observe(&mut self, index: u64, control: &Control) {
        let Control::EnrichmentLoaded { file, digest } = control else { return };
        let at = self.0.partition_point(|entry| entry.index < index);
        if self.0.get(at).is_none_or(|entry| entry.index != index) {
            self.0.insert(at, Entry { index, file: *file, digest: digest.clone() });
        }
    }

    /// Digest of the file in force for the record at `index`.
    #[must_use]
    pub fn at(&self, file: EnrichmentFile, index: u64) -> Option<&str> {
        let before = self.0.iter().take_while(|entry| entry.index < index).filter(|entry| entry.file == file);
        before.last().and_then(|entry| entry.digest.as_deref())
    }

    /// Digest of the file in force from now on.
    #[must_use]
    pub fn now(&self, file: EnrichmentFile) -> Option<&str> {
        self.at(file, u64::MAX)
    }

    /// Whether another file may hold at the end of this range than at its start.
    fn changes_within(&self, range: &Range<u64>) -> bool {
        self.0.iter().any(|entry| range.contains(&entry.index))
    }
}

type Open = Reader<Bytes>;

/// The folder of files that held once. Clones share what is loaded.
#[derive(Clone, Debug)]
pub struct AddressFiles {
    folder: PathBuf,
    loaded: Arc<Mutex<BTreeMap<String, Weak<Open>>>>,
}

impl AddressFiles {
    /// Files in this folder, which need not be there.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, loaded: Arc::default() }
    }

    /// Checks a file of the operator's from end to end, keeps it, and returns its digest (SHA-256, hexadecimal).
    ///
    /// # Errors
    /// [`EnrichError`]; nothing is kept then.
    pub fn keep(&self, path: &Path) -> Result<String, EnrichError> {
        let on = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| EnrichError::Io { doing, path, source }
        };
        let bytes = fs::metadata(path).map_err(on("read", path))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(EnrichError::Large { path: path.to_owned(), bytes });
        }
        let bytes = Bytes::from(fs::read(path).map_err(on("read", path))?);
        let digest = hex::encode(Sha256::digest(&bytes));
        let kept = self.path(&digest);
        if kept.is_file() {
            return Ok(digest);
        }
        let broken = |source| EnrichError::Format { path: path.to_owned(), source };
        let reader = Reader::from_source(bytes.clone()).map_err(broken)?;
        reader.verify().map_err(broken)?;
        fs::create_dir_all(&self.folder).map_err(on("keep", &self.folder))?;
        let staged = kept.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create(&staged)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&staged, &kept)?;
            fs::File::open(&self.folder)?.sync_all()
        };
        write().map_err(on("keep", &kept))?;
        Ok(digest)
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.mmdb"))
    }

    /// The file of this digest, if it is still there and whole.
    fn open(&self, digest: &str) -> Option<Arc<Open>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = loaded.get(digest).and_then(Weak::upgrade) {
            return Some(open);
        }
        let path = self.path(digest);
        let whole = |bytes: Vec<u8>| (hex::encode(Sha256::digest(&bytes)) == digest).then(|| Bytes::from(bytes));
        let opened = fs::read(&path).ok().and_then(whole).and_then(|bytes| Reader::from_source(bytes).ok());
        let Some(opened) = opened.map(Arc::new) else {
            tracing::error!(
                path = %path.display(),
                "an address file that held once is gone or damaged: what it said of addresses is missing from here on"
            );
            return None;
        };
        loaded.insert(digest.to_owned(), Arc::downgrade(&opened));
        Some(opened)
    }
}

/// Decodes records of one log in its order, with the files in force at each.
#[derive(Debug)]
pub struct Decoder {
    files: AddressFiles,
    history: History,
    /// The files in force for the last record.
    asn: Option<Arc<Open>>,
    geo: Option<Arc<Open>>,
    last: Option<u64>,
}

impl Decoder {
    /// A decoder that knows of the files in `history`, and learns of those the records tell of.
    #[must_use]
    pub const fn new(files: AddressFiles, history: History) -> Self {
        Self { files, history, asn: None, geo: None, last: None }
    }

    /// Decodes a record, as [`decode`] does, and fills in what the files in force say about addresses.
    ///
    /// # Errors
    /// [`Undecodable`] says why the record is a dead letter.
    pub fn decode(&mut self, position: Position, record: &Record) -> Result<Vec<Event>, Undecodable> {
        let index = position.index;
        if self.last.is_none_or(|last| index <= last || self.history.changes_within(&(last..index))) {
            self.asn = self.in_force(EnrichmentFile::Asn, index);
            self.geo = self.in_force(EnrichmentFile::Geo, index);
        }
        self.last = Some(index);
        let mut events = decode(position, record)?;
        if record.envelope.auth == Authenticity::Own && record.envelope.source == OWN_SOURCE {
            // Ticks are most of them, and shorter than any other.
            if record.body.len() > 24
                && let Ok(control) = serde_json::from_slice::<Control>(&record.body)
            {
                self.history.observe(index, &control);
            }
            return Ok(events);
        }
        if self.asn.is_some() || self.geo.is_some() {
            events.iter_mut().for_each(|event| self.fill(&mut event.fields));
        }
        Ok(events)
    }

    /// Decodes a record; of a dead letter, the secrets that were replaced in it are events all the same.
    ///
    /// # Errors
    /// [`Undecoded`], with those events.
    pub fn read(&mut self, position: Position, record: &Record) -> Result<Vec<Event>, Undecoded> {
        let decoded = self.decode(position, record);
        decoded.map_err(|error| Undecoded { reason: error.to_string(), leaks: leaks_of(position, record) })
    }

    fn in_force(&self, file: EnrichmentFile, index: u64) -> Option<Arc<Open>> {
        self.history.at(file, index).and_then(|digest| self.files.open(digest))
    }

    fn fill(&self, fields: &mut Fields) {
        let Some(address) = fields.get_text(Field::SrcIp).and_then(|text| text.parse::<IpAddr>().ok()) else { return };
        let address = address.to_canonical();
        if let Some(found) = self.asn.as_ref().and_then(|file| look_up::<Network<'_>>(file, address)) {
            set(fields, Field::SrcAsn, found.autonomous_system_number.map(|number| Value::Int(i64::from(number))));
            let name = found.autonomous_system_organization.filter(|name| !name.is_empty());
            set(fields, Field::SrcOrg, name.map(|name| Value::Text(name.into())));
        }
        if let Some(found) = self.geo.as_ref().and_then(|file| look_up::<Place<'_>>(file, address)) {
            let country = found.country.or(found.registered_country).and_then(|country| country.iso_code);
            set(fields, Field::SrcCountry, country.map(|code| Value::Text(code.into())));
            if let Some(Location { latitude: Some(latitude), longitude: Some(longitude) }) = found.location {
                set(fields, Field::SrcLatE6, millionths(latitude, 90.0).map(Value::Int));
                set(fields, Field::SrcLonE6, millionths(longitude, 180.0).map(Value::Int));
            }
        }
    }
}

fn set(fields: &mut Fields, field: Field, value: Option<Value>) {
    if let Some(value) = value.filter(|_| fields.get(field).is_none()) {
        fields.set(field, value);
    }
}

fn look_up<'a, T: Deserialize<'a>>(file: &'a Open, address: IpAddr) -> Option<T> {
    // An address of another family than the file's, or a record of another shape: the file says nothing about it.
    file.lookup(address).ok()?.decode().ok()?
}

fn millionths(degrees: f64, most: f64) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation, reason = "the range was checked")]
    (degrees.abs() <= most).then(|| (degrees * 1e6).round() as i64)
}

/// As GeoLite2-ASN, and files in its form, say it.
#[derive(Deserialize)]
struct Network<'a> {
    autonomous_system_number: Option<u32>,
    #[serde(borrow)]
    autonomous_system_organization: Option<&'a str>,
}

/// As GeoLite2-City and -Country, and files in their form, say it.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    country: Option<Country<'a>>,
    #[serde(borrow)]
    registered_country: Option<Country<'a>>,
    location: Option<Location>,
}

#[derive(Deserialize)]
struct Country<'a> {
    #[serde(borrow)]
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

#[cfg(test)]
#[path = "enrich/tests.rs"]
mod tests;
