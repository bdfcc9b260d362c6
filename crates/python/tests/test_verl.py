"""The losses in verl's registry of policy losses, beside the losses of verl itself."""

import pytest

import objective_lake as ol

pytest.importorskip("verl")
import numpy as np  # noqa: E402
import torch  # noqa: E402
from hosts import assert_same, example, given  # noqa: E402
from test_hosts import sampled  # noqa: E402
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn  # noqa: E402
from verl.workers.config import ActorConfig  # noqa: E402

MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]


def config(tokens=20, responses=8, **options):
    own = ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **options)
    own.global_batch_info.update(batch_num_tokens=tokens, global_batch_size=responses, dp_size=2, loss_scale_factor=7)
    return own


def both(method, theirs, mode, weights=None, options={}, empty=False, **parameters):
    """The loss of the example's function, and that of verl."""
    example("verl_loss").register(method, **parameters)
    language_model, log_prob, old, _, advantages, mask = sampled()
    if empty:
        mask[3] = False
    given = {"old_log_prob": old, "log_prob": log_prob, "advantages": advantages, "response_mask": mask,
             "loss_agg_mode": mode, "config": config(**options), "rollout_is_weights": weights}
    functions = (get_policy_loss_fn(name) for name in (f"ol_{method}", theirs))
    (ours, metrics), (other, _) = (function(**given) for function in functions)
    assert all(isinstance(number, float) for number in metrics.values())
    return language_model, ours, other


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_clipped_loss_is_verls_in_every_aggregation_and_with_weights(mode, weighted):
    weights = 2 * torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) if weighted else None
    length = {"max_tokens": 7} if mode == "seq-mean-token-sum-norm" else {}
    assert_same(*both("grpo", "vanilla", mode, weights, delta=3.0, clip_high=0.3, options={"clip_ratio_high": 0.3},
                      empty=True, **length))


@pytest.mark.parametrize(
    ("method", "theirs", "parameters", "options"),
    [
        ("gspo_token", "gspo", {"clip": 0.1, "clip_high": 0.1}, {"clip_ratio": 0.1, "clip_ratio_low": 0.1, "clip_ratio_high": 0.1}),
        ("sapo", "sapo", {}, {}),
        ("gpg", "gpg", {}, {}),
    ],
)
def test_other_losses_are_verls(method, theirs, parameters, options):
    assert_same(*both(method, theirs, "seq-mean-token-mean", options=options, **parameters))


READ = {"log_prob", "behaviour_log_prob", "advantage"}
REACHED = [name for name, own in ol.methods().items() if own.data == "groups" and set(given(name).columns) <= READ]


@pytest.mark.parametrize("name", REACHED)
def test_every_policy_gradient_loss_is_reached(name):
    example("verl_loss").register(name)
    language_model, log_prob, old, _, advantages, mask = sampled()
    # A micro-batch that is the whole step, as clip_cov and kl_cov compare the tokens of a step.
    value, _ = get_policy_loss_fn(f"ol_{name}")(
        old_log_prob=old, log_prob=log_prob, advantages=advantages, response_mask=mask, loss_agg_mode="token-mean",
        config=config(int(mask.sum()), len(mask)),
    )
    value.backward()
    assert torch.isfinite(value) and any(weight.grad.abs().max() > 0 for weight in language_model.parameters())


@pytest.mark.parametrize(
    ("advantage", "theirs", "precision"), [("leave_one_out", "rloo", 1e-6), ("length_weighted", "opo", 1e-6),
                                           # verl adds 1e-6 to the standard deviation of a group, and we 1e-4 as TRL.
                                           ("group_mean", "grpo", 1e-3)],
)
def test_advantages_are_verls(advantage, theirs, precision):
    example("verl_advantage").register(advantage)
    generator = torch.Generator().manual_seed(3)
    mask = (torch.arange(6)[None] < torch.tensor([[6], [2], [5], [1], [3], [4]])).float()
    rewards = torch.zeros(6, 6)
    rewards[range(6), mask.sum(-1).long() - 1] = torch.randn(6, generator=generator)
    index = np.array(["b", "a", "b", "a", "b", "a"], dtype=object)
    (ours, _), (other, _) = (
        get_adv_estimator_fn(name)(token_level_rewards=rewards.clone(), response_mask=mask, index=index)
        for name in (f"ol_{advantage}", theirs)
    )
    assert torch.allclose(ours, other, rtol=precision, atol=1e-6)


def test_max_rl_divides_by_the_mean_reward_of_the_group():
    example("verl_advantage").register("max_rl")
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    mask, index = torch.ones(4, 2), np.array([0, 0, 1, 2])
    ours, _ = get_adv_estimator_fn("ol_max_rl")(token_level_rewards=rewards, response_mask=mask, index=index)
    assert torch.allclose(ours[:2], torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), atol=1e-5)
