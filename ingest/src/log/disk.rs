//! The few operations the log needs from a folder, as a trait: tests put a folder behind it that fails, forgets what
//! was not synced, or writes short.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A flat folder of files.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Names of the files in it.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file that does not exist yet, open for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], and those of the file system.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and, if asked, writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], and those of the file system.
    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn DiskFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names in the folder durable.
    ///
    /// # Errors
    /// Those of the file system. What was created since the last success may be gone after a crash.
    fn sync_names(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + fmt::Debug {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends before, and those of the file system.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// Those of the file system; any part of `bytes` may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// Those of the file system.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Makes content and length durable. After an error nothing may be assumed about what was written since the last
    /// success, and asking again proves nothing.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync(&mut self) -> io::Result<()>;
}

/// Appends entries of one length to a side file, making it if it is not there. Durable when this returns, by content and by name: where an
/// earlier call made the file and then failed, its name may not be.
pub(super) fn append_entries(disk: &dyn Disk, name: &str, entry_bytes: usize, entries: &[u8]) -> io::Result<()> {
    let mut file = match disk.open(name, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(name)?,
        other => other?,
    };
    // Over what is left of an entry that was never finished.
    let whole = file.size()? / entry_bytes as u64;
    file.write_at(whole * entry_bytes as u64, entries)?;
    file.sync()?;
    disk.sync_names()
}

/// Makes the name of a folder durable, by syncing the folder it stands in. One that we may not read, or that cannot be synced,
/// is left alone: it is a mount's or an administrator's, and so is the name, unless we may write to it without reading it.
///
/// # Errors
/// Other errors of the file system.
pub fn sync_name(folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem};
    let Some(parent) = folder.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        Err(error) if matches!(error.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem) => Ok(()),
        synced => synced,
    }
}

/// A real folder.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Opens the folder, creating it if it is new, and syncs the folders that its name and that of its parent stand in: an earlier
    /// call may have made them and then failed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let new = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()).count();
        std::fs::create_dir_all(path)?;
        for folder in path.ancestors().take(new.max(2)).filter(|folder| !folder.as_os_str().is_empty()) {
            sync_name(folder)?;
        }
        Ok(Self(path.to_owned()))
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.0.join(name))?;
        Ok(Box::new(FolderFile(file)))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(write).open(self.0.join(name))?;
        Ok(Box::new(FolderFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

#[derive(Debug)]
struct FolderFile(File);

impl DiskFile for FolderFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        // fdatasync: content, and the length when it changed.
        self.0.sync_data()
    }
}
