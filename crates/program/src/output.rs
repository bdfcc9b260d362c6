//! Files that appear whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

/// A file or folder that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct OutputError {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

/// A folder that was seen to be writable.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
}

impl OutputFolder {
    /// Creates the folder where it is missing, and makes sure that files can be written there, before any work is done.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the folder.
    pub fn create(path: &Path) -> Result<Self, OutputError> {
        let fail = |source| OutputError { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(fail)?;
        tempfile::NamedTempFile::new_in(path).map_err(fail)?;
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
            // Temporary files are private by default; a result is as readable as any other file of the user's.
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            let mut file = builder.tempfile_in(&self.path)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|source| OutputError { path: path.clone(), source })?;
        Ok(path)
    }
}
