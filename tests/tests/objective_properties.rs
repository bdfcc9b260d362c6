//! Properties of every objective, for all parameters and batches.

use std::ops::Bound;

use enumset::EnumSet;
use objective::parameter::Kind;
use objective::{
    Advantage, Coupling, Data, Dpo, Evaluation, Feedback, Groups, Ift, METHODS, Method, Metric, Normalisation,
    Objective, Orpo, ParameterError, Parameters, PolicyGradient, Propagation, RunningMean, Sft, Side, Statistic,
    StepTotals, TokenWeighting, Value, registry,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tests::{OwnedBatch, Token, Tokens, assert_close, central_difference, rounding};

/// Every registered objective, with any of its parameters.
fn objectives() -> impl Strategy<Value = Box<dyn Objective>> {
    named_objectives().prop_map(|(_, objective)| objective)
}

/// Any objective, with its method.
fn named_objectives() -> impl Strategy<Value = (&'static Method, Box<dyn Objective>)> {
    (0..METHODS.len()).prop_flat_map(|index| {
        let method = &METHODS[index];
        let parameters = (method.parameters)();
        let values: Vec<_> = parameters.iter().map(|parameter| values(parameter.kind)).collect();
        values.prop_map(move |values| {
            let names = parameters.iter().map(|parameter| parameter.name.to_owned());
            let given = names.zip(values).filter_map(|(name, value)| Some((name, value?)));
            (method, build(method, given.collect()))
        })
    })
}

/// Builds the objective, without the parameters that the others leave unused and the choices that make no sense
/// together.
fn build(method: &Method, mut parameters: Parameters) -> Box<dyn Objective> {
    loop {
        match (method.build)(&parameters) {
            Ok(objective) => return objective,
            Err(ParameterError::Unused { name, .. }) => drop(parameters.remove(name)),
            Err(ParameterError::Invalid { name, .. }) if !parameters.is_empty() => {
                if parameters.remove(name).is_none() {
                    parameters.pop_last();
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn terms(terms: &[(&str, f64)]) -> Value {
    let term = |&(name, weight): &(&str, f64)| {
        Parameters::from([("name".to_owned(), name.into()), ("weight".to_owned(), weight.into())])
    };
    Value::Terms(terms.iter().map(term).collect())
}

/// No value, or one that is allowed; of wide ranges only the plausible part, or finite differences would drown.
fn values(kind: Kind) -> BoxedStrategy<Option<Value>> {
    let value = match kind {
        Kind::Number { range, .. } | Kind::Derived { range, .. } => {
            let (low, high) = match range {
                (Bound::Included(0.0), Bound::Included(high)) => (0.0, high),
                (Bound::Included(low), Bound::Included(high)) if low <= 0.0 => (low, high),
                (Bound::Included(low), Bound::Included(high)) => (low.max(1e-2), high),
                (Bound::Excluded(low), Bound::Included(high)) => (low + 1e-2, high),
                (Bound::Included(low), Bound::Excluded(high)) => (low, high - 0.01),
                (Bound::Excluded(low), Bound::Excluded(high)) => (low + 1e-2, high - 0.01),
                _ => unreachable!("every range is bounded"),
            };
            let high = high.min(10.0);
            prop_oneof![Just(low), low..=high, Just(high)].prop_map(Value::Number).boxed()
        }
        Kind::Count { least, most, .. } => {
            (least..=most.min(100)).prop_map(|count| Value::Number(count as f64)).boxed()
        }
        Kind::Terms { .. } => select(vec![
            terms(&[("orpo", 0.5), ("sft", 2.0)]),
            terms(&[("hinge", 1.0), ("dpo", 0.25), ("simpo", 0.0)]),
            terms(&[("kto", 1.0), ("apo_zero_unpaired", 0.5)]),
            terms(&[("grpo", 1.0), ("sapo", 3.0)]),
        ])
        .boxed(),
        Kind::Choice { options, .. } => select(options).prop_map(Value::from).boxed(),
        Kind::Switch { .. } => any::<bool>().prop_map(Value::from).boxed(),
    };
    prop_oneof![Just(None), value.prop_map(Some)].boxed()
}

/// An even number of ragged responses of 1 to 64 tokens.
fn responses(log_prob: impl Strategy<Value = f64> + Clone + 'static) -> impl Strategy<Value = Vec<Tokens>> {
    let signed = (log_prob.clone(), any::<bool>()).prop_map(|(value, negative)| if negative { value } else { -value });
    let columns = [log_prob.clone(), log_prob.clone(), log_prob.clone(), log_prob];
    let token = (columns, [signed.clone(), signed]).prop_map(
        |([log_prob, reference_log_prob, kl, behaviour_log_prob], [value, advantage])| Token {
            log_prob,
            reference_log_prob,
            reference_kl: -kl,
            behaviour_log_prob,
            value,
            advantage,
        },
    );
    let response = vec(token, 1..=64);
    vec((response.clone(), response), 1..=4).prop_map(|pairs| {
        let (chosen, rejected): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        chosen.into_iter().chain(rejected).collect()
    })
}

fn moderate() -> impl Strategy<Value = f64> + Clone {
    prop_oneof![-8.0..-0.01, -1.0..-0.01]
}

fn extreme() -> impl Strategy<Value = f64> + Clone {
    let edges = vec![0.0, -0.0, -5e-324, -1e-300, -1e-17, -2.0_f64.powi(-52), -2.0_f64.powi(-53), -1e-12, -745.2, -1e4];
    prop_oneof![select(edges), -1e4..=0.0, (-320.0..4.0).prop_map(|exponent: f64| -(10.0_f64.powf(exponent)))]
}

/// Parts of a batch: pair by pair if there are pairs, otherwise response by response.
fn parts(batch: &OwnedBatch) -> Vec<Vec<usize>> {
    let half = batch.pairs.len();
    match half {
        0 => (0..batch.responses.len()).map(|response| vec![response]).collect(),
        _ => (0..half).map(|pair| vec![pair, half + pair]).collect(),
    }
}

/// Bound of a sampled token's loss, from its importance ratio, its advantage and its squared error: losses of sampled
/// responses are differences of such terms.
fn largest_term(responses: &[Tokens]) -> f64 {
    let term = |token: &Token| {
        let ratio = (token.log_prob - token.behaviour_log_prob).exp();
        (1.0 + ratio) * (1.0 + token.value.abs() + token.advantage.abs()).powi(2)
    };
    responses.iter().flatten().map(term).fold(0.0, f64::max)
}

/// Cotangents of the first statistic that is read, response by response.
fn by_response(batch: &OwnedBatch, evaluation: &Evaluation) -> Vec<Vec<f64>> {
    let columns = EnumSet::<Statistic>::all().iter().map(|statistic| evaluation.cotangents().column(statistic));
    let column = columns.filter(|column| !column.is_empty()).collect::<Vec<_>>()[0];
    batch.responses.iter().map(|r| column[r.tokens.clone()].to_vec()).collect()
}

proptest! {
    #[test]
    fn cotangents_are_the_central_differences_of_the_loss_at_fixed_held_numbers(
        objective in objectives(), responses in responses(moderate()),
    ) {
        let batch = OwnedBatch::new(&objective.requirements(), &responses);
        let evaluation = batch.evaluate(&*objective);
        let (loss, cotangents) = (evaluation.loss, evaluation.cotangents());
        // The loss is rounded, be it a difference of terms around 1, and so are the sums that it is a function of.
        let OwnedBatch { statistics, constants, .. } = &batch;
        let columns = [&statistics.log_prob, &constants.reference_log_prob, &constants.behaviour_log_prob];
        let sum: f64 = columns.into_iter().flatten().map(|value| value.abs()).sum();
        let steepest = cotangents.log_prob.iter().fold(0.0, |most: f64, c| most.max(c.abs()));
        let sampled = if constants.behaviour_log_prob.is_empty() { 0.0 } else { largest_term(&responses) };
        let magnitude = loss.abs().max(1.0) + steepest * sum + sampled;
        for statistic in objective.requirements().statistics {
            for (token, &cotangent) in cotangents.column(statistic).iter().enumerate() {
                let loss = |value: f64| {
                    let mut moved = batch.clone();
                    moved.statistics.column_mut(statistic)[token] = value;
                    moved.evaluate_held(&*objective, evaluation.held()).loss
                };
                let value = batch.statistics.column(statistic)[token];
                // Where the loss turns within a step, a shorter one is needed.
                let agrees = [1e-3, 1e-4, 1e-5, 1e-6].into_iter().any(|share| {
                    let step = share * value.abs().min(1.0);
                    let error = (central_difference(loss, value, step) - cotangent).abs();
                    error <= 1e-6 * cotangent.abs() + rounding(magnitude, step)
                });
                prop_assert!(agrees, "{objective:?}, {statistic:?}, token {token}: cotangent {cotangent:e}, difference {:e}",
                    central_difference(loss, value, 1e-4));
            }
        }
    }

    #[test]
    fn a_buffer_used_before_gives_the_same_as_a_new_one(
        objective in objectives(), responses in responses(moderate()), shared in any::<bool>(),
    ) {
        let mut batch = OwnedBatch::new(&objective.requirements(), &responses);
        if shared && batch.pairs.len() > 1 {
            // One response in all pairs, others in none.
            batch.pairs.iter_mut().for_each(|pair| pair.chosen = 0);
            batch.totals = StepTotals::of(&batch.responses, &batch.pairs);
        }
        let mut used = batch.evaluate(&*objective);
        batch.evaluate_into(&*objective, &mut used);
        prop_assert_eq!(used, batch.evaluate(&*objective));
    }

    #[test]
    fn micro_batches_add_up_to_the_step(objective in objectives(), responses in responses(moderate())) {
        if objective.requirements().coupling == Coupling::Step {
            return Ok(()); // The step gathers such a batch before it evaluates; see the lake's properties.
        }
        let whole_batch = OwnedBatch::new(&objective.requirements(), &responses);
        let whole = whole_batch.evaluate(&*objective);
        let parts = parts(&whole_batch);
        let evaluations: Vec<_> = parts.iter().map(|part| whole_batch.select(part).evaluate(&*objective)).collect();

        let loss: f64 = evaluations.iter().map(|part| part.loss).sum();
        assert_close(&[loss], &[whole.loss], 1e-12, 1e-300, "loss");
        let expected = by_response(&whole_batch, &whole);
        for (part, evaluation) in parts.iter().zip(&evaluations) {
            for (&response, cotangents) in part.iter().zip(by_response(&whole_batch.select(part), evaluation)) {
                assert_close(&cotangents, &expected[response], 1e-12, 0.0, "cotangents");
            }
        }
        let mut metrics = evaluations[0].metrics.clone();
        evaluations[1..].iter().for_each(|part| metrics.merge(&part.metrics));
        for ((name, ours), (_, theirs)) in metrics.iter().zip(whole.metrics.iter()) {
            assert_close(&[ours], &[theirs], 1e-12, 1e-12, name);
        }
    }

    #[test]
    fn the_order_of_responses_or_pairs_changes_nothing_else(objective in objectives(), responses in responses(moderate())) {
        let batch = OwnedBatch::new(&objective.requirements(), &responses);
        let (count, half) = (responses.len(), batch.pairs.len());
        let order: Vec<_> = (half..count).rev().chain((0..half).rev()).collect();
        // Chosen responses stay before rejected ones.
        let order: Vec<_> = order[count - half..].iter().chain(&order[..count - half]).copied().collect();
        let turned = batch.select(&order);
        let (evaluation, other) = (batch.evaluate(&*objective), turned.evaluate(&*objective));
        let largest = evaluation.cotangents().log_prob.iter().fold(1e-300, |most: f64, c| most.max(c.abs()));
        let sampled = if batch.constants.behaviour_log_prob.is_empty() { 0.0 } else { largest_term(&responses) };
        assert_close(&[other.loss], &[evaluation.loss], 1e-12, 1e-13 * sampled + 1e-300, "loss");
        let expected = by_response(&batch, &evaluation);
        for (&response, ours) in order.iter().zip(by_response(&turned, &other)) {
            assert_close(&ours, &expected[response], 1e-12, 1e-14 * largest, "cotangents");
        }
    }

    #[test]
    fn loss_and_cotangents_are_finite_wherever_log_probabilities_are(
        objective in objectives(), responses in responses(extreme()),
    ) {
        let evaluation = OwnedBatch::new(&objective.requirements(), &responses).evaluate(&*objective);
        prop_assert!(evaluation.loss.is_finite(), "{objective:?}: loss {}", evaluation.loss);
        for statistic in objective.requirements().statistics {
            let cotangents = evaluation.cotangents().column(statistic);
            prop_assert!(cotangents.iter().all(|c| c.is_finite()), "{objective:?}: {statistic:?} {cotangents:?}");
        }
        prop_assert!(evaluation.metrics.iter().all(|(_, value)| value.is_finite()), "{:?}", evaluation);
    }

    #[test]
    fn dpo_is_ln_2_at_its_reference_and_antisymmetric(
        beta in 1e-3..50.0, smoothing in 0.0..=0.5, responses in responses(extreme()),
    ) {
        let dpo = Dpo { beta, label_smoothing: smoothing, ..Dpo::default() };
        let own: Vec<Tokens> = responses.iter().map(|r| r.iter().map(|t| Token { reference_log_prob: t.log_prob, ..*t }).collect()).collect();
        let batch = OwnedBatch::new(&dpo.requirements(), &own);
        let evaluation = batch.evaluate(&dpo);
        let pairs = batch.pairs.len() as f64;
        if batch.pairs.len().is_power_of_two() {
            prop_assert_eq!(evaluation.loss, std::f64::consts::LN_2);
        }
        prop_assert!((evaluation.loss - std::f64::consts::LN_2).abs() <= 2.0 * f64::EPSILON);
        let pull = beta * (smoothing - 0.5) / pairs;
        for (index, cotangents) in by_response(&batch, &evaluation).iter().enumerate() {
            let sign = if index < batch.pairs.len() { 1.0 } else { -1.0 };
            assert_close(cotangents, &vec![sign * pull; cotangents.len()], 1e-15, 0.0, "cotangents");
        }
    }

    #[test]
    fn swapping_chosen_and_rejected_turns_dpos_margin(beta in 1e-3..50.0, responses in responses(moderate())) {
        let dpo = Dpo { beta, ..Dpo::default() };
        let half = responses.len() / 2;
        let swapped: Vec<_> = responses[half..].iter().chain(&responses[..half]).cloned().collect();
        let margin = |responses: &[Tokens]| {
            OwnedBatch::new(&dpo.requirements(), responses).evaluate(&dpo).metrics.mean(Metric::RewardMargin)
        };
        assert_close(&[margin(&swapped).unwrap()], &[-margin(&responses).unwrap()], 1e-12, 1e-12, "margin");
    }

    #[test]
    fn ift_without_propagation_is_sft_by_response(responses in responses(extreme())) {
        let ift = Ift { propagation: Propagation::None, ..Ift::default() };
        let sft = Sft { normalisation: Normalisation::Response, ..Sft::default() };
        let batch = OwnedBatch::new(&sft.requirements(), &responses);
        let (ours, theirs) = (batch.evaluate(&ift), batch.evaluate(&sft));
        assert_close(&[ours.loss], &[theirs.loss], 1e-14, 1e-300, "loss");
        assert_close(&ours.cotangents().log_prob, &theirs.cotangents().log_prob, 1e-14, 0.0, "cotangents");
    }

    #[test]
    fn the_losses_of_later_tokens_reach_earlier_ones(responses in responses(moderate()), gamma in 0.05..=1.0) {
        // The gradient passes through the weights: raising a later loss changes every earlier cotangent of
        // `algorithm1`.
        let ift = Ift { propagation: Propagation::Algorithm1, gamma, ..Ift::default() };
        let mut batch = OwnedBatch::new(&ift.requirements(), &responses[..1]);
        let before = batch.evaluate(&ift).cotangents().log_prob.clone();
        let last = before.len() - 1;
        batch.statistics.log_prob[last] -= 1.0;
        let after = batch.evaluate(&ift).cotangents().log_prob.clone();
        // ∂/∂lₜ gains γᴺ⁻ᵗ for every t before the last, where it gains 2.
        let gains: Vec<_> = (0..last).map(|t| -gamma.powi((last - t) as i32)).chain([-2.0]).collect();
        let differences: Vec<_> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        assert_close(&differences, &gains, 1e-9, 1e-9, "gain");
    }

    #[test]
    fn the_parameters_in_force_build_the_same_objective(
        (method, objective) in named_objectives(), responses in responses(moderate()),
    ) {
        let rebuilt = (method.build)(&objective.parameters()).unwrap();
        prop_assert_eq!(rebuilt.parameters(), objective.parameters());
        prop_assert_eq!(rebuilt.requirements(), objective.requirements());
        let batch = OwnedBatch::new(&objective.requirements(), &responses);
        prop_assert_eq!(batch.evaluate(&*rebuilt), batch.evaluate(&*objective));
    }
}

#[test]
fn orpo_is_finite_and_flat_in_the_odds_at_certainty() {
    let orpo = Orpo::default();
    for certain in [0.0, -5e-324, -1e-300, -2.0_f64.powi(-53)] {
        let batch = OwnedBatch::new(&orpo.requirements(), &[vec![Token::new(-1.0)], vec![Token::new(certain)]]);
        let evaluation = batch.evaluate(&orpo);
        assert!(evaluation.loss.is_finite());
        assert_eq!(evaluation.cotangents().log_prob[1], 0.0, "a stop-gradient on the odds at {certain:e}");
    }
}

#[test]
fn the_weights_of_dynamic_fine_tuning_pass_no_gradient() {
    let responses = [vec![Token::new(-0.5), Token::new(-2.0)], vec![Token::new(-1.0)]];
    for (normalisation, scales) in
        [(Normalisation::Token, [1.0 / 3.0; 3]), (Normalisation::Response, [0.25, 0.25, 0.5])]
    {
        let dft = Sft { normalisation, weighting: TokenWeighting::Dft };
        let evaluation = OwnedBatch::new(&dft.requirements(), &responses).evaluate(&dft);
        let log_prob = [-0.5_f64, -2.0, -1.0];
        let expected: Vec<_> = log_prob.iter().zip(scales).map(|(log_prob, scale)| -scale * log_prob.exp()).collect();
        assert_close(&evaluation.cotangents().log_prob, &expected, 1e-15, 0.0, "cotangents");
        let loss: f64 = expected.iter().zip(log_prob).map(|(cotangent, log_prob)| cotangent * log_prob).sum();
        assert_close(&[evaluation.loss], &[loss], 1e-15, 0.0, "loss");
    }
}

/// Asserts that the loss and cotangents of a batch equal those of `frozen`, a loss with constant weights equal to the
/// held numbers.
fn agrees_with_frozen(objective: &dyn Objective, batch: &OwnedBatch, frozen: impl Fn(&[f64]) -> f64) {
    let evaluation = batch.evaluate(objective);
    let log_prob = &batch.statistics.log_prob;
    assert_close(&[evaluation.loss], &[frozen(log_prob)], 1e-13, 0.0, "loss");
    for (token, &cotangent) in evaluation.cotangents().log_prob.iter().enumerate() {
        let moved = |value: f64| {
            let mut moved = log_prob.clone();
            moved[token] = value;
            frozen(&moved)
        };
        let difference = central_difference(moved, log_prob[token], 1e-3);
        assert_close(&[cotangent], &[difference], 1e-7, 1e-9, &format!("{objective:?}, token {token}"));
    }
}

fn named(name: &str, parameters: &[(&str, Value)]) -> Box<dyn Objective> {
    let parameters = parameters.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    registry::build(name, &parameters).unwrap()
}

/// Ragged responses with numbers of every kind.
fn variety() -> Vec<Tokens> {
    let token = |place: usize| {
        let wave = |frequency: f64| (frequency * place as f64).sin();
        Token {
            log_prob: -1.1 + wave(1.0),
            reference_log_prob: -1.1 + wave(1.7),
            reference_kl: 1.1 + wave(2.3),
            behaviour_log_prob: -1.1 + wave(3.1),
            value: wave(4.3),
            advantage: wave(5.9),
        }
    };
    [0..5, 5..7, 7..19, 19..20, 20..24, 24..30].map(|places| places.map(token).collect()).into()
}

#[test]
fn the_weights_of_wpo_pass_no_gradient() {
    let (weighted, plain) = (named("dpo", &[("weighting", "wpo".into())]), named("dpo", &[]));
    let batch = OwnedBatch::new(&weighted.requirements(), &variety());
    let aligned = |response: usize| {
        let tokens = batch.responses[response].tokens.clone();
        let terms = tokens.clone().map(|t| batch.statistics.log_prob[t] - batch.statistics.log_sum_square_prob[t]);
        (terms.sum::<f64>() / tokens.len() as f64).exp()
    };
    let weights: Vec<_> = batch.pairs.iter().map(|pair| aligned(pair.chosen) * aligned(pair.rejected)).collect();
    assert!(weights.iter().any(|weight| (weight - 1.0).abs() > 0.1));
    agrees_with_frozen(&*weighted, &batch, |log_prob| {
        let loss = |pair: usize| {
            let mut part = OwnedBatch::new(&plain.requirements(), &variety());
            part.statistics.log_prob = log_prob.to_vec();
            part.select(&[pair, 3 + pair]).evaluate(&*plain).loss
        };
        weights.iter().enumerate().map(|(pair, weight)| weight * loss(pair)).sum()
    });
    assert!(batch.evaluate(&*weighted).cotangents().log_sum_square_prob.iter().all(|cotangent| *cotangent == 0.0));
}

#[test]
fn the_mismatched_responses_of_kto_pass_no_gradient_and_its_baseline_is_never_negative() {
    let kto = named("kto", &[]);
    let batch = OwnedBatch::new(&kto.requirements(), &variety());
    let evaluation = batch.evaluate(&*kto);
    let ratio = |response: usize| -> f64 {
        let tokens = batch.responses[response].tokens.clone();
        tokens.map(|t| batch.statistics.log_prob[t] - batch.constants.reference_log_prob[t]).sum()
    };
    let mismatched: Vec<_> = (0..6).filter(|&response| !batch.responses[response].is_learned()).collect();
    for &response in &mismatched {
        let tokens = batch.responses[response].tokens.clone();
        assert!(evaluation.cotangents().log_prob[tokens].iter().all(|cotangent| *cotangent == 0.0));
    }
    let mean = mismatched.iter().map(|&response| ratio(response)).sum::<f64>() / mismatched.len() as f64;
    let kl = evaluation.metrics.mean(Metric::Kl).unwrap();
    assert_close(&[kl], &[mean.max(0.0)], 1e-13, 1e-15, "KL");
    // With policy and reference exchanged, the estimate has the other sign; one of the two is 0.
    let mut exchanged = batch.clone();
    std::mem::swap(&mut exchanged.statistics.log_prob, &mut exchanged.constants.reference_log_prob);
    assert_eq!(kl.min(exchanged.evaluate(&*kto).metrics.mean(Metric::Kl).unwrap()), 0.0);
}

#[test]
fn the_shift_of_bco_passes_no_gradient_and_remembers_earlier_steps() {
    let bco = named("bco", &[]);
    let mut batch = OwnedBatch::new(&bco.requirements(), &variety());
    let reward = |log_prob: &[f64], response: usize| {
        let tokens = batch.responses[response].tokens.clone();
        0.1 * tokens.map(|t| log_prob[t] - batch.constants.reference_log_prob[t]).sum::<f64>()
    };
    let step: f64 = (0..6).map(|response| reward(&batch.statistics.log_prob, response)).sum();
    // Four rewards of mean 0.5 before, six now.
    let shift = (4.0 * 0.5 + step) / 10.0;
    let signs: Vec<f64> =
        batch.responses.iter().map(|r| if r.feedback == Feedback::Desirable { 1.0 } else { -1.0 }).collect();
    let frozen = |log_prob: &[f64]| {
        let loss = |response: usize| (-signs[response] * (reward(log_prob, response) - shift)).exp().ln_1p();
        (0..6).map(loss).sum::<f64>() / 6.0
    };
    let mut with_state = batch.clone();
    with_state.state.rewards = RunningMean { count: 4, mean: 0.5 };
    agrees_with_frozen(&*bco, &with_state, frozen);
    batch.state = with_state.state.clone();
    assert_close(&[batch.evaluate(&*bco).metrics.mean(Metric::RewardShift).unwrap()], &[shift], 1e-13, 0.0, "shift");
}

#[test]
fn the_importance_weights_of_cispo_pass_no_gradient() {
    let cispo = named("cispo", &[("max_ratio", 1.5.into()), ("scale", "none".into())]);
    let batch = OwnedBatch::new(&cispo.requirements(), &variety());
    let OwnedBatch { statistics, constants, .. } = &batch;
    let ratios = statistics.log_prob.iter().zip(&constants.behaviour_log_prob).map(|(own, other)| (own - other).exp());
    let weights: Vec<_> = ratios.zip(advantages(&batch)).map(|(ratio, advantage)| ratio.min(1.5) * advantage).collect();
    agrees_with_frozen(&*cispo, &batch, |log_prob| {
        -weights.iter().zip(log_prob).map(|(weight, log_prob)| weight * log_prob).sum::<f64>() / weights.len() as f64
    });
}

#[test]
fn the_gamma_weights_of_vespo_pass_no_gradient() {
    let vespo = named("vespo", &[("scale", "none".into())]);
    let batch = OwnedBatch::new(&vespo.requirements(), &variety());
    let advantages = advantages(&batch);
    let weight = |response: &objective::Response| {
        let OwnedBatch { statistics, constants, .. } = &batch;
        let ratio: f64 =
            response.tokens.clone().map(|t| statistics.log_prob[t] - constants.behaviour_log_prob[t]).sum();
        let (k, lambda) = if advantages[response.tokens.start] >= 0.0 { (2.0, 3.0) } else { (3.0, 2.0) };
        (ratio * k + lambda * (1.0 - ratio.exp())).exp()
    };
    let weights: Vec<_> =
        batch.responses.iter().flat_map(|response| vec![weight(response); response.tokens.len()]).collect();
    agrees_with_frozen(&*vespo, &batch, |log_prob| {
        let terms = weights.iter().zip(&advantages).zip(log_prob).map(|((weight, a), log_prob)| weight * a * log_prob);
        -terms.sum::<f64>() / weights.len() as f64
    });
}

/// Rewards minus the mean of their group, one per token.
fn advantages(batch: &OwnedBatch) -> Vec<f64> {
    let rewards: Vec<_> = batch
        .responses
        .iter()
        .zip(&batch.constants.reward)
        .map(|(response, reward)| match response.feedback {
            Feedback::Group(group) => (group, *reward),
            other => panic!("{other:?}"),
        })
        .collect();
    let advantage = |&(own, reward): &(usize, f64)| {
        let group: Vec<_> = rewards.iter().filter(|(group, _)| *group == own).map(|(_, reward)| reward).collect();
        reward - group.iter().copied().sum::<f64>() / group.len() as f64
    };
    let lengths = batch.responses.iter().map(|response| response.tokens.len());
    rewards.iter().map(advantage).zip(lengths).flat_map(|(advantage, length)| vec![advantage; length]).collect()
}

#[test]
fn equal_rewards_teach_a_group_nothing() {
    for method in ["grpo", "cispo", "sapo", "luspo", "vespo", "rloo"] {
        let objective = named(method, &[("beta", 0.0.into())]);
        let mut responses = variety();
        responses.iter_mut().flatten().for_each(|token| token.value = 0.7);
        let evaluation = OwnedBatch::new(&objective.requirements(), &responses).evaluate(&*objective);
        assert!(evaluation.cotangents().log_prob.iter().all(|cotangent| *cotangent == 0.0), "{method}");
    }
}

#[test]
fn groups_that_teach_nothing_show_in_the_metrics_and_so_does_the_spread_of_the_rewards() {
    for method in ["grpo", "cispo", "sapo", "luspo", "vespo", "rloo"] {
        let objective = named(method, &[("beta", 0.0.into())]);
        let mean = |responses: &[Tokens], metric: Metric| {
            OwnedBatch::new(&objective.requirements(), responses).evaluate(&*objective).metrics.mean(metric)
        };
        // Two groups of three: all different, all different; then the second one's are equal; then all.
        let mut responses = variety();
        assert_eq!(mean(&responses, Metric::ZeroAdvantageGroups), Some(0.0), "{method}");
        let rewards: Vec<f64> = responses.iter().map(|tokens| tokens[0].value).collect();
        let deviation = |rewards: &[f64]| {
            let mean = rewards.iter().sum::<f64>() / 3.0;
            (rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / 2.0).sqrt()
        };
        let expected = (deviation(&rewards[..3]) + deviation(&rewards[3..])) / 2.0;
        assert_close(&[mean(&responses, Metric::RewardStandardDeviation).unwrap()], &[expected], 1e-13, 0.0, method);
        responses[3..].iter_mut().flatten().for_each(|token| token.value = 0.1);
        assert_eq!(mean(&responses, Metric::ZeroAdvantageGroups), Some(0.5), "{method}");
        responses.iter_mut().flatten().for_each(|token| token.value = 0.1);
        assert_eq!(mean(&responses, Metric::ZeroAdvantageGroups), Some(1.0), "{method}");
        assert_eq!(mean(&responses, Metric::RewardStandardDeviation), Some(0.0), "{method}");
        // A group of one has nothing to be compared with.
        assert_eq!(mean(&variety()[..1], Metric::ZeroAdvantageGroups), Some(1.0), "{method}");
    }
}

#[test]
fn pairs_that_teach_nothing_show_in_the_metrics() {
    for method in METHODS {
        let objective = named(method.name, &[]);
        if objective.requirements().data != Data::Preferences {
            continue;
        }
        let evaluation = OwnedBatch::new(&objective.requirements(), &variety()).evaluate(&*objective);
        if method.name == "sum" {
            continue; // Of its terms, those that compare pairs report it.
        }
        assert_eq!(evaluation.metrics.mean(Metric::ZeroGradientPairs), Some(0.0), "{}", method.name);
    }
    // Beyond its margin a hinge has no slope, and a logistic loss none that 64 bits hold.
    for method in ["hinge", "dpo"] {
        let mut responses = variety();
        responses[..3].iter_mut().flatten().for_each(|token| token.reference_log_prob = -1e6);
        let objective = named(method, &[]);
        let evaluation = OwnedBatch::new(&objective.requirements(), &responses).evaluate(&*objective);
        assert_eq!(evaluation.metrics.mean(Metric::ZeroGradientPairs), Some(1.0), "{method}");
        assert!(evaluation.cotangents().log_prob.iter().all(|cotangent| *cotangent == 0.0), "{method}");
    }
}

#[test]
fn the_shares_of_ratios_clipped_below_and_above_add_up_to_the_whole() {
    for method in ["grpo", "luspo", "rloo", "ppo", "cispo"] {
        let objective = named(method, &[]);
        let metrics = OwnedBatch::new(&objective.requirements(), &variety()).evaluate(&*objective).metrics;
        let [whole, low, high] =
            [Metric::ClipFraction, Metric::ClipFractionLow, Metric::ClipFractionHigh].map(|m| metrics.mean(m).unwrap());
        assert_close(&[whole], &[low + high], 1e-15, 0.0, method);
        assert!(whole > 0.0, "{method}");
    }
    let grpo = OwnedBatch::new(&named("grpo", &[]).requirements(), &variety()).evaluate(&*named("grpo", &[])).metrics;
    assert!([Metric::ClipFractionLow, Metric::ClipFractionHigh].iter().all(|metric| grpo.mean(*metric).unwrap() > 0.0));
}

/// A loss of one token at a ratio, with a given advantage.
fn clipped(ratio: f64, advantage: f64, delta: Option<f64>) -> (f64, f64, bool) {
    let grpo = PolicyGradient { advantage: Advantage::Given, clip_high: Some(0.28), delta, ..PolicyGradient::grpo() };
    let mut grpo = grpo.evaluator().unwrap();
    let (log_prob, behaviour_log_prob) = ([ratio.ln() - 9.0], [-9.0]);
    let responses = Side {
        log_prob: &log_prob,
        behaviour_log_prob: &behaviour_log_prob,
        advantage: &[advantage],
        ..Side::of(&[1])
    };
    let answer = grpo.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap();
    (answer.loss, answer.cotangents.log_prob[0], answer.metrics.mean(Metric::ClipFraction).unwrap() > 0.0)
}

#[test]
fn a_clipped_surrogate_has_the_gradient_of_its_minimum_however_small_the_advantage() {
    for unit in [1.0, 1e-100, 1e-300, 1e-320] {
        for (ratio, sign, moves) in [
            (1.1, 1.0, true),
            (1.1, -1.0, true),
            (0.5, 1.0, true),
            (0.5, -1.0, false),
            (1.3, 1.0, false),
            (2.9, -1.0, true),
            (3.1, -1.0, false),
        ] {
            let (_, slope, clipped) = clipped(ratio, sign * unit, Some(3.0));
            assert_eq!(slope != 0.0, moves, "ratio {ratio}, advantage {sign} times {unit:e}");
            assert_eq!(clipped, !moves);
        }
    }
}

#[test]
fn a_clipped_surrogate_is_the_minimum_that_its_formula_says() {
    for delta in [None, Some(1.1), Some(3.0)] {
        for (place, advantage) in (0..400).flat_map(|place| [(place, 0.7), (place, -0.7), (place, 0.0)]) {
            let ratio = f64::exp(f64::from(place - 200) * 0.01);
            let bounded = ratio.min(delta.unwrap_or(f64::INFINITY)) * advantage;
            let expected = -bounded.min(ratio.clamp(0.8, 1.28) * advantage);
            let (loss, _, _) = clipped(ratio, advantage, delta);
            assert_close(&[loss], &[expected], 1e-14, 0.0, &format!("{delta:?}, {ratio}, {advantage}"));
        }
    }
}

#[test]
fn on_policy_every_group_loss_is_the_policy_gradient() {
    // ρ = 1: no clip, gate or weight is felt, and each token's cotangent is −A times its share of the step's loss.
    let mut responses = variety();
    responses.iter_mut().flatten().for_each(|token| token.behaviour_log_prob = token.log_prob);
    for (method, share) in [
        ("grpo", (|tokens, _| 1.0 / (6.0 * tokens)) as fn(f64, f64) -> f64),
        ("sapo", |tokens, _| 1.0 / (6.0 * tokens)),
        ("luspo", |_, _| 1.0 / 6.0),
        ("cispo", |_, all| 1.0 / all),
        ("vespo", |_, all| 1.0 / all),
    ] {
        let objective = named(method, &[("scale", "none".into())]);
        let batch = OwnedBatch::new(&objective.requirements(), &responses);
        let (evaluation, advantages) = (batch.evaluate(&*objective), advantages(&batch));
        for response in &batch.responses {
            for token in response.tokens.clone() {
                let expected = -advantages[token] * share(response.tokens.len() as f64, advantages.len() as f64);
                assert_close(&[evaluation.cotangents().log_prob[token]], &[expected], 1e-12, 1e-16, method);
            }
        }
    }
}

#[test]
fn a_sum_is_the_sum_of_its_terms_and_imitates_the_chosen_responses() {
    let term = |name: &str, weight: f64| {
        Parameters::from([("name".to_owned(), name.into()), ("weight".to_owned(), weight.into())])
    };
    let sum = named("sum", &[("terms", Value::Terms(vec![term("dpo", 0.5), term("sft", 2.0)]))]);
    let (dpo, sft) = (named("dpo", &[]), named("sft", &[]));
    let ours = OwnedBatch::new(&sum.requirements(), &variety()).evaluate(&*sum);
    let pairs = OwnedBatch::new(&dpo.requirements(), &variety()).evaluate(&*dpo);
    let chosen = OwnedBatch::new(&sft.requirements(), &variety()[..3]).evaluate(&*sft);
    assert_close(&[ours.loss], &[0.5 * pairs.loss + 2.0 * chosen.loss], 1e-14, 0.0, "loss");
    for (token, cotangent) in ours.cotangents().log_prob.iter().enumerate() {
        let imitation = chosen.cotangents().log_prob.get(token).copied().unwrap_or(0.0);
        let expected = 0.5 * pairs.cotangents().log_prob[token] + 2.0 * imitation;
        assert_close(&[*cotangent], &[expected], 1e-14, 0.0, "cotangent");
    }
}

#[test]
fn terms_that_no_step_can_serve_are_refused() {
    let term = |name: &str| Parameters::from([("name".to_owned(), name.into())]);
    for (terms, expected) in [
        (vec![term("dpo"), term("kto")], "share their data"),
        (vec![term("sft"), term("ift")], "share their anticipation"),
        (vec![term("dpo"), term("online_dpo")], "share their sampling"),
        (vec![term("grpo"), term("rloo")], "share their sampling"),
        (vec![term("dpo"), term("sum")], "other than sum"),
        (vec![term("spo")], "unknown method"),
        (vec![], "a list of methods"),
        (vec![[("name".to_owned(), "dpo".into()), ("weight".to_owned(), 0.0.into())].into()], "a weight above 0"),
        (vec![[("weight".to_owned(), 1.0.into())].into()], "the name of a method"),
        (vec![[("name".to_owned(), "dpo".into()), ("weight".to_owned(), (-1.0).into())].into()], "0 <= weight"),
        (vec![[("name".to_owned(), "dpo".into()), ("beta".to_owned(), (-1.0).into())].into()], "dpo.beta"),
    ] {
        let error =
            registry::build("sum", &[("terms".to_owned(), Value::Terms(terms))].into()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} lacks {expected}");
    }
}

#[test]
fn bnpo_and_dapo_are_one_normalisation_where_every_step_is_exact() {
    let [bnpo, dapo] = ["bnpo", "dapo"].map(|name| {
        let objective = named(name, &[("clip_high", 0.2.into())]);
        let evaluation = OwnedBatch::new(&objective.requirements(), &variety()).evaluate(&*objective);
        (evaluation.loss, evaluation.cotangents().clone())
    });
    assert_eq!(bnpo, dapo);
}

#[test]
fn where_every_loss_is_zero_the_weights_of_ift_are_uniform() {
    for side in ["left", "right"] {
        let parameters = Parameters::from([("side".to_owned(), side.into())]);
        let ift = registry::build("ift", &parameters).unwrap();
        let certain = vec![Token::new(0.0); 4];
        let evaluation = OwnedBatch::new(&ift.requirements(), &[certain]).evaluate(&*ift);
        assert_eq!(evaluation.loss, 0.0);
        assert_eq!(evaluation.cotangents().log_prob, [-0.25; 4]);
    }
}

#[test]
fn every_default_is_within_its_range() {
    for method in METHODS {
        let objective = (method.build)(&objective::Parameters::new()).unwrap();
        for (name, value) in objective.parameters() {
            let parameters = (method.parameters)();
            let declared = parameters.iter().find(|parameter| parameter.name == name).unwrap();
            if let Kind::Derived { .. } | Kind::Terms { .. } = declared.kind {
                continue;
            }
            assert_eq!(value, declared.default(), "{}.{name}", method.name);
        }
    }
}
