//! Theory that the lake, its solver, its network and the training step must satisfy.

use lake::environment::Environment;
use lake::map::{ACTIONS, Action, Map, Trajectory};
use lake::measure::{greedy, greedy_action, performance};
use lake::network::{Forward, Network, States};
use lake::policy::{LakePolicy, micro_batch};
use lake::solver::{TEMPERATURE, TIE_TOLERANCE, Target, optimal_policy, value_iteration};
use objective::{
    Anticipation, Data, Evaluation, Freeze, METHODS, Objective, Parameters, Statistic, StepTotals, TokenBatch,
    TokenConstants, TokenStatistics, registry,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tests::{assert_close, central_difference, rounding};
use training::{MicroBatch, Moment, Optimizer, OptimizerSettings, Policy, StepError, StepSettings, Workspace};
use training::{accumulate, fill_reference, step};

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
    Network::new(map.cells().len(), HIDDEN, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap()
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

fn batch(map: &Map, objective: &dyn Objective, demonstration: &str, rejected: &str) -> MicroBatch<States, Forward> {
    let [demonstration, rejected] = [demonstration, rejected].map(|word| map.walk(word).unwrap());
    micro_batch(objective.requirements().data, &demonstration, Some(&rejected))
}

/// The policy's log-probabilities at every state, by plain loops: encodings of the demonstrated and the anticipated state come
/// from `own` and `other`, the rest of the network from `head`. All three are the same parameters but where a stop-gradient
/// holds one back.
fn log_policy(states: &States, [own, other, head]: [&[f64]; 3]) -> Vec<[f64; ACTIONS]> {
    let cells = (head.len() - (HIDDEN + 1) * ACTIONS) / HIDDEN - 1;
    let encode = |parameters: &[f64], cell: usize, unit: usize| {
        parameters[cell * HIDDEN + unit] + parameters[cells * HIDDEN + unit]
    };
    let head = &head[(cells + 1) * HIDDEN..];
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
            let weighted: f64 = (0..HIDDEN).map(|unit| hidden[unit] * head[unit * ACTIONS + action]).sum();
            weighted + head[HIDDEN * ACTIONS + action]
        });
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        logits.map(|logit| logit - sum.ln())
    };
    (0..states.cells.len()).map(row).collect()
}

/// The loss of one micro-batch from the policy's log-probabilities at every state. `stopped` are those that a stop-gradient in
/// the objective (TDPO's, on the chosen divergence) reads instead.
fn loss(
    objective: &dyn Objective,
    batch: &MicroBatch<States, Forward>,
    rows: &[[f64; ACTIONS]],
    stopped: &[[f64; ACTIONS]],
) -> f64 {
    let requirements = objective.requirements();
    let mut statistics = TokenStatistics::default();
    for &statistic in requirements.statistics {
        let value = |(index, row): (usize, &[f64; ACTIONS])| match statistic {
            Statistic::LogProb => row[batch.tokens[index]],
            Statistic::ReferenceKl => {
                let chosen = batch.responses[batch.pairs[0].chosen].tokens.contains(&index);
                let second = objective.parameters().get("variant") == Some(&"2".into());
                let row = if chosen && second { &stopped[index] } else { row };
                let reference = batch.reference.as_ref().unwrap().log_policy.row(index);
                reference.iter().zip(row).map(|(reference, own)| reference.exp() * (reference - own)).sum()
            }
        };
        statistics.column_mut(statistic).extend(rows.iter().enumerate().map(value));
    }
    let totals = StepTotals::of(&batch.responses, &batch.pairs);
    let MicroBatch { constants, responses, pairs, .. } = batch;
    let batch = TokenBatch::new(&requirements, &statistics, constants, responses, pairs, totals).unwrap();
    let mut evaluation = Evaluation::default();
    objective.evaluate(&batch, &mut evaluation);
    evaluation.loss
}

#[test]
fn the_whole_gradient_through_the_step_is_the_difference_of_the_loss_and_stop_gradients_hold() {
    let map = Map::load("4x4").unwrap();
    for (seed, objective) in (0..).zip(objectives()) {
        let mut policy = LakePolicy::new(&map, network(&map, seed));
        let mut batches = [batch(&map, &*objective, "RRDDLDRR", "DDRRDR")];
        // Another policy as the reference, so that DPO is not at its start.
        fill_reference(&LakePolicy::new(&map, network(&map, 1000)), &objective.requirements(), &mut batches).unwrap();
        let (whole, _) =
            accumulate(&mut policy, &*objective, &batches, Moment::default(), &mut Workspace::default()).unwrap();

        let parameters = policy.network.parameters.clone();
        let [batch] = &batches;
        let (states, freeze) = match objective.requirements().anticipation {
            Anticipation::Off => (batch.states.clone(), Freeze::None),
            Anticipation::Residual { lambda, freeze } => {
                (policy.anticipate(&batch.states, lambda.at(1.0, 0.0), freeze).unwrap(), freeze)
            }
        };
        let rows = log_policy(&states, [&parameters; 3]);
        assert_close(&[whole], &[loss(&*objective, batch, &rows, &rows)], 1e-12, 0.0, "loss");
        for (index, &gradient) in policy.network.gradient.iter().enumerate() {
            let moved_loss = |value: f64| {
                let mut moved = parameters.clone();
                moved[index] = value;
                let (own, other): (&[f64], &[f64]) = match freeze {
                    Freeze::None => (&moved, &moved),
                    Freeze::Anticipated => (&moved, &parameters),
                    Freeze::All => (&parameters, &parameters),
                };
                loss(&*objective, batch, &log_policy(&states, [own, other, &moved]), &rows)
            };
            let difference = central_difference(moved_loss, parameters[index], 1e-5);
            let error = (difference - gradient).abs();
            assert!(
                error <= 1e-6 * gradient.abs() + rounding(whole.abs(), 1e-5),
                "{objective:?}, parameter {index}: gradient {gradient:e}, difference {difference:e}"
            );
        }
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
            accumulate(
                &mut policy,
                &*objective,
                std::slice::from_ref(&batch),
                Moment::default(),
                &mut Workspace::default(),
            )
            .unwrap();
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
        let matrix = policy.network.transition_matrix().unwrap();
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
        let walk = |word: &str| map.walk(word).unwrap();
        let parts: Vec<_> = [("DDRDRR", "RD"), ("RRDDLDRR", "DDR"), ("RRDDDR", "D")]
            .map(|(chosen, rejected)| micro_batch(objective.requirements().data, &walk(chosen), Some(&walk(rejected))))
            .into();
        let mut whole = merge(&parts);
        let run = |batches: &mut [MicroBatch<States, Forward>]| {
            let mut policy = LakePolicy::new(&map, network(&map, 5));
            fill_reference(&LakePolicy::new(&map, network(&map, 6)), &objective.requirements(), batches).unwrap();
            let (loss, metrics) =
                accumulate(&mut policy, &*objective, batches, Moment::default(), &mut Workspace::default()).unwrap();
            (loss, metrics, policy.network.gradient)
        };
        let (loss, metrics, gradient) = run(std::slice::from_mut(&mut whole));
        let (split_loss, split_metrics, split_gradient) = run(&mut parts.clone());
        assert_close(&[split_loss], &[loss], 1e-13, 0.0, "loss");
        assert_close(&split_gradient, &gradient, 1e-12, 1e-15, "gradient");
        for ((name, ours), (_, theirs)) in split_metrics.iter().zip(metrics.iter()) {
            assert_close(&[ours], &[theirs], 1e-13, 1e-15, name);
        }
    }
}

/// The same responses as one micro-batch.
fn merge(parts: &[MicroBatch<States, Forward>]) -> MicroBatch<States, Forward> {
    let mut whole = parts[0].clone();
    for part in &parts[1..] {
        let (tokens, responses) = (whole.tokens.len(), whole.responses.len());
        whole.states.cells.extend(&part.states.cells);
        whole.states.begins.extend(part.states.begins.iter().map(|begin| begin + tokens));
        whole.tokens.extend(&part.tokens);
        let moved = |response: &objective::Response| objective::Response {
            tokens: response.tokens.start + tokens..response.tokens.end + tokens,
        };
        whole.responses.extend(part.responses.iter().map(moved));
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
    let (loss, _) = accumulate(&mut policy, &*dpo, &batches, Moment::default(), &mut Workspace::default()).unwrap();
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
        accumulate(&mut policy, objective, &[batch], Moment::default(), &mut Workspace::default()).unwrap();
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
    let settings = StepSettings { learning_rate: 1e-3, clip_norm: None, moment: Moment::default() };
    let error = step(&mut policy, &mut optimizer, &*sft, &batches, settings, &mut Workspace::default()).unwrap_err();
    assert!(matches!(error, StepError::Batch { micro_batch: 0, .. }), "{error}");
    assert_eq!(policy.network.parameters.iter().map(|p| p.to_bits()).collect::<Vec<_>>(), before);
    assert_eq!(optimizer, untouched);
}

/// The policy's log-probabilities along a trajectory, nats.
fn log_prob(network: &Network, trajectory: &Trajectory) -> Vec<f64> {
    let map = Map::load("4x4").unwrap();
    let policy = LakePolicy::new(&map, network.clone());
    let batch = micro_batch(Data::Demonstrations, trajectory, None);
    let mut statistics = TokenStatistics::default();
    let forward = policy.forward(&batch.states).unwrap();
    policy.statistics(&forward, None, &batch.tokens, &[Statistic::LogProb], &mut statistics).unwrap();
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
            .map(|target| optimal_policy(&environment, &solution, target));
        for (cell, kind) in environment.map().cells().iter().enumerate() {
            if kind.is_terminal() {
                prop_assert_eq!([greedy[cell], ties[cell], soft[cell]], [[0.25; 4]; 3]);
                continue;
            }
            let q = solution.action_value[cell];
            let best = q.into_iter().fold(f64::NEG_INFINITY, f64::max);
            let tied: Vec<_> = (0..ACTIONS).filter(|&action| q[action] >= best - TIE_TOLERANCE).collect();
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
        let sampled = network(environment.map(), seed).transition_matrix().unwrap();
        let optimal = optimal_policy(&environment, &value_iteration(&environment, 0.99), Target::Greedy);
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
        for row in network(&map, seed).transition_matrix().unwrap() {
            prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-14);
            prop_assert!(row.iter().all(|probability| *probability > 0.0));
        }
    }

    #[test]
    fn the_greedy_action_is_never_less_probable_than_the_demonstrated(seed in any::<u64>(), word in select(words())) {
        // Equation (11) of the paper.
        let map = Map::load("4x4").unwrap();
        let trajectory = map.walk(word).unwrap();
        let matrix = network(&map, seed).transition_matrix().unwrap();
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
        let matrix = network.transition_matrix().unwrap();
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
