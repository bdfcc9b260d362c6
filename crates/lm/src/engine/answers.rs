//! The output file of `lm generate`, which grows by whole lines so that an interrupted command can be resumed.
//!
//! `FILE.asked.json` holds the settings that determine the answers in `FILE`. A format that is one document instead of
//! lines is made from the lines of `FILE.jsonl` once these are complete.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use program::{Journal, OutputFolder};
use serde::Serialize;
use text::resumption::is_the_same;

use super::generate::GenerationSettings;
use crate::checkpoint::config::Dtype;
use crate::error::LmError;

/// Settings that determine the answers.
#[derive(Debug, Serialize)]
pub struct Answering<'a> {
    /// Fingerprint of the model's weights, adapters included.
    pub model: String,
    /// Fingerprint of the prompts' tokens.
    pub prompts: String,
    /// Type of the model's numbers.
    pub dtype: Dtype,
    /// Device of the model.
    pub device: &'a str,
    /// Sampling settings, and the number of prompts that are generated together.
    #[serde(flatten)]
    pub settings: &'a GenerationSettings,
    /// Format of the document, if the output is one.
    pub format: Option<&'static str>,
    /// Name of the model in the document.
    pub generator: Option<&'a str>,
}

/// Fingerprint of the prompts' tokens.
pub fn fingerprint(prompts: &[Vec<u32>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for prompt in prompts {
        hasher.update(&(prompt.len() as u64).to_le_bytes());
        prompt.iter().for_each(|token| _ = hasher.update(&token.to_le_bytes()));
    }
    hasher.finalize().to_hex().to_string()
}

/// Layout of an output file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// JSON lines, one per answer.
    Lines,
    /// One document, written when all answers are complete.
    Document,
}

/// An output file that has been checked to be writable.
#[derive(Debug)]
pub struct AnswerFile {
    folder: OutputFolder,
    name: String,
    path: PathBuf,
    layout: Layout,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A file that does not exist yet.
    New,
    /// An existing file to resume, which may contain answers.
    Resumed,
    /// A device or a pipe, which is written to directly.
    Stream,
}

/// A file that answers are appended to.
#[derive(Debug)]
pub struct Answers {
    path: PathBuf,
    lines: Lines,
    known: Vec<u8>,
}

#[derive(Debug)]
enum Lines {
    Journal(Journal),
    Stream(File),
    /// No file: the document is written to a stream as a whole.
    Nowhere,
}

impl AnswerFile {
    /// Checks that answers can be written to the path, before any work is done.
    ///
    /// # Errors
    ///
    /// [`LmError::Taken`] for an existing file, unless it is resumed; [`LmError::File`] for a path without a file name,
    /// and for a folder that cannot be written to.
    pub fn check(path: &Path, layout: Layout, resume: bool) -> Result<Self, LmError> {
        let refuse = |problem: &'static str| LmError::Taken { path: path.to_owned(), problem };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| refuse("expected a file's name in UTF-8"))?.to_owned();
        let kind = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(refuse("it is a folder; expected a file")),
            Ok(found) if !found.is_file() && resume => {
                return Err(refuse("--resume needs a regular file, which answers are appended to"));
            }
            Ok(found) if !found.is_file() => Kind::Stream,
            _ if resume => Kind::Resumed,
            Ok(_) => {
                return Err(refuse(
                    "the file exists already: with its .asked.json, --resume continues it; another --out starts over",
                ));
            }
            Err(_) => Kind::New,
        };
        let file = Self { folder: OutputFolder::create(parent)?, name, path: path.to_owned(), layout, kind };
        if let (Kind::New, Layout::Document) = (&file.kind, layout)
            && file.beside(LINES_SUFFIX).exists()
        {
            return Err(LmError::Taken {
                path: file.beside(LINES_SUFFIX),
                problem: "a file of unfinished answers exists: --resume continues it; another --out starts over",
            });
        }
        Ok(file)
    }

    fn beside(&self, end: &str) -> PathBuf {
        self.folder.path().join(format!("{}{end}", self.name))
    }

    /// Whether the document already exists and was made with the current settings.
    ///
    /// # Errors
    ///
    /// As [`AnswerFile::begin`].
    pub fn is_whole(&self, settings: &impl Serialize) -> Result<bool, LmError> {
        let is_whole = self.layout == Layout::Document && matches!(self.kind, Kind::Resumed) && self.path.exists();
        if is_whole {
            self.hold(settings)?;
        }
        Ok(is_whole)
    }

    fn hold(&self, settings: &impl Serialize) -> Result<(), LmError> {
        Ok(is_the_same(&self.beside(SETTINGS_SUFFIX), settings, "as for the answers that the file has")?)
    }

    /// Opens the file to append answers after the existing ones.
    ///
    /// # Errors
    ///
    /// [`LmError::Field`] naming the first setting that differs from the file's; [`LmError::Taken`] if another process
    /// appends to the file, or if its settings are missing; [`LmError::File`].
    pub fn begin(&self, settings: &impl Serialize) -> Result<Answers, LmError> {
        let fail = |source| LmError::File { path: self.path.clone(), source };
        if let Kind::Stream = self.kind {
            let lines = match self.layout {
                Layout::Lines => Lines::Stream(OpenOptions::new().write(true).open(&self.path).map_err(fail)?),
                Layout::Document => Lines::Nowhere,
            };
            return Ok(Answers { path: self.path.clone(), lines, known: Vec::new() });
        }
        let path = match self.layout {
            Layout::Lines => self.path.clone(),
            Layout::Document => self.beside(LINES_SUFFIX),
        };
        let taken = |problem| LmError::Taken { path: path.clone(), problem };
        let is_there = path.exists();
        let (journal, known) =
            Journal::open(&path)?.ok_or_else(|| taken("another process is writing answers to this file"))?;
        // A command that ended before its first line leaves an empty file.
        if is_there && self.beside(SETTINGS_SUFFIX).exists() {
            self.hold(settings)?;
        } else if known.is_empty() {
            let bytes = serde_json::to_vec_pretty(settings).map_err(|error| fail(error.into()))?;
            self.folder.write(&format!("{}{SETTINGS_SUFFIX}", self.name), &bytes)?;
        } else {
            return Err(taken("the settings of these answers are unknown, as their .asked.json is missing"));
        }
        Ok(Answers { path, lines: Lines::Journal(journal), known })
    }

    /// Writes the document, and removes the file with its answers as lines.
    ///
    /// # Errors
    ///
    /// [`LmError::File`].
    pub fn finish(&self, document: &[u8], answers: Answers) -> Result<(), LmError> {
        drop(answers);
        if let Kind::Stream = self.kind {
            let written = OpenOptions::new().write(true).open(&self.path).and_then(|mut file| file.write_all(document));
            return written.map_err(|source| LmError::File { path: self.path.clone(), source });
        }
        self.folder.write(&self.name, document)?;
        let lines = self.beside(LINES_SUFFIX);
        std::fs::remove_file(&lines).map_err(|source| LmError::File { path: lines, source })
    }
}

/// Suffix of the file of settings.
const SETTINGS_SUFFIX: &str = ".asked.json";
/// Suffix of the file of a document's lines.
const LINES_SUFFIX: &str = ".jsonl";

impl Answers {
    /// Existing answers of the file, one per line.
    pub fn known(&self) -> impl Iterator<Item = &[u8]> {
        self.known.split_inclusive(|byte| *byte == b'\n')
    }

    /// Appends an answer as JSON.
    ///
    /// # Errors
    ///
    /// [`LmError::File`].
    pub fn append(&mut self, answer: &impl Serialize) -> Result<(), LmError> {
        match &mut self.lines {
            Lines::Journal(journal) => Ok(journal.append(&journal.json(answer)?)?),
            Lines::Stream(file) => {
                let fail = |source| LmError::File { path: self.path.clone(), source };
                let line = serde_json::to_vec(answer).map_err(|error| fail(error.into()))?;
                file.write_all(&[&line, &b"\n"[..]].concat()).and_then(|()| file.flush()).map_err(fail)
            }
            Lines::Nowhere => Ok(()),
        }
    }
}
