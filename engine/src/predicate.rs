//! Tests on values: what each predicate of a rule means.
//!
//! Text is compared without regard to letter case unless a rule says `cased`: both sides are folded character by
//! character, so that positions and lengths stay the same.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, Timelike as _};

use crate::rule::{AffixKind, Comparison, Number, Predicate, TextTest, TimePart, WildcardPart};

/// Folds letter case: every character to its lower-case form where that is a single character.
#[must_use]
pub fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Cow::Owned(text.to_ascii_lowercase());
        }
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(fold_char).collect())
}

/// As [`fold`], into memory that is used again.
pub(crate) fn fold_into(text: &str, folded: &mut String) {
    folded.clear();
    if text.is_ascii() {
        folded.push_str(text);
        folded.make_ascii_lowercase();
    } else {
        folded.extend(text.chars().map(fold_char));
    }
}

fn fold_char(char: char) -> char {
    let mut lower = char.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(single), None) => single,
        _ => char,
    }
}

/// Reads a decimal number as JSON or YAML write it; `None` for anything else, `inf` and `nan` included.
#[must_use]
pub fn parse_number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.bytes().next()?.is_ascii_digit() {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(number) = text.parse()
    {
        return Some(Number::Int(number));
    }
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    if !digits.bytes().all(plain) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Number::Float)
}

/// How two numbers compare, exactly: no integer is rounded to a float. `None` if one is not a number.
#[must_use]
pub fn compare(left: Number, right: Number) -> Option<Ordering> {
    match (left, right) {
        (Number::Int(left), Number::Int(right)) => Some(left.cmp(&right)),
        (Number::Float(left), Number::Float(right)) => left.partial_cmp(&right),
        (Number::Int(left), Number::Float(right)) => compare_int(left, right),
        (Number::Float(left), Number::Int(right)) => compare_int(right, left).map(Ordering::reverse),
    }
}

#[allow(clippy::cast_precision_loss, reason = "2^127 is exact")]
fn compare_int(int: i128, float: f64) -> Option<Ordering> {
    const LIMIT: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0; // 2^127
    if float.is_nan() {
        return None;
    }
    if float >= LIMIT {
        return Some(Ordering::Less);
    }
    if float < -LIMIT {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    Some(int.cmp(&(whole as i128)).then_with(|| 0.0_f64.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal)))
}

/// Whether `left` compares to `right` as `comparison` says.
#[must_use]
pub fn compares(left: Number, comparison: Comparison, right: Number) -> bool {
    let Some(order) = compare(left, right) else { return false };
    match comparison {
        Comparison::Lt => order.is_lt(),
        Comparison::Lte => order.is_le(),
        Comparison::Gt => order.is_gt(),
        Comparison::Gte => order.is_ge(),
        Comparison::Eq => order.is_eq(),
        Comparison::Neq => order.is_ne(),
    }
}

/// The date a text says, as it is written: no conversion of time zones. Digits alone are seconds, or from 10^11 on
/// milliseconds, since the epoch in UTC.
pub(crate) fn written_date(text: &str) -> Option<NaiveDateTime> {
    let text = text.trim();
    if let Ok(date) = DateTime::parse_from_rfc3339(text) {
        return Some(date.naive_local());
    }
    let bare = text.strip_suffix(" UTC").or_else(|| text.strip_suffix('Z')).unwrap_or(text);
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
        if let Ok(date) = NaiveDateTime::parse_from_str(bare, format) {
            return Some(date);
        }
    }
    if let Ok(date) = NaiveDate::parse_from_str(bare, "%Y-%m-%d") {
        return date.and_hms_opt(0, 0, 0);
    }
    match parse_number(text)? {
        Number::Int(number) if number.abs() >= 100_000_000_000 => {
            DateTime::from_timestamp_millis(i64::try_from(number).ok()?).map(|date| date.naive_utc())
        }
        Number::Int(number) => DateTime::from_timestamp(i64::try_from(number).ok()?, 0).map(|date| date.naive_utc()),
        Number::Float(number) => DateTime::from_timestamp(number as i64, 0).map(|date| date.naive_utc()),
    }
}

pub(crate) fn time_part(date: &NaiveDateTime, part: TimePart) -> i64 {
    match part {
        TimePart::Minute => i64::from(date.minute()),
        TimePart::Hour => i64::from(date.hour()),
        TimePart::Day => i64::from(date.day()),
        TimePart::Week => i64::from(date.iso_week().week()),
        TimePart::Month => i64::from(date.month()),
        TimePart::Year => i64::from(date.year()),
    }
}

/// The text forms under which a number of a rule equals a text.
pub(crate) fn number_texts(number: Number) -> Vec<String> {
    match number {
        Number::Int(number) => vec![number.to_string()],
        Number::Float(number) => vec![format!("{number}"), format!("{number:?}")],
    }
}

/// Whether a text compares to another as `kind` says; both folded already unless letter case counts.
pub(crate) fn affix(kind: AffixKind, text: &str, part: &str) -> bool {
    match kind {
        AffixKind::Equals => text == part,
        AffixKind::Contains => text.contains(part),
        AffixKind::StartsWith => text.starts_with(part),
        AffixKind::EndsWith => text.ends_with(part),
    }
}

/// Whether the whole of `text` matches the pattern; both folded already unless letter case counts.
pub(crate) fn wildcard_matches(parts: &[WildcardPart], text: &str) -> bool {
    let mut runs = parts.split(|part| *part == WildcardPart::Any).peekable();
    let Some(first) = runs.next() else { return text.is_empty() };
    let Some(mut rest) = match_run(first, text) else { return false };
    if runs.peek().is_none() {
        return rest.is_empty();
    }
    // Between two `*` the earliest place is as good as any; the last run must end where the text ends.
    while let Some(run) = runs.next() {
        let last = runs.peek().is_none();
        if run.is_empty() {
            if last {
                return true;
            }
            continue;
        }
        let found = places(run, rest).find_map(|at| {
            let after = match_run(run, rest.get(at..)?)?;
            (!last || after.is_empty()).then_some(after)
        });
        match found {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// Where in `text` a run without `*` might begin, in order.
fn places<'t>(run: &'t [WildcardPart], text: &'t str) -> Box<dyn Iterator<Item = usize> + 't> {
    match run.first() {
        Some(WildcardPart::Literal(literal)) if !literal.is_empty() => {
            // `match_indices` steps over overlaps, which may begin a match too.
            let mut from = 0;
            Box::new(std::iter::from_fn(move || {
                let at = from + text.get(from..)?.find(literal.as_str())?;
                from = at + text.get(at..)?.chars().next().map_or(1, char::len_utf8);
                Some(at)
            }))
        }
        _ => Box::new(text.char_indices().map(|(at, _)| at)),
    }
}

/// Matches a run without `*` at the start of `text`, and gives the rest.
fn match_run<'t>(run: &[WildcardPart], text: &'t str) -> Option<&'t str> {
    run.iter().try_fold(text, |rest, part| match part {
        WildcardPart::Literal(literal) => rest.strip_prefix(literal.as_str()),
        WildcardPart::One => {
            let mut chars = rest.chars();
            chars.next().map(|_| chars.as_str())
        }
        WildcardPart::Any => Some(rest),
    })
}

/// A text test, reduced: patterns that are plain comparisons are told apart from those that are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// Any text, number, boolean or object.
    Anything,
    Plain(AffixKind, String),
    Pattern(Vec<WildcardPart>),
}

pub(crate) fn reduce(test: &TextTest, cased: bool) -> Text {
    let own = |text: &str| if cased { text.to_owned() } else { fold(text).into_owned() };
    match test {
        TextTest::Plain { kind, text } => {
            // Every text contains, starts and ends with the empty one.
            if text.is_empty() && *kind != AffixKind::Equals {
                return Text::Anything;
            }
            Text::Plain(*kind, own(text))
        }
        TextTest::Wildcard(parts) => {
            let mut reduced: Vec<WildcardPart> = Vec::with_capacity(parts.len());
            for part in parts {
                match (reduced.last_mut(), part) {
                    (Some(WildcardPart::Any), WildcardPart::Any) => {}
                    (Some(WildcardPart::Literal(before)), WildcardPart::Literal(more)) => before.push_str(&own(more)),
                    (_, WildcardPart::Literal(text)) if text.is_empty() => {}
                    (_, WildcardPart::Literal(text)) => reduced.push(WildcardPart::Literal(own(text))),
                    (_, WildcardPart::One) => reduced.push(WildcardPart::One),
                    (_, WildcardPart::Any) => reduced.push(WildcardPart::Any),
                }
            }
            match reduced.as_slice() {
                [] => Text::Plain(AffixKind::Equals, String::new()),
                [WildcardPart::Any] => Text::Anything,
                [WildcardPart::Literal(text)] => Text::Plain(AffixKind::Equals, text.clone()),
                [WildcardPart::Literal(text), WildcardPart::Any] => Text::Plain(AffixKind::StartsWith, text.clone()),
                [WildcardPart::Any, WildcardPart::Literal(text)] => Text::Plain(AffixKind::EndsWith, text.clone()),
                [WildcardPart::Any, WildcardPart::Literal(text), WildcardPart::Any] => {
                    Text::Plain(AffixKind::Contains, text.clone())
                }
                _ => Text::Pattern(reduced),
            }
        }
    }
}

/// A text, folded, that every value has in it, folded, for which the predicate holds; `None` if there is none.
pub(crate) fn literal(predicate: &Predicate) -> Option<String> {
    let Predicate::Text { test, cased } = predicate else { return None };
    let text = match reduce(test, *cased) {
        Text::Anything => return None,
        Text::Plain(_, text) => text,
        Text::Pattern(parts) => {
            let literals = parts.into_iter().filter_map(|part| match part {
                WildcardPart::Literal(text) => Some(text),
                WildcardPart::One | WildcardPart::Any => None,
            });
            literals.max_by_key(String::len)?
        }
    };
    Some(fold(&text).into_owned())
}

/// A predicate in a form in which equal ones are equal texts.
pub(crate) fn canonical(predicate: &Predicate) -> String {
    match predicate {
        Predicate::Text { test, cased } => format!("text {cased} {:?}", reduce(test, *cased)),
        Predicate::Number(number) => match integral(*number) {
            Some(int) => format!("number {int}"),
            None => format!("number {number:?}"),
        },
        other => format!("{other:?}"),
    }
}

/// Whether the predicate looks at the JSON text of objects.
pub(crate) fn reads_object_text(predicate: &Predicate) -> bool {
    match predicate {
        Predicate::Text { test, cased } => match reduce(test, *cased) {
            Text::Anything => false,
            Text::Plain(kind, _) => kind == AffixKind::Contains,
            Text::Pattern(parts) => is_open(&parts),
        },
        Predicate::Regex(_) => true,
        _ => false,
    }
}

pub(crate) fn is_open(parts: &[WildcardPart]) -> bool {
    parts.first() == Some(&WildcardPart::Any) && parts.last() == Some(&WildcardPart::Any)
}

/// The integer a number is, if it is one.
pub(crate) fn integral(number: Number) -> Option<i128> {
    match number {
        Number::Int(int) => Some(int),
        // Beyond 2^96 no float is written as digits; those compare as floats.
        Number::Float(float) if float.fract() == 0.0 && float.abs() < 7.9e28 => Some(float as i128),
        Number::Float(_) => None,
    }
}
