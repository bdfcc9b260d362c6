//! Log-probabilities of a frozen reference policy: computed in each step, or once before a stage and cached on disk.
//!
//! The reference is the policy at the beginning of a stage. If data contain sampled responses without their
//! `behaviour_log_prob`, it also serves as the behaviour policy.
//!
//! The cache is keyed by the model's weights and the sequences, so that a second run on the same data computes nothing.
//! Statistics are computed in the same micro-batches in which the stage first needs them, so that the initial policy
//! agrees with its reference to the last bit.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use enumset::EnumSet;
use objective::{Constant, Requirements, Statistic, TokenStatistics};
use program::OutputFolder;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as StoredDtype, TensorView};
use tch::{Device, Tensor};
use training::{Frozen, Policy};

use crate::checkpoint::weights::bytes;
use crate::error::LmError;
use crate::train::micro_batch::{LmMicroBatch, Plan};
use crate::train::policy::{Forward, LmPolicy};
use crate::transformer::batch::{Packing, Sequence};
use crate::transformer::model::{Transformer, copy};

/// Source of the reference's statistics.
#[derive(Debug)]
pub enum Reference {
    /// No reference is needed.
    None,
    /// A second policy, which computes the statistics in each step.
    Held(Box<LmPolicy>),
    /// Statistics that were computed before the stage.
    Kept(Kept),
}

/// Columns of the reference that an objective reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    constants: EnumSet<Constant>,
    distribution: bool,
}

/// Statistics of sequences, computed once.
#[derive(Debug)]
pub struct Kept {
    places: HashMap<Key, Range<usize>>,
    /// Log-probabilities in 32 bits, as they were computed.
    log_prob: Vec<f32>,
    /// Hidden states and output weights, if the whole distribution is needed.
    distribution: Option<(Tensor, Tensor)>,
}

/// Hash of a sequence.
type Key = [u8; 16];

const KEYS: &str = "keys";
const LOG_PROB: &str = "log_prob";
const HIDDEN: &str = "hidden";

impl Wanted {
    /// Columns that these requirements need; `None` if they need no reference.
    pub fn of(requirements: &Requirements) -> Option<Self> {
        let constants = requirements.constants & (Constant::ReferenceLogProb | Constant::BehaviourLogProb);
        let distribution = requirements.statistics.contains(Statistic::ReferenceKl);
        (distribution || !constants.is_empty()).then_some(Self { constants, distribution })
    }

    /// Whether the reference's whole distribution is needed, beyond the probabilities of the responses.
    pub fn distribution(&self) -> bool {
        self.distribution
    }
}

impl Reference {
    /// Converts plans to micro-batches of this model, with the columns of the reference.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn micro_batches(
        &self,
        requirements: &Requirements,
        model: &Transformer,
        plans: &[Plan<'_>],
        packing: Packing,
    ) -> Result<Vec<LmMicroBatch>, LmError> {
        let micro_batch = |plan: &Plan<'_>| {
            let mut micro_batch = plan.micro_batch(model, packing)?;
            if let Some(wanted) = Wanted::of(requirements) {
                self.fill(wanted, plan, &mut micro_batch)?;
            }
            Ok(micro_batch)
        };
        plans.iter().map(micro_batch).collect()
    }

    fn fill(&self, wanted: Wanted, plan: &Plan<'_>, micro_batch: &mut LmMicroBatch) -> Result<(), LmError> {
        let (log_prob, forward) = match self {
            Self::None => return Ok(()),
            Self::Held(policy) => {
                let (log_prob, forward) = ask(policy, micro_batch)?;
                (log_prob, wanted.distribution.then_some(forward))
            }
            Self::Kept(kept) => kept.find(plan)?,
        };
        for constant in wanted.constants {
            let column = micro_batch.constants.column_mut(constant);
            if column.is_empty() {
                column.clone_from(&log_prob);
            }
            // The reference serves as the behaviour policy for records without their own log-probabilities.
            for (given, own) in column.iter_mut().zip(&log_prob).filter(|(given, _)| given.is_nan()) {
                *given = *own;
            }
        }
        micro_batch.reference = forward;
        Ok(())
    }
}

fn ask(policy: &LmPolicy, micro_batch: &LmMicroBatch) -> Result<(Vec<f64>, Forward), LmError> {
    let forward = policy.forward(&micro_batch.states)?;
    let mut statistics = TokenStatistics::default();
    policy.statistics(&forward, Frozen::default(), &micro_batch.tokens, Statistic::LogProb.into(), &mut statistics)?;
    Ok((statistics.log_prob, forward))
}

impl Kept {
    /// Reads the statistics of every sequence of the plans from the folder, or computes them and writes them there.
    /// Calls `begun` with the number of micro-batches to compute, and `done` after each.
    ///
    /// # Errors
    ///
    /// [`LmError::File`], [`LmError::Weights`] for a damaged file, and [`LmError::Engine`].
    pub fn read_or_compute(
        policy: &LmPolicy,
        wanted: Wanted,
        plans: &[Plan<'_>],
        packing: Packing,
        folder: &OutputFolder,
        begun: impl FnOnce(u64),
        done: impl Fn(),
    ) -> Result<Self, LmError> {
        let mut places = HashMap::new();
        let (mut keys, mut end) = (Vec::new(), 0);
        // For each plan, its sequences that are in no earlier plan.
        let mut fresh: Vec<Vec<usize>> = Vec::with_capacity(plans.len());
        for plan in plans {
            let mut own = Vec::new();
            for (index, sequence) in plan.sequences.iter().enumerate() {
                let key = key(sequence);
                let tokens = sequence.response.len();
                if let std::collections::hash_map::Entry::Vacant(entry) = places.entry(key) {
                    entry.insert(end..end + tokens);
                    end += tokens;
                    keys.push((key, tokens));
                    own.push(index);
                }
            }
            fresh.push(own);
        }
        let model = policy.model();
        let name = format!("reference-{}.safetensors", fingerprint(policy, wanted, &keys, packing)?);
        let path = folder.path().join(&name);
        if path.exists() {
            return Self::read(&path, model, wanted, places, &keys);
        }
        begun(fresh.iter().filter(|own| !own.is_empty()).count() as u64);
        let (mut log_prob, mut hidden) = (Vec::with_capacity(end), Vec::new());
        for (plan, own) in plans.iter().zip(&fresh) {
            if own.is_empty() {
                continue;
            }
            let micro_batch = plan.micro_batch(model, packing)?;
            let (all, forward) = ask(policy, &micro_batch)?;
            for index in own {
                let tokens = micro_batch.responses[*index].tokens.clone();
                if wanted.distribution {
                    let (begin, length) = (tokens.start as i64, tokens.len() as i64);
                    hidden.push(forward.hidden().f_narrow(0, begin, length)?.f_to_device(Device::Cpu)?);
                }
                log_prob.extend(all[tokens].iter().map(|value| *value as f32));
            }
            done();
        }
        let hidden = match wanted.distribution {
            // One of several processes may have no sequence to compute.
            true if hidden.is_empty() => {
                Some(Tensor::f_zeros([0, model.config().hidden_size as i64], (model.kind(), Device::Cpu))?)
            }
            true => Some(Tensor::f_cat(&hidden, 0)?),
            false => None,
        };
        let kept = Self { places, log_prob, distribution: with_head(hidden, model)? };
        folder.write(&name, &kept.bytes(&path, &keys, model)?)?;
        Ok(kept)
    }

    fn bytes(&self, path: &Path, keys: &[(Key, usize)], model: &Transformer) -> Result<Vec<u8>, LmError> {
        let fail = |error: safetensors::SafeTensorError| LmError::Weights {
            path: path.to_owned(),
            problem: error.to_string(),
        };
        let names: Vec<u8> = keys.iter().flat_map(|(key, _)| *key).collect();
        let log_prob: Vec<u8> = self.log_prob.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dtype = model.dtype();
        let hidden = self.distribution.as_ref().map(|(hidden, _)| bytes(hidden, dtype)).transpose()?;
        let mut views = vec![
            (KEYS, TensorView::new(StoredDtype::U8, vec![keys.len(), size_of::<Key>()], &names).map_err(fail)?),
            (LOG_PROB, TensorView::new(StoredDtype::F32, vec![self.log_prob.len()], &log_prob).map_err(fail)?),
        ];
        if let Some(hidden) = &hidden {
            let shape = vec![self.log_prob.len(), model.config().hidden_size];
            views.push((HIDDEN, TensorView::new(dtype.stored(), shape, hidden).map_err(fail)?));
        }
        safetensors::serialize(views, None).map_err(fail)
    }

    fn read(
        path: &Path,
        model: &Transformer,
        wanted: Wanted,
        places: HashMap<Key, Range<usize>>,
        keys: &[(Key, usize)],
    ) -> Result<Self, LmError> {
        let refuse = |problem: String| LmError::Weights {
            path: path.to_owned(),
            problem: format!("{problem}; delete the file to have it computed again"),
        };
        let text = std::fs::read(path).map_err(|source| LmError::File { path: path.to_owned(), source })?;
        let file = SafeTensors::deserialize(&text).map_err(|error| refuse(error.to_string()))?;
        let tensor = |name: &str| file.tensor(name).map_err(|error| refuse(error.to_string()));
        let names: Vec<u8> = keys.iter().flat_map(|(key, _)| *key).collect();
        if tensor(KEYS)?.data() != names {
            return Err(refuse("expected the statistics of this run's sequences, got those of others".to_owned()));
        }
        let log_prob = tensor(LOG_PROB)?;
        let (values, _) = log_prob.data().as_chunks::<4>();
        let log_prob: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let tokens = keys.iter().map(|(_, tokens)| tokens).sum::<usize>();
        if log_prob.len() != tokens {
            return Err(refuse(format!("expected {tokens} log-probabilities, got {}", log_prob.len())));
        }
        let hidden = if wanted.distribution {
            let view = tensor(HIDDEN)?;
            let size = [tokens as i64, model.config().hidden_size as i64];
            if view.data().len() != tokens * model.config().hidden_size * model.dtype().bytes() {
                return Err(refuse(format!("expected hidden states of shape {size:?}, got {:?}", view.shape())));
            }
            Some(Tensor::f_from_data_size(view.data(), &size, model.kind())?)
        } else {
            None
        };
        Ok(Self { places, log_prob, distribution: with_head(hidden, model)? })
    }

    fn find(&self, plan: &Plan<'_>) -> Result<(Vec<f64>, Option<Forward>), LmError> {
        let mut log_prob = Vec::new();
        let mut hidden = Vec::new();
        for sequence in &plan.sequences {
            // Every sequence of the stage is in one of its plans.
            let Some(place) = self.places.get(&key(sequence)) else { continue };
            log_prob.extend(self.log_prob[place.clone()].iter().map(|value| f64::from(*value)));
            if let Some((states, _)) = &self.distribution {
                hidden.push(states.f_narrow(0, place.start as i64, place.len() as i64)?);
            }
        }
        let forward = match &self.distribution {
            Some((_, head)) => Some(Forward::of(Tensor::f_cat(&hidden, 0)?.f_to_device(head.device())?, head)),
            None => None,
        };
        Ok((log_prob, forward))
    }
}

/// Adds a copy of the current output weights, because training will change the policy's own.
fn with_head(hidden: Option<Tensor>, model: &Transformer) -> Result<Option<(Tensor, Tensor)>, LmError> {
    hidden.map(|hidden| Ok((hidden, copy(model.head())?))).transpose()
}

fn key(sequence: &Sequence<'_>) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(sequence.prompt.len() as u64).to_le_bytes());
    for token in sequence.prompt.iter().chain(sequence.response) {
        hasher.update(&token.to_le_bytes());
    }
    let mut key = Key::default();
    hasher.finalize_xof().fill(&mut key);
    key
}

/// Fingerprint of everything that the statistics depend on: the model, the sequences in order, and how they are
/// computed.
fn fingerprint(policy: &LmPolicy, wanted: Wanted, keys: &[(Key, usize)], packing: Packing) -> Result<String, LmError> {
    let model = policy.model();
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update(format!("{packing} {} {:?}", wanted.distribution, model.device()).as_bytes());
    hasher.update(model.fingerprint()?.as_bytes());
    keys.iter().for_each(|(key, _)| _ = hasher.update(key));
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}
