//! Results of a study on disk: one Parquet file per shard, which appears only when it is complete.
//!
//! While a shard runs, each finished design is a line of its journal: a checksum and JSON. Whatever ends the run, the
//! same command goes on behind the last whole line. When every design is there, the shard's file is made from the
//! journal in the order of designs and appears by rename, and the journal goes. So the file's bytes do not depend on
//! how often a run was ended, nor on threads.
//!
//! A file's name ends in a checksum of its bytes: `shard-3-of-100-1a2b3c4d.parquet`. What is in it, `table` says.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use program::{Journal, OutputFolder};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Study;
use super::reading::{DesignResult, run};
use super::table::{Origin, decode, encode};
use crate::error::LakeError;

/// Maximum number of shards.
const MOST_SHARDS: usize = 100_000;

/// One of `of` parts of a study's designs: every `of`-th design, beginning with the one at position `number`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Number of the shard, from 1.
    pub number: usize,
    /// Number of all shards.
    pub of: usize,
}

/// All results of a study.
#[derive(Clone, Debug)]
pub struct Results {
    /// Version of the program that made the results.
    pub version: String,
    /// The study that was run.
    pub study: Study,
    /// Labels of the methods.
    pub methods: Vec<String>,
    /// One result per design, in order.
    pub designs: Vec<DesignResult>,
}

impl Shard {
    /// The only shard of an undivided study.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// Numbers of the shard's designs.
    pub fn designs(&self, designs: usize) -> impl Iterator<Item = usize> + use<> {
        (self.number - 1..designs).step_by(self.of)
    }

    /// Prefix of the names of the shard's files.
    fn stem(&self) -> String {
        format!("shard-{}-of-{}", self.number, self.of)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        let shard = numbers.filter(|(number, of)| (1..=*of).contains(number) && *of <= MOST_SHARDS);
        let allowed = format!("NUMBER/OF with 1 <= NUMBER <= OF <= {MOST_SHARDS}");
        shard.map(|(number, of)| Self { number, of }).ok_or(format!("expected {allowed}, got {text}"))
    }
}

/// Runs a shard's unfinished designs on rayon's current threads, and writes its file. Calls
/// `begun` with the number of all and of unfinished designs, and `finished` after each design.
///
/// # Errors
///
/// [`LakeError`] of a design; [`LakeError::File`] where nothing can be written; [`LakeError::Shard`] for a corrupt
/// journal or file, one of another study, or one that another process is writing. Nothing that is finished is lost.
pub fn run_shard(
    study: &Study,
    shard: Shard,
    folder: &OutputFolder,
    begun: impl FnOnce(usize, usize),
    finished: impl Fn() + Sync,
) -> Result<PathBuf, LakeError> {
    let base = study.base()?;
    let origin = Origin {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        study: study.clone(),
        methods: base.method.iter().map(|entry| entry.label().to_owned()).collect(),
        seeds: base.seeds,
        shard,
    };
    let numbers: Vec<_> = shard.designs(study.designs).collect();
    if let Some(path) = find(folder.path(), shard)? {
        let (theirs, _) = read(&path)?;
        origin.expect(&theirs, &path)?;
        begun(numbers.len(), 0);
        // What is left where a run ended between the two.
        if journal_path(folder.path(), shard).exists() {
            open_journal(folder.path(), &origin)?.0.remove()?;
        }
        return Ok(path);
    }
    let (journal, done) = open_journal(folder.path(), &origin)?;
    let finished_before: BTreeSet<_> = done.iter().map(|result| result.design).collect();
    let left: Vec<_> = numbers.iter().copied().filter(|number| !finished_before.contains(number)).collect();
    begun(numbers.len(), left.len());
    let journal = Mutex::new(journal);
    let fresh = left.into_par_iter().map(|number| {
        let result = run(&study.design(number)?, &study.stops)?;
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        let line = checksummed(&journal.json(&result)?);
        journal.append(&line)?;
        drop(journal);
        finished();
        Ok(result)
    });
    let fresh = fresh.collect::<Result<Vec<_>, LakeError>>()?;
    let mut results: Vec<_> = done.into_iter().chain(fresh).collect();
    results.sort_by_key(|result| result.design);
    let bytes = encode(&origin, &results)
        .map_err(|error| LakeError::Shard { path: folder.path().join(shard.stem()), problem: error.to_string() })?;
    let path = folder.write(&format!("{}-{:08x}.parquet", shard.stem(), crc32fast::hash(&bytes)), &bytes)?;
    journal.into_inner().unwrap_or_else(PoisonError::into_inner).remove()?;
    Ok(path)
}

/// Reads all results in a folder. `claims` replaces the claims of the study that they were made for.
///
/// # Errors
///
/// [`LakeError::Shard`] if shards are missing, corrupt, or of another study.
pub fn merge(folder: &Path, claims: Option<Study>) -> Result<Results, LakeError> {
    let fail = |problem: String| LakeError::Shard { path: folder.to_owned(), problem };
    let files = files(folder)?;
    let Some((first, _)) = files.first() else {
        return Err(fail("expected files shard-NUMBER-of-OF-CHECKSUM.parquet, found none".to_owned()));
    };
    let of = first.of;
    if let Some((other, path)) = files.iter().find(|(shard, _)| shard.of != of) {
        let problem = format!("shard {other} beside shards of {of}; expected those of one run of the study");
        return Err(LakeError::Shard { path: path.clone(), problem });
    }
    let missing: Vec<_> = (1..=of).filter(|number| !files.iter().any(|(shard, _)| shard.number == *number)).collect();
    if !missing.is_empty() {
        let named: Vec<_> = missing.iter().take(20).map(usize::to_string).collect();
        let more = if missing.len() > named.len() { ", ..." } else { "" };
        return Err(fail(format!("{} of {of} shards are missing: {}{more}", missing.len(), named.join(", "))));
    }
    let (mut designs, mut origin) = (Vec::new(), None::<Origin>);
    for (shard, path) in &files {
        let (theirs, results) = read(path)?;
        let mut expected = Origin { shard: *shard, ..origin.as_ref().unwrap_or(&theirs).clone() };
        if let Some(study) = &claims {
            expected.study = study.clone();
        }
        expected.expect(&theirs, path)?;
        let numbers = shard.designs(expected.study.designs);
        if !numbers.eq(results.iter().map(|result| result.design)) {
            let problem = "its rows are not of the designs that it should have; remove it to run it again".to_owned();
            return Err(LakeError::Shard { path: path.clone(), problem });
        }
        designs.extend(results);
        origin.get_or_insert(expected);
    }
    designs.sort_by_key(|result| result.design);
    let Some(Origin { version, study, methods, .. }) = origin else { return Err(fail("no shards".to_owned())) };
    Ok(Results { version, study, methods, designs })
}

impl Origin {
    fn expect(&self, theirs: &Self, path: &Path) -> Result<(), LakeError> {
        let fail = |problem: String| Err(LakeError::Shard { path: path.to_owned(), problem });
        if self.version != theirs.version {
            return fail(format!(
                "made by version {}, expected {}; choose another folder",
                theirs.version, self.version
            ));
        }
        let same = self.study.has_results_of(&theirs.study) && self.shard == theirs.shard;
        if !same {
            return fail("results of another study, or of this one before a change; choose another folder".to_owned());
        }
        Ok(())
    }
}

/// Path of a shard's journal.
fn journal_path(folder: &Path, shard: Shard) -> PathBuf {
    folder.join(format!("{}.journal", shard.stem()))
}

/// A shard's journal, and the designs that are finished in it.
fn open_journal(folder: &Path, origin: &Origin) -> Result<(Journal, Vec<DesignResult>), LakeError> {
    let path = journal_path(folder, origin.shard);
    let fail = |problem: String| LakeError::Shard { path: path.clone(), problem };
    let taken = || fail("another process is running this shard".to_owned());
    let (mut journal, lines) = Journal::open(&path)?.ok_or_else(taken)?;
    let corrupt =
        |number: usize| fail(format!("line {number} is corrupt; remove the file to run the shard's designs again"));
    let mut lines = (1..).zip(lines.split_inclusive(|byte| *byte == b'\n'));
    match lines.next() {
        Some((number, line)) => {
            let theirs: Origin = read_line(line).ok_or_else(|| corrupt(number))?;
            origin.expect(&theirs, &path)?;
        }
        None => journal.append(&checksummed(&journal.json(origin)?))?,
    }
    let results = lines.map(|(number, line)| read_line(line).ok_or_else(|| corrupt(number)));
    Ok((journal, results.collect::<Result<_, LakeError>>()?))
}

/// JSON with its checksum before it.
fn checksummed(json: &[u8]) -> Vec<u8> {
    [format!("{:08x} ", crc32fast::hash(json)).as_bytes(), json].concat()
}

/// Reads a journal's line whose checksum is right.
fn read_line<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (sum, json) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?.strip_suffix(' ')?, 16).ok()?;
    (crc32fast::hash(json) == sum).then(|| strict_json::from_slice(json).ok())?
}

/// All shards' files in a folder, in order.
fn files(folder: &Path) -> Result<Vec<(Shard, PathBuf)>, LakeError> {
    let io = |source| LakeError::File { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if let Some((shard, _)) = path.file_name().and_then(|name| named(name.to_str()?)) {
            files.push((shard, path));
        }
    }
    files.sort_by_key(|(shard, _)| shard.number);
    if let Some(twice) = files.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let problem = format!("a second file of shard {}; remove the one that is not wanted", twice[1].0);
        return Err(LakeError::Shard { path: twice[1].1.clone(), problem });
    }
    Ok(files)
}

fn find(folder: &Path, shard: Shard) -> Result<Option<PathBuf>, LakeError> {
    Ok(files(folder)?.into_iter().find(|(other, _)| *other == shard).map(|(_, path)| path))
}

/// Shard and checksum in a file's name.
fn named(name: &str) -> Option<(Shard, u32)> {
    let (shard, sum) = name.strip_prefix("shard-")?.strip_suffix(".parquet")?.rsplit_once('-')?;
    Some((shard.replace("-of-", "/").parse().ok()?, u32::from_str_radix(sum, 16).ok()?))
}

/// Contents of a shard's file.
fn read(path: &Path) -> Result<(Origin, Vec<DesignResult>), LakeError> {
    let fail = |problem: &str| LakeError::Shard { path: path.to_owned(), problem: problem.to_owned() };
    let bytes = std::fs::read(path).map_err(|source| LakeError::File { path: path.to_owned(), source })?;
    let sum = path.file_name().and_then(|name| named(name.to_str()?)).map(|(_, sum)| sum);
    if sum != Some(crc32fast::hash(&bytes)) {
        return Err(fail("the checksum in its name is not that of its bytes; remove it to run it again"));
    }
    decode(bytes).map_err(|error| fail(&format!("{error}; remove it to run it again")))
}
