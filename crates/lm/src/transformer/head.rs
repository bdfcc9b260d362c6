//! The statistics head: maps hidden states to one number per token, without a tensor of all tokens × vocabulary.
//!
//! Logits are computed for a chunk of tokens at a time, reduced to the statistics that an objective reads, and
//! discarded. Once the cotangents are known, the same chunks are computed again and pulled back, into the gradient of
//! the output weights and the cotangents of the hidden states. If there is only one chunk and log p is the only
//! statistic, the chunk may be kept instead.
//!
//! # Formula
//!
//! With z = h Wᵀ the logits of a token, p their softmax, y the response's token, H the entropy and c the cotangents:
//!
//! ```text
//! ∂L/∂z = c_log_prob (e_y − p) + c_reference_kl (p − p_ref) − c_entropy p (log p + H)
//!         + 2 c_log_sum_square_prob (p² / Σp² − p) + c_teacher_divergence ∂D/∂z
//! ∂L/∂h = ∂L/∂z W
//! ∂L/∂W = Σ_tokens (∂L/∂z)ᵀ h
//! ```
//!
//! ∂D/∂z is the derivative of the [`TeacherDivergence`].

use std::cell::RefCell;

use enumset::EnumSet;
use objective::{Statistic, TeacherDivergence, TokenStatistics};
use tch::{Device, Kind, Tensor, no_grad};
use training::Frozen;

use crate::error::LmError;
use crate::transfer::send;

/// Number of logits in memory at a time: 512 MiB, and a few times that for some statistics. Smaller chunks are slower,
/// as the product for each chunk reads all of the weights. A chunk has at least one token.
pub const LOGITS: usize = 1 << 27;

/// Hidden states, and the output weights that map them to logits.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Hidden states, [tokens, hidden_size].
    pub hidden: &'a Tensor,
    /// Output weights, [vocabulary, hidden_size].
    pub weights: &'a Tensor,
    /// Storage for the only chunk until it is pulled back, if it is to be kept.
    pub kept: Option<&'a Kept>,
}

/// The only chunk of a head, kept between its statistics and their pull-back.
#[derive(Debug, Default)]
pub struct Kept(RefCell<Option<Exponentials>>);

/// exp(z − max z), and its sum over the vocabulary for each token.
#[derive(Debug)]
struct Exponentials {
    each: Tensor,
    sum: Tensor,
}

/// Log-probabilities of tokens after hidden states.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// The most probable token after each hidden state, and the first such token on ties, with its log p, nats.
    pub greedy: Vec<(u32, f64)>,
    /// log p of the requested tokens, nats.
    pub log_probs: Vec<f64>,
}

/// Tokens whose logits are computed together.
struct Chunk {
    begin: i64,
    tokens: i64,
}

impl Head<'_> {
    fn chunks(&self) -> impl Iterator<Item = Chunk> {
        let tokens = self.hidden.size()[0];
        let step = (LOGITS as i64 / self.weights.size()[0]).max(1);
        (0..tokens).step_by(step as usize).map(move |begin| Chunk { begin, tokens: step.min(tokens - begin) })
    }

    /// Logits z, in the type in which the model computes.
    fn product(&self, chunk: &Chunk) -> Result<Tensor, LmError> {
        Ok(self.hidden.f_narrow(0, chunk.begin, chunk.tokens)?.f_matmul(&self.weights.f_transpose(0, 1)?)?)
    }

    /// Shifted logits z − max z, in 32 bits.
    fn logits(&self, chunk: &Chunk) -> Result<Tensor, LmError> {
        let mut logits = self.product(chunk)?.f_to_kind(Kind::Float)?;
        let greatest = logits.f_amax([-1].as_slice(), true)?;
        Ok(logits.f_sub_(&greatest)?)
    }

    /// Log-probabilities log p, in 32 bits.
    fn log_probs(&self, chunk: &Chunk) -> Result<Tensor, LmError> {
        let mut logits = self.logits(chunk)?;
        let sum = logits.f_exp()?.f_sum_dim_intlist([-1].as_slice(), true, Kind::Float)?;
        Ok(logits.f_sub_(&sum.f_log()?)?)
    }

    /// The most probable token after each hidden state, and the first such token on ties.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn greedy(&self) -> Result<Tensor, LmError> {
        no_grad(|| {
            let greedy = |chunk| Ok(self.product(&chunk)?.f_argmax(-1, false)?);
            let parts: Vec<_> = self.chunks().map(greedy).collect::<Result<_, LmError>>()?;
            Ok(Tensor::f_cat(&parts, 0)?)
        })
    }

    /// Log-probabilities of these tokens, each after the hidden state at its index, and the most probable token after
    /// each hidden state. Copies the results to the host. A requested token that is the most probable one has the same
    /// number to the last bit.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn scored(&self, tokens: &[(usize, u32)]) -> Result<Scores, LmError> {
        no_grad(|| {
            let mut scores = Scores::default();
            let device = self.hidden.device();
            for chunk in self.chunks() {
                let own = chunk.begin as usize..(chunk.begin + chunk.tokens) as usize;
                let own: Vec<_> = tokens.iter().filter(|(row, _)| own.contains(row)).collect();
                let rows: Vec<i64> = own.iter().map(|(row, _)| *row as i64 - chunk.begin).collect();
                let columns: Vec<i64> = own.iter().map(|(_, token)| i64::from(*token)).collect();
                let mut logits = self.logits(&chunk)?;
                let greatest = logits.f_argmax(-1, false)?.f_to_kind(Kind::Double)?;
                let rows = send(&rows, Kind::Int64, device)?;
                let places = rows.f_mul_scalar(self.weights.size()[0])?.f_add(&send(&columns, Kind::Int64, device)?)?;
                let taken = logits.f_take(&places)?.f_to_kind(Kind::Double)?;
                let sums = logits.f_exp_()?.f_sum_dim_intlist([-1].as_slice(), false, Kind::Float)?;
                let log_sums = sums.f_to_kind(Kind::Double)?.f_log()?;
                let taken = taken.f_sub(&log_sums.f_index_select(0, &rows)?)?;
                // The greatest shifted logit is 0.
                let together = Tensor::f_cat(&[greatest, log_sums.f_neg()?, taken], 0)?.f_to_device(Device::Cpu)?;
                let mut values = vec![0.0; together.numel()];
                together.f_copy_data(&mut values, together.numel())?;
                let (greatest, values) = values.split_at(chunk.tokens as usize);
                let (theirs, taken) = values.split_at(chunk.tokens as usize);
                // Token ids are whole numbers that 64-bit floating point holds exactly.
                scores.greedy.extend(greatest.iter().zip(theirs).map(|(token, log_prob)| (*token as u32, *log_prob)));
                scores.log_probs.extend(taken);
            }
            Ok(scores)
        })
    }

    /// Calls `read(first, logits, greatest)` for each chunk of hidden states, with the index of its first one, the
    /// logits z − max z row by row, and max z of each row.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`], and those of `read`.
    pub fn read_logits(
        &self,
        mut read: impl FnMut(usize, &[f32], &[f32]) -> Result<(), LmError>,
    ) -> Result<(), LmError> {
        let values = |tensor: &Tensor| -> Result<Vec<f32>, LmError> {
            let tensor = tensor.f_to_device(Device::Cpu)?;
            let mut values = vec![0.0; tensor.numel()];
            tensor.f_copy_data(&mut values, tensor.numel())?;
            Ok(values)
        };
        no_grad(|| {
            for chunk in self.chunks() {
                let mut logits = self.product(&chunk)?.f_to_kind(Kind::Float)?;
                let greatest = logits.f_amax([-1].as_slice(), true)?;
                let logits = logits.f_sub_(&greatest)?;
                read(chunk.begin as usize, &values(&logits)?, &values(&greatest)?)?;
            }
            Ok(())
        })
    }

    /// Fills the wanted columns of `out` for the response's `tokens`, one for each hidden state, and empties the
    /// others. `frozen` has hidden states and weights of the reference and the teacher, if their distributions are
    /// needed.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`]; [`LmError::Statistic`] for one that a language model does not have.
    pub fn statistics(
        &self,
        frozen: Frozen<'_, Head<'_>>,
        tokens: &[usize],
        wanted: EnumSet<Statistic>,
        out: &mut TokenStatistics,
    ) -> Result<(), LmError> {
        EnumSet::all().iter().for_each(|statistic: Statistic| out.column_mut(statistic).clear());
        if tokens.is_empty() {
            return Ok(());
        }
        let columns: Vec<Statistic> = wanted.iter().collect();
        let tokens = self.tokens(tokens)?;
        no_grad(|| {
            let mut parts: Vec<Vec<Tensor>> = columns.iter().map(|_| Vec::new()).collect();
            for chunk in self.chunks() {
                let taken = tokens.f_narrow(0, chunk.begin, chunk.tokens)?;
                if columns == [Statistic::LogProb] {
                    parts[0].push(self.log_prob(&chunk, &taken)?);
                    continue;
                }
                let log_probs = self.log_probs(&chunk)?;
                for (statistic, parts) in columns.iter().zip(&mut parts) {
                    parts.push(statistic_of(*statistic, &log_probs, &taken, frozen, &chunk)?);
                }
            }
            // Copies everything to the host at once, so that a GPU does not wait after each chunk.
            let columns_of_parts: Vec<_> =
                parts.iter().map(|parts| Tensor::f_cat(parts, 0)).collect::<Result<_, _>>()?;
            let together = Tensor::f_stack(&columns_of_parts, 0)?.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?;
            for (index, statistic) in columns.iter().enumerate() {
                let column = out.column_mut(*statistic);
                let row = together.f_get(index as i64)?;
                column.resize(row.numel(), 0.0);
                row.f_copy_data(column, row.numel())?;
            }
            Ok(())
        })
    }

    /// log p of the tokens taken, in one buffer, by the same operations as [`log_probs`](Self::log_probs). So a policy
    /// that is its own reference has the same log p to the last bit, even if other statistics are required of only one
    /// of the two.
    fn log_prob(&self, chunk: &Chunk, taken: &Tensor) -> Result<Tensor, LmError> {
        let logits = self.logits(chunk)?;
        let own = logits.f_gather(-1, &taken.f_unsqueeze(-1)?, false)?;
        let exponentials = Exponentials::of(logits)?;
        let log_prob = own.f_sub(&exponentials.sum.f_log()?)?.f_squeeze_dim(-1)?;
        if let Some(Kept(kept)) = self.kept
            && chunk.tokens == self.hidden.size()[0]
        {
            kept.replace(Some(exponentials));
        }
        Ok(log_prob)
    }

    /// Returns the cotangents of the hidden states. Adds those of the output weights to `gradient`, which has their
    /// shape in 32 bits; it is `None` if they are frozen. The other arguments are those that the statistics were
    /// computed from.
    ///
    /// # Errors
    ///
    /// As [`statistics`](Self::statistics).
    pub fn pull_back(
        &self,
        frozen: Frozen<'_, Head<'_>>,
        tokens: &[usize],
        cotangents: &TokenStatistics,
        mut gradient: Option<&mut Tensor>,
    ) -> Result<Tensor, LmError> {
        let tokens = self.tokens(tokens)?;
        let column = |values: &[f64]| -> Result<Option<Tensor>, LmError> {
            if values.is_empty() {
                return Ok(None);
            }
            Ok(Some(send(values, Kind::Float, self.hidden.device())?.f_unsqueeze(-1)?))
        };
        let TokenStatistics { log_prob, reference_kl, entropy, value, log_sum_square_prob, teacher_divergence, score } =
            cotangents;
        for (column, statistic) in [(value, Statistic::Value), (score, Statistic::Score)] {
            if !column.is_empty() {
                return Err(LmError::Statistic { statistic: statistic.into() });
            }
        }
        let columns = Columns {
            log_prob: column(log_prob)?,
            reference_kl: column(reference_kl)?,
            entropy: column(entropy)?,
            log_sum_square_prob: column(log_sum_square_prob)?,
            teacher_divergence: column(teacher_divergence)?,
        };
        no_grad(|| {
            let mut parts = Vec::new();
            for chunk in self.chunks() {
                let taken = tokens.f_narrow(0, chunk.begin, chunk.tokens)?;
                let of_logits = self.logits_cotangent(&columns.narrow(&chunk)?, frozen, &chunk, &taken)?;
                let narrow = of_logits.f_to_kind(self.weights.f_kind()?)?;
                parts.push(narrow.f_matmul(self.weights)?);
                if let Some(gradient) = &mut gradient {
                    let hidden = self.hidden.f_narrow(0, chunk.begin, chunk.tokens)?;
                    add_product(gradient, &narrow.f_transpose(0, 1)?, &hidden)?;
                }
            }
            Ok(Tensor::f_cat(&parts, 0)?)
        })
    }

    fn logits_cotangent(
        &self,
        columns: &Columns,
        frozen: Frozen<'_, Head<'_>>,
        chunk: &Chunk,
        taken: &Tensor,
    ) -> Result<Tensor, LmError> {
        let Columns { log_prob, reference_kl, entropy, log_sum_square_prob, teacher_divergence } = columns;
        let alone =
            [reference_kl, entropy, log_sum_square_prob, teacher_divergence].iter().all(|column| column.is_none());
        if let (Some(log_prob), true) = (log_prob, alone) {
            let kept = self.kept.and_then(|Kept(kept)| kept.take());
            let Exponentials { mut each, sum } = match kept {
                Some(exponentials) => exponentials,
                None => Exponentials::of(self.logits(chunk)?)?,
            };
            let mut cotangent = each.f_mul_(&log_prob.f_neg()?.f_div(&sum)?)?;
            return Ok(cotangent.f_scatter_add_(-1, &taken.f_unsqueeze(-1)?, log_prob)?);
        }
        let log_probs = self.log_probs(chunk)?;
        let probs = log_probs.f_exp()?;
        let mut cotangent = probs.f_zeros_like()?;
        if let Some(column) = log_prob {
            _ = cotangent.f_sub_(&probs.f_mul(column)?)?;
            _ = cotangent.f_scatter_add_(-1, &taken.f_unsqueeze(-1)?, column)?;
        }
        if let Some(column) = reference_kl {
            let reference_probs = required(frozen.reference, Statistic::ReferenceKl)?.log_probs(chunk)?.f_exp_()?;
            _ = cotangent.f_add_(&probs.f_sub(&reference_probs)?.f_mul_(column)?)?;
        }
        if let Some(column) = entropy {
            let weighted = probs.f_mul(&log_probs)?;
            let negative_entropy = weighted.f_sum_dim_intlist([-1].as_slice(), true, Kind::Float)?;
            _ = cotangent.f_sub_(&probs.f_mul(&log_probs.f_sub(&negative_entropy)?)?.f_mul_(column)?)?;
        }
        if let Some(column) = log_sum_square_prob {
            let squares = probs.f_square()?;
            let sum = squares.f_sum_dim_intlist([-1].as_slice(), true, Kind::Float)?;
            _ = cotangent.f_add_(&squares.f_div(&sum)?.f_sub_(&probs)?.f_mul_(&column.f_mul_scalar(2.0)?)?)?;
        }
        if let Some(column) = teacher_divergence {
            let (teacher, kind) = required(frozen.teacher, Statistic::TeacherDivergence)?;
            let of_logits = divergence_cotangent(kind, &log_probs, &probs, &teacher.log_probs(chunk)?)?;
            _ = cotangent.f_add_(&of_logits.f_mul(column)?)?;
        }
        Ok(cotangent)
    }

    fn tokens(&self, tokens: &[usize]) -> Result<Tensor, LmError> {
        let tokens: Vec<i64> = tokens.iter().map(|token| *token as i64).collect();
        send(&tokens, Kind::Int64, self.hidden.device())
    }
}

impl Exponentials {
    /// Computes the exponentials of z − max z in place.
    fn of(mut logits: Tensor) -> Result<Self, LmError> {
        let each = logits.f_exp_()?;
        let sum = each.f_sum_dim_intlist([-1].as_slice(), true, Kind::Float)?;
        Ok(Self { each, sum })
    }
}

/// Cotangents of shape [tokens, 1]; `None` for those that the objective does not have.
struct Columns {
    log_prob: Option<Tensor>,
    reference_kl: Option<Tensor>,
    entropy: Option<Tensor>,
    log_sum_square_prob: Option<Tensor>,
    teacher_divergence: Option<Tensor>,
}

impl Columns {
    fn narrow(&self, chunk: &Chunk) -> Result<Self, LmError> {
        let narrow = |column: &Option<Tensor>| -> Result<Option<Tensor>, LmError> {
            Ok(column.as_ref().map(|column| column.f_narrow(0, chunk.begin, chunk.tokens)).transpose()?)
        };
        Ok(Self {
            log_prob: narrow(&self.log_prob)?,
            reference_kl: narrow(&self.reference_kl)?,
            entropy: narrow(&self.entropy)?,
            log_sum_square_prob: narrow(&self.log_sum_square_prob)?,
            teacher_divergence: narrow(&self.teacher_divergence)?,
        })
    }
}

fn statistic_of(
    statistic: Statistic,
    log_probs: &Tensor,
    taken: &Tensor,
    frozen: Frozen<'_, Head<'_>>,
    chunk: &Chunk,
) -> Result<Tensor, LmError> {
    let sum = |values: Tensor| values.f_sum_dim_intlist([-1].as_slice(), false, Kind::Float);
    // Clamps statistics that are never negative, as rounding could make them so.
    Ok(match statistic {
        Statistic::LogProb => log_probs.f_gather(-1, &taken.f_unsqueeze(-1)?, false)?.f_squeeze_dim(-1)?,
        Statistic::ReferenceKl => {
            let reference = required(frozen.reference, statistic)?.log_probs(chunk)?;
            sum(reference.f_exp()?.f_mul_(&reference.f_sub(log_probs)?)?)?.f_clamp_min(0.0)?
        }
        Statistic::Entropy => sum(log_probs.f_exp()?.f_mul_(log_probs)?)?.f_neg()?.f_clamp_min(0.0)?,
        Statistic::LogSumSquareProb => sum(log_probs.f_mul_scalar(2.0)?.f_exp_()?)?.f_log()?.f_clamp_max(0.0)?,
        Statistic::TeacherDivergence => {
            let (teacher, kind) = required(frozen.teacher, statistic)?;
            divergence(kind, log_probs, &teacher.log_probs(chunk)?)?.f_clamp_min(0.0)?
        }
        Statistic::Value | Statistic::Score => return Err(LmError::Statistic { statistic: statistic.into() }),
    })
}

/// The other model that a statistic needs, or an error without it.
fn required<T>(other: Option<T>, statistic: Statistic) -> Result<T, LmError> {
    other.ok_or(LmError::Statistic { statistic: statistic.into() })
}

/// Sum over the vocabulary.
fn total(values: &Tensor, keep: bool) -> Result<Tensor, LmError> {
    Ok(values.f_sum_dim_intlist([-1].as_slice(), keep, Kind::Float)?)
}

/// log (β teacher + (1 − β) policy) from log-probabilities.
fn mixture(beta: f64, log_probs: &Tensor, teacher: &Tensor) -> Result<Tensor, LmError> {
    Ok(teacher.f_add_scalar(beta.ln())?.f_logaddexp(&log_probs.f_add_scalar((-beta).ln_1p())?)?)
}

/// Divergence of a policy from a teacher, from log-probabilities of shape [tokens, vocabulary].
fn divergence(kind: TeacherDivergence, log_probs: &Tensor, teacher: &Tensor) -> Result<Tensor, LmError> {
    let kl = |first: &Tensor, second: &Tensor| total(&first.f_exp()?.f_mul_(&first.f_sub(second)?)?, false);
    match kind {
        TeacherDivergence::ForwardKl => kl(teacher, log_probs),
        TeacherDivergence::ReverseKl => kl(log_probs, teacher),
        TeacherDivergence::JensenShannon { beta } => {
            let mixture = mixture(beta, log_probs, teacher)?;
            let (theirs, own) = (kl(teacher, &mixture)?, kl(log_probs, &mixture)?);
            Ok(theirs.f_mul_scalar(beta)?.f_add_(&own.f_mul_scalar(1.0 - beta)?)?)
        }
    }
}

/// Derivatives of the divergence by the policy's logits.
fn divergence_cotangent(
    kind: TeacherDivergence,
    log_probs: &Tensor,
    probs: &Tensor,
    teacher: &Tensor,
) -> Result<Tensor, LmError> {
    let (weight, differences) = match kind {
        TeacherDivergence::ForwardKl => return Ok(probs.f_sub(&teacher.f_exp()?)?),
        TeacherDivergence::ReverseKl => (1.0, log_probs.f_sub(teacher)?),
        TeacherDivergence::JensenShannon { beta } => {
            (1.0 - beta, log_probs.f_sub(&mixture(beta, log_probs, teacher)?)?)
        }
    };
    let mean = total(&probs.f_mul(&differences)?, true)?;
    Ok(differences.f_sub(&mean)?.f_mul_(probs)?.f_mul_scalar_(weight)?)
}

/// Computes sum += a b, with the sum in 32 bits and factors in 32 or fewer.
fn add_product(sum: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<(), LmError> {
    if a.f_kind()? == sum.f_kind()? {
        _ = sum.f_addmm_(a, b)?;
    } else {
        _ = sum.f_add_(&a.f_matmul(b)?)?;
    }
    Ok(())
}
