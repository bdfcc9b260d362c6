//! A model's weights as files of `safetensors`, one or several with an index, as Hugging Face folders hold them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype as StoredDtype, Metadata, TensorInfo, View};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::config::{Dtype, ModelConfig};
use crate::error::LmError;
use crate::model::{Shape, is_redundant, shapes};

/// The file of a model that has one.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Which tensor is in which file, where there are several.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Bytes of tensors in a file, beyond which the next one begins.
pub const SHARD_BYTES: usize = 5_000_000_000;
/// A header longer than this is none.
const LONGEST_HEADER: u64 = 100_000_000;

/// Tensors by their names in a checkpoint.
#[derive(Debug)]
pub struct Weights {
    folder: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl Dtype {
    /// What tensors of this kind are called by the engine.
    pub fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Float16 => Kind::Half,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }

    /// The same in a file.
    pub(crate) fn stored(self) -> StoredDtype {
        match self {
            Self::Float32 => StoredDtype::F32,
            Self::Float16 => StoredDtype::F16,
            Self::Bfloat16 => StoredDtype::BF16,
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
        }
    }
}

impl Weights {
    /// Reads every parameter of a model of this shape from its folder, as numbers of this kind on this device. One tensor at a
    /// time is in memory twice.
    ///
    /// # Errors
    ///
    /// [`LmError::File`]; [`LmError::Json`] for an index that is none; [`LmError::Weights`] for a file that is none or is cut;
    /// [`LmError::Weight`] naming a tensor that is missing, that no parameter answers to, or that has another shape or type.
    pub fn read(folder: &Path, config: &ModelConfig, dtype: Dtype, device: Device) -> Result<Self, LmError> {
        let expected = sizes(shapes(config));
        let mut weights = Self { folder: folder.to_owned(), tensors: HashMap::with_capacity(expected.len()) };
        let (files, indexed) = files(folder)?;
        for file in files {
            weights.add(&file, &expected, &|name| is_redundant(config, name), dtype, device)?;
        }
        for (name, file) in indexed {
            if !weights.tensors.contains_key(&name) && !is_redundant(config, &name) {
                let problem = format!("{INDEX_FILE} says that it is here, and it is not");
                return Err(LmError::Weight { path: folder.join(file), tensor: name, problem });
            }
        }
        weights.complete(&expected)
    }

    /// Reads the tensors of these shapes from the one file that holds them and no others, in 32 bits.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_file(file: &Path, shapes: Vec<Shape>) -> Result<Self, LmError> {
        let expected = sizes(shapes);
        let mut weights = Self { folder: file.to_owned(), tensors: HashMap::with_capacity(expected.len()) };
        weights.add(file, &expected, &|_| false, Dtype::Float32, Device::Cpu)?;
        weights.complete(&expected)
    }

    /// Takes over what a file holds.
    fn add(
        &mut self,
        file: &Path,
        expected: &Sizes,
        is_redundant: &dyn Fn(&str) -> bool,
        dtype: Dtype,
        device: Device,
    ) -> Result<(), LmError> {
        let mut stored = StoredFile::open(file)?;
        for name in stored.metadata.offset_keys() {
            if is_redundant(&name) {
                continue;
            }
            let refuse = |problem| LmError::Weight { path: file.to_owned(), tensor: name.clone(), problem };
            let size = expected.get(&name).ok_or_else(|| refuse("is no parameter of this model".to_owned()))?;
            let tensor = stored.tensor(&name, size)?.f_to_kind(dtype.kind())?.f_to_device(device)?;
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(refuse("is in two files".to_owned()));
            }
        }
        Ok(())
    }

    /// Refuses where a parameter is missing.
    fn complete(self, expected: &Sizes) -> Result<Self, LmError> {
        match expected.keys().find(|name| !self.tensors.contains_key(*name)) {
            Some(missing) => Err(self.missing(missing)),
            None => Ok(self),
        }
    }

    /// The weights of these names.
    pub fn new(folder: &Path, tensors: HashMap<String, Tensor>) -> Self {
        Self { folder: folder.to_owned(), tensors }
    }

    /// A parameter, which is then no longer here.
    ///
    /// # Errors
    ///
    /// [`LmError::Weight`] where it is missing.
    pub fn take(&mut self, name: &str) -> Result<Tensor, LmError> {
        self.tensors.remove(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> LmError {
        LmError::Weight { path: self.folder.clone(), tensor: name.to_owned(), problem: "is missing".to_owned() }
    }
}

/// The shape that each tensor is to have.
type Sizes = BTreeMap<String, Vec<i64>>;

fn sizes(shapes: Vec<Shape>) -> Sizes {
    shapes.into_iter().map(|Shape { name, size }| (name, size)).collect()
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files that hold the weights, and in which of them the index says that each tensor is.
fn files(folder: &Path) -> Result<(Vec<PathBuf>, BTreeMap<String, String>), LmError> {
    let whole = folder.join(WEIGHTS_FILE);
    let path = folder.join(INDEX_FILE);
    if whole.exists() || !path.exists() {
        return Ok((vec![whole], BTreeMap::new()));
    }
    let text = std::fs::read_to_string(&path).map_err(|source| LmError::File { path: path.clone(), source })?;
    let Index { weight_map } = serde_json::from_str(&text).map_err(|source| LmError::Json {
        path: path.clone(),
        field: "weight_map".to_owned(),
        source,
    })?;
    let mut names: Vec<_> = weight_map.values().cloned().collect();
    names.sort();
    names.dedup();
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        return Err(LmError::Field {
            path,
            field: "weight_map".to_owned(),
            allowed: "names of files beside it".to_owned(),
            given: name.clone(),
        });
    }
    Ok((names.into_iter().map(|name| folder.join(name)).collect(), weight_map))
}

/// An opened file, and what its header says.
struct StoredFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the tensors begin.
    begin: u64,
}

impl StoredFile {
    fn open(path: &Path) -> Result<Self, LmError> {
        let at = |source| LmError::File { path: path.to_owned(), source };
        let refuse = |problem: String| LmError::Weights { path: path.to_owned(), problem };
        let mut file = File::open(path).map_err(at)?;
        let length = file.metadata().map_err(at)?.len();
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
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| refuse(format!("header: {error}")))?;
        let expected = begin + metadata.data_len() as u64;
        if expected != length {
            let cut = if length < expected { ": it was cut" } else { "" };
            return Err(refuse(format!("expected {expected} bytes, as its header says, got {length}{cut}")));
        }
        Ok(Self { path: path.to_owned(), file, metadata, begin })
    }

    fn tensor(&mut self, name: &str, expected: &[i64]) -> Result<Tensor, LmError> {
        let refuse = |problem: String| LmError::Weight { path: self.path.clone(), tensor: name.to_owned(), problem };
        let Some(TensorInfo { dtype, shape, data_offsets: (begin, end) }) = self.metadata.info(name) else {
            return Err(refuse("is missing".to_owned()));
        };
        let size: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        if size != expected {
            return Err(refuse(format!("expected the shape {expected:?}, got {size:?}")));
        }
        let kind = match dtype {
            StoredDtype::F32 => Kind::Float,
            StoredDtype::F16 => Kind::Half,
            StoredDtype::BF16 => Kind::BFloat16,
            other => return Err(refuse(format!("expected F32, F16 or BF16, got {other:?}"))),
        };
        let mut bytes = vec![0; end - begin];
        let at = |source| LmError::File { path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(self.begin + *begin as u64)).map_err(at)?;
        self.file.read_exact(&mut bytes).map_err(at)?;
        Ok(Tensor::f_from_data_size(&bytes, &size, kind)?)
    }
}

/// Writes parameters as one file, or as several of `shard_bytes` with an index. Nothing of that name may be in the folder.
///
/// # Errors
///
/// [`LmError::File`], [`LmError::Weights`] and [`LmError::Engine`]; files may then be there, so write to a folder that is not yet
/// what it is to be.
pub fn write(folder: &Path, parameters: &[(Shape, &Tensor)], dtype: Dtype, shard_bytes: usize) -> Result<(), LmError> {
    let mut shards: Vec<Vec<&(Shape, &Tensor)>> = vec![Vec::new()];
    let (mut filled, mut total) = (0, 0);
    for parameter in parameters {
        let bytes = parameter.1.numel() * dtype.bytes();
        if filled > 0 && filled + bytes > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        total += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(parameter);
        }
    }
    let count = shards.len();
    let mut weight_map = BTreeMap::new();
    for (index, shard) in shards.into_iter().enumerate() {
        let name = match count {
            1 => WEIGHTS_FILE.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        let path = folder.join(&name);
        write_file(&path, shard.iter().copied(), dtype)?;
        weight_map.extend(shard.iter().map(|(shape, _)| (shape.name.clone(), name.clone())));
    }
    if count > 1 {
        #[derive(Serialize)]
        struct Written {
            metadata: BTreeMap<&'static str, usize>,
            weight_map: BTreeMap<String, String>,
        }
        let path = folder.join(INDEX_FILE);
        let written = Written { metadata: BTreeMap::from([("total_size", total)]), weight_map };
        let text = serde_json::to_string_pretty(&written).map_err(|source| LmError::Json {
            path: path.clone(),
            field: ".".to_owned(),
            source,
        })?;
        std::fs::write(&path, text + "\n").map_err(|source| LmError::File { path, source })?;
    }
    Ok(())
}

/// Writes tensors as one new file.
///
/// # Errors
///
/// As [`write()`].
pub fn write_file<'a>(
    path: &Path,
    parameters: impl IntoIterator<Item = &'a (Shape, &'a Tensor)>,
    dtype: Dtype,
) -> Result<(), LmError> {
    let views = parameters.into_iter().map(|(shape, tensor)| (&shape.name, Stored::new(shape, tensor, dtype)));
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(about), path)
        .map_err(|error| LmError::Weights { path: path.to_owned(), problem: error.to_string() })?;
    // The library makes files for their owner alone; weights are as readable as any other file.
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .map_err(|source| LmError::File { path: path.to_owned(), source })?;
    // A tensor that could not be copied is written as nothing, and the file is then shorter than its header says.
    StoredFile::open(path)?;
    Ok(())
}

/// A tensor that is brought into its file's form when its turn comes.
struct Stored<'a> {
    size: Vec<usize>,
    tensor: &'a Tensor,
    dtype: Dtype,
}

impl<'a> Stored<'a> {
    fn new(shape: &Shape, tensor: &'a Tensor, dtype: Dtype) -> Self {
        Self { size: shape.size.iter().map(|size| *size as usize).collect(), tensor, dtype }
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> StoredDtype {
        self.dtype.stored()
    }

    fn shape(&self) -> &[usize] {
        &self.size
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(bytes(self.tensor, self.dtype).unwrap_or_default())
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.dtype.bytes()
    }
}

/// A tensor's numbers as a file holds them.
///
/// # Errors
///
/// [`LmError::Engine`].
pub fn bytes(tensor: &Tensor, dtype: Dtype) -> Result<Vec<u8>, LmError> {
    let tensor = tensor.f_detach()?.f_to_kind(dtype.kind())?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * dtype.bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}
