-- Fact views: the lake in the words of the domain. Control tests, KPIs and the SQL console read these.
--
-- Below them lie `events`, `findings`, `incident_steps`, `deliveries`, `source_windows` and `checkpoints`, as known at the
-- chosen time. Times in the views are UTC without a zone. Columns beyond the named ones come last: `event_id` is the
-- event that says it, by which a row is proved.
--
-- One statement ends at a semicolon at the end of a line.

-- Every decoded event that says what happened.
CREATE VIEW fact AS
SELECT *, CAST(time AS TIMESTAMP(6)) AS at
FROM events
WHERE dead_letter IS NULL AND action IS NOT NULL;

-- Protected: the default branch, and branches that a protection rule names.
CREATE VIEW push AS
WITH named AS (
    SELECT DISTINCT ci_repo AS repo, concat('refs/heads/', config_id) AS ref
    FROM fact WHERE config_object = 'branch_protection' AND config_id IS NOT NULL
), override AS (
    SELECT DISTINCT p.event_id
    FROM fact p JOIN fact o ON o.ci_repo = p.ci_repo
    WHERE p.action = 'git.push' AND o.action = 'protected_branch.policy_override'
      AND (o.actor_id IS NULL OR p.actor_id IS NULL OR o.actor_id = p.actor_id)
      AND o.at BETWEEN p.at - INTERVAL '1 minute' AND p.at + INTERVAL '1 minute'
)
SELECT p.ci_repo AS repo, p.ci_ref AS ref, p.scm_before AS before_sha, coalesce(p.scm_after, p.ci_sha) AS after_sha,
       p.actor_id AS actor, coalesce(p.scm_forced, false) AS forced, o.event_id IS NOT NULL AS bypass,
       p.ci_ref = concat('refs/heads/', coalesce(p.scm_default_branch, 'main')) OR n.ref IS NOT NULL AS is_protected,
       p.at, p.event_id
FROM fact p
LEFT JOIN named n ON n.repo = p.ci_repo AND n.ref = p.ci_ref
LEFT JOIN override o ON o.event_id = p.event_id
WHERE p.action = 'git.push';

-- One row per change request. Whether it was an emergency no source says.
CREATE VIEW change_request AS
WITH e AS (
    SELECT *, row_number() OVER (
        PARTITION BY ci_repo, change_number
        ORDER BY CASE WHEN action = 'change.merged' THEN 0 ELSE 1 END, at DESC, "partition" DESC, "index" DESC, sub DESC) AS rank
    FROM fact
    WHERE action IN ('change.opened', 'change.updated', 'change.merged', 'change.closed') AND change_number IS NOT NULL
), opened AS (
    SELECT ci_repo, change_number, min(at) AS at FROM e WHERE action = 'change.opened' GROUP BY ci_repo, change_number
)
SELECT e.ci_repo AS repo, e.change_number AS pr, e.change_author AS author, e.change_head AS head_sha,
       CASE WHEN e.action = 'change.merged' THEN e.scm_after END AS merge_sha, e.change_base AS base_branch,
       o.at AS opened_at, CASE WHEN e.action = 'change.merged' THEN e.at END AS merged_at,
       CASE WHEN e.action = 'change.merged' THEN coalesce(e.change_merged_by, e.actor_id) END AS merged_by,
       CAST(NULL AS BOOLEAN) AS is_emergency, CAST(NULL AS VARCHAR) AS ticket, e.event_id
FROM e
LEFT JOIN opened o ON o.ci_repo = e.ci_repo AND o.change_number = e.change_number
WHERE e.rank = 1;

-- Head commits a change request was seen with. Whether a commit is signed no source of these says.
CREATE VIEW change_commit AS
SELECT ci_repo AS repo, change_number AS pr, change_head AS sha, max(change_author) AS author,
       CAST(NULL AS BOOLEAN) AS signed_verified, min(event_id) AS event_id
FROM fact
WHERE action IN ('change.opened', 'change.updated', 'change.merged') AND change_head IS NOT NULL
GROUP BY ci_repo, change_number, change_head;

CREATE VIEW review AS
SELECT r.ci_repo AS repo, r.change_number AS pr, r.actor_id AS reviewer, r.actor_type AS reviewer_type,
       r.change_review_state AS state, r.ci_sha AS sha, r.at AS submitted_at, min(d.at) AS dismissed_at, r.event_id
FROM fact r
LEFT JOIN (SELECT ci_repo, change_number, actor_id, at FROM fact WHERE action = 'change.review_dismissed') d
    ON d.ci_repo = r.ci_repo AND d.change_number = r.change_number AND d.actor_id = r.actor_id AND d.at >= r.at
WHERE r.action = 'change.reviewed'
GROUP BY r.ci_repo, r.change_number, r.actor_id, r.actor_type, r.change_review_state, r.ci_sha, r.at, r.event_id;

-- One row per run, known by any event of it or of its jobs. `finished_at` stays empty while a later attempt runs.
CREATE VIEW pipeline_run AS
WITH e AS (
    SELECT *, row_number() OVER (
        PARTITION BY ci_run_id ORDER BY CASE WHEN action = 'run.finished' THEN 0 WHEN action LIKE 'run.%' THEN 1 ELSE 2 END,
        at DESC, "partition" DESC, "index" DESC, sub DESC) AS rank
    FROM fact
    WHERE (action LIKE 'run.%' OR action LIKE 'job.%') AND ci_run_id IS NOT NULL
), span AS (
    SELECT ci_run_id, min(at) AS started_at, max(at) FILTER (WHERE action = 'run.finished') AS finished_at,
           max(at) FILTER (WHERE action IN ('run.queued', 'run.started')) AS begun_at,
           max(ci_repo) AS repo, max(ci_workflow) AS workflow, max(ci_sha) AS sha, max(ci_ref) AS ref,
           max(ci_trigger) AS event_name, max(runner_name) AS runner_id
    FROM e GROUP BY ci_run_id
)
SELECT e.ci_run_id AS run_id, coalesce(e.ci_repo, s.repo) AS repo, coalesce(e.ci_workflow, s.workflow) AS workflow,
       coalesce(e.ci_sha, s.sha) AS sha, coalesce(e.ci_ref, s.ref) AS ref, coalesce(e.ci_trigger, s.event_name) AS event_name,
       e.actor_id AS actor, s.runner_id,
       CASE WHEN e.action = 'run.finished' THEN coalesce(e.reason, e.outcome) END AS conclusion, s.started_at,
       CASE WHEN s.begun_at IS NULL OR s.finished_at >= s.begun_at THEN s.finished_at END AS finished_at, e.event_id
FROM e JOIN span s ON s.ci_run_id = e.ci_run_id
WHERE e.rank = 1;

-- Which checks are required no source of these says.
CREATE VIEW check_result AS
SELECT ci_repo AS repo, ci_sha AS sha, ci_run_id AS run_id, message AS kind, coalesce(reason, outcome) AS conclusion,
       CAST(NULL AS BOOLEAN) AS required, CAST(NULL AS INT) AS max_severity, at AS finished_at, event_id
FROM fact WHERE action = 'check.finished';

-- One row per digest: where it was first said to be built.
CREATE VIEW artifact AS
SELECT digest, repo, run_id, sha, built_at, event_id
FROM (
    SELECT artifact_digest AS digest, ci_repo AS repo, ci_run_id AS run_id, ci_sha AS sha, at AS built_at, event_id,
           row_number() OVER (
               PARTITION BY artifact_digest ORDER BY CASE WHEN ci_repo IS NULL THEN 1 ELSE 0 END, at, "partition", "index", sub) AS rank
    FROM fact
    WHERE action IN ('artifact.signed', 'artifact.published') AND artifact_digest IS NOT NULL
) ranked
WHERE rank = 1;

CREATE VIEW attestation AS
SELECT artifact_digest AS subject_digest, signature_predicate_type AS predicate_type, build_builder AS builder_id,
       signature_identity AS signer_identity, signature_issuer AS issuer, ci_sha AS source_sha, at AS created_at,
       coalesce(signature_verified, false) AS verified, event_id
FROM fact
WHERE action = 'artifact.signed' AND signature_predicate_type IS NOT NULL;

-- Bills of materials, one row each. `doc_sha256` is of the document as it is kept: without its wrapper and its secrets.
CREATE VIEW sbom AS
SELECT artifact_digest AS digest, sbom_format AS format, at AS generated_at, encode(sha256(body), 'hex') AS doc_sha256,
       sbom_components AS components, artifact_name AS name, ci_repo AS repo, event_id
FROM fact
WHERE action = 'sbom.created';

-- Reports of scanners, one row each.
CREATE VIEW scan AS
SELECT artifact_digest AS digest, artifact_name AS name, ci_repo AS repo, scan_tool AS tool, scan_kind AS kind, scan_findings AS findings,
       at, event_id
FROM fact
WHERE action = 'scan.finished';

-- A vulnerability: one in one artifact, or in one repository where no artifact is named. Fixed: said to be, or not in the next report of
-- the same scanner about the same artifact. When it is due, whether it is exploited and who accepted it no source of these says.
CREATE VIEW vuln AS
WITH e AS (
    SELECT *, coalesce(artifact_digest, ci_repo, source) AS whose, coalesce(scan_tool, '') AS tool
    FROM fact
    WHERE scan_kind = 'vulnerability' AND scan_rule IS NOT NULL AND action IN ('scan.found', 'scan.fixed')
), found AS (
    SELECT *, row_number() OVER (PARTITION BY whose, scan_rule ORDER BY at, "partition", "index", sub) AS rank
    FROM e WHERE action = 'scan.found'
), span AS (
    SELECT whose, scan_rule, min(at) AS first_seen, max(at) AS last_seen,
           max(CASE scan_severity WHEN 'critical' THEN 5 WHEN 'high' THEN 4 WHEN 'medium' THEN 3 WHEN 'low' THEN 2
                    WHEN 'info' THEN 1 END) AS severity
    FROM found GROUP BY whose, scan_rule
), report AS (
    SELECT artifact_digest AS whose, coalesce(scan_tool, '') AS tool, at FROM fact
    WHERE action = 'scan.finished' AND artifact_digest IS NOT NULL
), gone AS (
    SELECT f.whose, f.scan_rule, min(r.at) AS at
    FROM found f
    JOIN span s ON s.whose = f.whose AND s.scan_rule = f.scan_rule
    JOIN report r ON r.whose = f.whose AND r.tool = f.tool AND r.at > s.last_seen
    GROUP BY f.whose, f.scan_rule
), fixed AS (
    SELECT e.whose, e.scan_rule, min(e.at) AS at
    FROM e JOIN span s ON s.whose = e.whose AND s.scan_rule = e.scan_rule
    WHERE e.action = 'scan.fixed' AND e.at >= s.last_seen
    GROUP BY e.whose, e.scan_rule
)
SELECT f.scan_rule AS vuln_id, f.artifact_digest AS digest, CAST(s.severity AS INT) AS severity, CAST(NULL AS BOOLEAN) AS kev, s.first_seen,
       CAST(NULL AS TIMESTAMP(6)) AS due_at, least(x.at, g.at) AS fixed_at, CAST(NULL AS VARCHAR) AS exception_id, f.ci_repo AS repo,
       f.scan_location AS location, f.scan_tool AS tool, f.event_id
FROM found f
JOIN span s ON s.whose = f.whose AND s.scan_rule = f.scan_rule
LEFT JOIN gone g ON g.whose = f.whose AND g.scan_rule = f.scan_rule
LEFT JOIN fixed x ON x.whose = f.whose AND x.scan_rule = f.scan_rule
WHERE f.rank = 1;

-- What an admission controller said about a signature when it let an image in or not.
CREATE VIEW sig_verification AS
SELECT artifact_digest AS digest, k8s_policy AS policy,
       CASE WHEN signature_status = 'verified' OR signature_verified THEN 'pass' ELSE 'fail' END AS result,
       signature_identity AS signer_identity, signature_issuer AS issuer, k8s_cluster AS cluster, at, event_id
FROM fact
WHERE action = 'admission.decided' AND signature_status IN ('verified', 'failed', 'missing');

-- `enforcement` is what the admission policies of the cluster asked for at that time, as far as their changes were seen:
-- the weakest of those in place; NULL if none was seen.
CREATE VIEW admission AS
WITH policy AS (
    SELECT coalesce(k8s_cluster, '') AS cluster, config_id, at AS from_at,
           lead(at) OVER (PARTITION BY k8s_cluster, config_id ORDER BY at, "partition", "index", sub) AS to_at,
           CASE WHEN action = 'k8s.delete' THEN 'deleted'
                WHEN k8s_object_enforcement IS NOT NULL AND k8s_object_enforcement <> 'enforce' THEN k8s_object_enforcement
                WHEN lower(k8s_object_failure_policy) = 'ignore' THEN 'ignore'
                WHEN coalesce(config_weakens, false) THEN 'weakened'
                ELSE 'enforce' END AS enforcement
    FROM fact
    WHERE config_object = 'admission_policy' AND coalesce(outcome, 'success') = 'success'
), in_force AS (
    SELECT a.event_id,
           min(p.enforcement) FILTER (WHERE p.enforcement NOT IN ('enforce', 'deleted')) AS weak,
           min(p.enforcement) FILTER (WHERE p.enforcement = 'enforce') AS strong, min(p.enforcement) AS gone
    FROM fact a
    JOIN policy p ON p.cluster = coalesce(a.k8s_cluster, '') AND p.from_at <= a.at
    WHERE a.action = 'admission.decided' AND (p.to_at IS NULL OR a.at < p.to_at)
    GROUP BY a.event_id
)
SELECT a.event_id AS uid, a.k8s_cluster AS cluster, a.k8s_namespace AS namespace, a.environment AS env, a.k8s_kind AS kind,
       a.artifact_digest AS image_digest, a.artifact_name AS image_ref, coalesce(a.k8s_user, a.actor_id) AS user_name,
       a.k8s_verb AS operation, a.k8s_decision AS decision, a.k8s_policy AS policy,
       coalesce(i.weak, i.strong, i.gone) AS enforcement, a.at, a.event_id
FROM fact a
LEFT JOIN in_force i ON i.event_id = a.event_id
WHERE a.action = 'admission.decided';

-- Deployments as their sources report them: what CI says it deployed, and workloads a cluster let in.
CREATE VIEW deployment AS
SELECT e.event_id AS deploy_id, coalesce(e.environment, e.ci_environment) AS env, coalesce(e.k8s_name, e.ci_repo) AS service,
       e.k8s_cluster AS cluster, e.k8s_namespace AS namespace, e.artifact_digest AS image_digest,
       coalesce(e.ci_sha, a.sha) AS commit_sha, coalesce(e.ci_repo, a.repo) AS repo, coalesce(e.ci_run_id, a.run_id) AS run_id,
       e.actor_id AS actor, e.actor_type, e.at AS deployed_at, CAST(NULL AS VARCHAR) AS rollback_of,
       CAST(NULL AS BOOLEAN) AS is_emergency, e.event_id
FROM fact e
LEFT JOIN artifact a ON a.digest = e.artifact_digest
WHERE (e.action = 'deploy.finished' AND e.outcome = 'success')
   OR (e.action = 'admission.decided' AND e.k8s_decision = 'allow' AND e.k8s_verb IN ('create', 'update', 'patch')
       AND e.k8s_kind IN ('deployments', 'statefulsets', 'daemonsets', 'cronjobs'));

-- One row per credential. A GitHub job token says no expiry: it ends with its job. Where a credential names its repository but
-- no run, it belongs to the one run of that repository that was in progress when it was issued; `run_basis` says which.
CREATE VIEW token AS
WITH issue AS (
    SELECT *
    FROM (
        SELECT *, coalesce(token_id, event_id) AS id, row_number() OVER (
            PARTITION BY coalesce(token_id, event_id) ORDER BY at, "partition", "index", sub) AS rank
        FROM fact WHERE action IN ('token.issued', 'token.created')
    ) ranked
    WHERE rank = 1
), renewal AS (
    SELECT token_id, max(CAST(token_expires AS TIMESTAMP(6))) AS expires_at
    FROM fact WHERE action = 'token.renewed' AND token_id IS NOT NULL GROUP BY token_id
), revocation AS (
    SELECT token_id, min(at) AS at
    FROM fact WHERE action IN ('token.revoked', 'token.deleted') AND token_id IS NOT NULL GROUP BY token_id
), job AS (
    SELECT ci_run_id, ci_job_id, max(at) AS ended_at
    FROM fact WHERE action IN ('job.finished', 'job.log') AND ci_run_id IS NOT NULL GROUP BY ci_run_id, ci_job_id
), guess AS (
    SELECT i.id, min(r.run_id) AS run_id
    FROM issue i JOIN pipeline_run r ON r.repo = coalesce(i.token_repo, i.ci_repo)
    WHERE i.ci_run_id IS NULL AND i.actor_type = 'ci' AND r.started_at <= i.at
      AND (r.finished_at IS NULL OR i.at <= r.finished_at)
    GROUP BY i.id HAVING count(*) = 1
)
SELECT i.id AS token_id, i.token_issuer AS issuer, i.token_sub AS subject, i.token_aud AS audience,
       coalesce(i.token_repo, i.ci_repo) AS repo, coalesce(i.token_ref, i.ci_ref) AS ref,
       coalesce(i.ci_run_id, g.run_id) AS run_id, i.actor_id AS holder, i.actor_type AS holder_type, i.token_kind AS kind,
       CASE WHEN i.token_kind = 'app' AND i.token_issuer = 'github-actions'
            THEN CASE WHEN coalesce(i.config_attribute, '') = '' THEN 'read' ELSE 'write' END END AS scope_class,
       i.at AS issued_at,
       coalesce(greatest(n.expires_at, CAST(i.token_expires AS TIMESTAMP(6))),
                CASE WHEN i.token_kind = 'app' AND i.token_issuer = 'github-actions' THEN j.ended_at END) AS expires_at,
       v.at AS revoked_at, i.event_id,
       CASE WHEN i.ci_run_id IS NOT NULL THEN 'stated'
            WHEN g.run_id IS NOT NULL THEN 'only run of the repository at that time' END AS run_basis
FROM issue i
LEFT JOIN renewal n ON n.token_id = i.id
LEFT JOIN revocation v ON v.token_id = i.id
LEFT JOIN job j ON j.ci_run_id = i.ci_run_id AND j.ci_job_id = i.ci_job_id
LEFT JOIN guess g ON g.id = i.id;

CREATE VIEW token_use AS
SELECT e.token_id, coalesce(e.ci_run_id, t.run_id) AS run_id, e.src_ip AS source_ip,
       coalesce(e.secret_path, e.artifact_name, e.cloud_service, e.k8s_kind, e.message) AS resource, e.at, e.event_id
FROM fact e
LEFT JOIN token t ON t.token_id = e.token_id
WHERE e.token_id IS NOT NULL
  AND e.action NOT IN ('token.issued', 'token.created', 'token.requested', 'token.denied', 'token.revoked', 'token.deleted',
                       'vault.request');

CREATE VIEW secret_access AS
SELECT e.event_id, e.secret_path, e.environment AS env, e.token_id, e.actor_id AS principal, e.actor_type AS principal_type,
       coalesce(e.ci_run_id, t.run_id) AS run_id,
       CASE e.action WHEN 'secret.read' THEN 'read' WHEN 'secret.list' THEN 'list' WHEN 'secret.written' THEN 'write'
                     ELSE 'delete' END AS op,
       e.outcome AS result, e.at
FROM fact e
LEFT JOIN token t ON t.token_id = e.token_id
WHERE e.action IN ('secret.read', 'secret.list', 'secret.written', 'secret.deleted');

-- `scope` says where the object lies: repository, cluster, account or source. Restored: the next change of the same object
-- that does not weaken it.
CREATE VIEW config_change AS
WITH c AS (
    SELECT config_object AS object_type, config_id AS object_id, config_attribute AS attribute, config_value AS new_value,
           coalesce(config_weakens, false) AS weakens, actor_id AS actor, at, event_id,
           coalesce(ci_repo, k8s_cluster, cloud_account, source) AS scope, "partition", "index", sub
    FROM fact
    WHERE config_object IS NOT NULL AND category IN ('config', 'audit') AND coalesce(outcome, 'success') = 'success'
), restored AS (
    SELECT w.event_id, min(r.at) AS at
    FROM c w JOIN c r ON r.object_type = w.object_type AND r.scope = w.scope
    WHERE w.weakens AND NOT r.weakens AND r.at >= w.at AND r.event_id <> w.event_id
      AND (r.object_id = w.object_id OR r.object_id IS NULL OR w.object_id IS NULL)
    GROUP BY w.event_id
)
SELECT c.object_type, c.object_id, c.attribute, c.new_value, c.weakens, c.actor, c.at, CAST(NULL AS VARCHAR) AS change_ref,
       r.at AS restored_at, c.scope, c.event_id
FROM c LEFT JOIN restored r ON r.event_id = c.event_id;

-- One row per job. A self-hosted runner counts as ephemeral only if its labels say so.
CREATE VIEW runner_job AS
SELECT runner_name AS runner_id, ci_run_id AS run_id, runner_kind = 'self-hosted' AS self_hosted,
       runner_kind = 'github-hosted' OR coalesce(lower(runner_labels) LIKE '%ephemeral%', false) AS ephemeral,
       CAST(NULL AS VARCHAR) AS trust_zone, CAST(NULL AS BOOLEAN) AS from_fork, at, event_id
FROM (
    SELECT *, row_number() OVER (
        PARTITION BY ci_repo, ci_run_id, ci_job_id, coalesce(ci_attempt, 1)
        ORDER BY CASE WHEN action = 'job.started' THEN 0 ELSE 1 END, at, "partition", "index", sub) AS rank
    FROM fact
    WHERE action IN ('job.started', 'job.finished') AND runner_name IS NOT NULL
) ranked
WHERE rank = 1;

-- Third party: not of GitHub's own organisations, and not of the repository's owner. No list of approvals is kept.
CREATE VIEW action_use AS
SELECT ci_run_id AS run_id, action_ref,
       lower(split_part(action_ref, '/', 1)) NOT IN ('actions', 'github', lower(split_part(coalesce(ci_repo, ''), '/', 1))) AS third_party,
       regexp_like(action_ref, '@[0-9a-f]{40}([0-9a-f]{24})?$') AS pinned_to_sha, CAST(NULL AS BOOLEAN) AS approved, at, event_id
FROM fact
WHERE action = 'action.resolved' AND action_ref IS NOT NULL;

-- A leak: one secret in one kind of place of one repository, however often it was seen.
CREATE VIEW leak AS
WITH e AS (
    SELECT *, coalesce(leak_fingerprint, event_id) AS fingerprint,
           CASE WHEN source_type LIKE '%.joblog' THEN 'ci_log' WHEN source_type = 'github.webhook' THEN 'repo' ELSE 'event' END AS place
    FROM fact WHERE action = 'leak.detected'
), first AS (
    SELECT *, row_number() OVER (
        PARTITION BY fingerprint, place, coalesce(ci_repo, source) ORDER BY at, "partition", "index", sub) AS rank
    FROM e
), span AS (
    SELECT fingerprint, place, coalesce(ci_repo, source) AS whose, min(at) AS exposed_at,
           min(CAST(received AS TIMESTAMP(6))) AS detected_at
    FROM e GROUP BY fingerprint, place, coalesce(ci_repo, source)
)
SELECT f.event_id AS leak_id, f.fingerprint, f.leak_type AS secret_type, f.place AS location_type, f.ci_repo AS repo,
       s.exposed_at, s.detected_at, 'unknown' AS validity, CAST(NULL AS TIMESTAMP(6)) AS revoked_at, 'open' AS disposition,
       CAST(NULL AS BOOLEAN) AS public, f.event_id
FROM first f
JOIN span s ON s.fingerprint = f.fingerprint AND s.place = f.place AND s.whose = coalesce(f.ci_repo, f.source)
WHERE f.rank = 1;

-- Steps of incidents that still hold: of a reopened one, remedies before the reopening do not.
CREATE VIEW incident_progress AS
WITH reopening AS (
    SELECT incident, max(number) AS number, count(*) AS times FROM incident_steps WHERE verb = 'reopen' GROUP BY incident
)
SELECT s.incident,
       min(CAST(s.committed AS TIMESTAMP(6))) FILTER (WHERE s.verb = 'open') AS detected_at,
       min(CAST(s.at AS TIMESTAMP(6))) FILTER (WHERE s.verb = 'ack') AS acknowledged_at,
       min(CAST(s.at AS TIMESTAMP(6))) FILTER (WHERE s.verb = 'contain') AS contained_at,
       max(CAST(s.at AS TIMESTAMP(6))) FILTER (WHERE s.verb = 'remediate' AND s.number > coalesce(r.number, -1)) AS remediated_at,
       max(CAST(s.at AS TIMESTAMP(6))) FILTER (WHERE s.verb = 'verify' AND s.number > coalesce(r.number, -1)) AS verified_at,
       max(CAST(s.at AS TIMESTAMP(6))) FILTER (
           WHERE s.verb IN ('close', 'dismiss') AND s.number > coalesce(r.number, -1)) AS closed_at,
       min(CAST(s.at AS TIMESTAMP(6))) FILTER (WHERE s.verb NOT IN ('open', 'join')) AS triaged_at,
       max(s.verb) FILTER (WHERE s.verb IN ('close', 'dismiss') AND s.number > coalesce(r.number, -1)) AS ended_by,
       CAST(coalesce(max(r.times), 0) AS INT) AS reopened
FROM incident_steps s
LEFT JOIN reopening r ON r.incident = s.incident
GROUP BY s.incident;

CREATE VIEW finding AS
SELECT f.finding_id, f.rule_id, f.severity, f.entity, CAST(f.occurred AS TIMESTAMP(6)) AS occurred_at,
       CAST(f.committed AS TIMESTAMP(6)) AS detected_at, p.triaged_at,
       CASE WHEN p.ended_by = 'dismiss' THEN 'false_positive' WHEN p.ended_by = 'close' THEN 'true_positive'
            WHEN p.triaged_at IS NOT NULL THEN 'in_progress' END AS disposition,
       f.incident AS incident_id, f.rule_digest AS rule_version, f.state, f.retro, f.event_id
FROM findings f
LEFT JOIN incident_progress p ON p.incident = f.incident;

CREATE VIEW incident AS
WITH f AS (
    SELECT incident, max(severity) AS severity, min(CAST(occurred AS TIMESTAMP(6))) AS occurred_at, bool_and(retro) AS retro
    FROM findings WHERE incident IS NOT NULL GROUP BY incident
), opener AS (
    SELECT incident, category, event_id
    FROM (SELECT *, row_number() OVER (PARTITION BY incident ORDER BY seq) AS rank FROM findings WHERE incident IS NOT NULL) ranked
    WHERE rank = 1
)
SELECT p.incident AS incident_id, f.severity, o.category, f.occurred_at,
       CASE WHEN f.occurred_at IS NULL THEN 'unknown' ELSE 'observed' END AS occurred_basis, p.detected_at, p.acknowledged_at,
       p.contained_at, p.remediated_at, p.verified_at, p.closed_at, p.reopened, false AS is_test,
       CAST(NULL AS TIMESTAMP(6)) AS pir_at, CAST(NULL AS BOOLEAN) AS evidence_hold,
       CASE WHEN f.retro THEN 'retro' ELSE 'live' END AS detected_mode, o.event_id
FROM incident_progress p
LEFT JOIN f ON f.incident = p.incident
LEFT JOIN opener o ON o.incident = p.incident;

-- The last version of every window. No source of these says how much it sent, so `src_count` stays empty. `seq_gaps` are the events that
-- a sender numbered and that did not come; empty where it numbers none.
CREATE VIEW source_window AS
SELECT source AS source_id, true AS critical, CAST(window_start AS TIMESTAMP(6)) AS w_start,
       CAST(window_end AS TIMESTAMP(6)) AS w_end, CAST(NULL AS BIGINT) AS src_count, records AS got_count,
       CASE WHEN basis LIKE '% numbered events are missing%' THEN CAST(split_part(basis, ' ', 1) AS BIGINT)
            WHEN basis LIKE 'sequence numbers without a gap%' THEN CAST(0 AS BIGINT) END AS seq_gaps, max_lag_secs AS max_lag_s, max_skew_secs AS max_skew_s, status, source_type, events,
       duplicates, dead_letters, down_secs AS down_s, basis
FROM (SELECT *, row_number() OVER (PARTITION BY source, window_start ORDER BY seq DESC) AS rank FROM source_windows) ranked
WHERE rank = 1;

CREATE VIEW checkpoint AS
SELECT log_id, tree_size, root_hash, CAST(at AS TIMESTAMP(6)) AS at, consistent_with_prev,
       CAST(anchored_at AS TIMESTAMP(6)) AS anchored_at
FROM checkpoints;

-- Deployments of rule sets; which rules changed stands in the record.
CREATE VIEW rule_change AS
SELECT CAST(NULL AS VARCHAR) AS rule_id, CAST(NULL AS VARCHAR) AS version, 'deploy' AS action, actor_id AS actor,
       CAST(NULL AS VARCHAR) AS reviewer, CAST(NULL AS BOOLEAN) AS tests_passed, at, event_id
FROM fact WHERE action = 'pipeproof.rules-deployed';

CREATE VIEW log_admin AS
SELECT actor_id AS actor,
       CASE WHEN lower(coalesce(config_attribute, '')) LIKE '%retention%' THEN 'change_retention'
            WHEN action = 'audit_log.disabled' AND lower(coalesce(config_attribute, '')) LIKE 'delete%' THEN 'delete'
            WHEN action = 'audit_log.disabled' THEN 'disable'
            WHEN action = 'audit_log.enabled' THEN 'enable' ELSE 'change' END AS action,
       config_id AS object, at, CAST(NULL AS VARCHAR) AS change_ref, event_id
FROM fact WHERE config_object = 'audit_log' AND coalesce(outcome, 'success') = 'success';

-- What no source connected so far tells. The relations exist so that every control test can be planned.
CREATE VIEW secret_meta AS
SELECT CAST(NULL AS VARCHAR) AS secret_path, CAST(NULL AS VARCHAR) AS env, CAST(NULL AS VARCHAR) AS class,
       CAST(NULL AS TIMESTAMP(6)) AS last_rotated_at, CAST(NULL AS INT) AS rotation_days, CAST(NULL AS VARCHAR) AS owner WHERE false;

CREATE VIEW access_grant AS
SELECT CAST(NULL AS VARCHAR) AS principal, CAST(NULL AS VARCHAR) AS principal_type, CAST(NULL AS VARCHAR) AS role,
       CAST(NULL AS VARCHAR) AS resource, CAST(NULL AS BOOLEAN) AS privileged, CAST(NULL AS TIMESTAMP(6)) AS granted_at,
       CAST(NULL AS VARCHAR) AS granted_by, CAST(NULL AS VARCHAR) AS ticket, CAST(NULL AS TIMESTAMP(6)) AS revoked_at WHERE false;

CREATE VIEW permitted_access AS
SELECT CAST(NULL AS VARCHAR) AS identity, CAST(NULL AS VARCHAR) AS resource, CAST(NULL AS VARCHAR) AS op,
       CAST(NULL AS TIMESTAMP(6)) AS valid_from, CAST(NULL AS TIMESTAMP(6)) AS valid_to WHERE false;

CREATE VIEW hr_event AS
SELECT CAST(NULL AS VARCHAR) AS principal, CAST(NULL AS VARCHAR) AS kind, CAST(NULL AS TIMESTAMP(6)) AS at WHERE false;

CREATE VIEW access_review AS
SELECT CAST(NULL AS VARCHAR) AS review_id, CAST(NULL AS VARCHAR) AS scope, CAST(NULL AS TIMESTAMP(6)) AS quarter_start,
       CAST(NULL AS TIMESTAMP(6)) AS quarter_end, CAST(NULL AS TIMESTAMP(6)) AS performed_at, CAST(NULL AS VARCHAR) AS reviewer,
       CAST(NULL AS BIGINT) AS population, CAST(NULL AS BIGINT) AS to_remove, CAST(NULL AS BIGINT) AS removed WHERE false;

CREATE VIEW auth_event AS
SELECT CAST(NULL AS VARCHAR) AS principal, CAST(NULL AS VARCHAR) AS system, CAST(NULL AS BOOLEAN) AS mfa,
       CAST(NULL AS VARCHAR) AS result, CAST(NULL AS TIMESTAMP(6)) AS at WHERE false;

CREATE VIEW exception_rec AS
SELECT CAST(NULL AS VARCHAR) AS exception_id, CAST(NULL AS VARCHAR) AS control_id, CAST(NULL AS VARCHAR) AS scope_key,
       CAST(NULL AS VARCHAR) AS requested_by, CAST(NULL AS VARCHAR) AS approved_by, CAST(NULL AS TIMESTAMP(6)) AS approved_at,
       CAST(NULL AS TIMESTAMP(6)) AS expires_at WHERE false;

-- What providers list, an entry each. `object_id` is what events call it: a run's id, a deployment's id, a change's number after
-- its repository. Repositories are the scope of GitHub and GitLab, workflows that of the others.
CREATE VIEW provider_ledger AS
SELECT source AS source_id, config_object AS object_kind,
       CASE WHEN action = 'ledger.change' THEN concat(ci_repo, '#', config_id) ELSE config_id END AS object_id, at,
       ci_provider AS provider, CASE WHEN ci_provider IN ('github', 'gitlab') THEN ci_repo ELSE ci_workflow END AS scope,
       reason AS result, event_id
FROM fact
WHERE action IN ('ledger.run', 'ledger.deployment', 'ledger.change');

-- The ledger against the events, both ways. `missing`: the provider lists it and no event of it came. `unlisted`: an event says
-- that it ended between the first and the last entry of its scope, and no entry says so. A fetched log is no event of a run.
CREATE VIEW reconciliation AS
WITH listed AS (
    SELECT provider, object_kind, scope, object_id, min(source_id) AS source_id, min(at) AS at, min(event_id) AS event_id
    FROM provider_ledger GROUP BY provider, object_kind, scope, object_id
), span AS (
    SELECT provider, object_kind, scope, min(source_id) AS source_id, min(at) AS first_at, max(at) AS last_at
    FROM listed GROUP BY provider, object_kind, scope
), told AS (
    SELECT ci_provider AS provider, 'run' AS object_kind,
           CASE WHEN ci_provider IN ('github', 'gitlab') THEN ci_repo ELSE ci_workflow END AS scope, ci_run_id AS object_id,
           CASE WHEN action = 'run.finished' THEN at END AS ended, event_id
    FROM fact
    WHERE (action LIKE 'run.%' OR (action LIKE 'job.%' AND action <> 'job.log')) AND ci_run_id IS NOT NULL
    UNION ALL
    SELECT ci_provider, 'deployment', ci_repo, config_id, CASE WHEN action = 'deploy.finished' THEN at END, event_id
    FROM fact WHERE action LIKE 'deploy.%' AND config_id IS NOT NULL
    UNION ALL
    SELECT ci_provider, 'change', ci_repo, concat(ci_repo, '#', CAST(change_number AS VARCHAR)),
           CASE WHEN action = 'change.merged' THEN at END, event_id
    FROM fact WHERE action LIKE 'change.%' AND change_number IS NOT NULL
), seen AS (
    SELECT provider, object_kind, object_id, min(scope) AS scope, max(ended) AS ended, min(event_id) AS event_id
    FROM told WHERE provider IS NOT NULL GROUP BY provider, object_kind, object_id
)
SELECT l.source_id, l.provider, l.object_kind, l.scope, l.object_id, l.at,
       CASE WHEN s.object_id IS NULL THEN 'missing' ELSE 'matched' END AS result, l.event_id
FROM listed l
LEFT JOIN seen s ON s.provider = l.provider AND s.object_kind = l.object_kind AND s.object_id = l.object_id
UNION ALL
SELECT p.source_id, s.provider, s.object_kind, s.scope, s.object_id, s.ended, 'unlisted', s.event_id
FROM seen s
JOIN span p ON p.provider = s.provider AND p.object_kind = s.object_kind AND p.scope = s.scope
           AND s.ended BETWEEN p.first_at AND p.last_at
LEFT ANTI JOIN listed l ON l.provider = s.provider AND l.object_kind = s.object_kind AND l.object_id = s.object_id;

CREATE VIEW test_data_load AS
SELECT CAST(NULL AS VARCHAR) AS env, CAST(NULL AS VARCHAR) AS dataset, CAST(NULL AS VARCHAR) AS classification,
       CAST(NULL AS BOOLEAN) AS masked, CAST(NULL AS VARCHAR) AS approved_by, CAST(NULL AS TIMESTAMP(6)) AS at WHERE false;

CREATE VIEW runtime_image AS
SELECT CAST(NULL AS VARCHAR) AS cluster, CAST(NULL AS VARCHAR) AS namespace, CAST(NULL AS VARCHAR) AS env,
       CAST(NULL AS VARCHAR) AS digest, CAST(NULL AS TIMESTAMP(6)) AS first_seen, CAST(NULL AS TIMESTAMP(6)) AS last_seen WHERE false;
