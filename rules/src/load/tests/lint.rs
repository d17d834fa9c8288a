//! What is well formed and probably not meant.

use super::*;

#[test]
fn what_is_probably_not_meant_is_told() {
    let absence = "\
title: Pushed and not signed
name: unsigned
correlation:
    type: temporal_ordered
    rules: [pushed, signed]
    group-by: [ci.repo]
    timespan: 15m
    condition: pushed and not signed
requires: [github.webhook, sigstore.bundle]
---
title: Signed
name: signed
logsource: {product: cicd, category: signing}
detection: {s: {action: artifact.signed}, condition: s}
---
";
    let both = format!("{absence}{RULE}");
    let codes = |text: &str| set(text).diagnostics.iter().map(|problem| problem.code.name()).collect::<Vec<_>>();
    assert_eq!(codes(&both), Vec::<&str>::new());
    let unlearnt = both.replace("temporal_ordered", "value_new").replace("pushed and not signed", "{field: src.asn}");
    let native = COUNT.to_owned()
        + "---\ntitle: Native\nname: pushed\nlogsource: {product: windows}\ndetection: {s: {a: b}, condition: s}\n";
    for (text, at, code, said) in [
        (both.replacen("---", "alert: {resolve_on: singed}\n---", 1), "r.yml:10:21", "E0132", "did you mean `signed`?"),
        (both.replace(", sigstore.bundle]", "]"), "r.yml:5:21", "W0211", "it comes from"),
        (both.replace("requires: [github.webhook, sigstore.bundle]\n", ""), "r.yml:5:21", "W0211", "`signed`"),
        (both.replace("timespan: 15m", "timespan: 30s"), "r.yml:7:15", "W0212", "60 s late"),
        (unlearnt, "r.yml:4:5", "W0213", "learn: {for: 14d}"),
        (both.replacen("[ci.repo]", "[ci.rpeo]", 1), "r.yml:6:16", "W0210", "did you mean `ci.repo`?"),
        (native, "r.yml:5:13", "W0209", "no source type feeds the rule `pushed`"),
        (
            format!("{RULE}---\n{}", RULE.replace("pushed", "again").replace("1850480", "1850481")),
            "r.yml:19:1",
            "W0218",
            "r.yml:1",
        ),
    ] {
        let found = problems(&text);
        let right = |problem: &&String| problem.starts_with(at) && problem.contains(code) && problem.contains(said);
        assert!(found.iter().any(|problem| right(&problem)), "{at} {code} {said}: {found:#?}");
    }
}
