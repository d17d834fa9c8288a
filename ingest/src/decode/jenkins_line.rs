//! One line of Jenkins' audit-trail plugin.

use engine::fields::Field;
use engine::time::Timestamp;
use pipeproof_engine as engine;

use super::jenkins::actor;
use super::{Draft, name, outcome};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// End of a path that was asked for → what that does: action, category, kind of setting.
const REQUESTS: &[(&str, &str, &str, &str)] = &[
    ("/script", "script.executed", "config", "script"),
    ("/scriptText", "script.executed", "config", "script"),
    ("/build", "run.requested", "job", ""),
    ("/buildWithParameters", "run.requested", "job", ""),
    ("/cancelQueue", "run.cancelled", "job", ""),
    ("/stop", "run.cancelled", "job", ""),
    ("/toggleLogKeep", "run.kept", "job", ""),
    ("/doWipeOutWorkspace", "workspace.wiped", "job", ""),
    ("/doDelete", "workflow.deleted", "config", "workflow"),
    ("/doRename", "workflow.renamed", "config", "workflow"),
    ("/confirmRename", "workflow.renamed", "config", "workflow"),
    ("/createItem", "workflow.created", "config", "workflow"),
    ("/createView", "view.created", "config", "view"),
    ("/configSubmit", "workflow.updated", "config", "workflow"),
    ("/config.xml", "workflow.updated", "config", "workflow"),
    ("/quietDown", "controller.stopping", "audit", "controller"),
    ("/safeRestart", "controller.stopping", "audit", "controller"),
    ("/restart", "controller.stopping", "audit", "controller"),
    ("/exit", "controller.stopping", "audit", "controller"),
    ("/safeExit", "controller.stopping", "audit", "controller"),
    ("/createCredentials", "secret.written", "secret", ""),
    ("/updateSubmit", "secret.written", "secret", ""),
];

/// Reads a line; `None` if it is none of the plugin's.
pub(super) fn decode(line: &str) -> Option<Draft> {
    let (time, text) = date(line);
    let mut draft = Draft { time, ..Draft::default() };
    draft.fields.text(Field::CiProvider, Some("jenkins"));
    let text = text.trim();
    // Scripts go over lines: only the first says what it is.
    let first = text.lines().next().unwrap_or(text);
    let known = script(&mut draft, first)
        || credential(&mut draft, first)
        || login(&mut draft, first)
        || finished(&mut draft, first)
        || started(&mut draft, first)
        || request(&mut draft, first);
    if !known {
        return None;
    }
    draft.fields.text(Field::Message, Some(text));
    Some(draft)
}

/// `MMM d, yyyy h:mm:ss,SSS aa` and what follows. It has no zone: UTC, as containers run.
fn date(line: &str) -> (Option<Timestamp>, &str) {
    let read = || {
        let (month, rest) = line.split_once(' ')?;
        let month = MONTHS.iter().position(|name| *name == month)? + 1;
        let (day, rest) = rest.split_once(", ")?;
        let (year, rest) = rest.split_once(' ')?;
        let (clock, rest) = rest.split_once(' ')?;
        let (half, rest) = rest.split_at_checked(2)?;
        let (clock, millis) = clock.split_once(',').unwrap_or((clock, "0"));
        let mut parts = clock.split(':').map(str::parse::<u32>);
        let (hour, minute, second) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        let hour = hour % 12 + if half.eq_ignore_ascii_case("pm") { 12 } else { 0 };
        let (day, millis): (u32, u32) = (day.parse().ok()?, millis.parse().ok()?);
        let text = format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z");
        Some((Timestamp::parse(&text)?, rest))
    };
    // The separator behind it can be set: anything up to the text.
    read().map_or((None, line), |(time, rest)| {
        (Some(time), rest.trim_start_matches(|char: char| !char.is_alphanumeric() && !"/'#".contains(char)))
    })
}

/// `A groovy script was executed by user 'ID'. Origin: Script Console Controller.`
fn script(draft: &mut Draft, line: &str) -> bool {
    let Some(rest) = line.strip_prefix("A groovy script was executed") else { return false };
    let fields = &mut draft.fields;
    name(fields, "script.executed", "config");
    fields.text(Field::ConfigObject, Some("script"));
    fields.text(Field::Outcome, Some("success"));
    actor(fields, rest.split_once("by user '").and_then(|(_, rest)| rest.split_once('\'')).map(|(user, _)| user));
    let origin = rest.split_once("Origin: ").map(|(_, origin)| origin.trim_end_matches(['.', ' ']));
    fields.text(Field::ConfigId, origin);
    true
}

/// `'JOB#7' (class …) used credentials 'ID' (class …).`
fn credential(draft: &mut Draft, line: &str) -> bool {
    let used = line.split_once(") used credentials ").filter(|(head, _)| head.starts_with('\''));
    let Some((head, rest)) = used else { return false };
    let user = head.trim_start_matches('\'').split("' (").next().unwrap_or_default();
    let fields = &mut draft.fields;
    name(fields, "secret.read", "secret");
    fields.text(Field::Outcome, Some("success"));
    fields.text(Field::SecretStore, Some("jenkins"));
    fields.text(Field::SecretPath, rest.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map(|(id, _)| id));
    fields.text(Field::ActorId, Some(user));
    fields.text(Field::ActorType, Some("ci"));
    if let Some((job, _)) = user.rsplit_once('#') {
        fields.text(Field::CiRunId, Some(user));
        fields.text(Field::CiWorkflow, Some(job));
    }
    true
}

/// `Successful login for user 'ID'` and its like.
fn login(draft: &mut Draft, line: &str) -> bool {
    const FORMS: &[(&str, &str, bool)] = &[
        ("Successful login for user '", "user.login", true),
        ("Failed login attempt for user '", "user.login", false),
        ("Logout for user '", "user.logout", true),
    ];
    let Some((head, action, success)) = FORMS.iter().find(|(head, ..)| line.starts_with(head)) else { return false };
    name(&mut draft.fields, action, "audit");
    draft.fields.text(Field::Outcome, Some(outcome(*success)));
    actor(&mut draft.fields, line.strip_prefix(head).map(|rest| rest.trim_end_matches('\'')));
    true
}

/// `NAME #7 CAUSES, Parameters:[…] on node N started at T completed in 12ms completed: SUCCESS`.
fn finished(draft: &mut Draft, line: &str) -> bool {
    let Some((head, result)) = line.rsplit_once(" completed: ") else { return false };
    let Some((run, rest)) = run(head) else { return false };
    let fields = &mut draft.fields;
    name(fields, "run.finished", "job");
    fields.text(Field::Outcome, Some(outcome(matches!(result.trim(), "SUCCESS" | "NOT_BUILT"))));
    fields.text(Field::Reason, Some(result.trim().to_lowercase()));
    let node = rest.rsplit_once(" on node ").and_then(|(_, rest)| rest.split_once(" started at "));
    fields.text(Field::RunnerName, node.map(|(node, _)| node).filter(|node| *node != "#unknown#"));
    causes(draft, &run, rest);
    true
}

/// `job/NAME/ #7 CAUSES, Parameters:[…]`.
fn started(draft: &mut Draft, line: &str) -> bool {
    if !line.contains(", Parameters:[") {
        return false;
    }
    let Some((run, rest)) = run(line) else { return false };
    name(&mut draft.fields, "run.started", "job");
    causes(draft, &run, rest);
    true
}

/// The run a line starts with, as `NAME#7` whatever way it is written, and the rest.
fn run(line: &str) -> Option<(String, &str)> {
    let (job, rest) = line.split_once(" #")?;
    let (number, rest) = rest.split_once(' ')?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let job = full_name(job).unwrap_or_else(|| job.replace(" » ", "/"));
    digits.then(|| (format!("{job}#{number}"), rest))
}

/// `folder/name` of the address `job/folder/job/name/`; what is shown to people is `folder » name`.
pub(super) fn full_name(address: &str) -> Option<String> {
    let parts: Vec<&str> = address.strip_prefix("job/")?.trim_end_matches('/').split("/job/").collect();
    Some(parts.join("/"))
}

fn causes(draft: &mut Draft, run: &str, rest: &str) {
    let fields = &mut draft.fields;
    fields.text(Field::CiRunId, Some(run));
    fields.text(Field::CiWorkflow, run.rsplit_once('#').map(|(job, _)| job));
    let cause = rest.split(", Parameters:[").next().unwrap_or(rest).trim();
    fields.text(Field::CiTrigger, Some(cause));
    match cause.strip_prefix("Started by user ") {
        Some(user) => actor(fields, Some(user.split(", ").next().unwrap_or(user))),
        None => actor(fields, Some("SYSTEM")),
    }
}

/// `/path by USER`, with ` from ADDRESS` in later versions.
fn request(draft: &mut Draft, line: &str) -> bool {
    let Some((path, rest)) = line.rsplit_once(" by ").filter(|(path, _)| path.starts_with('/')) else { return false };
    let (user, address) = rest.split_once(" from ").map_or((rest, None), |(user, address)| (user, Some(address)));
    // For items of the queue the task follows in brackets.
    let path = path.split(" (").next().unwrap_or(path);
    let end = path.trim_end_matches('/');
    let fields = &mut draft.fields;
    match REQUESTS.iter().find(|(tail, ..)| end.ends_with(tail)) {
        // The configuration of the whole controller is at the root.
        Some((_, "workflow.updated", ..)) if end == "/configSubmit" || end.starts_with("/configureSecurity") => {
            name(fields, "controller.configured", "config");
            fields.text(Field::ConfigObject, Some("controller"));
        }
        Some((_, action, category, object)) => {
            name(fields, action, category);
            fields.text(Field::ConfigObject, Some(*object));
        }
        None => name(fields, "jenkins.request", "audit"),
    }
    // The request is logged before it is answered.
    fields.text(Field::ConfigId, Some(path));
    fields.text(Field::SrcIp, address.map(str::trim));
    actor(fields, Some(user.trim()).filter(|user| *user != "NA").or(Some("anonymous")));
    let job: Vec<&str> = end.split('/').collect();
    let parts: Vec<&str> = job
        .windows(2)
        .filter_map(|pair| match pair {
            ["job", name] => Some(*name),
            _ => None,
        })
        .collect();
    fields.text(Field::CiWorkflow, Some(parts.join("/")));
    true
}
