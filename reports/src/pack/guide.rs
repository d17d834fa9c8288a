//! What a reader finds beside the evidence: README, how to verify, a script that does, keys and trust roots.

use crate::checkpoint::verifier_key;
use crate::keys::{Instance, Keys};
use crate::pack::table::Table;
use crate::pack::{PackError, PackFile, PackInput, Partition};
use crate::signing::trust;

const README: &str = include_str!("guide/README.txt");
const VERIFY: &str = include_str!("guide/VERIFY.md");
const SCRIPT: &str = include_str!("guide/verify.sh");
/// JSON Schema of `data/pack.json`.
pub const PACK_SCHEMA: &str = include_str!("guide/pack.schema.json");

/// The tag files by path, manifests and signatures apart.
pub(super) fn files(
    input: &PackInput,
    keys: &Keys,
    partitions: &[Partition<'_>],
) -> Result<Vec<(String, Vec<u8>)>, PackError> {
    let public = keys.public();
    let fill = |template: &str| {
        template
            .replace("{name}", &input.name)
            .replace("{framework}", &input.framework)
            .replace("{organisation}", &input.organisation)
            .replace("{start}", &input.period.start.to_string())
            .replace("{end}", &input.period.end.to_string())
            .replace("{as_of}", &input.as_of.to_string())
            .replace("{identity}", &public.instance.identity())
            .replace("{issuer}", Instance::ISSUER)
            .replace("{fingerprint}", &public.fingerprint())
    };
    let origins = partitions.iter().map(|partition| public.instance.partition_origin(partition.checkpoint.partition));
    let verifier_keys: String = std::iter::once(public.instance.seal_origin())
        .chain(origins)
        .map(|origin| verifier_key(&origin, &public.checkpoint) + "\n")
        .collect();
    Ok([
        ("README.txt", fill(README)),
        ("verify/VERIFY.md", fill(VERIFY)),
        ("verify/verify.sh", SCRIPT.to_owned()),
        ("verify/pack.schema.json", PACK_SCHEMA.to_owned()),
        ("verify/trusted_root.json", pretty(&trust::trusted_root(public))?),
        ("verify/trust_config.json", pretty(&trust::trust_config(public))?),
        ("verify/keys/ca.pem", public.anchor_pem()),
        ("verify/keys/checkpoint.pub", public.checkpoint_pem()),
        ("verify/keys/checkpoint.vkey", verifier_keys),
    ]
    .into_iter()
    .map(|(path, text)| (path.to_owned(), text.into_bytes()))
    .collect())
}

/// `80_management/rule-and-query-versions.csv`.
pub(super) fn versions(input: &PackInput) -> Result<PackFile, PackError> {
    const PATH: &str = "80_management/rule-and-query-versions.csv";
    let mut table = Table::new(["what", "version"]);
    for (what, version) in &input.versions {
        table.push([what, version]);
    }
    let bytes = table.csv().map_err(|source| PackError::Table { path: PATH.to_owned(), source })?;
    Ok(PackFile::new(PATH, bytes, "versions of everything that decided the content of this pack"))
}

fn pretty(value: &serde_json::Value) -> Result<String, PackError> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
