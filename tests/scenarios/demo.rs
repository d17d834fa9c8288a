//! The first minute of a newcomer.

use crate::harness::{run, stderr, stdout};

#[test]
fn demo_once_shows_the_whole_path_and_exits_0() {
    let output = run(["demo", "--once"]);
    let text = stdout(&output) + &stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for needle in ["tj-actions", "MTTD", "verified", "soc2"] {
        assert!(text.to_lowercase().contains(&needle.to_lowercase()), "no {needle} in {text}");
    }
    let packs: Vec<&str> = text.split_whitespace().filter(|word| word.ends_with(".zip")).collect();
    assert!(!packs.is_empty(), "the path of the pack is shown: {text}");
}
