//! Resolution of the path of an output before anything is written.

use std::fs::{FileType, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// Maximum number of symbolic links to follow, as in Linux's own resolution of paths.
const MOST_LINKS: usize = 40;

/// Destination of a file's bytes.
#[derive(Debug)]
pub(super) enum Destination {
    /// A regular file, or a name that does not exist yet; the file is replaced as a whole.
    Regular(PathBuf),
    /// A character device, a pipe or an open file descriptor, which is written through.
    Stream(PathBuf),
}

/// Destination of a path after its symbolic links are followed.
enum Followed {
    Absent(PathBuf),
    Descriptor(PathBuf),
    Found(PathBuf, Metadata),
}

impl Destination {
    /// The destination of a file of this path.
    ///
    /// # Errors
    ///
    /// Those of the file system, and [`ErrorKind::InvalidInput`] naming the kind of a destination that cannot be
    /// written to.
    pub(super) fn of(path: &Path) -> Result<Self> {
        match follow(path)? {
            Followed::Absent(path) => Ok(Self::Regular(path)),
            Followed::Descriptor(path) => Ok(Self::Stream(path)),
            Followed::Found(path, metadata) if metadata.is_file() => Ok(Self::Regular(path)),
            Followed::Found(path, metadata) if is_stream(metadata.file_type()) => Ok(Self::Stream(path)),
            Followed::Found(_, metadata) => {
                Err(refusal("a regular file, a character device or a pipe", metadata.file_type()))
            }
        }
    }
}

/// The path of a folder that exists or can be created, with symbolic links followed.
///
/// # Errors
///
/// Those of the file system, and [`ErrorKind::InvalidInput`] where something else than a folder has the name.
pub(super) fn folder(path: &Path) -> Result<PathBuf> {
    match follow(path)? {
        Followed::Absent(path) | Followed::Descriptor(path) => Ok(path),
        Followed::Found(path, metadata) if metadata.is_dir() => Ok(path),
        Followed::Found(_, metadata) => Err(refusal("a folder", metadata.file_type())),
    }
}

/// The path of a regular file that exists or can be created, with symbolic links followed.
///
/// # Errors
///
/// Those of the file system, and [`ErrorKind::InvalidInput`] where something else than a regular file has the name.
pub(super) fn regular(path: &Path) -> Result<PathBuf> {
    match follow(path)? {
        Followed::Absent(path) => Ok(path),
        Followed::Found(path, metadata) if metadata.is_file() => Ok(path),
        Followed::Found(_, metadata) => Err(refusal("a regular file", metadata.file_type())),
        Followed::Descriptor(path) => Err(refusal("a regular file", std::fs::metadata(path)?.file_type())),
    }
}

/// Options to write through to a device, a pipe or a descriptor, appending to a descriptor's file.
pub(super) fn through() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true);
    options
}

/// The parent folder of a path.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn follow(path: &Path) -> Result<Followed> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Followed::Absent(path)),
            Err(error) => return Err(error),
        };
        if !metadata.is_symlink() {
            return Ok(Followed::Found(path, metadata));
        }
        if is_descriptor(&path) {
            return Ok(Followed::Descriptor(path));
        }
        path = parent(&path).join(std::fs::read_link(&path)?);
    }
    Err(Error::other(format!("expected at most {MOST_LINKS} symbolic links to follow, got more")))
}

/// Whether a link refers to an open file of a process, like `/dev/stdout`. If that file is a pipe, the link's target is
/// not a path.
fn is_descriptor(link: &Path) -> bool {
    parent(link).canonicalize().is_ok_and(|folder| folder.starts_with("/proc") && folder.ends_with("fd"))
}

#[cfg(unix)]
fn is_stream(kind: FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_char_device() || kind.is_fifo()
}

#[cfg(not(unix))]
fn is_stream(_: FileType) -> bool {
    false
}

fn refusal(allowed: &str, given: FileType) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("expected {allowed}, got {}", kind(given)))
}

fn kind(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let special = [
            (kind.is_char_device(), "a character device"),
            (kind.is_block_device(), "a block device"),
            (kind.is_fifo(), "a pipe"),
            (kind.is_socket(), "a socket"),
        ];
        if let Some((_, name)) = special.into_iter().find(|(is_it, _)| *is_it) {
            return name;
        }
    }
    if kind.is_dir() { "a folder" } else { "a regular file" }
}
