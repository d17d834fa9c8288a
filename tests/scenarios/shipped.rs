//! What is shipped for the other end, in `deploy/sources/`: it parses, names what exists, and asks senders for what the
//! decoders read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use pipeproof_engine::source::SourceType;
use serde_json::Value;

use crate::harness::{Server, files, has_tool, left_out, program};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files by name.
fn shipped() -> BTreeMap<String, String> {
    let folder = root().join("deploy/sources");
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        (name, std::fs::read_to_string(path).unwrap())
    };
    let all: BTreeMap<String, String> = files(&folder).iter().map(read).collect();
    assert!(all.len() > 25, "{} files", all.len());
    all
}

fn extension(name: &str) -> &str {
    Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// The documents of YAML.
#[track_caller]
fn documents(name: &str, text: &str) -> Vec<Value> {
    let read = |text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
    text.split("\n---\n").map(read).collect()
}

/// What stands between fences in a page: its language, and the text.
fn fenced(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| !line.trim_start().starts_with("```")).collect();
            found.push((language.to_owned(), text.join("\n")));
        }
    }
    found
}

#[test]
fn yaml_and_json_parse_in_files_and_in_pages() {
    let (mut yaml, mut json) = (0, 0);
    let mut check = |name: &str, kind: &str, text: &str| match kind {
        "yaml" | "yml" => {
            documents(name, text);
            yaml += 1;
        }
        "json" => {
            serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
            json += 1;
        }
        _ => {}
    };
    for (name, text) in shipped() {
        check(&name, extension(&name), &text);
        if extension(&name) == "md" {
            for (language, text) in fenced(&text) {
                check(&name, &language, &text);
            }
        }
    }
    assert!(yaml > 10 && json > 2, "{yaml} texts of YAML and {json} of JSON were read");
}

/// The words that follow another one.
fn following<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(word).skip(1).filter_map(|rest| {
        let rest = rest.trim_start_matches([' ', '"', '`']);
        rest.split(|letter: char| !(letter.is_ascii_alphanumeric() || "._-".contains(letter))).next()
    })
}

#[test]
fn every_type_has_its_page_and_every_type_that_is_named_exists() {
    let shipped = shipped();
    let readme = &shipped["README.md"];
    let external = || SourceType::ALL.iter().filter(|kind| kind.is_external());
    for kind in external() {
        assert!(readme.contains(&format!("`{kind}`")), "README.md has no page for {kind}");
    }
    let mut named = 0;
    for (name, text) in &shipped {
        let ours = fenced(text).into_iter().filter(|(_, text)| text.contains("sources:\n  - name:"));
        let ours: Vec<String> = ours.map(|(_, text)| text).collect();
        let in_ours = ours.iter().flat_map(|text| following(text, "\n    type: "));
        for kind in following(text, "--type ").filter(|kind| *kind != "TYPE").chain(in_ours) {
            assert!(kind.parse::<SourceType>().is_ok(), "{name}: there is no source type {kind}");
            named += 1;
        }
    }
    assert!(named > 20, "{named} types are named");
    // Pages and files that others name exist, and each is named by one.
    for (name, text) in &shipped {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                assert!(root().join("deploy/sources").join(file).exists(), "{name} names {file}, which is not there");
            }
        }
        let by_another = |(other, text): (&String, &String)| other != name && text.contains(&format!("({name}"));
        assert!(name == "README.md" || shipped.iter().any(by_another), "no page names {name}");
    }
}

/// Whether a path is one that a route serves.
fn is_served(path: &str, routes: &[String]) -> bool {
    let parts = |text: &str| text.trim_matches('/').split('/').map(str::to_owned).collect::<Vec<_>>();
    let given = parts(path);
    routes.iter().map(|route| parts(route)).any(|route| {
        route.len() == given.len()
            && route.iter().zip(&given).all(|(route, given)| route.starts_with('{') || route == given)
    })
}

#[tokio::test]
async fn addresses_are_ones_that_are_served() {
    let server = Server::start();
    let described = server.get("/openapi.json").await;
    let routes: Vec<String> = described["paths"].as_object().unwrap().keys().cloned().collect();
    assert!(is_served("/v1/events/acme", &routes) && !is_served("/v1/event/acme", &routes), "{routes:?}");
    let mut seen = BTreeSet::new();
    for (name, text) in shipped() {
        // The ways that these files write our address before a path.
        for before in ["<base>", "https://HOST", "${env:PIPEPROOF_URL}", "uri: ", "resource: "] {
            for rest in text.split(before).skip(1).filter(|rest| rest.starts_with('/')) {
                let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || "/._-<>".contains(letter)));
                let path = &rest[..end.unwrap_or(rest.len())];
                assert!(path == "/" || is_served(path, &routes), "{name}: nothing is served at {path}");
                seen.insert(path.to_owned());
            }
        }
    }
    for path in ["/v1/logs", "/logs", "/v1/events/acme-vault", "/v1/events/acme-github"] {
        assert!(seen.contains(path), "{path} is not among {seen:?}");
    }
}

#[test]
fn placeholders_are_those_that_sources_add_fills_in() {
    let mut files_with = 0;
    for (name, text) in shipped() {
        if !["yaml", "json", "tf"].contains(&extension(&name)) {
            continue;
        }
        let placeholders: BTreeSet<&str> = text
            .split('<')
            .skip(1)
            .filter_map(|rest| rest.split_once('>').map(|(word, _)| word))
            .filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()))
            .collect();
        for word in &placeholders {
            assert!(["url", "base", "host", "token", "secret"].contains(word), "{name}: <{word}>");
        }
        files_with += usize::from(!placeholders.is_empty());
    }
    assert!(files_with >= 5, "{files_with} files have placeholders");
}

/// A constant's strings in a decoder.
fn constant(file: &str, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("ingest/src/decode").join(file)).unwrap();
    let (_, rest) = text.split_once(&format!("const {name}: &[&str]")).unwrap_or_else(|| panic!("{file}: no {name}"));
    let list = rest.split("];").next().unwrap();
    let found: Vec<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(found.len() > 3, "{file}: {name}: {found:?}");
    found
}

/// The level at which an audit policy has a request logged: that of the first rule that fits (Kubernetes, "Auditing").
fn level<'a>(policy: &'a Value, verb: &str, group: &str, resource: &str) -> &'a str {
    let list = |value: &'a Value| value.as_array().map(Vec::as_slice).unwrap_or_default();
    let names = |value: &'a Value, name: &str| {
        let value = list(value);
        value.is_empty() || value.iter().any(|item| item == name)
    };
    let fits = |pattern: &str| match pattern.strip_prefix("*/") {
        Some(subresource) => resource.split_once('/').is_some_and(|(_, given)| given == subresource),
        None => pattern == "*" || pattern == resource,
    };
    let resources = |rule: &'a Value| {
        let groups = list(&rule["resources"]);
        groups.is_empty()
            || groups.iter().any(|of| {
                let listed = list(&of["resources"]);
                of["group"] == group
                    && (listed.is_empty() || listed.iter().any(|item| fits(item.as_str().unwrap_or_default())))
            })
    };
    let rule = list(&policy["rules"]).iter().find(|&rule| names(&rule["verbs"], verb) && resources(rule));
    rule.map_or("None", |rule| rule["level"].as_str().unwrap())
}

#[test]
fn the_audit_policy_has_bodies_logged_where_decoders_read_them_and_of_secrets_none() {
    let shipped = shipped();
    let policy = &documents("policy", &shipped["kubernetes-audit-policy.yaml"])[0];
    for group in constant("kubernetes_audit.rs", "POLICY_GROUPS") {
        for verb in ["create", "update", "patch", "delete", "deletecollection"] {
            // Kinds of such groups are whatever is installed: none may have to be listed.
            for resource in ["anything", "k8srequiredlabels"] {
                let level = level(policy, verb, &group, resource);
                assert!(["Request", "RequestResponse"].contains(&level), "{verb} {resource}.{group}: {level}");
            }
        }
        if group.ends_with("gatekeeper.sh") || group.ends_with("kyverno.io") {
            let status = level(policy, "update", &group, "anything/status");
            assert!(
                group == "config.gatekeeper.sh" || status == "Metadata",
                "{group}: a status is no change: {status}"
            );
        }
    }
    for resource in constant("kubernetes_objects.rs", "WORKLOADS") {
        let group = match resource.as_str() {
            "pods" | "replicationcontrollers" => "",
            "jobs" | "cronjobs" => "batch",
            _ => "apps",
        };
        for verb in ["create", "update", "patch"] {
            assert_eq!(level(policy, verb, group, &resource), "RequestResponse", "{verb} {resource}");
        }
    }
    assert_eq!(level(policy, "patch", "", "pods/ephemeralcontainers"), "RequestResponse", "a debug container");
    for (verb, resource) in
        [("get", "secrets"), ("create", "secrets"), ("patch", "secrets"), ("create", "serviceaccounts/token")]
    {
        assert_eq!(level(policy, verb, "", resource), "Metadata", "{verb} {resource}: its body is a secret");
    }
}

#[test]
fn the_collector_watches_every_group_of_reports_and_its_parts_fit() {
    let shipped = shipped();
    let collector = &documents("otel-collector.yaml", &shipped["otel-collector.yaml"])[0];
    let objects = collector["receivers"]["k8sobjects/reports"]["objects"].as_array().unwrap();
    let watched: BTreeSet<(&str, &str)> =
        objects.iter().map(|object| (object["group"].as_str().unwrap(), object["name"].as_str().unwrap())).collect();
    let expected = [
        ("openreports.io", "clusterreports"),
        ("openreports.io", "reports"),
        ("wgpolicyk8s.io", "clusterpolicyreports"),
        ("wgpolicyk8s.io", "policyreports"),
    ];
    assert_eq!(watched, BTreeSet::from(expected));
    let pipelines = collector["service"]["pipelines"].as_object().unwrap();
    assert!(pipelines.len() > 2);
    for (name, pipeline) in pipelines {
        for kind in ["receivers", "processors", "exporters"] {
            for part in pipeline[kind].as_array().unwrap() {
                assert!(collector[kind].get(part.as_str().unwrap()).is_some(), "{name}: no {kind} {part}");
            }
        }
    }
    for name in collector["service"]["extensions"].as_array().unwrap() {
        assert!(collector["extensions"].get(name.as_str().unwrap()).is_some(), "no extension {name}");
    }
}

#[test]
fn what_fluent_bit_follows_it_sends() {
    let shipped = shipped();
    let fluent = &documents("fluent-bit.yaml", &shipped["fluent-bit.yaml"])[0];
    let of = |list: &str, key: &str| -> BTreeSet<String> {
        let list = fluent["pipeline"][list].as_array().unwrap();
        list.iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("inputs", "tag"), of("outputs", "match"));
    assert!(of("filters", "match").is_subset(&of("inputs", "tag")));
    let parsers: BTreeSet<&str> =
        fluent["parsers"].as_array().unwrap().iter().map(|parser| parser["name"].as_str().unwrap()).collect();
    for input in fluent["pipeline"]["inputs"].as_array().unwrap() {
        let parser = input["parser"].as_str();
        assert!(parser.is_none_or(|parser| parsers.contains(parser)), "{input}");
        assert!(parser.is_some() || input["multiline.parser"] == "cri", "{input}");
    }
}

/// HCL without what its comments and strings say; `${…}` of a string stays, because it refers to things.
fn bare(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let (mut quoted, mut depth) = (false, 0_u32);
        let mut letters = line.chars().peekable();
        while let Some(letter) = letters.next() {
            let inside = quoted && depth == 0;
            match letter {
                '\\' if inside => drop(letters.next()),
                '"' if depth == 0 => quoted = !quoted,
                '#' if !quoted => break,
                '$' if inside && letters.peek() == Some(&'{') => {
                    letters.next();
                    depth = 1;
                    out.push(' ');
                }
                '}' if quoted && depth > 0 => {
                    depth -= 1;
                    out.push(' ');
                }
                _ if inside => {}
                letter => out.push(letter),
            }
        }
        assert!(!quoted, "a string does not end: {line}");
        out.push('\n');
    }
    out
}

#[test]
fn terraform_is_balanced_and_refers_to_what_it_declares() {
    let mut seen = 0;
    for (name, text) in shipped().into_iter().filter(|(name, _)| extension(name) == "tf") {
        seen += 1;
        let bare = bare(&text);
        let mut open = Vec::new();
        for letter in bare.chars() {
            match letter {
                '{' | '[' | '(' => open.push(letter),
                '}' | ']' | ')' => {
                    let expected = match letter {
                        '}' => '{',
                        ']' => '[',
                        _ => '(',
                    };
                    assert_eq!(open.pop(), Some(expected), "{name}: an unmatched {letter}");
                }
                _ => {}
            }
        }
        assert_eq!(open, Vec::<char>::new(), "{name}: not closed");
        let declared: BTreeSet<&str> = following(&text, "\nvariable ").collect();
        let used: BTreeSet<&str> = following(&bare, "var.").map(|name| name.split('.').next().unwrap()).collect();
        assert_eq!(declared, used, "{name}: variables that are declared, and those that are used");
        // Every resource that is referred to is declared.
        let blocks = |kind: &str| -> BTreeSet<String> {
            let opening = format!("\n{kind} \"");
            let blocks = text.split(&opening).skip(1);
            blocks.map(|block| block.split('"').step_by(2).take(2).collect::<Vec<_>>().join(".")).collect()
        };
        let (resources, data) = (blocks("resource"), blocks("data"));
        let providers = ["aws_", "google_", "azurerm_", "vault_", "archive_"];
        for word in bare.split(|letter: char| !(letter.is_ascii_alphanumeric() || "._-".contains(letter))) {
            let (of_data, path) = word.strip_prefix("data.").map_or((false, word), |path| (true, path));
            let parts: Vec<&str> = path.split('.').collect();
            if parts.len() > 1 && providers.iter().any(|provider| path.starts_with(provider)) {
                let declared = if of_data { &data } else { &resources };
                assert!(declared.contains(&parts[..2].join(".")), "{name}: {word} is not declared: {declared:?}");
            }
        }
    }
    assert!(seen >= 4, "{seen} files of Terraform");
    if has_tool("terraform") {
        let checked =
            Command::new("terraform").args(["fmt", "-check", "-diff"]).arg(root().join("deploy/sources")).output();
        let checked = checked.unwrap();
        let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{said}");
    } else {
        left_out("terraform fmt", "it is not installed");
    }
}

#[test]
fn the_program_alone_has_every_file_and_what_it_prints_names_those_there_are() {
    let told = |arguments: &[&str]| program().args(["sources", "file"]).args(arguments).output().unwrap();
    let shipped = shipped();
    let listed = String::from_utf8(told(&[]).stdout).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), shipped.keys().collect::<Vec<_>>());
    for (name, text) in &shipped {
        assert_eq!(String::from_utf8(told(&[name]).stdout).unwrap().trim_end(), text.trim_end(), "{name}");
    }
    let unknown = told(&["../../Cargo.toml"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    let mut named = 0;
    for path in files(&root().join("src/sender")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for name in following(&text, "pipeproof sources file ") {
            let name = name.trim_end_matches('`');
            assert!(name == "NAME" || shipped.contains_key(name), "{} names {name}", path.display());
            named += 1;
        }
    }
    assert!(named > 5, "{named} files are named");
}
