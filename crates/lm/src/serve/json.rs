//! Parser of a request's JSON. It rejects duplicate keys, and limits values while it parses, as short texts can become
//! large values.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::refusal::{Refusal, cut};

/// Maximum depth of nested lists and objects.
const DEPTH: usize = 64;
/// Maximum number of values and keys, each of which takes as much memory as a short text.
const VALUES: usize = 1 << 20;
/// Maximum number of objects, each of which takes as much memory as a list of twenty values, even if it is empty.
const OBJECTS: usize = 1 << 16;

/// Parses a JSON object.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let parsing = Parsing::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Bounded { parsing: &parsing, depth: 0 }.deserialize(&mut deserializer);
    match read.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(Refusal::body(format!("body: expected a JSON object, got {}", super::request::short(&other)))),
        Err(error) => Err(match parsing.problem.take() {
            Some((path, problem)) => match path.concat().trim_start_matches('.') {
                "" => Refusal::body(format!("body: {problem}")),
                path => Refusal::body(format!("{path}: {problem}")).with_param(path),
            },
            None => Refusal::body(format!("body: expected a JSON object: {error}")),
        }),
    }
}

/// State of the parser: counts of the values so far, and the error.
#[derive(Default)]
struct Parsing {
    values: Cell<usize>,
    objects: Cell<usize>,
    /// Error text, with the path of keys and indices to it.
    problem: RefCell<Option<(Vec<String>, String)>>,
}

impl Parsing {
    fn refuse<E: Error>(&self, path: Vec<String>, problem: impl Into<String>) -> E {
        self.problem.replace(Some((path, problem.into())));
        E::custom("refused")
    }

    fn count<E: Error>(&self, counter: &Cell<usize>, most: usize, of: &str) -> Result<(), E> {
        counter.set(counter.get() + 1);
        match counter.get() > most {
            true => Err(self.refuse(Vec::new(), format!("expected at most {most} {of}"))),
            false => Ok(()),
        }
    }

    /// Adds a key or index to the path of an error.
    fn within<E>(&self, place: impl Fn() -> String) -> impl FnOnce(E) -> E {
        move |error| {
            if let Some((path, problem)) = self.problem.borrow_mut().as_mut()
                && problem.starts_with(TWICE)
            {
                path.insert(0, cut(place()));
            }
            error
        }
    }
}

/// Error text for a duplicate key.
const TWICE: &str = "expected one value, got a second one";

#[derive(Clone, Copy)]
struct Bounded<'a> {
    parsing: &'a Parsing,
    /// Number of lists and objects around the value.
    depth: usize,
}

impl Bounded<'_> {
    /// Returns the parser of the values within this one.
    fn inner<E: Error>(self) -> Result<Self, E> {
        match self.depth < DEPTH {
            true => Ok(Self { depth: self.depth + 1, ..self }),
            false => Err(self
                .parsing
                .refuse(Vec::new(), format!("expected at most {DEPTH} lists and objects in one another"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.parsing.count(&self.parsing.values, VALUES, "values and keys")?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        loop {
            let within = self.parsing.within(|| format!("[{}]", values.len()));
            let Some(value) = list.next_element_seed(inner).map_err(within)? else { break };
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        self.parsing.count(&self.parsing.objects, OBJECTS, "objects")?;
        let mut fields = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            self.parsing.count(&self.parsing.values, VALUES, "values and keys")?;
            if fields.contains_key(&key) {
                return Err(self.parsing.refuse(vec![format!(".{}", cut(key))], TWICE));
            }
            let value = object.next_value_seed(inner).map_err(self.parsing.within(|| format!(".{key}")))?;
            fields.insert(key, value);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(text: &str) -> String {
        object(text.as_bytes()).unwrap_err().json()["error"]["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn json_within_the_bounds_is_what_serde_json_reads() {
        let text = r#"{"a": [1, -2, 3.5, 1e300, 18446744073709551615, "é😀\n", true, null, {"b": {}}], "": []}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(object(text.as_bytes()).unwrap()), expected);
        let ids: Vec<usize> = (0..VALUES - 4).collect();
        assert_eq!(object(json!({"prompt": ids}).to_string().as_bytes()).unwrap()["prompt"], json!(ids));
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_by_its_name() {
        let twice = "expected one value, got a second one";
        assert_eq!(message(r#"{"seed": 1, "seed": 1}"#), format!("seed: {twice}"));
        let text = r#"{"messages": [{"role": "user"}, {"role": "user", "role": "system"}]}"#;
        assert_eq!(message(text), format!("messages[1].role: {twice}"));
        assert_eq!(object(text.as_bytes()).unwrap_err().json()["error"]["param"], "messages[1].role");
    }

    #[test]
    fn depth_values_and_objects_are_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(object(nested(DEPTH - 1).as_bytes()).is_ok());
        assert_eq!(message(&nested(DEPTH)), "body: expected at most 64 lists and objects in one another");
        assert_eq!(message(&nested(1 << 20)), "body: expected at most 64 lists and objects in one another");
        let list = |value: &str, count: usize| format!("{{\"a\":[{}]}}", vec![value; count].join(","));
        assert_eq!(message(&list("0", VALUES)), "body: expected at most 1048576 values and keys");
        assert!(object(list("{}", OBJECTS - 1).as_bytes()).is_ok());
        assert_eq!(message(&list("{\"\":0}", OBJECTS)), "body: expected at most 65536 objects");
        let keys: Map<String, Value> = (0..VALUES / 2).map(|key| (key.to_string(), Value::Null)).collect();
        assert_eq!(message(&Value::Object(keys).to_string()), "body: expected at most 1048576 values and keys");
    }

    #[test]
    fn what_is_no_json_object_is_refused_with_its_place() {
        assert!(
            message("{\"a\": [1").contains("EOF while parsing a list at line 1 column 8"),
            "{}",
            message("{\"a\": [1")
        );
        assert!(message("{} {}").contains("trailing characters"));
        assert_eq!(message("[1]"), "body: expected a JSON object, got [1]");
    }
}
