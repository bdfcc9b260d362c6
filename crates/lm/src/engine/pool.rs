//! The cache of keys and values of every layer, with a slot for each token, so that each token goes through the model
//! only once.
//!
//! The tokens of a sequence may have any slots. A pass writes the keys and values of all its tokens before any of them
//! attends to others, so that sequences in one pass can share tokens that none of them has computed before.

use tch::{Kind, Tensor};

use crate::error::LmError;
use crate::transfer::send;
use crate::transformer::model::{Heads, Layout, Transformer};

/// Minimum number of slots that are allocated at a time.
const BLOCK: usize = 256;

/// Cache of keys and values by slots.
#[derive(Debug)]
pub(super) struct Pool {
    layers: Vec<Seen>,
    places: usize,
    limit: usize,
}

/// Keys and values of a layer, each of shape [slots, kv_heads, head_dim].
#[derive(Debug)]
struct Seen {
    key: Tensor,
    value: Tensor,
}

/// Tokens that go through the model together, concatenated.
#[derive(Debug, Default)]
pub(super) struct Pass {
    tokens: Vec<i64>,
    positions: Vec<i64>,
    /// Rows of the new tokens, and their slots.
    new: Vec<i64>,
    places: Vec<i64>,
    runs: Vec<Run>,
}

/// Consecutive tokens of one sequence in a pass.
#[derive(Debug)]
struct Run {
    first: usize,
    tokens: usize,
    /// Slots of the sequence up to the last token of the run.
    path: Vec<usize>,
    /// Whether no earlier token of the sequence is cached.
    fresh: bool,
}

/// Runs whose attention is computed together.
enum Part {
    /// A run without cached tokens, which attends only to itself.
    Fresh { first: usize, tokens: usize },
    /// Runs that attend to cached tokens.
    Behind(Behind),
}

/// Several runs with the same number of tokens, padded to the same number of slots.
struct Behind {
    runs: i64,
    /// Rows of the pass, run by run.
    rows: Tensor,
    /// If some rows are padding: the indices of all other rows, and their rows in the pass.
    own: Option<Tensor>,
    own_rows: Tensor,
    places: Tensor,
    /// Mask for each kind of window, as [`Heads::behind`] takes it; `None` if everything is visible.
    masks: Vec<Option<Tensor>>,
}

impl Pass {
    /// Number of tokens of the pass.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Adds the token at the end of a path of slots; `is_new` if its keys and values are not cached yet.
    pub(super) fn push(&mut self, token: u32, path: &[usize], is_new: bool) -> usize {
        let (row, depth) = (self.tokens.len(), path.len() - 1);
        self.tokens.push(i64::from(token));
        self.positions.push(depth as i64);
        if is_new {
            self.new.push(row as i64);
            self.places.extend(path.last().map(|place| *place as i64));
        }
        match self.runs.last_mut() {
            // Each slot has only one path to it.
            Some(run) if depth > 0 && run.path.last() == path.get(depth - 1) => {
                run.path.extend(path.last());
                run.tokens += 1;
                run.fresh &= is_new;
            }
            _ => self.runs.push(Run { first: row, tokens: 1, path: path.to_vec(), fresh: is_new && depth == 0 }),
        }
        row
    }

    /// Splits the pass into parts by their attention, for a model with these windows.
    fn parts(&self, windows: &[Option<usize>], model: &Transformer) -> Result<Vec<Part>, LmError> {
        let fresh = |run: &&Run| run.fresh;
        let whole = |run: &Run| Part::Fresh { first: run.first, tokens: run.tokens };
        let mut parts: Vec<Part> = self.runs.iter().filter(fresh).map(whole).collect();
        let mut others: Vec<&Run> = self.runs.iter().filter(|run| !run.fresh).collect();
        others.sort_by_key(|run| (run.class(), run.path.len()));
        for together in alike(&others) {
            parts.push(Part::Behind(Behind::new(together, windows, model)?));
        }
        Ok(parts)
    }
}

impl Run {
    /// Size class of a run: the lengths of runs of a class differ by at most a factor of two.
    fn class(&self) -> u32 {
        self.tokens.next_power_of_two().ilog2()
    }
}

/// Groups runs of one class and similar length, so that little of the attention is padding.
fn alike<'r, 'a>(mut runs: &'r [&'a Run]) -> Vec<&'r [&'a Run]> {
    let mut groups = Vec::new();
    while let Some(first) = runs.first() {
        let most = 2 * first.path.len() + 64;
        let is_alike = |run: &&Run| run.class() == first.class() && run.path.len() <= most;
        let (group, rest) = runs.split_at(runs.partition_point(is_alike));
        groups.push(group);
        runs = rest;
    }
    groups
}

impl Behind {
    fn new(group: &[&Run], windows: &[Option<usize>], model: &Transformer) -> Result<Self, LmError> {
        let send = |values: &[i64]| send(values, Kind::Int64, model.device());
        let most = |of: fn(&Run) -> usize| group.iter().map(|run| of(run)).max().unwrap_or(0);
        let (tokens, longest) = (most(|run| run.tokens), most(|run| run.path.len()));
        let (mut rows, mut own, mut ends, mut places) = (vec![], vec![], vec![], vec![]);
        for run in group {
            places.extend(run.path.iter().map(|place| *place as i64));
            // Padding repeats the sequence's own first slot, so that no NaN of another sequence enters.
            places.extend(std::iter::repeat_n(run.path[0] as i64, longest - run.path.len()));
            let begin = rows.len() as i64;
            own.extend(begin..begin + run.tokens as i64);
            // Padding repeats the last token.
            let filled = (0..tokens).map(|token| token.min(run.tokens - 1));
            rows.extend(filled.clone().map(|token| (run.first + token) as i64));
            ends.extend(filled.map(|token| (run.path.len() - run.tokens + token + 1) as i64));
        }
        let is_full = own.len() == rows.len();
        let (rows, own) = (send(&rows)?, send(&own)?);
        let own_rows = if is_full { rows.shallow_clone() } else { rows.f_index_select(0, &own)? };
        let mask = |window: &Option<usize>| -> Result<Option<Tensor>, LmError> {
            let sees_all = |end: &i64| *end == longest as i64 && window.is_none_or(|window| longest <= window);
            if ends.iter().all(sees_all) {
                return Ok(None);
            }
            let mask = seen(&send(&ends)?, longest, *window)?.f_view([group.len() as i64, 1, tokens as i64, -1])?;
            // Heads that share keys are computed as tokens of one head.
            let shared = if tokens == 1 { 1 } else { model.config().heads / model.config().kv_heads };
            Ok(Some(mask.f_repeat([1, 1, shared as i64, 1])?))
        };
        let masks = windows.iter().map(mask).collect::<Result<_, _>>()?;
        let own = (!is_full).then_some(own);
        Ok(Self { runs: group.len() as i64, rows, own, own_rows, places: send(&places)?, masks })
    }
}

/// Mask of shape [tokens, `places`], true where a token that sees its first `ends` slots attends to a slot through the
/// window.
fn seen(ends: &Tensor, places: usize, window: Option<usize>) -> Result<Tensor, LmError> {
    let ends = ends.f_unsqueeze(-1)?;
    let places = Tensor::f_arange(places as i64, (Kind::Int64, ends.device()))?;
    let before = places.f_lt_tensor(&ends)?;
    Ok(match window {
        Some(window) => before.f_logical_and(&places.f_ge_tensor(&ends.f_sub_scalar(window as i64)?)?)?,
        None => before,
    })
}

impl Pool {
    /// An empty cache that may grow to `limit` slots.
    pub(super) fn new(limit: usize) -> Self {
        Self { layers: Vec::new(), places: 0, limit }
    }

    /// Runs a pass through the model and returns the hidden states of its tokens, of shape [tokens, hidden_size]. All
    /// of its slots are below `places`.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub(super) fn forward(&mut self, model: &Transformer, pass: &Pass, places: usize) -> Result<Tensor, LmError> {
        self.grow(model, places)?;
        let mut windows: Vec<Option<usize>> = Vec::new();
        let mut kinds = Vec::with_capacity(model.config().layers);
        for window in &model.config().windows {
            let kind = windows.iter().position(|other| other == window).unwrap_or_else(|| {
                windows.push(*window);
                windows.len() - 1
            });
            kinds.push(kind);
        }
        let parts = pass.parts(&windows, model)?;
        let send = |values: &[i64]| send(values, Kind::Int64, model.device());
        let (new, own) = (send(&pass.new)?, send(&pass.places)?);
        let tokens = send(&pass.tokens)?.f_unsqueeze(0)?;
        let angles = model.angles(&pass.positions)?;
        let hidden = model.forward_with(&tokens, &angles, &mut |layer, heads| {
            let seen = &mut self.layers[layer];
            seen.write(&heads, &own, (pass.new.len() < pass.len()).then_some(&new))?;
            let answers = heads.query.f_empty_like()?;
            for part in &parts {
                seen.look(&heads, part, kinds[layer], model.config().windows[layer], &answers)?;
            }
            Ok(answers)
        })?;
        Ok(hidden.f_squeeze_dim(0)?)
    }

    /// Grows the cache to at least this many slots, and keeps its contents.
    fn grow(&mut self, model: &Transformer, places: usize) -> Result<(), LmError> {
        if places <= self.places {
            return Ok(());
        }
        let config = model.config();
        let target = places.max(2 * self.places).max(BLOCK).min(self.limit);
        let size = [target as i64, config.kv_heads as i64, config.head_dim as i64];
        let roomy = |filled: Option<&Tensor>| -> Result<Tensor, LmError> {
            let all = Tensor::f_empty(size, (model.kind(), model.device()))?;
            if let Some(filled) = filled {
                all.f_narrow(0, 0, filled.size()[0])?.f_copy_(filled)?;
            }
            Ok(all)
        };
        if self.layers.is_empty() {
            let new = |_| Ok(Seen { key: roomy(None)?, value: roomy(None)? });
            self.layers = (0..config.layers).map(new).collect::<Result<_, LmError>>()?;
        } else {
            for Seen { key, value } in &mut self.layers {
                *key = roomy(Some(key))?;
                *value = roomy(Some(value))?;
            }
        }
        self.places = target;
        Ok(())
    }
}

impl Seen {
    /// Writes the keys and values of a pass, or of its new tokens, to their slots.
    fn write(&mut self, heads: &Heads, places: &Tensor, new: Option<&Tensor>) -> Result<(), LmError> {
        let by_token = |heads: &Tensor| -> Result<Tensor, LmError> {
            let by_token = heads.f_squeeze_dim(0)?.f_transpose(0, 1)?;
            Ok(match new {
                Some(new) => by_token.f_index_select(0, new)?,
                None => by_token,
            })
        };
        _ = self.key.f_index_copy_(0, places, &by_token(&heads.key)?)?;
        _ = self.value.f_index_copy_(0, places, &by_token(&heads.value)?)?;
        Ok(())
    }

    /// Computes the attention of a part of a pass through windows of this kind, and writes it into the output of shape
    /// [1, heads, tokens, head_dim].
    fn look(
        &self,
        heads: &Heads,
        part: &Part,
        kind: usize,
        window: Option<usize>,
        answers: &Tensor,
    ) -> Result<(), LmError> {
        let narrow = |all: &Tensor, first: usize, tokens: usize| all.f_narrow(2, first as i64, tokens as i64);
        match part {
            Part::Fresh { first, tokens } => {
                let own = |all: &Tensor| narrow(all, *first, *tokens);
                let own = Heads { query: own(&heads.query)?, key: own(&heads.key)?, value: own(&heads.value)? };
                let seen = own.attend(&Layout::Padded { rows: 1, length: *tokens }, window)?;
                narrow(answers, *first, *tokens)?.f_copy_(&seen)?;
            }
            Part::Behind(Behind { runs, rows, own, own_rows, places, masks }) => {
                let (_, kv_heads, head_dim) = self.key.size3()?;
                // The shapes here are [heads, runs * tokens, head_dim] and [runs * slots, heads, head_dim].
                let query = heads.query.f_squeeze_dim(0)?.f_index_select(1, rows)?;
                let query = query.f_view([heads.query.size()[1], *runs, -1, head_dim])?.f_transpose(0, 1)?;
                let taken = |all: &Tensor| -> Result<Tensor, LmError> {
                    let taken = all.f_index_select(0, places)?;
                    Ok(taken.f_view([*runs, -1, kv_heads, head_dim])?.f_transpose(1, 2)?)
                };
                let looking = Heads { query, key: taken(&self.key)?, value: taken(&self.value)? };
                let seen = looking.behind(masks[kind].as_ref())?.f_transpose(0, 1)?.f_flatten(1, 2)?;
                let seen = match own {
                    Some(own) => seen.f_index_select(1, own)?,
                    None => seen,
                };
                _ = answers.shallow_clone().f_index_copy_(2, own_rows, &seen.f_unsqueeze(0)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_sees_everything_before_it_or_a_window_of_that() {
        let ends = Tensor::from_slice(&[4_i64, 5]);
        let seen = |window| -> Vec<Vec<bool>> { Vec::try_from(seen(&ends, 5, window).unwrap()).unwrap() };
        let (t, f) = (true, false);
        assert_eq!(seen(None), [[t, t, t, t, f], [t, t, t, t, t]]);
        assert_eq!(seen(Some(2)), [[f, f, t, t, f], [f, f, f, t, t]]);
    }

    #[test]
    fn tokens_that_follow_one_another_are_a_run_and_others_are_not() {
        let mut pass = Pass::default();
        for (path, is_new) in [(&[4][..], true), (&[4, 7], true), (&[4, 7, 2], true), (&[4, 9], true), (&[3], false)] {
            pass.push(1, path, is_new);
        }
        let runs: Vec<_> = pass.runs.iter().map(|run| (run.first, run.tokens, run.path.clone(), run.fresh)).collect();
        assert_eq!(runs, [(0, 3, vec![4, 7, 2], true), (3, 1, vec![4, 9], false), (4, 1, vec![3], false)]);
        assert_eq!((pass.positions, pass.new), (vec![0, 1, 2, 1, 0], vec![0, 1, 2, 3]));
    }

    #[test]
    fn runs_that_look_together_are_nearly_as_long_as_one_another() {
        let groups = |runs: &[(usize, usize)]| -> Vec<Vec<usize>> {
            let run = |(tokens, length): &(usize, usize)| Run {
                first: 0,
                tokens: *tokens,
                path: vec![0; *length],
                fresh: false,
            };
            let runs: Vec<Run> = runs.iter().map(run).collect();
            let runs: Vec<&Run> = runs.iter().collect();
            alike(&runs).into_iter().map(|group| group.iter().map(|run| run.path.len()).collect()).collect()
        };
        let single = [1, 30, 66, 67, 198, 199].map(|length| (1, length));
        assert_eq!(groups(&single), [vec![1, 30, 66], vec![67, 198], vec![199]]);
        assert_eq!(groups(&[(1, 9), (2, 9), (3, 9), (4, 10), (5, 10)]), [vec![9], vec![9], vec![9, 10], vec![10]]);
    }
}
