//! Files and folders that appear whole or not at all.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// How names begin of what is not finished. What a killed process left under such a name is of no use to anyone.
const UNFINISHED: &str = ".unfinished-";

/// Letters that are drawn to make such a name one of its own.
const DRAWN: usize = 6;

/// A file or folder that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct OutputError {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError { path: path.clone(), source }
}

/// A folder that was seen to be writable.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
}

/// A folder that this process alone writes to.
#[derive(Debug)]
pub struct FolderLock(Option<File>);

impl OutputFolder {
    /// Creates the folder where it is missing, and makes sure that files can be written there, before any work is done.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the folder.
    pub fn create(path: &Path) -> Result<Self, OutputError> {
        std::fs::create_dir_all(path).map_err(at(path))?;
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(path).map_err(at(path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file by atomic rename, and answers its path.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file; one of this name is then as it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, OutputError> {
        let path = self.path.join(name);
        let write = || {
            let mut builder = tempfile::Builder::new();
            builder.prefix(UNFINISHED);
            // Temporary files are private by default; a result is as readable as any other file of the user's.
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            let mut file = builder.tempfile_in(&self.path)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(at(&path))?;
        Ok(path)
    }

    /// Keeps other processes from locking the folder for as long as the answer lives; none where one of them has locked it. The system
    /// gives the lock back however the process ends. Where the file system has no locks, everybody has it.
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

    /// Removes what a process that was killed did not finish here. No other one may be at work.
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

    /// Removes a folder that is here. It is gone at once, whatever interrupts the removal of what was in it.
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

/// A folder that is filled under another name and appears when it is whole.
#[derive(Debug)]
pub struct NewFolder {
    unfinished: TempDir,
    parent: PathBuf,
    target: PathBuf,
    /// Says that a process is at work here.
    _lock: FolderLock,
}

impl NewFolder {
    /// A folder that will be `target`. What processes that were killed left of one is removed.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the folder that it is to be in.
    pub fn create(target: &Path) -> Result<Self, OutputError> {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!("{UNFINISHED}{name}-");
        remove_abandoned(parent, &prefix).map_err(at(parent))?;
        loop {
            let unfinished = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).map_err(at(parent))?;
            // Another process may have taken the folder for an abandoned one before it was locked: then there is another to make.
            if let Some(lock) = lock_folder(unfinished.path()) {
                return Ok(Self { unfinished, parent: parent.to_owned(), target: target.to_owned(), _lock: lock });
            }
        }
    }

    /// Where its files are written meanwhile.
    pub fn path(&self) -> &Path {
        self.unfinished.path()
    }

    /// Brings its files to the disk and lets it appear.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file; where something else has the name, that stays.
    pub fn appear(self) -> Result<(), OutputError> {
        self.finish()?;
        std::fs::rename(self.path(), &self.target).map_err(at(&self.target))?;
        // There is nothing left to clean up under the old name.
        _ = self.unfinished.keep();
        sync(&self.parent)
    }

    /// The same, in the place of a folder of this name. At no time is none there, where the file system can exchange two names.
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

/// Removes folders of this prefix at which no process is at work: their locks are free.
fn remove_abandoned(parent: &Path, prefix: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What follows is drawn, and as long in each name: a longer rest belongs to the name of another folder.
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

/// The lock of a folder, with nothing in it where there are no locks; none where another process has it, or has removed the folder.
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
/// [`OutputError`] naming it.
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
        // The lock is of the open folder, so that it holds against the same process as against another.
        let second = NewFolder::create(&target).unwrap();
        assert!(first.path().exists() && second.path().exists());
        first.appear().unwrap();
        second.replace().unwrap();
        assert!(target.is_dir());
    }
}
