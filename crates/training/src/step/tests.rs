//! Steps of every kind with a policy of two actions and one logit per state.

use std::cell::{Cell, RefCell};
use std::sync::{Barrier, Mutex};

use enumset::EnumSet;
use objective::{
    Advantage, Aggregation, Bco, Constant, Freeze, Ift, Objective, Pair, PolicyGradient, Response, Sft, Simpo,
    Statistic, TokenConstants, TokenStatistics,
};

use super::*;
use crate::policy::Frozen;
use crate::ranks::{Given, Ranks};

/// A policy with log π(1|s) = log σ(θₛ), which counts its forward passes and records each λ.
#[derive(Default)]
struct Logits<'t> {
    parameters: Vec<f64>,
    gradient: Vec<f64>,
    passes: Cell<usize>,
    lambdas: RefCell<Vec<f64>>,
    seat: Option<Seat<'t>>,
}

/// One of several processes, which exchange values through shared memory.
struct Seat<'t> {
    rank: usize,
    table: &'t Table,
}

struct Table {
    given: Mutex<Vec<Given>>,
    sums: Mutex<Vec<f64>>,
    all_here: Barrier,
}

impl Logits<'_> {
    fn new(parameters: &[f64]) -> Self {
        Self { parameters: parameters.to_vec(), gradient: vec![0.0; parameters.len()], ..Self::default() }
    }
}

impl Ranks<std::fmt::Error> for Seat<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.table.given.lock().unwrap().len()
    }

    fn gather(&self, own: Given) -> Result<Vec<Given>, std::fmt::Error> {
        self.table.given.lock().unwrap()[self.rank] = own;
        self.table.all_here.wait();
        let all = self.table.given.lock().unwrap().clone();
        self.table.all_here.wait();
        Ok(all)
    }
}

impl Policy for Logits<'_> {
    type States = Vec<usize>;
    type Forward = Vec<f64>;
    type Optimizer = ();
    type Error = std::fmt::Error;

    fn forward(&self, states: &Vec<usize>) -> Result<Vec<f64>, Self::Error> {
        self.passes.set(self.passes.get() + 1);
        Ok(states.iter().map(|state| 1.0 / (1.0 + (-self.parameters[*state]).exp())).collect())
    }

    fn anticipate(&self, states: &Vec<usize>, lambda: f64, _: Freeze) -> Result<Vec<usize>, Self::Error> {
        self.lambdas.borrow_mut().push(lambda);
        Ok(states.clone())
    }

    fn statistics(
        &self,
        forward: &Vec<f64>,
        _: Frozen<'_, Vec<f64>>,
        tokens: &[usize],
        _: EnumSet<Statistic>,
        out: &mut TokenStatistics,
    ) -> Result<(), Self::Error> {
        let log_prob = |(p, token): (&f64, &usize)| if *token == 1 { p.ln() } else { (1.0 - p).ln() };
        out.log_prob = forward.iter().zip(tokens).map(log_prob).collect();
        Ok(())
    }

    fn pull_back(
        &mut self,
        states: &Vec<usize>,
        forward: Vec<f64>,
        _: Frozen<'_, Vec<f64>>,
        tokens: &[usize],
        cotangents: &TokenStatistics,
    ) -> Result<(), Self::Error> {
        for (index, state) in states.iter().enumerate() {
            self.gradient[*state] += cotangents.log_prob[index] * (tokens[index] as f64 - forward[index]);
        }
        Ok(())
    }

    fn ranks(&self) -> Option<&dyn Ranks<Self::Error>> {
        self.seat.as_ref().map(|seat| seat as _)
    }

    fn sum_gradient(&mut self) -> Result<(), Self::Error> {
        let Some(Seat { table, .. }) = &self.seat else { return Ok(()) };
        let add = |sums: &mut Vec<f64>| {
            sums.resize(self.gradient.len(), 0.0);
            sums.iter_mut().zip(&self.gradient).for_each(|(sum, own)| *sum += own);
        };
        add(&mut table.sums.lock().unwrap());
        table.all_here.wait();
        self.gradient.clone_from(&table.sums.lock().unwrap());
        Ok(())
    }

    fn clear_gradient(&mut self) {
        self.gradient.fill(0.0);
    }

    fn gradient_norm(&self) -> Result<f64, Self::Error> {
        Ok(self.gradient.iter().map(|slot| slot * slot).sum::<f64>().sqrt())
    }

    fn update(&mut self, (): &mut (), learning_rate: f64, scale: f64) -> Result<(), Self::Error> {
        let moved = self.parameters.iter_mut().zip(&self.gradient);
        moved.for_each(|(parameter, gradient)| *parameter -= learning_rate * scale * gradient);
        Ok(())
    }
}

type Batch = MicroBatch<Vec<usize>, Vec<f64>>;

const PARAMETERS: [f64; 4] = [0.3, -0.7, 1.1, 0.2];
const SETTINGS: StepSettings = StepSettings { learning_rate: 0.5, clip_norm: None, lambda: 0.0 };

/// A batch of moves, as states and tokens, in responses, without constants.
fn batch(moves: &[(usize, usize)], responses: Vec<Response>) -> Batch {
    let (states, tokens) = moves.iter().copied().unzip();
    let (pairs, constants) = (Vec::new(), TokenConstants::default());
    Batch { states, tokens, reference: None, teacher: None, responses, pairs, constants }
}

/// Responses of one token each.
fn short(tokens: usize, respond: impl Fn(usize) -> Response) -> Vec<Response> {
    (0..tokens).map(respond).collect()
}

/// Batches with the constants that an objective requires: a number per token, and rewards that differ.
fn filled(objective: &dyn Objective, batches: impl Into<Vec<Batch>>) -> Vec<Batch> {
    let mut batches = batches.into();
    for batch in &mut batches {
        for constant in objective.requirements().constants {
            let value = |index| if constant == Constant::Reward { index as f64 } else { -0.6 };
            *batch.constants.column_mut(constant) = (0..batch.tokens.len()).map(value).collect();
        }
    }
    batches
}

/// Three micro-batches of labelled responses.
fn labelled(objective: &dyn Objective) -> Vec<Batch> {
    let parts: [&[(usize, usize)]; 3] = [&[(0, 1), (1, 0)], &[(2, 1)], &[(3, 0), (1, 1), (0, 0)]];
    let respond = |index| Response::labelled(index..index + 1, index % 2 == 0);
    filled(objective, parts.map(|moves| batch(moves, short(moves.len(), respond))))
}

/// Two micro-batches of a pair each, with more tokens on one side.
fn pairs(objective: &dyn Objective) -> Vec<Batch> {
    let parts = [[(0, 1), (1, 0), (2, 1)], [(3, 0), (1, 1), (0, 0)]].map(|moves| Batch {
        pairs: vec![Pair { chosen: 0, rejected: 1 }],
        ..batch(&moves, vec![Response::new(0..2), Response::new(2..3)])
    });
    filled(objective, parts)
}

/// Two micro-batches whose responses belong to these groups.
fn groups(objective: &dyn Objective, groups: [[usize; 2]; 2]) -> Vec<Batch> {
    let moves = [[(0, 1), (1, 0)], [(2, 1), (3, 0)]];
    let respond = |part: usize| move |index| Response::grouped(index..index + 1, groups[part][index]);
    filled(objective, [0, 1].map(|part| batch(&moves[part], short(2, respond(part)))))
}

/// The mean of each prompt's tokens, with given advantages.
fn prompt_mean() -> PolicyGradient {
    PolicyGradient { advantage: Advantage::Given, aggregation: Aggregation::PromptMean, ..PolicyGradient::grpo() }
}

#[test]
fn a_group_in_two_micro_batches_is_refused_where_a_groups_tokens_are_counted_and_nothing_moves() {
    let objective = prompt_mean();
    let mut step = Step::new(&objective);
    let mut policy = Logits::new(&PARAMETERS);
    let split = groups(&objective, [[0, 1], [1, 2]]);
    let errors = [
        step.take(&mut policy, &mut (), &split, SETTINGS).unwrap_err(),
        step.evaluate(&policy, &split, 0.0).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StepError::Split { micro_batch: 1, group: 1 }), "{error}");
        let expected =
            "micro-batch 1: expected whole groups, got a part of group 1, which begins in the previous micro-batch";
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(policy.parameters, PARAMETERS);
    assert_eq!(policy.passes.get(), 0);
    assert!(step.take(&mut policy, &mut (), &groups(&objective, [[0, 0], [1, 1]]), SETTINGS).is_ok());
    assert_ne!(policy.parameters, PARAMETERS);
}

#[test]
fn a_group_may_lie_in_two_micro_batches_where_the_columns_of_the_step_are_gathered() {
    let objective = PolicyGradient { advantage: Advantage::GroupMean, ..prompt_mean() };
    let [one, other]: [Batch; 2] = groups(&objective, [[0, 1], [1, 2]]).try_into().unwrap();
    let mut whole = Batch {
        states: [&one.states[..], &other.states].concat(),
        tokens: [&one.tokens[..], &other.tokens].concat(),
        responses: one.responses.iter().cloned().chain(other.responses.iter().map(|own| own.shifted(2))).collect(),
        ..one.clone()
    };
    for constant in objective.requirements().constants {
        whole.constants.column_mut(constant).extend(other.constants.column(constant));
    }
    let run = |batches: &[Batch]| {
        let mut policy = Logits::new(&PARAMETERS);
        let answer = Step::new(&objective).accumulate(&mut policy, batches, 0.0).unwrap();
        (answer, policy.gradient)
    };
    assert_eq!(run(&[one, other]), run(&[whole]));
}

#[test]
fn a_part_of_one_micro_batch_goes_through_the_policy_once_and_gathered_ones_twice() {
    let passes = |objective: &dyn Objective, batches: &[Batch]| {
        let mut policy = Logits::new(&PARAMETERS);
        let mut step = Step::new(objective);
        step.evaluate(&policy, batches, 0.0).unwrap();
        let evaluated = policy.passes.take();
        step.accumulate(&mut policy, batches, 0.0).unwrap();
        [evaluated, policy.passes.get()]
    };
    let (simpo, bco) = (Simpo::default(), Bco::default());
    assert_eq!(passes(&simpo, &pairs(&simpo)), [2, 2]);
    assert_eq!(passes(&bco, &labelled(&bco)), [3, 6]);
    assert_eq!(passes(&bco, &labelled(&bco)[..1]), [1, 1]);
}

#[test]
fn an_evaluation_has_the_loss_and_the_metrics_of_the_step_and_changes_nothing() {
    let (bco, simpo, grpo) = (Bco::default(), Simpo::default(), prompt_mean());
    let cases: [(&dyn Objective, Vec<Batch>); 3] =
        [(&bco, labelled(&bco)), (&simpo, pairs(&simpo)), (&grpo, groups(&grpo, [[0, 0], [1, 1]]))];
    for (objective, batches) in cases {
        let (mut step, mut policy) = (Step::new(objective), Logits::new(&PARAMETERS));
        let evaluated = step.evaluate(&policy, &batches, 0.0).unwrap();
        assert_eq!(*step.state(), ObjectiveState::default());
        assert!(policy.gradient.iter().all(|slot| *slot == 0.0));
        assert_eq!(step.accumulate(&mut policy, &batches, 0.0).unwrap(), evaluated, "{objective:?}");
        assert!(policy.gradient.iter().any(|slot| *slot != 0.0));
    }
}

#[test]
fn a_refused_step_leaves_parameters_and_what_the_objective_remembers_as_they_were() {
    let bco = Bco::default();
    let (mut step, mut policy) = (Step::new(&bco), Logits::new(&PARAMETERS));
    step.take(&mut policy, &mut (), &labelled(&bco), SETTINGS).unwrap();
    let (state, parameters) = (step.state().clone(), policy.parameters.clone());
    assert_ne!(state, ObjectiveState::default());
    policy.parameters[3] = f64::NAN;
    let error = step.take(&mut policy, &mut (), &labelled(&bco), SETTINGS).unwrap_err();
    assert!(matches!(error, StepError::Step { .. }), "{error}");
    assert_eq!(*step.state(), state);
    assert_eq!(policy.parameters[..3], parameters[..3]);
}

#[test]
fn the_weight_of_anticipated_states_reaches_the_policy_and_is_unused_by_other_objectives() {
    let demonstrations = [batch(&[(0, 1), (1, 0)], vec![Response::new(0..2)])];
    for (objective, expected) in [(&Ift::default() as &dyn Objective, &[0.25][..]), (&Sft::default(), &[])] {
        let mut policy = Logits::new(&PARAMETERS);
        Step::new(objective).accumulate(&mut policy, &demonstrations, 0.25).unwrap();
        assert_eq!(*policy.lambdas.borrow(), expected, "{objective:?}");
    }
}

#[test]
fn processes_that_share_a_step_answer_its_loss_metrics_and_gradient_each() {
    let (bco, simpo) = (Bco::default(), Simpo::default());
    let cases: [(&dyn Objective, Vec<Batch>); 2] = [(&bco, labelled(&bco)), (&simpo, pairs(&simpo))];
    for (objective, batches) in cases {
        let mut alone = Logits::new(&PARAMETERS);
        let mut step = Step::new(objective);
        let (loss, metrics) = step.accumulate(&mut alone, &batches, 0.0).unwrap();
        // The last process has no micro-batch.
        let table =
            Table { given: Mutex::new(vec![Ok(Vec::new()); 3]), sums: Mutex::default(), all_here: Barrier::new(3) };
        std::thread::scope(|scope| {
            let shares = [&batches[..1], &batches[1..], &[]];
            let answers: Vec<_> = (0..3)
                .zip(shares)
                .map(|(rank, share)| {
                    let table = &table;
                    scope.spawn(move || {
                        let mut policy = Logits { seat: Some(Seat { rank, table }), ..Logits::new(&PARAMETERS) };
                        let mut step = Step::new(objective);
                        let (loss, metrics) = step.accumulate(&mut policy, share, 0.0).unwrap();
                        (loss, metrics, step.state().clone(), policy.gradient)
                    })
                })
                .collect();
            for answer in answers {
                let (its_loss, its_metrics, state, gradient) = answer.join().unwrap();
                assert!((its_loss - loss).abs() < 1e-14, "{objective:?}: {its_loss} {loss}");
                assert_eq!(its_metrics, metrics);
                assert_eq!(state, *step.state());
                for (its, own) in gradient.iter().zip(&alone.gradient) {
                    assert!((its - own).abs() < 1e-14, "{objective:?}: {its} {own}");
                }
            }
        });
    }
}
