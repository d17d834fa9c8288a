//! The shipped rules and lists, built into the program.

use crate::lists::Lists;

macro_rules! texts {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../library/", $path)))),*]
    };
}

/// The rule files by path below `library/`.
const RULES: &[(&str, &str)] = texts![
    "admission/admission_policy_weakened.yml",
    "admission/privileged_workload_admitted.yml",
    "admission/unsigned_image_admitted.yml",
    "admission/unverified_image_admitted.yml",
    "artifact/image_not_signed.yml",
    "artifact/signed_by_unexpected_issuer.yml",
    "cloud/ci_role_writes_iam.yml",
    "leak/credentials_in_log.yml",
    "leak/runner_secrets_dumped.yml",
    "leak/secret_in_log.yml",
    "logging/audit_stream_disabled.yml",
    "logging/configuration_broken.yml",
    "logging/coverage_hole_scm.yml",
    "logging/records_damaged.yml",
    "logging/source_silent.yml",
    "logging/state_bound_reached.yml",
    "pipeline/action_tag_moved.yml",
    "pipeline/known_bad_action.yml",
    "pipeline/publish_burst.yml",
    "pipeline/unpinned_action.yml",
    "pipeline/workflow_guardrails_loosened.yml",
    "scm/impossible_travel.yml",
    "scm/protection_disabled.yml",
    "scm/protection_lifted_push_restored.yml",
    "scm/release_tag_rewritten.yml",
    "secret/distinct_secrets_read.yml",
    "secret/prod_secret_from_unprotected_ref.yml",
    "secret/prod_secret_off_network.yml",
    "secret/secret_read_burst.yml",
    "secret/secret_read_no_job.yml",
    "secret/secret_reads_denied.yml",
    "secret/secret_store_weakened.yml",
    "tables/jobs.yml",
    "tables/runs.yml",
    "tables/sessions.yml",
    "token/ci_identity_off_network.yml",
    "token/long_lived_credential_created.yml",
    "token/static_credential_used_by_ci.yml",
    "token/token_two_networks.yml",
];

/// The lists by path below `library/`.
const LISTS: &[(&str, &str)] = texts![
    "lists/bad_action_commits.txt",
    "lists/break_glass_identities.txt",
    "lists/ci_static_accounts.txt",
    "lists/iam_vending_roles.txt",
    "lists/known_fixture_fingerprints.txt",
    "lists/own_orgs.txt",
    "lists/policy_deployers.txt",
    "lists/privileged_namespaces.txt",
    "lists/prod_secret_paths.txt",
    "lists/release_refs.txt",
    "lists/release_repos.txt",
    "lists/runner_ranges.txt",
    "lists/secret_sync_identities.txt",
    "lists/signing_issuers.txt",
    "lists/trusted_action_owners.txt",
    "lists/unsigned_namespaces.txt",
];

/// Names of the shipped rules that page from the start. Every other one begins in staging: it records findings until
/// somebody who knows the place activates it.
pub const ACTIVE: &[&str] = &[
    "admission_policy_weakened",
    "audit_stream_disabled",
    "ci_identity_off_network",
    "configuration_broken",
    "known_bad_action",
    "long_lived_credential_created",
    "prod_secret_off_network",
    "protection_disabled",
    "protection_lifted_push_restored",
    "records_damaged",
    "runner_secrets_dumped",
    "secret_in_log",
    "secret_read_burst",
    "secret_store_weakened",
    "source_silent",
    "state_bound_reached",
    "unverified_image_admitted",
    "workflow_guardrails_loosened",
];

/// Everything that is shipped: (path below `library/`, text).
pub fn library_files() -> impl Iterator<Item = (&'static str, &'static str)> {
    RULES.iter().chain(LISTS).copied()
}

/// The shipped rules: (path, text), the path beginning with `library/`.
#[must_use]
pub fn library() -> Vec<(String, String)> {
    RULES.iter().map(|(path, text)| (format!("library/{path}"), (*text).to_owned())).collect()
}

/// The shipped lists. An operator's own replace those of the same name.
#[must_use]
pub fn library_lists() -> Lists {
    let mut lists = Lists::new();
    for (path, text) in LISTS {
        let name = path.trim_start_matches("lists/").trim_end_matches(".txt");
        lists.set_text(name, text);
    }
    lists
}

#[cfg(test)]
#[path = "library/tests.rs"]
mod tests;
