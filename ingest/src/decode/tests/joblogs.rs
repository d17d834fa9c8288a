//! Job logs: what the system says of a job is read, and what the job prints is not taken for it.

use engine::event::Event;
use engine::fields::Field;
use engine::record::Position;
use engine::source::SourceType;
use pipeproof_engine as engine;

use super::samples::{receive, receiver};
use super::{assert_fields, decoded};

fn actions<'e>(events: &'e [Event], action: &str) -> Vec<&'e Event> {
    events.iter().filter(|event| event.fields.get_text(Field::Action) == Some(action)).collect()
}

#[test]
fn actions_published_as_packages_are_resolved_too() {
    let digest = format!("sha256:{}", "c".repeat(64));
    let sha = "11bd71901bbe5b1630ceea73d27597364c9af683";
    let log = format!(
        "2025-07-12T17:04:18.0740980Z Getting action download info\n\
         2025-07-12T17:04:18.3585493Z ##[group]Download immutable action package 'actions/checkout@v4'\n\
         2025-07-12T17:04:18.3586663Z Version: 4.2.2\n2025-07-12T17:04:18.3587703Z Digest: {digest}\n\
         2025-07-12T17:04:18.3589051Z Source commit SHA: {sha}\n2025-07-12T17:04:18.3589817Z ##[endgroup]\n\
         2025-07-12T17:04:18.4000000Z ##[group]Download immutable action package 'actions/cut@v1'\n\
         2025-07-12T17:04:18.4000000Z ##[endgroup]\n\
         2025-07-12T17:04:18.4571692Z Download action repository 'acme/x@v1' (SHA:{sha})\n\
         2025-07-12T17:04:19.0000000Z Complete job name: build\n\
         2025-07-12T17:04:20.0000000Z ##[group]Download immutable action package 'forged/x@v1'\n\
         2025-07-12T17:04:20.0000000Z Source commit SHA: {sha}\n"
    );
    // As it is received: neither commit nor digest is taken for a secret.
    let records = receive(&receiver(), SourceType::GithubJoblog, None, log.into()).unwrap();
    let events = super::super::decode(Position::default(), &records[0]).unwrap();
    let resolved = actions(&events, "action.resolved");
    assert_eq!(resolved.len(), 2);
    assert_fields(
        resolved[0],
        &[("action_ref", "actions/checkout@v4"), ("action_sha", sha), ("artifact.digest", &digest)],
    );
    assert_fields(resolved[1], &[("action_ref", "acme/x@v1"), ("action_sha", sha), ("artifact.digest", "-")]);
}

#[test]
fn what_a_build_of_jenkins_prints_is_not_taken_for_what_jenkins_says() {
    let forged =
        "Started by user admin\nRunning on builder-1 in /work\nChecking out Revision ffff (main)\nFinished: SUCCESS\n";
    let own = [("actor.id", "acme/app"), ("actor.type", "ci"), ("runner.name", "-"), ("ci.sha", "-")];
    for begin in [
        "Started by an SCM change\nBuilding in workspace /w\n[app] $ /bin/sh -xe /tmp/jenkins1.sh\n",
        "Started by an SCM change\n+ make\n",
        "Started by an SCM change\n[Pipeline] Start of Pipeline\n[Pipeline] echo\n",
        "[2026-11-20T10:00:00.120Z] Started by timer\n[2026-11-20T10:00:01.120Z] [Pipeline] sh\n",
    ] {
        let log = format!("{begin}{forged}+ true\nFinished: FAILURE\n");
        let job = [("joblog.repo", "acme/app"), ("joblog.run_id", "7"), ("joblog.job_id", "7")];
        let event = &decoded(SourceType::JenkinsJoblog, &job, log)[0];
        assert_fields(event, &own);
        assert_fields(event, &[("outcome", "failure"), ("reason", "failure")]);
        // Neither is it in a later piece of the log, nor is a piece's last line the log's.
        let piece = [("joblog.repo", "acme/app"), ("joblog.chunk", "1"), ("joblog.chunks", "3")];
        let event = &decoded(SourceType::JenkinsJoblog, &piece, forged)[0];
        assert_fields(event, &own);
        assert_fields(event, &[("outcome", "-")]);
    }
    let log = "Started by user Sam Kim\nObtained Jenkinsfile from git https://x\n[Pipeline] Start of Pipeline\n[Pipeline] node\n\
        Running on agent-3 in /w\n[Pipeline] {\n[Pipeline] stage\n[Pipeline] { (Checkout)\n[Pipeline] checkout\nChecking out Revision abcd (main)\n\
        [Pipeline] sh\nRunning on forged in /w\nFinished: SUCCESS\n";
    let event = &decoded(SourceType::JenkinsJoblog, &[], log)[0];
    assert_fields(
        event,
        &[
            ("actor.id", "Sam Kim"),
            ("actor.type", "human"),
            ("runner.name", "agent-3"),
            ("ci.sha", "abcd"),
            ("outcome", "success"),
        ],
    );
    let last = [("joblog.chunk", "2"), ("joblog.chunks", "3")];
    assert_fields(
        &decoded(SourceType::JenkinsJoblog, &last, forged)[0],
        &[("outcome", "success"), ("actor.type", "ci")],
    );
}

/// What the runner says of the image of a container.
fn image(name: &str, letter: char) -> String {
    let digest = letter.to_string().repeat(64);
    format!("Using docker image sha256:{digest} for {name} with digest {name}@sha256:{digest} ...")
}

#[test]
fn what_a_job_of_gitlab_prints_is_not_taken_for_what_the_runner_says() {
    let forged = format!(
        "Running with forged 1\n  on a.saas-linux.gitlab.com x\nChecking out ffffffff as detached HEAD\n\
         section_start:1772449260:prepare_executor\r\u{1b}[0K{}\nJob succeeded\n",
        image("forged", 'f')
    );
    let begin = format!(
        "Running with gitlab-runner 17.9.1 (bd3b4b1a)\n  on build-7 zxwgkjAP, system ID: s_1\n\
         section_start:1772449260:prepare_executor\r\u{1b}[0KPreparing\n{}\nsection_end:1772449262:prepare_executor\r\u{1b}[0K\
         section_start:1772449262:get_sources\r\u{1b}[0KChecking out 1dc6aa69 as detached HEAD (ref is main)...\n",
        image("service", 'a')
    );
    let script = "section_start:1772449263:step_script[collapsed=true]\r\u{1b}[0K";
    let own = [("runner.name", "build-7"), ("runner.kind", "self-hosted"), ("ci.sha", "1dc6aa69")];
    for (middle, images) in [
        (format!("{script}Executing \"step_script\" stage of the job script\n{}\n{forged}", image("app", 'b')), 2),
        (format!("{script}{}\n{}\n", image("app", 'b'), image("printed-by-the-entry-point", 'e')), 2),
        (format!("{script}\u{1b}[32;1m$ make\u{1b}[0;m\n{forged}"), 1),
        (format!("$ a hook of the job's own\n{forged}{script}{forged}"), 1),
        (format!("*** WARNING: Service x probably didn't start properly.\nService container logs:\n{forged}"), 1),
    ] {
        let log = format!("{begin}{middle}\u{1b}[31;1mERROR: Job failed: exit code 1\n\u{1b}[0;m\n");
        let events = decoded(SourceType::GitlabJoblog, &[("joblog.run_id", "7")], log);
        assert_fields(&events[0], &own);
        assert_fields(
            &events[0],
            &[("user_agent", "gitlab-runner 17.9.1"), ("outcome", "failure"), ("reason", "exit code 1")],
        );
        let resolved = actions(&events, "image.resolved");
        assert_eq!(resolved.len(), images, "{middle}");
        assert!(
            resolved
                .iter()
                .all(|event| ["service", "app"].contains(&event.fields.get_text(Field::ArtifactName).unwrap()))
        );
    }
    // A piece of the log that is not the first has nothing of the runner's but, if it is the last, how the job ended.
    for (chunk, outcome) in [("1", "-"), ("2", "success")] {
        let piece = [("joblog.run_id", "7"), ("joblog.chunk", chunk), ("joblog.chunks", "3")];
        let events = decoded(SourceType::GitlabJoblog, &piece, forged.clone());
        assert_eq!(events.len(), 1);
        assert_fields(&events[0], &[("runner.kind", "-"), ("runner.name", "-"), ("outcome", outcome), ("ci.sha", "-")]);
    }
}
