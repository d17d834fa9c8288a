//! The `Link` header (RFC 8288): where the next page is.

/// The target of the first link with this relation. Parameters that are not understood are passed over.
pub(super) fn target<'a>(header: &'a str, relation: &str) -> Option<&'a str> {
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        // Parameters go on to the next link; a quoted one may hold commas.
        let (parameters, next) = parameters(after);
        if parameters.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("rel") && value.split_ascii_whitespace().any(|word| word == relation)
        }) {
            return Some(target);
        }
        rest = next;
    }
    None
}

fn parameters(text: &str) -> (Vec<(&str, &str)>, &str) {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let Some(after) = rest.trim_start().strip_prefix(';') else { return (found, rest) };
        let end = after.find(['=', ';', ',']).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        rest = after;
        let Some(value) = after.strip_prefix('=') else { continue };
        let (value, after) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => value.split_at(value.find([';', ',']).unwrap_or(value.len())),
        };
        found.push((name.trim(), value.trim()));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_others() {
        let header = r#"<https://h/x?a=1,2&before=q>; rel="prev", <https://h/x?after=MS4%3D&per_page=100>; title="a, b"; rel="next last""#;
        assert_eq!(target(header, "next"), Some("https://h/x?after=MS4%3D&per_page=100"));
        assert_eq!(target(header, "prev"), Some("https://h/x?a=1,2&before=q"));
        assert_eq!(target(header, "first"), None);
        assert_eq!(target("<https://h/y>;rel=next", "next"), Some("https://h/y"));
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(header in ".*") {
            let _ = target(&header, "next").map(str::len);
        }
    }
}
