//! JSON bodies of rows as they are kept: compressed with a text of their kind, since one alone is too short to repeat itself.
//!
//! The first byte tells the form. `{` begins JSON as it is, which earlier versions wrote.

use std::io::Read as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use zstd::bulk::Compressor;
use zstd::stream::read::Decoder;

use super::StoreError;
use super::commit::encode;
use super::findings::{column, json};

/// zstd with [`TYPICAL`] as dictionary, after this byte.
const FORM_1: u8 = 1;
/// What bodies mostly look like. Form 1 is bound to these bytes: they never change.
const TYPICAL: &[u8] = include_bytes!("typical_1.txt");
const LEVEL: i32 = 6;
/// Largest body that is read.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Bodies as they are kept.
pub(super) fn packed(bodies: impl IntoIterator<Item = String>) -> Result<Vec<Vec<u8>>, StoreError> {
    let on = || StoreError::on("compress a row");
    let mut compressor: Option<Compressor<'static>> = None;
    let mut all = Vec::new();
    for body in bodies {
        let compressor = match &mut compressor {
            Some(compressor) => compressor,
            None => compressor
                .insert(Compressor::with_dictionary(LEVEL, TYPICAL).map_err(|error| on()(sqlx::Error::Io(error)))?),
        };
        let mut kept = vec![FORM_1];
        kept.extend(compressor.compress(body.as_bytes()).map_err(|error| on()(sqlx::Error::Io(error)))?);
        all.push(kept);
    }
    Ok(all)
}

/// One body as it is kept.
pub(super) fn packed_json<T: Serialize + ?Sized>(
    what: &'static str,
    id: &str,
    item: &T,
) -> Result<Vec<u8>, StoreError> {
    Ok(packed([encode(what, id, item)?])?.pop().unwrap_or_default())
}

/// The column `body` of a row, read as JSON.
pub(super) fn unpacked<T: DeserializeOwned>(
    what: &'static str,
    id: impl FnOnce() -> String,
    row: &SqliteRow,
) -> Result<T, StoreError> {
    let kept: &[u8] = column(row, "body")?;
    let text = plain(kept).map_err(|error| StoreError::on("read a row that is compressed")(sqlx::Error::Io(error)))?;
    json(what, id, &text)
}

fn plain(kept: &[u8]) -> std::io::Result<String> {
    let mut text = String::new();
    match kept.split_first() {
        Some((&FORM_1, compressed)) => {
            Decoder::with_dictionary(compressed, TYPICAL)?.take(BODY_BYTES_MAX).read_to_string(&mut text)?
        }
        _ => kept.take(BODY_BYTES_MAX).read_to_string(&mut text)?,
    };
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_and_are_short() {
        let long = format!(r#"{{"title":"{}"}}"#, "a long one ".repeat(1_000));
        let typical = std::str::from_utf8(TYPICAL).unwrap().lines().next().unwrap().to_owned();
        for body in [r#"{"id":"x"}"#.to_owned(), long, typical.clone()] {
            let kept = packed([body.clone(), body.clone()]).unwrap();
            assert_eq!(kept[0], kept[1]);
            assert_eq!(plain(&kept[0]).unwrap(), body);
        }
        assert!(packed([typical.clone()]).unwrap()[0].len() * 10 < typical.len());
    }

    #[test]
    fn what_earlier_versions_wrote_is_read() {
        assert_eq!(plain(br#"{"id":"x"}"#).unwrap(), r#"{"id":"x"}"#);
        assert!(plain(b"\xff").is_err());
        assert!(plain(b"\x01nonsense").is_err());
    }
}
