//! Archives that nobody honest makes.

use std::io::Write as _;

use proptest::prelude::*;
use zip::write::SimpleFileOptions;

use super::*;

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

const BAGIT: (&str, &[u8]) = ("pack/bagit.txt", b"BagIt-Version: 1.0\n");

#[test]
fn entries_outside_the_one_folder_are_refused_by_name() {
    for name in [
        "../evil",
        "/etc/passwd",
        "other/file",
        "beside",
        "pack/../../evil",
        "pack\\evil",
        "pack/a b",
        "pack/BAGIT.txt",
    ] {
        let pack = read_bytes(&archive(&[BAGIT, (name, b"x")])).unwrap();
        assert_eq!(pack.files().len(), 1, "{name}");
        let report = verify(&pack, &Options::default());
        assert_eq!(report.checks[0].name, "archive");
        assert_eq!(report.checks[0].failures.len(), 1, "{name}");
    }
}

#[test]
fn links_are_refused() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(BAGIT.0, SimpleFileOptions::default()).unwrap();
    zip.write_all(BAGIT.1).unwrap();
    zip.add_symlink("pack/data", "/etc", SimpleFileOptions::default()).unwrap();
    let pack = read_bytes(&zip.finish().unwrap().into_inner()).unwrap();
    assert_eq!(verify(&pack, &Options::default()).checks[0].failures[0].reason, "is a symbolic link");
}

#[test]
fn two_entries_of_one_name_are_refused() {
    // The writer refuses to make them, so the second name is changed in the bytes.
    let mut bytes = archive(&[BAGIT, ("pack/one.txt", b"1"), ("pack/two.txt", b"2")]);
    for at in 0..bytes.len() - 12 {
        if &bytes[at..at + 12] == b"pack/two.txt" {
            bytes[at..at + 12].copy_from_slice(b"pack/one.txt");
        }
    }
    assert!(matches!(read_bytes(&bytes), Err(ReadError::Ambiguous { .. })));
}

#[test]
fn what_is_no_pack_says_so() {
    assert!(matches!(read_bytes(b""), Err(ReadError::Zip { .. })));
    assert!(matches!(read_bytes(b"PK\x03\x04"), Err(ReadError::Zip { .. })));
    assert!(matches!(read_bytes(&archive(&[])), Err(ReadError::NoBag { .. })));
    assert!(matches!(read_bytes(&archive(&[("pack/file", b"")])), Err(ReadError::NoBag { .. })));
    assert!(matches!(read(Path::new("/nonexistent.zip")), Err(ReadError::File { .. })));
}

proptest! {
    #[test]
    fn hostile_files_give_reports_not_panics(
        entries in prop::collection::vec((prop::sample::select(vec![
            "manifest-sha256.txt", "tagmanifest-sha256.txt", "bag-info.txt", "data/pack.json", "verify/trusted_root.json",
            "verify/tagmanifest-sha256.txt.sigstore.json", "verify/keys/ca.pem", "verify/keys/checkpoint.pub",
            "data/60_raw/a.parquet", "data/10_controls/X/ipe.json", "data/10_controls/X/population.csv",
            "data/40_proofs/records/0-1.tlog-proof", "verify/seal-consistency.json",
        ]), prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            Just(b"{}".to_vec()), Just(b"[]".to_vec()), Just(b"PAR1aaaaPAR1".to_vec()), Just(b"event_id\n0-1-0\n".to_vec()),
        ]), 0..8),
        cut in 0_usize..400,
    ) {
        let mut files = BTreeMap::from([("bagit.txt".to_owned(), b"x".to_vec())]);
        files.extend(entries.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)));
        let zip = pack::archive::write("pack", &files).unwrap();
        let report = verify(&read_bytes(&zip).unwrap(), &Options::default());
        prop_assert_eq!(report.verdict(), Verdict::Failed);
        let _outcome = read_bytes(&zip[..zip.len().saturating_sub(cut)]);
    }
}
