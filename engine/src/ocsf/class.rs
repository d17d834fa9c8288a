//! Which OCSF class and activity an event belongs to, by its category and action.
//!
//! | category | class |
//! |---|---|
//! | token (issued), identity and audit (sign-ins) | 3002 Authentication |
//! | identity and config about accounts, groups | 3001 Account Change, 3006 Group Management |
//! | config, audit (of the audit log) | 3004 Entity Management |
//! | job, deploy | 6002 Application Lifecycle |
//! | scan (runs, bills of materials) | 6007 Scan Activity |
//! | scan (findings), by kind | 2002 Vulnerability, 2003 Compliance, 2004 Detection, 2007 Application Security Posture |
//! | leak, runtime (alerts) | 2004 Detection Finding |
//! | admission (policies) | 2003 Compliance Finding |
//! | runtime | 1007 Process, 1001 File, 4001 Network, 4003 DNS Activity |
//! | secret, scm, signing, registry, cloud, admission (requests), other tokens, other audit | 6003 API Activity |
//! | none | 0 Base Event |

use std::borrow::Cow;

use crate::event::Event;
use crate::fields::Field;
use crate::json::Json;
use crate::source::SourceType;

/// An OCSF class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// `class_uid`; its thousands are the category.
    pub uid: u16,
    /// `class_name`.
    pub name: &'static str,
    /// `category_name`.
    pub category: &'static str,
}

macro_rules! classes {
    ($($constant:ident = $uid:literal, $name:literal, $category:literal;)+) => {
        impl Class {
            $(pub(super) const $constant: Self = Self { uid: $uid, name: $name, category: $category };)+
            /// Every class that is written.
            pub const ALL: &'static [Self] = &[$(Self::$constant),+];
        }
    };
}

classes! {
    BASE = 0, "Base Event", "Uncategorized";
    FILE = 1001, "File System Activity", "System Activity";
    PROCESS = 1007, "Process Activity", "System Activity";
    VULNERABILITY = 2002, "Vulnerability Finding", "Findings";
    COMPLIANCE = 2003, "Compliance Finding", "Findings";
    DETECTION = 2004, "Detection Finding", "Findings";
    POSTURE = 2007, "Application Security Posture Finding", "Findings";
    ACCOUNT = 3001, "Account Change", "Identity & Access Management";
    AUTHENTICATION = 3002, "Authentication", "Identity & Access Management";
    ENTITY = 3004, "Entity Management", "Identity & Access Management";
    GROUP = 3006, "Group Management", "Identity & Access Management";
    NETWORK = 4001, "Network Activity", "Network Activity";
    DNS = 4003, "DNS Activity", "Network Activity";
    LIFECYCLE = 6002, "Application Lifecycle", "Application Activity";
    API = 6003, "API Activity", "Application Activity";
    SCAN = 6007, "Scan Activity", "Application Activity";
}

impl Class {
    /// `category_uid`.
    #[must_use]
    pub const fn category_uid(self) -> u16 {
        self.uid / 1_000
    }

    pub(super) const fn is_finding(self) -> bool {
        self.category_uid() == 2
    }

    /// Whether `actor` or `device` come with the host profile rather than with the class.
    pub(super) fn takes_host(self) -> bool {
        matches!(self, Self::LIFECYCLE | Self::NETWORK | Self::DNS)
    }
}

/// What was done, in the terms of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// `activity_id`.
    pub id: u8,
    /// `activity_name`: the caption of the id, or the source's own word for what is 99, Other.
    pub name: Cow<'static, str>,
}

impl Activity {
    const fn new(id: u8, name: &'static str) -> Self {
        Self { id, name: Cow::Borrowed(name) }
    }

    pub(super) fn other(name: &str) -> Self {
        Self { id: 99, name: Cow::Owned(name.to_owned()) }
    }
}

pub(super) fn of(event: &Event) -> (Class, Activity) {
    let action = event.fields.get_text(Field::Action).unwrap_or_default();
    let (noun, verb) = action.rsplit_once('.').unwrap_or(("", action));
    let or_other = |found: Option<Activity>| found.unwrap_or_else(|| Activity::other(action));
    match event.fields.get_text(Field::Category).unwrap_or_default() {
        "token" if action == "token.issued" => (Class::AUTHENTICATION, Activity::new(1, "Logon")),
        "identity" | "audit" | "config" if is_sign_in(noun, verb) => (Class::AUTHENTICATION, Activity::new(1, "Logon")),
        "identity" | "audit" if is_sign_out(noun, verb) => (Class::AUTHENTICATION, Activity::new(2, "Logoff")),
        "identity" | "config" if noun == "user" || noun.starts_with("user.account") => {
            (Class::ACCOUNT, or_other(account(verb)))
        }
        "identity" if noun.starts_with("group.user_membership") => (Class::GROUP, or_other(membership(verb))),
        "identity" if noun.starts_with("security.threat") => (Class::DETECTION, Activity::new(1, "Create")),
        "config" => (Class::ENTITY, or_other(entity(verb))),
        "audit" if noun == "audit_log" => (Class::ENTITY, or_other(entity(verb))),
        "job" => (Class::LIFECYCLE, or_other(lifecycle(verb))),
        "deploy" if verb == "removed" => (Class::LIFECYCLE, Activity::new(2, "Remove")),
        // Started and stopped are words for the application, not for its deployment.
        "deploy" => (Class::LIFECYCLE, Activity::new(8, "Update")),
        "scan" if verb == "found" => scan(event),
        "scan" if verb == "requested" => (Class::SCAN, Activity::new(1, "Started")),
        "scan" => (Class::SCAN, Activity::new(2, "Completed")),
        "leak" => (Class::DETECTION, finding(verb)),
        "runtime" if action == "alert.raised" => (Class::DETECTION, Activity::new(1, "Create")),
        "runtime" => runtime(action),
        "admission" if noun == "policy" => (Class::COMPLIANCE, Activity::new(1, "Create")),
        "secret" | "scm" | "signing" | "registry" | "cloud" | "admission" | "token" | "audit" => {
            (Class::API, or_other(crud(event, verb)))
        }
        _ => (Class::BASE, Activity::other(action)),
    }
}

fn is_sign_in(noun: &str, verb: &str) -> bool {
    matches!((noun, verb), ("user", "login") | ("signin", _))
}

fn is_sign_out(noun: &str, verb: &str) -> bool {
    matches!((noun, verb), ("user", "logout") | ("session", "ended"))
}

fn account(verb: &str) -> Option<Activity> {
    Some(match verb {
        "created" | "create" => Activity::new(1, "Create"),
        "deleted" | "delete" => Activity::new(6, "Delete"),
        "lock" => Activity::new(9, "Lock"),
        "unlock" => Activity::new(12, "Unlock"),
        "reset_password" => Activity::new(4, "Password Reset"),
        "update_password" => Activity::new(3, "Password Change"),
        _ => return None,
    })
}

fn membership(verb: &str) -> Option<Activity> {
    Some(match verb {
        "add" => Activity::new(3, "Add User"),
        "remove" => Activity::new(4, "Remove User"),
        _ => return None,
    })
}

fn entity(verb: &str) -> Option<Activity> {
    Some(match verb {
        "create" | "created" | "added" | "add_protection_rule" | "registered" | "requested" => {
            Activity::new(1, "Create")
        }
        "update" | "updated" | "edited" | "changed" | "configured" | "renamed" | "transferred" | "modified"
        | "visibility_changed" | "weakened" | "assigned" | "rotated" => Activity::new(3, "Update"),
        "destroy" | "delete" | "deleted" | "removed" | "remove_protection_rule" => Activity::new(4, "Delete"),
        "enabled" => Activity::new(8, "Enable"),
        "disabled" => Activity::new(9, "Disable"),
        _ => return None,
    })
}

fn lifecycle(verb: &str) -> Option<Activity> {
    Some(match verb {
        "started" => Activity::new(3, "Start"),
        "finished" | "cancelled" | "finalized" | "completed" => Activity::new(4, "Stop"),
        _ => return None,
    })
}

fn finding(verb: &str) -> Activity {
    match verb {
        "resolved" | "closed" => Activity::new(3, "Close"),
        "reopened" | "updated" => Activity::new(2, "Update"),
        _ => Activity::new(1, "Create"),
    }
}

fn scan(event: &Event) -> (Class, Activity) {
    let class = match event.fields.get_text(Field::ScanKind) {
        Some("vulnerability") => Class::VULNERABILITY,
        Some("misconfiguration" | "license") => Class::COMPLIANCE,
        Some("code") => Class::POSTURE,
        _ => Class::DETECTION,
    };
    (class, Activity::new(1, "Create"))
}

fn runtime(action: &str) -> (Class, Activity) {
    match action {
        "process.started" => (Class::PROCESS, Activity::new(1, "Launch")),
        "process.exited" => (Class::PROCESS, Activity::new(2, "Terminate")),
        "process.traced" => (Class::PROCESS, Activity::other(action)),
        "file.written" => (Class::FILE, Activity::new(3, "Update")),
        "file.accessed" => (Class::FILE, Activity::new(14, "Open")),
        "net.connected" => (Class::NETWORK, Activity::new(1, "Open")),
        "net.listened" => (Class::NETWORK, Activity::new(7, "Listen")),
        "net.resolved" => (Class::DNS, Activity::new(1, "Query")),
        _ => (Class::BASE, Activity::other(action)),
    }
}

/// The name of the operation in the source's own words, where it has one.
pub(super) fn operation(event: &Event) -> Option<String> {
    let path: &[&str] = match event.source_type {
        SourceType::AwsCloudtrail => &["eventName"],
        SourceType::GcpAudit => &["protoPayload", "methodName"],
        SourceType::GithubAudit | SourceType::CircleciAudit => &["action"],
        SourceType::KubernetesAudit => &["verb"],
        SourceType::VaultAudit => &["request", "operation"],
        SourceType::Okta => &["eventType"],
        _ => return None,
    };
    // What was derived from an item has a native object of its own.
    if event.id.sub != 0 {
        return None;
    }
    let native = Json::parse(&event.native).ok()?;
    native.str_at(path).map(ToOwned::to_owned)
}

/// Create, read, update or delete, by the normalised verb; of a call of a cloud's API by the operation's own name.
fn crud(event: &Event, verb: &str) -> Option<Activity> {
    if let Some(activity) = crud_of(verb) {
        return Some(activity);
    }
    let verb = event.fields.get_text(Field::K8sVerb).map(str::to_lowercase);
    if let Some(activity) = verb.as_deref().and_then(crud_of) {
        return Some(activity);
    }
    let operation = operation(event)?.to_lowercase();
    crud_of(operation.rsplit(['.', '/']).next().unwrap_or(&operation))
}

/// A name begins with its verb.
fn crud_of(word: &str) -> Option<Activity> {
    const CREATE: &[&str] = &[
        "create", "add", "put", "insert", "new", "upload", "publish", "open", "sign", "attest", "generate", "run",
        "packaged",
    ];
    const READ: &[&str] = &[
        "get", "list", "watch", "read", "describe", "head", "download", "clone", "lookup", "mounted", "synced",
        "access", "decrypt", "batchget", "search", "query", "used",
    ];
    const UPDATE: &[&str] = &[
        "update", "patch", "modify", "set", "push", "edit", "merge", "close", "renew", "rotat", "change", "review",
        "written", "write", "reopen",
    ];
    const DELETE: &[&str] = &["delete", "remove", "destroy", "revoke", "terminate", "ref_deleted"];
    let starts = |list: &[&str]| list.iter().any(|head| word.starts_with(head));
    Some(if word == "ref_created" || starts(CREATE) {
        Activity::new(1, "Create")
    } else if starts(READ) {
        Activity::new(2, "Read")
    } else if starts(UPDATE) {
        Activity::new(3, "Update")
    } else if starts(DELETE) {
        Activity::new(4, "Delete")
    } else {
        return None;
    })
}
