//! Whether what a pattern found is random, as secrets are, or a word, a mask, or the name of a variable.

/// Most bytes that are counted: enough to tell, whatever the length.
const COUNTED_MAX: usize = 4096;

/// What a secret that matched a pattern looks like besides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Looks {
    /// The pattern says enough: a prefix of its own, and so many characters behind it.
    Enough,
    /// Random characters of a large alphabet: at least so many bits each, as they occur in it (Shannon).
    Random(f32),
    /// No word: it has a digit, or letters of both cases other than a capital at its start, and does not merely repeat itself.
    NoWord,
    /// A token where a name could stand as well (`https://acme-org@dev.azure.com/…`): it has a digit, or as many different
    /// characters as random ones have.
    NoName,
}

impl Looks {
    /// Whether `secret` looks so.
    pub(super) fn like(self, secret: &[u8]) -> bool {
        match self {
            Self::Enough => true,
            Self::Random(bits) => entropy(secret) >= bits,
            Self::NoWord => is_mixed(secret) && entropy(secret) >= 2.0,
            Self::NoName => entropy(secret) >= if secret.iter().any(u8::is_ascii_digit) { 2.0 } else { 4.0 },
        }
    }
}

fn is_mixed(text: &[u8]) -> bool {
    let behind = text.get(1..).unwrap_or_default();
    text.iter().any(u8::is_ascii_digit)
        || (behind.iter().any(u8::is_ascii_uppercase) && text.iter().any(u8::is_ascii_lowercase))
}

/// Shannon entropy of the bytes of a text as they occur in it, in bits a byte.
pub(super) fn entropy(text: &[u8]) -> f32 {
    let text = text.get(..COUNTED_MAX).unwrap_or(text);
    let mut counts = [0_u16; 256];
    for byte in text {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let Some(len) = u16::try_from(text.len()).ok().filter(|len| *len > 0).map(f32::from) else { return 0.0 };
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f32::from(*count) / len);
    shares.map(|share| -share * share.log2()).sum()
}

/// Whether what stands where a password would is none: a mask (`***`, `xxxx`), or a variable that was not filled in (`$TOKEN`,
/// `%s`).
pub(super) fn is_stand_in(text: &[u8]) -> bool {
    let Some(first) = text.first() else { return true };
    let name = |rest: &[u8]| {
        !rest.is_empty()
            && rest.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_')
            && rest.iter().any(u8::is_ascii_uppercase)
    };
    match text {
        [b'$', rest @ ..] if name(rest) => true,
        [b'%', b's' | b'v' | b'q'] => true,
        _ => {
            let masks = *first == b'*' || (text.len() > 2 && matches!(first, b'x' | b'X' | b'.' | b'-' | b'#' | b'_'));
            masks && text.iter().all(|byte| byte == first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits() {
        for (text, bits) in [("", 0.0), ("aaaa", 0.0), ("abab", 1.0), ("abcd", 2.0), ("01234567", 3.0)] {
            assert!((entropy(text.as_bytes()) - bits).abs() < 1e-6, "{text}");
        }
        assert!(entropy(&[7; 100_000]) < 0.1);
    }

    #[test]
    fn words_masks_and_names_are_no_secrets() {
        for word in ["authentication", "Required-by-the-server", "xxxxxxxxxxxx", "token_required_here", "------------"]
        {
            assert!(!Looks::NoWord.like(word.as_bytes()), "{word}");
        }
        for secret in ["dXNlcjpwYXNz", "hunter2hunter2", "0123456789ab", "aBcdefgh"] {
            assert!(Looks::NoWord.like(secret.as_bytes()), "{secret}");
        }
        for (name, token) in [
            ("AzureContainerUpstream", false),
            ("ContinuousIntegration", false),
            ("kPq7mXw2ZsRt9vLbNcJh", true),
            ("kPqymXwZsRtvLbNcJhGf", true),
        ] {
            assert_eq!(Looks::NoName.like(name.as_bytes()), token, "{name}");
        }
        for stand_in in ["", "*", "***", "xxx", "$TOKEN", "$GH_PAT2", "%s"] {
            assert!(is_stand_in(stand_in.as_bytes()), "{stand_in}");
        }
        for password in ["$ecret", "hunter2", "a", "$", "x1", "$1234", "%41"] {
            assert!(!is_stand_in(password.as_bytes()), "{password}");
        }
    }
}
