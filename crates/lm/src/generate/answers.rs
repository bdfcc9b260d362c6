//! The file of `lm generate`, which grows by whole lines, so that a list of prompts whose answering was ended is gone on with.
//!
//! Beside `FILE`, `FILE.asked.json` has what decides every answer. A format that is one document rather than lines is made of the
//! lines in `FILE.jsonl`, and appears when all of them are there.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use program::{Journal, OutputFolder};
use serde::Serialize;

use super::Settings;
use crate::asked::is_the_same;
use crate::config::Dtype;
use crate::error::LmError;

/// What decides every answer.
#[derive(Debug, Serialize)]
pub struct Answering<'a> {
    /// Fingerprint of the model's weights, adapters included.
    pub model: String,
    /// Fingerprint of the prompts' tokens.
    pub prompts: String,
    /// What the model computes in.
    pub dtype: Dtype,
    /// Where it computes.
    pub device: &'a str,
    /// How tokens are chosen, and how many prompts go on together.
    #[serde(flatten)]
    pub settings: &'a Settings,
    /// The format of the document, if it is one.
    pub format: Option<&'static str>,
    /// What the model is called in it.
    pub generator: Option<&'a str>,
}

/// What prompts are known by.
pub fn fingerprint(prompts: &[Vec<u32>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for prompt in prompts {
        hasher.update(&(prompt.len() as u64).to_le_bytes());
        prompt.iter().for_each(|token| _ = hasher.update(&token.to_le_bytes()));
    }
    hasher.finalize().to_hex().to_string()
}

/// How answers are kept in their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A line for each.
    Lines,
    /// One document, which is made when all are there.
    Document,
}

/// A file for answers that was seen to be writable.
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
    /// Nothing is there.
    New,
    /// Answers may be there, which are gone on with.
    Resumed,
    /// A device or a pipe, which is written through.
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
    /// A document is all that a stream is given.
    Nowhere,
}

impl AnswerFile {
    /// Checks that answers can be written there, before any work is done.
    ///
    /// # Errors
    ///
    /// [`LmError::Taken`] for a file that is there, unless it is to be gone on with; [`LmError::File`] for a name that is none, and for
    /// a folder that cannot be written to.
    pub fn check(path: &Path, layout: Layout, resume: bool) -> Result<Self, LmError> {
        let refuse = |problem: &'static str| LmError::Taken { path: path.to_owned(), problem };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| refuse("expected a file's name in UTF-8"))?.to_owned();
        let kind = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(refuse("a folder is there; expected a file's name")),
            Ok(found) if !found.is_file() && resume => {
                return Err(refuse("--resume needs a regular file, which answers are appended to"));
            }
            Ok(found) if !found.is_file() => Kind::Stream,
            _ if resume => Kind::Resumed,
            Ok(_) => {
                return Err(refuse(
                    "a file is there already: with its .asked.json, --resume goes on with it; another name begins anew",
                ));
            }
            Err(_) => Kind::New,
        };
        let file = Self { folder: OutputFolder::create(parent)?, name, path: path.to_owned(), layout, kind };
        if let (Kind::New, Layout::Document) = (&file.kind, layout)
            && file.beside(LINES).exists()
        {
            return Err(LmError::Taken {
                path: file.beside(LINES),
                problem: "answers are there already: --resume goes on with them; another name begins anew",
            });
        }
        Ok(file)
    }

    fn beside(&self, end: &str) -> PathBuf {
        self.folder.path().join(format!("{}{end}", self.name))
    }

    /// Whether the document is there already, made of what is asked for now.
    ///
    /// # Errors
    ///
    /// As [`AnswerFile::begin`].
    pub fn is_whole(&self, asked: &impl Serialize) -> Result<bool, LmError> {
        let is_whole = self.layout == Layout::Document && matches!(self.kind, Kind::Resumed) && self.path.exists();
        if is_whole {
            self.hold(asked)?;
        }
        Ok(is_whole)
    }

    fn hold(&self, asked: &impl Serialize) -> Result<(), LmError> {
        is_the_same(&self.beside(ASKED), asked, "as the answers there were made with")
    }

    /// Begins to append, behind the answers that are there.
    ///
    /// # Errors
    ///
    /// [`LmError::Field`] naming what is asked for now and was not then; [`LmError::Taken`] where another process appends, and where
    /// nothing says what the answers there are of; [`LmError::File`].
    pub fn begin(&self, asked: &impl Serialize) -> Result<Answers, LmError> {
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
            Layout::Document => self.beside(LINES),
        };
        let taken = |problem| LmError::Taken { path: path.clone(), problem };
        let is_there = path.exists();
        let (journal, known) = Journal::open(&path)?.ok_or_else(|| taken("another process writes answers there"))?;
        // An empty file may be what was ended before it had a line.
        if is_there && self.beside(ASKED).exists() {
            self.hold(asked)?;
        } else if known.is_empty() {
            let bytes = serde_json::to_vec_pretty(asked).map_err(|error| fail(error.into()))?;
            self.folder.write(&format!("{}{ASKED}", self.name), &bytes)?;
        } else {
            return Err(taken("nothing says what these answers are of, as their .asked.json is missing"));
        }
        Ok(Answers { path, lines: Lines::Journal(journal), known })
    }

    /// Writes the document, and removes the lines that it is made of.
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
        let lines = self.beside(LINES);
        std::fs::remove_file(&lines).map_err(|source| LmError::File { path: lines, source })
    }
}

/// The end of the name of what decides every answer.
const ASKED: &str = ".asked.json";
/// That of the lines that a document is made of.
const LINES: &str = ".jsonl";

impl Answers {
    /// The answers that are there, a line for each.
    pub fn known(&self) -> impl Iterator<Item = &[u8]> {
        self.known.split_inclusive(|byte| *byte == b'\n')
    }

    /// Appends an answer as JSON.
    ///
    /// # Errors
    ///
    /// [`LmError::File`].
    pub fn append(&mut self, answer: &impl Serialize) -> Result<(), LmError> {
        let fail = |source| LmError::File { path: self.path.clone(), source };
        let line = serde_json::to_vec(answer).map_err(|error| fail(error.into()))?;
        match &mut self.lines {
            Lines::Journal(journal) => Ok(journal.append(&line)?),
            Lines::Stream(file) => {
                file.write_all(&[&line, &b"\n"[..]].concat()).and_then(|()| file.flush()).map_err(fail)
            }
            Lines::Nowhere => Ok(()),
        }
    }
}
