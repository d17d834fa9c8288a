//! Evidence packs: built, verified, refused when anything in them was changed.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{
    PATIENCE, Server, expect_exit, files, fixture, has_tool, json_fixture, left_out, ndjson_fixture, now, python_with,
    run, stderr, stdout, token_of,
};

/// A pack built from real traffic, with the key that its verification is anchored in.
struct Pack {
    folder: TempDir,
    zip: PathBuf,
    key: PathBuf,
    /// Keeps the data folder.
    _server: Server,
}

async fn built(framework: &str) -> Pack {
    let server = Server::start();
    let hooks = server.add_github("hooks");
    for (index, (event, file)) in [
        ("pull_request", "pull_request/pull_request_closed.json"),
        ("push", "push/push.json"),
        ("branch_protection_rule", "branch_protection_rule/branch_protection_rule_deleted.json"),
        ("branch_protection_rule", "branch_protection_rule/branch_protection_rule_created.json"),
        ("workflow_run", "workflow_run/workflow_run_completed.json"),
        ("deployment", "deployment/deployment.json"),
        ("deployment_status", "deployment_status/deployment_status.json"),
    ]
    .iter()
    .enumerate()
    {
        let body = fixture(&format!("github_webhook/{file}"));
        server.send_github("hooks", &hooks, event, &format!("d-{index}"), &body).await.expect(200);
    }
    let vault = token_of(&server.add_source("vault", "vault.audit", &[]));
    server.send("vault", &vault, fixture("vault_audit/audit.ndjson")).await.expect(200);
    let aws = token_of(&server.add_source("aws", "aws.cloudtrail", &[]));
    let records = ndjson_fixture("aws_cloudtrail/stratus-red-team.ndjson");
    server.send("aws", &aws, json!({ "Records": records }).to_string()).await.expect(200);
    let prod = token_of(&server.add_source("prod", "kubernetes.audit", &["cluster=prod", "env=prod"]));
    let list = json!({"kind": "EventList", "items": ndjson_fixture("kubernetes_audit/audit2rbac.ndjson")});
    server.send("prod", &prod, list.to_string()).await.expect(200);
    let signatures = token_of(&server.add_source("signatures", "sigstore.bundle", &[]));
    let bundle = json_fixture("sigstore_bundle/happy-path-v0.3.json").to_string();
    server.send("signatures", &signatures, bundle).await.expect(200);
    server.settled().await;

    let folder = TempDir::new().unwrap();
    let zip = folder.path().join(format!("{framework}.zip"));
    let output = build(&server, framework, &zip);
    expect_exit(&output, 0);
    assert!(zip.is_file(), "{}", stdout(&output));
    let key = key_of(&server, folder.path());
    Pack { folder, zip, key, _server: server }
}

fn build(server: &Server, framework: &str, zip: &Path) -> Output {
    let from = now().minus(Duration::from_secs(30 * 86_400)).date();
    let to = now().plus(Duration::from_secs(86_400)).date();
    server.cli(&[
        "evidence",
        "build",
        "--framework",
        framework,
        "--from",
        &from,
        "--to",
        &to,
        "--out",
        &zip.display().to_string(),
    ])
}

/// The trust anchor, as an auditor would have got it beforehand: not from the pack.
fn key_of(server: &Server, folder: &Path) -> PathBuf {
    let key = folder.join("anchor.pem");
    expect_exit(&server.cli(&["evidence", "anchor", "--out", &key.display().to_string()]), 0);
    key
}

fn verify(zip: &Path, key: Option<&Path>) -> Output {
    let mut args = vec!["evidence".to_owned(), "verify".to_owned(), zip.display().to_string()];
    if let Some(key) = key {
        args.extend(["--key".to_owned(), key.display().to_string()]);
    }
    run(args)
}

fn entries(zip: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(zip).unwrap()).unwrap();
    (0..archive.len())
        .filter_map(|index| {
            let mut file = archive.by_index(index).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            (!file.is_dir()).then(|| (file.name().unwrap().into_owned(), bytes))
        })
        .collect()
}

fn write_zip(path: &Path, entries: &BTreeMap<String, Vec<u8>>) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in entries {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

fn unpacked(pack: &Pack) -> PathBuf {
    let folder = pack.folder.path().join("unpacked");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&pack.zip).unwrap()).unwrap();
    archive.extract(&folder).unwrap();
    let bag = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    if bag.is_dir() && bag.join("bagit.txt").is_file() { bag } else { folder }
}

#[tokio::test]
async fn a_pack_is_laid_out_and_verifies_against_its_anchor() {
    for framework in ["soc2", "iso27001"] {
        let pack = built(framework).await;
        let files = entries(&pack.zip);
        for part in [
            "/bagit.txt",
            "/bag-info.txt",
            "/manifest-sha256.txt",
            "/tagmanifest-sha256.txt",
            "/README.txt",
            "/data/pack.json",
            "tagmanifest-sha256.txt.sigstore.json",
            "trusted_root.json",
            "/data/10_controls/",
            "/ipe.json",
            "/query.sql",
            "/population.csv",
            "/exceptions.csv",
            "/data/20_kpi/",
            "/data/30_completeness/",
            "/data/40_proofs/",
            "/data/60_raw/",
            ".parquet",
        ] {
            assert!(files.keys().any(|name| format!("/{name}").contains(part)), "no {part} in {:#?}", files.keys());
        }
        let controls: std::collections::BTreeSet<_> =
            files.keys().filter_map(|name| name.split_once("10_controls/")?.1.split('/').next()).collect();
        assert!(controls.len() >= 6, "{controls:?}");
        let output = verify(&pack.zip, Some(&pack.key));
        expect_exit(&output, 0);
    }
}

#[tokio::test]
async fn without_an_anchor_nothing_is_established() {
    let pack = built("soc2").await;
    let output = verify(&pack.zip, None);
    expect_exit(&output, 5);
    let text = stdout(&output) + &stderr(&output);
    assert!(text.to_lowercase().contains("not established"), "{text}");
    assert!(text.to_lowercase().contains("internally consistent"), "{text}");
}

#[tokio::test]
async fn every_change_is_found_by_name() {
    let pack = built("soc2").await;
    let whole = entries(&pack.zip);
    let changed = pack.folder.path().join("changed.zip");
    let population = whole.keys().find(|name| name.ends_with("population.csv")).unwrap().clone();
    let proof = whole.keys().find(|name| name.contains("40_proofs/") && whole[*name].len() > 40).unwrap().clone();
    let raw = whole.keys().find(|name| name.ends_with(".parquet")).unwrap().clone();
    let bundle = whole.keys().find(|name| name.ends_with("tagmanifest-sha256.txt.sigstore.json")).unwrap().clone();
    let manifest = whole.keys().find(|name| name.ends_with("/manifest-sha256.txt")).unwrap().clone();

    for name in [&population, &proof, &raw, &manifest, &bundle] {
        let mut entries = whole.clone();
        let bytes = entries.get_mut(name).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 0x01;
        write_zip(&changed, &entries);
        let output = verify(&changed, Some(&pack.key));
        expect_exit(&output, 5);
        let text = stdout(&output) + &stderr(&output);
        let short = name.rsplit('/').next().unwrap();
        assert!(text.contains(short), "{name} was changed, but the answer is: {text}");
    }
    for name in [&population, &proof] {
        let mut entries = whole.clone();
        entries.remove(name);
        write_zip(&changed, &entries);
        let output = verify(&changed, Some(&pack.key));
        expect_exit(&output, 5);
        assert!((stdout(&output) + &stderr(&output)).contains(name.rsplit('/').next().unwrap()), "{name} is missing");
    }
    let mut entries = whole.clone();
    entries.insert(population.replace("population.csv", "added.csv"), b"a,b\n".to_vec());
    write_zip(&changed, &entries);
    let output = verify(&changed, Some(&pack.key));
    expect_exit(&output, 5);
    assert!((stdout(&output) + &stderr(&output)).contains("added.csv"), "{}", stdout(&output));

    for nonsense in [&b""[..], b"PK\x03\x04", &std::fs::read(&pack.zip).unwrap()[..1000]] {
        std::fs::write(&changed, nonsense).unwrap();
        let code = verify(&changed, Some(&pack.key)).status.code();
        assert!(matches!(code, Some(4 | 5)), "{code:?}");
    }
}

#[tokio::test]
async fn a_pack_rebuilt_with_another_key_fails_against_the_real_anchor() {
    let real = built("soc2").await;
    let forged = built("soc2").await;
    expect_exit(&verify(&forged.zip, Some(&forged.key)), 0);
    let output = verify(&forged.zip, Some(&real.key));
    expect_exit(&output, 5);
    // The forger's signature and trusted root around the real data.
    let (theirs, mut mixed) = (entries(&forged.zip), entries(&real.zip));
    for (name, bytes) in &mut mixed {
        if let Some((_, tail)) = name.split_once("/verify/")
            && let Some(other) = theirs.iter().find(|(name, _)| name.ends_with(&format!("/verify/{tail}")))
        {
            bytes.clone_from(other.1);
        }
    }
    let path = real.folder.path().join("mixed.zip");
    write_zip(&path, &mixed);
    expect_exit(&verify(&path, Some(&real.key)), 5);
    expect_exit(&verify(&path, Some(&forged.key)), 5);
}

#[tokio::test]
async fn equal_requests_give_the_sealed_pack_again_byte_for_byte() {
    let pack = built("soc2").await;
    let server = &pack._server;
    let as_of = now().to_string();
    let from = now().minus(Duration::from_secs(30 * 86_400)).date();
    let to = now().plus(Duration::from_secs(86_400)).date();
    let zips = ["one.zip", "two.zip"].map(|name| pack.folder.path().join(name));
    for zip in &zips {
        let out = zip.display().to_string();
        let args = [
            "evidence",
            "build",
            "--framework",
            "soc2",
            "--from",
            &from,
            "--to",
            &to,
            "--as-of",
            &as_of,
            "--out",
            &out,
        ];
        expect_exit(&server.cli(&args), 0);
    }
    assert_eq!(std::fs::read(&zips[0]).unwrap(), std::fs::read(&zips[1]).unwrap());
}

#[tokio::test]
async fn sha256sum_accepts_the_pack() {
    let pack = built("soc2").await;
    if !has_tool("sha256sum") {
        return left_out("checking manifests with sha256sum", "no sha256sum on this machine");
    }
    let bag = unpacked(&pack);
    for manifest in ["manifest-sha256.txt", "tagmanifest-sha256.txt"] {
        let output =
            Command::new("sha256sum").args(["-c", "--strict", "--quiet", manifest]).current_dir(&bag).output().unwrap();
        expect_exit(&output, 0);
    }
}

#[tokio::test]
async fn the_script_in_the_pack_checks_it_with_public_tools() {
    let pack = built("iso27001").await;
    if !has_tool("sha256sum") || !has_tool("openssl") {
        return left_out("running verify.sh", "no sha256sum or no openssl on this machine");
    }
    let bag = unpacked(&pack);
    let script =
        |anchor: &Path| Command::new("sh").arg("verify/verify.sh").arg(anchor).current_dir(&bag).output().unwrap();
    expect_exit(&script(&pack.key), 0);
    let index = bag.join("data/pack.json");
    let whole = std::fs::read(&index).unwrap();
    std::fs::write(&index, [&whole[..], b" "].concat()).unwrap();
    assert_ne!(script(&pack.key).status.code(), Some(0), "a changed file");
    std::fs::write(&index, whole).unwrap();
    std::fs::write(bag.join("data/added.txt"), "x").unwrap();
    assert_ne!(script(&pack.key).status.code(), Some(0), "an added file");
}

#[tokio::test]
async fn openssl_accepts_the_signature() {
    let pack = built("soc2").await;
    if !has_tool("openssl") {
        return left_out("checking the signature with openssl", "no openssl on this machine");
    }
    let bag = unpacked(&pack);
    let script = std::fs::read_to_string(bag.join("verify/VERIFY.md")).unwrap_or_default();
    assert!(script.contains("openssl"), "the recipe is in the pack: {script}");
    let output = Command::new("openssl")
        .args(["dgst", "-sha256", "-verify"])
        .arg(bag.join("verify/keys/pack-signing.pub"))
        .arg("-signature")
        .arg(bag.join("verify/tagmanifest-sha256.txt.sig"))
        .arg(bag.join("tagmanifest-sha256.txt"))
        .output()
        .unwrap();
    expect_exit(&output, 0);
}

#[tokio::test]
async fn sigstore_python_accepts_the_bundle() {
    let pack = built("soc2").await;
    let Some(python) = python_with("sigstore") else {
        return left_out(
            "verifying with sigstore-python",
            "no Python that imports sigstore; set PIPEPROOF_PYTHON to one",
        );
    };
    let bag = unpacked(&pack);
    let recipe = std::fs::read_to_string(bag.join("verify/VERIFY.md")).unwrap();
    let after = |flag: &str| -> String {
        let rest = recipe.split_once(flag).unwrap_or_else(|| panic!("no {flag} in {recipe}")).1;
        rest.split_whitespace().next().unwrap().trim_matches(['\'', '"', '`']).to_owned()
    };
    let args = |manifest: &Path| {
        let mut command = Command::new(&python);
        command
            .args(["-m", "sigstore", "--trust-config"])
            .arg(bag.join("verify/trust_config.json"))
            .args(["verify", "identity", "--offline", "--bundle"])
            .arg(bag.join("verify/tagmanifest-sha256.txt.sigstore.json"))
            .args(["--cert-identity", &after("--cert-identity"), "--cert-oidc-issuer", &after("--cert-oidc-issuer")])
            .arg(manifest);
        command
    };
    expect_exit(&args(&bag.join("tagmanifest-sha256.txt")).output().unwrap(), 0);
    let other = bag.join("other.txt");
    std::fs::write(&other, "something else\n").unwrap();
    assert_ne!(args(&other).output().unwrap().status.code(), Some(0), "a changed manifest is refused");
}

/// Whether small files of the lake's events were merged: a commit of its log takes files out.
fn is_merged(server: &Server) -> bool {
    files(&server.data().join("lake/events/_delta_log"))
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .any(|commit| commit.contains("\"remove\":"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_are_built_while_events_come_and_small_files_are_merged() {
    let pack = built("soc2").await;
    let server = &pack._server;
    let token = token_of(&server.add_source("more", "json", &[]));
    let (over, handle) = (AtomicBool::new(false), tokio::runtime::Handle::current());
    let sender = async || {
        for number in 0_u64.. {
            if over.load(Ordering::SeqCst) {
                break;
            }
            server.send("more", &token, json!({"action": "job.started", "n": number}).to_string()).await.expect(200);
        }
    };
    let mut zips = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| handle.block_on(sender()));
        let began = Instant::now();
        // Once they were merged, another: of files that stood in for those.
        for after in [false, true] {
            loop {
                let zip = pack.folder.path().join(format!("{}.zip", zips.len()));
                let output = build(server, "soc2", &zip);
                zips.push((zip, output));
                if after || is_merged(server) || began.elapsed() > PATIENCE {
                    break;
                }
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(is_merged(server), "nothing was merged while {} packs were built", zips.len());
    for (zip, output) in &zips {
        expect_exit(output, 0);
        expect_exit(&verify(zip, Some(&pack.key)), 0);
    }
}
