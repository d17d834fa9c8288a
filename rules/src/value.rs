//! Sigma strings: wildcards and escapes, and what the encoding modifiers turn them into.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeproof_engine::rule::{AffixKind, Predicate, TextTest, WildcardPart};

/// Most values one value may expand to.
const EXPANSIONS_MAX: usize = 10_000;
/// What `windash` treats as one: hyphen, slash, en dash, em dash, horizontal bar.
const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

/// Reads a Sigma string. A backslash before `*`, `?` or a backslash takes its meaning away; elsewhere it is itself.
pub(crate) fn parse(text: &str) -> Vec<WildcardPart> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let special = match char {
            '*' => Some(WildcardPart::Any),
            '?' => Some(WildcardPart::One),
            '\\' => {
                let escaped = chars.next_if(|next| matches!(next, '*' | '?' | '\\'));
                literal.push(escaped.unwrap_or('\\'));
                None
            }
            other => {
                literal.push(other);
                None
            }
        };
        if let Some(part) = special {
            flush(&mut parts, &mut literal);
            parts.push(part);
        }
    }
    flush(&mut parts, &mut literal);
    parts
}

fn flush(parts: &mut Vec<WildcardPart>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(WildcardPart::Literal(std::mem::take(literal)));
    }
}

/// The text of a string without wildcards.
pub(crate) fn plain(parts: &[WildcardPart]) -> Option<String> {
    match parts {
        [] => Some(String::new()),
        [WildcardPart::Literal(text)] => Some(text.clone()),
        _ => None,
    }
}

/// The test that a string under `kind` is.
pub(crate) fn predicate(parts: Vec<WildcardPart>, kind: AffixKind, cased: bool) -> Predicate {
    let test = match plain(&parts) {
        Some(text) => TextTest::Plain { kind, text },
        None => {
            let mut pattern = parts;
            if matches!(kind, AffixKind::Contains | AffixKind::EndsWith) {
                pattern.insert(0, WildcardPart::Any);
            }
            if matches!(kind, AffixKind::Contains | AffixKind::StartsWith) {
                pattern.push(WildcardPart::Any);
            }
            TextTest::Wildcard(pattern)
        }
    };
    Predicate::Text { test, cased }
}

/// A string in which every dash or slash that begins a word is each of the dashes Windows takes for one.
pub(crate) fn windash(parts: &[WildcardPart]) -> Result<Vec<Vec<WildcardPart>>, String> {
    let mut expanded = vec![Vec::new()];
    for part in parts {
        let choices = match part {
            WildcardPart::Literal(text) => windash_text(text)?.into_iter().map(WildcardPart::Literal).collect(),
            other => vec![other.clone()],
        };
        expanded = product(&expanded, &choices, |before, choice| {
            let mut whole = before.clone();
            whole.push(choice.clone());
            whole
        })?;
    }
    Ok(expanded)
}

fn windash_text(text: &str) -> Result<Vec<String>, String> {
    let is_word = |char: Option<&char>| char.is_some_and(|char| char.is_alphanumeric() || *char == '_');
    let chars: Vec<char> = text.chars().collect();
    let mut expanded = vec![String::new()];
    for (at, char) in chars.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| chars.get(before));
        let dash = DASHES.contains(char) && !is_word(before) && is_word(chars.get(at + 1));
        let choices: Vec<char> = if dash { DASHES.to_vec() } else { vec![*char] };
        expanded = product(&expanded, &choices, |before, choice| {
            let mut whole = before.clone();
            whole.push(*choice);
            whole
        })?;
    }
    Ok(expanded)
}

/// Every pair of `left` and `right`, joined.
pub(crate) fn product<L, R>(left: &[L], right: &[R], join: impl Fn(&L, &R) -> L) -> Result<Vec<L>, String> {
    if left.len().saturating_mul(right.len()) > EXPANSIONS_MAX {
        return Err(format!("a value expands to more than {EXPANSIONS_MAX} values"));
    }
    Ok(left.iter().flat_map(|before| right.iter().map(|choice| join(before, choice)).collect::<Vec<_>>()).collect())
}

/// What a string is turned into by the modifiers, from left to right.
pub(crate) enum Form {
    /// Text with wildcards.
    Pattern(Vec<WildcardPart>),
    /// The same in UTF-16.
    Wide { parts: Vec<WildcardPart>, little: bool, mark: bool },
}

impl Form {
    /// Applies a modifier; those that change no text pass it on. A value can become several.
    pub(crate) fn apply(self, name: &str, next: &mut Vec<Self>) -> Result<(), String> {
        let wide = match name {
            "wide" | "utf16le" => Some((true, false)),
            "utf16be" => Some((false, false)),
            "utf16" => Some((true, true)),
            _ => None,
        };
        match (name, self) {
            ("windash", Self::Pattern(parts)) => next.extend(windash(&parts)?.into_iter().map(Self::Pattern)),
            ("windash", Self::Wide { .. }) => return Err("`windash` comes before encodings".to_owned()),
            ("base64", form) => next.push(Self::literal(base64(&form.bytes(name)?))),
            ("base64offset", form) => {
                next.extend(base64_offsets(&form.bytes(name)?).into_iter().map(Self::literal));
            }
            (_, form) => match (wide, form) {
                (Some((little, mark)), Self::Pattern(parts)) => next.push(Self::Wide { parts, little, mark }),
                (Some(_), Self::Wide { .. }) => return Err(format!("`{name}` cannot encode what is encoded already")),
                (None, form) => next.push(form),
            },
        }
        Ok(())
    }

    fn literal(text: String) -> Self {
        Self::Pattern(vec![WildcardPart::Literal(text)])
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, String> {
        let (Self::Pattern(parts) | Self::Wide { parts, .. }) = self;
        let text = plain(parts).ok_or_else(|| format!("`{name}` cannot encode a value with wildcards"))?;
        Ok(match self {
            Self::Pattern(_) => text.into_bytes(),
            Self::Wide { little, mark, .. } => utf16(&text, *little, *mark),
        })
    }

    /// The text to look for. UTF-16 that nothing encoded further is looked for as JSON would hold its bytes: with a
    /// zero character beside every character, which exists only for ASCII.
    pub(crate) fn text(self) -> Result<Vec<WildcardPart>, String> {
        let (parts, little, mark) = match self {
            Self::Pattern(parts) => return Ok(parts),
            Self::Wide { parts, little, mark } => (parts, little, mark),
        };
        let mut spread = Vec::with_capacity(parts.len() + 1);
        if mark {
            spread.push(WildcardPart::Literal('\u{feff}'.to_string()));
        }
        for part in parts {
            spread.push(match part {
                WildcardPart::Literal(text) if text.is_ascii() => {
                    let pair = |char: char| if little { [char, '\0'] } else { ['\0', char] };
                    WildcardPart::Literal(text.chars().flat_map(pair).collect())
                }
                WildcardPart::Literal(text) => {
                    return Err(format!("`{text}` in UTF-16 is no text; let `base64` or `base64offset` follow"));
                }
                other => other,
            });
        }
        // Neighbouring literals are one.
        let mut joined: Vec<WildcardPart> = Vec::with_capacity(spread.len());
        for part in spread {
            match (joined.last_mut(), part) {
                (Some(WildcardPart::Literal(before)), WildcardPart::Literal(more)) => before.push_str(&more),
                (_, part) => joined.push(part),
            }
        }
        Ok(joined)
    }
}

/// UTF-16 bytes of a text.
pub(crate) fn utf16(text: &str, little: bool, mark: bool) -> Vec<u8> {
    let units = text.encode_utf16();
    let bytes = units.flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() });
    let mark: &[u8] = if mark { &[0xFF, 0xFE] } else { &[] };
    mark.iter().copied().chain(bytes).collect()
}

/// Base64 of the bytes.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What base64 of a text that holds the bytes holds, wherever they stand in it: one form per offset modulo 3.
pub(crate) fn base64_offsets(bytes: &[u8]) -> Vec<String> {
    // The first characters mix with what stands before, the last with what comes after; both are cut off.
    const START: [usize; 3] = [0, 2, 3];
    const END: [usize; 3] = [0, 3, 2];
    (0..3_usize)
        .zip(START)
        .map(|(offset, start)| {
            let padded: Vec<u8> = std::iter::repeat_n(b' ', offset).chain(bytes.iter().copied()).collect();
            let encoded = base64(&padded);
            let cut = END.get((bytes.len() + offset) % 3).copied().unwrap_or(0);
            encoded.get(start..encoded.len().saturating_sub(cut)).unwrap_or_default().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> String {
        let parts = parse(text);
        parts
            .iter()
            .map(|part| match part {
                WildcardPart::Literal(text) => format!("[{text}]"),
                WildcardPart::One => "?".to_owned(),
                WildcardPart::Any => "*".to_owned(),
            })
            .collect()
    }

    #[test]
    fn escapes() {
        for (text, expected) in [
            (r"a*b?c", "[a]*[b]?[c]"),
            (r"a\*b", "[a*b]"),
            (r"a\?b", "[a?b]"),
            (r"a\\*b", r"[a\]*[b]"),
            (r"a\\\*b", r"[a\*b]"),
            (r"a\b", r"[a\b]"),
            (r"a\\b", r"[a\b]"),
            (r"a\\\\b", r"[a\\b]"),
            (r"a\", r"[a\]"),
            ("", ""),
        ] {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn encodings() {
        assert_eq!(base64(b"foobar"), "Zm9vYmFy");
        assert_eq!(base64_offsets(b"foobar"), ["Zm9vYmFy", "Zvb2Jhc", "mb29iYX"]);
        assert_eq!(utf16("Ab", true, false), [0x41, 0, 0x62, 0]);
        assert_eq!(utf16("A", false, false), [0, 0x41]);
        assert_eq!(utf16("A", true, true), [0xFF, 0xFE, 0x41, 0]);
        // Wherever a text holds the bytes, its base64 holds one of the three forms.
        for before in 0..6 {
            let text = format!("{}foobar and more", "x".repeat(before));
            let encoded = base64(text.as_bytes());
            assert!(base64_offsets(b"foobar").iter().any(|form| encoded.contains(form)), "{before}");
        }
    }

    #[test]
    fn dashes() {
        let forms = |text: &str| windash(&parse(text)).unwrap().len();
        assert_eq!(forms(" -a"), 5);
        assert_eq!(forms(" /a"), 5);
        assert_eq!(forms("a-b"), 1, "inside a word");
        assert_eq!(forms(" - "), 1, "before no word");
        assert_eq!(forms(" -a*-b"), 25);
        assert!(windash(&parse(&" -a".repeat(9))).is_err(), "too many");
    }
}
