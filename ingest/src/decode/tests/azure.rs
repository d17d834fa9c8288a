//! The ways out of Azure: an event hub or storage account, and the tables of Log Analytics. The same entry says the same.

use engine::fields::Field;
use engine::record::Position;
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::samples::{receive, receiver};
use super::{assert_fields, decoded, fields};

/// Pairs of lines: an entry as an event hub gets it, and the row of the table it becomes.
const BOTH: &str = include_str!("../../../tests/fixtures/azure_monitor/both-forms-after-documentation.ndjson");

fn pairs() -> Vec<(&'static str, &'static str)> {
    let lines: Vec<&str> = BOTH.lines().collect();
    lines.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

#[test]
fn both_forms_of_an_entry_give_the_same_fields() {
    assert!(pairs().len() >= 15);
    for (entry, row) in pairs() {
        for kind in [SourceType::AzureSignin, SourceType::AzureActivity, SourceType::AzureKeyvault] {
            let [one, two] = [entry, row].map(|text| decoded(kind, &[], text.to_owned()).remove(0));
            assert_eq!((fields(&one), one.time), (fields(&two), two.time), "{row}");
            assert!(one.time_known && one.fields.get(Field::ActorType).is_some(), "{entry}");
            assert_eq!(one.native, entry.as_bytes(), "the native form stays the sender's");
        }
    }
}

#[test]
fn a_key_vault_row_says_who_read_what() {
    let row = |operation: &str, table: &str, text: &str| {
        let found = pairs().into_iter().map(|(_, row)| row).find(|row| {
            row.contains(&format!("\"Type\": \"{table}\"")) && row.contains(operation) && row.contains(text)
        });
        decoded(SourceType::AzureKeyvault, &[], found.unwrap().to_owned()).remove(0)
    };
    for table in ["AzureDiagnostics", "AZKVAuditLogs"] {
        assert_fields(
            &row("SecretGet", table, "sp-1"),
            &[
                ("action", "secret.read"),
                ("secret.path", "https://acme.vault.azure.net/secrets/prod-db"),
                ("secret.version", "0123456789abcdef"),
                ("actor.type", "service"),
                ("actor.id", "sp-1"),
                ("token.id", "uti-1"),
                ("src.ip", "203.0.113.9"),
                ("cloud.account", "1111"),
                ("user_agent", "azsdk"),
                ("outcome", "success"),
            ],
        );
        assert_fields(
            &row("SecretGet", table, "Forbidden"),
            &[
                ("outcome", "failure"),
                ("actor.type", "human"),
                ("actor.id", "ann@example.com"),
                ("reason", "Forbidden"),
            ],
        );
        assert_fields(&row("KeySign", table, "sp-2"), &[("action", "key.used"), ("actor.type", "workload")]);
    }
}

#[test]
fn a_federated_sign_in_names_the_ci_system_and_not_the_job() {
    let of = |credential: &str| {
        let (_, row) = pairs().into_iter().find(|(entry, _)| entry.contains(credential)).unwrap();
        decoded(SourceType::AzureSignin, &[], row.to_owned()).remove(0)
    };
    assert_fields(
        &of("\"fc-9\""),
        &[
            ("action", "token.issued"),
            ("actor.type", "ci"),
            ("ci.provider", "github"),
            ("config.id", "fc-9"),
            ("config.attribute", "federatedIdentityCredential"),
            ("config.value", "https://token.actions.githubusercontent.com"),
            ("message", "sign-in with a federated token jti-77 of https://token.actions.githubusercontent.com"),
            ("token.id", "uti-9"),
            ("token.issuer", "https://sts.windows.net/t-1/"),
            ("token.sub", "-"),
            ("ci.repo", "-"),
        ],
    );
    assert_fields(&of("\"fc-10\""), &[("actor.type", "workload"), ("ci.provider", "-"), ("config.id", "fc-10")]);
    assert_fields(
        &of("\"key-1\""),
        &[("actor.type", "service"), ("config.id", "key-1"), ("config.attribute", "clientSecret")],
    );
}

#[test]
fn what_joins_a_sign_in_to_the_use_of_its_token_is_not_taken_for_a_secret() {
    let receiver = receiver();
    for (entry, row) in pairs() {
        for line in [entry, row] {
            // As long and as random as they are.
            let line = line
                .replace("uti-9", "5TkWWnyiREuXGZmGnZgGAA")
                .replace("uti-1", "q8Zr3vN0Uk-hJ2mVtYcXAw")
                .replace("jti-77", "4a1c7b0e-52d3-4d6f-9a8b-0c2f6e7d1b35");
            let direct = decoded(SourceType::AzureSignin, &[], line.clone()).remove(0);
            let records = receive(&receiver, SourceType::AzureSignin, None, line.clone().into()).unwrap();
            assert_eq!(records.len(), 1, "{line}");
            let received = super::super::decode(Position::default(), &records[0]).unwrap().remove(0);
            assert_eq!(fields(&received), fields(&direct), "{line}");
        }
    }
}

#[test]
fn a_key_that_is_destroyed_takes_what_it_guarded_with_it() {
    let vault = "/SUBSCRIPTIONS/1111/RESOURCEGROUPS/G/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/ACME";
    let entry = |operation: &str, id: &str| {
        let body = serde_json::json!({"time": "2026-03-15T10:00:00Z", "category": "AuditEvent", "operationName": operation,
            "resourceId": vault, "resultType": "Success", "properties": {"id": id, "httpStatusCode": 200}});
        decoded(SourceType::AzureKeyvault, &[], body.to_string()).remove(0)
    };
    for operation in ["KeyDelete", "KeyPurge"] {
        assert_fields(
            &entry(operation, "https://acme.vault.azure.net/keys/signing/0123"),
            &[
                ("action", "secret_store.weakened"),
                ("category", "config"),
                ("secret.store", "azure.keyvault"),
                ("config.object", "secret_store"),
                ("config.id", "https://acme.vault.azure.net/keys/signing"),
                ("config.attribute", operation),
                ("config.weakens", "true"),
                ("outcome", "success"),
            ],
        );
    }
    assert_fields(&entry("KeyPurge", ""), &[("config.id", vault)]);
    let of_vault = entry("VaultDelete", "https://acme.vault.azure.net/");
    assert_fields(&of_vault, &[("action", "secret_store.weakened"), ("config.id", vault)]);
    let secret = entry("SecretDelete", "https://acme.vault.azure.net/secrets/db");
    assert_fields(&secret, &[("action", "secret.deleted"), ("category", "secret")]);
}
