//! The ZIP file around the bag: sorted entries, the time of all of them 1980-01-01, so that equal bags give equal files.

use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};

use zip::result::ZipResult;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// From this size on an entry needs Zip64; a margin below 4 GiB for what deflate may add.
const LARGE: usize = 0xf000_0000;

/// Writes the files into a folder `name` of a new archive.
///
/// # Errors
/// What the ZIP writer refuses.
pub fn write(name: &str, files: &BTreeMap<String, Vec<u8>>) -> ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, bytes) in files {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644)
            .large_file(bytes.len() >= LARGE);
        zip.start_file(format!("{name}/{path}"), options)?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}
