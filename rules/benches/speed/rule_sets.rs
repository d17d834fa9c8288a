//! The rules to race with: a folder's, or several thousand made up in the mix in which SigmaHQ publishes them.

use std::fmt::Write as _;
use std::path::Path;

/// Files as the loader takes them: name and text.
pub(crate) type Files = Vec<(String, String)>;

/// Folders of a SigmaHQ checkout whose rules are for clouds and delivery pipelines.
const CLOUD: [&str; 5] = [
    "rules/cloud",
    "rules/identity",
    "rules/application/kubernetes",
    "rules/application/github",
    "rules/application/bitbucket",
];
/// All its folders of rules in force.
const ALL: [&str; 4] = ["rules", "rules-emerging-threats", "rules-threat-hunting", "rules-compliance"];

/// (cloud and pipeline rules, all rules) of a folder; of one that is no checkout of SigmaHQ, all rules twice.
pub(crate) fn folder(path: &Path) -> Result<(Files, Files), String> {
    let read = |parts: &[&str]| -> Result<Files, String> {
        let mut files = Vec::new();
        for part in parts.iter().map(|part| path.join(part)).filter(|part| part.is_dir()) {
            files.extend(pipeproof_rules::read_dir(&part).map_err(|error| error.to_string())?);
        }
        Ok(files)
    };
    let (cloud, all) = (read(&CLOUD)?, read(&ALL)?);
    if cloud.is_empty() || all.is_empty() {
        let files = pipeproof_rules::read_dir(path).map_err(|error| error.to_string())?;
        return Ok((files.clone(), files));
    }
    Ok((cloud, all))
}

/// How many rules of a logsource there are, and the fields they look at.
struct Kind {
    logsource: &'static str,
    rules: usize,
    cloud: bool,
    /// The field that says what happened, tested for equality in cloud rules and by its end in others.
    what: &'static str,
    /// Fields searched for words.
    words: &'static [&'static str],
    /// Fields that exceptions are made by.
    except: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind {
        logsource: "category: process_creation, product: windows",
        rules: 1_415,
        cloud: false,
        what: "Image",
        words: &["CommandLine", "ParentCommandLine", "OriginalFileName"],
        except: &["ParentImage", "User"],
    },
    Kind {
        logsource: "category: registry_set, product: windows",
        rules: 265,
        cloud: false,
        what: "TargetObject",
        words: &["Details", "TargetObject"],
        except: &["Image"],
    },
    Kind {
        logsource: "category: file_event, product: windows",
        rules: 260,
        cloud: false,
        what: "TargetFilename",
        words: &["TargetFilename"],
        except: &["Image", "ParentImage"],
    },
    Kind {
        logsource: "category: ps_script, product: windows",
        rules: 212,
        cloud: false,
        what: "ScriptBlockText",
        words: &["ScriptBlockText", "ContextInfo"],
        except: &["Path"],
    },
    Kind {
        logsource: "product: windows, service: security",
        rules: 300,
        cloud: false,
        what: "EventID",
        words: &["ObjectName", "SubjectUserName", "ServiceName"],
        except: &["SubjectUserSid", "ProcessName"],
    },
    Kind {
        logsource: "category: image_load, product: windows",
        rules: 160,
        cloud: false,
        what: "ImageLoaded",
        words: &["ImageLoaded"],
        except: &["Image"],
    },
    Kind {
        logsource: "category: network_connection, product: windows",
        rules: 100,
        cloud: false,
        what: "Image",
        words: &["DestinationHostname"],
        except: &["DestinationIp"],
    },
    Kind {
        logsource: "category: process_creation, product: linux",
        rules: 170,
        cloud: false,
        what: "Image",
        words: &["CommandLine", "CurrentDirectory"],
        except: &["ParentImage"],
    },
    Kind {
        logsource: "product: linux, service: auditd",
        rules: 75,
        cloud: false,
        what: "type",
        words: &["a0", "a1", "a2", "exe"],
        except: &["key"],
    },
    Kind {
        logsource: "category: process_creation, product: macos",
        rules: 75,
        cloud: false,
        what: "Image",
        words: &["CommandLine"],
        except: &["ParentImage"],
    },
    Kind {
        logsource: "category: webserver",
        rules: 90,
        cloud: false,
        what: "cs-method",
        words: &["cs-uri-query", "cs-uri-stem"],
        except: &["sc-status"],
    },
    Kind {
        logsource: "category: proxy",
        rules: 60,
        cloud: false,
        what: "cs-method",
        words: &["c-uri", "c-useragent", "cs-host"],
        except: &["sc-status"],
    },
    Kind {
        logsource: "category: dns",
        rules: 20,
        cloud: false,
        what: "record_type",
        words: &["query", "answer"],
        except: &["answer"],
    },
    Kind {
        logsource: "product: zeek, service: http",
        rules: 24,
        cloud: false,
        what: "method",
        words: &["uri", "host"],
        except: &["status_code"],
    },
    Kind {
        logsource: "product: cisco, service: aaa",
        rules: 17,
        cloud: false,
        what: "",
        words: &[],
        except: &["src_ip"],
    },
    Kind {
        logsource: "product: opencanary, category: application",
        rules: 24,
        cloud: false,
        what: "logtype",
        words: &["dst_port"],
        except: &["src_host"],
    },
    Kind {
        logsource: "product: aws, service: cloudtrail",
        rules: 58,
        cloud: true,
        what: "eventName",
        words: &["requestParameters.attribute", "userAgent", "userIdentity.arn", "errorMessage"],
        except: &["userIdentity.type", "userIdentity.invokedBy"],
    },
    Kind {
        logsource: "product: azure, service: auditlogs",
        rules: 46,
        cloud: true,
        what: "properties.message",
        words: &["properties.activity", "LoggedByService"],
        except: &["Category"],
    },
    Kind {
        logsource: "product: azure, service: activitylogs",
        rules: 35,
        cloud: true,
        what: "operationName",
        words: &["properties.message"],
        except: &["caller"],
    },
    Kind {
        logsource: "product: azure, service: signinlogs",
        rules: 24,
        cloud: true,
        what: "ResultType",
        words: &["ResultDescription", "userAgent"],
        except: &["Status"],
    },
    Kind {
        logsource: "product: azure, service: riskdetection",
        rules: 26,
        cloud: true,
        what: "riskEventType",
        words: &["riskDetail"],
        except: &["source"],
    },
    Kind {
        logsource: "product: gcp, service: gcp.audit",
        rules: 26,
        cloud: true,
        what: "gcp.audit.method_name",
        words: &["gcp.audit.service_name"],
        except: &["gcp.audit.actor"],
    },
    Kind {
        logsource: "product: okta, service: okta",
        rules: 24,
        cloud: true,
        what: "eventtype",
        words: &["displaymessage", "debugContext.debugData.requestUri"],
        except: &["actor.alternateid"],
    },
    Kind {
        logsource: "product: m365, service: audit",
        rules: 21,
        cloud: true,
        what: "Operation",
        words: &["ModifiedProperties"],
        except: &["ClientIP"],
    },
    Kind {
        logsource: "product: kubernetes, service: audit",
        rules: 16,
        cloud: true,
        what: "verb",
        words: &["objectRef.resource", "requestURI", "user.username"],
        except: &["user.groups"],
    },
    Kind {
        logsource: "product: github, service: audit",
        rules: 15,
        cloud: true,
        what: "action",
        words: &["hashed_token", "actor"],
        except: &["org"],
    },
    Kind {
        logsource: "product: bitbucket, service: audit",
        rules: 14,
        cloud: true,
        what: "auditType.action",
        words: &["auditType.category"],
        except: &["author.name"],
    },
];

/// What the made-up events hold and a rule would look for.
const ALARMING: &[(&str, &str)] = &[
    (
        "product: aws, service: cloudtrail",
        "eventName: [StopLogging, DeleteTrail, CreateIPSet, StopConfigurationRecorder]",
    ),
    ("product: aws, service: cloudtrail", "eventName: [CreateLoginProfile, DisableEbsEncryptionByDefault]"),
    ("product: kubernetes, service: audit", "{verb: list, objectRef.resource: secrets}"),
    ("product: kubernetes, service: audit", "{verb: create, objectRef.resource: pods, objectRef.subresource: exec}"),
    ("product: kubernetes, service: audit", "{verb: [delete, create], objectRef.resource: [deployments, cronjobs]}"),
    ("product: github, service: audit", "action: [repo.destroy, environment.delete]"),
    ("product: github, service: audit", "action: [org.add_member, org.disable_two_factor_requirement]"),
];

/// (cloud and pipeline rules, all rules), made up.
pub(crate) fn generated() -> (Files, Files) {
    let (mut cloud, mut other) = (String::new(), String::new());
    for (number, (logsource, test)) in ALARMING.iter().enumerate() {
        document(&mut cloud, &format!("alarming-{number}"), logsource, &format!("  s:\n    {test}\n  condition: s\n"));
    }
    for kind in KINDS {
        let text = if kind.cloud { &mut cloud } else { &mut other };
        for number in 0..kind.rules {
            rule(text, kind, number);
        }
    }
    let cloud = vec![("cloud.yml".to_owned(), cloud)];
    let all = cloud.iter().cloned().chain([("other.yml".to_owned(), other)]).collect();
    (cloud, all)
}

fn document(text: &mut String, id: &str, logsource: &str, detection: &str) {
    let separator = if text.is_empty() { "" } else { "---\n" };
    let _ = write!(
        text,
        "{separator}title: {id}\nid: {id}\nlogsource: {{{logsource}}}\ndetection:\n{detection}level: medium\n"
    );
}

/// One in forty is keywords alone, one in twenty a regular expression, one in three has an exception.
fn rule(text: &mut String, kind: &Kind, number: usize) {
    let word = |salt: usize| {
        let seed = number.wrapping_mul(2_654_435_761).wrapping_add(salt.wrapping_mul(40_503));
        let syllable = |at: usize| {
            [
                "ba", "co", "di", "fe", "gru", "hex", "inj", "ko", "lsa", "mim", "net", "pow", "reg", "shell", "tok",
                "wmi",
            ][seed >> (at * 4) & 15]
        };
        (0..4).map(syllable).collect::<String>()
    };
    let slug: String = kind.logsource.chars().filter(char::is_ascii_alphanumeric).collect();
    let id = format!("{slug}-{number}");
    let mut detection = String::new();
    if kind.what.is_empty() || (!kind.cloud && number % 40 == 39) {
        let _ = write!(
            detection,
            "  keywords:\n    - '{} {}'\n    - '{}'\n  condition: keywords\n",
            word(1),
            word(2),
            word(3)
        );
        return document(text, &id, kind.logsource, &detection);
    }
    let what = kind.what;
    let _ = match (kind.cloud, number % 3) {
        (true, 0) => write!(detection, "  s:\n    {what}: [{0}{1}, {1}.{2}]\n", word(1), word(2), word(3)),
        (true, _) => write!(detection, "  s:\n    {what}: {}.{}\n", word(1), word(2)),
        (false, 0) => write!(detection, "  s:\n    {what}|endswith: ['\\{}.exe', '\\{}.exe']\n", word(1), word(2)),
        (false, 1) => {
            write!(detection, "  s:\n    {what}|startswith: 'C:\\{}\\'\n    {what}|endswith: '{}'\n", word(1), word(2))
        }
        (false, _) => write!(detection, "  s:\n    {what}|contains: '{}'\n", word(1)),
    };
    let searched = kind.words[number % kind.words.len()];
    let _ = match number % 20 {
        19 => write!(detection, "  w:\n    {searched}|re: '{}\\s+-[a-z]{{2,8}}\\s'\n", word(5)),
        18 => write!(detection, "  w:\n    {searched}: '*{}*{}?'\n", word(5), word(6)),
        0..6 => write!(detection, "  w:\n    {searched}|contains|all: [' {}', '{}=']\n", word(5), word(6)),
        _ => write!(
            detection,
            "  w:\n    {searched}|contains: [' -{}', '{}', '/{} ', '{}']\n",
            word(5),
            word(6),
            word(7),
            word(8)
        ),
    };
    let condition = match number % 6 {
        0 | 1 => {
            let field = kind.except[number % kind.except.len()];
            let _ = write!(detection, "  f:\n    {field}|contains: '{}'\n", word(9));
            "s and w and not f"
        }
        2 => "s or w",
        _ => "s and w",
    };
    let _ = writeln!(detection, "  condition: {condition}");
    document(text, &id, kind.logsource, &detection);
}
