//! Native fields that public rules name otherwise than the source writes them.
//!
//! SigmaHQ's rules for Google Cloud are written against two collectors: one puts the method of a call under
//! `gcp.audit.method_name`, the other the whole entry under `data`. The entries themselves have `protoPayload`. A field
//! named in one of these ways is found in all three.

use std::borrow::Cow;

/// The member of a log entry that holds what was audited.
const PAYLOAD: &str = "protoPayload.";
const METHOD: &str = "protoPayload.methodName";
/// As one collector renames it.
const METHOD_RENAMED: &str = "gcp.audit.method_name";
/// Under which the other one puts the entry.
const WRAPPER: &str = "data.";

/// The path a field of a rule stands for.
#[must_use]
pub(crate) fn canonical(field: &str) -> &str {
    if field == METHOD_RENAMED {
        return METHOD;
    }
    field.strip_prefix(WRAPPER).filter(|rest| rest.starts_with(PAYLOAD)).unwrap_or(field)
}

/// The paths at which the values of a canonical path may stand, itself first.
pub(crate) fn spellings(canonical: &str) -> impl Iterator<Item = Cow<'_, str>> {
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
