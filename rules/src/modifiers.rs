//! The modifiers after a field name: which there are, and which may stand together in which order.

use std::collections::BTreeSet;

use pipeproof_engine::rule::{AffixKind, Comparison, TimePart};

use crate::diagnostic::{Code, Report, did_you_mean};
use crate::yaml::Key;

/// Every modifier of Sigma v2.1.
pub(crate) const MODIFIERS: &[&str] = &[
    "all",
    "base64",
    "base64offset",
    "cased",
    "cidr",
    "contains",
    "day",
    "dotall",
    "endswith",
    "exists",
    "expand",
    "fieldref",
    "gt",
    "gte",
    "hour",
    "i",
    "ignorecase",
    "lt",
    "lte",
    "m",
    "minute",
    "month",
    "multiline",
    "neq",
    "re",
    "s",
    "startswith",
    "utf16",
    "utf16be",
    "utf16le",
    "week",
    "wide",
    "windash",
    "year",
];
/// Our own, which join an event with a table. They are read with their whole search (see `lookup`).
const LOOKUPS: &[&str] = &["lookup", "during"];
const FLAGS: &[&str] = &["i", "ignorecase", "m", "multiline", "s", "dotall"];
const COMPARISONS: &[(&str, Comparison)] =
    &[("lt", Comparison::Lt), ("lte", Comparison::Lte), ("gt", Comparison::Gt), ("gte", Comparison::Gte)];
/// With the least and greatest value each can have.
const TIME_PARTS: &[(&str, TimePart, i128, i128)] = &[
    ("minute", TimePart::Minute, 0, 59),
    ("hour", TimePart::Hour, 0, 23),
    ("day", TimePart::Day, 1, 31),
    ("week", TimePart::Week, 1, 53),
    ("month", TimePart::Month, 1, 12),
    ("year", TimePart::Year, 0, 9_999),
];

/// The modifiers of one line, in the order written, checked.
pub(crate) struct Modifiers<'m> {
    pub(crate) names: Vec<&'m str>,
}

impl Modifiers<'_> {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    fn first_of(&self, names: &[&str]) -> Option<&str> {
        self.names.iter().copied().find(|name| names.contains(name))
    }

    /// `contains`, `startswith` or `endswith`.
    pub(crate) fn affix(&self) -> Option<AffixKind> {
        self.names.iter().find_map(|name| match *name {
            "contains" => Some(AffixKind::Contains),
            "startswith" => Some(AffixKind::StartsWith),
            "endswith" => Some(AffixKind::EndsWith),
            _ => None,
        })
    }

    /// `lt`, `lte`, `gt` or `gte`.
    pub(crate) fn comparison(&self) -> Option<(&'static str, Comparison)> {
        COMPARISONS.iter().copied().find(|(name, _)| self.has(name))
    }

    /// The part of a date that is compared, with its name, least and greatest value.
    pub(crate) fn time_part(&self) -> Option<(&'static str, TimePart, i128, i128)> {
        TIME_PARTS.iter().copied().find(|(name, ..)| self.has(name))
    }

    /// The flags of a regular expression, as they are written into it.
    pub(crate) fn flags(&self) -> String {
        let flags = [('i', ["i", "ignorecase"]), ('m', ["m", "multiline"]), ('s', ["s", "dotall"])];
        flags.iter().filter(|(_, names)| self.first_of(names).is_some()).map(|(flag, _)| *flag).collect()
    }
}

/// Reads `field|modifier|…`; what is wrong with it is reported.
pub(crate) fn read<'m>(key: &'m Key, report: &mut Report<'_>) -> Option<(&'m str, Modifiers<'m>)> {
    let mut parts = key.text.split('|');
    let field = parts.next().unwrap_or_default();
    let names: Vec<&str> = parts.collect();
    let mut fine = true;
    for name in &names {
        if LOOKUPS.contains(name) {
            fine = false;
            let message = format!("`{name}` belongs into a search that is a mapping, and stands alone after its field");
            report.add(Code::LookupUse, key.place, message);
        } else if !MODIFIERS.contains(name) {
            fine = false;
            let help = did_you_mean(name, MODIFIERS.iter().chain(LOOKUPS).copied());
            report.add_help(Code::UnknownModifier, key.place, format!("unknown modifier `{name}`"), help);
        }
        // The first that is wrong says enough: a key can hold thousands.
        if !fine {
            break;
        }
    }
    let modifiers = Modifiers { names };
    fine.then_some(())?;
    if let Some(problem) = misuse(field, &modifiers) {
        report.add(Code::ModifierUse, key.place, problem);
        return None;
    }
    Some((field, modifiers))
}

/// What is wrong with a combination of modifiers, by Sigma's rules on types and order.
fn misuse(field: &str, modifiers: &Modifiers<'_>) -> Option<String> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = modifiers.names.iter().find(|name| !seen.insert(**name)) {
        return Some(format!("the modifier `{twice}` stands twice"));
    }
    let affixes = ["contains", "startswith", "endswith"].iter().filter(|name| modifiers.has(name)).count();
    if affixes > 1 {
        return Some("`contains`, `startswith` and `endswith` exclude each other".to_owned());
    }
    if let Some(problem) = misuse_of_kind(field, modifiers) {
        return problem;
    }
    if let Some(flag) = modifiers.first_of(FLAGS) {
        return Some(format!("`{flag}` belongs to `re`"));
    }
    let place = |names: &[&str]| modifiers.names.iter().position(|name| names.contains(name));
    let encodings = &["base64", "base64offset", "wide", "utf16le", "utf16be", "utf16"];
    let last = modifiers.names.iter().rposition(|name| encodings.contains(name));
    if let (Some(last), Some(affix)) = (last, place(&["contains", "startswith", "endswith"]))
        && affix < last
    {
        return Some("`contains`, `startswith` and `endswith` come after encodings".to_owned());
    }
    None
}

/// Modifiers that make something other than a text of a value go with few others. The outer `None` says that there is
/// none of them.
fn misuse_of_kind(field: &str, modifiers: &Modifiers<'_>) -> Option<Option<String>> {
    let is_part = |name: &str| TIME_PARTS.iter().any(|(part, ..)| *part == name);
    let is_comparison = |name: &str| COMPARISONS.iter().any(|(comparison, _)| *comparison == name);
    let is_kind =
        |name: &str| matches!(name, "re" | "cidr" | "exists" | "fieldref") || is_part(name) || is_comparison(name);
    let kinds: Vec<&str> = modifiers.names.iter().copied().filter(|name| is_kind(name)).collect();
    let kind = match kinds.as_slice() {
        [] => return None,
        [only] => *only,
        // `hour|gte`: the part of the date compares so.
        [part, comparison] if is_part(part) && is_comparison(comparison) => *part,
        [comparison, part, ..] if is_part(part) && is_comparison(comparison) => {
            return Some(Some(format!("write `{part}|{comparison}`: the part of the date comes first")));
        }
        [first, second, ..] => return Some(Some(format!("`{first}` and `{second}` exclude each other"))),
    };
    // `expand` fills in the values before anything else reads them.
    let before = modifiers.names.iter().take_while(|name| **name != kind);
    if matches!(kind, "re" | "cidr") && before.clone().any(|name| *name != "expand") {
        return Some(Some(format!("`{kind}` must be the first modifier")));
    }
    let fits = |name: &&str| match kind {
        _ if *name == kind => true,
        "re" => {
            FLAGS.contains(name) || matches!(*name, "all" | "neq" | "expand" | "contains" | "startswith" | "endswith")
        }
        "cidr" => matches!(*name, "all" | "neq" | "expand"),
        "exists" => false,
        "fieldref" => matches!(*name, "neq" | "cased" | "all" | "contains" | "startswith" | "endswith"),
        part if is_part(part) => is_comparison(name) || matches!(*name, "all" | "neq"),
        _ => matches!(*name, "neq" | "all"),
    };
    if let Some(other) = modifiers.names.iter().find(|name| !fits(name)) {
        return Some(Some(format!("`{kind}` does not go with `{other}`")));
    }
    if field.is_empty() && kind != "re" {
        return Some(Some(format!("`{kind}` needs a field")));
    }
    Some(None)
}

/// All modifiers that are understood, for the documentation.
#[must_use]
pub fn known_modifiers() -> &'static [&'static str] {
    MODIFIERS
}
