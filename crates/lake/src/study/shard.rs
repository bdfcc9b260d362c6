//! Results of a study on disk: one Parquet file a shard, whole or not at all.
//!
//! While a shard runs, each finished design is a line of its journal: a checksum and JSON. Whatever ends the run, the same
//! command goes on behind the last whole line. When every design is there, the shard's file is made from the journal in the
//! order of designs and appears by rename, and the journal goes. So the file's bytes do not depend on how often a run was
//! ended, nor on threads.
//!
//! A file's name ends in a checksum of its bytes: `shard-3-of-100-1a2b3c4d.parquet`. Its rows are one reading each; a run that
//! diverged has one that says so, without numbers. Its metadata holds the study.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Study;
use super::reading::{ATTRIBUTES, DISTANCES, DesignResult, Reading, run, stops};
use crate::error::LakeError;
use crate::output::OutputFolder;

/// Designs in a group of rows.
const GROUP: usize = 64;
/// The key of the metadata that holds what the rows are of.
const ORIGIN: &str = "lake.study";
/// The stop of a run that diverged.
const DIVERGED: &str = "diverged";
/// The most shards.
const MOST_SHARDS: usize = 100_000;

/// A part of a study's designs: every `of`-th, from `number` on, which counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which.
    pub number: usize,
    /// Of how many.
    pub of: usize,
}

/// What a shard's rows are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Origin {
    version: String,
    study: Study,
    methods: Vec<String>,
    /// Runs of each method in a design.
    seeds: usize,
    /// The first of the first design's.
    seed: u64,
    shard: Shard,
}

/// All results of a study.
#[derive(Clone, Debug)]
pub struct Results {
    /// The program's version that made them.
    pub version: String,
    /// The study.
    pub study: Study,
    /// Labels of the methods.
    pub methods: Vec<String>,
    /// One a design, in order.
    pub designs: Vec<DesignResult>,
}

impl Shard {
    /// A study in one piece.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// Numbers of its designs.
    pub fn designs(&self, designs: usize) -> impl Iterator<Item = usize> + use<> {
        (self.number - 1..designs).step_by(self.of)
    }

    /// What its files' names begin with.
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

/// Runs a shard's designs on rayon's current threads, but for those that are there already, and writes its file; `begun` hears how
/// many there are and how many are left, `finished` is called once a design.
///
/// # Errors
///
/// [`LakeError`] of a design; [`LakeError::File`] where nothing can be written; [`LakeError::Shard`] for a corrupt journal or file,
/// one of another study, or one that another process is writing. Nothing that is finished is lost.
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
        seed: base.seed,
        shard,
    };
    let numbers: Vec<_> = shard.designs(study.designs).collect();
    if let Some(path) = find(folder.path(), shard)? {
        let (theirs, _) = read(&path)?;
        origin.expect(&theirs, &path)?;
        begun(numbers.len(), 0);
        // What is left where a run ended between the two.
        if Journal::path(folder.path(), shard).exists() {
            Journal::open(folder.path(), &origin)?.0.remove()?;
        }
        return Ok(path);
    }
    let (journal, done) = Journal::open(folder.path(), &origin)?;
    let finished_before: BTreeSet<_> = done.iter().map(|result| result.design).collect();
    let left: Vec<_> = numbers.iter().copied().filter(|number| !finished_before.contains(number)).collect();
    begun(numbers.len(), left.len());
    let journal = Mutex::new(journal);
    let fresh = left.into_par_iter().map(|number| {
        let result = run(&study.design(number)?, &study.stops)?;
        journal.lock().unwrap_or_else(PoisonError::into_inner).append(&result)?;
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

/// All results in a folder, with the claims of a study, or of the one that they were made for.
///
/// # Errors
///
/// [`LakeError::Shard`] where shards are missing, corrupt, or of another study.
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

/// The finished designs of a shard that is not.
struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    fn path(folder: &Path, shard: Shard) -> PathBuf {
        folder.join(format!("{}.journal", shard.stem()))
    }

    /// The journal, and what is in it; a last line that is not whole is cut off.
    fn open(folder: &Path, origin: &Origin) -> Result<(Self, Vec<DesignResult>), LakeError> {
        let path = Self::path(folder, origin.shard);
        let io = |source| LakeError::File { path: path.clone(), source };
        let fail = |problem: String| LakeError::Shard { path: path.clone(), problem };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        file.try_lock().map_err(|_| fail("another process is running this shard".to_owned()))?;
        let (mut results, mut whole, mut header) = (Vec::new(), 0, None::<Origin>);
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(io)?;
            if line.pop() != Some(b'\n') {
                break;
            }
            let corrupt =
                || fail(format!("line {number} is corrupt; remove the file to run the shard's designs again"));
            let json = checked(&line).ok_or_else(corrupt)?;
            match header {
                None => header = Some(serde_json::from_slice(json).map_err(|_| corrupt())?),
                Some(_) => results.push(serde_json::from_slice(json).map_err(|_| corrupt())?),
            }
            whole += length as u64;
        }
        file.set_len(whole).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        let mut journal = Self { file, path: path.clone() };
        match header {
            Some(theirs) => origin.expect(&theirs, &path)?,
            None => journal.append(origin)?,
        }
        Ok((journal, results))
    }

    fn append(&mut self, value: &impl Serialize) -> Result<(), LakeError> {
        let json = serde_json::to_string(value).map_err(std::io::Error::from);
        let line = json.map(|json| format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())));
        let written = line.and_then(|line| self.file.write_all(line.as_bytes()));
        written.map_err(|source| LakeError::File { path: self.path.clone(), source })
    }

    fn remove(self) -> Result<(), LakeError> {
        std::fs::remove_file(&self.path).map_err(|source| LakeError::File { path: self.path.clone(), source })
    }
}

/// The JSON of a journal's line whose checksum is right.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let (sum, json) = line.split_at_checked(9)?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?.strip_suffix(' ')?, 16).ok()?;
    (crc32fast::hash(json) == sum).then_some(json)
}

/// Every shard's file in a folder, in order.
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

/// The shard and the checksum in a file's name.
fn named(name: &str) -> Option<(Shard, u32)> {
    let (shard, sum) = name.strip_prefix("shard-")?.strip_suffix(".parquet")?.rsplit_once('-')?;
    Some((shard.replace("-of-", "/").parse().ok()?, u32::from_str_radix(sum, 16).ok()?))
}

/// A column of a file.
enum Column {
    Text(Vec<ByteArray>),
    Integer(Vec<i32>),
    Long(Vec<i64>),
    Number(Vec<Option<f32>>),
}

impl Column {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "BYTE_ARRAY",
            Self::Integer(_) => "INT32",
            Self::Long(_) => "INT64",
            Self::Number(_) => "FLOAT",
        }
    }

    /// As a schema declares it.
    fn declared(&self, name: &str) -> String {
        let repetition = if matches!(self, Self::Number(_)) { "OPTIONAL" } else { "REQUIRED" };
        let annotation = if matches!(self, Self::Text(_)) { " (UTF8)" } else { "" };
        format!("{repetition} {} {name}{annotation};", self.kind())
    }
}

/// A row: a reading of a run, or that the run diverged.
struct Row<'a> {
    result: &'a DesignResult,
    method: &'a str,
    seed: u64,
    stop: &'a str,
    reading: Option<&'a Reading>,
}

fn rows<'a>(origin: &'a Origin, results: &'a [DesignResult], stops: &'a [String]) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for result in results {
        for (method, runs) in origin.methods.iter().zip(&result.runs) {
            for (seed, run) in (result.seed..).zip(runs) {
                let row = |stop, reading| Row { result, method, seed, stop, reading };
                match run {
                    None => rows.push(row(DIVERGED, None)),
                    Some(readings) => {
                        rows.extend(
                            readings.iter().zip(stops).map(|(reading, stop)| row(stop.as_str(), Some(reading))),
                        );
                    }
                }
            }
        }
    }
    rows
}

/// Names and values of the columns, in their order.
fn columns(origin: &Origin, rows: &[Row<'_>]) -> Vec<(String, Column)> {
    let text = |of: &dyn for<'r> Fn(&'r Row<'_>) -> &'r str| {
        // Equal texts behind one another share their memory.
        let mut last = ByteArray::from("");
        let share = |row| {
            let text = of(row);
            if last.data() != text.as_bytes() {
                last = ByteArray::from(text);
            }
            last.clone()
        };
        Column::Text(rows.iter().map(share).collect())
    };
    let number = |of: &dyn Fn(&Reading) -> f32| Column::Number(rows.iter().map(|row| row.reading.map(of)).collect());
    let integer = |of: &dyn Fn(&Row<'_>) -> usize| Column::Integer(rows.iter().map(|row| of(row) as i32).collect());
    let mut columns = vec![("design".to_owned(), integer(&|row| row.result.design))];
    for (place, factor) in origin.study.factors().enumerate() {
        // A dot would make it a path.
        columns.push((factor.replace('.', "_"), text(&|row| &row.result.levels[place])));
    }
    for (place, attribute) in ATTRIBUTES.into_iter().enumerate() {
        columns.push((attribute.to_owned(), text(&|row| &row.result.attributes[place])));
    }
    columns.push(("demonstration_word".to_owned(), text(&|row| &row.result.demonstration)));
    columns.push(("rejected_word".to_owned(), text(&|row| &row.result.rejected)));
    columns.push(("method".to_owned(), text(&|row| row.method)));
    columns.push(("seed".to_owned(), Column::Long(rows.iter().map(|row| row.seed as i64).collect())));
    columns.push(("stop".to_owned(), text(&|row| row.stop)));
    columns.push(("step".to_owned(), integer(&|row| row.reading.map_or(0, |reading| reading.step as usize))));
    for (place, distance) in DISTANCES.into_iter().enumerate() {
        columns.push((format!("distance_{distance}"), number(&|reading| reading.distances[place])));
    }
    columns.push(("return".to_owned(), number(&|reading| reading.mean_return)));
    columns
}

/// A shard's file.
fn encode(origin: &Origin, results: &[DesignResult]) -> Result<Vec<u8>, ParquetError> {
    let json = serde_json::to_string(origin).map_err(|error| ParquetError::External(error.into()))?;
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("lake {}", origin.version))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(vec![KeyValue::new(ORIGIN.to_owned(), json)]));
    let mut fields = String::new();
    for (name, column) in columns(origin, &[]) {
        // Numbers hardly ever repeat.
        let repeats = matches!(column, Column::Text(_));
        fields += &column.declared(&name);
        properties = properties.set_column_dictionary_enabled(name.into(), repeats);
    }
    let schema = Arc::new(parse_message_type(&format!("message readings {{ {fields} }}"))?);
    let stops = stops(&origin.study.stops);
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties.build()))?;
    for group in results.chunks(GROUP) {
        let mut rows_of_group = file.next_row_group()?;
        for (_, column) in columns(origin, &rows(origin, group, &stops)) {
            let Some(mut writer) = rows_of_group.next_column()? else { break };
            match column {
                Column::Text(values) => writer.typed::<ByteArrayType>().write_batch(&values, None, None)?,
                Column::Integer(values) => writer.typed::<Int32Type>().write_batch(&values, None, None)?,
                Column::Long(values) => writer.typed::<Int64Type>().write_batch(&values, None, None)?,
                Column::Number(values) => {
                    let there: Vec<_> = values.iter().map(|value| i16::from(value.is_some())).collect();
                    let values: Vec<_> = values.into_iter().flatten().collect();
                    writer.typed::<FloatType>().write_batch(&values, Some(&there), None)?
                }
            };
            writer.close()?;
        }
        rows_of_group.close()?;
    }
    file.close()?;
    Ok(bytes)
}

/// What a shard's file says.
fn read(path: &Path) -> Result<(Origin, Vec<DesignResult>), LakeError> {
    let fail = |problem: &str| LakeError::Shard { path: path.to_owned(), problem: problem.to_owned() };
    let bytes = std::fs::read(path).map_err(|source| LakeError::File { path: path.to_owned(), source })?;
    let sum = path.file_name().and_then(|name| named(name.to_str()?)).map(|(_, sum)| sum);
    if sum != Some(crc32fast::hash(&bytes)) {
        return Err(fail("the checksum in its name is not that of its bytes; remove it to run it again"));
    }
    decode(bytes).map_err(|error| fail(&format!("{error}; remove it to run it again")))
}

fn decode(bytes: Vec<u8>) -> Result<(Origin, Vec<DesignResult>), ParquetError> {
    let file = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
    let metadata = file.metadata().file_metadata();
    let origin = metadata.key_value_metadata().into_iter().flatten().find(|pair| pair.key == ORIGIN);
    let json = origin.and_then(|pair| pair.value.as_deref());
    let json = json.ok_or_else(|| unexpected("it does not say of which study it is"))?;
    let origin: Origin = serde_json::from_str(json).map_err(|error| ParquetError::External(error.into()))?;
    let stops = stops(&origin.study.stops);
    let mut results = Vec::<DesignResult>::new();
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group)?;
        let mut columns = Columns { group: &*group, next: 0 };
        let design = columns.integers()?;
        let levels = origin.study.factors().map(|_| columns.texts()).collect::<Result<Vec<_>, _>>()?;
        let attributes = ATTRIBUTES.iter().map(|_| columns.texts()).collect::<Result<Vec<_>, _>>()?;
        let (demonstration, rejected, method) = (columns.texts()?, columns.texts()?, columns.texts()?);
        let (seed, stop, step) = (columns.longs()?, columns.texts()?, columns.integers()?);
        let distances = DISTANCES.iter().map(|_| columns.numbers()).collect::<Result<Vec<_>, _>>()?;
        let mean_return = columns.numbers()?;
        for row in 0..design.len() {
            let text = |column: &Vec<ByteArray>| column[row].as_utf8().map(str::to_owned);
            let number = design[row] as usize;
            if results.last().is_none_or(|result| result.design != number) {
                results.push(DesignResult {
                    design: number,
                    levels: levels.iter().map(text).collect::<Result<_, _>>()?,
                    attributes: attributes.iter().map(text).collect::<Result<_, _>>()?,
                    demonstration: text(&demonstration)?,
                    rejected: text(&rejected)?,
                    seed: origin.seed + (number * origin.seeds) as u64,
                    runs: vec![vec![None; origin.seeds]; origin.methods.len()],
                });
            }
            let Some(result) = results.last_mut() else { break };
            let (label, stop) = (method[row].as_utf8()?, stop[row].as_utf8()?);
            if stop == DIVERGED {
                continue;
            }
            let place = (seed[row] as u64).checked_sub(result.seed).map(|place| place as usize);
            let runs = origin.methods.iter().zip(&mut result.runs).find(|(method, _)| *method == label);
            let run = runs.and_then(|(_, runs)| runs.get_mut(place?));
            let run = run.ok_or_else(|| unexpected("a method or a seed that the study does not have"))?;
            let readings = run.get_or_insert_with(Vec::new);
            if stops.get(readings.len()).is_none_or(|expected| expected != stop) {
                return Err(unexpected("a stop that the study does not have"));
            }
            let there = |column: &Vec<Option<f32>>| column[row].ok_or_else(|| unexpected("a number is missing"));
            let distances = distances.iter().map(there).collect::<Result<Vec<_>, _>>()?;
            readings.push(Reading {
                step: step[row] as u32,
                distances: std::array::from_fn(|place| distances[place]),
                mean_return: there(&mean_return)?,
            });
        }
    }
    Ok((origin, results))
}

/// Columns of a group of rows, one behind the other.
struct Columns<'a> {
    group: &'a dyn RowGroupReader,
    next: usize,
}

impl Columns<'_> {
    fn reader(&mut self) -> Result<ColumnReader, ParquetError> {
        self.next += 1;
        self.group.get_column_reader(self.next - 1)
    }

    fn texts(&mut self) -> Result<Vec<ByteArray>, ParquetError> {
        match self.reader()? {
            ColumnReader::ByteArrayColumnReader(reader) => Ok(self.values(reader)?.0),
            _ => Err(unexpected("a column that should be text")),
        }
    }

    fn integers(&mut self) -> Result<Vec<i32>, ParquetError> {
        match self.reader()? {
            ColumnReader::Int32ColumnReader(reader) => Ok(self.values(reader)?.0),
            _ => Err(unexpected("a column that should be integers")),
        }
    }

    fn longs(&mut self) -> Result<Vec<i64>, ParquetError> {
        match self.reader()? {
            ColumnReader::Int64ColumnReader(reader) => Ok(self.values(reader)?.0),
            _ => Err(unexpected("a column that should be long integers")),
        }
    }

    fn numbers(&mut self) -> Result<Vec<Option<f32>>, ParquetError> {
        match self.reader()? {
            ColumnReader::FloatColumnReader(reader) => {
                let (values, there) = self.values(reader)?;
                let mut values = values.into_iter();
                Ok(there.into_iter().map(|there| if there > 0 { values.next() } else { None }).collect())
            }
            _ => Err(unexpected("a column that should be numbers")),
        }
    }

    /// A column's values, and for each row whether it has one, where it might not.
    fn values<T: DataType>(&self, mut reader: ColumnReaderImpl<T>) -> Result<(Vec<T::T>, Vec<i16>), ParquetError> {
        let rows = self.group.metadata().num_rows() as usize;
        let (mut values, mut there) = (Vec::with_capacity(rows), Vec::new());
        let (read, ..) = reader.read_records(rows, Some(&mut there), None, &mut values)?;
        if read == rows { Ok((values, there)) } else { Err(unexpected("fewer rows than it should have")) }
    }
}

fn unexpected(problem: &str) -> ParquetError {
    ParquetError::General(problem.to_owned())
}
