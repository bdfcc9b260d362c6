//! Tests of the measurements of `lake --explain` and of their presentation.

use lake::environment::Environment;
use lake::explanation::{
    COMPARED_RUNS, Origin, Reads, bellman_residuals, bias, cosine, divergence, gradient, is_displaced, log_prob,
    overlap, priors, running, visitation,
};
use lake::map::{ACTIONS, Map, Trajectory};
use lake::measure::greedy_action;
use lake::network::{Encoding, Forward, Inputs, Network, States};
use lake::policy::{LakePolicy, given};
use lake::rollout::{Dice, sample};
use lake::solver::TransitionMatrix;
use objective::{Objective, Parameters, Source, registry};
use proptest::prelude::*;
use proptest::sample::select;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::Value;
use tests::assert_close;
use tests::command::{json, succeeds};
use training::{MicroBatch, fill_reference};

const WORDS: [&str; 5] = ["DDRDRR", "RD", "RRDDLDRR", "RRDDDR", "RLRLDU"];

fn small() -> Map {
    Map::load("4x4").unwrap()
}

fn network(map: &Map, seed: u64) -> Network {
    Network::new(Inputs::new(Encoding::OneHot, map), 7, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap()
}

fn build(name: &str) -> Box<dyn Objective> {
    registry::build(name, &Parameters::new()).unwrap()
}

/// The policy that always follows a word.
fn certain(map: &Map, trajectory: &Trajectory) -> TransitionMatrix {
    let mut policy = vec![[0.25; ACTIONS]; map.cells().len()];
    for (&cell, &action) in trajectory.cells.iter().zip(&trajectory.actions) {
        policy[cell] = std::array::from_fn(|other| f64::from(other == action as usize));
    }
    policy
}

#[test]
fn overlap_and_divergence_of_distributions_by_hand() {
    let (reads, visits) = ([0.5, 0.5, 0.0], [0.25, 0.25, 0.5]);
    assert_eq!(overlap(&reads, &visits), 0.5);
    assert_close(&[divergence(&reads, &visits).unwrap()], &[std::f64::consts::LN_2], 1e-15, 0.0, "ln 2");
    assert_eq!(divergence(&visits, &reads), None, "0.5 is read where nobody goes");
    assert_eq!((overlap(&visits, &visits), divergence(&visits, &visits)), (1.0, Some(0.0)));
}

#[test]
fn visits_are_counted_until_the_episode_ends() {
    // S F G under the uniform policy: from S it stays with 3/4, from F with 1/2 and goes either way with 1/4.
    let environment = Environment::new(Map::parse("line", "rows = [\"SFG\"]").unwrap(), false);
    let uniform = vec![[0.25; ACTIONS]; 3];
    let (mut at, mut visits) = ([1.0, 0.0], [0.0, 0.0]);
    for _ in 0..environment.horizon() {
        visits = [visits[0] + at[0], visits[1] + at[1]];
        at = [0.75 * at[0] + 0.25 * at[1], 0.25 * at[0] + 0.5 * at[1]];
    }
    let total = visits[0] + visits[1];
    let shares = visitation(&environment, &uniform);
    assert_close(&shares, &[visits[0] / total, visits[1] / total, 0.0], 1e-14, 0.0, "visits");
    // Without a horizon, 8 and 4 visits.
    assert_close(&shares[..2], &[2.0 / 3.0, 1.0 / 3.0], 1e-4, 0.0, "visits");
    let running = running(&environment, &uniform, 3);
    assert_close(running[2].as_ref().unwrap(), &[0.625 / 0.9375, 0.3125 / 0.9375, 0.0], 1e-15, 0.0, "time 2");
}

#[test]
fn the_estimate_has_no_bias_where_the_policy_is_the_demonstration_and_half_of_it_where_pairs_part() {
    let map = small();
    let [demonstration, rejected] = ["DDRDRR", "RD"].map(|word| map.walk(word).unwrap());
    let environment = Environment::new(map.clone(), false);
    let running = running(&environment, &certain(&map, &demonstration), 6);
    let policy = LakePolicy::new(&map, network(&map, 1));
    let of = |name: &str| {
        let requirements = build(name).requirements();
        let batch = given(requirements.data, &demonstration, Some(&rejected));
        bias(&priors(&policy, &requirements, &batch, 6, 16), &running)
    };
    assert_eq!(of("sft"), Some(0.0));
    // At time 1 one is below and the other beside the start; from time 2 on the rejected one has ended.
    for name in ["dpo", "orpo", "kto"] {
        assert_eq!(of(name), Some(0.5 / 6.0), "{name}");
    }
}

#[test]
fn anticipated_states_carry_their_weight_in_the_prior_and_in_the_reads() {
    let map = small();
    let demonstration = map.walk("DDRDRR").unwrap();
    let policy = LakePolicy::new(&map, network(&map, 4));
    let matrix = policy.network.transition_matrix();
    let requirements = build("ift").requirements();
    let batch = given(requirements.data, &demonstration, None);
    let priors = priors(&policy, &requirements, &batch, 6, 16);
    let mut reads = Reads::new(16);
    reads.count(&policy, &requirements, &batch, requirements.anticipation.at(1.0, 0.0), &demonstration);
    let mut anticipated = [0.0; 16];
    for (time, prior) in priors.iter().enumerate() {
        let other = match time {
            0 => map.start(),
            _ => {
                let cell = demonstration.cells[time - 1];
                map.intended(cell, greedy_action(&matrix[cell]))
            }
        };
        anticipated[other] += 0.2;
        let mut expected = [0.0; 16];
        expected[demonstration.cells[time]] += 0.8;
        expected[other] += 0.2;
        assert_close(prior.as_ref().unwrap(), &expected, 1e-15, 1e-16, "prior");
    }
    assert_close(reads.of(Origin::Anticipation), &anticipated, 1e-15, 1e-16, "anticipation");
    let demonstrated =
        std::array::from_fn::<_, 16, _>(|cell| if demonstration.cells.contains(&cell) { 0.8 } else { 0.0 });
    assert_close(reads.of(Origin::Demonstration), &demonstrated, 1e-15, 1e-16, "demonstration");
    assert!(
        [Origin::Negatives, Origin::Rollouts].iter().all(|origin| reads.of(*origin).iter().all(|reads| *reads == 0.0))
    );
}

#[test]
fn what_is_not_learned_from_is_not_read() {
    // Of the four responses of kto, two are mismatched.
    let map = small();
    let [demonstration, rejected] = ["DDRDRR", "RD"].map(|word| map.walk(word).unwrap());
    let requirements = build("kto").requirements();
    let batch = given(requirements.data, &demonstration, Some(&rejected));
    assert_eq!(batch.responses.len(), 4);
    let mut reads = Reads::new(16);
    let policy = LakePolicy::new(&map, network(&map, 4));
    reads.count(&policy, &requirements, &batch, 0.0, &demonstration);
    let total = |origin| reads.of(origin).iter().sum::<f64>();
    assert_eq!([total(Origin::Demonstration), total(Origin::Negatives)], [6.0, 2.0]);
    assert_eq!([total(Origin::Anticipation), total(Origin::Rollouts)], [0.0, 0.0]);
}

#[test]
fn the_bias_of_a_method_that_samples_falls_with_its_samples() {
    let map = small();
    let environment = Environment::new(map.clone(), false);
    let of = |samples: f64| {
        let objective = registry::build("rloo", &[("samples".to_owned(), samples.into())].into()).unwrap();
        let requirements = objective.requirements();
        let Source::Sampled(sampling) = requirements.source else { panic!("it samples") };
        let each = (0..20).map(|seed| {
            let policy = LakePolicy::new(&map, network(&map, seed));
            let mut dice = Dice::new(ChaCha8Rng::seed_from_u64(seed), ChaCha8Rng::seed_from_u64(seed));
            let batch = sample(&environment, &policy, &requirements, sampling, 0.99, &mut dice).batch;
            let running = running(&environment, &policy.network.transition_matrix(), 6);
            bias(&priors(&policy, &requirements, &batch, 6, 16), &running).unwrap()
        });
        each.sum::<f64>() / 20.0
    };
    let [few, more, most] = [2.0, 32.0, 8192.0].map(of);
    assert!(few > 1.5 * more && more > 4.0 * most && most < 0.03, "{few}, {more}, {most}");
}

#[test]
fn gradients_of_exchanged_pairs_are_opposite_at_the_reference() {
    let map = small();
    let [demonstration, rejected] = ["DDRDRR", "RD"].map(|word| map.walk(word).unwrap());
    let dpo = build("dpo");
    let requirements = dpo.requirements();
    let mut policy = LakePolicy::new(&map, network(&map, 2));
    let reference = LakePolicy::new(&map, network(&map, 2));
    let mut of = |chosen: &Trajectory, rejected: &Trajectory| {
        let mut batch: MicroBatch<States, Forward> = given(requirements.data, chosen, Some(rejected));
        fill_reference(&reference, &requirements, std::slice::from_mut(&mut batch)).unwrap();
        gradient(&mut policy, &*dpo, &batch).unwrap()
    };
    let (one, exchanged) = (of(&demonstration, &rejected), of(&rejected, &demonstration));
    assert_close(&[cosine(&one, &one).unwrap()], &[1.0], 1e-14, 0.0, "itself");
    assert_close(&[cosine(&one, &exchanged).unwrap()], &[-1.0], 1e-14, 0.0, "exchanged");
    // What an earlier method left in the gradient is no part of a later one's.
    assert_eq!(of(&demonstration, &rejected), one);
}

#[test]
fn the_cosine_is_of_directions_alone_and_of_none_where_there_is_no_direction() {
    assert_eq!(cosine(&[1.0, 0.0], &[0.0, 3.0]), Some(0.0));
    assert_close(&[cosine(&[3e-200, 4e-200], &[1e200, 0.0]).unwrap()], &[0.6], 1e-15, 0.0, "scale");
    assert_eq!(cosine(&[0.0, 0.0], &[1.0, 2.0]), None);
}

#[test]
fn a_run_is_displaced_where_the_chosen_fell_and_the_rejected_fell_further() {
    assert!(is_displaced([-3.0, -3.0], [-4.0, -9.0]));
    for trained in [[-2.0, -9.0], [-4.0, -4.0], [-4.0, -3.5], [-3.0, -9.0]] {
        assert!(!is_displaced([-3.0, -3.0], trained), "{trained:?}");
    }
}

proptest! {
    #[test]
    fn the_bellman_residual_is_0_exactly_where_the_demonstrated_action_is_greedy(seed in any::<u64>(), word in select(&WORDS)) {
        let map = small();
        let trajectory = map.walk(word).unwrap();
        let network = network(&map, seed);
        let matrix = network.transition_matrix();
        let residuals = bellman_residuals(&matrix, &trajectory);
        prop_assert_eq!(residuals.len(), trajectory.actions.len());
        let own: Vec<f64> =
            trajectory.cells.iter().zip(&trajectory.actions).map(|(&cell, &action)| matrix[cell][action as usize]).collect();
        for (time, residual) in residuals.into_iter().enumerate() {
            let cell = trajectory.cells[time];
            let [here, next] = [time, time + 1].map(|from| own[from..].iter().product::<f64>());
            let most = matrix[cell].iter().copied().fold(0.0, f64::max);
            assert_close(&[residual], &[most * next - here], 1e-12, 1e-16, "residual");
            prop_assert_eq!(residual == 0.0, greedy_action(&matrix[cell]) == trajectory.actions[time]);
        }
        prop_assert!((log_prob(&network, &trajectory).exp() - own.iter().product::<f64>()).abs() < 1e-12);
    }

    #[test]
    fn distributions_keep_within_their_bounds(seed in any::<u64>(), other in any::<u64>(), slippery in any::<bool>()) {
        let map = small();
        let environment = Environment::new(map.clone(), slippery);
        let [one, other] = [seed, other].map(|seed| network(&map, seed).transition_matrix());
        let [q, d] = [&one, &other].map(|policy| visitation(&environment, policy));
        prop_assert!((q.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!((0..16).all(|cell| (d[cell] > 0.0) == map.non_terminal().contains(&cell)));
        let (overlap, divergence) = (overlap(&q, &d), divergence(&q, &d).unwrap());
        prop_assert!((0.0..=1.0 + 1e-12).contains(&overlap));
        // Pinsker's inequality.
        prop_assert!((1.0 - overlap).powi(2) <= divergence / 2.0 + 1e-12, "{} {}", overlap, divergence);
        let [q, rho] = [&one, &other].map(|policy| running(&environment, policy, 6));
        prop_assert!((0.0..=1.0 + 1e-12).contains(&bias(&q, &rho).unwrap()));
        prop_assert_eq!(bias(&q, &q), Some(0.0));
    }
}

const TRAINING: [&str; 5] = ["--method", "sft,ift,dpo,ppo,online_dpo,kto", "--seeds", "5", "--steps"];

#[test]
fn explaining_changes_nothing_else_and_no_thread_count_changes_it() {
    let arguments = [&TRAINING[..], &["30", "--json"]].concat();
    let explained = succeeds(&[&arguments[..], &["--explain", "--threads", "1"]].concat());
    assert_eq!(explained, succeeds(&[&arguments[..], &["--explain", "--threads", "2"]].concat()));
    let mut explained: Value = serde_json::from_str(&explained).unwrap();
    for result in explained["results"].as_array_mut().unwrap() {
        assert!(result.as_object_mut().unwrap().remove("explanation").is_some());
    }
    let plain: Value = serde_json::from_str(&succeeds(&arguments)).unwrap();
    assert_eq!(explained, plain);
}

#[test]
fn an_explanation_does_not_depend_on_the_methods_beside_it() {
    let numbers = |methods: &str| {
        let report = json(&["--method", methods, "--seeds", "3", "--steps", "20", "--explain"]);
        let results = report["results"].as_array().unwrap();
        let mut ift = results.iter().find(|result| result["method"] == "ift").unwrap()["explanation"].clone();
        for standing in ["before", "trained"] {
            ift[standing].as_object_mut().unwrap().remove("cosines");
        }
        ift
    };
    // A value head is drawn from a stream of its own.
    assert_eq!(numbers("ift,dpo"), numbers("ppo,dpo,ift"));
}

#[test]
fn the_report_says_why_in_numbers_that_agree_with_its_others() {
    let report = json(&[&TRAINING[..], &["30", "--explain"]].concat());
    for result in report["results"].as_array().unwrap() {
        let (method, explanation) = (result["method"].as_str().unwrap(), &result["explanation"]);
        let explored = explanation["explored"].as_array().unwrap();
        let total = |origin: &str| -> Option<f64> {
            let explored = explored.iter().find(|explored| explored["origin"] == origin)?;
            Some(explored["reads"].as_array().unwrap().iter().map(|reads| reads.as_f64().unwrap()).sum())
        };
        let expected = match method {
            "sft" => [Some(180.0), None, None],
            "ift" => [Some(144.0), Some(36.0), None],
            "dpo" | "kto" => [Some(180.0), None, Some(60.0)],
            _ => [None; 3],
        };
        for (origin, expected) in ["demonstration", "anticipation", "negatives"].into_iter().zip(expected) {
            match (total(origin), expected) {
                (Some(total), Some(expected)) => assert_close(&[total], &[expected], 1e-12, 0.0, origin),
                (total, expected) => assert_eq!(total, expected, "{method}, {origin}"),
            }
        }
        // Where every sample is a tie, nothing is read.
        let pairs = result["sampled"]["ties"]["per_seed"]
            .as_array()
            .map_or(0, |ties| ties.iter().filter(|ties| ties.as_f64().unwrap() < 30.0).count());
        let read = match method {
            "online_dpo" => pairs,
            _ => 5,
        };
        assert_eq!(total("rollouts").is_some(), method == "ppo" || pairs > 0, "{method}");
        let part = |name: &str| explanation["distance"][name]["mean"].as_f64().unwrap();
        let parts = ["demonstrated", "otherwise_read", "unread"].map(part);
        let distance = |field: &str| result[field]["mean"].as_f64().unwrap();
        assert_close(&[parts.iter().sum()], &[distance("distance")], 1e-12, 0.0, "distance");
        // Six of the eleven non-terminal cells are demonstrated.
        assert_close(&[parts[0] * 11.0 / 6.0], &[distance("distance_demonstrated_cells")], 1e-12, 0.0, "demonstrated");
        assert_eq!(parts[1] == 0.0, method == "sft" || (method == "online_dpo" && pairs == 0), "{method}");
        let displacement = &explanation["displacement"];
        assert_eq!(displacement["chosen"]["steps"], result["curve"]["steps"]);
        for (standing, place) in [("before", 0), ("trained", 6)] {
            let standing = &explanation[standing];
            assert_eq!(standing["cosines"].as_array().unwrap().len(), 15);
            assert_eq!(standing["demonstration_probability"]["per_seed"].as_array().unwrap().len(), 5);
            // Jensen: the mean of the logarithms is no more than the logarithm of the mean.
            let log_prob = displacement["chosen"]["mean"][place].as_f64().unwrap();
            assert!(log_prob <= standing["demonstration_probability"]["mean"].as_f64().unwrap().ln() + 1e-12);
            assert_eq!(standing["overlap"]["per_seed"].as_array().map_or(0, Vec::len), read, "{method}");
        }
    }
}

#[test]
fn gradients_that_are_equal_agree_and_those_that_are_none_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    let text = "seeds = 40\nsteps = 5\n[[method]]\nname = \"sft\"\n[[method]]\nname = \"ift\"\nlabel = \"same\"\nlambda = 0.0\n\
                propagation = \"none\"\n[[method]]\nname = \"online_dpo\"";
    std::fs::write(&recipe, text).unwrap();
    let report = json(&["--recipe", recipe.to_str().unwrap(), "--explain"]);
    for result in report["results"].as_array().unwrap() {
        for standing in ["before", "trained"] {
            let cosines = &result["explanation"][standing]["cosines"];
            assert_eq!(cosines[0]["between"], serde_json::json!(["sft", "same"]));
            assert_close(&[cosines[0]["mean"].as_f64().unwrap()], &[1.0], 1e-12, 0.0, "cosine");
            assert_eq!(cosines[0]["runs"], COMPARED_RUNS);
            let sampled = cosines[1]["runs"].as_u64().unwrap();
            assert!(sampled < COMPARED_RUNS as u64, "{cosines}");
            assert_eq!(cosines[1]["mean"] == "undefined", sampled == 0);
        }
    }
}

/// Paths of the nulls in a JSON value.
fn nulls(value: &Value, path: &str) -> Vec<String> {
    match value {
        Value::Null => vec![path.to_owned()],
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(place, item)| nulls(item, &format!("{path}[{place}]"))).collect()
        }
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, field)| nulls(field, &format!("{path}.{name}"))).collect()
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[test]
fn what_is_undefined_is_called_so_and_nothing_is_null() {
    // Two samples of a lake with nothing to earn never rank anything: there is no gradient, no loss, and nothing is
    // read.
    let report = json(&[
        "--method",
        "sft,dpo,online_dpo",
        "--seeds",
        "2",
        "--steps",
        "3",
        "--reward-schedule",
        "0,0,0",
        "--explain",
    ]);
    assert_eq!(nulls(&report, ""), Vec::<String>::new());
    let results = report["results"].as_array().unwrap();
    for result in results {
        for standing in ["before", "trained"] {
            let standing = &result["explanation"][standing];
            for cosine in standing["cosines"].as_array().unwrap() {
                let zero = cosine["between"].as_array().unwrap().contains(&"online_dpo".into());
                assert_eq!((cosine["mean"] == "undefined", cosine["runs"] == 0), (zero, zero), "{cosine}");
            }
            for field in ["overlap", "divergence", "bias"] {
                assert_eq!(standing[field] == "undefined", result["method"] == "online_dpo", "{field}");
            }
        }
        assert_eq!(result["last_loss"] == "undefined", result["method"] == "online_dpo");
    }
    let all = json(&["--method", "all", "--seeds", "2", "--steps", "2", "--explain"]);
    assert_eq!(nulls(&all, ""), Vec::<String>::new());
}

#[test]
fn a_sequence_is_explained_by_its_last_stage() {
    let report = json(&["--method", "sft+dpo,sft", "--seeds", "3", "--steps", "20", "--explain"]);
    let of = |method: &str| {
        let results = report["results"].as_array().unwrap();
        results.iter().find(|result| result["method"] == method).unwrap()["explanation"].clone()
    };
    let (both, first) = (of("sft+dpo"), of("sft"));
    let number = |explanation: &Value, standing: &str| explanation[standing]["demonstration_probability"].clone();
    assert_eq!(number(&both, "before"), number(&first, "trained"));
    assert_eq!(both["explored"][0]["reads"], first["explored"][0]["reads"], "20 steps, not 40");
}

#[test]
fn the_explanation_stands_under_the_table_and_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let arguments = ["--method", "sft,dpo,ift", "--seeds", "3", "--steps", "20", "--out", out];
    let page = |extra: &[&str]| {
        let text = succeeds(&[&arguments[..], extra].concat());
        (text, std::fs::read_to_string(folder.path().join("report.html")).unwrap())
    };
    let (plain_text, plain) = page(&[]);
    let (text, html) = page(&["--explain"]);
    let titles = [
        "Reads of each cell",
        "Cells that the training read",
        "Where the remaining distance is",
        "compared with those that the policy visits",
        "Bias of the preference estimate",
        "Bellman residual",
        "Displacement",
        "Cosine of gradients before training",
        "Cosine of gradients after training",
    ];
    for title in titles {
        assert!(text.contains(title) && html.contains(title), "{title}");
        assert!(!plain_text.contains(title) && !plain.contains(title), "{title}");
    }
    assert!(!text.contains("-0.0000") && !text.contains("NaN"), "{text}");
    assert!(text.contains("dpo: negatives") && text.contains("ift: anticipation"), "{text}");
    assert!(text.starts_with(plain_text.split("\nwritten").next().unwrap()));
    assert!(html.contains("lake --recipe recipe.toml --explain") && html.contains("<h2 id=\"why\">Why</h2>"));
    // sft, and dpo and ift with two origins each.
    let why = html.split_once("<h2 id=\"why\">").unwrap().1.split_once("<h2 id=\"again\">").unwrap().0;
    assert_eq!(why.matches("data-cell").count(), 5 * 16);
    let bias = text.lines().skip_while(|line| !line.starts_with("Bias")).find(|line| line.starts_with(" ift")).unwrap();
    for number in bias.split("  ").map(str::trim).filter(|number| !number.is_empty()) {
        assert!(why.contains(&format!(">{number}<")), "{number}");
    }
}

#[test]
fn one_method_one_seed_and_lakes_too_large_to_draw_are_explained_too() {
    let page = succeeds(&["--method", "sft", "--seeds", "1", "--steps", "1", "--explain"]);
    assert!(
        page.contains("Bias of") && !page.contains('±') && !page.contains("Cosine") && !page.contains("Displacement")
    );
    let large =
        ["--map", "generated:40x40,holes=0.1", "--method", "ppo,sft", "--seeds", "1", "--steps", "1", "--explain"];
    let page = succeeds(&large);
    assert!(page.contains("too large to draw"), "{page}");
    let all = succeeds(&["--method", "all", "--seeds", "1", "--steps", "1", "--explain"]);
    assert!(all.lines().all(|line| line.chars().count() <= 120), "{all}");
    assert!(all.contains("Cosine of gradients") && all.contains(" others: negatives"), "{all}");
}
