//! What strace wrote, read: the system calls that change files, in the order they ended.

use std::collections::HashMap;
use std::io::BufRead;

/// System calls that are traced: those that change files or what is durable of them, and those that answer.
pub(super) const TRACED: &str = "open,openat,creat,close,lseek,write,pwrite64,writev,pwritev,pwritev2,ftruncate,fallocate,fsync,\
                                 fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,\
                                 copy_file_range,sendto,sendmsg";

/// A path, and the open folder it begins in if it is not absolute.
pub(super) type At = (Option<u64>, String);

/// A call that succeeded.
#[derive(Debug)]
pub(super) enum Call {
    Opened {
        fd: u64,
        from: Option<u64>,
        path: String,
        creates: bool,
        truncates: bool,
        appends: bool,
    },
    Closed {
        fd: u64,
    },
    /// The place of the next write.
    Moved {
        fd: u64,
        at: usize,
    },
    Wrote {
        fd: u64,
        at: Option<usize>,
        bytes: Vec<u8>,
    },
    Cut {
        fd: u64,
        length: usize,
        only_longer: bool,
    },
    Synced {
        fd: u64,
    },
    Renamed {
        from: At,
        to: At,
    },
    Linked {
        from: At,
        to: At,
    },
    Removed {
        from: Option<u64>,
        path: String,
    },
    MadeFolder {
        from: Option<u64>,
        path: String,
    },
    /// 200 went out to somebody.
    Answered,
}

/// The calls of a trace that was written with `-f -xx`.
pub(super) fn read(trace: impl BufRead) -> Vec<Call> {
    let mut unfinished: HashMap<String, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let line = line.unwrap();
        let Some((process, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            // The number of a file is free as soon as its closing begins, and another thread may have it before that has ended.
            if let Some(fd) = begun.trim_end().strip_prefix("close(") {
                calls.push(Call::Closed { fd: fd.parse().unwrap() });
            }
            unfinished.insert(process.to_owned(), begun.trim_end().to_owned());
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let begun = unfinished.remove(process).unwrap_or_else(|| panic!("nothing to go on with: {process}"));
            let (_, end) = resumed.split_once("resumed>").unwrap();
            if !begun.starts_with("close(") {
                calls.extend(call(&(begun + end)));
            }
        } else {
            calls.extend(call(rest));
        }
    }
    calls
}

fn call(text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    // Strings are hexadecimal, so this stands at the end only.
    let (arguments, result) = rest.rsplit_once(')')?;
    let result: i64 = result.trim_start().strip_prefix('=')?.split_whitespace().next()?.parse().ok()?;
    let result = usize::try_from(result).ok()?;
    let texts = || {
        let parts: Vec<Vec<u8>> = arguments.split('"').skip(1).step_by(2).map(bytes).collect();
        assert!(!arguments.contains("\"..."), "a call was cut: {}", &text[..text.len().min(100)]);
        parts
    };
    let path = |number: usize| String::from_utf8(texts().swap_remove(number)).unwrap();
    let plain: Vec<&str> = arguments.split(',').map(str::trim).collect();
    let number = |place: usize| plain[place].parse::<usize>().unwrap_or_else(|_| panic!("{name}: {plain:?}"));
    let fd = || number(0) as u64;
    let folder = |place: usize| plain[place].parse::<u64>().ok();
    let from_start = |path: String| -> At { (None, path) };
    Some(match name {
        "open" | "openat" | "creat" => Call::Opened {
            fd: result as u64,
            from: folder(0),
            path: path(0),
            creates: name == "creat" || arguments.contains("O_CREAT"),
            truncates: name == "creat" || arguments.contains("O_TRUNC"),
            appends: arguments.contains("O_APPEND"),
        },
        "close" => Call::Closed { fd: fd() },
        "lseek" => Call::Moved { fd: fd(), at: result },
        "write" | "writev" | "pwrite64" | "sendto" | "sendmsg" => {
            let mut bytes = texts().concat();
            if bytes.starts_with(b"HTTP/1.1 200") {
                return Some(Call::Answered);
            }
            if name.starts_with("send") {
                return None;
            }
            bytes.truncate(result);
            let at = (name == "pwrite64").then(|| number(plain.len() - 1));
            Call::Wrote { fd: fd(), at, bytes }
        }
        "ftruncate" => Call::Cut { fd: fd(), length: number(1), only_longer: false },
        "fallocate" if plain[1] == "0" => Call::Cut { fd: fd(), length: number(2) + number(3), only_longer: true },
        "fsync" | "fdatasync" => Call::Synced { fd: fd() },
        "rename" => Call::Renamed { from: from_start(path(0)), to: from_start(path(1)) },
        "renameat" | "renameat2" => Call::Renamed { from: (folder(0), path(0)), to: (folder(2), path(1)) },
        "link" => Call::Linked { from: from_start(path(0)), to: from_start(path(1)) },
        "linkat" => Call::Linked { from: (folder(0), path(0)), to: (folder(2), path(1)) },
        "unlink" | "rmdir" => Call::Removed { from: None, path: path(0) },
        "unlinkat" => Call::Removed { from: folder(0), path: path(0) },
        "mkdir" => Call::MadeFolder { from: None, path: path(0) },
        "mkdirat" => Call::MadeFolder { from: folder(0), path: path(0) },
        // Not in the folder, or this would have to learn it.
        other => panic!("{other} is traced and not understood"),
    })
}

/// `\x2f\x74` as strace writes strings with `-xx`.
fn bytes(text: &str) -> Vec<u8> {
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
    text.as_bytes().chunks(4).map(|part| digit(part[2]) << 4 | digit(part[3])).collect()
}
