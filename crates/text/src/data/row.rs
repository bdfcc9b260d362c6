//! Reader of the rows of a Parquet file as JSON objects.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Number, Value};

use super::at;
use super::source::{LONGEST, Take};
use super::unusable::Unusable;
use crate::error::{TextError, refuse};

/// Number of rows in memory at once: a page of a few bytes may hold the same long text a thousand times.
const BATCH: usize = 64;

/// Reads rows as objects until `take` breaks.
pub(super) fn each(path: &Path, file: File, take: &mut Take<'_>) -> Result<(), TextError> {
    let damaged = |source: ParquetError| TextError::Parquet { path: path.to_owned(), source };
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    for column in reader.metadata().file_metadata().schema().get_fields() {
        if !is_readable(column) {
            return Err(TextError::Field {
                path: path.to_owned(),
                field: column.name().to_owned(),
                allowed: "text, numbers, true or false, or lists and groups of these".to_owned(),
                given: kind(column),
            });
        }
    }
    let mut rows = reader.get_row_iter(None).map_err(damaged)?.with_batch_size(BATCH);
    for number in 1.. {
        // The library panics on some damaged pages. Reading stops after an error, so no broken state is used.
        let row = match catch_unwind(AssertUnwindSafe(|| rows.next())) {
            Ok(Some(row)) => row.map_err(|error| error.to_string()),
            Ok(None) => break,
            Err(_) => Err("a damaged page".to_owned()),
        };
        let row = row.map_err(|given| at(path, number, refuse("row", "readable values in all columns", given)))?;
        let object = match row.get_column_iter().map(|(_, field)| bytes(field)).sum::<u64>() > LONGEST {
            true => Err(Unusable::Fields.because(refuse("row", format!("at most {LONGEST} bytes"), "more"))),
            false => Ok(object(row)),
        };
        if take(number, object)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Number of bytes of a value's texts.
fn bytes(field: &Field) -> u64 {
    match field {
        Field::Str(text) => text.len() as u64,
        Field::Group(row) => row.get_column_iter().map(|(_, field)| bytes(field)).sum(),
        Field::ListInternal(list) => list.elements().iter().map(bytes).sum(),
        _ => 8,
    }
}

/// Whether a column's type has an equivalent in JSON lines. The library panics on some other types, or reads them
/// wrongly.
fn is_readable(column: &Type) -> bool {
    let converted = column.get_basic_info().converted_type();
    if column.is_primitive() {
        let is_value = match column.get_physical_type() {
            Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE => converted == ConvertedType::NONE,
            Physical::INT32 | Physical::INT64 => matches!(
                converted,
                ConvertedType::NONE
                    | ConvertedType::INT_8
                    | ConvertedType::INT_16
                    | ConvertedType::INT_32
                    | ConvertedType::INT_64
                    | ConvertedType::UINT_8
                    | ConvertedType::UINT_16
                    | ConvertedType::UINT_32
                    | ConvertedType::UINT_64
            ),
            Physical::BYTE_ARRAY => matches!(converted, ConvertedType::UTF8 | ConvertedType::ENUM),
            Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY => false,
        };
        return is_value && column.get_basic_info().repetition() != Repetition::REPEATED;
    }
    match (converted, column.get_fields()) {
        (_, []) => false,
        (ConvertedType::LIST, [repeated]) => {
            let is_list = repeated.get_basic_info().repetition() == Repetition::REPEATED;
            is_list && repeated.is_group() && repeated.get_fields().iter().all(|element| is_readable(element))
        }
        (ConvertedType::NONE, fields) => {
            column.get_basic_info().repetition() != Repetition::REPEATED
                && fields.iter().all(|field| is_readable(field))
        }
        _ => false,
    }
}

/// Name of the column's type in a schema.
fn kind(column: &Type) -> String {
    let repetition = column.get_basic_info().repetition();
    let converted = match column.get_basic_info().converted_type() {
        ConvertedType::NONE => String::new(),
        converted => format!(" ({converted})"),
    };
    if column.is_primitive() {
        format!("{repetition} {}{converted}", column.get_physical_type())
    } else {
        let names: Vec<_> = column.get_fields().iter().map(|field| field.name()).collect();
        format!("{repetition} group{converted} of {}", names.join(", "))
    }
}

/// The fields that are not null: every row has an entry for every column, whether or not it has a value.
fn object(row: Row) -> Map<String, Value> {
    let fields = row.into_columns().into_iter();
    fields.filter(|(_, field)| *field != Field::Null).map(|(name, field)| (name, value(field))).collect()
}

fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::from(value),
        Field::Byte(value) => Value::from(value),
        Field::Short(value) => Value::from(value),
        Field::Int(value) => Value::from(value),
        Field::Long(value) => Value::from(value),
        Field::UByte(value) => Value::from(value),
        Field::UShort(value) => Value::from(value),
        Field::UInt(value) => Value::from(value),
        Field::ULong(value) => Value::from(value),
        Field::Float(value) => number(f64::from(value)),
        Field::Double(value) => number(value),
        Field::Str(value) => Value::String(value),
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        other => Value::String(other.to_string()),
    }
}

/// Infinity and not-a-number become their names as text, because JSON has no such numbers; no field of numbers accepts
/// text.
fn number(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
    use parquet::schema::parser::parse_message_type;
    use serde_json::json;

    use super::super::{Learnt, parse_lines, read_records};
    use super::*;

    const TEXT: &str = "optional binary NAME (STRING);";
    const NUMBER: &str = "optional double NAME;";
    const INTEGER: &str = "optional int64 NAME;";
    const TURN: &str = "optional group NAME { optional binary content (STRING); optional binary role (STRING); }";

    fn list(element: &str) -> String {
        let element = element.replace("NAME", "element");
        format!("optional group NAME (LIST) {{ repeated group list {{ {element} }} }}")
    }

    fn schema(columns: &[(&str, &str)]) -> String {
        let columns: String = columns.iter().map(|(name, column)| column.replace("NAME", name)).collect();
        format!("message schema {{ {columns} }}")
    }

    /// A column in Parquet's form: the existing values, and the definition and repetition levels of each place.
    #[derive(Clone, Default)]
    struct Leaf {
        values: Vec<Value>,
        definition: Vec<i16>,
        repetition: Vec<i16>,
    }

    impl Leaf {
        fn write(self, column: &mut SerializedColumnWriter<'_>, kind: Physical) {
            let (definition, repetition) = (Some(self.definition.as_slice()), Some(self.repetition.as_slice()));
            let values = self.values.iter();
            match kind {
                Physical::BOOLEAN => {
                    let values: Vec<_> = values.map(|value| value.as_bool().unwrap()).collect();
                    column.typed::<BoolType>().write_batch(&values, definition, repetition).unwrap();
                }
                Physical::INT64 => {
                    let values: Vec<_> = values.map(|value| value.as_i64().unwrap()).collect();
                    column.typed::<Int64Type>().write_batch(&values, definition, repetition).unwrap();
                }
                Physical::DOUBLE => {
                    let values: Vec<_> = values.map(|value| value.as_f64().unwrap_or(f64::NAN)).collect();
                    column.typed::<DoubleType>().write_batch(&values, definition, repetition).unwrap();
                }
                _ => {
                    let values: Vec<_> = values.map(|value| ByteArray::from(value.as_str().unwrap())).collect();
                    column.typed::<ByteArrayType>().write_batch(&values, definition, repetition).unwrap();
                }
            }
        }
    }

    fn width(column: &Type) -> usize {
        if column.is_primitive() { 1 } else { column.get_fields().iter().map(|field| width(field)).sum() }
    }

    /// Splits a value into leaves, as in Dremel.
    fn shred(column: &Type, value: &Value, [definition, repetition, depth]: [i16; 3], leaves: &mut [Leaf]) {
        let information = column.get_basic_info();
        let is_list = information.converted_type() == ConvertedType::LIST;
        let is_optional = information.has_repetition() && information.repetition() == Repetition::OPTIONAL;
        let definition_within = definition + i16::from(is_optional && !value.is_null());
        if value.is_null() || value.as_array().is_some_and(|items| is_list && items.is_empty()) {
            for leaf in leaves {
                leaf.definition.push(definition_within);
                leaf.repetition.push(repetition);
            }
        } else if column.is_primitive() {
            leaves[0].values.push(value.clone());
            leaves[0].definition.push(definition_within);
            leaves[0].repetition.push(repetition);
        } else if is_list {
            let element = &column.get_fields()[0].get_fields()[0];
            for (index, item) in value.as_array().unwrap().iter().enumerate() {
                let repetition = if index == 0 { repetition } else { depth + 1 };
                shred(element, item, [definition_within + 1, repetition, depth + 1], leaves);
            }
        } else {
            let mut first = 0;
            for field in column.get_fields() {
                let leaves = &mut leaves[first..first + width(field)];
                shred(field, &value[field.name()], [definition_within, repetition, depth], leaves);
                first += width(field);
            }
        }
    }

    fn write(path: &Path, schema: &str, rows: &[Value], compression: Compression) {
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut leaves = vec![Leaf::default(); width(&schema)];
        rows.iter().for_each(|row| shred(&schema, row, [0; 3], &mut leaves));
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut file = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
        let kinds: Vec<_> = file.schema_descr().columns().iter().map(|column| column.physical_type()).collect();
        let mut group = file.next_row_group().unwrap();
        for (leaf, kind) in leaves.into_iter().zip(kinds) {
            let mut column = group.next_column().unwrap().unwrap();
            leaf.write(&mut column, kind);
            column.close().unwrap();
        }
        group.close().unwrap();
        file.close().unwrap();
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.parquet");
        (folder, path)
    }

    /// The error of reading, without the folder.
    fn refused(schema: &str, rows: &[Value]) -> String {
        let (folder, path) = folder();
        write(&path, schema, rows, Compression::UNCOMPRESSED);
        let error = read_records(&path, Learnt::Last).unwrap_err().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    fn equal_lines(schema: &str, rows: &[Value]) {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let expected = parse_lines("data.jsonl".as_ref(), &lines, Learnt::Every).unwrap();
        let (_folder, path) = folder();
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default())] {
            write(&path, schema, rows, compression);
            assert_eq!(read_records(&path, Learnt::Every).unwrap(), expected, "{compression}");
        }
    }

    fn said(turns: &[(&str, &str)]) -> Value {
        turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
    }

    #[test]
    fn ultrafeedback_is_read_as_its_lines_are() {
        let turns = list(TURN);
        let schema = schema(&[
            ("prompt", TEXT),
            ("prompt_id", TEXT),
            ("chosen", &turns),
            ("rejected", &turns),
            ("messages", &turns),
            ("score_chosen", NUMBER),
            ("score_rejected", NUMBER),
        ]);
        let row = |prompt: &str, good: &str, bad: &str| {
            let chosen = said(&[("user", prompt), ("assistant", good)]);
            json!({"prompt": prompt, "prompt_id": "5f", "chosen": chosen,
                "rejected": said(&[("user", prompt), ("assistant", bad)]), "messages": chosen, "score_chosen": 8.5,
                "score_rejected": 7.0})
        };
        equal_lines(&schema, &[row("hi", "ho", "no"), row("Wie geht's?", "Gut – danke! 🙂", ""), row("a", "b", "c")]);
    }

    #[test]
    fn ultrachat_is_read_as_its_lines_are() {
        let schema = schema(&[("prompt", TEXT), ("prompt_id", TEXT), ("messages", &list(TURN))]);
        let row = |turns: &[(&str, &str)]| json!({"prompt": turns[0].1, "prompt_id": "5f", "messages": said(turns)});
        let long = row(&[("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")]);
        equal_lines(&schema, &[long, row(&[("user", "hi"), ("assistant", "ho")])]);
    }

    #[test]
    fn lists_of_lists_labels_and_ids_are_read_as_their_lines_are() {
        let (numbers, ids) = (list(NUMBER), list(INTEGER));
        let columns = [("prompt_ids", ids.as_str()), ("completions_ids", &list(&ids)), ("rewards", &numbers)];
        let group = json!({"prompt_ids": [1, 2], "completions_ids": [[3], [4, 5], [6]], "rewards": [0.5, -1.0, 0.1]});
        equal_lines(&schema(&columns), &[group.clone(), group]);
        let columns = [("prompt", list(TURN)), ("completions", list(&list(TURN))), ("rewards", numbers)];
        let columns = columns.each_ref().map(|(name, column)| (*name, column.as_str()));
        let completions = json!([said(&[("assistant", "b"), ("user", "c"), ("assistant", "d")]), []]);
        let group = json!({"prompt": said(&[("user", "a")]), "completions": completions, "rewards": [1.0, 0.0]});
        equal_lines(&schema(&columns), &[group.clone(), group]);
        let columns = [("prompt", TEXT), ("completion", TEXT), ("label", "optional boolean NAME;")];
        let rows = [true, false].map(|label| json!({"prompt": "a", "completion": "b", "label": label}));
        equal_lines(&schema(&columns), &rows);
    }

    #[test]
    fn a_field_that_is_null_is_none() {
        let turn = "optional group NAME { optional binary content (STRING); optional binary role (STRING); \
            optional binary name (STRING); }";
        let columns = [("prompt", TEXT), ("completion", TEXT), ("messages", &list(turn)), ("note", TEXT)];
        let rows = [json!({"prompt": "a", "completion": "b"}), json!({"messages": said(&[("assistant", "c")])})];
        equal_lines(&schema(&columns), &rows);
        let missing = refused(&schema(&columns), &[rows[0].clone(), json!({"prompt": "a", "completion": null})]);
        assert_eq!(missing, "data.parquet: row 2: completion: expected text or a list of turns, got nothing");
    }

    #[test]
    fn rows_that_are_malformed_are_refused_by_number() {
        let good = json!({"prompt": "a", "completions": ["b", "c"], "rewards": [1.0, 2.0]});
        let columns = [("prompt", TEXT), ("completions", &list(TEXT)), ("rewards", &list(NUMBER)), ("note", TEXT)];
        let second = |row: Value| refused(&schema(&columns), &[good.clone(), row]);
        for (field, value, message) in [
            (
                "note",
                json!("d"),
                "note: expected one of the fields prompt, completions, rewards, advantage, got an unknown field",
            ),
            ("rewards", json!([1.0, "NaN"]), "rewards[1]: expected a number from -1e30 to 1e30, got \"NaN\""),
            ("rewards", json!([1.0, null]), "rewards[1]: expected a number from -1e30 to 1e30, got null"),
            ("completions", json!(["b", null]), "completions[1]: expected text or a list of turns, got null"),
            (
                "completions",
                json!([]),
                "completions: expected at least 2 responses, as each reward is compared with the others, got 0",
            ),
        ] {
            let mut row = good.clone();
            row[field] = value;
            assert_eq!(second(row), format!("data.parquet: row 2: {message}"));
        }
        assert_eq!(refused(&schema(&columns), &[]), "data.parquet: lines: expected at least 1, got 0");
    }

    #[test]
    fn columns_that_no_line_could_be_are_refused_by_name() {
        let allowed = "text, numbers, true or false, or lists and groups of these";
        for (column, kind) in [
            ("optional binary NAME;", "OPTIONAL BYTE_ARRAY"),
            ("required int64 NAME (TIMESTAMP_MILLIS);", "REQUIRED INT64 (TIMESTAMP_MILLIS)"),
            ("repeated int64 NAME;", "REPEATED INT64"),
            (
                "optional group NAME (MAP) { repeated group key_value { required binary key (UTF8); optional int64 value; } }",
                "OPTIONAL group (MAP) of key_value",
            ),
            ("optional group NAME (LIST) { repeated int64 element; }", "OPTIONAL group (LIST) of element"),
        ] {
            let message = format!("data.parquet: note: expected {allowed}, got {kind}");
            assert_eq!(refused(&schema(&[("prompt", TEXT), ("note", column)]), &[]), message);
        }
    }

    /// Peak memory of the process, bytes.
    #[cfg(target_os = "linux")]
    fn peak() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        peak.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_expands_a_thousand_fold_is_read_in_bounded_batches() {
        let (_folder, path) = folder();
        let schema = Arc::new(parse_message_type(&schema(&[("prompt", TEXT), ("completion", TEXT)])).unwrap());
        let mut file = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::default()).unwrap();
        let mut group = file.next_row_group().unwrap();
        // All rows have the same text, which the file stores once.
        let (rows, text) = (40_000_usize, ByteArray::from("x".repeat(1 << 16).as_str()));
        while let Some(mut column) = group.next_column().unwrap() {
            let (values, there) = (vec![text.clone(); rows], vec![1; rows]);
            column.typed::<ByteArrayType>().write_batch(&values, Some(&there), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        file.close().unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        let (mut bytes, before) = (0, peak());
        each(&path, File::open(&path).unwrap(), &mut |_, object| {
            bytes += object?.values().map(|value| value.as_str().unwrap().len() as u64).sum::<u64>();
            Ok(std::ops::ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(bytes, (2 * rows as u64) << 16);
        assert!(bytes > 1000 * size, "{bytes} bytes of {size}");
        let more = peak() - before;
        assert!(more < 512 << 20, "{more} bytes of memory");
    }

    #[test]
    fn no_damaged_byte_is_a_panic() {
        let (_folder, path) = folder();
        let text = read_records(&path, Learnt::Last).unwrap_err().to_string();
        assert!(text.ends_with("data.parquet: No such file or directory (os error 2)"), "{text}");
        std::fs::write(&path, "{\"prompt\": \"a\"}").unwrap();
        let text = read_records(&path, Learnt::Last).unwrap_err().to_string();
        assert!(text.ends_with("data.parquet: Parquet error: Invalid Parquet file. Corrupt footer"), "{text}");
        let columns = [("prompt", TEXT), ("completions", &list(TEXT)), ("rewards", &list(NUMBER))];
        let row = json!({"prompt": "a", "completions": ["b", "c"], "rewards": [1.0, 2.0]});
        write(&path, &schema(&columns), &[row.clone(), row], Compression::UNCOMPRESSED);
        let bytes = std::fs::read(&path).unwrap();
        for place in 0..bytes.len() {
            for flipped in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[place] ^= flipped;
                std::fs::write(&path, &damaged).unwrap();
                // Damage may go unnoticed, as only the structure of the pages can reveal it.
                if let Err(error) = read_records(&path, Learnt::Last) {
                    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
                }
            }
        }
    }
}
