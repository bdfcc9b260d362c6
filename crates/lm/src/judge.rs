//! Which of two models a third one prefers.
//!
//! Both models answered the same instructions ([`crate::outputs`]). A judge, which any server of OpenAI's chat completions can be, is
//! shown each two answers in both orders ([`question`]), and says which is better ([`verdict`]). What it says is recorded as it comes
//! in ([`journal`]), so that a comparison that was killed goes on where it was. Of the verdicts, rates with intervals are computed
//! ([`rates`]), and written with what they are of ([`judgement`]).

pub mod ask;
pub mod journal;
pub mod judgement;
mod logistic;
pub mod question;
pub mod rates;
pub mod verdict;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use program::OutputFolder;

use self::ask::{Answer, Judge};
use self::journal::{Asked, Journal};
use self::judgement::Judgement;
use self::question::{Pair, Template, pairs};
use self::verdict::{Order, Verdict};
use crate::error::LmError;
use crate::outputs::Outputs;

/// Whose answers are compared, and by whom.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// The first model's, whose rates are computed.
    pub a: &'a Outputs,
    /// The second's.
    pub b: &'a Outputs,
    /// Who compares.
    pub judge: &'a Judge,
    /// What it is told.
    pub template: &'a Template,
    /// Questions that are asked at once.
    pub concurrency: NonZeroUsize,
}

/// What is told while a judge is asked.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// There are so many questions, some of them answered before.
    Begins {
        /// All of them.
        questions: usize,
        /// Answered before.
        answered: usize,
    },
    /// One more is answered.
    Answered,
    /// One will be asked again.
    Waits {
        /// Why.
        problem: &'a str,
        /// After this.
        pause: Duration,
    },
}

/// A question as it is sent.
struct Question {
    pair: usize,
    order: Order,
    body: String,
    fingerprint: String,
}

/// Asks a judge about every pair of answers, and writes `judgement.json`. What the folder has of the same comparison is not asked
/// again. Answers none where `stops` ended it, behind the questions that were on their way.
///
/// # Errors
///
/// As [`pairs`], [`Template::render`], [`Journal::open`] and [`Judge::ask`]; verdicts that came in before are recorded.
pub fn judge(
    case: Case<'_>,
    out: &OutputFolder,
    stops: &(dyn Fn() -> bool + Sync),
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Option<Judgement>, LmError> {
    let Case { a, b, judge, template, concurrency } = case;
    let pairs = pairs(a, b)?;
    let questions = questions(&pairs, template, judge)?;
    let settings = judge.settings();
    let asked = Asked {
        a: a.fingerprint(),
        b: b.fingerprint(),
        judge: settings.url.clone(),
        model: settings.model.clone(),
        template: template.fingerprint(),
        temperature: settings.temperature,
        seed: settings.seed,
        max_tokens: settings.max_tokens,
    };
    let fingerprints: HashMap<_, _> = questions
        .iter()
        .map(|Question { pair, order, fingerprint, .. }| ((*pair, *order), fingerprint.clone()))
        .collect();
    let mut journal = Journal::open(out, &asked, &fingerprints)?;
    let answered: HashSet<_> = journal.verdicts().iter().map(|verdict| (verdict.pair, verdict.order)).collect();
    let left: Vec<_> =
        questions.iter().filter(|question| !answered.contains(&(question.pair, question.order))).collect();
    tell(Event::Begins { questions: questions.len(), answered: answered.len() });
    if !ask_all(&left, judge, &mut journal, concurrency, stops, tell)? {
        return Ok(None);
    }
    let judgement = Judgement::new(a, b, asked, &pairs, journal.verdicts());
    judgement.write(out)?;
    Ok(Some(judgement))
}

/// Every pair in both orders.
fn questions(pairs: &[Pair<'_>], template: &Template, judge: &Judge) -> Result<Vec<Question>, LmError> {
    let every = pairs.iter().enumerate().flat_map(|(index, pair)| Order::BOTH.map(|order| (index, *pair, order)));
    every
        .map(|(index, pair, order)| {
            let body = judge.body(&template.render(pair, order)?)?;
            let fingerprint = blake3::hash(body.as_bytes()).to_hex().to_string();
            Ok(Question { pair: index, order, body, fingerprint })
        })
        .collect()
}

/// Asks until all are answered; whether they are.
fn ask_all(
    left: &[&Question],
    judge: &Judge,
    journal: &mut Journal,
    concurrency: NonZeroUsize,
    stops: &(dyn Fn() -> bool + Sync),
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<bool, LmError> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let state = Mutex::new((journal, 0, None));
    let ends = || stops() || failed.load(Ordering::Relaxed);
    let waits = |problem: &str, pause| tell(Event::Waits { problem, pause });
    let ask_one = |question: &Question| match judge.ask(&question.body, &ends, &waits) {
        Ok(Some(Answer { whole, text, model })) => Some(Ok(Verdict {
            pair: question.pair,
            order: question.order,
            verdict: if whole { question.order.read(&text) } else { None },
            answer: text,
            fingerprint: question.fingerprint.clone(),
            model,
        })),
        Ok(None) => None,
        Err(error) => Some(Err(error)),
    };
    let worker = || {
        while !ends() {
            let Some(question) = left.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let Some(verdict) = ask_one(question) else { return };
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let (journal, done, error) = &mut *state;
            match verdict.and_then(|verdict| journal.append(verdict)) {
                Ok(()) => {
                    *done += 1;
                    tell(Event::Answered);
                }
                Err(found) => {
                    failed.store(true, Ordering::Relaxed);
                    error.get_or_insert(found);
                    return;
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..concurrency.get().min(left.len()) {
            scope.spawn(worker);
        }
    });
    let (_, done, error) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    error.map_or(Ok(done == left.len()), Err)
}
