"""The losses in TRL's trainers, beside the losses of TRL itself."""

import copy
import logging

import pytest

import objective_lake as ol

pytest.importorskip("trl")
import torch  # noqa: E402
from datasets import Dataset, disable_progress_bars  # noqa: E402
from hosts import assert_same, example, given, letters, model, tokenizer  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer  # noqa: E402

disable_progress_bars()
logging.disable(logging.WARNING)
COLUMNS = {"log_prob", "reference_log_prob", "weight", "desirable", "behaviour_log_prob", "advantage"}
RECORDS = 4


def methods(data, of=ol.objective):
    """The methods of this kind of data that read nothing that TRL does not compute."""
    names = [name for name, method in ol.methods().items() if method.data == data and name != "sum"]
    return [name for name in names if set(of(name).columns) <= COLUMNS]


def made(trainer, config, folder, records, seed=1, **options):
    options = {"report_to": [], "use_cpu": True, "max_steps": 2, "learning_rate": 1e-2, "disable_tqdm": True,
               "per_device_train_batch_size": RECORDS, "save_strategy": "no", "bf16": False,
               "gradient_checkpointing": False, "output_dir": str(folder), **options}
    policy, rest = model(seed), {"ref_model": model(0)}
    if issubclass(trainer, GRPOTrainer):
        # This trainer reads the reference from where the policy is.
        policy.save_pretrained(folder / "policy")
        policy = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
        rest = {"reward_funcs": lambda completions, **_: [float(len(own) % 5) for own in completions]}
    return trainer(
        model=policy, args=config(**options), train_dataset=Dataset.from_list(records), processing_class=tokenizer(),
        **rest,
    )


BATCHES = {}


def batch(trainer):
    """The first batch of a trainer, which may have sampled it."""
    if trainer not in BATCHES:
        BATCHES[trainer] = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    return dict(BATCHES[trainer])


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    records = [{"prompt": letters(3, i), "chosen": " " + letters(2 + i, 100 + i), "rejected": " " + letters(5 - i, 200 + i)}
               for i in range(RECORDS)]
    return made(example("trl_dpo").PreferenceTrainer, DPOConfig, tmp_path_factory.mktemp("dpo"), records, beta=0.3)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    records = [{"prompt": letters(3, i), "completion": " " + letters(2 + i, 300 + i), "label": i % 2 == 0}
               for i in range(RECORDS)]
    return made(example("trl_kto").LabelledTrainer, KTOConfig, tmp_path_factory.mktemp("kto"), records, beta=0.3)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    records = [{"prompt": letters(3, i)} for i in range(RECORDS)]
    return made(
        example("trl_grpo").PolicyTrainer, GRPOConfig, tmp_path_factory.mktemp("grpo"), records,
        num_generations=2, max_completion_length=6, beta=0.2,
    )


THEIRS = {
    "dpo": "sigmoid", "hinge": "hinge", "ipo": "ipo", "robust": "robust", "exo_pair": "exo_pair",
    "nca_pair": "nca_pair", "sppo_hard": "sppo_hard", "aot": "aot", "aot_unpaired": "aot_unpaired",
    "apo_zero": "apo_zero", "apo_down": "apo_down", "discopop": "discopop", "sigmoid_norm": "sigmoid_norm",
}


@pytest.mark.parametrize("name", THEIRS)
def test_losses_over_preferences_and_their_gradients_are_trls(name, preferences):
    trainer, inputs = preferences, batch(preferences)
    smoothing = {"label_smoothing": 0.1} if name in ("robust", "exo_pair") else {}
    trainer.loss_types, trainer.label_smoothing = [THEIRS[name]], smoothing.get("label_smoothing", 0.0)
    trainer.objective = ol.objective(name, beta=0.3, **smoothing)
    ours = trainer.compute_loss(trainer.model, inputs)
    assert_same(trainer.model, ours, DPOTrainer._compute_loss(trainer, trainer.model, inputs, False))


@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
def test_losses_over_labelled_responses_and_their_gradients_are_trls(name, labelled):
    trainer, inputs = labelled, batch(labelled)
    trainer.loss_type, trainer.calculate_KL = name, name == "kto"
    trainer.objective = ol.objective(name, beta=0.3)
    ours = trainer.compute_loss(trainer.model, inputs)
    assert_same(trainer.model, ours, KTOTrainer._compute_loss(trainer, trainer.model, inputs, False))


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo"])
def test_policy_gradient_losses_and_their_gradients_are_trls(name, sampled):
    trainer, inputs = sampled, batch(sampled)
    generator = torch.Generator().manual_seed(5)
    tokens = inputs["completion_ids"]
    with torch.no_grad():
        ids, mask = ([inputs[f"{part}_{kind}"] for part in ("prompt", "completion")] for kind in ("ids", "mask"))
        now = trainer._get_per_token_logps_and_entropies(
            trainer.model, torch.cat(ids, 1), torch.cat(mask, 1), tokens.size(1)
        )[0]
    # Some ratios are within the clip's bounds and some beyond.
    inputs["old_per_token_logps"] = now - 0.4 * torch.rand(now.shape, generator=generator)
    inputs["advantages"] = torch.randn(len(tokens), generator=generator)
    trainer.loss_type = name
    # TRL has these from its configuration.
    own = {"dr_grpo": {"max_tokens": trainer.max_completion_length}, "cispo": {"max_ratio": trainer.epsilon_high},
           "dapo": {"clip_high": trainer.epsilon_high}}
    trainer.importance_sampling_level = "sequence" if name == "luspo" else "token"
    trainer.objective = ol.objective(name, advantage="given", beta=0.2, **own.get(name, {}))
    ours = trainer.compute_loss(trainer.model, inputs)
    trainer.args.use_bias_correction_kl = True
    assert_same(trainer.model, ours, GRPOTrainer._compute_loss(trainer, trainer.model, inputs))


def trains(trainer, objective):
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.objective = objective
    result = trainer.train()
    assert result.global_step == 2 and result.training_loss == result.training_loss
    assert any((before[name] != after).any() for name, after in trainer.model.state_dict().items())


@pytest.mark.parametrize("name", methods("preferences"))
def test_every_loss_over_preferences_trains(name, preferences):
    trains(preferences, ol.objective(name))


@pytest.mark.parametrize("name", methods("labelled"))
def test_every_loss_over_labelled_responses_trains(name, labelled):
    labelled.calculate_KL = True
    trains(labelled, ol.objective(name))


@pytest.mark.parametrize("name", methods("groups", given))
def test_every_policy_gradient_loss_trains(name, sampled):
    trains(sampled, given(name))
