//! What every solver owes: the same answer, and a certificate that holds.

use lake::environment::{Dynamics, Environment, Rewards};
use lake::generate::Generated;
use lake::map::{ACTIONS, Action, Map};
use lake::measure::performance;
use lake::rollout::{Dice, Episode};
use lake::solver::{ACCURACY, Solution, Solver, Target, optimal_policy, solve};
use proptest::collection::vec;
use proptest::prelude::*;
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
            for row in optimal_policy(&environment, &solution, target) {
                prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-14);
                prop_assert!(row.iter().all(|p| (0.0..=1.0).contains(p)));
            }
        }
        let policy = optimal_policy(&environment, &solution, Target::Greedy);
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
