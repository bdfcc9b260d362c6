//! Readings as a Parquet table with one row each; a diverged run has one row that says so, without numbers. The
//! metadata contain the study.

use std::sync::Arc;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde::{Deserialize, Serialize};

use super::Study;
use super::reading::{ATTRIBUTES, DISTANCES, DesignResult, Reading, stops};
use super::shard::Shard;

/// Number of designs in a group of rows.
const GROUP: usize = 64;
/// Key of the metadata with the origin of the rows.
const ORIGIN: &str = "lake.study";
/// Value of the column of stops for a diverged run.
const DIVERGED: &str = "diverged";

/// Origin of a shard's rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) version: String,
    pub(super) study: Study,
    /// Labels of the methods.
    pub(super) methods: Vec<String>,
    /// Number of runs of each method in a design.
    pub(super) seeds: usize,
    pub(super) shard: Shard,
}

/// Names of a study's columns.
pub(super) fn names(study: &Study) -> Vec<String> {
    columns(study, &[]).into_iter().map(|(name, _)| name).collect()
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

    /// Declaration of the column in a schema.
    fn declared(&self, name: &str) -> String {
        let repetition = if matches!(self, Self::Number(_)) { "OPTIONAL" } else { "REQUIRED" };
        let annotation = if matches!(self, Self::Text(_)) { " (UTF8)" } else { "" };
        format!("{repetition} {} {name}{annotation};", self.kind())
    }
}

/// A row: a reading of a run, or the fact that the run diverged.
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
fn columns(study: &Study, rows: &[Row<'_>]) -> Vec<(String, Column)> {
    let text = |of: &dyn for<'r> Fn(&'r Row<'_>) -> &'r str| {
        // Consecutive equal texts share their memory.
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
    for (place, factor) in study.factors().enumerate() {
        // A dot would be read as a path.
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

/// Encodes a file.
pub(super) fn encode(origin: &Origin, results: &[DesignResult]) -> Result<Vec<u8>, ParquetError> {
    let json = serde_json::to_string(origin).map_err(|error| ParquetError::External(error.into()))?;
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("lake {}", origin.version))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(vec![KeyValue::new(ORIGIN.to_owned(), json)]));
    let mut fields = String::new();
    for (name, column) in columns(&origin.study, &[]) {
        // Numbers are rarely repeated.
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
        for (_, column) in columns(&origin.study, &rows(origin, group, &stops)) {
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

/// Decodes a file.
pub(super) fn decode(bytes: Vec<u8>) -> Result<(Origin, Vec<DesignResult>), ParquetError> {
    let file = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
    let metadata = file.metadata().file_metadata();
    let origin = metadata.key_value_metadata().into_iter().flatten().find(|pair| pair.key == ORIGIN);
    let json = origin.and_then(|pair| pair.value.as_deref());
    let json = json.ok_or_else(|| unexpected("it does not say of which study it is"))?;
    let origin: Origin = strict_json::from_str(json).map_err(|error| ParquetError::External(error.into()))?;
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
                    // The first row of a design is of its first run.
                    seed: seed[row] as u64,
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

/// Reader of the columns of a group of rows, in their order.
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

    /// Values of a column, and for each row whether it has one if it may be missing.
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
