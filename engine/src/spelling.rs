//! Native fields that public rules name otherwise than the source writes them.
//!
//! SigmaHQ's rules for Google Cloud are written against two collectors: one puts the method of a call under
//! `gcp.audit.method_name`, the other the whole entry under `data`. The entries themselves have `protoPayload`. A field
//! named in one of these ways is found in all three. Those of Azure's events have a table of their own, see [`azure`].

mod azure;

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::json::Value;
use crate::source::SourceType;

/// The member of a log entry that holds what was audited.
const PAYLOAD: &str = "protoPayload.";
const METHOD: &str = "protoPayload.methodName";
/// As one collector renames it.
const METHOD_RENAMED: &str = "gcp.audit.method_name";
/// Under which the other one puts the entry.
const WRAPPER: &str = "data.";

/// How events name the members of their native JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// As their source writes them, save for those of Google Cloud's entries.
    #[default]
    Written,
    /// As one of Azure's ways out writes them.
    Azure,
}

impl Spelling {
    /// Those of a source type's events.
    pub(crate) const fn of(kind: SourceType) -> Self {
        match kind {
            SourceType::AzureSignin | SourceType::AzureActivity | SourceType::AzureKeyvault => Self::Azure,
            _ => Self::Written,
        }
    }

    /// The path a field of a rule stands for.
    pub(crate) fn canonical(self, field: &str) -> Cow<'_, str> {
        match self {
            Self::Written => Cow::Borrowed(canonical(field)),
            Self::Azure => azure::canonical(field),
        }
    }

    /// The values of a field of a rule in an event, as [`Value::lookup`] says.
    pub(crate) fn find<'a>(self, event: Value<'a>, field: &str) -> Vec<Value<'a>> {
        match self {
            Self::Written => spellings(canonical(field)).flat_map(|path| event.lookup_as_written(&path)).collect(),
            Self::Azure => {
                let canonical = azure::canonical(field);
                azure::spellings(&canonical).iter().flat_map(|path| event.lookup_as_written(path)).collect()
            }
        }
    }

    /// The paths at which the values of a canonical path may stand, no two of them equal.
    pub(crate) fn spellings(self, canonical: &str) -> Vec<Cow<'_, str>> {
        match self {
            Self::Written => spellings(canonical).collect(),
            Self::Azure => azure::spellings(canonical),
        }
    }
}

/// Something for the events of each spelling, made when the first of them comes.
#[derive(Debug)]
pub(crate) struct BySpelling<T> {
    written: OnceLock<T>,
    azure: OnceLock<T>,
}

impl<T> Default for BySpelling<T> {
    fn default() -> Self {
        Self { written: OnceLock::new(), azure: OnceLock::new() }
    }
}

impl<T> BySpelling<T> {
    /// The one of a spelling.
    pub(crate) fn get_or_init(&self, spelling: Spelling, make: impl FnOnce() -> T) -> &T {
        match spelling {
            Spelling::Written => self.written.get_or_init(make),
            Spelling::Azure => self.azure.get_or_init(make),
        }
    }
}

/// The path a field of a rule stands for.
fn canonical(field: &str) -> &str {
    if field == METHOD_RENAMED {
        return METHOD;
    }
    field.strip_prefix(WRAPPER).filter(|rest| rest.starts_with(PAYLOAD)).unwrap_or(field)
}

/// The paths at which the values of a canonical path may stand, itself first.
fn spellings(canonical: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let wrapped = canonical.starts_with(PAYLOAD).then(|| Cow::Owned(format!("{WRAPPER}{canonical}")));
    let renamed = (canonical == METHOD).then_some(Cow::Borrowed(METHOD_RENAMED));
    std::iter::once(Cow::Borrowed(canonical)).chain(wrapped).chain(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_google_cloud_have_several() {
        let all = |field: &'static str| spellings(canonical(field)).collect::<Vec<_>>();
        let method = ["protoPayload.methodName", "data.protoPayload.methodName", "gcp.audit.method_name"];
        for name in method {
            assert_eq!(all(name), method, "{name}");
        }
        assert_eq!(all("data.protoPayload.serviceName"), ["protoPayload.serviceName", "data.protoPayload.serviceName"]);
        for other in ["data.x", "protoPayload", "gcp.audit.method", "eventName", ""] {
            assert_eq!(all(other), [other]);
        }
    }
}
