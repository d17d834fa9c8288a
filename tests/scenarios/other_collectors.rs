//! GitLab, Jenkins and Buildkite are fetched from as GitHub is: ten minutes of not running end with nothing missing.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::collectors::{holds, set};
use crate::harness::{Server, Setup, eventually};
use crate::standins::{Standins, TOKEN, USER};

const MINUTE: Duration = Duration::from_secs(60);

fn config(standins: &Standins) -> String {
    let url = &standins.url;
    let gitlab = format!("gitlab: {{api: {url}/gitlab, group: acme, token: {{env: TOKEN}}, every: 1s}}");
    let jenkins = format!("jenkins: {{api: {url}/jenkins, user: {USER}, token: {{env: TOKEN}}, every: 1s}}");
    let buildkite =
        format!("buildkite: {{api: {url}/buildkite, organization: acme, token: {{env: TOKEN}}, every: 1s}}");
    format!(
        "sources:
  - {{name: audit, type: gitlab.audit, collects: {{{gitlab}}}}}
  - {{name: traces, type: gitlab.joblog, collects: {{{gitlab}}}}}
  - {{name: consoles, type: jenkins.joblog, collects: {{{jenkins}}}}}
  - {{name: buildlogs, type: buildkite.joblog, collects: {{{buildkite}}}}}
  - {{name: ledger, type: provider.ledger, collects: {{{gitlab}, {jenkins}, {buildkite}}}}}
"
    )
}

fn start(standins: &Standins, data: &Path) -> Server {
    standins.kept.lock().unwrap().closed.clear();
    Setup::new().on(data).config(&config(standins)).env("TOKEN", TOKEN).start()
}

async fn everything_is_there(server: &Server, numbers: std::ops::Range<u64>) {
    let each = |one: &dyn Fn(u64) -> Vec<String>| set(numbers.clone().flat_map(one));
    holds(
        server,
        "traces",
        "ci_job_id",
        &each(&|number| vec![format!("{}1", 1_000 + number), format!("{}2", 1_000 + number)]),
    )
    .await;
    holds(
        server,
        "consoles",
        "ci_run_id",
        &each(&|number| vec![format!("shop#{number}"), format!("folder/deploy#{number}")]),
    )
    .await;
    holds(server, "buildlogs", "ci_job_id", &each(&|number| vec![format!("job-{number}")])).await;
    let ledger: BTreeSet<String> = each(&|number| {
        vec![
            format!("id:gitlab/run/acme/shop/{}", 1_000 + number),
            format!("id:gitlab/deployment/acme/shop/{}", 2_000 + number),
            format!("id:gitlab/change/acme/shop/{number}"),
            format!("id:jenkins/run/shop/shop#{number}"),
            format!("id:jenkins/run/folder/deploy/folder/deploy#{number}"),
            format!("id:buildkite/run/shop/build-{number}"),
        ]
    });
    holds(server, "ledger", "item", &ledger).await;
    assert_eq!(
        server.count("SELECT count(*) FROM events WHERE source = 'audit' AND sub = 0").await as u64,
        numbers.end - numbers.start
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_at_gitlab_jenkins_and_buildkite_while_we_were_down_is_there_once() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let standins = Standins::start().await;
    // Jenkins counts builds from one.
    standins.happened(1, MINUTE * 11);
    let server = start(&standins, &data);
    everything_is_there(&server, 1..2).await;
    server.kill();

    for number in 2..16 {
        standins.happened(number, MINUTE * 10 - Duration::from_secs(35) * u32::try_from(number).unwrap());
    }
    standins.kept.lock().unwrap().trouble_every = 9;
    for kill in 0..2_usize {
        let before = standins.kept.lock().unwrap().asked.len();
        let server = start(&standins, &data);
        eventually("it is collecting", || async {
            (standins.kept.lock().unwrap().asked.len() >= before + 12 + 20 * kill).then_some(())
        })
        .await;
        server.kill();
    }
    let server = start(&standins, &data);
    everything_is_there(&server, 1..16).await;
    {
        let kept = standins.kept.lock().unwrap();
        assert!(kept.troubles > 5, "{} things went wrong", kept.troubles);
        assert_eq!(kept.offences, [] as [String; 0]);
    }
    // Once it is there no log is fetched again.
    standins.kept.lock().unwrap().trouble_every = 0;
    let logs = || ["/trace", "/consoleText", "/log"].map(|part| standins.asked(part));
    let (fetched, asked) = (logs(), standins.asked("/jenkins/api/json"));
    eventually("lists are asked for again", || async {
        (standins.asked("/builds?") > 40 || standins.asked("/jenkins/api/json") > asked + 3).then_some(())
    })
    .await;
    assert_eq!(logs(), fetched);
    // A list of GitLab's in which nothing is new is not given again, and what is new in it then is.
    let unchanged = |part: &str| {
        let kept = standins.kept.lock().unwrap();
        kept.unchanged.iter().filter(|(path, _)| path.ends_with(part)).map(|(_, count)| count).sum::<usize>()
    };
    let lists = ["audit_events", "pipelines", "deployments", "merge_requests"];
    standins.happened(16, Duration::ZERO);
    everything_is_there(&server, 1..17).await;
    let before = lists.map(unchanged);
    eventually("lists are told to be the same", || async {
        lists.map(unchanged).iter().zip(before).all(|(now, before)| *now > before + 1).then_some(())
    })
    .await;
    // A page fills up, and another begins behind it.
    for number in 17..22 {
        standins.happened(number, Duration::ZERO);
        everything_is_there(&server, 1..number + 1).await;
    }
    assert_eq!(standins.kept.lock().unwrap().offences, [] as [String; 0]);
    let log = server.log().join("\n");
    assert!(!log.contains(TOKEN) && !log.contains("X-Amz-Signature"), "credentials are in the log");
}
