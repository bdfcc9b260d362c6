//! Stop strings, which end an answer.

use super::refusal::Refusal;
use super::request::{Fields, short};
use serde_json::Value;

/// Maximum number of stop strings.
const STOPS: usize = 16;
/// Maximum length of a stop string, bytes.
const BYTES: usize = 1024;

/// A stop string, which the algorithm of Knuth, Morris and Pratt finds in one pass.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    text: Vec<u8>,
    /// For each prefix of the text, the length of its longest proper prefix that is also its suffix.
    borders: Vec<usize>,
}

/// Search for any of several stop strings in a growing answer.
#[derive(Debug)]
pub(super) struct Stopping {
    /// Stop strings, each with the length of its longest prefix that is a suffix of the answer so far.
    stops: Vec<(Stop, usize)>,
    /// End of the answer so far that may be the beginning of a stop string.
    held: String,
}

/// Reads a request's stop strings.
pub(super) fn stops(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let allowed = format!("text, or a list of at most {STOPS} texts, each of 1 to {BYTES} bytes");
    let refuse = |given: String| Refusal::field("stop", &allowed, given);
    let stops = match fields.value("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(stops)) if stops.len() > STOPS => return Err(refuse(format!("{} texts", stops.len()))),
        Some(Value::Array(stops)) => {
            let text = |stop| match stop {
                Value::String(stop) => Ok(stop),
                other => Err(refuse(short(&other))),
            };
            stops.into_iter().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(refuse(short(&other))),
    };
    match stops.iter().find(|stop| !(1..=BYTES).contains(&stop.len())) {
        Some(stop) if stop.is_empty() => Err(refuse("an empty one".to_owned())),
        Some(stop) => Err(refuse(format!("one of {} bytes", stop.len()))),
        None => Ok(stops),
    }
}

impl Stop {
    /// Prepares the search for a non-empty text.
    pub(super) fn new(text: &str) -> Self {
        let mut stop = Self { text: text.as_bytes().to_vec(), borders: vec![0] };
        let mut border = 0;
        for place in 1..stop.text.len() {
            border = stop.after(border, stop.text[place]);
            stop.borders.push(border);
        }
        stop
    }

    /// Returns the length of the matched prefix after one more byte, from its length before.
    fn after(&self, mut length: usize, byte: u8) -> usize {
        while length > 0 && self.text[length] != byte {
            length = self.borders[length - 1];
        }
        length + usize::from(self.text[length] == byte)
    }
}

impl Stopping {
    pub(super) fn new(stops: &[Stop]) -> Self {
        Self { stops: stops.iter().map(|stop| (stop.clone(), 0)).collect(), held: String::new() }
    }

    /// Adds a piece to the answer. Returns the text that no stop string can remove any more, and whether the answer
    /// ends there. It ends before the stop string that is complete first, and before the longest of those that end at
    /// the same place.
    pub(super) fn push(&mut self, piece: &str) -> (String, bool) {
        let begin = self.held.len();
        self.held.push_str(piece);
        for (end, byte) in (begin + 1..).zip(piece.bytes()) {
            for (stop, length) in &mut self.stops {
                *length = stop.after(*length, byte);
            }
            let whole = self.stops.iter().filter(|(stop, length)| *length == stop.text.len());
            if let Some(longest) = whole.map(|(_, length)| *length).max() {
                self.held.truncate(end - longest);
                return (std::mem::take(&mut self.held), true);
            }
        }
        let begun = self.stops.iter().map(|(_, length)| *length).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - begun);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// Returns the text that was held back when the answer ends.
    pub(super) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopping(stops: &[impl AsRef<str>]) -> Stopping {
        Stopping::new(&stops.iter().map(|stop| Stop::new(stop.as_ref())).collect::<Vec<_>>())
    }

    fn stopped(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut stopping = stopping(stops);
        let mut told = Vec::new();
        for piece in pieces {
            let (certain, stops) = stopping.push(piece);
            told.push(certain);
            if stops {
                return (told, true);
            }
        }
        told.push(stopping.rest());
        (told, false)
    }

    #[test]
    fn a_text_stops_before_the_first_of_its_stops_however_it_is_cut() {
        assert_eq!(stopped(&["\n\n"], &["a\n", "\nb"]), (vec!["a".to_owned(), String::new()], true));
        assert_eq!(stopped(&["cd", "bc"], &["abcd"]), (vec!["a".to_owned()], true));
        assert_eq!(stopped(&["é!"], &["né", "e", "é", "!"]).0.concat(), "née");
        for stops in [&["bcd", "c"][..], &["aab", "ab"], &["abab", "bb"], &["aaa", "aabaa"]] {
            for text in ["abcd", "aaab", "ababb", "aaaa", "xabababx", "aabaab"] {
                let letters: Vec<&str> = text.split("").filter(|letter| !letter.is_empty()).collect();
                let (whole, cut) = (stopped(stops, &[text]), stopped(stops, &letters));
                assert_eq!((whole.0.concat(), whole.1), (cut.0.concat(), cut.1), "{stops:?} in {text}");
            }
        }
    }

    #[test]
    fn what_only_begins_like_a_stop_is_told_when_it_is_certain() {
        let told = |pieces: &[&str]| stopped(&["END"], pieces).0;
        assert_eq!(told(&["xE", "N", "x"]), ["x", "", "ENx", ""]);
        assert_eq!(told(&["xEN"]), ["x", "EN"]);
        assert_eq!(told(&["EEN"]), ["E", "EN"]);
    }

    #[test]
    fn the_longest_stops_are_searched_in_time_that_grows_with_the_text_alone() {
        let stops: Vec<String> = (0..STOPS).map(|stop| "a".repeat(BYTES - 1 - stop) + "b").collect();
        let mut stopping = stopping(&stops);
        let begun = std::time::Instant::now();
        for _ in 0..1 << 16 {
            assert!(!stopping.push("aaaa").1);
        }
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }
}
