"""The losses in loops and trainers of other packages, beside the losses of these packages."""

import runpy
import sys
import types
from dataclasses import dataclass
from typing import Any, Optional

import pytest

import objective_lake as ol

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from hosts import HOSTS, assert_same, example, letters, model, tokenizer  # noqa: E402


def log_probs(language_model, ids):
    """Log-probabilities of the tokens after the first, [batch, time - 1]."""
    return language_model(input_ids=ids[:, :-1]).logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]


def sampled(seed=0):
    """What a trainer of sampled responses has: log-probabilities with a gradient, and constants."""
    language_model, generator = model(), torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 29, (4, 9), generator=generator)
    log_prob = log_probs(language_model, ids)[:, 2:]
    near = [log_prob.detach() + 0.3 * torch.randn(log_prob.shape, generator=generator) for _ in range(2)]
    old, rollout = (own.clamp(max=-1e-3) for own in near)
    advantages = torch.randn(4, 1, generator=generator).expand(4, 6).contiguous()
    mask = torch.arange(6)[None] < torch.tensor([[6], [2], [5], [1]])
    return language_model, log_prob, old, rollout, advantages, mask


def test_the_plain_loop_learns_a_preference_with_the_loss_of_dpo(capsys):
    torch.manual_seed(0)
    names = runpy.run_path(str(HOSTS / "plain.py"))
    assert names["value"].item() < 0.5 and "loss 0." in capsys.readouterr().out
    (w, mask, reference_w), (l, _, reference_l) = names["side"](names["chosen"]), names["side"](names["rejected"])
    margin = ((w - reference_w - l + reference_l) * mask).sum(-1)
    ours, _ = names["loss"](names["dpo"], chosen=(w, mask, reference_w), rejected=(l, mask, reference_l))
    assert_same(names["policy"], ours, -torch.nn.functional.logsigmoid(0.1 * margin).mean())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_hugging_faces_trainer_takes_the_same_steps_as_with_its_own_loss(accumulation, tmp_path):
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    rows = []
    for i in range(4):
        ids = tokenizer()(letters(6 + i, i))["input_ids"]
        rows.append({"input_ids": ids, "labels": [-100, -100, *ids[2:]]})
    trained = []
    for function in (None, example("transformers_trainer").of(ol.objective("sft"))):
        arguments = TrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, report_to=[], max_steps=3, learning_rate=0.1, optim="sgd",
            per_device_train_batch_size=4 // accumulation, gradient_accumulation_steps=accumulation,
            save_strategy="no", disable_tqdm=True, lr_scheduler_type="constant",
        )
        trainer = Trainer(
            model=model(), args=arguments, train_dataset=rows, compute_loss_func=function,
            data_collator=DataCollatorForSeq2Seq(tokenizer(), label_pad_token_id=-100),
        )
        before = trainer.model.get_input_embeddings().weight.detach().clone()
        result = trainer.train()
        assert (trainer.model.get_input_embeddings().weight != before).any()
        trained.append((result.training_loss, trainer.model.state_dict()))
    (theirs, weights), (ours, own) = trained
    assert ours == pytest.approx(theirs, abs=1e-6)
    for name, weight in weights.items():
        assert torch.allclose(own[name], weight, rtol=0, atol=1e-6), name


def test_tinkers_custom_loss_pulls_the_gradient_of_dpo_back():
    tinker = pytest.importorskip("tinker")
    from tinker.lib.public_interfaces.training_client import TrainingClient

    language_model, reference = model(0), model(1)
    ids = [torch.randint(3, 29, (length,), generator=torch.Generator().manual_seed(length)) for length in (7, 5, 9, 6)]

    def log_prob(policy, datum):
        inputs = torch.tensor(datum.model_input.to_ints())[None]
        targets = datum.loss_fn_inputs["target_tokens"].to_torch().long()
        return policy(input_ids=inputs).logits[0].log_softmax(-1).gather(-1, targets[:, None])[:, 0]

    class Local(TrainingClient):
        """The client of the service, with the model on this machine in place of the service."""

        def __init__(self):
            config = types.SimpleNamespace(fwdbwd_max_chunk_len=128, fwdbwd_max_chunk_bytes_count=1 << 20)
            self.holder = types.SimpleNamespace(_client_config=config)

        def _reserve_request_ids(self, count):
            return list(range(count))

        def _run_fwd_bwd(self, requests, loss_fn, _, forward_only):
            own = [log_prob(language_model, datum) for request in requests for datum in request.data]
            data = [datum for request in requests for datum in request.data]
            outputs, total = [], 0.0
            for values, datum in zip(own, data):
                row = tinker.TensorData(data=values.detach().tolist(), dtype="float32", shape=[len(values)])
                outputs.append({"logprobs": row})
                total = total - (values * datum.loss_fn_inputs["weights"].to_torch()).sum()
            if not forward_only:
                total.backward()

            async def result():
                return tinker.ForwardBackwardOutput(
                    loss_fn_output_type="ArrayRecord", loss_fn_outputs=outputs, metrics={"loss:sum": float(total)}
                )

            return types.SimpleNamespace(result_async=result)

    def tensor(values):
        return tinker.TensorData(data=values, dtype="float32", shape=[len(values)])

    data = [
        tinker.Datum(
            model_input=tinker.ModelInput.from_ints(own[:-1].tolist()),
            loss_fn_inputs={"target_tokens": tinker.TensorData(data=own[1:].tolist(), dtype="int64", shape=[len(own) - 1]),
                            "weights": tensor([0.0, 0.0] + [1.0] * (len(own) - 3))},
        )
        for own in ids
    ]
    with torch.no_grad():
        given = [log_prob(reference, datum) for datum in data]
    dpo = ol.objective("dpo", beta=0.3)
    result = Local().forward_backward_custom(data, example("tinker_custom").preferences(dpo, given)).result()
    pulled_back = {name: weight.grad.clone() for name, weight in language_model.named_parameters()}

    language_model.zero_grad()
    ratios = torch.stack([(log_prob(language_model, datum) - own)[2:].sum() for datum, own in zip(data, given)])
    expected = -torch.nn.functional.logsigmoid(0.3 * (ratios[0::2] - ratios[1::2])).mean()
    expected.backward()
    assert result.metrics["loss:sum"] == pytest.approx(expected.item(), abs=1e-6)
    assert "rewards/margins" in result.metrics
    for name, weight in language_model.named_parameters():
        assert torch.allclose(pulled_back[name], weight.grad, rtol=0, atol=1e-6), name


@pytest.fixture
def prime_rl(monkeypatch):
    """The interface of prime-rl's custom losses as its documentation publishes it; the package needs a GPU."""
    @dataclass
    class LossInputs:
        trainer_logprobs: Any
        inference_logprobs: Any
        ref_logprobs: Optional[Any]
        advantages: Any
        loss_mask: Any
        loss_weights: Optional[Any] = None

    @dataclass
    class LossOutputs:
        loss: Any
        metrics: dict

    module = types.ModuleType("prime_rl.trainer.rl.loss")
    module.LossInputs, module.LossOutputs = LossInputs, LossOutputs
    for name in ("prime_rl", "prime_rl.trainer", "prime_rl.trainer.rl"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def clipped(log_prob, old, advantages, low=0.2, high=0.2):
    """The clipped loss of each token, by its formula."""
    ratio = torch.exp(log_prob - old)
    return -torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def test_prime_rls_custom_loss_is_the_sum_of_the_clipped_losses_of_a_sequence(prime_rl):
    language_model, log_prob, old, _, advantages, mask = sampled()
    policy_loss = example("prime_rl_loss").policy_loss
    ours, theirs = 0.0, 0.0
    for row in range(4):
        inputs = prime_rl.LossInputs(log_prob[row], old[row], None, advantages[row], mask[row])
        result = policy_loss(inputs, method="grpo", clip_high=0.3)
        ours = ours + result.loss
        theirs = theirs + clipped(log_prob, old, advantages, high=0.3)[row][mask[row]].sum()
        assert all(isinstance(own, torch.Tensor) for own in result.metrics.values())
    assert_same(language_model, ours, theirs)
    nothing = prime_rl.LossInputs(log_prob[0], old[0], None, advantages[0], torch.zeros(6, dtype=torch.bool))
    assert policy_loss(nothing).loss.item() == 0.0


def test_skyrls_policy_loss_is_the_sum_of_the_clipped_losses(monkeypatch):
    # The interface of SkyRL's registry as its repository publishes it; the package needs a GPU.
    registered = {}
    module = types.ModuleType("skyrl.backends.skyrl_train.utils.ppo_utils")
    module.register_policy_loss = lambda name: lambda function: registered.setdefault(name, function)
    for name in ("skyrl", "skyrl.backends", "skyrl.backends.skyrl_train", "skyrl.backends.skyrl_train.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    example("skyrl_loss").register("grpo")
    language_model, log_prob, old, rollout, advantages, mask = sampled()
    mask = mask.float()
    mask[1] = 0.0
    ours, metrics = registered["ol_grpo"](log_prob, old, advantages, None, loss_mask=mask, rollout_logprobs=rollout)
    assert_same(language_model, ours, (clipped(log_prob, old, advantages) * mask).sum())
    assert "clip_fraction" in metrics


def test_nemo_rls_loss_function_is_the_clipped_loss_over_the_tokens_of_the_step(monkeypatch):
    # The interface of NeMo-RL's losses as its repository publishes it; the package needs a GPU.
    module = types.ModuleType("nemo_rl.algorithms.loss.interfaces")
    module.LossType = types.SimpleNamespace(TOKEN_LEVEL="token_level")
    module.LossInputType = types.SimpleNamespace(LOGPROB="logprob")
    for name in ("nemo_rl", "nemo_rl.algorithms", "nemo_rl.algorithms.loss"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    language_model, log_prob, old, rollout, advantages, mask = sampled()
    first = torch.zeros(4, 1)
    columns = {"advantages": advantages, "prev_logprobs": old, "generation_logprobs": rollout, "token_mask": mask.float()}
    data = {name: torch.cat([first, own], 1) for name, own in columns.items()}
    data["sample_mask"] = torch.tensor([1.0, 1.0, 0.0, 1.0])
    policy_loss = example("nemo_rl_loss").PolicyLoss("grpo")
    ours, metrics = policy_loss(
        data=data, global_valid_seqs=torch.tensor(6), global_valid_toks=torch.tensor(20), next_token_logprobs=log_prob
    )
    kept = mask * data["sample_mask"][:, None]
    assert_same(language_model, ours, (clipped(log_prob, old, advantages) * kept).sum() / 20)
    assert "clip_fraction" in metrics
