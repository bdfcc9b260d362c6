//! Outputs to paths that are not regular files.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use program::output::open_journal;
use program::{NewFolder, OutputFile, OutputFolder};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use tempfile::TempDir;

/// A function that writes one file.
type Writer = fn(&Path, &[u8]) -> Result<(), program::OutputError>;
const WRITERS: [Writer; 2] = [
    |path, bytes| OutputFile::create(path)?.write(bytes),
    |path, bytes| {
        let folder = OutputFolder::create(path.parent().unwrap())?;
        folder.write(path.file_name().unwrap().to_str().unwrap(), bytes).map(drop)
    },
];

fn folder() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, move |name: &str| path.join(name))
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().is_symlink()
}

/// Names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_link_stays_and_the_file_that_it_leads_to_is_written() {
    for write in WRITERS {
        let (_folder, at) = folder();
        fs::create_dir(at("elsewhere")).unwrap();
        fs::write(at("elsewhere/file"), "before").unwrap();
        symlink("elsewhere/file", at("first")).unwrap();
        symlink(at("first"), at("second")).unwrap();
        write(&at("second"), b"after").unwrap();
        assert!(is_link(&at("first")) && is_link(&at("second")));
        assert_eq!(fs::read(at("elsewhere/file")).unwrap(), b"after");
        assert_eq!(names(&at("elsewhere")), ["file"]);

        symlink("elsewhere/new", at("dangling")).unwrap();
        write(&at("dangling"), b"made").unwrap();
        assert!(is_link(&at("dangling")));
        assert_eq!(fs::read(at("elsewhere/new")).unwrap(), b"made");

        symlink("loop", at("loop")).unwrap();
        let error = write(&at("loop"), b"").unwrap_err().to_string();
        assert!(error.contains("loop: expected at most 40 symbolic links"), "{error}");
    }
}

#[test]
fn a_pipe_is_written_through_and_stays() {
    for write in WRITERS {
        let (_folder, at) = folder();
        pipe(&at("pipe"));
        symlink("pipe", at("link")).unwrap();
        for name in ["pipe", "link"] {
            let path = at("pipe");
            let reader = std::thread::spawn(move || {
                let mut text = String::new();
                File::open(path).unwrap().read_to_string(&mut text).unwrap();
                text
            });
            write(&at(name), b"through").unwrap();
            assert_eq!(reader.join().unwrap(), "through");
            assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
        }
    }
}

#[test]
fn a_character_device_is_written_through_and_stays() {
    for write in WRITERS {
        let (_folder, at) = folder();
        // The device /dev/full, whose writes fail: nobody else's device is at risk.
        let device = makedev(1, 7);
        if mknodat(CWD, at("device"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), device).is_err() {
            eprintln!("no device may be made here");
            symlink("/dev/full", at("device")).unwrap();
        }
        let error = write(&at("device"), b"lost").unwrap_err().to_string();
        assert!(error.contains("device: ") && !error.contains("expected"), "{error}");
        assert!(fs::metadata(at("device")).unwrap().file_type().is_char_device());
    }
}

#[test]
fn what_no_file_can_be_written_to_is_refused_by_its_kind() {
    for write in WRITERS {
        let (_folder, at) = folder();
        fs::create_dir(at("folder")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        symlink("folder", at("link")).unwrap();
        for (name, kind) in [("folder", "a folder"), ("link", "a folder"), ("socket", "a socket")] {
            let error = write(&at(name), b"").unwrap_err().to_string();
            let expected = format!("{name}: expected a regular file, a character device or a pipe, got {kind}");
            assert!(error.ends_with(&expected), "{error}");
        }
        assert_eq!(names(&at("")), ["folder", "link", "socket"]);
    }
}

#[test]
fn an_open_file_is_written_behind_what_it_holds() {
    use std::os::fd::AsRawFd;
    let (_folder, at) = folder();
    fs::write(at("log"), "before\n").unwrap();
    let log = File::options().append(true).open(at("log")).unwrap();
    symlink(format!("/proc/self/fd/{}", log.as_raw_fd()), at("descriptor")).unwrap();
    OutputFile::create(&at("descriptor")).unwrap().write(b"after\n").unwrap();
    assert_eq!(fs::read_to_string(at("log")).unwrap(), "before\nafter\n");
    assert!(is_link(&at("descriptor")));
}

#[test]
fn a_file_that_is_replaced_keeps_its_permissions() {
    for write in WRITERS {
        let (_folder, at) = folder();
        fs::write(at("private"), "before").unwrap();
        fs::set_permissions(at("private"), fs::Permissions::from_mode(0o600)).unwrap();
        write(&at("private"), b"after").unwrap();
        assert_eq!(fs::metadata(at("private")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(at("private")).unwrap(), b"after");
    }
}

#[test]
fn a_journal_is_a_regular_file_or_is_refused_by_its_kind() {
    let (_folder, at) = folder();
    pipe(&at("pipe"));
    fs::create_dir(at("folder")).unwrap();
    for (name, kind) in [("pipe", "a pipe"), ("folder", "a folder")] {
        let error = open_journal(&at(name)).unwrap_err().to_string();
        assert!(error.ends_with(&format!("{name}: expected a regular file, got {kind}")), "{error}");
    }
    symlink("journal", at("link")).unwrap();
    open_journal(&at("link")).unwrap();
    assert!(is_link(&at("link")) && at("journal").is_file());
}

#[test]
fn a_folder_is_one_or_is_refused_by_its_kind() {
    let (_folder, at) = folder();
    fs::write(at("file"), "").unwrap();
    pipe(&at("pipe"));
    for (name, kind) in [("file", "a regular file"), ("pipe", "a pipe")] {
        for error in [OutputFolder::create(&at(name)).err(), NewFolder::create(&at(name)).err()] {
            let error = error.unwrap().to_string();
            assert!(error.ends_with(&format!("{name}: expected a folder, got {kind}")), "{error}");
        }
    }
    symlink("made", at("link")).unwrap();
    let made = OutputFolder::create(&at("link")).unwrap();
    made.write("file", b"").unwrap();
    assert!(is_link(&at("link")) && at("made").is_dir());
}

#[test]
fn a_new_folder_takes_the_place_of_the_one_that_a_link_leads_to() {
    let (_folder, at) = folder();
    fs::create_dir(at("real")).unwrap();
    fs::write(at("real/old"), "").unwrap();
    symlink("real", at("link")).unwrap();
    let new = NewFolder::create(&at("link")).unwrap();
    fs::write(new.path().join("new"), "").unwrap();
    new.replace().unwrap();
    assert!(is_link(&at("link")));
    assert_eq!(names(&at("real")), ["new"]);
    assert_eq!(names(&at("")), ["link", "real"]);
}

#[test]
fn a_claimed_folder_is_no_other_processs_until_it_is_given_back() {
    let (_folder, at) = folder();
    let claimed = OutputFolder::claim(&at("out")).unwrap();
    let error = OutputFolder::claim(&at("out")).unwrap_err().to_string();
    assert!(error.ends_with("out: another process is writing into this folder"), "{error}");
    drop(claimed);
    OutputFolder::claim(&at("out")).unwrap();
}
