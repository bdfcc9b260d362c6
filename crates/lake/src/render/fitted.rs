//! Text, tables and drawings that fit a number of columns.

use std::fmt::Display;

use comfy_table::{CellAlignment, Table, presets};
use textwrap::{Options, WordSplitter};

/// Number of columns if the output is not a terminal.
pub const COLUMNS: usize = 120;
/// Number of empty columns between two drawings.
const GAP: usize = 3;

/// Wraps the text between words; only a word longer than a line is broken.
pub fn text(text: &str, columns: usize) -> String {
    let options = Options::new(columns).word_splitter(WordSplitter::NoHyphenation).break_words(true);
    textwrap::fill(text, options)
}

/// Whether each line of the text has at most this many columns.
pub(crate) fn fits(text: &str, columns: usize) -> bool {
    text.lines().all(|line| line.chars().count() <= columns)
}

/// Formats a table with names to the left and numbers to the right.
///
/// If the table is too wide, columns whose cells are all equal, or equal to an earlier column's, become lines below it.
/// If it is still too wide, it is split into several tables, each with the first column. No cell is ever broken.
pub(crate) fn table<Title: Display, Row: AsRef<[String]>>(header: &[Title], rows: &[Row], columns: usize) -> String {
    keyed_table(header, rows, 1, columns)
}

/// Formats a table like [`table`], whose rows are identified by the first `keys` columns instead of the first one
/// alone.
pub(crate) fn keyed_table<Title: Display, Row: AsRef<[String]>>(
    header: &[Title],
    rows: &[Row],
    keys: usize,
    columns: usize,
) -> String {
    let header: Vec<_> = header.iter().map(ToString::to_string).collect();
    let all: Vec<_> = (0..header.len()).collect();
    let whole = aligned(&header, rows, &all);
    if fits(&whole, columns) {
        return whole;
    }
    let (kept, notes) = without_repetition(&header, rows, keys);
    let (key, others) = kept.split_at(keys.min(kept.len()));
    let mut tables = Vec::new();
    let mut own = key.to_vec();
    for column in others {
        own.push(*column);
        if own.len() > keys + 1 && !fits(&aligned(&header, rows, &own), columns) {
            own.pop();
            tables.push(aligned(&header, rows, &own));
            own = key.iter().chain([column]).copied().collect();
        }
    }
    tables.push(aligned(&header, rows, &own));
    if !notes.is_empty() {
        tables.push(text(&notes.join("\n"), columns));
    }
    tables.join("\n\n")
}

/// Selects the columns to print. Omits a column that is empty, has the same value in every row, or repeats another
/// column, and returns a sentence about each of the latter two.
fn without_repetition<Row: AsRef<[String]>>(header: &[String], rows: &[Row], keys: usize) -> (Vec<usize>, Vec<String>) {
    let cells = |column: usize| rows.iter().map(move |row| row.as_ref().get(column).map_or("", String::as_str));
    let (mut kept, mut notes) = (Vec::new(), Vec::new());
    for column in 0..header.len() {
        let mut values: Vec<_> = cells(column).filter(|cell| !cell.is_empty()).collect();
        let count = values.len();
        values.dedup();
        let earlier = kept.iter().find(|earlier: &&usize| **earlier >= keys && cells(**earlier).eq(cells(column)));
        match (values.as_slice(), earlier) {
            _ if column < keys => kept.push(column),
            ([], _) => (),
            ([value], _) if count > 1 => notes.push(format!("In every row: {} {value}.", header[column])),
            (_, Some(earlier)) => notes.push(format!("The same as {}: {}.", header[*earlier], header[column])),
            _ => kept.push(column),
        }
    }
    (kept, notes)
}

fn aligned<Row: AsRef<[String]>>(header: &[String], rows: &[Row], columns: &[usize]) -> String {
    let own = |cells: &[String]| columns.iter().map(|column| cells.get(*column).cloned().unwrap_or_default()).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header::<Vec<String>>(own(header));
    for row in rows {
        table.add_row::<Vec<String>>(own(row.as_ref()));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.trim_fmt()
}

/// Drawings side by side, as many per row as fit, each under its title; `None` if one of them is too large.
pub(crate) fn side_by_side(drawings: &[(&str, Vec<String>)], columns: usize) -> Option<String> {
    let width = |(title, lines): &(&str, Vec<String>)| {
        lines.iter().map(|line| line.chars().count()).max().unwrap_or(0).max(title.chars().count())
    };
    let is_drawable = |(_, lines): &(&str, Vec<String>)| lines.len() <= COLUMNS && fits(&lines.join("\n"), columns);
    if !drawings.iter().all(is_drawable) {
        return None;
    }
    let (mut rows, mut taken) = (Vec::<Vec<_>>::new(), 0);
    for drawing in drawings {
        match rows.last_mut().filter(|_| taken + GAP + width(drawing) <= columns) {
            Some(row) => {
                taken += GAP + width(drawing);
                row.push(drawing);
            }
            None => {
                taken = width(drawing);
                rows.push(vec![drawing]);
            }
        }
    }
    let drawn = |row: Vec<&(&str, Vec<String>)>| {
        let height = row.iter().map(|(_, lines)| lines.len()).max().unwrap_or(0);
        let line = |number: usize| {
            let texts = row.iter().map(|drawing| {
                let (title, lines) = drawing;
                let text = if number == 0 { title } else { lines.get(number - 1).map_or("", String::as_str) };
                format!("{text:<width$}", width = width(drawing))
            });
            texts.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned() + "\n"
        };
        (0..=height).map(line).collect::<String>()
    };
    Some(rows.into_iter().map(drawn).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_that_repeat_themselves_go_first_and_then_the_table_is_split() {
        let header = ["method", "distance", "before", "success", "return"];
        let rows = rows(&[
            &["sft", "0.0821 ± 0.0018", "0.1887 ± 0.0009", "1.000", "1.000"],
            &["dpo", "0.0804 ± 0.0048", "0.1887 ± 0.0009", "0.984", "0.984"],
            &["optimal", "0", "", "1.000", "1.000"],
        ]);
        let wide = table(&header, &rows, 80);
        assert!(wide.contains("before") && !wide.contains("In every row") && fits(&wide, 80), "{wide}");
        let narrow = table(&header, &rows, 50);
        assert!(fits(&narrow, 50) && narrow.contains("In every row: before 0.1887 ± 0.0009."), "{narrow}");
        assert!(narrow.contains("The same as success: return."), "{narrow}");
        assert_eq!(narrow.matches("sft").count(), 1);
        let narrowest = table(&header, &rows, 30);
        assert!(fits(&narrowest, 30) && narrowest.contains("0.0821 ± 0.0018"), "{narrowest}");
        assert_eq!(narrowest.matches("sft").count(), 2);
    }

    #[test]
    fn as_many_drawings_are_in_a_row_as_fit() {
        let box_of = |width: usize| vec!["x".repeat(width)];
        let drawings = [("a", box_of(10)), ("b", box_of(10)), ("c", box_of(10))];
        let lines = |columns: usize| side_by_side(&drawings, columns).unwrap().lines().count();
        assert_eq!(lines(36), 2);
        assert_eq!(lines(35), 5);
        assert_eq!(lines(10), 8);
        assert_eq!(side_by_side(&drawings, 9), None);
    }
}
