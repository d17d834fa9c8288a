//! The fastest other engine, `rsigma`, where it is installed: the same file and rules, one process after another.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::measure::Stopwatch;

pub(crate) fn find() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join("rsigma")).find(|path| path.is_file())
}

/// Seconds it takes for the file, less what it takes for an empty one, and how many matches it prints.
pub(crate) fn race(program: &Path, rules: &Path, events: &Path, routed: bool) -> std::io::Result<(f64, usize)> {
    let out = tempfile::NamedTempFile::new()?;
    let run = |events: &Path| -> std::io::Result<f64> {
        let mut command = Command::new(program);
        command.args(["engine", "eval", "--quiet", "--output-format", "ndjson", "--input-format", "json", "-r"]);
        command.arg(rules);
        if routed {
            command.arg("--logsource-routing");
        }
        command.env("RAYON_NUM_THREADS", "1");
        command.stdin(File::open(events)?).stdout(out.reopen()?).stderr(Stdio::null());
        let watch = Stopwatch::start();
        let status = command.status()?;
        let secs = watch.wall_secs();
        if status.success() { Ok(secs) } else { Err(std::io::Error::other(format!("rsigma ended with {status}"))) }
    };
    let empty = tempfile::NamedTempFile::new()?;
    let load = run(empty.path())?;
    out.as_file().set_len(0)?;
    let all = run(events)?;
    let matches = std::fs::read(out.path())?.iter().filter(|byte| **byte == b'\n').count();
    Ok(((all - load).max(1e-9), matches))
}
