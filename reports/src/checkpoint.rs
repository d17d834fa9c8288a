//! Checkpoints and inclusion proofs as files: C2SP tlog-checkpoint in a signed note with an Ed25519 signature, and
//! `.tlog-proof` (c2sp.org/tlog-proof@v1).
//!
//! The Rekor-style checkpoint of the same tree, with its ECDSA signature, is [`crate::signing::entry`]'s.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use pipeproof_engine::merkle::{self, Hash};
use sha2::{Digest as _, Sha256};

use crate::signing::entry::base64;

/// Signature type of Ed25519 in a signed note.
const ED25519: u8 = 0x01;
const PROOF_HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Longest note that is read.
const NOTE_BYTES_MAX: usize = 64 << 10;
/// Most signatures that are read from a note.
const SIGNATURES_MAX: usize = 64;
/// No tree of 2^64 leaves has a longer path.
const PATH_MAX: usize = 64;

/// Why a note or proof is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not in the format.
    #[error("not a {format}: {reason}")]
    Malformed {
        /// Which format.
        format: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// Of another log.
    #[error("checkpoint is of {found:?}, not of {expected:?}")]
    Origin {
        /// Origin that was asked for.
        expected: String,
        /// Origin it has.
        found: String,
    },
    /// Nobody we know signed it.
    #[error("checkpoint has no signature by the key of {0:?}")]
    Unsigned(String),
    /// The signature is not by the key.
    #[error("checkpoint has a signature that the key of {0:?} did not make")]
    Forged(String),
    /// The path does not lead to the root.
    #[error("inclusion proof of leaf {index} does not lead to the root of the tree of {size} leaves")]
    Path {
        /// Leaf.
        index: u64,
        /// Tree.
        size: u64,
    },
}

/// State of a tree: its name, how many leaves it has, their root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log; also the name of its key.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The signed note. Equal checkpoints and keys give equal bytes.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> String {
        let text = format!("{}\n{}\n{}\n", self.origin, self.size, base64(self.root));
        let mut hinted = key_id(&self.origin, &key.verifying_key()).to_vec();
        hinted.extend_from_slice(&key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n\u{2014} {} {}\n", self.origin, base64(hinted))
    }

    /// Reads a note and checks that it is of `origin` and signed by its key. Signatures by others are passed over.
    ///
    /// # Errors
    /// [`CheckpointError`] says what is wrong.
    pub fn open(note: &str, origin: &str, key: &VerifyingKey) -> Result<Self, CheckpointError> {
        let (text, signatures) = split(note)?;
        let checkpoint = parse(text)?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::Origin { expected: origin.to_owned(), found: checkpoint.origin });
        }
        let id = key_id(origin, key);
        for line in signatures {
            let (name, hint, signature) = line?;
            if name != origin || hint != id {
                continue;
            }
            let forged = || CheckpointError::Forged(origin.to_owned());
            let signature = Signature::from_slice(&signature).map_err(|_| forged())?;
            key.verify_strict(text.as_bytes(), &signature).map_err(|_| forged())?;
            return Ok(checkpoint);
        }
        Err(CheckpointError::Unsigned(origin.to_owned()))
    }

    /// Reads what a note says without checking who signed it.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn read_unverified(note: &str) -> Result<Self, CheckpointError> {
        parse(split(note)?.0)
    }
}

/// Key id of a signed note: the first four bytes of SHA-256 over name, line feed, type, key.
fn key_id(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let digest = Sha256::new_with_prefix(name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes()).finalize();
    digest.first_chunk().copied().unwrap_or_default()
}

/// The verifier key in the form that tools for signed notes take: `name+id+key`.
#[must_use]
pub fn verifier_key(name: &str, key: &VerifyingKey) -> String {
    let mut typed = vec![ED25519];
    typed.extend_from_slice(key.as_bytes());
    format!("{name}+{}+{}", hex::encode(key_id(name, key)), base64(typed))
}

/// One signature line: name, key id, signature.
type SignatureLine = Result<(String, [u8; 4], Vec<u8>), CheckpointError>;

const fn note_error(reason: &'static str) -> CheckpointError {
    CheckpointError::Malformed { format: "signed note", reason }
}

/// Splits a note into the text that is signed and its signature lines.
fn split(note: &str) -> Result<(&str, impl Iterator<Item = SignatureLine>), CheckpointError> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(note_error("it is too long"));
    }
    if note.chars().any(|char| char.is_ascii_control() && char != '\n') {
        return Err(note_error("it has control characters"));
    }
    // The last blank line: the text may have some, the signatures have none.
    let at = note.rfind("\n\n").ok_or(note_error("it has no blank line before the signatures"))?;
    let (text, rest) = note.split_at_checked(at + 1).ok_or(note_error("it has no signatures"))?;
    let lines = rest.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
    let lines = lines.filter(|lines| !lines.is_empty()).ok_or(note_error("its last line is not ended"))?;
    if lines.split('\n').count() > SIGNATURES_MAX {
        return Err(note_error("it has too many signatures"));
    }
    Ok((text, lines.split('\n').map(signature_line)))
}

fn signature_line(line: &str) -> SignatureLine {
    let (name, blob) = line
        .strip_prefix("\u{2014} ")
        .and_then(|line| line.split_once(' '))
        .ok_or(note_error("a signature line does not start with a dash and a name"))?;
    let blob = STANDARD.decode(blob).map_err(|_| note_error("a signature is not base64"))?;
    let (hint, signature) = blob.split_first_chunk::<4>().ok_or(note_error("a signature is too short"))?;
    Ok((name.to_owned(), *hint, signature.to_vec()))
}

fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
    const FORMAT: &str = "checkpoint";
    let bad = |reason| CheckpointError::Malformed { format: FORMAT, reason };
    let mut lines = text.split('\n');
    let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or(bad("it has no origin"))?;
    let size = lines.next().and_then(decimal).ok_or(bad("its size is not a decimal number"))?;
    let root = lines.next().and_then(hash).ok_or(bad("its root is not 32 bytes in base64"))?;
    Ok(Checkpoint { origin: origin.to_owned(), size, root })
}

/// A decimal number without sign or leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// A hash in base64.
pub(crate) fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Writes a `.tlog-proof`: leaf `index` stands in the tree of the checkpoint.
#[must_use]
pub fn write_proof(index: u64, path: &[Hash], note: &str) -> String {
    let mut text = format!("{PROOF_HEADER}\nindex {index}\n");
    for node in path {
        text.push_str(&base64(node));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(note);
    text
}

/// A `.tlog-proof` as read; nothing in it is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Leaf index.
    pub index: u64,
    /// Audit path.
    pub path: Vec<Hash>,
    /// The checkpoint's signed note.
    pub note: String,
}

impl Proof {
    /// Reads a proof.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn read(text: &str) -> Result<Self, CheckpointError> {
        let bad = |reason| CheckpointError::Malformed { format: "tlog-proof", reason };
        let rest = text
            .strip_prefix(PROOF_HEADER)
            .and_then(|rest| rest.strip_prefix('\n'))
            .ok_or(bad("it has another first line"))?;
        let (head, note) = rest.split_once("\n\n").ok_or(bad("it has no blank line before the checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        // Extra data is not authenticated, and we have no use for it.
        let _extra = lines.next_if(|line| line.starts_with("extra "));
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(decimal)
            .ok_or(bad("its index is not a decimal number"))?;
        let path = lines.map(hash).take(PATH_MAX + 1).collect::<Option<Vec<Hash>>>();
        let path = path.ok_or(bad("a hash is not 32 bytes in base64"))?;
        if path.len() > PATH_MAX {
            return Err(bad("its path is longer than that of any tree"));
        }
        Ok(Self { index, path, note: note.to_owned() })
    }

    /// Checks that the leaf stands at the proof's index under a checkpoint of `origin` signed by `key`.
    ///
    /// # Errors
    /// [`CheckpointError`] says what is wrong.
    pub fn verify(&self, leaf: &Hash, origin: &str, key: &VerifyingKey) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = Checkpoint::open(&self.note, origin, key)?;
        if merkle::verify_inclusion(leaf, self.index, checkpoint.size, &self.path, &checkpoint.root) {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Path { index: self.index, size: checkpoint.size })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "example.com/log".to_owned(), size: 3, root: [9; 32] }
    }

    #[test]
    fn a_note_opens_with_its_key_only() {
        let note = checkpoint().sign(&key());
        let open = |note: &str, origin: &str, key: &SigningKey| Checkpoint::open(note, origin, &key.verifying_key());
        assert_eq!(open(&note, "example.com/log", &key()), Ok(checkpoint()));
        assert!(matches!(open(&note, "example.com/other", &key()), Err(CheckpointError::Origin { .. })));
        let other = SigningKey::from_bytes(&[8; 32]);
        assert!(matches!(open(&note, "example.com/log", &other), Err(CheckpointError::Unsigned(_))));
        let changed = note.replacen("\n3\n", "\n4\n", 1);
        assert!(matches!(open(&changed, "example.com/log", &key()), Err(CheckpointError::Forged(_))));
        let cosigned = format!("{note}\u{2014} witness.example AAAAAAAA\n");
        assert_eq!(open(&cosigned, "example.com/log", &key()), Ok(checkpoint()));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let note = checkpoint().sign(&key());
        for bad in [
            String::new(),
            note.replace("\n\n", "\n"),
            note.trim_end().to_owned(),
            note.replacen("\n3\n", "\n03\n", 1),
            note.replacen("\n3\n", "\n+3\n", 1),
            note.replace('\u{2014}', "-"),
            note.replace('\n', "\r\n"),
            format!("{note}{}", "x".repeat(NOTE_BYTES_MAX)),
        ] {
            assert!(Checkpoint::open(&bad, "example.com/log", &key().verifying_key()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_verifier_key_is_the_one_of_the_signed_note_format() {
        // From the documentation of golang.org/x/mod/sumdb/note: the PeterNeumann example key.
        let typed = STANDARD.decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let key = VerifyingKey::from_bytes(&typed[1..].try_into().unwrap()).unwrap();
        assert_eq!(
            verifier_key("PeterNeumann", &key),
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        );
    }

    #[test]
    fn a_proof_reads_back_and_a_changed_leaf_fails() {
        use merkle::Nodes as _;

        let mut tree = merkle::Tree::new();
        let leaves: Vec<Hash> = (0..5_u8).map(|leaf| merkle::leaf_hash(&[leaf])).collect();
        for leaf in &leaves {
            tree.push(*leaf);
        }
        let note = Checkpoint { size: 5, root: tree.root(5).unwrap(), ..checkpoint() }.sign(&key());
        let text = write_proof(3, &tree.inclusion_proof(3, 5).unwrap(), &note);
        let proof = Proof::read(&text).unwrap();
        let verifier = key().verifying_key();
        assert!(proof.verify(&leaves[3], "example.com/log", &verifier).is_ok());
        assert!(matches!(
            proof.verify(&leaves[2], "example.com/log", &verifier),
            Err(CheckpointError::Path { index: 3, size: 5 })
        ));
        let extra = text.replacen("index", "extra AAAA\nindex", 1);
        assert_eq!(Proof::read(&extra).unwrap(), proof);
    }

    proptest! {
        #[test]
        fn reading_hostile_text_never_panics(text in "(c2sp.org/tlog-proof@v1\n)?(index [0-9]{0,22}\n)?\\PC{0,40}(\n\n)?\\PC{0,40}\n{0,3}") {
            let _note = Checkpoint::read_unverified(&text);
            let _proof = Proof::read(&text);
        }
    }
}
