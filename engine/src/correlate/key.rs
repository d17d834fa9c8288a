//! Group keys and values: what agrees, and what is counted, in one compact form each.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::signal::{Detail, FieldValue};

/// Writes the values of these fields, each with its length before it; false if the signal lacks one.
pub(super) fn write(detail: &Detail, names: &[u32], to: &mut String) -> bool {
    use std::fmt::Write as _;
    to.clear();
    for name in names {
        match detail.get(*name) {
            Some(FieldValue::Text(text)) => {
                // Writing to a string does not fail.
                write!(to, "{}:", text.len()).ok();
                to.push_str(text);
            }
            Some(value) => {
                let text = value.to_text();
                write!(to, "{}:{text}", text.len()).ok();
            }
            None => return false,
        }
    }
    true
}

/// The values that were written into a key.
pub(crate) fn values(key: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut rest = key;
    while let Some((len, after)) = rest.split_once(':') {
        let Some((value, more)) = len.parse().ok().and_then(|len| after.split_at_checked(len)) else { break };
        values.push(value.to_owned());
        rest = more;
    }
    values
}

/// A value, or several together, in 16 bytes: short ones as they are, others by 120 bits of SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct ValueId([u8; 16]);

impl Hash for ValueId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Without the length that arrays write before their bytes.
        state.write(&self.0);
    }
}

impl ValueId {
    pub(super) fn of(text: &str) -> Self {
        let mut id = [0; 16];
        let bytes = text.as_bytes();
        if bytes.len() < id.len() {
            id.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            id[15] = bytes.len() as u8;
        } else {
            id.iter_mut().zip(Sha256::digest(bytes)).for_each(|(to, from)| *to = from);
            id[15] = 0xff;
        }
        Self(id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::signal::{DetailWriter, Head};
    use super::*;

    #[test]
    fn keys_read_back_and_no_two_are_written_alike() {
        let written = |texts: [&str; 2]| {
            let mut writer = DetailWriter::default();
            writer.begin(&Head::default());
            texts.iter().zip(0..).for_each(|(text, name)| writer.field(name, FieldValue::Text(text)));
            let mut key = String::new();
            assert!(write(&Detail::from_bytes(writer.bytes()), &[0, 1], &mut key));
            assert!(!write(&Detail::from_bytes(writer.bytes()), &[0, 7], &mut String::new()));
            key
        };
        for texts in [["a", "b"], ["", "1:a"], ["ä:", "2:"], ["1:a", ""]] {
            assert_eq!(values(&written(texts)), texts);
        }
        assert_ne!(written(["a", "b"]), written(["ab", ""]));
    }

    #[test]
    fn values_differ_where_their_texts_do() {
        let texts = ["", "\0", "a", "a\0", "123456789012345", "1234567890123456", "1234567890123457"];
        let ids: std::collections::BTreeSet<_> = texts.iter().map(|text| ValueId::of(text)).collect();
        assert_eq!(ids.len(), texts.len());
    }
}
