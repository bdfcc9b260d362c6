//! Continuous batching: sequences at different positions go through the model together, and some begin while others are
//! generated.
//!
//! A step takes one token of every sequence that is being generated, and as many prompt tokens of the others as fit
//! beside them. A common prefix of several sequences is computed by the first of them (`prefixes.rs`). A sequence
//! begins only when there is room for its maximum length, so that no sequence is ever preempted.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tch::{Kind, Tensor, no_grad};

use super::generate::{Finish, Scored};
use super::pool::{Pass, Pool};
use super::prefixes::Prefixes;
use super::sampling::{Sampling, most_probable, penalise};
use crate::error::LmError;
use crate::transfer::send;
use crate::transformer::head::{Head, Scores};
use crate::transformer::model::Transformer;

/// Number of hidden states whose logits are on the host at a time.
const READ: usize = 256;

/// Limits on concurrent work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Maximum number of sequences that are generated at the same time, at least 1.
    pub sequences: usize,
    /// Number of tokens whose keys and values are cached, at least [`Task::tokens`] of the longest task.
    pub tokens: usize,
    /// Approximate number of tokens that go through the model in a step, at least 1.
    pub step: usize,
}

/// A prompt, and the outputs that are wanted for it.
#[derive(Clone, Debug)]
pub struct Task {
    /// Tokens of the prompt, at least one, all of them in the vocabulary. Together with `max_tokens` they fit the
    /// model's positions.
    pub prompt: Vec<u32>,
    /// Maximum number of generated tokens.
    pub max_tokens: usize,
    /// Sampling distribution; `None` takes the most probable token, and the first such token on ties.
    pub sampling: Option<Sampling>,
    /// Repetition penalty for tokens that already occur in the prompt or the continuation; 1 means none.
    pub penalty: f64,
    /// Random number generator for sampling.
    pub rng: ChaCha8Rng,
    /// Tokens that end a response, and are its last token.
    pub stop: Vec<u32>,
    /// Whether log-probabilities of the prompt's own tokens are wanted.
    pub scores: bool,
    /// Number of most probable tokens that are reported with each token.
    pub top: usize,
}

impl Task {
    /// Maximum number of tokens that go through the model: the last generated one does not.
    pub fn tokens(&self) -> usize {
        (self.prompt.len() + self.max_tokens).saturating_sub(1)
    }
}

/// A report about a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Log-probabilities of the prompt's tokens from the second on, if they are wanted.
    Prompt(Vec<Scored>),
    /// The next token.
    Token(Scored),
    /// The end of the sequence.
    End(Finish),
    /// The end of the sequence because the model's logits are NaN.
    NotNumbers,
}

/// Scheduler of running and waiting sequences.
#[derive(Debug)]
pub struct Engine<'a> {
    model: &'a Transformer,
    room: Room,
    prefixes: Prefixes,
    pool: Pool,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    /// Number of nodes that are reserved for running sequences.
    promised: usize,
    done: Done,
}

/// Work done by steps, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Number of tokens that went through the model.
    pub computed: u64,
    /// Number of prompt tokens that were found in the cache.
    pub known: u64,
}

#[derive(Debug)]
struct Sequence {
    id: u64,
    task: Task,
    /// Tokens of the prompt and the continuation.
    tokens: Vec<u32>,
    /// Nodes that the sequence holds, which are those of the sequence's first tokens.
    path: Vec<usize>,
    /// Number of tokens that were processed.
    walked: usize,
    /// Log-probabilities of the prompt's tokens, where they are known.
    scores: Vec<Option<Scored>>,
    reported_prompt: bool,
}

/// Outputs that are wanted from the hidden state of one token.
#[derive(Debug, Default)]
struct Wanted {
    /// Next tokens to be scored, each with the number of most probable tokens to report and the running sequences that
    /// want the score.
    scores: BTreeMap<u32, (usize, Vec<usize>)>,
    /// Running sequences whose next token is sampled from this hidden state.
    next: Vec<usize>,
    /// Position in a sequence of the token that follows.
    depth: usize,
}

/// Rows of a pass by their nodes, and the outputs that are wanted from rows.
#[derive(Debug, Default)]
struct Plan {
    pass: Pass,
    rows: HashMap<usize, usize>,
    wanted: BTreeMap<usize, Wanted>,
}

impl Sequence {
    fn new(id: u64, task: Task) -> Self {
        let scores = if task.scores { vec![None; task.prompt.len()] } else { Vec::new() };
        let tokens = task.prompt.clone();
        Self { id, task, tokens, path: Vec::new(), walked: 0, scores, reported_prompt: false }
    }

    /// Number of tokens to process before anything is sampled.
    fn end(&self) -> usize {
        match self.task {
            Task { max_tokens: 0, scores: false, .. } => 0,
            Task { max_tokens: 0, .. } => self.tokens.len() - 1,
            _ => self.tokens.len(),
        }
    }

    fn continues(&self) -> bool {
        self.walked >= self.task.prompt.len()
    }

    fn left(&self) -> usize {
        self.task.tokens() - self.path.len()
    }
}

impl<'a> Engine<'a> {
    /// A scheduler without sequences.
    pub fn new(model: &'a Transformer, room: Room) -> Self {
        Self {
            model,
            room,
            prefixes: Prefixes::new(room.tokens),
            pool: Pool::new(room.tokens),
            waiting: VecDeque::new(),
            running: Vec::new(),
            promised: 0,
            done: Done::default(),
        }
    }

    /// Queues a sequence. Reports about it carry this id.
    pub fn add(&mut self, id: u64, task: Task) {
        self.waiting.push_back(Sequence::new(id, task));
    }

    /// Cancels all sequences but the wanted ones.
    pub fn retain(&mut self, wanted: impl Fn(u64) -> bool) {
        self.waiting.retain(|sequence| wanted(sequence.id));
        for place in (0..self.running.len()).rev() {
            if !wanted(self.running[place].id) {
                self.end(place);
            }
        }
    }

    /// Whether there is no running or waiting sequence.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Number of running sequences.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Work done so far.
    pub fn done(&self) -> Done {
        self.done
    }

    /// Advances all running sequences by one step.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`], after which all sequences are lost: neither a running nor a waiting one is left.
    pub fn step(&mut self, on_report: &mut dyn FnMut(u64, Report)) -> Result<(), LmError> {
        self.begin();
        let stepped = no_grad(|| self.advance(on_report));
        if stepped.is_err() {
            let done = self.done;
            *self = Self { done, ..Self::new(self.model, self.room) };
        }
        stepped
    }

    /// Starts as many waiting sequences as there is room for, in the order of their arrival.
    fn begin(&mut self) {
        while self.running.len() < self.room.sequences
            && let Some(mut sequence) = self.waiting.pop_front()
        {
            let known = self.prefixes.known(&sequence.tokens[..sequence.end()]);
            let needed = self.prefixes.unheld(&known) + sequence.task.tokens() - known.len();
            if self.promised + needed > self.prefixes.room() {
                self.waiting.push_front(sequence);
                return;
            }
            known.iter().for_each(|node| self.prefixes.hold(*node));
            sequence.path = known;
            self.promised += sequence.left();
            self.running.push(sequence);
        }
    }

    fn advance(&mut self, on_report: &mut dyn FnMut(u64, Report)) -> Result<(), LmError> {
        let mut plan = Plan::default();
        // Running sequences take precedence over those that begin.
        for continues in [true, false] {
            for place in 0..self.running.len() {
                if self.running[place].continues() == continues {
                    self.walk(place, &mut plan);
                }
            }
        }
        self.done.computed += plan.pass.len() as u64;
        let mut next: Vec<Option<Option<Scored>>> = vec![None; self.running.len()];
        if plan.pass.len() > 0 {
            let hidden = self.pool.forward(self.model, &plan.pass, self.prefixes.places())?;
            self.read(&hidden, plan.wanted, &mut next)?;
        }
        for place in (0..self.running.len()).rev() {
            if self.report(place, next[place].take(), on_report) {
                self.end(place);
            }
        }
        Ok(())
    }

    /// Plans a sequence's part of a step: the tokens to process, and those whose hidden states are read.
    fn walk(&mut self, place: usize, plan: &mut Plan) {
        let Self { running, prefixes, room, promised, done, .. } = self;
        let end = running[place].end();
        let Sequence { task, tokens, path, scores, walked, .. } = &mut running[place];
        while *walked < end {
            let depth = *walked;
            let parent = depth.checked_sub(1).map(|above| path[above]);
            let known = path.get(depth).copied().or_else(|| prefixes.child(parent, tokens[depth]));
            let behind = (task.scores && depth + 1 < task.prompt.len()).then(|| tokens[depth + 1]);
            let scored = behind.and_then(|behind| {
                let child = prefixes.child(Some(known?), behind)?;
                prefixes.scored(child, task.top).cloned()
            });
            let is_last = depth + 1 == tokens.len();
            let is_wanted = is_last || (behind.is_some() && scored.is_none());
            let has_row = known.is_some_and(|node| plan.rows.contains_key(&node));
            let goes_through = known.is_none() || (is_wanted && !has_row);
            if goes_through && plan.pass.len() >= room.step {
                return;
            }
            let node = match known {
                Some(node) => node,
                None => match prefixes.add(parent, tokens[depth]) {
                    Some(node) => node,
                    // Room was reserved; if it were missing, it would become free as other sequences end.
                    None => return,
                },
            };
            if depth == path.len() {
                if known.is_some() {
                    prefixes.hold(node);
                }
                path.push(node);
                *promised -= 1;
            }
            if goes_through {
                let row = plan.pass.push(tokens[depth], &path[..=depth], known.is_none());
                plan.rows.insert(node, row);
            } else if depth < task.prompt.len() {
                done.known += 1;
            }
            if let Some(Some(scored)) = scores.get(depth) {
                prefixes.keep(node, scored);
            }
            if is_wanted && let Some(row) = plan.rows.get(&node) {
                let wanted = plan.wanted.entry(*row).or_default();
                wanted.depth = depth + 1;
                if is_last {
                    wanted.next.push(place);
                }
                if let Some(behind) = behind.filter(|_| scored.is_none()) {
                    let (top, readers) = wanted.scores.entry(behind).or_default();
                    *top = task.top.max(*top);
                    readers.push(place);
                }
            }
            if let Some(scored) = scored {
                scores[depth + 1] = Some(scored.with_top(task.top));
            }
            *walked += 1;
        }
    }

    /// Reads the logits of hidden states of shape [tokens, hidden_size]: stores the scores, and returns each sequence's
    /// next token, `None` inside if the logits are NaN.
    fn read(
        &mut self,
        hidden: &Tensor,
        wanted: BTreeMap<usize, Wanted>,
        next: &mut [Option<Option<Scored>>],
    ) -> Result<(), LmError> {
        let model = self.model;
        let select = |rows: &[usize]| -> Result<Tensor, LmError> {
            let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
            Ok(hidden.f_index_select(0, &send(&rows, Kind::Int64, model.device())?)?)
        };
        let running = &self.running;
        let is_greedy = |place: &usize| {
            let Task { sampling, penalty, top, .. } = running[*place].task;
            sampling.is_none() && penalty == 1.0 && top <= 1
        };
        let (simple, others): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(_, wanted)| {
            wanted.scores.values().all(|(top, _)| *top <= 1) && wanted.next.iter().all(is_greedy)
        });
        if !simple.is_empty() {
            let rows: Vec<usize> = simple.iter().map(|(row, _)| *row).collect();
            let hidden = select(&rows)?;
            let tokens = |(place, (_, wanted)): (usize, &(usize, Wanted))| -> Vec<(usize, u32)> {
                wanted.scores.keys().map(|token| (place, *token)).collect()
            };
            let tokens: Vec<_> = simple.iter().enumerate().flat_map(tokens).collect();
            let Scores { greedy, log_probs } =
                Head { hidden: &hidden, weights: model.head(), kept: None }.scored(&tokens)?;
            let mut log_probs = log_probs.into_iter();
            for ((_, wanted), greatest) in simple.iter().zip(greedy) {
                let scored = |token: u32, log_prob: f64| Scored { token, log_prob, top: vec![greatest] };
                let scores = wanted.scores.keys().zip(&mut log_probs).map(|(token, log_prob)| scored(*token, log_prob));
                let (token, log_prob) = greatest;
                let following = wanted.next.iter().map(|place| {
                    let task = &self.running[*place].task;
                    ((!log_prob.is_nan()).then(|| scored(token, log_prob).with_top(task.top)), task.rng.clone())
                });
                let found = Found { scores: scores.collect(), next: following.collect() };
                self.note(wanted, found, next);
            }
        }
        for wanted in others.chunks(READ) {
            let rows: Vec<usize> = wanted.iter().map(|(row, _)| *row).collect();
            let hidden = select(&rows)?;
            Head { hidden: &hidden, weights: model.head(), kept: None }.read_logits(|first, logits, greatest| {
                let vocabulary = model.config().vocabulary;
                let wanted = &wanted[first..];
                let found: Vec<Found> = {
                    let running = &self.running;
                    let rows = wanted.par_iter().zip(logits.par_chunks(vocabulary)).zip(greatest);
                    rows.map(|(((_, wanted), logits), greatest)| Found::read(wanted, logits, *greatest, running))
                        .collect()
                };
                for ((_, wanted), found) in wanted.iter().zip(found) {
                    self.note(wanted, found, next);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Distributes the results of a hidden state to the sequences that want them.
    fn note(&mut self, wanted: &Wanted, found: Found, next: &mut [Option<Option<Scored>>]) {
        for ((_, readers), scored) in wanted.scores.values().zip(found.scores) {
            for place in readers {
                let Sequence { path, scores, task, .. } = &mut self.running[*place];
                scores[wanted.depth] = Some(scored.with_top(task.top));
                if let Some(node) = path.get(wanted.depth)
                    && !scored.log_prob.is_nan()
                {
                    self.prefixes.keep(*node, &scored);
                }
            }
        }
        for (place, (scored, rng)) in wanted.next.iter().zip(found.next) {
            self.running[*place].task.rng = rng;
            next[*place] = Some(scored);
        }
    }

    /// Reports the results of a step for a sequence, and returns whether it has ended.
    fn report(&mut self, place: usize, next: Option<Option<Scored>>, on_report: &mut dyn FnMut(u64, Report)) -> bool {
        let sequence = &mut self.running[place];
        let id = sequence.id;
        let at_end = sequence.walked >= sequence.end();
        if sequence.task.scores && at_end && !sequence.reported_prompt {
            let scores: Vec<Scored> = sequence.scores.drain(..).flatten().collect();
            if scores.iter().any(|scored| scored.log_prob.is_nan()) {
                on_report(id, Report::NotNumbers);
                return true;
            }
            sequence.reported_prompt = true;
            on_report(id, Report::Prompt(scores));
        }
        match next {
            None if at_end && sequence.task.max_tokens == 0 => {
                on_report(id, Report::End(Finish::Length));
                true
            }
            None => false,
            Some(None) => {
                on_report(id, Report::NotNumbers);
                true
            }
            Some(Some(scored)) => {
                let token = scored.token;
                sequence.tokens.push(token);
                on_report(id, Report::Token(scored));
                let finish = if sequence.task.stop.contains(&token) {
                    Some(Finish::Stop)
                } else {
                    let response = sequence.tokens.len() - sequence.task.prompt.len();
                    (response >= sequence.task.max_tokens).then_some(Finish::Length)
                };
                if let Some(finish) = finish {
                    on_report(id, Report::End(finish));
                }
                finish.is_some()
            }
        }
    }

    /// Removes a sequence; the cache of its tokens stays.
    fn end(&mut self, place: usize) {
        let sequence = self.running.remove(place);
        self.promised -= sequence.left();
        self.prefixes.leave(&sequence.path);
    }
}

/// Results of the logits of one hidden state.
struct Found {
    scores: Vec<Scored>,
    /// Sampled tokens, with the generators after sampling.
    next: Vec<(Option<Scored>, ChaCha8Rng)>,
}

impl Found {
    /// Computes the results from the logits z − max z of every token, and max z.
    fn read(wanted: &Wanted, logits: &[f32], max: f32, running: &[Sequence]) -> Self {
        let log_sum = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
        let log_prob = |token: u32| f64::from(logits[token as usize]) - log_sum;
        let tops = wanted.scores.values().map(|(top, _)| *top);
        let tops = tops.chain(wanted.next.iter().map(|place| running[*place].task.top));
        let greatest = most_probable(logits, tops.max().unwrap_or(0).max(1));
        let scored = |token: u32, top: usize| Scored {
            token,
            log_prob: log_prob(token),
            top: greatest.iter().take(top).map(|token| (*token, log_prob(*token))).collect(),
        };
        let scores = wanted.scores.iter().map(|(token, (top, _))| scored(*token, *top)).collect();
        let next = wanted.next.iter().map(|place| {
            let task = &running[*place].task;
            let mut rng = task.rng.clone();
            let token = match task.sampling {
                sampling if task.penalty != 1.0 => {
                    let mut logits = logits.to_vec();
                    penalise(&mut logits, max, &running[*place].tokens, task.penalty);
                    match sampling {
                        None => most_probable(&logits, 1).first().copied(),
                        Some(sampling) => sampling.draw(&logits, &mut rng),
                    }
                }
                None => greatest.first().copied(),
                Some(sampling) => sampling.draw(logits, &mut rng),
            };
            (token.filter(|_| !log_sum.is_nan()).map(|token| scored(token, task.top)), rng)
        });
        Self { scores, next: next.collect() }
    }
}
