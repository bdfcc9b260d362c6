//! Weights of a model as `safetensors` files: one file, or several with an index, as in Hugging Face folders.

mod stored;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype as StoredDtype, View};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};
use text::json;

use crate::checkpoint::config::{Dtype, ModelConfig};
use crate::checkpoint::finite::{first_not_finite, is_finite, problem};
use crate::error::LmError;
use crate::transformer::model::{EMBEDDING, HEAD, Shape, is_redundant, shapes};
pub(crate) use stored::StoredFile;

/// Name of the weights' file, if there is only one.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Name of the index, which maps tensors to their files if there are several.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Maximum total size of the tensors in one file, bytes.
pub const SHARD_BYTES: usize = 5_000_000_000;

/// Tensors by their names in a checkpoint.
#[derive(Debug)]
pub struct Weights {
    folder: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl Dtype {
    /// libtorch's name of this type.
    pub fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Float16 => Kind::Half,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }

    /// Type in which tensors of a kind are stored: the same type if files support it, or else 32 bits.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Half => Self::Float16,
            Kind::BFloat16 => Self::Bfloat16,
            _ => Self::Float32,
        }
    }

    /// The `safetensors` name of this type.
    pub(crate) fn stored(self) -> StoredDtype {
        match self {
            Self::Float32 => StoredDtype::F32,
            Self::Float16 => StoredDtype::F16,
            Self::Bfloat16 => StoredDtype::BF16,
        }
    }

    /// Size of a number, bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
        }
    }
}

impl Weights {
    /// Reads every parameter of a model of this shape from its folder, as numbers of this type on this device. Only one
    /// tensor at a time is in memory twice. If the configuration ties the output weights to the embedding table and the
    /// files have both, both are read: see [`tie`](Self::tie).
    ///
    /// # Errors
    ///
    /// [`LmError::File`]; [`LmError::Json`] for an invalid index; [`LmError::Weights`] for an invalid or truncated
    /// file; [`LmError::Weight`] naming a tensor that is missing, unexpected, not finite, in another file than the
    /// index says, or of another shape or type.
    pub fn read(folder: &Path, config: &ModelConfig, dtype: Dtype, device: Device) -> Result<Self, LmError> {
        let mut expected = sizes(shapes(config));
        let tied = config.tied_embeddings.then(|| expected.get(EMBEDDING).cloned()).flatten();
        // The files may have either of the two tied tensors, or both.
        expected.extend(tied.map(|size| (HEAD.to_owned(), size)));
        let mut weights = Self { folder: folder.to_owned(), tensors: HashMap::with_capacity(expected.len()) };
        let (files, indexed) = files(folder)?;
        let mut places = HashMap::with_capacity(expected.len());
        for file in files {
            let names = weights.add(&file, &expected, &is_redundant, dtype, device)?;
            places.extend(names.into_iter().map(|name| (name, file.clone())));
        }
        for (name, file) in indexed {
            let path = folder.join(file);
            let problem = match places.get(&name) {
                Some(place) if *place == path => continue,
                Some(place) => {
                    format!("should be in this file according to {INDEX_FILE}, but is in {}", place.display())
                }
                None if is_redundant(&name) || (config.tied_embeddings && name == HEAD) => continue,
                None => format!("should be in this file according to {INDEX_FILE}, but is not"),
            };
            return Err(LmError::Weight { path, tensor: name, problem });
        }
        let absent = [HEAD, EMBEDDING].into_iter().find(|name| !weights.tensors.contains_key(*name));
        if let Some(absent) = absent.filter(|_| config.tied_embeddings) {
            expected.remove(absent);
        }
        weights.complete(&expected)
    }

    /// Ties the output weights to the embedding table if the configuration says so, and returns whether they are tied.
    /// As in transformers, they are tied only if the files have one of the two, which then serves as both, or both with
    /// the same numbers.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn tie(&mut self) -> Result<bool, LmError> {
        let Some(head) = self.tensors.remove(HEAD) else { return Ok(true) };
        match self.tensors.get(EMBEDDING) {
            Some(embedding) if embedding.f_equal(&head)? => Ok(true),
            Some(_) => {
                self.tensors.insert(HEAD.to_owned(), head);
                Ok(false)
            }
            None => {
                self.tensors.insert(EMBEDDING.to_owned(), head);
                Ok(true)
            }
        }
    }

    /// Reads tensors of these shapes in 32 bits from one file that must contain them and no others.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_file(file: &Path, shapes: Vec<Shape>) -> Result<Self, LmError> {
        let expected = sizes(shapes);
        let mut weights = Self { folder: file.to_owned(), tensors: HashMap::with_capacity(expected.len()) };
        _ = weights.add(file, &expected, &|_| false, Dtype::Float32, Device::Cpu)?;
        weights.complete(&expected)
    }

    /// Reads a file's tensors, and returns their names.
    fn add(
        &mut self,
        file: &Path,
        expected: &Sizes,
        is_redundant: &dyn Fn(&str) -> bool,
        dtype: Dtype,
        device: Device,
    ) -> Result<Vec<String>, LmError> {
        let mut stored = StoredFile::open(file)?;
        let names = stored.names();
        for name in names.iter().filter(|name| !is_redundant(name)) {
            let refuse = |problem| LmError::Weight { path: file.to_owned(), tensor: name.clone(), problem };
            let size = expected.get(name).ok_or_else(|| refuse("is not a parameter of this model".to_owned()))?;
            let (stored_dtype, tensor) = stored.finite_tensor(name, size)?;
            let tensor = tensor.f_to_kind(dtype.kind())?;
            // A number that is finite in one type may be infinite in another.
            if stored_dtype != dtype && dtype != Dtype::Float32 && !is_finite(&tensor)? {
                return Err(refuse(format!("has numbers that overflow in {dtype}")));
            }
            if self.tensors.insert(name.clone(), tensor.f_to_device(device)?).is_some() {
                return Err(refuse("is in two files".to_owned()));
            }
        }
        Ok(names)
    }

    /// Fails if a parameter is missing.
    fn complete(self, expected: &Sizes) -> Result<Self, LmError> {
        match expected.keys().find(|name| !self.tensors.contains_key(*name)) {
            Some(missing) => Err(self.missing(missing)),
            None => Ok(self),
        }
    }

    /// Collects tensors by their names.
    pub fn new(folder: &Path, tensors: HashMap<String, Tensor>) -> Self {
        Self { folder: folder.to_owned(), tensors }
    }

    /// Removes a parameter and returns it.
    ///
    /// # Errors
    ///
    /// [`LmError::Weight`] if it is missing.
    pub fn take(&mut self, name: &str) -> Result<Tensor, LmError> {
        self.tensors.remove(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> LmError {
        LmError::Weight { path: self.folder.clone(), tensor: name.to_owned(), problem: "is missing".to_owned() }
    }
}

/// Expected shape of each tensor.
type Sizes = BTreeMap<String, Vec<i64>>;

fn sizes(shapes: Vec<Shape>) -> Sizes {
    shapes.into_iter().map(|Shape { name, size }| (name, size)).collect()
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Files that contain the weights, and the file of each tensor according to the index.
pub(crate) fn files(folder: &Path) -> Result<(Vec<PathBuf>, BTreeMap<String, String>), LmError> {
    let whole = folder.join(WEIGHTS_FILE);
    let path = folder.join(INDEX_FILE);
    if whole.exists() || !path.exists() {
        return Ok((vec![whole], BTreeMap::new()));
    }
    let fields: Map<String, Value> = json::read(&path)?;
    let refuse = |field: &str, allowed: &str, given: &str| {
        let (field, allowed, given) = (field.to_owned(), allowed.to_owned(), given.to_owned());
        LmError::Field { path: path.clone(), field, allowed, given }
    };
    if fields.get("metadata").is_some_and(Value::is_null) {
        return Err(refuse("metadata", "an object, or the field to be absent", "null"));
    }
    let fail = |source| LmError::Json { path: path.clone(), field: "weight_map".to_owned(), source };
    let Index { weight_map } = serde_json::from_value(fields.into()).map_err(fail)?;
    let mut names: Vec<_> = weight_map.values().cloned().collect();
    names.sort();
    names.dedup();
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        return Err(refuse("weight_map", "names of files in the same folder", name));
    }
    Ok((names.into_iter().map(|name| folder.join(name)).collect(), weight_map))
}

/// Rejects parameters that are not finite in the type in which they are written.
///
/// # Errors
///
/// [`LmError::Weight`] naming the file or folder `target` and the parameter, and [`LmError::Engine`].
pub(crate) fn refuse_not_finite(target: &Path, parameters: &[(Shape, &Tensor)], dtype: Dtype) -> Result<(), LmError> {
    parameters.iter().try_for_each(|(Shape { name, size }, tensor)| {
        let Some(index) = first_not_finite(&bytes(tensor, dtype)?, dtype) else { return Ok(()) };
        let (path, problem) = (target.to_owned(), format!("cannot be written as {dtype}: {}", problem(index, size)));
        Err(LmError::Weight { path, tensor: name.clone(), problem })
    })
}

/// Writes parameters as one file, or as several of `shard_bytes` with an index. The folder must not have files of these
/// names.
///
/// # Errors
///
/// [`LmError::Weight`] for a parameter that is not finite in `dtype`, before anything is written; [`LmError::File`],
/// [`LmError::Weights`] and [`LmError::Engine`], after which some files may exist, so write to a temporary folder.
pub fn write(folder: &Path, parameters: &[(Shape, &Tensor)], dtype: Dtype, shard_bytes: usize) -> Result<(), LmError> {
    refuse_not_finite(folder, parameters, dtype)?;
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
        write_file(&path, shard.iter().map(|(shape, tensor)| (shape.clone(), *tensor, dtype)))?;
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

/// Writes tensors as one file.
pub(crate) fn write_file<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (Shape, &'a Tensor, Dtype)>,
) -> Result<(), LmError> {
    let views =
        tensors.into_iter().map(|(shape, tensor, dtype)| (shape.name.clone(), Stored::new(&shape, tensor, dtype)));
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(about), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => LmError::File { path: path.to_owned(), source },
        error => LmError::Weights { path: path.to_owned(), problem: error.to_string() },
    })?;
    // The library makes files that only their owner can read; weights should be as readable as any other file.
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .map_err(|source| LmError::File { path: path.to_owned(), source })?;
    // A tensor that could not be copied is written as nothing, which makes the file shorter than its header says.
    StoredFile::open(path)?;
    Ok(())
}

/// A tensor that is converted to its stored form only when it is written.
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

/// Returns a tensor's numbers as stored bytes.
///
/// # Errors
///
/// [`LmError::Engine`] for a failure of libtorch.
pub fn bytes(tensor: &Tensor, dtype: Dtype) -> Result<Vec<u8>, LmError> {
    let tensor = tensor.f_detach()?.f_to_kind(dtype.kind())?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * dtype.bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}
