//! Properties of policy gradients for all choices: which choices make sense, what is refused, and how steps
//! add up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed check is a panic")]

use objective::{
    Advantage, Aggregation, Constant, Correction, Estimator, Evaluator, Groups, METHODS, Metric, Objective, Parameters,
    Place, PolicyGradient, Ratio, Side, StepTotals, TrustRegion, Value, registry,
};

fn refusal(name: &str, given: &[(&str, Value)]) -> String {
    let given: Parameters = given.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    registry::build(name, &given).unwrap_err().to_string()
}

#[test]
fn former_names_of_parameters_are_refused_with_their_successors() {
    for name in ["grpo", "cispo", "policy_gradient"] {
        let error = refusal(name, &[("normalisation", "dapo".into())]);
        assert!(error.starts_with(&format!("{name}.normalisation: ")) && error.contains("aggregation"), "{error}");
    }
    let error = refusal("ppo", &[("episodes", 16.0.into())]);
    assert!(error.starts_with("ppo.episodes: ") && error.contains("samples"), "{error}");
}

#[test]
fn choices_that_make_no_sense_together_are_refused() {
    for (given, expected) in [
        (vec![("ratio", "none".into())], r#"grpo.trust_region: expected none where ratio = none, got "clip""#),
        (
            vec![("ratio", "sequence".into()), ("trust_region", "vespo".into())],
            r#"grpo.ratio: not used where trust_region = vespo, so it must not be set (got "sequence")"#,
        ),
        (
            vec![("beta", 0.1.into()), ("divergence_place", "reward".into()), ("advantage", "given".into())],
            r#"grpo.divergence_place: expected loss or corrected where advantage = given, got "reward""#,
        ),
        (
            vec![("correction", "icepop".into()), ("correction_min", 7.0.into())],
            "grpo.correction_max: expected at least correction_min = 7, got 5",
        ),
        (
            vec![("advantage", "gae".into()), ("aggregation", "prompt_mean".into())],
            r#"grpo.aggregation: expected token_mean, response_mean, response_sum or fixed_length where advantage = gae, got "prompt_mean""#,
        ),
        (
            vec![("delta", 2.0.into()), ("trust_region", "cispo".into())],
            "grpo.delta: not used where trust_region = cispo, so it must not be set (got 2)",
        ),
        (
            vec![("divergence", "k1".into())],
            r#"grpo.divergence: not used where beta = 0, so it must not be set (got "k1")"#,
        ),
        (
            vec![("max_tokens", 12.0.into())],
            "grpo.max_tokens: not used where aggregation = response_mean, so it must not be set (got 12)",
        ),
    ] {
        assert_eq!(refusal("grpo", &given), expected);
    }
    let gspo = PolicyGradient { trust_region: TrustRegion::Vespo, ..PolicyGradient::gspo() };
    let error = gspo.evaluator().unwrap_err().to_string();
    assert!(error.contains("trust_region = vespo"), "{error}");
}

#[test]
fn every_preset_is_rebuilt_from_its_parameters_and_may_be_changed_where_it_has_an_effect() {
    let presets = METHODS.iter().filter(|method| (method.parameters)().iter().any(|own| own.name == "trust_region"));
    let mut count = 0;
    for method in presets {
        let own = (method.build)(&Parameters::new()).unwrap();
        own.check().unwrap();
        assert_eq!((method.build)(&own.parameters()).unwrap().parameters(), own.parameters(), "{}", method.name);
        count += 1;
    }
    assert_eq!(count, 30);
    PolicyGradient { beta: 0.0, ..PolicyGradient::rloo() }.evaluator().unwrap();
}

/// Responses in three groups, with every column that a choice may need.
struct Data {
    lengths: Vec<usize>,
    group: Vec<usize>,
    reward: Vec<f64>,
    advantage: Vec<f64>,
    columns: [Vec<f64>; 4],
    entropy: Vec<f64>,
}

impl Data {
    fn new() -> Self {
        let lengths = vec![3, 1, 4, 2, 2, 5];
        let tokens: usize = lengths.iter().sum();
        let wave = |frequency: f64| (0..tokens).map(|token| (frequency * (token + 1) as f64).sin()).collect::<Vec<_>>();
        let log_prob: Vec<f64> = wave(1.1).iter().map(|wave| -1.5 + wave).collect();
        let near = |frequency, apart: f64| -> Vec<f64> {
            log_prob.iter().zip(wave(frequency)).map(|(own, wave): (&f64, f64)| (own + apart * wave).min(0.0)).collect()
        };
        Self {
            group: vec![0, 0, 1, 1, 2, 2],
            reward: vec![1.0, 0.0, 0.5, -0.25, 2.0, 0.75],
            advantage: vec![1.0, -0.5, 0.25, -2.0, 0.75, -1.0],
            columns: [log_prob.clone(), near(2.3, 0.3), near(0.7, 0.6), near(1.9, 0.5)],
            entropy: wave(0.4).iter().map(|wave| 1.0 + wave).collect(),
            lengths,
        }
    }

    /// Evaluates some of the responses, in a step with these totals or in a step of their own.
    fn answer(
        &self,
        objective: PolicyGradient,
        range: std::ops::Range<usize>,
        totals: Option<StepTotals>,
    ) -> (f64, Vec<f64>, Option<f64>) {
        let requirements = objective.requirements();
        let needs = |constant| requirements.constants.contains(constant);
        let begin: usize = self.lengths[..range.start].iter().sum();
        let tokens = begin..begin + self.lengths[range.clone()].iter().sum::<usize>();
        let [log_prob, behaviour, rollout, reference] =
            [0, 1, 2, 3].map(|column| &self.columns[column][tokens.clone()]);
        let some = |constant, column| if needs(constant) { column } else { &[][..] };
        let mut evaluator: Evaluator<_> = objective.evaluator().unwrap();
        if let Some(totals) = totals {
            evaluator.of_step(totals);
        }
        let entropy = requirements.statistics.contains(objective::Statistic::Entropy);
        let answer = evaluator
            .evaluate(&Groups {
                responses: Side {
                    log_prob,
                    behaviour_log_prob: some(Constant::BehaviourLogProb, behaviour),
                    rollout_log_prob: some(Constant::RolloutLogProb, rollout),
                    reference_log_prob: some(Constant::ReferenceLogProb, reference),
                    advantage: some(Constant::Advantage, &self.advantage[range.clone()]),
                    entropy: if entropy { &self.entropy[tokens.clone()] } else { &[] },
                    ..Side::of(&self.lengths[range.clone()])
                },
                group: if requirements.grouped { &self.group[range.clone()] } else { &[] },
                reward: some(Constant::Reward, &self.reward[range.clone()]),
            })
            .unwrap();
        (answer.loss, answer.cotangents.log_prob.to_vec(), answer.metrics.mean(Metric::Rejected))
    }
}

const AGGREGATIONS: [Aggregation; 5] = [
    Aggregation::TokenMean,
    Aggregation::ResponseMean,
    Aggregation::ResponseSum,
    Aggregation::FixedLength,
    Aggregation::PromptMean,
];

#[test]
fn micro_batches_of_given_advantages_add_up_to_the_step_under_every_aggregation() {
    let data = Data::new();
    for aggregation in AGGREGATIONS {
        for correction in [Correction::None, Correction::TruncateSequence, Correction::OffPolicySequence] {
            let given = PolicyGradient {
                advantage: Advantage::Given,
                beta: 0.1,
                aggregation,
                correction,
                ..PolicyGradient::default()
            };
            let (whole, cotangents, _) = data.answer(given, 0..6, None);
            let by_prompt = aggregation == Aggregation::PromptMean;
            let groups = if by_prompt { 3 } else { 0 };
            let totals = StepTotals { tokens: 17, responses: 6, groups, ..StepTotals::default() };
            let parts = [0..2, 2..4, 4..6].map(|range| data.answer(given, range, Some(totals)));
            let sum: f64 = parts.iter().map(|(loss, ..)| loss).sum();
            assert!((whole - sum).abs() < 1e-14, "{aggregation:?}: {whole}, {sum}");
            let joined: Vec<_> = parts.into_iter().flat_map(|(_, cotangents, _)| cotangents).collect();
            assert!(joined.iter().zip(&cotangents).all(|(a, b)| (a - b).abs() < 1e-15), "{aggregation:?}");
        }
    }
}

#[test]
fn rejected_responses_leave_the_step_as_if_they_had_never_been_there() {
    // Of the second response on, the sampler agrees with the trainer; it is far from it on the first one.
    let mut data = Data::new();
    data.columns[2] = data.columns[1].clone();
    for token in 0..3 {
        data.columns[2][token] = data.columns[1][token] - 3.0;
    }
    for aggregation in AGGREGATIONS {
        for ratio in [Ratio::Token, Ratio::Sequence, Ratio::SequenceToken, Ratio::Product] {
            for correction in [Correction::MaskToken, Correction::MaskSequence, Correction::MaskGeometric] {
                let masked = PolicyGradient {
                    advantage: Advantage::Given,
                    beta: 0.1,
                    entropy_coefficient: 0.01,
                    aggregation,
                    ratio,
                    correction,
                    ..PolicyGradient::default()
                };
                let (loss, cotangents, rejected) = data.answer(masked, 0..6, None);
                let (without, others, _) = data.answer(masked, 1..6, None);
                assert!((loss - without).abs() < 1e-14, "{masked:?}: {loss}, {without}");
                assert_eq!(cotangents[..3], [0.0; 3]);
                assert!(cotangents[3..].iter().zip(&others).all(|(a, b)| (a - b).abs() < 1e-15), "{masked:?}");
                assert_eq!(rejected, Some(3.0 / 17.0));
            }
        }
    }
}

#[test]
fn a_mask_of_tokens_is_not_ignored_by_the_ratio_of_the_response() {
    let mut data = Data::new();
    data.columns[2] = data.columns[1].clone();
    let answer = |data: &Data, region, ratio| {
        let masked = PolicyGradient {
            advantage: Advantage::Given,
            correction: Correction::MaskToken,
            trust_region: region,
            ratio,
            ..PolicyGradient::default()
        };
        data.answer(masked, 0..1, None)
    };
    for (region, ratio) in [
        (TrustRegion::None, Ratio::Sequence),
        (TrustRegion::None, Ratio::Product),
        (TrustRegion::GeometricMean, Ratio::Token),
    ] {
        data.columns[2][1] = data.columns[1][1] - 3.0;
        let (loss, cotangents, _) = answer(&data, region, ratio);
        assert_eq!(cotangents[1], 0.0);
        // The rejected token's own ratio has no part in that of the response.
        let mut moved = Data { columns: data.columns.clone(), ..Data::new() };
        moved.columns[0][1] -= 0.5;
        assert_eq!(answer(&moved, region, ratio), (loss, cotangents, Some(1.0 / 3.0)));
    }
}

#[test]
fn an_advantage_of_a_response_is_that_of_each_of_its_tokens() {
    let data = Data::new();
    let by_token = |data: &Data| -> Vec<f64> {
        data.lengths.iter().zip(&data.advantage).flat_map(|(&length, &own)| vec![own; length]).collect()
    };
    for trust_region in
        [TrustRegion::Clip, TrustRegion::Cispo, TrustRegion::Sapo, TrustRegion::GeometricMean, TrustRegion::Topr]
    {
        let given = PolicyGradient { advantage: Advantage::Given, trust_region, ..PolicyGradient::default() };
        let mut evaluator = given.evaluator().unwrap();
        let mut answer = |advantage: &[f64]| {
            let responses = Side {
                log_prob: &data.columns[0],
                behaviour_log_prob: &data.columns[1],
                advantage,
                ..Side::of(&data.lengths)
            };
            let answer = evaluator.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap();
            (answer.loss, answer.cotangents.log_prob.to_vec())
        };
        let (one, each) = (answer(&data.advantage), answer(&by_token(&data)));
        assert!((one.0 - each.0).abs() < 1e-14, "{trust_region:?}");
        assert!(one.1.iter().zip(&each.1).all(|(a, b)| (a - b).abs() < 1e-15), "{trust_region:?}");
    }
}

#[test]
fn advantages_need_advantage_given_and_rewards_the_reverse() {
    let data = Data::new();
    let refused = |objective: PolicyGradient, advantage: &[f64], group: &[usize], reward: &[f64]| {
        let responses = Side {
            log_prob: &data.columns[0],
            behaviour_log_prob: &data.columns[1],
            advantage,
            ..Side::of(&data.lengths)
        };
        objective.evaluator().unwrap().evaluate(&Groups { responses, group, reward }).unwrap_err().to_string()
    };
    let given = PolicyGradient { advantage: Advantage::Given, ..PolicyGradient::default() };
    let grpo = PolicyGradient::grpo();
    for (objective, advantage, group, reward, field) in [
        (grpo, &data.advantage[..], &data.group[..], &data.reward[..], "advantage: "),
        (grpo, &[], &data.group, &[], "reward: "),
        (grpo, &[], &[], &data.reward, "response 0: expected a group"),
        (given, &[], &[], &[], "advantage: "),
        (given, &data.advantage, &[], &data.reward, "reward: "),
        (PolicyGradient::remax(), &[], &data.group, &data.reward, "reward: expected 2 numbers"),
    ] {
        let mut objective = objective;
        if objective.advantage == Advantage::Greedy {
            objective.trust_region = TrustRegion::Clip;
            objective.ratio = Ratio::Token;
        }
        let error = refused(objective, advantage, group, reward);
        assert!(error.starts_with(field), "{error}");
    }
}

#[test]
fn only_the_tokens_of_high_entropy_are_learned_from() {
    let data = Data::new();
    let given = PolicyGradient { advantage: Advantage::Given, ..PolicyGradient::default() };
    let (_, all, _) = data.answer(given, 0..6, None);
    let (_, some, _) = data.answer(PolicyGradient { entropy_share: 0.25, ..given }, 0..6, None);
    let mut sorted = data.entropy.clone();
    sorted.sort_by(f64::total_cmp);
    let least = sorted[12]; // a quarter of 17 tokens: those at or above the 13th
    for ((some, all), entropy) in some.iter().zip(&all).zip(&data.entropy) {
        assert_eq!(*some, if *entropy >= least { *all } else { 0.0 });
    }
}

/// Cotangents of one response, on policy, with these advantages and these log-probabilities of the sampler by token.
fn on_policy(objective: PolicyGradient, log_prob: &[f64], rollout: &[f64], advantage: &[f64]) -> Vec<f64> {
    let lengths = [log_prob.len()];
    let responses =
        Side { log_prob, behaviour_log_prob: log_prob, rollout_log_prob: rollout, advantage, ..Side::of(&lengths) };
    let mut evaluator = PolicyGradient { advantage: Advantage::Given, ..objective }.evaluator().unwrap();
    let answer = evaluator.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap();
    answer.cotangents.log_prob.to_vec()
}

// Covariances 3, −1/2, −1/4 and 9/4, of means −5/2 and 0.
const LOG_PROB: [f64; 4] = [-1.0, -2.0, -3.0, -4.0];
const ADVANTAGE: [f64; 4] = [2.0, -1.0, 0.5, -1.5];

#[test]
fn tokens_whose_covariance_is_a_bound_of_clip_cov_are_not_selected() {
    for (bounds, selected) in [
        ([2.25, 3.0], [false; 4]),
        ([2.0, 3.0], [false, false, false, true]),
        ([2.25, 3.5], [true, false, false, false]),
        ([2.0, 3.5], [true, false, false, true]),
    ] {
        let clip_cov = PolicyGradient {
            covariance_share: 1.0,
            covariance_min: bounds[0],
            covariance_max: bounds[1],
            ..PolicyGradient::clip_cov()
        };
        let cotangents = on_policy(clip_cov, &LOG_PROB, &[], &ADVANTAGE);
        assert_eq!(cotangents.iter().map(|own| *own == 0.0).collect::<Vec<_>>(), selected, "{bounds:?}");
    }
}

#[test]
fn rejected_tokens_have_no_part_in_the_covariances_of_the_others() {
    let clip_cov = PolicyGradient {
        correction: Correction::MaskToken,
        covariance_share: 1.0,
        covariance_min: 2.0,
        covariance_max: 3.5,
        ..PolicyGradient::clip_cov()
    };
    // A fifth token would move both means; its sampler is far from the trainer.
    let (mut log_prob, mut advantage) = (LOG_PROB.to_vec(), ADVANTAGE.to_vec());
    log_prob.push(-9.0);
    advantage.push(4.0);
    let mut rollout = log_prob.clone();
    rollout[4] = -19.0;
    let cotangents = on_policy(clip_cov, &log_prob, &rollout, &advantage);
    let expected = on_policy(clip_cov, &LOG_PROB, &LOG_PROB, &ADVANTAGE);
    assert_eq!((&cotangents[..4], cotangents[4]), (&expected[..], 0.0));
    assert_eq!(expected.iter().map(|own| *own == 0.0).collect::<Vec<_>>(), [true, false, false, true]);
}

#[test]
fn ratios_that_are_clipped_at_the_lower_bound_are_counted_one_by_one() {
    let (half, ratios) = (0.5_f64.ln(), PolicyGradient { advantage: Advantage::Given, ..PolicyGradient::default() });
    let responses = Side {
        log_prob: &[half - 1.0, half - 1.0, half - 1.0, -1.0],
        behaviour_log_prob: &[-1.0; 4],
        advantage: &[-1.0],
        ..Side::of(&[4])
    };
    let mut evaluator = ratios.evaluator().unwrap();
    let answer = evaluator.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap();
    let shares = [Metric::ClipFraction, Metric::ClipFractionLow, Metric::ClipFractionHigh];
    assert_eq!(shares.map(|metric| answer.metrics.mean(metric)), [Some(0.75), Some(0.75), Some(0.0)]);
}

/// The loss and the cotangents by log π and V of one token, with this advantage and these columns.
fn of_token(objective: PolicyGradient, advantage: f64, token: Side<'_>) -> (f64, f64, Option<f64>) {
    let responses = Side { advantage: &[advantage], ..token };
    let mut evaluator = objective.evaluator().unwrap();
    let answer = evaluator.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap();
    (answer.loss, answer.cotangents.log_prob[0], answer.cotangents.value.first().copied())
}

#[test]
fn corrections_have_the_bounds_of_their_sources_unless_set() {
    for (correction, bounds) in [
        (Correction::TruncateToken, [Some(0.0), Some(2.0)]),
        (Correction::MaskGeometric, [Some(0.0), Some(2.0)]),
        (Correction::Icepop, [Some(0.5), Some(5.0)]),
        (Correction::OffPolicySequence, [None, Some(0.5)]),
        (Correction::None, [None, None]),
    ] {
        let own = PolicyGradient { correction, ..PolicyGradient::default() }.parameters();
        let expected = bounds.map(|bound| bound.map(Value::from));
        assert_eq!(["correction_min", "correction_max"].map(|name| own.get(name).cloned()), expected, "{correction:?}");
    }
}

#[test]
fn a_response_that_drifted_by_exactly_the_bound_is_not_stale() {
    let masked = PolicyGradient {
        advantage: Advantage::Given,
        correction: Correction::OffPolicySequence,
        ..PolicyGradient::default()
    };
    for (rollout, stale) in [(-1.5, false), (f64::next_up(-1.5), true)] {
        let token =
            Side { log_prob: &[-2.0], behaviour_log_prob: &[-2.0], rollout_log_prob: &[rollout], ..Side::of(&[1]) };
        assert_eq!(of_token(masked, -1.0, token).1 == 0.0, stale);
        assert_eq!(of_token(masked, 1.0, token).1, -1.0);
    }
}

#[test]
fn beyond_its_clip_a_divergence_counts_as_at_the_clip_and_passes_no_gradient_of_its_own() {
    for drift in [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0_f64] {
        let (held, free) = (drift.clamp(-1.0, 1.0), drift.abs() <= 1.0);
        for (divergence, value, slope) in [
            (Estimator::K1, held, 1.0),
            (Estimator::K2, held * held / 2.0, held),
            (Estimator::K3, (-held).exp() + held - 1.0, 1.0 - (-held).exp()),
        ] {
            for divergence_place in [Place::Loss, Place::Corrected] {
                let clipped = PolicyGradient {
                    advantage: Advantage::Given,
                    beta: 1.0,
                    divergence,
                    divergence_place,
                    divergence_clip: Some(1.0),
                    ..PolicyGradient::default()
                };
                let token = Side {
                    log_prob: &[-2.0],
                    behaviour_log_prob: &[-2.0],
                    reference_log_prob: &[-2.0 - drift],
                    ..Side::of(&[1])
                };
                let (loss, pull, _) = of_token(clipped, 0.0, token);
                let own = if free { slope } else { 0.0 };
                let expected = if divergence_place == Place::Loss { own } else { value + own };
                let what = format!("{divergence:?} {divergence_place:?} {drift}");
                assert!((loss - value).abs() < 1e-15 && (pull - expected).abs() < 1e-15, "{what}: {loss}, {pull}");
            }
        }
    }
}

#[test]
fn the_corrected_divergence_is_exact_where_a_ratio_vanishes_and_goes_on_along_tangents_where_one_explodes() {
    let corrected = PolicyGradient { advantage: Advantage::Given, beta: 1.0, ..PolicyGradient::default() };
    let steepest = 100.0_f64.exp();
    for ([log_prob, behaviour, reference], value, slope) in [
        // ρ = e⁻⁹⁰ and π_ref/π = e¹⁴⁰: ρ k is π_ref/π_behaviour.
        ([-150.0, -60.0, -10.0], 50.0_f64.exp(), -140.0 * (-90.0_f64).exp()),
        // ρ = e¹⁵⁰ is on its tangent, whose slope is not its value.
        (
            [-1.0, -151.0, -2.0],
            51.0 * steepest * (-1.0_f64).exp(),
            steepest * (-1.0_f64).exp() + 51.0 * steepest * (1.0 - (-1.0_f64).exp()),
        ),
        // π_ref/π_behaviour = e²⁴⁹ is on its tangent, ρ = e⁹⁹ is not.
        ([-151.0, -250.0, -1.0], 150.0 * steepest - 151.0 * 99.0_f64.exp(), -150.0 * 99.0_f64.exp()),
    ] {
        let token = Side {
            log_prob: &[log_prob],
            behaviour_log_prob: &[behaviour],
            reference_log_prob: &[reference],
            ..Side::of(&[1])
        };
        let (loss, pull, _) = of_token(corrected, 0.0, token);
        assert!((loss - value).abs() <= 1e-14 * value, "{log_prob}: {loss:e}, {value:e}");
        assert!((pull - slope).abs() <= 1e-14 * slope.abs(), "{log_prob}: {pull:e}, {slope:e}");
    }
}

#[test]
fn a_group_whose_mean_reward_is_not_positive_teaches_max_rl_nothing() {
    for reward in [[-1.0, 1.0], [-2.0, 0.0], [0.0, 0.0]] {
        let mut max_rl = PolicyGradient::max_rl().evaluator().unwrap();
        let responses = Side { log_prob: &[-1.0, -2.0], ..Side::of(&[1, 1]) };
        let answer = max_rl.evaluate(&Groups { responses, group: &[0, 0], reward: &reward }).unwrap();
        assert_eq!((answer.loss, answer.cotangents.log_prob), (0.0, &[0.0; 2][..]), "{reward:?}");
    }
}

#[test]
fn a_step_of_one_token_is_whitened_to_nothing() {
    let mut own = PolicyGradient::reinforce_plus_plus().evaluator().unwrap();
    let responses = Side { log_prob: &[-1.0], behaviour_log_prob: &[-1.0], ..Side::of(&[1]) };
    let answer = own.evaluate(&Groups { responses, group: &[0], reward: &[3.0] }).unwrap();
    assert_eq!((answer.loss, answer.cotangents.log_prob[0]), (0.0, 0.0));
}

#[test]
fn a_token_without_an_advantage_is_not_clipped() {
    let given = PolicyGradient { advantage: Advantage::Given, ..PolicyGradient::default() };
    for (log_prob, behaviour) in [(-0.1, -3.0), (-3.0, -0.1)] {
        let responses = Side {
            log_prob: &[log_prob; 2],
            behaviour_log_prob: &[behaviour; 2],
            advantage: &[0.0; 2],
            ..Side::of(&[2])
        };
        let mut own = given.evaluator().unwrap();
        let answer = own.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap();
        assert_eq!(answer.metrics.mean(Metric::ClipFraction), Some(0.0));
    }
}

#[test]
fn a_weight_at_its_cap_or_without_an_advantage_is_not_clipped() {
    let capped = PolicyGradient {
        advantage: Advantage::Given,
        trust_region: TrustRegion::Cispo,
        min_ratio: 1.0,
        max_ratio: Some(1.0),
        ..PolicyGradient::default()
    };
    for (advantage, behaviour) in [(1.0, -1.0), (-1.0, -1.0), (0.0, -2.0), (0.0, -0.5)] {
        let responses =
            Side { log_prob: &[-1.0], behaviour_log_prob: &[behaviour], advantage: &[advantage], ..Side::of(&[1]) };
        let mut own = capped.evaluator().unwrap();
        let answer = own.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap();
        assert_eq!(answer.metrics.mean(Metric::ClipFraction), Some(0.0), "{advantage} {behaviour}");
    }
}

#[test]
fn a_token_without_an_advantage_has_its_whole_ratio_in_the_geometric_mean() {
    let gmpo = PolicyGradient { advantage: Advantage::Given, ..PolicyGradient::gmpo() };
    for drift in [2.0, -2.0_f64] {
        let responses = Side {
            log_prob: &[-3.0, -1.0],
            behaviour_log_prob: &[-3.0 - drift, -1.0],
            advantage: &[0.0, 1.0],
            ..Side::of(&[2])
        };
        let mut own = gmpo.evaluator().unwrap();
        let loss = own.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap().loss;
        assert!((loss + 0.5 * (drift / 2.0).exp()).abs() < 1e-15, "{drift}: {loss}");
    }
}

#[test]
fn a_token_that_was_all_but_impossible_and_became_likely_is_beyond_every_bound_of_probabilities() {
    for preset in [PolicyGradient::dppo_tv(), PolicyGradient::dppo_kl()] {
        let masked = PolicyGradient { advantage: Advantage::Given, ..preset };
        let token = Side { log_prob: &[-0.5], behaviour_log_prob: &[-1e4], ..Side::of(&[1]) };
        assert_eq!(of_token(masked, 1.0, token).1, 0.0);
        assert!(of_token(masked, -1.0, token).1 > 0.0);
        // Without an advantage nothing is held back from rising.
        let responses = Side { advantage: &[0.0], ..token };
        let mut own = masked.evaluator().unwrap();
        let answer = own.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap();
        assert_eq!(answer.metrics.mean(Metric::ClipFraction), Some(0.0));
    }
}

#[test]
fn advantages_that_are_not_divided_have_no_scale() {
    for name in ["rloo", "max_rl", "opo", "reinforce_plus_plus_baseline", "remax", "ppo"] {
        let error = refusal(name, &[("scale", "batch".into())]);
        assert!(error.starts_with(&format!("{name}.scale: not used where advantage = ")), "{error}");
    }
}

#[test]
fn a_value_as_far_from_its_return_as_its_clip_is_passes_its_own_gradient() {
    let ppo = PolicyGradient { value_clip: Some(0.25), entropy_coefficient: 0.0, ..PolicyGradient::ppo() };
    for (value, returned) in [(1.0, 0.625), (-1.0, -0.625)] {
        let token = Side {
            log_prob: &[-1.0],
            behaviour_log_prob: &[-1.0],
            value: &[value],
            behaviour_value: &[0.0],
            returns: &[returned],
            ..Side::of(&[1])
        };
        assert_eq!(of_token(ppo, 0.0, token).2, Some(value - returned));
    }
}

#[test]
fn a_response_is_tapered_only_where_it_is_bad_and_became_likelier() {
    let topr = PolicyGradient { advantage: Advantage::Given, ..PolicyGradient::topr() };
    for (advantage, behaviour, share) in [(-1.0, -1.0, 0.0), (0.0, -2.0, 0.0), (1.0, -2.0, 0.0), (-1.0, -2.0, 1.0)] {
        let responses =
            Side { log_prob: &[-1.0], behaviour_log_prob: &[behaviour], advantage: &[advantage], ..Side::of(&[1]) };
        let mut own = topr.evaluator().unwrap();
        let answer = own.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap();
        assert_eq!(answer.metrics.mean(Metric::ClipFraction), Some(share), "{advantage} {behaviour}");
    }
}

#[test]
fn a_token_that_was_certain_and_is_no_longer_is_beyond_its_bound() {
    let masked = PolicyGradient { advantage: Advantage::Given, ..PolicyGradient::dppo_kl() };
    let token = Side { log_prob: &[-3.0], behaviour_log_prob: &[0.0], ..Side::of(&[1]) };
    assert_eq!(of_token(masked, -1.0, token).1, 0.0);
}

#[test]
fn the_weight_of_a_sampler_is_a_part_of_vespos_ratio() {
    let vespo = PolicyGradient {
        advantage: Advantage::Given,
        correction: Correction::TruncateToken,
        ..PolicyGradient::vespo()
    };
    let token = Side { log_prob: &[-1.0], behaviour_log_prob: &[-1.25], rollout_log_prob: &[-1.5], ..Side::of(&[1]) };
    // log w = ¼ of the policy and ¼ of the sampler; φ(w) = w² e^(3 (1 − w)).
    let weight = (2.0 * 0.5 + 3.0 * (1.0 - 0.5_f64.exp())).exp();
    let pull = of_token(vespo, 1.0, token).1;
    assert!((pull + weight).abs() < 1e-15, "{pull}, {weight}");
}
