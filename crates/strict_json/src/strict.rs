//! A deserializer that wraps another and rejects duplicate keys, and arrays in place of structs.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// A wrapper of a deserializer, or of a part of one, that rejects duplicate keys, and arrays in place of structs, at
/// any depth.
///
/// Keys must be strings. The wrapper can be used between another wrapper and the format:
///
/// ```
/// use serde::Deserialize;
///
/// let mut json = serde_json::Deserializer::from_str(r#"{"a": {"b": 1, "b": 2}}"#);
/// let value = serde_json::Value::deserialize(strict_json::Strict(&mut json));
/// assert!(value.unwrap_err().to_string().starts_with(r#"duplicate key "b""#));
/// ```
#[derive(Debug)]
pub struct Strict<D>(pub D);

/// The strict visitor or seed of a value.
struct Within<T> {
    inner: T,
    /// Whether the value is a struct's, for which an array is refused.
    is_struct: bool,
}

impl<T> Within<T> {
    fn any(inner: T) -> Self {
        Self { inner, is_struct: false }
    }
}

/// An object's entries, and the keys of those that were read.
struct Entries<A> {
    inner: A,
    seen: BTreeSet<String>,
}

macro_rules! forward {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(Within::any(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    forward! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_option
        deserialize_unit deserialize_seq deserialize_map deserialize_identifier
    }

    /// Reads ignored values too, as a format may skip them without checking their keys.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, Within::any(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Within::any(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(length, Within::any(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, length, Within::any(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Within { inner: visitor, is_struct: true })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Within::any(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Within<V> {
    type Value = V::Value;

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128, visit_u8: u8,
        visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32, visit_f64: f64, visit_char: char,
        visit_str: &str, visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Strict(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Strict(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        match self.is_struct {
            true => Err(A::Error::custom("expected an object, got an array")),
            false => self.inner.visit_seq(Within::any(elements)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Entries { inner: entries, seen: BTreeSet::new() })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Within::any(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Within<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Strict(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Within<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Within::any(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let Some(key) = self.inner.next_key::<String>()? else { return Ok(None) };
        if self.seen.contains(&key) {
            return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
        }
        let value = seed.deserialize(key.as_str().into_deserializer())?;
        self.seen.insert(key);
        Ok(Some(value))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Within::any(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Within<A> {
    type Error = A::Error;
    type Variant = Within<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        self.inner.variant_seed(seed).map(|(name, variant)| (name, Within::any(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Within<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Within::any(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(length, Within::any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Within { inner: visitor, is_struct: true })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::{Value, json};

    use crate::from_str;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        inner: Option<Inner>,
        list: Vec<Inner>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        number: f64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Plain,
        Named { name: String },
        Wrapped(Inner),
    }

    fn refusal<T: serde::de::DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        let error = from_str::<T>(text).unwrap_err().to_string();
        error.split(" at line").next().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_serde_json_reads_is_read_alike() {
        for text in [
            "null",
            "[1, -2.5e300, true, \"x\\n\"]",
            "{\"a\": {\"b\": [{}]}, \"b\": {\"b\": 1}}",
            "18446744073709551615",
        ] {
            assert_eq!(from_str::<Value>(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        }
        let text = r#"{"inner": {"number": 1}, "list": [{"number": 2}], "kind": {"named": {"name": "n"}}}"#;
        let outer = from_str::<Outer>(text).unwrap();
        assert_eq!(outer.kind, Kind::Named { name: "n".to_owned() });
        assert_eq!((outer.inner, outer.list), (Some(Inner { number: 1.0 }), vec![Inner { number: 2.0 }]));
        assert_eq!(from_str::<Kind>(r#""plain""#).unwrap(), Kind::Plain);
        assert_eq!(from_str::<(f64, [u8; 2])>("[1, [2, 3]]").unwrap(), (1.0, [2, 3]));
        assert_eq!(from_str::<BTreeMap<String, Value>>(r#"{"a": 1}"#).unwrap()["a"], json!(1));
        for bad in ["", "{", "[1,]", "{} {}", "nan", "{\"a\" 1}"] {
            let (ours, theirs) = (from_str::<Value>(bad).unwrap_err(), serde_json::from_str::<Value>(bad).unwrap_err());
            assert_eq!(ours.to_string(), theirs.to_string());
        }
    }

    #[test]
    fn a_duplicate_key_is_refused_by_its_name_at_any_depth() {
        for text in [
            r#"{"k": 1, "k": 1}"#,
            r#"[{"a": {"k": 1, "b": 2, "k": 3}}]"#,
            r#"{"a": [[{"k": null, "k": null}]]}"#,
            r#"{"k": 1, "\u006b": 2}"#,
        ] {
            assert_eq!(refusal::<Value>(text), r#"duplicate key "k""#, "{text}");
        }
        assert_eq!(refusal::<Inner>(r#"{"number": 1, "number": 2}"#), r#"duplicate key "number""#);
        let text = r#"{"list": [], "kind": {"wrapped": {"number": 1, "number": 2}}}"#;
        assert_eq!(refusal::<Outer>(text), r#"duplicate key "number""#);
        // Checks the values of ignored fields too.
        assert_eq!(refusal::<Inner>(r#"{"number": 1, "more": {"k": 1, "k": 2}}"#), r#"duplicate key "k""#);
    }

    #[test]
    fn an_array_in_place_of_an_object_is_refused_as_what_it_is() {
        let expected = "expected an object, got an array";
        assert_eq!(refusal::<Inner>("[1]"), expected);
        assert_eq!(refusal::<Outer>(r#"{"inner": [1], "list": [], "kind": "plain"}"#), expected);
        assert_eq!(refusal::<Outer>(r#"{"list": [[1]], "kind": "plain"}"#), expected);
        assert_eq!(refusal::<Kind>(r#"{"named": ["n"]}"#), expected);
        assert_eq!(refusal::<Kind>(r#"{"wrapped": [1]}"#), expected);
    }

    #[test]
    fn one_byte_order_mark_is_skipped_and_a_second_is_not() {
        assert_eq!(from_str::<Value>("\u{feff}[1]").unwrap(), json!([1]));
        assert!(from_str::<Value>("\u{feff}\u{feff}[1]").is_err());
    }
}
