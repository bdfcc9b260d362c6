//! Preferences of a judge between the answers of two models.
//!
//! Both models answered the same instructions ([`crate::outputs`]). A judge, which is any server of OpenAI's chat
//! completions, reads each two answers in both orders ([`question`]) and decides which is better ([`verdict`]). Its
//! verdicts are recorded immediately ([`journal`]), so that an interrupted comparison can be resumed. Rates with
//! intervals are computed from the verdicts ([`rates`]) and written with the settings of the comparison
//! ([`judgement`]).

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
use crate::error::EvaluationError;
use crate::outputs::Outputs;

/// A comparison of two models' answers by a judge.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// Answers of the first model, whose rates are computed.
    pub a: &'a Outputs,
    /// Answers of the second model.
    pub b: &'a Outputs,
    /// Judge that compares the answers.
    pub judge: &'a Judge,
    /// Template of the questions.
    pub template: &'a Template,
    /// Number of concurrent requests.
    pub concurrency: NonZeroUsize,
}

/// Progress of a comparison.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The comparison begins or resumes.
    Begins {
        /// Number of all questions.
        questions: usize,
        /// Number of questions that were answered earlier.
        answered: usize,
    },
    /// A question is answered.
    Answered,
    /// A request failed and will be repeated.
    Waits {
        /// Description of the failure.
        problem: &'a str,
        /// Pause before the next request.
        pause: Duration,
    },
}

/// A question with the body of its request.
struct Question {
    pair: usize,
    order: Order,
    body: String,
    fingerprint: String,
}

/// Asks a judge about every pair of answers in both orders, and writes `judgement.json`. Questions with an answer in
/// the folder's journal are not asked again. Returns `None` if `stops` ended the comparison, after the in-flight
/// requests.
///
/// # Errors
///
/// As [`pairs`], [`Template::render`], [`Journal::open`] and [`Judge::ask`]. Verdicts that arrived before an error are
/// recorded.
pub fn judge(
    case: Case<'_>,
    out: &OutputFolder,
    stops: &(dyn Fn() -> bool + Sync),
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Option<Judgement>, EvaluationError> {
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

/// The questions of every pair, in both orders.
fn questions(pairs: &[Pair<'_>], template: &Template, judge: &Judge) -> Result<Vec<Question>, EvaluationError> {
    let every = pairs.iter().enumerate().flat_map(|(index, pair)| Order::BOTH.map(|order| (index, *pair, order)));
    every
        .map(|(index, pair, order)| {
            let body = judge.body(&template.render(pair, order)?)?;
            let fingerprint = blake3::hash(body.as_bytes()).to_hex().to_string();
            Ok(Question { pair: index, order, body, fingerprint })
        })
        .collect()
}

/// Asks all questions, and returns whether all are answered.
fn ask_all(
    left: &[&Question],
    judge: &Judge,
    journal: &mut Journal,
    concurrency: NonZeroUsize,
    stops: &(dyn Fn() -> bool + Sync),
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<bool, EvaluationError> {
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
