//! A file that grows by whole lines: however the process ends, at most the line that it was writing is lost.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::output::{OutputError, open_regular};

/// A file to which only this process appends whole lines.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Journal {
    /// Opens or creates the file, and returns its whole lines; an incomplete last line is cut off. `None` if another
    /// process has it open. On a file system without locks, several processes may open it.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file, also where it is no regular file.
    pub fn open(path: &Path) -> Result<Option<(Self, Vec<u8>)>, OutputError> {
        let fail = |source| OutputError { path: path.to_owned(), source };
        let mut file = open_regular(path)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Ok(None);
        }
        let mut lines = Vec::new();
        file.read_to_end(&mut lines).map_err(fail)?;
        lines.truncate(lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        let length = lines.len() as u64;
        file.set_len(length).map_err(fail)?;
        file.seek(SeekFrom::Start(length)).map_err(fail)?;
        Ok(Some((Self { path: path.to_owned(), file, length }, lines)))
    }

    /// Opens or creates the file and truncates it to its first `length` bytes. The caller has locked the folder, and
    /// has recorded the length in another file.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file, also where it is no regular file.
    pub fn cut(path: &Path, length: u64) -> Result<Self, OutputError> {
        let mut file = open_regular(path)?;
        let cut = file.set_len(length).and_then(|()| file.seek(SeekFrom::Start(length)));
        cut.map_err(|source| OutputError { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// A value as a line of JSON.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file, for a value that JSON cannot express.
    pub fn json(&self, value: &impl Serialize) -> Result<Vec<u8>, OutputError> {
        serde_json::to_vec(value).map_err(|error| OutputError { path: self.path.clone(), source: error.into() })
    }

    /// Length of the file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends a line, which has no line break in it, and waits until it is on the disk.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file, which then ends as it did before.
    pub fn append(&mut self, line: &[u8]) -> Result<(), OutputError> {
        self.add(line, File::sync_data)
    }

    /// Appends a line, which has no line break in it, without waiting for the disk.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file, which then ends as it did before.
    pub fn append_unsynced(&mut self, line: &[u8]) -> Result<(), OutputError> {
        self.add(line, |_| Ok(()))
    }

    /// Waits until all lines are on the disk.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file.
    pub fn sync(&self) -> Result<(), OutputError> {
        self.file.sync_data().map_err(|source| OutputError { path: self.path.clone(), source })
    }

    /// Removes the file.
    ///
    /// # Errors
    ///
    /// [`OutputError`] naming the file.
    pub fn remove(self) -> Result<(), OutputError> {
        std::fs::remove_file(&self.path).map_err(|source| OutputError { path: self.path, source })
    }

    fn add(&mut self, line: &[u8], sync: impl Fn(&File) -> std::io::Result<()>) -> Result<(), OutputError> {
        let bytes = [line, b"\n"].concat();
        let written = self.file.write_all(&bytes).and_then(|()| sync(&self.file));
        if let Err(source) = written {
            // An incomplete line that cannot be cut off here is cut off when the file is opened again.
            _ = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            return Err(OutputError { path: self.path.clone(), source });
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_is_dropped_and_the_next_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let (mut journal, lines) = Journal::open(&path).unwrap().unwrap();
        assert!(lines.is_empty() && Journal::open(&path).unwrap().is_none(), "the file is locked");
        journal.append(b"one").unwrap();
        journal.append(b"two").unwrap();
        drop(journal);
        for cut in 0..=8 {
            std::fs::write(&path, &b"one\ntwo\n"[..cut]).unwrap();
            let (mut journal, lines) = Journal::open(&path).unwrap().unwrap();
            assert_eq!(lines, &b"one\ntwo\n"[..cut / 4 * 4]);
            journal.append(b"three").unwrap();
            drop(journal);
            assert_eq!(std::fs::read(&path).unwrap(), [&lines[..], b"three\n"].concat());
        }
        let (mut journal, _) = Journal::open(&path).unwrap().unwrap();
        journal.append_unsynced(b"four").unwrap();
        assert_eq!(journal.length(), std::fs::metadata(&path).unwrap().len());
        drop(journal);
        let mut journal = Journal::cut(&path, 4).unwrap();
        journal.append(b"five").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\nfive\n");
        journal.remove().unwrap();
        assert!(!path.exists());
        assert!(Journal::open(folder.path()).unwrap_err().to_string().contains("expected a regular file"));
    }
}
