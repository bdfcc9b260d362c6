//! Tests of all solvers: they give the same result, with a valid certificate.

use lake::environment::{Dynamics, Environment, Rewards};
use lake::generate::Generated;
use lake::map::{ACTIONS, Action, Map};
use lake::measure::{distance as policy_distance, greedy_action, performance};
use lake::rollout::{Dice, Episode};
use lake::solver::{ACCURACY, Solution, Solver, Target, TransitionMatrix, optimal_policy, solve, solve_fast};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Lakes of up to 6 by 6 cells with one goal or several, and generated ones of several blocks.
fn maps() -> impl Strategy<Value = Map> {
    let cell = prop_oneof![4 => Just('F'), 1 => Just('H'), 1 => Just('G')];
    let drawn = (1_usize..=6, 2_usize..=6)
        .prop_flat_map(move |(height, width)| (Just(width), vec(cell.clone(), height * width), 0..height * width))
        .prop_filter_map("the goal can be reached", |(width, mut cells, start)| {
            cells[start] = 'S';
            let rows: Vec<String> = cells.chunks(width).map(|row| row.iter().collect()).collect();
            Map::parse("random", &rows.join("\n")).ok()
        });
    let generated = (1_usize..=40, 2_usize..=70, 0.0..0.4, any::<u64>())
        .prop_map(|(height, width, holes, seed)| Map::generated(&Generated { height, width, holes, seed }));
    prop_oneof![3 => drawn, 1 => generated]
}

fn dynamics() -> impl Strategy<Value = Dynamics> {
    let reward = || prop_oneof![Just(0.0), Just(1.0), -1.0..=1.0, -50.0..=50.0];
    // Steps are paid for in small coin, so that to go on is sometimes worth it and sometimes not.
    let frozen = prop_oneof![2 => Just(0.0), 1 => -0.1..=0.1];
    let success_rate = prop_oneof![Just(1.0 / 3.0), Just(0.0), Just(1.0), 0.0..=1.0];
    (any::<bool>(), success_rate, reward(), reward(), frozen).prop_map(
        |(slippery, success_rate, goal, hole, frozen)| Dynamics {
            slippery,
            success_rate,
            rewards: Rewards { goal, hole, frozen },
        },
    )
}

fn environments() -> impl Strategy<Value = Environment> {
    (maps(), dynamics()).prop_map(|(map, dynamics)| Environment::new(map, dynamics))
}

/// B V and the Q in it, from the environment's transitions.
fn backup(environment: &Environment, gamma: f64, value: &[f64]) -> Vec<[f64; ACTIONS]> {
    let q = |cell, action| -> f64 {
        let worth = |next: usize, terminated| if terminated { 0.0 } else { gamma * value[next] };
        let outcomes = environment.outcomes(cell, action);
        outcomes.iter().map(|o| o.probability * (o.reward + worth(o.next, o.terminated))).sum()
    };
    (0..value.len()).map(|cell| Action::ALL.map(|action| q(cell, action))).collect()
}

fn best(q: &[f64; ACTIONS]) -> f64 {
    q.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn largest(solution: &Solution, rewards: Rewards) -> f64 {
    let rewards = [rewards.goal, rewards.hole, rewards.frozen];
    solution.value.iter().chain(&rewards).fold(0.0, |most: f64, number| most.max(number.abs()))
}

fn distance(ours: &[f64], theirs: &[f64]) -> f64 {
    ours.iter().zip(theirs).fold(0.0, |most, (ours, theirs)| most.max((ours - theirs).abs()))
}

/// A sum whose rounding error is carried along (Neumaier), so that backups lose almost nothing.
fn exact_sum(terms: impl IntoIterator<Item = (f64, f64)>) -> (f64, f64) {
    terms.into_iter().fold((0.0, 0.0), |(sum, rest), (a, b)| {
        let product = a * b;
        let lost = a.mul_add(b, -product);
        let total = sum + product;
        let carried = if sum.abs() >= product.abs() { (sum - total) + product } else { (product - total) + sum };
        (total, rest + carried + lost)
    })
}

/// V* by value iteration in about twice the precision, until nothing changes: number and remainder.
fn precise(environment: &Environment, gamma: f64) -> Vec<f64> {
    let cells = environment.map().cells();
    let dynamics = environment.dynamics();
    let (intended, aside) = match dynamics.slippery {
        true => (dynamics.success_rate, (1.0 - dynamics.success_rate) / 2.0),
        false => (1.0, 0.0),
    };
    let mut value = vec![(0.0, 0.0); cells.len()];
    let sweeps = (1e-20_f64.ln() / gamma.ln()).ceil() as usize;
    for _ in 0..sweeps.max(1) {
        let worth: Vec<_> = (0..cells.len())
            .map(|cell| {
                let reward = dynamics.rewards.of(cells[cell]);
                match cells[cell].is_terminal() {
                    true => (reward, 0.0),
                    false => {
                        let (sum, rest) = exact_sum([(1.0, reward), (gamma, value[cell].0)]);
                        (sum, rest + gamma * value[cell].1)
                    }
                }
            })
            .collect();
        let next = |cell: usize| {
            if cells[cell].is_terminal() {
                return (0.0, 0.0);
            }
            let q = |action: usize| {
                let ways = [(action, intended), (action + 1, aside), (action + 3, aside)];
                let worth = ways.map(|(way, p)| (p, worth[environment.map().intended(cell, Action::ALL[way % 4])]));
                let (sum, rest) = exact_sum(worth.map(|(p, worth)| (p, worth.0)));
                let rest = rest + worth.iter().map(|(p, worth)| p * worth.1).sum::<f64>();
                (sum + rest, rest - ((sum + rest) - sum))
            };
            let better = |a: (f64, f64), b: (f64, f64)| if b.0 + (b.1 - a.1) > a.0 { b } else { a };
            (1..ACTIONS).map(q).fold(q(0), better)
        };
        let after: Vec<_> = (0..cells.len()).map(next).collect();
        if after == value {
            break;
        }
        value = after;
    }
    value.into_iter().map(|(sum, rest)| sum + rest).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn solvers_agree_within_their_certificates_and_report_the_residual_there_is(
        environment in environments(),
        gamma in prop_oneof![Just(0.0), 0.0..0.99, Just(0.99)],
        accuracy in prop_oneof![Just(ACCURACY), Just(1e-8), Just(1e-3)],
    ) {
        let solutions = Solver::ALL.map(|solver| solve(&environment, gamma, solver, accuracy));
        for (solver, solution) in Solver::ALL.iter().zip(&solutions) {
            let size = largest(solution, environment.dynamics().rewards);
            let q = backup(&environment, gamma, &solution.value);
            let rounding = 8.0 * f64::EPSILON * size;
            prop_assert!(distance(q.as_flattened(), solution.action_value.as_flattened()) <= rounding, "{solver:?}");
            let residual = distance(&q.iter().map(best).collect::<Vec<_>>(), &solution.value);
            prop_assert!((residual - solution.residual).abs() <= rounding, "{solver:?}, {residual:e}");
            prop_assert!(solution.error_bound >= solution.residual / (1.0 - gamma), "{solver:?}");
            prop_assert!(
                solution.error_bound <= accuracy.max(40.0 * f64::EPSILON * size / (1.0 - gamma)),
                "{solver:?}: {:e}", solution.error_bound
            );
            for (cell, kind) in environment.map().cells().iter().enumerate() {
                if kind.is_terminal() {
                    prop_assert_eq!((solution.value[cell], solution.action_value[cell]), (0.0, [0.0; ACTIONS]));
                }
            }
            for (other, theirs) in Solver::ALL.iter().zip(&solutions) {
                let bounds = solution.error_bound + theirs.error_bound;
                let apart = distance(&solution.value, &theirs.value);
                prop_assert!(apart <= bounds, "{solver:?}, {other:?}: {apart:e} > {bounds:e}");
                let apart = distance(solution.action_value.as_flattened(), theirs.action_value.as_flattened());
                prop_assert!(apart <= bounds, "{solver:?}, {other:?}, Q: {apart:e} > {bounds:e}");
            }
        }
    }

    #[test]
    fn no_certificate_is_violated_against_twice_the_precision(
        (map, dynamics) in (maps().prop_filter("small", |map| map.cells().len() <= 200), dynamics()),
        gamma in prop_oneof![Just(0.0), 0.0..0.95],
    ) {
        let environment = Environment::new(map, dynamics);
        let exact = precise(&environment, gamma);
        for (solver, accuracy) in Solver::ALL.into_iter().flat_map(|solver| [1e-2, 1e-8, 1e-300].map(|a| (solver, a))) {
            let solution = solve(&environment, gamma, solver, accuracy);
            let error = distance(&solution.value, &exact);
            let bound = solution.error_bound;
            prop_assert!(error <= bound, "{solver:?}, {accuracy:e}: {error:e} > {bound:e}");
        }
    }

    #[test]
    fn an_optimal_policy_is_stochastic_and_what_it_earns_is_its_value(
        map in maps().prop_filter("small", |map| map.cells().len() <= 64), dynamics in dynamics()
    ) {
        let environment = Environment::new(map, dynamics);
        // At this discount nothing is left after the lake's horizon, so that discounted episodes earn V*.
        let gamma = 0.5;
        let solution = solve(&environment, gamma, Solver::PolicyIteration, ACCURACY);
        for target in [Target::Greedy, Target::Ties, Target::Soft] {
            for row in optimal_policy(&environment, &solution, target).unwrap() {
                prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-14);
                prop_assert!(row.iter().all(|p| (0.0..=1.0).contains(p)));
            }
        }
        let policy = optimal_policy(&environment, &solution, Target::Greedy).unwrap();
        let mut dice = Dice::new(ChaCha8Rng::seed_from_u64(3), ChaCha8Rng::seed_from_u64(4));
        let start = environment.map().start();
        if !dynamics.slippery {
            let earned = Episode::sample(&environment, &policy, &mut dice).discounted_return(gamma);
            let size = largest(&solution, dynamics.rewards).max(1.0);
            prop_assert!((earned - solution.value[start]).abs() <= 1e-9 * size, "{earned}, {}", solution.value[start]);
        }
        // Success is arrival in a goal, whatever it pays.
        let fares = performance(&environment, &policy);
        let plain = Environment::new(environment.map().clone(), Dynamics { rewards: Rewards::default(), ..dynamics });
        let plain = performance(&plain, &policy);
        prop_assert!((fares.success_rate - plain.mean_return).abs() < 1e-12);
        prop_assert!((0.0..=1.0 + 1e-12).contains(&fares.success_rate));
    }

    #[test]
    fn a_greater_reward_never_lowers_a_value(
        map in maps(), dynamics in dynamics(), more in 0.0..2.0, which in 0..3
    ) {
        let mut greater = dynamics;
        let rewards = &mut greater.rewards;
        *[&mut rewards.goal, &mut rewards.hole, &mut rewards.frozen].into_iter().nth(which as usize).unwrap() += more;
        let [low, high] = [dynamics, greater]
            .map(|dynamics| solve(&Environment::new(map.clone(), dynamics), 0.9, Solver::Prioritised, 1e-9));
        for (low_value, high_value) in low.value.iter().zip(&high.value) {
            prop_assert!(*high_value >= low_value - low.error_bound - high.error_bound);
        }
    }
}

#[test]
fn a_lake_of_several_blocks_and_threads_is_the_same_on_any_number_of_threads() {
    let environment = Environment::new(Map::load("generated:300x300,holes=0.1,seed=4").unwrap(), true);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| solve(&environment, 0.95, Solver::ValueIteration, 1e-8))
    };
    let one = on(1);
    assert_eq!(one, on(2));
    let accelerated = solve(&environment, 0.99, Solver::Accelerated, 1e-8);
    let plain = solve(&environment, 0.99, Solver::ValueIteration, 1e-8);
    assert!(accelerated.sweeps < 2 * plain.sweeps / 3, "{}, {}", accelerated.sweeps, plain.sweeps);
    assert!(distance(&accelerated.value, &plain.value) <= accelerated.error_bound + plain.error_bound);
    let blocks = solve(&environment, 0.95, Solver::Prioritised, 1e-8);
    assert!(one.error_bound <= 1e-8 && blocks.error_bound <= 1e-8, "{:e}", blocks.error_bound);
    assert!(distance(&one.value, &blocks.value) <= one.error_bound + blocks.error_bound);
}

#[test]
fn elimination_answers_where_sweeps_would_take_a_million_million() {
    // Never to end is worth 1 / (1 - gamma), and from every cell it is possible.
    let rewards = Rewards { goal: 0.0, hole: 0.0, frozen: 1.0 };
    let environment = Environment::new(Map::load("4x4").unwrap(), Dynamics { rewards, ..Dynamics::from(false) });
    let gamma = 1.0 - 1e-9;
    let solution = solve(&environment, gamma, Solver::PolicyIteration, ACCURACY);
    let expected = 1.0 / (1.0 - gamma);
    for cell in environment.map().non_terminal() {
        assert!((solution.value[cell] / expected - 1.0).abs() < 1e-6, "{cell}: {}", solution.value[cell]);
    }
}

#[test]
fn acceleration_goes_on_while_rounding_slows_the_fall() {
    // Near the limit of precision 32 sweeps shrink the residual by a little less than 31 would without rounding.
    let map = Map::load("generated:2x70,holes=0.09033451327067872,seed=3265501715649300714").unwrap();
    for (aside, reward) in [(0.213_498_699_065_237_66, 0.098_837_579_122_302_41), (0.2, 0.1), (0.3, 0.05)] {
        let rewards = Rewards { goal: -13.244_232_462_383_911, hole: -0.051_476_595_283_297_71, frozen: reward };
        let dynamics = Dynamics { slippery: true, success_rate: 1.0 - 2.0 * aside, rewards };
        let solution = solve(&Environment::new(map.clone(), dynamics), 0.99, Solver::Accelerated, ACCURACY);
        assert!(solution.residual <= 8.0 * f64::EPSILON * largest(&solution, rewards), "{:e}", solution.residual);
    }
}

/// A number in about twice the precision: a sum of two.
#[derive(Clone, Copy, Debug, Default)]
struct Double(f64, f64);

impl Double {
    fn sum(a: f64, b: f64) -> Self {
        let sum = a + b;
        let part = sum - a;
        Self(sum, (a - (sum - part)) + (b - part))
    }

    fn plus(self, other: Self) -> Self {
        let Self(high, low) = Self::sum(self.0, other.0);
        Self::sum(high, low + self.1 + other.1)
    }

    fn times(self, other: Self) -> Self {
        let product = self.0 * other.0;
        Self::sum(product, self.0.mul_add(other.0, -product) + self.0 * other.1 + self.1 * other.0)
    }

    fn over(self, other: Self) -> Self {
        let quotient = self.0 / other.0;
        let rest = self.plus(other.times(Self(-quotient, 0.0)));
        Self::sum(quotient, rest.0 / other.0)
    }

    fn minus(self, other: Self) -> Self {
        self.plus(Self(-other.0, -other.1))
    }
}

/// A deterministic policy's value in twice the precision, by elimination.
fn evaluate(environment: &Environment, gamma: f64, actions: &[Action]) -> Vec<Double> {
    let cells = environment.map().non_terminal();
    let place = |cell: usize| cells.binary_search(&cell).unwrap();
    let mut rows: Vec<Vec<Double>> = cells
        .iter()
        .enumerate()
        .map(|(own, &cell)| {
            let mut row = vec![Double::default(); cells.len() + 1];
            row[own] = Double(1.0, 0.0);
            for outcome in environment.outcomes(cell, actions[cell]) {
                let probability = Double(outcome.probability, 0.0);
                let reward = probability.times(Double(outcome.reward, 0.0));
                row[cells.len()] = row[cells.len()].plus(reward);
                if !outcome.terminated {
                    let next = &mut row[place(outcome.next)];
                    *next = next.minus(probability.times(Double(gamma, 0.0)));
                }
            }
            row
        })
        .collect();
    for pivot in 0..cells.len() {
        let (above, below) = rows.split_at_mut(pivot + 1);
        let source = &above[pivot];
        for target in below.iter_mut().filter(|target| target[pivot].0 != 0.0) {
            let factor = target[pivot].over(source[pivot]);
            for column in pivot..source.len() {
                target[column] = target[column].minus(factor.times(source[column]));
            }
        }
    }
    let mut value = vec![Double::default(); environment.map().cells().len()];
    for pivot in (0..cells.len()).rev() {
        let mut rest = rows[pivot][cells.len()];
        for (column, &cell) in cells.iter().enumerate().skip(pivot + 1) {
            rest = rest.minus(rows[pivot][column].times(value[cell]));
        }
        value[cells[pivot]] = rest.over(rows[pivot][pivot]);
    }
    value
}

/// Q of a cell, and for each action the magnitude of its terms.
fn action_values(environment: &Environment, gamma: f64, value: &[Double], cell: usize) -> [(Double, f64); ACTIONS] {
    Action::ALL.map(|action| {
        environment.outcomes(cell, action).into_iter().fold((Double::default(), 0.0), |(sum, size), outcome| {
            let next = if outcome.terminated { Double::default() } else { value[outcome.next] };
            let worth = Double(outcome.reward, 0.0).plus(Double(gamma, 0.0).times(next));
            let terms = outcome.reward.abs() + gamma * next.0.abs();
            (sum.plus(Double(outcome.probability, 0.0).times(worth)), size + outcome.probability * terms)
        })
    })
}

/// V* in twice the precision, by policy iteration from a policy, and the policy's own value.
fn exact(environment: &Environment, gamma: f64, policy: &TransitionMatrix) -> (Vec<Double>, Vec<Double>) {
    let mut actions: Vec<_> = policy.iter().map(greedy_action).collect();
    let own = evaluate(environment, gamma, &actions);
    let mut value = own.clone();
    loop {
        let mut improved = false;
        for cell in environment.map().non_terminal() {
            let q = action_values(environment, gamma, &value, cell);
            let current = q[actions[cell] as usize];
            for action in Action::ALL {
                let (better, size) = q[action as usize];
                if better.minus(current.0).0 > 1e-24 * size.max(current.1)
                    && better.minus(q[actions[cell] as usize].0).0 > 0.0
                {
                    actions[cell] = action;
                    improved = true;
                }
            }
        }
        if !improved {
            return (value, own);
        }
        value = evaluate(environment, gamma, &actions);
    }
}

/// Cells in which a policy's most probable action is worse than the best by more than the tolerance of a tie.
fn contradictions(environment: &Environment, gamma: f64, policy: &TransitionMatrix, share: f64) -> Vec<usize> {
    let (value, _) = exact(environment, gamma, policy);
    let is_worse = |&cell: &usize| {
        let q = action_values(environment, gamma, &value, cell);
        let (own, _) = q[greedy_action(&policy[cell]) as usize];
        q.iter().any(|(other, size)| other.minus(own).0 > share * size)
    };
    environment.map().non_terminal().into_iter().filter(is_worse).collect()
}

fn greedy_of(environment: &Environment, gamma: f64) -> TransitionMatrix {
    optimal_policy(environment, &solve_fast(environment, gamma), Target::Greedy).unwrap()
}

#[test]
fn the_greedy_optimal_policy_has_the_optimal_value_on_all_but_a_share_of_lakes_below_a_hundredth() {
    let reward = || {
        let magnitude = (-12.0..=6.0).prop_map(|exponent: f64| 10_f64.powf(exponent));
        prop_oneof![1 => Just(0.0), 2 => magnitude.clone(), 1 => magnitude.prop_map(|reward| -reward)]
    };
    let success_rate = prop_oneof![2 => Just(1.0 / 3.0), 1 => 0.0..=1.0];
    let dynamics = (any::<bool>(), success_rate, reward(), reward(), prop_oneof![2 => Just(0.0), 1 => reward()]);
    let dynamics = dynamics.prop_map(|(slippery, success_rate, goal, hole, frozen)| Dynamics {
        slippery,
        success_rate,
        rewards: Rewards { goal, hole, frozen },
    });
    let gamma = prop_oneof![0.01..0.9999, (1e-4_f64.ln()..0.99_f64.ln()).prop_map(|left| 1.0 - left.exp())];
    let lakes = (maps().prop_filter("small", |map| map.cells().len() <= 64), dynamics, gamma);
    // Always the same lakes: a share that is counted on other lakes each time passes or fails by chance.
    let config = ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[23; 32]));
    let refused = std::cell::RefCell::new(Vec::new());
    let cases = std::cell::Cell::new(0_u32);
    let outcome = runner.run(&lakes, |(map, dynamics, gamma)| {
        cases.set(cases.get() + 1);
        let environment = Environment::new(map, dynamics);
        let solution = solve_fast(&environment, gamma);
        let policy = match optimal_policy(&environment, &solution, Target::Greedy) {
            Ok(policy) => policy,
            Err(error) => {
                let error = error.to_string();
                prop_assert!(error.contains("row") && error.contains("cannot be distinguished"), "{error}");
                refused.borrow_mut().push(error);
                return Ok(());
            }
        };
        let cells = environment.map().non_terminal();
        prop_assert_eq!(policy_distance(&policy, &policy, &cells), 0.0);
        let (best, own) = exact(&environment, gamma, &policy);
        for &cell in &cells {
            let size = action_values(&environment, gamma, &best, cell)[greedy_action(&policy[cell]) as usize].1;
            let lost = best[cell].minus(own[cell]).0;
            prop_assert!(lost <= 1e-10 * size, "{cell}: {lost:e} of {size:e}");
            let error = best[cell].minus(Double(solution.value[cell], 0.0)).0.abs();
            let bound = solution.value_error_bound[cell];
            prop_assert!(error <= bound, "{cell}: {error:e} > {bound:e}");
        }
        // Actions that tie are worth the same.
        let ties = optimal_policy(&environment, &solution, Target::Ties).unwrap();
        for &cell in &cells {
            let q = action_values(&environment, gamma, &best, cell);
            for action in (0..ACTIONS).filter(|&action| ties[cell][action] > 0.0) {
                let lost = best[cell].minus(q[action].0).0;
                prop_assert!(lost <= 1e-9 * q[action].1, "{cell}, {action}: {lost:e}");
            }
        }
        Ok(())
    });
    outcome.unwrap();
    let (refused, cases) = (refused.into_inner(), cases.get());
    let share = 100.0 * refused.len() as f64 / f64::from(cases);
    println!("refused: {} of {cases} lakes, {share:.2}%\n{}", refused.len(), refused.join("\n"));
    assert!(share < 1.0, "{share}%");
}

#[test]
fn a_long_row_at_a_discount_of_a_half_leads_to_the_goal_from_everywhere() {
    let map = Map::parse("row", &format!("S{}G", "F".repeat(38))).unwrap();
    let environment = Environment::new(map, false);
    let policy = greedy_of(&environment, 0.5);
    assert!((0..39).all(|cell| greedy_action(&policy[cell]) == Action::Right), "{policy:?}");
    assert_eq!(performance(&environment, &policy).success_rate, 1.0);
    // The values are powers of a half, which no rounding touches.
    let solution = solve_fast(&environment, 0.5);
    assert!((0..39).all(|cell| solution.value[cell] == 0.5_f64.powi(38 - cell as i32)));
}

#[test]
fn no_arrow_of_the_slippery_8x8_at_a_small_discount_contradicts_the_exact_values() {
    let environment = Environment::new(Map::load("8x8").unwrap(), true);
    for gamma in [0.01, 0.1, 0.3, 0.9, 0.99, 0.9999] {
        let policy = greedy_of(&environment, gamma);
        assert_eq!(contradictions(&environment, gamma, &policy, 1e-12), Vec::<usize>::new(), "{gamma}");
    }
}

#[test]
fn a_small_reward_has_the_optimal_policy_of_a_large_one() {
    for (map, slippery) in [("4x4", false), ("4x4", true), ("8x8", true)] {
        let optimal = |goal| {
            let rewards = Rewards { goal, hole: 0.0, frozen: 0.0 };
            let dynamics = Dynamics { rewards, ..Dynamics::from(slippery) };
            greedy_of(&Environment::new(Map::load(map).unwrap(), dynamics), 0.99)
        };
        let one = optimal(1.0);
        for goal in [1e-10, 1e-12, 1e-100, 1e6] {
            assert_eq!(optimal(goal), one, "{map}, {slippery}, {goal:e}");
        }
    }
}

#[test]
fn every_arrow_of_a_large_lake_comes_a_move_closer_to_the_goal() {
    // From the far corner the goal is worth 0.9^298, 2e-14, and 0.5^298, 2e-90.
    for (name, gamma) in [("generated:150x150,holes=0.1", 0.9), ("generated:150x150,holes=0.1", 0.5)] {
        let map = Map::load(name).unwrap();
        let (moves, environment) = (map.moves_to_goal(), Environment::new(map.clone(), false));
        for solver in [Solver::fastest(&map, gamma), Solver::Prioritised] {
            let solution = solve(&environment, gamma, solver, ACCURACY);
            let policy = optimal_policy(&environment, &solution, Target::Greedy).unwrap();
            let leads_away = |&cell: &usize| {
                let next = map.intended(cell, greedy_action(&policy[cell]));
                moves[cell].is_some_and(|left| moves[next] != Some(left - 1))
            };
            assert_eq!(map.non_terminal().into_iter().filter(leads_away).count(), 0, "{name}, {gamma}, {solver:?}");
            assert!(solution.relative_error_bound() <= ACCURACY, "{:e}", solution.relative_error_bound());
        }
    }
}

#[test]
fn the_accuracy_is_relative_where_values_are_below_1() {
    let map = Map::load("generated:20x20,holes=0.1,seed=3").unwrap();
    for (dynamics, gamma) in [(Dynamics::from(false), 0.3), (Dynamics::from(true), 0.6)] {
        let environment = Environment::new(map.clone(), dynamics);
        let exact = solve(&environment, gamma, Solver::ValueIteration, 1e-300);
        for (solver, accuracy) in Solver::ALL.into_iter().flat_map(|solver| [1e-2, 1e-8].map(|a| (solver, a))) {
            let solution = solve(&environment, gamma, solver, accuracy);
            assert!(solution.relative_error_bound() <= accuracy, "{solver:?}, {:e}", solution.relative_error_bound());
            for (cell, (value, expected)) in solution.value.iter().zip(&exact.value).enumerate() {
                assert!((value - expected).abs() <= accuracy * expected, "{solver:?}, {cell}: {value:e}, {expected:e}");
            }
            // Whatever V* is known to, arrows are those of the exact values.
            let policy = |solution| optimal_policy(&environment, solution, Target::Ties).unwrap();
            assert_eq!(policy(&solution), policy(&exact), "{solver:?}, {accuracy}");
        }
    }
}

#[test]
fn a_search_goes_no_further_than_its_accuracy_asks_for() {
    let environment = Environment::new(Map::load("generated:64x64,holes=0.1,seed=0").unwrap(), true);
    let solution = solve(&environment, 0.99, Solver::Accelerated, 1e-8);
    assert!(solution.relative_error_bound() <= 1e-8, "{:e}", solution.relative_error_bound());
    // To an absolute error of 1e-8 it takes 372, and to rounding thousands.
    assert!(solution.sweeps < 700, "{}", solution.sweeps);
}

#[test]
fn values_about_to_round_to_0_are_refused_by_the_cells_name_and_true_zeros_tie() {
    let row = |gamma, rewards| {
        let map = Map::parse("row", &format!("S{}G", "F".repeat(198))).unwrap();
        let environment = Environment::new(map, Dynamics { rewards, ..Dynamics::from(false) });
        optimal_policy(&environment, &solve_fast(&environment, gamma), Target::Ties)
    };
    // 0.01^198 is 1e-396.
    let error = row(0.01, Rewards::default()).unwrap_err().to_string();
    assert!(
        ["row 1, column 1", "cannot be distinguished", "below 1e-290"].iter().all(|text| error.contains(text)),
        "{error}"
    );
    let nothing = row(0.01, Rewards { goal: 0.0, hole: 0.0, frozen: 0.0 }).unwrap();
    assert_eq!(nothing, vec![[0.25; ACTIONS]; 200]);
    // Only the last move is worse than to go on for ever.
    let avoided = row(0.01, Rewards { goal: -1.0, hole: 0.0, frozen: 0.0 }).unwrap();
    assert_eq!(avoided[..198], vec![[0.25; ACTIONS]; 198]);
    let third = 1.0 / 3.0;
    assert_eq!(avoided[198], [third, third, 0.0, third]);
}

#[test]
fn a_corner_of_walls_ties_at_every_discount() {
    let environment = Environment::new(Map::load("4x4").unwrap(), false);
    for gamma in [0.01, 0.5, 0.99, 0.9999, 0.999_999] {
        let ties = optimal_policy(&environment, &solve_fast(&environment, gamma), Target::Ties).unwrap();
        // From the start, both ways around the holes take six moves; from the last cell before the goal, one does.
        assert_eq!((ties[0], ties[14]), ([0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0]), "{gamma}");
    }
}

#[test]
fn the_default_solver_follows_the_lakes_size_and_the_discount() {
    let fastest = |name: &str, gamma| Solver::fastest(&Map::load(name).unwrap(), gamma);
    assert_eq!(fastest("4x4", 0.99), Solver::PolicyIteration);
    assert_eq!(fastest("generated:20x20", 0.99), Solver::Accelerated);
    assert_eq!(fastest("generated:20x20", 0.9999), Solver::PolicyIteration);
    assert_eq!(fastest("generated:400x400", 0.99), Solver::Prioritised);
}
