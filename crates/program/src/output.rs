//! Files and folders that appear once they are complete.

mod destination;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use self::destination::Destination;

/// Prefix of the names of unfinished files. Those that a killed process leaves behind can be deleted.
const UNFINISHED: &str = ".unfinished-";

/// Number of random letters that make a temporary name unique.
const DRAWN: usize = 6;

/// A file or folder that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct OutputError {
    /// Path of the file or folder.
    pub path: PathBuf,
    /// Error of the operating system.
    pub source: std::io::Error,
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError { path: path.clone(), source }
}

/// A folder that has been checked to be writable.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
    created: Vec<PathBuf>,
}

/// Removes the folder if it was created by this process and is still empty, so that a refused command leaves no folder
/// behind.
impl Drop for OutputFolder {
    fn drop(&mut self) {
        for folder in &self.created {
            // Only an empty folder is removed.
            _ = std::fs::remove_dir(folder);
        }
    }
}

/// Exclusive lock of a folder for writing.
#[derive(Debug)]
pub struct FolderLock(Option<File>);

impl OutputFolder {
    /// Creates the folder where it is missing, and makes sure that files can be written there, before any work is done.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the folder.
    pub fn create(path: &Path) -> Result<Self, OutputError> {
        let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let make = || {
            let target = destination::folder(path)?;
            let created = target.ancestors().take_while(is_missing).map(Path::to_owned).collect();
            let folder = Self { path: path.to_owned(), created };
            std::fs::create_dir_all(&target)?;
            tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(path)?;
            Ok(folder)
        };
        make().map_err(at(path))
    }

    /// Creates a folder whose files belong together, so that no other process may write there at the same time.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), and where another process has claimed the folder.
    pub fn claim(path: &Path) -> Result<(Self, FolderLock), OutputError> {
        let folder = Self::create(path)?;
        let taken = || std::io::Error::new(ErrorKind::ResourceBusy, "another process is writing into this folder");
        let lock = folder.lock()?.ok_or_else(|| at(path)(taken()))?;
        Ok((folder, lock))
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file by atomic rename, and returns its path. A symbolic link of this name stays, and its target is
    /// written; a device or a pipe of this name is written through.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file; one of this name is then as it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, OutputError> {
        let path = self.path.join(name);
        let write = || match Destination::of(&path)? {
            Destination::Regular(target) => replace(&target, bytes),
            Destination::Stream(target) => destination::through().open(target)?.write_all(bytes),
        };
        write().map_err(at(&path))?;
        Ok(path)
    }

    /// Locks the folder against other processes until the result is dropped; `None` if another process holds the lock.
    /// The system releases the lock however the process ends. On file systems without locks, every process gets it.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the folder.
    pub fn lock(&self) -> Result<Option<FolderLock>, OutputError> {
        // Elsewhere a folder is no file that could be opened.
        let folder = if cfg!(unix) { Some(File::open(&self.path).map_err(at(&self.path))?) } else { None };
        match folder.as_ref().map_or(Ok(()), File::try_lock) {
            Err(TryLockError::WouldBlock) => Ok(None),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(FolderLock(folder))),
        }
    }

    /// Removes unfinished files that killed processes left in this folder. No other process may write there meanwhile.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming what cannot be removed.
    pub fn clear_unfinished(&self) -> Result<(), OutputError> {
        for entry in std::fs::read_dir(&self.path).map_err(at(&self.path))? {
            let entry = entry.map_err(at(&self.path))?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let path = entry.path();
                let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                removed.map_err(at(&path))?;
            }
        }
        Ok(())
    }

    /// Removes a folder within this one. It disappears at once, even if the removal of its contents is interrupted.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the folder.
    pub fn remove_folder(&self, name: &str) -> Result<(), OutputError> {
        let path = self.path.join(name);
        let away = self.path.join(format!("{UNFINISHED}removed-{name}"));
        std::fs::rename(&path, &away).map_err(at(&path))?;
        std::fs::remove_dir_all(&away).map_err(at(&path))
    }
}

/// A file that a user named, checked to be writable before any work is done.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    opened: Opened,
}

/// Destination of an output file's bytes.
#[derive(Debug)]
enum Opened {
    /// A regular file, written by atomic rename.
    Regular(PathBuf),
    /// An open device, pipe or descriptor, written through.
    Stream(File),
}

impl OutputFile {
    /// Checks that the file can be written, and creates its folder if necessary. Symbolic links are followed; a device,
    /// a pipe or a file descriptor (`/dev/stdout`) is written through.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file, for a folder, a socket or a block device by its kind.
    pub fn create(path: &Path) -> Result<Self, OutputError> {
        let open = || match Destination::of(path)? {
            Destination::Regular(target) => {
                if target.file_name().is_none() {
                    return Err(std::io::Error::new(ErrorKind::InvalidInput, "expected a file's name"));
                }
                std::fs::create_dir_all(destination::parent(&target))?;
                unfinished(&target)?;
                Ok(Opened::Regular(target))
            }
            Destination::Stream(target) => Ok(Opened::Stream(destination::through().open(target)?)),
        };
        Ok(Self { path: path.to_owned(), opened: open().map_err(at(path))? })
    }

    /// Writes the whole file.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file; a regular file of this name is then as it was.
    pub fn write(self, bytes: &[u8]) -> Result<(), OutputError> {
        let written = match self.opened {
            Opened::Regular(target) => replace(&target, bytes),
            Opened::Stream(mut file) => file.write_all(bytes),
        };
        written.map_err(at(&self.path))
    }
}

/// Opens or creates a regular file for reading and writing. Symbolic links are followed.
///
/// # Errors
///
/// [`OutputError`] naming the file, and for anything but a regular file by its kind.
pub fn open_regular(path: &Path) -> Result<File, OutputError> {
    let open = || {
        let target = destination::regular(path)?;
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(target)
    };
    open().map_err(at(path))
}

/// A folder that is filled under a temporary name, and appears under its own name when it is complete.
#[derive(Debug)]
pub struct NewFolder {
    unfinished: TempDir,
    parent: PathBuf,
    target: PathBuf,
    /// Lock of the folder, held while this process writes to it.
    _lock: FolderLock,
}

impl NewFolder {
    /// Creates a temporary folder that will become `target`, or the target of that symbolic link. Temporary folders
    /// that killed processes left are removed.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the parent folder, and `target` if it exists and is no folder.
    pub fn create(target: &Path) -> Result<Self, OutputError> {
        let target = destination::folder(target).map_err(at(target))?;
        let parent = destination::parent(&target).to_owned();
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!("{UNFINISHED}{name}-");
        remove_abandoned(&parent, &prefix).map_err(at(&parent))?;
        loop {
            let unfinished = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent).map_err(at(&parent))?;
            // Another process may have removed the folder as abandoned before it was locked; then another one is made.
            if let Some(lock) = lock_folder(unfinished.path()) {
                return Ok(Self { unfinished, parent, target, _lock: lock });
            }
        }
    }

    /// Temporary path of the folder while it is filled.
    pub fn path(&self) -> &Path {
        self.unfinished.path()
    }

    /// Flushes the folder's files to the disk, and renames the folder to its final name.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file. A different file of the final name is not changed.
    pub fn appear(self) -> Result<(), OutputError> {
        self.finish()?;
        std::fs::rename(self.path(), &self.target).map_err(at(&self.target))?;
        // There is nothing left to clean up under the old name.
        _ = self.unfinished.keep();
        sync(&self.parent)
    }

    /// Replaces a folder of the same name. If the file system can exchange two names, a folder exists at all times.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file.
    pub fn replace(self) -> Result<(), OutputError> {
        if !self.target.exists() {
            return self.appear();
        }
        self.finish()?;
        exchange(self.path(), &self.target).map_err(at(&self.target))?;
        let parent = self.parent.clone();
        // The folder that was there has the other name now.
        self.unfinished.close().map_err(at(&self.target))?;
        sync(&parent)
    }

    fn finish(&self) -> Result<(), OutputError> {
        let path = self.path();
        for entry in std::fs::read_dir(path).map_err(at(path))? {
            sync(&entry.map_err(at(path))?.path())?;
        }
        // Temporary folders are private; this one is as readable as the one that it is in.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&self.parent).map_err(at(&self.parent))?.permissions().mode() & 0o777;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(at(path))?;
        }
        sync(path)
    }
}

/// Writes a regular file by atomic rename. A replaced file's permissions are kept.
fn replace(target: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = unfinished(target)?;
    if let Ok(metadata) = std::fs::metadata(target) {
        // Some file systems have no permissions.
        _ = file.as_file().set_permissions(metadata.permissions());
    }
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(target)?;
    Ok(())
}

/// A temporary file beside the target.
fn unfinished(target: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    // Temporary files are private by default; a result is as readable as any other file of the user's.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(destination::parent(target))
}

/// Removes temporary folders of this prefix whose locks are free, as their processes have ended.
fn remove_abandoned(parent: &Path, prefix: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // The random part has a fixed length; a longer rest belongs to another folder's name.
        let is_own = name.strip_prefix(prefix).is_some_and(|rest| rest.len() == DRAWN);
        if is_own
            && entry.file_type()?.is_dir()
            && let Some(FolderLock(Some(_))) = &lock_folder(&entry.path())
        {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The lock of a folder, empty on file systems without locks; `None` if another process holds it or has removed the
/// folder.
fn lock_folder(path: &Path) -> Option<FolderLock> {
    if !cfg!(unix) {
        return Some(FolderLock(None));
    }
    let folder = File::open(path).ok()?;
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(_)) => Some(FolderLock(None)),
        Ok(()) => path.exists().then_some(FolderLock(Some(folder))),
    }
}

/// Waits until a file, or the names in a folder, are on the disk.
///
/// # Errors
///
/// [`OutputError`] naming the file or folder.
pub fn sync(path: &Path) -> Result<(), OutputError> {
    // Only here can a folder be opened as a file.
    if cfg!(unix) || path.is_file() {
        File::open(path).and_then(|file| file.sync_all()).map_err(at(path))?;
    }
    Ok(())
}

fn exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        if renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
    }
    let aside = one.with_extension("aside");
    std::fs::rename(other, &aside)?;
    std::fs::rename(one, other)?;
    std::fs::rename(&aside, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_another_works_on_is_not() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("model");
        let abandoned = place.path().join(".unfinished-model-abcdef");
        let others = [".unfinished-model-2-abcdef", ".unfinished-other-abcdef", ".unfinished-abcdef"];
        std::fs::create_dir(&abandoned).unwrap();
        std::fs::write(abandoned.join("weights"), "half").unwrap();
        others.iter().for_each(|name| std::fs::create_dir(place.path().join(name)).unwrap());
        let first = NewFolder::create(&target).unwrap();
        assert!(!abandoned.exists());
        assert!(others.iter().all(|name| place.path().join(name).exists()));
        // The lock belongs to the opened folder, so it also excludes other threads of this process.
        let second = NewFolder::create(&target).unwrap();
        assert!(first.path().exists() && second.path().exists());
        first.appear().unwrap();
        second.replace().unwrap();
        assert!(target.is_dir());
    }
}
