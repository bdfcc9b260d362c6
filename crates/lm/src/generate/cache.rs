//! What a batch's earlier tokens are seen as: keys and values of every layer, so that each token goes through the model once.
//!
//! Prompts begin in the first column, and responses in the one behind the longest prompt, so that a step writes one column of all
//! rows. Between a shorter prompt and its response are columns that nobody sees:
//!
//! ```text
//! p p p p p r r
//! p p p . . r r
//! p p p p . r r
//! ```
//!
//! So prompts are read as sequences are in training, without a mask, and there is none later where they are equally long.

use tch::Tensor;

use crate::error::LmError;
use crate::model::{Heads, Layout, Transformer};

/// Columns by which memory grows, so that neither a step copies all of it nor much is held for responses that end early.
const BLOCK: usize = 64;

/// What earlier tokens are seen as.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<Seen>,
    /// Tokens of each row's prompt.
    prompts: Vec<usize>,
    /// Tokens of the longest prompt that was read.
    longest: usize,
    /// Columns that are filled.
    columns: usize,
    /// The position of each row's columns, -1 where nobody looks, of shape [rows, capacity].
    positions: Tensor,
}

/// A layer's keys and values, each of shape [rows, kv_heads, capacity, head_dim].
#[derive(Debug)]
struct Seen {
    key: Tensor,
    value: Tensor,
}

impl Cache {
    /// Takes prompts, none of them empty, through the model, and answers the hidden states of their last tokens as well, of shape
    /// [rows, hidden_size].
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
    pub fn read(model: &Transformer, prompts: &[&[u32]]) -> Result<(Self, Tensor), LmError> {
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let layout = Layout::Padded { rows: prompts.len(), length: longest };
        let mut tokens = Vec::with_capacity(prompts.len() * longest);
        let mut last = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            last.push((tokens.len() + prompt.len()) as i64 - 1);
            tokens.extend(prompt.iter().map(|token| i64::from(*token)));
            // The response does not see what is behind the prompt. It is more of the prompt, which brings no number into the row
            // that is none.
            let padding = prompt.iter().cycle().take(longest - prompt.len());
            tokens.extend(padding.map(|token| i64::from(*token)));
        }
        let tokens = Tensor::f_from_slice(&tokens)?.f_view([prompts.len() as i64, longest as i64])?;
        let angles = model.angles(&layout.positions())?;
        let mut layers = Vec::with_capacity(model.config().layers);
        let hidden = model.forward_with(&tokens.f_to_device(model.device())?, &angles, &mut |layer, heads| {
            layers.push(Seen::new(&heads.key, &heads.value, longest + BLOCK)?);
            heads.attend(&layout, model.config().windows[layer])
        })?;
        let last = Tensor::f_from_slice(&last)?.f_to_device(model.device())?;
        let hidden = hidden.f_flatten(0, 1)?.f_index_select(0, &last)?;
        let prompts: Vec<_> = prompts.iter().map(|prompt| prompt.len()).collect();
        let positions = positions(&prompts, longest, longest + BLOCK)?.f_to_device(model.device())?;
        Ok((Self { layers, prompts, longest, columns: longest, positions }, hidden))
    }

    /// Takes a token of each row through the model, and answers its hidden states of shape [rows, hidden_size].
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
    pub fn go_on(&mut self, model: &Transformer, tokens: &[u32]) -> Result<Tensor, LmError> {
        if self.columns == self.capacity() {
            self.grow()?;
        }
        let own: Vec<_> = self.prompts.iter().map(|prompt| (prompt + self.columns - self.longest) as i64).collect();
        let column = self.columns;
        self.columns += 1;
        let masks = self.masks(&model.config().windows, &own)?;
        let angles = model.angles(&own)?.by_row()?;
        let tokens: Vec<_> = tokens.iter().map(|token| i64::from(*token)).collect();
        let tokens = Tensor::f_from_slice(&tokens)?.f_unsqueeze(1)?.f_to_device(model.device())?;
        let hidden = model.forward_with(&tokens, &angles, &mut |layer, heads| {
            let seen = &mut self.layers[layer];
            seen.write(column, &heads)?;
            seen.heads(heads.query, column + 1)?.single(masks[layer].as_ref())
        })?;
        Ok(hidden.f_squeeze_dim(1)?)
    }

    /// Keeps only these rows, in this order.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`].
    pub fn keep(&mut self, rows: &[usize]) -> Result<(), LmError> {
        if rows.iter().copied().eq(0..self.prompts.len()) {
            return Ok(());
        }
        self.prompts = rows.iter().map(|row| self.prompts[*row]).collect();
        let rows: Vec<_> = rows.iter().map(|row| *row as i64).collect();
        let rows = Tensor::f_from_slice(&rows)?.f_to_device(self.positions.device())?;
        for Seen { key, value } in &mut self.layers {
            *key = key.f_index_select(0, &rows)?;
            *value = value.f_index_select(0, &rows)?;
        }
        self.positions = self.positions.f_index_select(0, &rows)?;
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.positions.size()[1] as usize
    }

    fn grow(&mut self) -> Result<(), LmError> {
        let capacity = self.capacity() + BLOCK;
        for seen in &mut self.layers {
            *seen = Seen::new(&seen.key, &seen.value, capacity)?;
        }
        self.positions = positions(&self.prompts, self.longest, capacity)?.f_to_device(self.positions.device())?;
        Ok(())
    }

    /// For each layer which columns the rows' tokens see, whose positions these are; none where it is all of them.
    fn masks(&self, windows: &[Option<usize>], own: &[i64]) -> Result<Vec<Option<Tensor>>, LmError> {
        let mut masks: Vec<Option<Tensor>> = Vec::with_capacity(windows.len());
        for (layer, window) in windows.iter().enumerate() {
            // Layers with the same window share a mask.
            let mask = match windows[..layer].iter().position(|other| other == window) {
                Some(other) => masks[other].as_ref().map(Tensor::shallow_clone),
                None => self.mask(*window, own)?,
            };
            masks.push(mask);
        }
        Ok(masks)
    }

    fn mask(&self, window: Option<usize>, own: &[i64]) -> Result<Option<Tensor>, LmError> {
        let first: Vec<_> = own.iter().map(|own| window.map_or(0, |window| (own + 1 - window as i64).max(0))).collect();
        let equally_long = self.prompts.iter().all(|prompt| *prompt == self.longest);
        if equally_long && first.iter().all(|first| *first == 0) {
            return Ok(None);
        }
        let first = Tensor::f_from_slice(&first)?.f_unsqueeze(1)?.f_to_device(self.positions.device())?;
        let seen = self.positions.f_narrow(1, 0, self.columns as i64)?.f_ge_tensor(&first)?;
        Ok(Some(seen.f_unsqueeze(1)?.f_unsqueeze(1)?))
    }
}

/// The position of each row's columns in its sequence, -1 where there is none.
fn positions(prompts: &[usize], longest: usize, capacity: usize) -> Result<Tensor, LmError> {
    let position = |prompt: usize, column: usize| {
        let behind = column.checked_sub(longest).map(|behind| prompt + behind);
        behind.or((column < prompt).then_some(column)).map_or(-1, |position| position as i64)
    };
    let positions: Vec<_> =
        prompts.iter().flat_map(|prompt| (0..capacity).map(|column| position(*prompt, column))).collect();
    Ok(Tensor::f_from_slice(&positions)?.f_view([prompts.len() as i64, capacity as i64])?)
}

impl Seen {
    /// Keys and values, and room for others behind them.
    fn new(key: &Tensor, value: &Tensor, capacity: usize) -> Result<Self, LmError> {
        let roomy = |filled: &Tensor| -> Result<Tensor, LmError> {
            let (rows, heads, columns, head_dim) = filled.size4()?;
            let all = Tensor::f_empty([rows, heads, capacity as i64, head_dim], (filled.f_kind()?, filled.device()))?;
            all.f_narrow(2, 0, columns)?.f_copy_(filled)?;
            Ok(all)
        };
        Ok(Self { key: roomy(key)?, value: roomy(value)? })
    }

    /// Fills a column.
    fn write(&self, column: usize, heads: &Heads) -> Result<(), LmError> {
        self.key.f_narrow(2, column as i64, 1)?.f_copy_(&heads.key)?;
        self.value.f_narrow(2, column as i64, 1)?.f_copy_(&heads.value)?;
        Ok(())
    }

    /// The first columns and who looks at them.
    fn heads(&self, query: Tensor, columns: usize) -> Result<Heads, LmError> {
        let first = |all: &Tensor| all.f_narrow(2, 0, columns as i64);
        Ok(Heads { query, key: first(&self.key)?, value: first(&self.value)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_goes_on_where_its_prompt_ended_whatever_lies_between() {
        let positions = positions(&[3, 1], 3, 5).unwrap();
        let rows: Vec<Vec<i64>> = Vec::try_from(positions).unwrap();
        assert_eq!(rows, [[0, 1, 2, 3, 4], [0, -1, -1, 1, 2]]);
    }
}
