//! Where secrets leak: the syntax around them, and what logs put before lines.

use super::planted::Form;

/// Writes a secret into a text.
pub(super) type Place = fn(&str) -> String;

fn lines(text: &str, prefix: &str, end: &str) -> String {
    text.lines().map(|line| format!("{prefix}{line}{end}")).collect()
}

/// Around a word that is known by itself.
const AROUND_WORDS: &[Place] = &[
    |secret| secret.to_owned(),
    |secret| format!("TOKEN: {secret}"),
    |secret| format!("export SECRET=\"{secret}\" && ./deploy --verbose"),
    |secret| format!("+ export SECRET='{secret}'"),
    |secret| format!("curl -sH 'X-Token: {secret}' https://api.example.com/v1/things"),
    |secret| format!("{{\"env\":{{\"A\":\"{secret}\",\"B\":1}}}}"),
    |secret| format!("{{\\\"env\\\":{{\\\"A\\\":\\\"{secret}\\\"}}}}"),
    |secret| format!("https://example.com/callback?x=1&token={secret}&y=2"),
    |secret| format!("error: invalid credentials ({secret}), giving up"),
    |secret| format!("auth:\n  token: {secret}\n  user: ci"),
    |secret| format!("args:\n- --token={secret}"),
    |secret| format!("<property name=\"token\">{secret}</property>"),
    |secret| format!("token={secret};path=/"),
    |secret| format!("docker login -u ci -p {secret} registry.example.com"),
    |secret| format!("    env = [('TOKEN', '{secret}')]"),
    |secret| format!("`{secret}`, [see]({secret})"),
];

/// Around lines: quoted, as an escaped string, in YAML, as a flattened variable.
const AROUND_LINES: &[Place] = &[
    |secret| secret.to_owned(),
    |secret| format!("export DEPLOY_KEY=\"{secret}\""),
    |secret| format!("{{\"private_key\":{},\"type\":\"service_account\"}}", serde_json::to_string(secret).unwrap()),
    |secret| serde_json::to_string(&format!("{{\"k\":{}}}", serde_json::to_string(secret).unwrap())).unwrap(),
    |secret| format!("key: |\n{}other: 1", lines(secret, "  ", "\n")),
    |secret| format!("DEPLOY_KEY={}", secret.replace('\n', " ")),
    |secret| format!("const key =\n{}  '';", lines(secret, "  '", "\\n' +\n")),
];

const AROUND_NAMED: &[Place] = &[|secret| secret.to_owned(), |secret| format!("before {secret} after")];

/// What syntax may be around a secret of a form.
pub(super) const fn around(form: Form) -> &'static [Place] {
    match form {
        Form::Word => AROUND_WORDS,
        Form::Named => AROUND_NAMED,
        Form::Lines => AROUND_LINES,
    }
}

/// Logs as they write lines.
pub(super) const LOGS: &[(&str, Place)] = &[
    ("plain", |text| format!("{text}\n")),
    ("carriage returns", |text| lines(text, "", "\r\n")),
    ("GitHub", |text| lines(text, "2026-11-20T10:00:00.1234567Z ", "\n")),
    ("GitLab", |text| lines(text, "2026-11-20T10:00:00.123456Z 01O ", "\n")),
    ("Jenkins' Timestamper", |text| lines(text, "[2026-11-20T10:00:00.120Z] ", "\n")),
    ("Buildkite", |text| lines(text, "\u{1b}_bk;t=1795168800000\u{7}", "\r\n")),
    ("Docker Compose", |text| lines(text, "app_1  | ", "\n")),
    ("kubectl", |text| lines(text, "[pod/app-7d4b9c6f5-x2x9z/main] ", "\n")),
    ("colours", |text| lines(text, "\u{1b}[33m", "\u{1b}[0m\n")),
    ("Python's logging", |text| lines(text, "2026-11-20 10:00:00,123 DEBUG app.config ", "\n")),
];
