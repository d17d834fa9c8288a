//! The same pack under tools that are not ours: they must accept it, and refuse it changed.

use std::path::{Path, PathBuf};

use super::*;

struct Folder {
    _dir: tempfile::TempDir,
    bag: PathBuf,
    anchor: PathBuf,
    fixture: Fixture,
}

async fn unpacked() -> Folder {
    let (fixture, pack) = made().await;
    let dir = tempfile::tempdir().unwrap();
    let bag = dir.path().join("bag");
    for (path, bytes) in pack.files() {
        let path = bag.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let anchor = dir.path().join("anchor.pem");
    std::fs::write(&anchor, fixture.keys.public().anchor_pem()).unwrap();
    Folder { _dir: dir, bag, anchor, fixture }
}

/// Exit code and output; `None` if the tool is not on this machine.
fn run(bag: &Path, command: &[&str]) -> Option<(i32, String)> {
    let output = match Command::new(command[0]).args(&command[1..]).current_dir(bag).output() {
        Ok(output) => output,
        Err(cause) => {
            eprintln!("left out: {} ({cause})", command[0]);
            return None;
        }
    };
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test]
async fn sha256sum_accepts_the_manifests() {
    let folder = unpacked().await;
    for manifest in [MANIFEST, TAGMANIFEST] {
        if let Some((code, text)) = run(&folder.bag, &["sha256sum", "-c", "--strict", manifest]) {
            assert_eq!(code, 0, "{text}");
        }
    }
}

#[tokio::test]
async fn openssl_accepts_signature_and_chain() {
    let folder = unpacked().await;
    let verify = ["openssl", "dgst", "-sha256", "-verify", bag::SIGNING_KEY, "-signature", bag::SIGNATURE, TAGMANIFEST];
    let anchor = folder.anchor.to_str().unwrap();
    let chain = ["openssl", "verify", "-no_check_time", "-CAfile", anchor, bag::SIGNING_CERTIFICATE];
    for command in [&verify[..], &chain[..]] {
        if let Some((code, text)) = run(&folder.bag, command) {
            assert_eq!(code, 0, "{command:?}: {text}");
        }
    }
    std::fs::write(folder.bag.join(TAGMANIFEST), "x").unwrap();
    if let Some((code, _)) = run(&folder.bag, &verify) {
        assert_ne!(code, 0);
    }
}

#[tokio::test]
async fn the_script_accepts_and_refuses() {
    let folder = unpacked().await;
    let anchor = folder.anchor.to_str().unwrap();
    let Some((code, text)) = run(&folder.bag, &["sh", "verify/verify.sh", anchor]) else { return };
    if run(&folder.bag, &["openssl", "version"]).is_none() {
        return;
    }
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(&folder.bag, &["sh", "verify/verify.sh"]).unwrap();
    assert!(code == 5 && text.contains("NOT established"), "{text}");
    let other = tempfile::tempdir().unwrap();
    let keys = Keys::load_or_create(other.path(), &folder.fixture.clock).unwrap();
    let wrong = other.path().join("anchor.pem");
    assert_eq!(std::fs::read_to_string(&wrong).unwrap(), keys.public().anchor_pem());
    assert_eq!(run(&folder.bag, &["sh", "verify/verify.sh", wrong.to_str().unwrap()]).unwrap().0, 5);
    let (extra, index) = (folder.bag.join("data/extra.csv"), folder.bag.join("data/pack.json"));
    std::fs::write(&extra, "x").unwrap();
    let (code, text) = run(&folder.bag, &["sh", "verify/verify.sh", anchor]).unwrap();
    assert!(code == 5 && text.contains("data/extra.csv"), "{text}");
    std::fs::remove_file(extra).unwrap();
    std::fs::write(index, "{}").unwrap();
    let (code, text) = run(&folder.bag, &["sh", "verify/verify.sh", anchor]).unwrap();
    assert!(code == 5 && text.contains("data/pack.json"), "{text}");
}

/// Runs only where `PIPEPROOF_SIGSTORE_PYTHON` names a Python with sigstore (and, if it has it, bagit) installed.
#[tokio::test]
async fn sigstore_python_accepts_both_bundles_and_bagit_the_bag() {
    let Ok(python) = std::env::var("PIPEPROOF_SIGSTORE_PYTHON") else {
        eprintln!("left out: sigstore-python (set PIPEPROOF_SIGSTORE_PYTHON to a Python that has it)");
        return;
    };
    let folder = unpacked().await;
    let identity = folder.fixture.keys.instance().identity();
    let verify = |bundle: &str, identity: &str| {
        let command = [
            &python,
            "-m",
            "sigstore",
            "--trust-config",
            "verify/trust_config.json",
            "verify",
            "identity",
            "--offline",
            "--bundle",
            bundle,
            "--cert-identity",
            identity,
            "--cert-oidc-issuer",
            crate::keys::Instance::ISSUER,
            TAGMANIFEST,
        ];
        run(&folder.bag, &command).unwrap()
    };
    for bundle in [MESSAGE_BUNDLE, bag::STATEMENT_BUNDLE] {
        let (code, text) = verify(bundle, &identity);
        assert_eq!(code, 0, "{bundle}: {text}");
        assert_ne!(
            verify(bundle, "https://pipeproof.dev/instance/0000000000000000").0,
            0,
            "{bundle}: another identity"
        );
    }
    let (has_bagit, _) = run(&folder.bag, &[&python, "-c", "import bagit"]).unwrap();
    if has_bagit == 0 {
        let (code, text) = run(&folder.bag, &[&python, "-m", "bagit", "--validate", "."]).unwrap();
        assert_eq!(code, 0, "{text}");
    }
    let path = folder.bag.join(MESSAGE_BUNDLE);
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for pointer in [
        "/messageSignature/signature",
        "/verificationMaterial/tlogEntries/0/inclusionPromise/signedEntryTimestamp",
        "/verificationMaterial/tlogEntries/0/inclusionProof/rootHash",
    ] {
        let mut bent = good.clone();
        let value = bent.pointer_mut(pointer).unwrap();
        let text = value.as_str().unwrap();
        let (head, tail) = text.split_at(20);
        let other = if tail.starts_with('A') { 'B' } else { 'A' };
        *value = json!(format!("{head}{other}{}", &tail[1..]));
        std::fs::write(&path, bent.to_string()).unwrap();
        assert_ne!(verify(MESSAGE_BUNDLE, &identity).0, 0, "accepted a changed {pointer}");
    }
    std::fs::write(&path, good.to_string()).unwrap();
    std::fs::write(folder.bag.join(TAGMANIFEST), "x").unwrap();
    assert_ne!(verify(MESSAGE_BUNDLE, &identity).0, 0, "accepted a changed tag manifest");
}
