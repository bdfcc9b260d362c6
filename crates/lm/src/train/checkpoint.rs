//! The state of a run between two steps on disk: a folder that appears once it is complete, with the checksums of its
//! files.
//!
//! | file | contents |
//! |---|---|
//! | `weights.safetensors` | trained parameters, in the run's own type |
//! | `optimizer.safetensors` | moments and 32-bit copies, by the parameters' names |
//! | `checkpoint.json` | everything else; its presence marks the checkpoint as complete |

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use objective::ObjectiveState;
use program::{NewFolder, OutputFolder};
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use crate::checkpoint::config::Dtype;
use crate::checkpoint::weights::{StoredFile, write_file};
use crate::error::LmError;
use crate::train::optimizer::{Optimizer, Slot};
use crate::train::policy::LmPolicy;
use crate::transformer::model::Shape;

/// Name of the folder of checkpoints in a run's folder.
pub const CHECKPOINTS: &str = "checkpoints";
const MARKER: &str = "checkpoint.json";
const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
/// Version of the format.
const VERSION: u32 = 1;

/// Position of a checkpoint in a run, ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Number of the stage, from 0.
    pub stage: usize,
    /// Number of steps of the stage before the checkpoint.
    pub step: u64,
}

impl Position {
    /// Name of the checkpoint's folder.
    pub fn name(self) -> String {
        format!("{}-{}", self.stage, self.step)
    }

    /// Parses the name of a checkpoint's folder.
    pub fn parse(name: &str) -> Option<Self> {
        let (stage, step) = name.split_once('-')?;
        let position = Self { stage: stage.parse().ok()?, step: step.parse().ok()? };
        (position.name() == name).then_some(position)
    }
}

/// Fingerprints in which a run must agree with a checkpoint to resume from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Fingerprint of the resolved recipe.
    pub recipe: String,
    /// Fingerprint of the model with which the first stage begins.
    pub model: String,
    /// Fingerprint of all encoded records.
    pub data: String,
}

/// State of a run except for its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Position of the checkpoint.
    pub at: Position,
    /// Fingerprints of the run.
    pub origin: Origin,
    /// Size of the metrics file, bytes.
    pub metrics: u64,
    /// State of the objective.
    pub state: ObjectiveState,
    /// Best score of the stage so far, if the best model is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    progress: Progress,
    /// Number of updates of the optimizer.
    updates: u64,
    /// Checksums of the files by their names.
    files: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    content: Content,
    /// Checksum of the content's JSON.
    checksum: String,
}

/// A checkpoint whose files have been verified.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    progress: Progress,
    updates: u64,
}

impl Checkpoint {
    /// Writes a checkpoint into the folder of checkpoints, and replaces an existing one of the same position.
    ///
    /// # Errors
    ///
    /// [`LmError::File`], [`LmError::Weights`] and [`LmError::Engine`]; other checkpoints are not changed.
    pub fn write(
        folder: &OutputFolder,
        progress: Progress,
        policy: &LmPolicy,
        optimizer: &Optimizer,
    ) -> Result<PathBuf, LmError> {
        let target = folder.path().join(progress.at.name());
        let new = NewFolder::create(&target)?;
        let parameters = policy.parameters();
        let mut states = Vec::new();
        for ((shape, _), state) in parameters.iter().zip(optimizer.states()) {
            for (slot, tensor) in state.slots() {
                states.push((Shape { name: format!("{slot}.{}", shape.name), size: shape.size.clone() }, tensor));
            }
        }
        let mut files = BTreeMap::new();
        for (name, tensors) in [(WEIGHTS, parameters), (OPTIMIZER, states)] {
            let path = new.path().join(name);
            write_file(&path, tensors.into_iter().map(|(shape, tensor)| (shape, tensor, Dtype::of(tensor.kind()))))?;
            files.insert(name.to_owned(), checksum(&path)?);
        }
        let content = Content { version: VERSION, progress, updates: optimizer.updates(), files };
        let path = new.path().join(MARKER);
        let fail = |source| LmError::Json { path: path.clone(), field: ".".to_owned(), source };
        let checksum = hash(&serde_json::to_string(&content).map_err(fail)?);
        let text = serde_json::to_string_pretty(&Marker { content, checksum }).map_err(fail)? + "\n";
        std::fs::write(&path, text).map_err(|source| LmError::File { path: path.clone(), source })?;
        new.replace()?;
        Ok(target)
    }

    /// Reads a checkpoint and verifies the checksums of its files.
    ///
    /// # Errors
    ///
    /// [`LmError::Checkpoint`] for an incomplete or damaged one, [`LmError::File`] for one that cannot be read.
    pub fn read(folder: &Path) -> Result<Self, LmError> {
        let refuse = |problem: String| LmError::Checkpoint { path: folder.to_owned(), problem };
        let path = folder.join(MARKER);
        let text = std::fs::read_to_string(&path).map_err(|error| refuse(format!("{MARKER}: {error}")))?;
        let Marker { content, checksum: expected } =
            strict_json::from_str(&text).map_err(|error| refuse(format!("{MARKER}: {error}")))?;
        let said = serde_json::to_string(&content).map_err(|error| refuse(format!("{MARKER}: {error}")))?;
        if hash(&said) != expected {
            return Err(refuse(format!("{MARKER} is damaged: its checksum differs")));
        }
        let Content { version, progress, updates, files } = content;
        if version != VERSION {
            return Err(refuse(format!("{MARKER}: version: expected {VERSION}, got {version}")));
        }
        for (name, expected) in &files {
            let path = folder.join(name);
            if !path.exists() {
                return Err(refuse(format!("{name} is missing")));
            }
            if checksum(&path)? != *expected {
                return Err(refuse(format!("{name} is damaged: its checksum differs")));
            }
        }
        Ok(Self { folder: folder.to_owned(), progress, updates })
    }

    /// State of the run except for its tensors.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Rejects a checkpoint of another run.
    ///
    /// # Errors
    ///
    /// [`LmError::Checkpoint`] naming the difference.
    pub fn is_of(&self, origin: &Origin) -> Result<(), LmError> {
        let Origin { recipe, model, data } = &self.progress.origin;
        let parts = [
            ("recipe", recipe, &origin.recipe),
            ("model that is trained", model, &origin.model),
            ("data", data, &origin.data),
        ];
        match parts.into_iter().find(|(_, there, here)| there != here) {
            Some((what, there, here)) => Err(LmError::Checkpoint {
                path: self.folder.clone(),
                problem: format!("the {what} has changed since then: expected the fingerprint {there}, got {here}"),
            }),
            None => Ok(()),
        }
    }

    /// Restores the weights of the policy.
    ///
    /// # Errors
    ///
    /// [`LmError::Weight`] naming a parameter that is missing, unexpected, or of another shape or type.
    pub fn restore_weights(&self, policy: &LmPolicy) -> Result<(), LmError> {
        let mut stored = StoredFile::open(&self.folder.join(WEIGHTS))?;
        let parameters = policy.parameters();
        stored.only(|name| parameters.iter().any(|(shape, _)| shape.name == name))?;
        for (shape, parameter) in parameters {
            let tensor = stored.tensor(&shape.name, &shape.size)?;
            if tensor.f_kind()? != parameter.f_kind()? {
                let (expected, given) = (parameter.f_kind()?, tensor.f_kind()?);
                return Err(stored.refuse(&shape.name, format!("expected {expected:?}, got {given:?}")));
            }
            no_grad(|| parameter.f_detach()?.f_copy_(&tensor))?;
        }
        Ok(())
    }

    /// Restores the state of the optimizer.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::restore_weights`].
    pub fn restore_optimizer(&self, policy: &LmPolicy, optimizer: &mut Optimizer) -> Result<(), LmError> {
        let mut stored = StoredFile::open(&self.folder.join(OPTIMIZER))?;
        let parameters = policy.parameters();
        let belongs = |name: &str| {
            let parts = name.split_once('.').map(|(slot, name)| (slot.parse::<Slot>(), name));
            matches!(parts, Some((Ok(_), name)) if parameters.iter().any(|(shape, _)| shape.name == name))
        };
        stored.only(belongs)?;
        let mut states: Vec<(usize, Slot, Tensor)> = Vec::new();
        for (index, (shape, parameter)) in parameters.iter().enumerate() {
            for slot in Slot::ALL {
                let name = format!("{slot}.{}", shape.name);
                if stored.has(&name) {
                    let tensor = stored.tensor(&name, &shape.size)?.f_to_device(parameter.device())?;
                    states.push((index, slot, tensor));
                }
            }
        }
        optimizer.restore(self.updates, parameters.len(), states);
        Ok(())
    }
}

/// Positions of all checkpoints in a folder of checkpoints, complete or not, in order; empty if the folder does not
/// exist.
///
/// # Errors
///
/// [`LmError::File`] for a folder that cannot be read.
pub fn positions(folder: &Path) -> Result<Vec<Position>, LmError> {
    let fail = |source| LmError::File { path: folder.to_owned(), source };
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut positions = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        positions.extend(Position::parse(&entry.map_err(fail)?.file_name().to_string_lossy()));
    }
    positions.sort_unstable();
    Ok(positions)
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn checksum(path: &Path) -> Result<String, LmError> {
    let mut hasher = blake3::Hasher::new();
    File::open(path)
        .and_then(|file| hasher.update_reader(file).map(|_| ()))
        .map_err(|source| LmError::File { path: path.to_owned(), source })?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_in_the_order_of_a_run_and_nothing_else_is_one() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["0-9", "1-0", "0-10", ".unfinished-0-3", "0-x", "00-1", "best"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let names: Vec<_> = positions(folder.path()).unwrap().into_iter().map(Position::name).collect();
        assert_eq!(names, ["0-9", "0-10", "1-0"]);
        assert_eq!(positions(&folder.path().join("none")).unwrap(), []);
    }
}
