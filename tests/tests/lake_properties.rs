//! Theory that the lake, its solver, its network and the training step must satisfy.

use enumset::EnumSet;
use lake::environment::Environment;
use lake::experiment::Experiment;
use lake::map::{ACTIONS, Action, Map, Trajectory};
use lake::measure::{greedy, greedy_action, performance};
use lake::network::{Encoding, Forward, Inputs, Network, States};
use lake::policy::{LakePolicy, given};
use lake::recipe::{Overrides, Recipe};
use lake::solver::{TEMPERATURE, Target, optimal_policy, value_iteration};
use lake::teacher;
use objective::{
    Anticipation, Constant, Data, Evaluation, Feedback, Freeze, Held, METHODS, Metrics, Objective, ObjectiveState,
    Parameters, Requirements, Response, Statistic, StepTotals, TeacherDivergence, TokenColumns, TokenConstants,
    TokenStatistics, registry,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tests::command::fails;
use tests::{assert_close, central_difference, rounding};
use training::{Frozen, MicroBatch, Optimizer, OptimizerSettings, Policy, Step, StepError, StepSettings};
use training::{Outcome, fill_behaviour, fill_reference};

const HIDDEN: usize = 7;

/// Lakes of up to 6 by 6 cells whose goal can be reached.
fn maps() -> impl Strategy<Value = Map> {
    let cell = prop_oneof![4 => Just('F'), 1 => Just('H'), 1 => Just('G')];
    (1_usize..=6, 2_usize..=6)
        .prop_flat_map(move |(height, width)| (Just(width), vec(cell.clone(), height * width), 0..height * width))
        .prop_filter_map("the goal can be reached", |(width, mut cells, start)| {
            cells[start] = 'S';
            let rows: Vec<_> = cells.chunks(width).map(|row| format!("{:?}", row.iter().collect::<String>())).collect();
            Map::parse("random", &format!("rows = [{}]", rows.join(","))).ok()
        })
}

fn network(map: &Map, seed: u64) -> Network {
    encoding_network(Encoding::OneHot, map, seed)
}

fn encoding_network(encoding: Encoding, map: &Map, seed: u64) -> Network {
    Network::new(Inputs::new(encoding, map), HIDDEN, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap()
}

fn words() -> Vec<&'static str> {
    vec!["DDRDRR", "RD", "RRDDLDRR", "RRDDDR", "D", "RLRLDU"]
        .into_iter()
        .filter(|word| Map::load("4x4").unwrap().walk(word).is_ok())
        .collect()
}

/// Every method, with parameters that reach every branch of the step.
fn objectives() -> Vec<Box<dyn Objective>> {
    let mut objectives: Vec<_> = METHODS.iter().map(|method| build(method.name, &[])).collect();
    objectives.push(build("tdpo", &[("variant", "1")]));
    objectives.push(build("dpo", &[("weighting", "wpo")]));
    objectives.push(build("distillation", &[("divergence", "reverse_kl")]));
    objectives.push(build("distillation", &[("divergence", "jensen_shannon")]));
    objectives.push(build("grpo", &[("ratio", "sequence")]));
    objectives.push(build("grpo", &[("aggregation", "token_mean")]));
    objectives.push(registry::build("grpo", &[("beta".to_owned(), 0.1.into())].into()).unwrap());
    objectives.push(registry::build("ppo", &[("value_clip".to_owned(), 0.2.into())].into()).unwrap());
    for propagation in ["released", "algorithm1", "equation21", "none"] {
        for freeze in ["none", "anticipated", "all"] {
            objectives.push(build("ift", &[("propagation", propagation), ("freeze_embeddings", freeze)]));
        }
    }
    objectives
}

fn build(name: &str, parameters: &[(&str, &str)]) -> Box<dyn Objective> {
    let parameters: Parameters = parameters.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
    registry::build(name, &parameters).unwrap()
}

/// The network that an objective needs: with a value head, if it asks for values.
fn network_for(encoding: Encoding, map: &Map, seed: u64, objective: &dyn Objective) -> Network {
    let network = encoding_network(encoding, map, seed);
    match objective.requirements().statistics.contains(Statistic::Value) {
        true => network.with_value_head(&mut ChaCha8Rng::seed_from_u64(seed)).unwrap(),
        false => network,
    }
}

/// Both trajectories as data of the objective's kind. For objectives that sample, another policy is the behaviour
/// policy.
fn batch(map: &Map, objective: &dyn Objective, demonstration: &str, rejected: &str) -> MicroBatch<States, Forward> {
    let requirements = objective.requirements();
    let [demonstration, rejected] = [demonstration, rejected].map(|word| map.walk(word).unwrap());
    if !matches!(requirements.data, Data::Groups | Data::Rollouts) {
        return given(requirements.data, &demonstration, Some(&rejected));
    }
    let mut batch = given(Data::Preferences, &demonstration, Some(&rejected));
    batch.pairs.clear();
    if requirements.data == Data::Groups {
        batch.responses.iter_mut().for_each(|response| response.feedback = Feedback::Group(0));
        let each = requirements.rewards.unwrap_or(1);
        if requirements.constants.contains(Constant::Reward) {
            batch.constants.reward =
                [1.0, 0.25].into_iter().flat_map(|reward| std::iter::repeat_n(reward, each)).collect();
        }
    }
    let behaviour = LakePolicy::new(map, network_for(Encoding::OneHot, map, 77, objective));
    let outcome = |response: &Response| {
        let mut rewards = vec![0.0; response.tokens.len()];
        rewards[0] = 0.3;
        Outcome { rewards, bootstrap: 0.1 }
    };
    let outcomes = batch.responses.iter().map(outcome).collect();
    fill_behaviour(&behaviour, &requirements, 0.9, std::slice::from_mut(&mut batch), &[outcomes]).unwrap();
    batch
}

/// Fills what other policies say: a reference, so that DPO is not at its start, and a teacher.
fn refer(map: &Map, seed: u64, requirements: &Requirements, batches: &mut [MicroBatch<States, Forward>]) {
    fill_reference(&LakePolicy::new(map, network(map, seed)), requirements, batches).unwrap();
    teacher::fill(&network(map, seed + 1).transition_matrix(), requirements, batches);
}

/// A state's log-policy and value, by plain loops: encodings of the demonstrated and the anticipated state come from
/// `own` and `other`, the rest of the network from `head`. All three are the same parameters but where a stop-gradient
/// holds one back.
type Row = ([f64; ACTIONS], f64);

fn rows(encoding: Encoding, map: &Map, states: &States, [own, other, head]: [&[f64]; 3]) -> Vec<Row> {
    let (cells, width) = (map.cells().len(), map.width());
    let inputs = match encoding {
        Encoding::OneHot => cells,
        Encoding::RowColumn => cells / width + width,
    };
    let encode = |parameters: &[f64], cell: usize, unit: usize| {
        let input = |input: usize| parameters[input * HIDDEN + unit];
        let weights = match encoding {
            Encoding::OneHot => input(cell),
            Encoding::RowColumn => input(cell / width) + input(cells / width + cell % width),
        };
        weights + input(inputs)
    };
    let (head, value_head) = head[(inputs + 1) * HIDDEN..].split_at((HIDDEN + 1) * ACTIONS);
    let row = |state: usize| {
        let hidden: Vec<f64> = (0..HIDDEN)
            .map(|unit| {
                let demonstrated = encode(own, states.cells[state], unit);
                let fused = states.fusion.as_ref().map_or(demonstrated, |fusion| {
                    (1.0 - fusion.lambda) * demonstrated + fusion.lambda * encode(other, fusion.cells[state], unit)
                });
                fused.max(0.0)
            })
            .collect();
        let logits: [f64; ACTIONS] = std::array::from_fn(|action| {
            let weighted: f64 = (0..HIDDEN).map(|unit| hidden[unit] * head[action * HIDDEN + unit]).sum();
            weighted + head[HIDDEN * ACTIONS + action]
        });
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let value = value_head.split_last().map_or(0.0, |(bias, weights)| {
            bias + weights.iter().zip(&hidden).map(|(weight, activation)| weight * activation).sum::<f64>()
        });
        (logits.map(|logit| logit - sum.ln()), value)
    };
    (0..states.cells.len()).map(row).collect()
}

fn statistics(requirements: &Requirements, batch: &MicroBatch<States, Forward>, rows: &[Row]) -> TokenStatistics {
    let mut statistics = TokenStatistics::default();
    for statistic in requirements.statistics {
        let value = |(index, (row, value)): (usize, &Row)| match statistic {
            Statistic::LogProb => row[batch.tokens[index]],
            Statistic::ReferenceKl => {
                let reference = batch.reference.as_ref().unwrap().log_policy[index];
                reference.iter().zip(row).map(|(reference, own)| reference.exp() * (reference - own)).sum()
            }
            Statistic::Entropy => -row.iter().map(|log| log.exp() * log).sum::<f64>(),
            Statistic::Value => *value,
            Statistic::LogSumSquareProb => row.iter().map(|log| (2.0 * log).exp()).sum::<f64>().ln(),
            Statistic::TeacherDivergence => {
                let (teacher, kind) = batch.frozen(requirements).teacher.unwrap();
                let p = |log: f64| log.exp();
                let pairs = || row.iter().copied().zip(teacher.log_policy[index]);
                match kind {
                    TeacherDivergence::ForwardKl => pairs().map(|(own, other)| p(other) * (other - own)).sum(),
                    TeacherDivergence::ReverseKl => pairs().map(|(own, other)| p(own) * (own - other)).sum(),
                    TeacherDivergence::JensenShannon { beta } => {
                        let term = |(own, other): (f64, f64)| {
                            let mixture = (beta * p(other) + (1.0 - beta) * p(own)).ln();
                            beta * p(other) * (other - mixture) + (1.0 - beta) * p(own) * (own - mixture)
                        };
                        pairs().map(term).sum()
                    }
                }
            }
            Statistic::Score => unreachable!("no policy on the lake scores responses"),
        };
        statistics.column_mut(statistic).extend(rows.iter().enumerate().map(value));
    }
    statistics
}

/// The loss and the metrics of a first step after the warm-up, whose gradient the policy then has.
fn accumulate(
    policy: &mut LakePolicy<'_>,
    objective: &dyn Objective,
    batches: &[MicroBatch<States, Forward>],
) -> (f64, Metrics) {
    let mut step = Step::new(objective);
    let lambda = step.requirements().anticipation.at(1.0, 0.0);
    step.accumulate(policy, batches, lambda).unwrap()
}

/// The answer to one micro-batch from what the policy says at every state; with held numbers of its own, or with these.
fn evaluate(
    objective: &dyn Objective,
    batch: &MicroBatch<States, Forward>,
    rows: &[Row],
    held: Option<&Held>,
) -> Evaluation {
    let statistics = statistics(&objective.requirements(), batch, rows);
    let totals = StepTotals::of(&batch.responses, &batch.pairs);
    let MicroBatch { constants, responses, pairs, .. } = batch;
    let columns = TokenColumns { statistics: &statistics, constants, responses, pairs };
    let mut evaluation = Evaluation::default();
    match held {
        None => evaluation.update(objective, &mut ObjectiveState::default(), &columns, totals),
        Some(held) => evaluation.update_held(objective, held, &columns, totals),
    }
    .unwrap();
    evaluation
}

#[test]
fn the_whole_gradient_through_the_step_is_the_difference_of_the_loss_at_fixed_held_numbers() {
    let map = Map::load("4x4").unwrap();
    let encoded = |encoding| objectives().into_iter().map(move |objective| (encoding, objective));
    let encoded = encoded(Encoding::OneHot).chain(encoded(Encoding::RowColumn));
    for (seed, (encoding, objective)) in (0..).zip(encoded) {
        let requirements = objective.requirements();
        let mut policy = LakePolicy::new(&map, network_for(encoding, &map, seed, &*objective));
        let mut batches = [batch(&map, &*objective, "RRDDLDRR", "DDRRDR")];
        refer(&map, 1000, &requirements, &mut batches);
        let (whole, _) = accumulate(&mut policy, &*objective, &batches);

        let parameters = policy.network.parameters.clone();
        let [batch] = &batches;
        let (states, freeze) = match requirements.anticipation {
            Anticipation::Off => (batch.states.clone(), Freeze::None),
            Anticipation::Residual { lambda, freeze } => {
                (policy.anticipate(&batch.states, lambda.at(1.0, 0.0), freeze).unwrap(), freeze)
            }
        };
        let own = evaluate(&*objective, batch, &rows(encoding, &map, &states, [&parameters; 3]), None);
        assert_close(&[whole], &[own.loss], 1e-12, 1e-15, "loss");
        let held = own.held();
        for (index, &gradient) in policy.network.gradient.iter().enumerate() {
            let moved_loss = |value: f64| {
                let mut moved = parameters.clone();
                moved[index] = value;
                let (own, other): (&[f64], &[f64]) = match freeze {
                    Freeze::None => (&moved, &moved),
                    Freeze::Anticipated => (&moved, &parameters),
                    Freeze::All => (&parameters, &parameters),
                };
                evaluate(&*objective, batch, &rows(encoding, &map, &states, [own, other, &moved]), Some(held)).loss
            };
            let difference = central_difference(moved_loss, parameters[index], 1e-5);
            let error = (difference - gradient).abs();
            assert!(
                error <= 1e-6 * gradient.abs() + rounding(whole.abs().max(1.0), 1e-5),
                "{encoding:?}, {objective:?}, parameter {index}: gradient {gradient:e}, difference {difference:e}"
            );
        }
    }
}

#[test]
fn every_statistic_is_pulled_back() {
    // Cotangents of all columns at once, against the difference of Σ cₜ sₜ.
    let map = Map::load("4x4").unwrap();
    let all = EnumSet::all() - Statistic::Score;
    let kinds = [TeacherDivergence::ForwardKl, TeacherDivergence::ReverseKl]
        .into_iter()
        .chain([0.1, 0.5, 0.9].map(|beta| TeacherDivergence::JensenShannon { beta }));
    for (seed, teacher) in (0..).zip(kinds) {
        let data = Requirements::new(Data::Demonstrations);
        let requirements = Requirements { statistics: all, teacher: Some(teacher), ..data };
        let network = network(&map, seed).with_value_head(&mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
        let mut policy = LakePolicy::new(&map, network);
        let mut batches = [given(Data::Demonstrations, &map.walk("RRDDLDRR").unwrap(), None)];
        refer(&map, 1000, &requirements, &mut batches);
        let [batch] = &batches;
        let forward = policy.forward(&batch.states).unwrap();
        let mut own = TokenStatistics::default();
        let frozen = batch.frozen(&requirements);
        policy.statistics(&forward, frozen, &batch.tokens, all, &mut own).unwrap();
        let parameters = policy.network.parameters.clone();
        let expected = statistics(&requirements, batch, &rows(Encoding::OneHot, &map, &batch.states, [&parameters; 3]));
        let mut cotangents = TokenStatistics::default();
        for (number, statistic) in all.iter().enumerate() {
            assert_close(own.column(statistic), expected.column(statistic), 1e-13, 1e-15, statistic.name());
            let wave = |token: usize| (1.3 * token as f64 + number as f64).sin();
            cotangents.column_mut(statistic).extend((0..batch.tokens.len()).map(wave));
        }
        policy.clear_gradient();
        policy.pull_back(&batch.states, forward, frozen, &batch.tokens, &cotangents).unwrap();
        for (index, &gradient) in policy.network.gradient.iter().enumerate() {
            let moved_sum = |value: f64| {
                let mut moved = parameters.clone();
                moved[index] = value;
                let statistics =
                    statistics(&requirements, batch, &rows(Encoding::OneHot, &map, &batch.states, [&moved; 3]));
                let weighted = |statistic| -> f64 {
                    statistics.column(statistic).iter().zip(cotangents.column(statistic)).map(|(s, c)| s * c).sum()
                };
                all.iter().map(weighted).sum()
            };
            let difference = central_difference(moved_sum, parameters[index], 1e-4);
            assert_close(&[gradient], &[difference], 1e-7, 1e-9, &format!("parameter {index}"));
        }
    }
}

#[test]
fn a_row_and_a_column_make_the_encoding_of_a_cell() {
    // One hidden unit that only the first action reads: π(left|s) = e^E / (e^E + 3) where E > 0.
    let map = Map::parse("desc", "[\"SFF\", \"FFG\"]").unwrap();
    let [ln_2, ln_3] = [2.0_f64.ln(), 3.0_f64.ln()];
    let (rows, columns, bias) = ([0.0, ln_3], [-5.0, 0.0, ln_2], [ln_2]);
    let head = [[1.0, 0.0, 0.0, 0.0], [0.0; ACTIONS]].concat();
    let parameters = [&rows[..], &columns, &bias, &head].concat();
    let network = Network::from_parameters(Inputs::new(Encoding::RowColumn, &map), 1, parameters).unwrap();
    let left: Vec<_> = network.transition_matrix().iter().map(|row| row[0]).collect();
    // e^E of the second row is 6 and 12 beside the first row's 2 and 4. The first column leaves the unit inactive:
    // ReLU(E) = 0.
    assert_close(&left, &[1.0 / 4.0, 2.0 / 5.0, 4.0 / 7.0, 1.0 / 4.0, 2.0 / 3.0, 4.0 / 5.0], 1e-15, 0.0, "left");
}

#[test]
fn cells_that_share_inputs_are_visited_each_and_all_that_has_a_gradient_learns() {
    let map = Map::load("4x4").unwrap();
    for encoding in [Encoding::OneHot, Encoding::RowColumn] {
        let sft = build("sft", &[]);
        let mut policy = LakePolicy::new(&map, encoding_network(encoding, &map, 4));
        let batches = [batch(&map, &*sft, "DDRDRR", "RD")];
        let mut optimizer = OptimizerSettings::build("sgd", &Parameters::new())
            .map(|settings| Optimizer::new(settings, policy.network.parameters.len()))
            .unwrap();
        let before = policy.network.parameters.clone();
        let settings = StepSettings { learning_rate: 0.5, clip_norm: None, lambda: 0.0 };
        Step::new(&*sft).take(&mut policy, &mut optimizer, &batches, settings).unwrap();
        assert_eq!(policy.cells_visited(), 6);
        let Network { parameters, gradient, .. } = &policy.network;
        let expected: Vec<_> = before.iter().zip(gradient).map(|(before, gradient)| before - 0.5 * gradient).collect();
        assert_eq!(parameters, &expected);
    }
}

#[test]
fn frozen_embeddings_pass_no_gradient() {
    let map = Map::load("4x4").unwrap();
    let encoder = map.cells().len() * HIDDEN;
    for seed in 0..20 {
        let gradient = |freeze: &str| {
            let objective = build("ift", &[("freeze_embeddings", freeze)]);
            let mut policy = LakePolicy::new(&map, network(&map, seed));
            let batch = batch(&map, &*objective, "DDRDRR", "RD");
            accumulate(&mut policy, &*objective, std::slice::from_ref(&batch));
            let demonstrated = batch.states.cells.clone();
            (policy.network.gradient, demonstrated)
        };
        let (all, _) = gradient("all");
        assert!(all[..encoder + HIDDEN].iter().all(|g| *g == 0.0), "all: layer 1 must not learn");
        assert!(all[encoder + HIDDEN..].iter().any(|g| *g != 0.0), "all: layer 2 must learn");
        let (anticipated, demonstrated) = gradient("anticipated");
        for cell in (0..map.cells().len()).filter(|cell| !demonstrated.contains(cell)) {
            let row = &anticipated[cell * HIDDEN..(cell + 1) * HIDDEN];
            assert!(row.iter().all(|g| *g == 0.0), "anticipated: cell {cell} was only anticipated");
        }
    }
}

#[test]
fn a_first_state_anticipates_itself_and_each_later_one_follows_the_greedy_action() {
    let map = Map::load("4x4").unwrap();
    for seed in 0..20 {
        let policy = LakePolicy::new(&map, network(&map, seed));
        let mut batch = batch(&map, &*build("dpo", &[]), "DDRDRR", "RD");
        batch.states.fusion = None;
        let fused = policy.anticipate(&batch.states, 0.3, Freeze::None).unwrap().fusion.unwrap();
        let matrix = policy.network.transition_matrix();
        let States { cells, begins, .. } = &batch.states;
        assert_eq!(begins, &[0, 6]);
        for (index, &anticipated) in fused.cells.iter().enumerate() {
            let expected = if begins.contains(&index) {
                cells[index]
            } else {
                map.intended(cells[index - 1], greedy_action(&matrix[cells[index - 1]]))
            };
            assert_eq!(anticipated, expected);
        }
    }
}

#[test]
fn gradient_accumulation_gives_the_gradient_of_the_whole_step() {
    let map = Map::load("4x4").unwrap();
    for objective in objectives() {
        let parts: Vec<_> = [("DDRDRR", "RD"), ("RRDDLDRR", "DDR"), ("RRDDDR", "D")]
            .map(|(chosen, rejected)| batch(&map, &*objective, chosen, rejected))
            .into();
        let mut whole = merge(&parts);
        let run = |batches: &mut [MicroBatch<States, Forward>]| {
            let mut policy = LakePolicy::new(&map, network_for(Encoding::OneHot, &map, 5, &*objective));
            refer(&map, 6, &objective.requirements(), batches);
            let (loss, metrics) = accumulate(&mut policy, &*objective, batches);
            (loss, metrics, policy.network.gradient)
        };
        let (loss, metrics, gradient) = run(std::slice::from_mut(&mut whole));
        let (split_loss, split_metrics, split_gradient) = run(&mut parts.clone());
        assert_close(&[split_loss], &[loss], 1e-13, 1e-15, "loss");
        assert_close(&split_gradient, &gradient, 1e-12, 1e-15, "gradient");
        for ((name, ours), (_, theirs)) in split_metrics.iter().zip(metrics.iter()) {
            assert_close(&[ours], &[theirs], 1e-13, 1e-15, name);
        }
    }
}

/// The responses of several micro-batches as one micro-batch.
fn merge(parts: &[MicroBatch<States, Forward>]) -> MicroBatch<States, Forward> {
    let mut whole = parts[0].clone();
    for part in &parts[1..] {
        let (tokens, responses) = (whole.tokens.len(), whole.responses.len());
        whole.states.cells.extend(&part.states.cells);
        whole.states.begins.extend(part.states.begins.iter().map(|begin| begin + tokens));
        whole.tokens.extend(&part.tokens);
        whole.responses.extend(part.responses.iter().map(|response| response.shifted(tokens)));
        for constant in EnumSet::<Constant>::all() {
            whole.constants.column_mut(constant).extend(part.constants.column(constant));
        }
        whole.pairs.extend(
            part.pairs
                .iter()
                .map(|pair| objective::Pair { chosen: pair.chosen + responses, rejected: pair.rejected + responses }),
        );
    }
    whole
}

#[test]
fn lambda_rises_along_a_line_and_its_noise_is_kept_within_bounds() {
    let lambda = objective::Lambda { least: 0.1, most: 0.5, noise: 0.5 };
    for (warmup, draw, expected) in [(0.0, 0.0, 0.1), (0.5, 0.0, 0.3), (1.0, 0.0, 0.5), (1.0, 1.0, 0.75)] {
        assert_close(&[lambda.at(warmup, draw)], &[expected], 1e-15, 0.0, "lambda");
    }
    assert_eq!([lambda.at(1.0, 9.0), lambda.at(1.0, -9.0)], [1.0, 0.0]);
}

#[test]
fn dpo_starts_at_ln_2_on_the_lake() {
    let map = Map::load("4x4").unwrap();
    let dpo = build("dpo", &[]);
    let mut policy = LakePolicy::new(&map, network(&map, 3));
    let mut batches = [batch(&map, &*dpo, "DDRDRR", "RD")];
    fill_reference(&policy, &dpo.requirements(), &mut batches).unwrap();
    let (loss, _) = accumulate(&mut policy, &*dpo, &batches);
    assert_eq!(loss, std::f64::consts::LN_2);
}

#[test]
fn ift_without_residual_or_propagation_is_sft_on_the_lake() {
    let map = Map::load("4x4").unwrap();
    let parameters = Parameters::from([("lambda".to_owned(), 0.0.into()), ("propagation".to_owned(), "none".into())]);
    let ift = registry::build("ift", &parameters).unwrap();
    let gradient = |objective: &dyn Objective| {
        let mut policy = LakePolicy::new(&map, network(&map, 9));
        let batch = batch(&map, objective, "DDRDRR", "RD");
        accumulate(&mut policy, objective, &[batch]);
        policy.network.gradient
    };
    assert_close(&gradient(&*ift), &gradient(&*build("sft", &[])), 1e-14, 1e-17, "gradient");
}

#[test]
fn a_step_that_diverges_is_refused_and_leaves_policy_and_optimizer_as_they_were() {
    let map = Map::load("4x4").unwrap();
    let sft = build("sft", &[]);
    let mut policy = LakePolicy::new(&map, network(&map, 1));
    policy.network.parameters[HIDDEN * 17] = f64::NAN;
    let before: Vec<_> = policy.network.parameters.iter().map(|p| p.to_bits()).collect();
    let settings = OptimizerSettings::build("adamw", &Parameters::new()).unwrap();
    let mut optimizer = Optimizer::new(settings, before.len());
    let untouched = optimizer.clone();
    let batches = [batch(&map, &*sft, "DDRDRR", "RD")];
    let settings = StepSettings { learning_rate: 1e-3, clip_norm: None, lambda: 0.0 };
    let error = Step::new(&*sft).take(&mut policy, &mut optimizer, &batches, settings).unwrap_err();
    assert!(matches!(error, StepError::Batch { micro_batch: 0, .. }), "{error}");
    assert_eq!(policy.network.parameters.iter().map(|p| p.to_bits()).collect::<Vec<_>>(), before);
    assert_eq!(optimizer, untouched);
}

/// The policy's log-probabilities along a trajectory, nats.
fn log_prob(network: &Network, trajectory: &Trajectory) -> Vec<f64> {
    let map = Map::load("4x4").unwrap();
    let policy = LakePolicy::new(&map, network.clone());
    let batch = given(Data::Demonstrations, trajectory, None);
    let mut statistics = TokenStatistics::default();
    let forward = policy.forward(&batch.states).unwrap();
    policy.statistics(&forward, Frozen::default(), &batch.tokens, Statistic::LogProb.into(), &mut statistics).unwrap();
    assert_eq!(batch.constants, TokenConstants::default());
    statistics.log_prob
}

proptest! {
    #[test]
    fn transitions_are_stochastic_and_terminal_cells_keep_what_they_have(map in maps(), slippery in any::<bool>()) {
        let environment = Environment::new(map, slippery);
        let cells = environment.map().cells();
        for (cell, action) in (0..cells.len()).flat_map(|cell| Action::ALL.map(|action| (cell, action))) {
            let outcomes = environment.outcomes(cell, action);
            let sum: f64 = outcomes.iter().map(|outcome| outcome.probability).sum();
            prop_assert!((sum - 1.0).abs() < 1e-15);
            for outcome in outcomes {
                prop_assert_eq!(outcome.terminated, cells[outcome.next].is_terminal());
                if cells[cell].is_terminal() {
                    prop_assert_eq!((outcome.next, outcome.reward), (cell, 0.0));
                }
            }
        }
    }

    #[test]
    fn the_value_satisfies_bellmans_equation(map in maps(), slippery in any::<bool>(), gamma in 0.0..0.999) {
        let environment = Environment::new(map, slippery);
        let solution = value_iteration(&environment, gamma);
        for (cell, kind) in environment.map().cells().iter().enumerate() {
            let backup = |action: Action| -> f64 {
                environment.outcomes(cell, action).iter()
                    .map(|o| o.probability * (o.reward + gamma * solution.value[o.next]))
                    .sum()
            };
            let q = Action::ALL.map(backup);
            assert_close(&q, &solution.action_value[cell], 0.0, 1e-14, "Q");
            let best = q.into_iter().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!((best - solution.value[cell]).abs() <= solution.residual + 1e-15);
            if kind.is_terminal() {
                prop_assert_eq!(solution.value[cell], 0.0);
            }
        }
        prop_assert!(solution.residual <= f64::max(1e-12 * (1.0 - gamma), 4.0 * f64::EPSILON));
    }

    #[test]
    fn without_slipping_the_value_counts_the_moves_to_the_goal(map in maps(), gamma in 0.5..0.99) {
        let moves = map.moves_to_goal();
        let environment = Environment::new(map, false);
        let solution = value_iteration(&environment, gamma);
        for cell in environment.map().non_terminal() {
            let expected = moves[cell].map_or(0.0, |moves| gamma.powi(moves as i32 - 1));
            prop_assert!((solution.value[cell] - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn targets_are_what_their_names_say(map in maps(), slippery in any::<bool>()) {
        let environment = Environment::new(map, slippery);
        let solution = value_iteration(&environment, 0.99);
        let [greedy, ties, soft] = [Target::Greedy, Target::Ties, Target::Soft]
            .map(|target| optimal_policy(&environment, &solution, target).unwrap());
        for (cell, kind) in environment.map().cells().iter().enumerate() {
            if kind.is_terminal() {
                prop_assert_eq!([greedy[cell], ties[cell], soft[cell]], [[0.25; 4]; 3]);
                continue;
            }
            let q = solution.action_value[cell];
            let best = q.into_iter().fold(f64::NEG_INFINITY, f64::max);
            // Values of this size differ by far more than rounding, or by rounding alone.
            let tied: Vec<_> = (0..ACTIONS).filter(|&action| q[action] >= best - 1e-11 * best.abs()).collect();
            for action in 0..ACTIONS {
                prop_assert_eq!(greedy[cell][action], f64::from(action == tied[0]));
                let share = if tied.contains(&action) { 1.0 / tied.len() as f64 } else { 0.0 };
                prop_assert!((ties[cell][action] - share).abs() < 1e-15);
                let odds = ((q[action] - q[0]) / TEMPERATURE).exp();
                prop_assert!((soft[cell][action] - odds * soft[cell][0]).abs() < 1e-12);
            }
            prop_assert!((soft[cell].iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn success_is_a_probability_and_the_only_return(map in maps(), slippery in any::<bool>(), seed in any::<u64>()) {
        let environment = Environment::new(map, slippery);
        let sampled = network(environment.map(), seed).transition_matrix();
        let optimal = optimal_policy(&environment, &value_iteration(&environment, 0.99), Target::Greedy).unwrap();
        for policy in [&sampled, &greedy(&sampled), &optimal] {
            let fares = performance(&environment, policy);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&fares.success_rate));
            prop_assert!((fares.success_rate - fares.mean_return).abs() < 1e-12);
        }
        if !slippery {
            prop_assert_eq!(performance(&environment, &optimal).success_rate, 1.0);
        }
    }

    #[test]
    fn the_networks_rows_are_distributions(seed in any::<u64>()) {
        let map = Map::load("8x8").unwrap();
        for row in network(&map, seed).transition_matrix() {
            prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-14);
            prop_assert!(row.iter().all(|probability| *probability > 0.0));
        }
    }

    #[test]
    fn the_greedy_action_is_never_less_probable_than_the_demonstrated(seed in any::<u64>(), word in select(words())) {
        // Equation (11) of the paper.
        let map = Map::load("4x4").unwrap();
        let trajectory = map.walk(word).unwrap();
        let matrix = network(&map, seed).transition_matrix();
        for (&cell, &action) in trajectory.cells.iter().zip(&trajectory.actions) {
            prop_assert!(matrix[cell][greedy_action(&matrix[cell]) as usize] >= matrix[cell][action as usize]);
        }
    }

    #[test]
    fn the_value_of_a_demonstration_obeys_bellman_where_it_is_greedy(seed in any::<u64>(), word in select(words())) {
        // A.3 of the paper: V = exp(-L) with L the undiscounted sum of the losses still to come.
        let map = Map::load("4x4").unwrap();
        let trajectory = map.walk(word).unwrap();
        let network = network(&map, seed);
        let matrix = network.transition_matrix();
        let log_prob = log_prob(&network, &trajectory);
        let value: Vec<f64> = (0..=log_prob.len()).map(|t| log_prob[t..].iter().sum::<f64>().exp()).collect();
        for (t, (&cell, &action)) in trajectory.cells.iter().zip(&trajectory.actions).enumerate() {
            let row = matrix[cell];
            assert_close(&[row[action as usize] * value[t + 1]], &[value[t]], 1e-13, 0.0, "V");
            let residual = row[greedy_action(&row) as usize] * value[t + 1] - value[t];
            if greedy_action(&row) == action {
                prop_assert!(residual.abs() <= 1e-14 * value[t]);
            } else {
                prop_assert!(residual > 0.0);
            }
        }
    }
}

/// Policies of each run of a method that trains beside others.
fn trained(method: &str, company: &[&str], start: &str) -> Vec<Vec<[f64; ACTIONS]>> {
    let fields = format!("start = \"{start}\"\nseeds = 2\nsteps = 4").parse().unwrap();
    let methods = [&[method], company].concat().into_iter().map(str::to_owned).collect();
    let recipe = Recipe::resolve(None, &Overrides { fields, methods, ..Overrides::default() }).unwrap();
    let report = Experiment::new(recipe).unwrap().run(|| ()).unwrap();
    let results = report.results.into_iter();
    results.map(|result| result.policy).find(|policy| policy.method == method).unwrap().policies
}

#[test]
fn a_methods_numbers_are_the_same_alone_and_in_any_company_for_every_start() {
    let after = METHODS.iter().map(|method| format!("after:{}", method.name));
    let starts = ["random", "noisy:0.5", "right:0.5"].into_iter().map(str::to_owned).chain(after);
    for start in starts {
        for method in ["sft", "dpo", "kto", "ppo"] {
            let alone = trained(method, &[], &start);
            let company: Vec<_> = ["sft", "dpo", "bco", "ppo"].into_iter().filter(|&other| other != method).collect();
            assert_eq!(alone, trained(method, &company, &start), "{method}, {start}");
        }
    }
}

#[test]
fn rejected_trajectories_that_teach_nothing_are_refused_for_every_method_that_reads_them() {
    for method in METHODS {
        let requirements = build(method.name, &[]).requirements();
        let compares = matches!(requirements.data, Data::Preferences | Data::Labelled { .. });
        let arguments = ["--method", method.name, "--rejected", "optimal", "--seeds", "1", "--steps", "1"];
        if compares && requirements.source == objective::Source::Given {
            fails(&arguments, &["trajectory DDRDRR", "the demonstration itself", "teaches nothing"]);
        } else {
            tests::command::succeeds(&arguments);
        }
    }
    fails(
        &["--method", "sft", "--start", "after:dpo", "--rejected", "DDRDRR"],
        &["trajectory DDRDRR", "teaches nothing"],
    );
}
