//! Reader of one `safetensors` file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype as StoredDtype, Metadata, TensorInfo};
use serde_json::{Map, Value};
use tch::Tensor;
use text::json;

use crate::checkpoint::config::Dtype;
use crate::checkpoint::finite::{first_not_finite, problem};
use crate::error::LmError;

/// Maximum size of a header, bytes.
const LONGEST_HEADER: u64 = 100_000_000;
/// The header's key for metadata, which does not name a tensor.
const ABOUT: &str = "__metadata__";

/// An opened file, and its header.
pub(crate) struct StoredFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Offset of the tensors' bytes.
    begin: u64,
}

impl StoredFile {
    pub(crate) fn open(path: &Path) -> Result<Self, LmError> {
        let at = |source| LmError::File { path: path.to_owned(), source };
        let refuse = |problem: String| LmError::Weights { path: path.to_owned(), problem };
        let mut file = File::open(path).map_err(at)?;
        let length = file.metadata().map_err(at)?.len();
        json::refuse_pointer_at(path)?;
        let mut word = [0; 8];
        let header = match file.read_exact(&mut word) {
            Ok(()) => u64::from_le_bytes(word),
            Err(_) => return Err(refuse(format!("expected a header of safetensors, got {length} bytes"))),
        };
        let begin = header.saturating_add(8);
        if header > LONGEST_HEADER || begin > length {
            return Err(refuse(format!("a header of {header} bytes does not fit in a file of {length} bytes")));
        }
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text).map_err(at)?;
        let header: Map<String, Value> =
            strict_json::from_slice(&text).map_err(|error| refuse(format!("header: {error}")))?;
        if header.get(ABOUT).is_some_and(Value::is_null) {
            return Err(refuse(format!(
                "header: {ABOUT}: expected an object of strings, or the key to be absent, got null"
            )));
        }
        let metadata: Metadata =
            serde_json::from_value(header.into()).map_err(|error| refuse(format!("header: {error}")))?;
        let expected = begin + metadata.data_len() as u64;
        if expected != length {
            let cut = if length < expected { ": it was truncated" } else { "" };
            return Err(refuse(format!("expected {expected} bytes, as its header says, got {length}{cut}")));
        }
        Ok(Self { path: path.to_owned(), file, metadata, begin })
    }

    /// Error about a tensor of this file.
    pub(crate) fn refuse(&self, name: &str, problem: String) -> LmError {
        LmError::Weight { path: self.path.clone(), tensor: name.to_owned(), problem }
    }

    /// Whether the file has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// Names of the tensors, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Rejects a file with a tensor that does not belong to the model.
    pub(crate) fn only(&self, belongs: impl Fn(&str) -> bool) -> Result<(), LmError> {
        match self.names().into_iter().find(|name| !belongs(name)) {
            Some(name) => Err(self.refuse(&name, "is not a parameter of this model".to_owned())),
            None => Ok(()),
        }
    }

    /// Reads a tensor of this shape in its stored type.
    pub(crate) fn tensor(&mut self, name: &str, expected: &[i64]) -> Result<Tensor, LmError> {
        let (dtype, bytes) = self.numbers(name, expected)?;
        Ok(Tensor::f_from_data_size(&bytes, expected, dtype.kind())?)
    }

    /// Reads a tensor's bytes and type, and checks that every number is finite.
    pub(super) fn finite_tensor(&mut self, name: &str, expected: &[i64]) -> Result<(Dtype, Tensor), LmError> {
        let (dtype, bytes) = self.numbers(name, expected)?;
        match first_not_finite(&bytes, dtype) {
            Some(index) => Err(self.refuse(name, problem(index, expected))),
            None => Ok((dtype, Tensor::f_from_data_size(&bytes, expected, dtype.kind())?)),
        }
    }

    fn numbers(&mut self, name: &str, expected: &[i64]) -> Result<(Dtype, Vec<u8>), LmError> {
        let refuse = |problem: String| LmError::Weight { path: self.path.clone(), tensor: name.to_owned(), problem };
        let Some(TensorInfo { dtype, shape, data_offsets: (begin, end) }) = self.metadata.info(name) else {
            return Err(refuse("is missing".to_owned()));
        };
        let size: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        if size != expected {
            return Err(refuse(format!("expected the shape {expected:?}, got {size:?}")));
        }
        let dtype = match dtype {
            StoredDtype::F32 => Dtype::Float32,
            StoredDtype::F16 => Dtype::Float16,
            StoredDtype::BF16 => Dtype::Bfloat16,
            other => return Err(refuse(format!("expected F32, F16 or BF16, got {other:?}"))),
        };
        let mut bytes = vec![0; end - begin];
        let at = |source| LmError::File { path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(self.begin + *begin as u64)).map_err(at)?;
        self.file.read_exact(&mut bytes).map_err(at)?;
        Ok((dtype, bytes))
    }
}
