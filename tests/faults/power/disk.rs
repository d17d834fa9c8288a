//! A folder as a program's system calls make it, and as the power going off after one of them may leave it.
//!
//! What POSIX promises is all that is kept: the content of a file as of its last fsync, the names in a folder as of the last fsync of that
//! folder. What came after may be there or not, a name without its content as well.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path};

use rand::Rng as _;
use rand::rngs::StdRng;

use super::trace::Call;

/// A file or a folder, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    File(usize),
    Folder(usize),
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    kept: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Names {
    now: BTreeMap<String, Entry>,
    kept: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Open {
    entry: Entry,
    at: usize,
    appends: bool,
}

/// What is left of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// Names and lengths: zeros where the content was.
    Names,
    /// Some of it, by chance.
    Some,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Disk {
    root: String,
    files: Vec<Content>,
    folders: Vec<Names>,
    open: HashMap<u64, Open>,
    /// Syncs of this kind do nothing where the path has this in it.
    unsynced: Option<(Part, &'static str)>,
}

/// What a sync makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What is in a file.
    Content,
    /// What is in a folder.
    Names,
}

impl Disk {
    /// An empty folder at `root`. With `unsynced` it is as if the program never synced that of what has this in its path.
    pub(super) fn new(root: &Path, unsynced: Option<(Part, &'static str)>) -> Self {
        let root = root.to_str().unwrap().to_owned();
        Self { root, files: Vec::new(), folders: vec![Names::default()], open: HashMap::new(), unsynced }
    }

    /// The folder in which a path stands, and its name there; `None` outside.
    fn place(&self, from: Option<u64>, path: &str) -> Option<(usize, String)> {
        let (mut folder, path) = match (path.strip_prefix(&self.root), from.and_then(|from| self.open.get(&from))) {
            (Some(path), _) => (0, path.strip_prefix('/')?),
            (None, Some(Open { entry: Entry::Folder(folder), .. })) if !path.starts_with('/') => (*folder, path),
            _ => return None,
        };
        let parts: Vec<&str> = Path::new(path)
            .components()
            .map(|part| match part {
                Component::Normal(part) => part.to_str().unwrap(),
                other => panic!("{other:?} in {path}"),
            })
            .collect();
        let (name, above) = parts.split_last()?;
        for part in above {
            match self.folders[folder].now.get(*part) {
                Some(Entry::Folder(inner)) => folder = *inner,
                other => panic!("{path}: {part} is {other:?}"),
            }
        }
        Some((folder, (*name).to_owned()))
    }

    fn ignores(&self, entry: Entry) -> bool {
        let is_of =
            |part: Part| matches!((part, entry), (Part::Content, Entry::File(_)) | (Part::Names, Entry::Folder(_)));
        self.unsynced.is_some_and(|(part, within)| is_of(part) && self.path_of(entry).contains(within))
    }

    /// Does what the call did.
    pub(super) fn apply(&mut self, call: &Call) {
        match call {
            Call::Opened { fd, from, path, creates, truncates, appends } => {
                self.open.remove(fd);
                if *path == self.root {
                    self.open.insert(*fd, Open { entry: Entry::Folder(0), at: 0, appends: false });
                    return;
                }
                let Some((folder, name)) = self.place(*from, path) else { return };
                let entry = match self.folders[folder].now.get(&name).copied() {
                    Some(entry) => entry,
                    None if *creates => {
                        self.files.push(Content::default());
                        let entry = Entry::File(self.files.len() - 1);
                        self.folders[folder].now.insert(name, entry);
                        entry
                    }
                    None => return,
                };
                if let (Entry::File(number), true) = (entry, truncates) {
                    self.files[number].now.clear();
                }
                self.open.insert(*fd, Open { entry, at: 0, appends: *appends });
            }
            Call::Closed { fd } => drop(self.open.remove(fd)),
            Call::Moved { fd, at } => {
                if let Some(open) = self.open.get_mut(fd) {
                    open.at = *at;
                }
            }
            Call::Wrote { fd, at, bytes } => {
                let Some(open) = self.open.get_mut(fd) else { return };
                let Entry::File(number) = open.entry else { return };
                let content = &mut self.files[number].now;
                let from = at.unwrap_or(if open.appends { content.len() } else { open.at });
                let end = from + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[from..end].copy_from_slice(bytes);
                if at.is_none() {
                    open.at = end;
                }
            }
            Call::Cut { fd, length, only_longer } => {
                let Some(Open { entry: Entry::File(number), .. }) = self.open.get(fd) else { return };
                let content = &mut self.files[*number].now;
                if !only_longer || content.len() < *length {
                    content.resize(*length, 0);
                }
            }
            Call::Synced { fd } => {
                let Some(entry) = self.open.get(fd).map(|open| open.entry) else { return };
                if self.ignores(entry) {
                    return;
                }
                match entry {
                    Entry::File(number) => {
                        let Content { now, kept } = &mut self.files[number];
                        kept.clone_from(now);
                    }
                    Entry::Folder(number) => {
                        let Names { now, kept } = &mut self.folders[number];
                        kept.clone_from(now);
                    }
                }
            }
            Call::Renamed { from, to } => {
                let Some((folder, name)) = self.place(from.0, &from.1) else { return };
                let entry = self.folders[folder].now.remove(&name).unwrap_or_else(|| panic!("no {} to rename", from.1));
                let (folder, name) = self.place(to.0, &to.1).unwrap();
                self.folders[folder].now.insert(name, entry);
            }
            Call::Linked { from, to } => {
                let Some((folder, name)) = self.place(from.0, &from.1) else { return };
                let entry = self.folders[folder].now[&name];
                let (folder, name) = self.place(to.0, &to.1).unwrap();
                self.folders[folder].now.insert(name, entry);
            }
            Call::Removed { from, path } => {
                if let Some((folder, name)) = self.place(*from, path) {
                    self.folders[folder].now.remove(&name);
                }
            }
            Call::MadeFolder { from, path } => {
                if *path == self.root {
                    return;
                }
                if let Some((folder, name)) = self.place(*from, path) {
                    self.folders.push(Names::default());
                    let entry = Entry::Folder(self.folders.len() - 1);
                    self.folders[folder].now.insert(name, entry);
                }
            }
            Call::Answered => {}
        }
    }

    /// Where an entry stands now; nothing for one that has no name.
    fn path_of(&self, entry: Entry) -> String {
        let mut path = String::new();
        let mut looked_for = entry;
        while looked_for != Entry::Folder(0) {
            let found = self.folders.iter().enumerate().find_map(|(number, names)| {
                let (name, _) = names.now.iter().find(|(_, entry)| **entry == looked_for)?;
                Some((Entry::Folder(number), name))
            });
            let Some((above, name)) = found else { return path };
            path = format!("/{name}{path}");
            looked_for = above;
        }
        path
    }

    /// Writes what is left when the power goes off now.
    pub(super) fn leave(&self, to: &Path, left: Left, random: &mut StdRng) {
        self.leave_folder(0, to, left, random);
    }

    fn leave_folder(&self, number: usize, to: &Path, left: Left, random: &mut StdRng) {
        fs::create_dir_all(to).unwrap();
        let names = &self.folders[number];
        let kept = match left {
            Left::Nothing => true,
            Left::Names => false,
            Left::Some => random.random_bool(0.5),
        };
        for (name, entry) in if kept { &names.kept } else { &names.now } {
            match entry {
                Entry::Folder(inner) => self.leave_folder(*inner, &to.join(name), left, random),
                // Shared memory between processes; no process is left.
                Entry::File(_) if name.ends_with("-shm") => {}
                Entry::File(file) => {
                    let path = to.join(name);
                    fs::write(&path, self.files[*file].left(left, random)).unwrap();
                    // Keys that others may read are refused.
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                }
            }
        }
    }
}

impl Content {
    fn left(&self, left: Left, random: &mut StdRng) -> Vec<u8> {
        let zeros = || {
            let mut content = self.kept.clone();
            content.resize(self.now.len(), 0);
            content
        };
        match left {
            Left::Nothing => self.kept.clone(),
            Left::Names => zeros(),
            Left::Some if self.now == self.kept => self.kept.clone(),
            Left::Some => match random.random_range(0..4) {
                0 => self.kept.clone(),
                1 => self.now.clone(),
                2 => zeros(),
                // Written out up to somewhere.
                _ => {
                    let upto = random.random_range(0..=self.now.len());
                    let mut content = zeros();
                    content[..upto].copy_from_slice(&self.now[..upto]);
                    content
                }
            },
        }
    }
}
