//! Files and folders that appear whole or not at all.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// How names begin of what is not finished. What a killed process left under such a name is of no use to anyone.
const UNFINISHED: &str = ".unfinished-";

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
    created: Vec<PathBuf>,
}

/// A folder that was created here, and that nothing was written to, is removed again: a command that is refused leaves none.
impl Drop for OutputFolder {
    fn drop(&mut self) {
        for folder in &self.created {
            // Only an empty one can be removed so.
            _ = std::fs::remove_dir(folder);
        }
    }
}

/// A folder that this process alone writes to.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "the lock is that of the open file")] Option<File>);

impl OutputFolder {
    /// Creates the folder where it is missing, and makes sure that files can be written there, before any work is done.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the folder.
    pub fn create(path: &Path) -> Result<Self, OutputError> {
        let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let created = path.ancestors().take_while(is_missing).map(Path::to_owned).collect();
        let folder = Self { path: path.to_owned(), created };
        std::fs::create_dir_all(path).map_err(at(path))?;
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(path).map_err(at(path))?;
        Ok(folder)
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
}

impl NewFolder {
    /// A folder that will be `target`.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the folder that it is to be in.
    pub fn create(target: &Path) -> Result<Self, OutputError> {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent).map_err(at(parent))?;
        Ok(Self { unfinished, parent: parent.to_owned(), target: target.to_owned() })
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
