//! Reader of a data file as a sequence of JSON objects: its lines, the entries of its list, or its rows.
//!
//! One object is in memory at a time, and none is larger than [`LONGEST`], however large the decompressed file is.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::ops::ControlFlow;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::{Map, Value};
use strict_json::Strict;

use super::unusable::Unusable;
use super::{at, row};
use crate::error::{TextError, refuse};

/// Maximum size of a line, of a list's entry, or of a row, in bytes.
pub(super) const LONGEST: u64 = 64 << 20;

/// Consumer of a file's objects: called with the number of each object, from 1, and the object or its error.
pub(super) type Take<'a> = dyn FnMut(usize, Result<Map<String, Value>, TextError>) -> Taken + 'a;
/// Result of the consumer: continue with the next object, or break.
pub(super) type Taken = Result<ControlFlow<()>, TextError>;

/// Format of a file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON lines, one object a line.
    Lines,
    /// A JSON list of objects, or JSON lines.
    Records,
    Parquet,
}

/// Formats by file extension, and whether gzip compresses the file.
const FORMATS: [(&str, Format, bool); 5] = [
    ("jsonl", Format::Lines, false),
    ("json", Format::Records, false),
    ("jsonl.gz", Format::Lines, true),
    ("json.gz", Format::Records, true),
    ("parquet", Format::Parquet, false),
];

impl Format {
    /// The format, and whether gzip compresses the file.
    pub(super) fn of(path: &Path) -> Result<(Self, bool), TextError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ends = |end: &str| name.strip_suffix(end).is_some_and(|stem| stem.ends_with('.') && stem.len() > 1);
        let known = FORMATS.into_iter().find(|(end, ..)| ends(end));
        known.map(|(_, format, is_compressed)| (format, is_compressed)).ok_or_else(|| {
            let given = path.extension().unwrap_or_default();
            TextError::Field {
                path: path.to_owned(),
                field: "extension".to_owned(),
                allowed: format!("one of {}", FORMATS.map(|(end, ..)| end).join(", ")),
                given: if given.is_empty() { "none".to_owned() } else { given.to_string_lossy().into_owned() },
            }
        })
    }
}

/// Reads a file's objects until `take` breaks.
///
/// # Errors
///
/// [`TextError::Field`] for the name of another format and for a path that is not a regular file; [`TextError::File`]
/// and [`TextError::Parquet`] for a file that cannot be read; errors of `take`.
pub(super) fn each(path: &Path, take: &mut Take<'_>) -> Result<(), TextError> {
    let (format, is_compressed) = Format::of(path)?;
    let file = regular(path)?;
    if format == Format::Parquet {
        return row::each(path, file, take);
    }
    let fail = |source| TextError::File { path: path.to_owned(), source };
    let mut reader: Box<dyn Read> =
        if is_compressed { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
    let start = start(&mut reader).map_err(fail)?;
    if let Some(given) = foreign(&start) {
        return Err(TextError::Field {
            path: path.to_owned(),
            field: "encoding".to_owned(),
            allowed: "UTF-8".to_owned(),
            given: given.to_owned(),
        });
    }
    let start = start.strip_prefix(BYTE_ORDER_MARK).map_or(start.clone(), <[u8]>::to_vec);
    let mut reader = Cursor::new(start).chain(BufReader::new(reader));
    if format == Format::Records && is_list(&mut reader).map_err(fail)? {
        return entries(path, reader, take);
    }
    lines(path, reader, take)
}

/// Byte order mark, with which a file in UTF-8 may begin; it is not part of the text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The file's first three bytes, or all bytes of a shorter file.
fn start(reader: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    reader.take(3).read_to_end(&mut start)?;
    Ok(start)
}

/// Name of the encoding or compression that these first bytes belong to, if it is not UTF-8.
fn foreign(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        [0x1f, 0x8b, ..] => Some("gzip-compressed data, whose file name must end in .gz"),
        _ => None,
    }
}

/// Opens a regular file for reading. Other kinds are refused: a device has no end, and a pipe can be read only once.
///
/// # Errors
///
/// [`TextError::File`] for a file that cannot be opened, and [`TextError::Field`] for a path that is not a regular
/// file.
pub fn regular(path: &Path) -> Result<File, TextError> {
    let fail = |source| TextError::File { path: path.to_owned(), source };
    // Checks the kind first: opening a pipe without a writer would block.
    let kind = std::fs::metadata(path).map_err(fail)?.file_type();
    if kind.is_file() {
        return File::open(path).map_err(fail);
    }
    let given = if kind.is_dir() { "a folder" } else { special(kind) };
    Err(TextError::Field {
        path: path.to_owned(),
        field: "file".to_owned(),
        allowed: "a regular file".to_owned(),
        given: given.to_owned(),
    })
}

#[cfg(unix)]
fn special(kind: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match () {
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

#[cfg(not(unix))]
fn special(_kind: std::fs::FileType) -> &'static str {
    "something else"
}

/// Whether the text begins with a list, after any white space.
fn is_list(reader: &mut impl BufRead) -> std::io::Result<bool> {
    loop {
        let buffer = reader.fill_buf()?;
        match buffer.iter().position(|byte| !byte.is_ascii_whitespace()) {
            Some(place) => {
                let is_list = buffer[place] == b'[';
                // Blank lines before the first object count as lines.
                if is_list {
                    reader.consume(place);
                }
                return Ok(is_list);
            }
            None if buffer.is_empty() => return Ok(false),
            None => {
                let length = buffer.len();
                reader.consume(length);
            }
        }
    }
}

/// Reads the objects of lines. Blank lines at the end are skipped.
pub(super) fn lines(path: &Path, mut reader: impl BufRead, take: &mut Take<'_>) -> Result<(), TextError> {
    let fail = |source| TextError::File { path: path.to_owned(), source };
    let (mut line, mut blank) = (Vec::new(), None);
    for number in 1.. {
        line.clear();
        let length = reader.by_ref().take(LONGEST + 1).read_until(b'\n', &mut line).map_err(fail)?;
        if length == 0 {
            break;
        }
        if line.iter().all(u8::is_ascii_whitespace) && length as u64 <= LONGEST {
            blank.get_or_insert(number);
            continue;
        }
        if let Some(first) = blank.take() {
            for blank in first..number {
                if take(blank, Err(no_object(path, "a blank line")))?.is_break() {
                    return Ok(());
                }
            }
        }
        let object = if length as u64 > LONGEST {
            if line.last() != Some(&b'\n') {
                reader.skip_until(b'\n').map_err(fail)?;
            }
            Err(too_long(path))
        } else {
            strict_json::from_slice(&line).map_err(|error| no_object(path, error))
        };
        if take(number, object)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn no_object(path: &Path, given: impl ToString) -> TextError {
    Unusable::Json.because(refuse(unit(path), "a JSON object", given))
}

fn too_long(path: &Path) -> TextError {
    Unusable::Json.because(refuse(unit(path), format!("at most {LONGEST} bytes"), "more"))
}

/// The word for an object in a file of this name: line, record or row.
fn unit(path: &Path) -> &'static str {
    match Format::of(path) {
        Ok((Format::Records, _)) => "record",
        Ok((Format::Parquet, _)) => "row",
        _ => "line",
    }
}

/// Reads the objects of a list.
fn entries(path: &Path, reader: impl BufRead, take: &mut Take<'_>) -> Result<(), TextError> {
    let left = Cell::new(LONGEST);
    let mut ended = None;
    // Reads byte by byte from the reader's own buffer: a second buffer would read beyond the limited record.
    let mut deserializer = serde_json::Deserializer::from_reader(Bounded { reader, left: &left });
    let entries = Entries { path, take, left: &left, ended: &mut ended };
    let read = Strict(&mut deserializer).deserialize_seq(entries).and_then(|()| deserializer.end());
    match ended {
        Some(ended) => ended,
        None => read.map_err(|source| TextError::Json { path: path.to_owned(), field: "list".to_owned(), source }),
    }
}

/// A reader that fails after a limit of bytes.
struct Bounded<'a, R> {
    reader: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        let left = left.ok_or_else(|| std::io::Error::other(format!("a record of more than {LONGEST} bytes")))?;
        self.left.set(left);
        Ok(read)
    }
}

/// Visitor of a list's entries.
struct Entries<'a, 'b> {
    path: &'a Path,
    take: &'a mut Take<'b>,
    left: &'a Cell<u64>,
    /// The reason that reading ended before the list did.
    ended: &'a mut Option<Result<(), TextError>>,
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Self { path, take, left, ended } = self;
        for number in 1.. {
            left.set(LONGEST);
            let Some(value) = access.next_element()? else { break };
            let object = match value {
                Value::Object(object) => Ok(object),
                other => Err(no_object(path, other)),
            };
            let end = match take(number, object) {
                Ok(ControlFlow::Continue(())) => continue,
                Ok(ControlFlow::Break(())) => Ok(()),
                Err(error) => Err(error),
            };
            *ended = Some(end);
            return Err(A::Error::custom("ended"));
        }
        Ok(())
    }
}

/// The results of `read` for all objects of a file; the first error ends it.
///
/// # Errors
///
/// As [`each`]; [`TextError::Line`], [`TextError::Entry`] and [`TextError::Row`] for the first object that `read`
/// rejects.
pub(super) fn all<T>(
    path: &Path,
    read: impl Fn(&Map<String, Value>) -> Result<Vec<T>, TextError>,
    each: impl FnOnce(&mut Take<'_>) -> Result<(), TextError>,
) -> Result<Vec<(usize, T)>, TextError> {
    let mut all = Vec::new();
    each(&mut |number, object| {
        let records = object.and_then(|object| read(&object)).map_err(|error| at(path, number, error))?;
        all.extend(records.into_iter().map(|record| (number, record)));
        Ok(ControlFlow::Continue(()))
    })?;
    if all.is_empty() {
        let field = if unit(path) == "record" { "records" } else { "lines" };
        let (field, allowed, given) = (field.to_owned(), "at least 1".to_owned(), "0".to_owned());
        return Err(TextError::Field { path: path.to_owned(), field, allowed, given });
    }
    Ok(all)
}
