//! The names of Azure's events: an event hub or a storage account gets `resultType` and `properties.riskState`, Log Analytics has
//! columns `ResultType` and `RiskState`, Microsoft Graph `riskState` alone. SigmaHQ's rules are written against all of them.
//!
//! A name is read in each of these forms: with and without `properties.` before it, each part of the path beginning with a
//! capital or not. What has several words for one thing is in [`GROUPS`].

use std::borrow::Cow;

/// Deepest path whose parts are read in either case: each part doubles the forms.
const PARTS_MAX: usize = 4;
const PROPERTIES: &str = "properties.";

/// Paths that say the same, compared without case; the first stands for all.
const GROUPS: &[&[&str]] = &[
    // An activity log's `properties.message` is its operation; the directory's log calls it an activity.
    &[
        "operationName",
        "operationName.value",
        "operation_name.value",
        "operationNameValue",
        "message",
        "activityDisplayName",
        "activityType",
    ],
    &["category", "category.value", "categoryValue"],
    // Of a sign-in the result is the error's number.
    &["resultType", "result_type", "status.errorCode"],
    &["resultDescription", "result_description", "status.failureReason", "status.additionalDetails"],
    // A change of the directory has a result, and words for why that the portal shows as its status.
    &["status", "status.value", "activityStatusValue", "result", "resultReason", "failure_status_reason"],
    &["resourceProvider", "resourceProviderValue", "resourceProviderName.value", "resource_provider_name.value"],
    &["resourceId", "_ResourceId", "resource_id"],
    &["callerIpAddress", "callerIPAddress", "httpRequest.clientIpAddress", "http_request.client_ip_address"],
    &["ipAddress", "IPAddress"],
    &["initiatedBy"],
    &["deviceDetail.trustType"],
    &["clientAppUsed", "clientApp"],
    // Columns of `AzureDiagnostics`.
    &["identity.claim.appid", "identity_claim_appid_g"],
    &["identity.claim.oid", "identity_claim_oid_g"],
    &["httpStatusCode", "httpStatusCode_d"],
    &["requestUri", "requestUri_s"],
    &["clientInfo", "clientInfo_s"],
];

/// The path a field stands for.
pub(super) fn canonical(field: &str) -> Cow<'_, str> {
    let head = field.get(..PROPERTIES.len()).filter(|head| head.eq_ignore_ascii_case(PROPERTIES));
    let plain = head.and_then(|head| field.strip_prefix(head)).unwrap_or(field);
    let same = |group: &&[&'static str]| group.iter().any(|name| name.eq_ignore_ascii_case(plain));
    if let Some(first) = GROUPS.iter().find(|group| same(group)).and_then(|group| group.first()) {
        return Cow::Borrowed(first);
    }
    if plain.split('.').count() > PARTS_MAX {
        return Cow::Borrowed(plain);
    }
    Cow::Owned(cased(plain, 0))
}

/// Where the values of a canonical path may stand.
pub(super) fn spellings(canonical: &str) -> Vec<Cow<'_, str>> {
    let alone = [canonical];
    let group = GROUPS.iter().find(|group| group.first() == Some(&canonical)).copied();
    let mut found: Vec<Cow<'_, str>> = Vec::new();
    for path in group.unwrap_or(&alone[..]) {
        let parts = path.split('.').count();
        let forms = if parts > PARTS_MAX { 1 } else { 1_usize << parts };
        for form in 0..forms {
            let plain = if parts > PARTS_MAX { (*path).to_owned() } else { cased(path, form) };
            for path in [format!("{PROPERTIES}{plain}"), plain] {
                if !found.iter().any(|known| *known == path) {
                    found.push(Cow::Owned(path));
                }
            }
        }
    }
    found
}

/// A path whose parts begin with a capital where the bit of `form` says so.
fn cased(path: &str, form: usize) -> String {
    let mut out = String::with_capacity(path.len());
    for (number, part) in path.split('.').enumerate() {
        if number > 0 {
            out.push('.');
        }
        let mut letters = part.chars();
        if let Some(first) = letters.next() {
            let capital = form >> number & 1 == 1;
            out.push(if capital { first.to_ascii_uppercase() } else { first.to_ascii_lowercase() });
        }
        out.push_str(letters.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(field: &str, path: &str) -> bool {
        spellings(&canonical(field)).iter().any(|known| known == path)
    }

    #[test]
    fn every_form_of_a_name_is_found_under_every_other() {
        for field in ["ResultType", "resultType", "properties.resultType", "Properties.ResultType", "RESULTTYPE"] {
            for path in
                ["resultType", "ResultType", "properties.resultType", "status.errorCode", "properties.status.errorCode"]
            {
                assert!(finds(field, path), "{field} at {path}");
            }
        }
        for (field, path) in [
            ("properties.message", "operationName"),
            ("OperationName", "properties.message"),
            ("CategoryValue", "category"),
            ("Resultdescription", "resultDescription"),
            ("DeviceDetail.trusttype", "properties.deviceDetail.trustType"),
            ("TargetResources.ModifiedProperties.NewValue", "properties.targetResources.modifiedProperties.newValue"),
            ("targetResources.type", "TargetResources.type"),
            ("riskEventType", "properties.riskEventType"),
            ("identity_claim_appid_g", "identity.claim.appid"),
        ] {
            assert!(finds(field, path), "{field} at {path}");
        }
    }

    #[test]
    fn a_name_of_anybodys_is_found_as_it_is_written() {
        let claim = "identity.claim.http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn";
        for field in ["a", "Foo.barBaz", "fooBar.Baz", "a.B.c.D", "a.B.c.D.e", claim, "x_Y", "", "ä.Ö"] {
            assert!(finds(field, field), "{field}");
        }
        assert!(!finds("status", "errorCode") && !finds("a.b", "b"));
    }

    #[test]
    fn no_path_belongs_to_two_names() {
        let all: Vec<_> = GROUPS.iter().flat_map(|group| spellings(group[0])).collect();
        let mut sorted = all.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), all.len());
        for group in GROUPS {
            for name in *group {
                assert_eq!(canonical(name), group[0], "{name}");
            }
        }
    }
}
