//! CloudTrail's digest files: each hour the provider signs which log files it delivered, their hashes, and the digest before
//! (AWS CloudTrail User Guide, "CloudTrail digest file structure", "Custom implementations of CloudTrail log file integrity
//! validation").
//!
//! A digest that verifies says what should be there; [`Digest::judge`] holds it against what was read. Hashes are over
//! contents without their compression.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::time::Timestamp;
use pipeproof_engine as engine;
use serde::{Deserialize, Serialize};
use sha2::{Sha256, digest::Digest as _};

/// Largest digest that is looked at, bytes without compression: some hundred thousand log files.
pub const DIGEST_BYTES_MAX: usize = 64 << 20;
/// Most faults of one digest that are named; more are counted.
const NAMED_MAX: usize = 20;

/// The provider's public keys by their fingerprints.
#[derive(Clone, Debug, Default)]
pub struct PublicKeys(BTreeMap<String, Vec<u8>>);

/// Why a digest proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// It is larger than any digest.
    #[error("the digest has more than {DIGEST_BYTES_MAX} bytes")]
    Large,
    /// It is no digest.
    #[error("the object is no CloudTrail digest")]
    Format(#[source] serde_json::Error),
    /// A time in it is none.
    #[error("the digest's `{0}` is no time")]
    Time(&'static str),
    /// It stands elsewhere than where the provider put it.
    #[error("the digest says that it is {said}, but it was read from {read}: it was moved or copied")]
    Moved {
        /// Where it says it is: bucket and key.
        said: String,
        /// Where it was.
        read: String,
    },
    /// It is signed in a way that is not known.
    #[error("the digest is signed with `{0}`, not with SHA256withRSA")]
    Algorithm(String),
    /// It has no signature, or none in hexadecimal digits.
    #[error("the digest object has no readable signature in its metadata (x-amz-meta-signature)")]
    Unsigned,
    /// Nobody gave us the key.
    #[error(
        "the digest is signed with the key {0}, which is not among the public keys given (aws cloudtrail list-public-keys)"
    )]
    UnknownKey(String),
    /// The provider did not sign this.
    #[error("the digest's signature is not the provider's")]
    Signature,
    /// The keys cannot be read.
    #[error("cannot read the public keys: give what `aws cloudtrail list-public-keys` prints")]
    Keys(#[source] serde_json::Error),
    /// A key cannot be read.
    #[error("the public key {0} is not base64")]
    Key(String),
}

/// A digest.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digest {
    /// Account.
    pub aws_account_id: String,
    digest_start_time: String,
    digest_end_time: String,
    digest_s3_bucket: String,
    digest_s3_object: String,
    digest_public_key_fingerprint: String,
    digest_signature_algorithm: String,
    previous_digest_s3_bucket: Option<String>,
    previous_digest_s3_object: Option<String>,
    previous_digest_hash_value: Option<String>,
    previous_digest_signature: Option<String>,
    #[serde(default)]
    log_files: Vec<LogFile>,
}

/// A log file that a digest lists.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogFile {
    /// Bucket.
    pub s3_bucket: String,
    /// Key.
    pub s3_object: String,
    /// SHA-256 over its content without compression, hexadecimal.
    pub hash_value: String,
    /// Algorithm of the hash.
    pub hash_algorithm: String,
}

/// What has to be remembered of a digest to hold the next one against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Bucket and key.
    pub object: String,
    /// SHA-256 over its content, hexadecimal.
    pub hash: String,
    /// Its signature, hexadecimal.
    pub signature: String,
    /// End of its hour.
    pub end: Timestamp,
}

/// What a digest says about the record of its hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything it lists was read, as the provider wrote it, and the digest before it is the one we know.
    Complete,
    /// Something it lists is missing, or digests before it are.
    Gap,
    /// Something was changed after the provider wrote it.
    Invalid,
}

/// The outcome for one digest, as it goes into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Outcome.
    pub status: Status,
    /// From when on it speaks, inclusive: the start of its hour, or the end of the last digest known where some are missing.
    pub from: Timestamp,
    /// Until when, exclusive.
    pub to: Timestamp,
    /// Log files it lists.
    pub files: usize,
    /// What is wrong, some of it by name.
    pub faults: Vec<String>,
}

impl PublicKeys {
    /// Reads what `ListPublicKeys` answers: `{"PublicKeyList": [{"Value": …, "Fingerprint": …}]}`.
    ///
    /// # Errors
    /// [`DigestError::Keys`], [`DigestError::Key`].
    pub fn read(json: &[u8]) -> Result<Self, DigestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct List {
            public_key_list: Vec<Key>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Key {
            value: String,
            fingerprint: String,
        }
        let list: List = serde_json::from_slice(json).map_err(DigestError::Keys)?;
        let mut keys = BTreeMap::new();
        for Key { value, fingerprint } in list.public_key_list {
            let der = STANDARD.decode(value).map_err(|_| DigestError::Key(fingerprint.clone()))?;
            keys.insert(fingerprint, der);
        }
        Ok(Self(keys))
    }
}

impl Digest {
    /// Reads a digest without its compression. It proves nothing before [`Digest::verify`].
    ///
    /// # Errors
    /// [`DigestError`] if it is none.
    pub fn read(content: &[u8]) -> Result<Self, DigestError> {
        if content.len() > DIGEST_BYTES_MAX {
            return Err(DigestError::Large);
        }
        let digest: Self = serde_json::from_slice(content).map_err(DigestError::Format)?;
        digest.start()?;
        digest.end()?;
        Ok(digest)
    }

    /// Start of its hour, inclusive.
    ///
    /// # Errors
    /// [`DigestError::Time`].
    pub fn start(&self) -> Result<Timestamp, DigestError> {
        Timestamp::parse(&self.digest_start_time).ok_or(DigestError::Time("digestStartTime"))
    }

    /// End of its hour, exclusive.
    ///
    /// # Errors
    /// [`DigestError::Time`].
    pub fn end(&self) -> Result<Timestamp, DigestError> {
        Timestamp::parse(&self.digest_end_time).ok_or(DigestError::Time("digestEndTime"))
    }

    /// The log files it lists.
    #[must_use]
    pub fn files(&self) -> &[LogFile] {
        &self.log_files
    }

    /// Bucket and key of the digest before it; `None` for the first after logging or its validation was switched on.
    #[must_use]
    pub fn previous(&self) -> Option<(&str, &str)> {
        Some((self.previous_digest_s3_bucket.as_deref()?, self.previous_digest_s3_object.as_deref()?))
    }

    /// Checks that the provider signed this digest for this place. `signature` is the object's metadata `signature`.
    ///
    /// # Errors
    /// [`DigestError`] says why it proves nothing.
    pub fn verify(
        &self,
        place: (&str, &str),
        content: &[u8],
        signature: &str,
        keys: &PublicKeys,
    ) -> Result<Link, DigestError> {
        let (said, read) = (self.object(), format!("{}/{}", place.0, place.1));
        if said != read {
            return Err(DigestError::Moved { said, read });
        }
        if self.digest_signature_algorithm != "SHA256withRSA" {
            return Err(DigestError::Algorithm(self.digest_signature_algorithm.chars().take(40).collect()));
        }
        let given = hex::decode(signature).map_err(|_| DigestError::Unsigned)?;
        let fingerprint = &self.digest_public_key_fingerprint;
        let key = keys.0.get(fingerprint).ok_or_else(|| DigestError::UnknownKey(fingerprint.clone()))?;
        let hash = hex::encode(Sha256::digest(content));
        let before = self.previous_digest_signature.as_deref().unwrap_or("null");
        let signed = format!("{}\n{said}\n{hash}\n{before}", self.digest_end_time);
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(signed.as_bytes(), &given)
            .map_err(|_| DigestError::Signature)?;
        Ok(Link { object: said, hash, signature: signature.to_ascii_lowercase(), end: self.end()? })
    }

    fn object(&self) -> String {
        format!("{}/{}", self.digest_s3_bucket, self.digest_s3_object)
    }

    /// Holds a digest that verified against the one known before it, and what it lists against what was read: `read` gives
    /// the SHA-256 over the content of an object by bucket and key, `None` if it is not there.
    ///
    /// # Errors
    /// [`DigestError::Time`].
    pub fn judge(
        &self,
        before: Option<&Link>,
        read: impl Fn(&str, &str) -> Option<[u8; 32]>,
    ) -> Result<Verdict, DigestError> {
        let mut faults = Faults::default();
        let mut from = self.start()?;
        match (before, self.previous()) {
            // Where we begin. What was before is nobody's claim.
            (None, _) => {}
            (Some(known), None) => {
                from = from.min(known.end);
                faults.gap(format!("the chain begins anew after {}: logging or its validation was off", known.object));
            }
            (Some(known), Some((bucket, key))) if format!("{bucket}/{key}") != known.object => {
                from = from.min(known.end);
                faults.gap(format!("{bucket}/{key} comes before it, but {} is the last that was read", known.object));
            }
            (Some(known), Some(_)) => {
                let same = |said: Option<&str>, known: &str| said.is_some_and(|said| said.eq_ignore_ascii_case(known));
                if !same(self.previous_digest_hash_value.as_deref(), &known.hash) {
                    faults
                        .invalid(format!("{} was changed: its hash is not the one its successor names", known.object));
                }
                if !same(self.previous_digest_signature.as_deref(), &known.signature) {
                    faults.invalid(format!("{} has another signature than its successor names", known.object));
                }
            }
        }
        for file in &self.log_files {
            if file.hash_algorithm != "SHA-256" {
                faults.invalid(format!("{} is hashed with {}", file.s3_object, file.hash_algorithm));
                continue;
            }
            match read(&file.s3_bucket, &file.s3_object) {
                None => faults.gap(format!("{} is missing", file.s3_object)),
                Some(hash) if hex::encode(hash).eq_ignore_ascii_case(&file.hash_value) => {}
                Some(_) => faults.invalid(format!("{} was changed after it was delivered", file.s3_object)),
            }
        }
        let (status, faults) = faults.end();
        Ok(Verdict { status, from, to: self.end()?, files: self.log_files.len(), faults })
    }
}

#[derive(Default)]
struct Faults {
    gap: bool,
    invalid: bool,
    named: Vec<String>,
    more: usize,
}

impl Faults {
    fn gap(&mut self, fault: String) {
        self.gap = true;
        self.name(fault);
    }

    fn invalid(&mut self, fault: String) {
        self.invalid = true;
        self.name(fault);
    }

    fn name(&mut self, fault: String) {
        if self.named.len() < NAMED_MAX {
            self.named.push(fault);
        } else {
            self.more += 1;
        }
    }

    fn end(mut self) -> (Status, Vec<String>) {
        if self.more > 0 {
            self.named.push(format!("and {} more", self.more));
        }
        let status = match (self.invalid, self.gap) {
            (true, _) => Status::Invalid,
            (false, true) => Status::Gap,
            (false, false) => Status::Complete,
        };
        (status, self.named)
    }
}

#[cfg(test)]
pub(crate) mod tests;
