"""Intuitive fine-tuning beside the recorded losses, gradients and runs of language models."""

import json
import math
from pathlib import Path

import pytest

import objective_lake as ol

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from objective_lake import ift  # noqa: E402

ORACLES = Path(__file__).parents[3] / "tests" / "oracles"
RECORDED = json.loads((ORACLES / "finetune.json").read_text())
CASES = [case for case in RECORDED["cases"] if case["method"]["name"] == "ift"]
RUN = next(run for run in RECORDED["runs"] if run["method"]["name"] == "ift" and run["optimizer"]["name"] == "rmsprop")


def checkpoint(name):
    return transformers.AutoModelForCausalLM.from_pretrained(
        ORACLES / "checkpoints" / name, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def records():
    rows = []
    for pair in RECORDED["pairs"]:
        prompt, response = pair["prompt_ids"], pair["chosen_ids"]
        rows.append({"input_ids": prompt + response, "labels": [-100] * len(prompt) + response})
    return rows


def collate(rows):
    width = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    rows = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in rows]
    return {
        name: torch.tensor([row[name] + [fill[name]] * (width - len(row[name])) for row in rows]) for name in rows[0]
    }


def objective(method):
    parameters = {name: value for name, value in method.items() if name != "name"}
    return ol.objective("ift", **parameters)


def trainer(folder, model, method, of=ift.Trainer, **options):
    options = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "max_steps": 1,
               "per_device_train_batch_size": 4, "output_dir": str(folder), **options}
    return of(
        model=model, args=transformers.TrainingArguments(**options), train_dataset=records(), data_collator=collate,
        objective=objective(method),
    )


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_losses_and_gradients_are_those_of_the_recorded_models(case, tmp_path):
    model = checkpoint(case["checkpoint"])
    own = trainer(tmp_path, model, case["method"])
    model.train()
    value = own.compute_loss(model, collate(records()))
    value.backward()
    assert value.item() == pytest.approx(case["loss"], abs=1e-5)
    squares = sum(weight.grad.double().square().sum().item() for weight in model.parameters() if weight.grad is not None)
    assert math.sqrt(squares) == pytest.approx(case["gradient_norm"], rel=1e-5)
    for name, recorded in case["gradients"].items():
        weight = model.get_parameter(name)
        row = torch.zeros_like(weight) if weight.grad is None else weight.grad
        values = row.flatten()[::recorded["stride"]][:6].tolist()
        assert values == pytest.approx(recorded["values"], abs=1e-4 * max(1.0, recorded["norm"])), name


class Recorded(ift.Trainer):
    """The sum of the losses of each step's micro-batches."""

    def compute_loss(self, *arguments, **options):
        value = super().compute_loss(*arguments, **options)
        self.losses = getattr(self, "losses", [0.0] * self.state.max_steps)
        self.losses[self.state.global_step] += value.item()
        return value


@pytest.mark.parametrize(("micro_batch", "accumulation"), [(4, 1), (1, 4), (3, 2)])
def test_a_run_has_the_recorded_losses_however_its_steps_are_divided(micro_batch, accumulation, tmp_path):
    own = trainer(
        tmp_path, checkpoint(RUN["checkpoint"]), RUN["method"], of=Recorded, max_steps=20, optim="rmsprop",
        learning_rate=RUN["learning_rate"], weight_decay=0.0, lr_scheduler_type="cosine", warmup_steps=2,
        max_grad_norm=RECORDED["max_gradient_norm"], per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
    )
    own.train()
    assert own.losses == pytest.approx(RUN["losses"], abs=1e-4)


def test_lambda_rises_with_the_learning_rate_and_its_noise_depends_on_seed_and_step(tmp_path):
    plain = {"name": "ift", "lambda": 0.4, "lambda_min": 0.2}
    own = trainer(tmp_path, checkpoint("llama"), plain, max_steps=10, warmup_steps=4)
    own.state.max_steps = 10
    own.model.train()

    def course(of):
        values = []
        for step in range(6):
            of.state.global_step = step
            values.append(of.lambda_of_step())
        return values

    assert course(own) == pytest.approx([0.2, 0.25, 0.3, 0.35, 0.4, 0.4])
    own.objective = ol.objective("ift", lambda_noise=0.5, **{"lambda": 0.4})
    noisy = course(own)
    assert len(set(noisy)) == 6 and all(0 <= value <= 1 for value in noisy) and noisy == course(own)
    own.args.seed += 1
    assert noisy != course(own)
    own.model.eval()
    assert course(own) == [0.4] * 6


def test_without_lambda_and_propagation_the_loss_is_that_of_supervised_fine_tuning(tmp_path):
    model = checkpoint("llama")
    own = trainer(tmp_path, model, {"name": "ift", "lambda": 0.0, "propagation": "none"})
    batch = collate(records())
    model.train()
    value = own.compute_loss(model, batch).item()
    rows = [model(input_ids=collate([row])["input_ids"], labels=collate([row])["labels"]).loss for row in records()]
    assert value == pytest.approx(torch.stack(rows).mean().item(), abs=1e-5)


def test_what_has_no_response_has_no_loss(tmp_path):
    model = checkpoint("llama")
    own = trainer(tmp_path, model, {"name": "ift"})
    batch = collate(records())
    batch["labels"][0] = -100
    model.train()
    value = own.compute_loss(model, batch, num_items_in_batch=torch.tensor(3))
    assert value.item() == pytest.approx(own.compute_loss(model, collate(records()[1:])).item(), abs=1e-5)
    batch["labels"][:] = -100
    assert own.compute_loss(model, batch, num_items_in_batch=torch.tensor(3)).item() == 0.0


def test_a_model_is_evaluated_by_the_same_loss(tmp_path):
    own = trainer(tmp_path, checkpoint("llama"), CASES[0]["method"], per_device_eval_batch_size=4)
    assert own.evaluate(records())["eval_loss"] == pytest.approx(CASES[0]["loss"], abs=1e-5)


def test_another_objective_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^objective: expected ift, got sft$"):
        ift.Trainer(
            model=checkpoint("llama"), objective=ol.objective("sft"),
            args=transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[]),
        )


def test_trls_sft_trainer_trains_by_intuitive_fine_tuning(tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from hosts import letters, model, tokenizer

    class SFTTrainer(ift.Anticipated, trl.SFTTrainer):
        pass

    data = [{"prompt": letters(3, i), "completion": " " + letters(2 + i, 50 + i)} for i in range(4)]
    arguments = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": [], "max_steps": 2, "bf16": False,
                 "save_strategy": "no", "disable_tqdm": True, "gradient_checkpointing": False}
    own = SFTTrainer(
        model=model(), args=trl.SFTConfig(**arguments), train_dataset=Dataset.from_list(data),
        processing_class=tokenizer(),
    )
    before = own.model.get_input_embeddings().weight.detach().clone()
    result = own.train()
    assert 0 < result.training_loss < 10 and result.global_step == 2
    assert (own.model.get_input_embeddings().weight == before).all()
    with pytest.raises(ValueError, match="^padding_free: expected False"):
        SFTTrainer(
            model=model(), args=trl.SFTConfig(padding_free=True, max_length=None, **arguments),
            train_dataset=Dataset.from_list(data), processing_class=tokenizer(),
        )
