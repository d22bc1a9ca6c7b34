import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.objective import GenerateRequest, Model, Objective, Samples
from torchloom.contracts.spec import ImageSpec
from torchloom.errors import ConfigError, UnsupportedError
from torchloom_training.callbacks import RULE, EarlyStopping, write_samples
from torchloom_training.callbacks import Samples as SamplesCallback
from torchloom_training.configs import EarlyStoppingConfig, SamplesConfig

# Lightning's own, with the newest torch.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")


class Net(Architecture):
    protocols = frozenset({"features"})
    width = 1

    def __init__(self) -> None:
        super().__init__(None, ImageSpec(1, 2, 2))
        self.frozen = nn.Dropout(0.5)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def features(self, inputs, *, lengths=None, encoded=None):
        return self.layers(inputs.flatten(1))


class Mute(Objective):
    def inputs(self, batch):
        return {"inputs": batch}

    def loss(self, outputs, batch):
        raise NotImplementedError


class Talking(Mute):
    """Makes samples that show the request's random source and the state of the model."""

    images = False

    def generate(self, model, request: GenerateRequest, tokenizer=None) -> Samples:
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        torch.rand(3)  # an objective that misbehaves
        value = torch.rand(request.num_samples, 1, 2, 2, generator=request.generator)
        return Samples(images=value) if self.images else Samples(texts=[repr(v) for v in value.sum((1, 2, 3)).tolist()])


class Module(pl.LightningModule):
    """Trains with dropout from the global random source; its validation metric follows a list."""

    def __init__(self, objective: Objective, scores: list[float] | None = None, seed: int = 7) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = Model(Net(), None, "features")
        self.objective, self.tokenizer, self.seed = objective, None, seed
        self.scores = scores or []
        self.losses: list[float] = []
        self.modes: list[bool] = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_start(self):
        self.model.architecture.frozen.eval()

    def training_step(self, batch, batch_idx):
        self.modes.append(self.model.architecture.layers.training)
        loss = self.model(inputs=batch).square().mean()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        if self.scores:
            self.log("val/score", self.scores[self.current_epoch], batch_size=1)


class Batches:
    """The least that Lightning takes as a loader; it says nothing about worker processes."""

    def __init__(self, count: int) -> None:
        self.batches = [torch.linspace(0, number, 12).view(3, 1, 2, 2) for number in range(1, count + 1)]

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def fit(
    module: Module, *callbacks, folder: Path, max_epochs: int = 3, ckpt: str | None = None, **settings
) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"num_sanity_val_steps": 0, **settings},
    )
    torch.manual_seed(1)
    trainer.fit(module, Batches(4), Batches(1), ckpt_path=ckpt)
    return trainer


def sampler(folder: Path, **settings):
    return SamplesCallback(SamplesConfig(**{"num_samples": 2, **settings})).build(folder, ("val/loss", False))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "samples").iterdir())


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "samples").iterdir()}


def test_sampling_leaves_training_as_it_would_have_been(tmp_path):
    plain, sampled = Module(Talking(None, None)), Module(Talking(None, None))
    fit(plain, folder=tmp_path)
    fit(sampled, sampler(tmp_path, every_n_steps=1), folder=tmp_path)
    assert sampled.losses == plain.losses
    assert all(sampled.modes)
    assert len(names(tmp_path)) == 12
    assert not sampled.model.architecture.frozen.training


def test_samples_after_validations_are_named_by_their_step(tmp_path):
    fit(Module(Talking(None, None)), sampler(tmp_path), folder=tmp_path, num_sanity_val_steps=1)
    assert names(tmp_path) == ["step-00000004.txt", "step-00000008.txt", "step-00000012.txt"]


def test_samples_every_other_validation_or_every_third_step(tmp_path):
    fit(Module(Talking(None, None)), sampler(tmp_path / "a", every_n_validations=2), folder=tmp_path)
    assert names(tmp_path / "a") == ["step-00000008.txt"]
    fit(Module(Talking(None, None)), sampler(tmp_path / "b", every_n_steps=3), folder=tmp_path)
    assert names(tmp_path / "b") == [f"step-{step:08d}.txt" for step in (3, 6, 9, 12)]


def test_accumulated_batches_sample_once_a_step(tmp_path):
    callback = sampler(tmp_path, every_n_steps=1)
    made = []
    callback._sample = lambda trainer, module: made.append(trainer.global_step)
    fit(Module(Talking(None, None)), callback, folder=tmp_path, max_epochs=2, accumulate_grad_batches=2)
    assert made == [1, 2, 3, 4]


def test_samples_depend_on_seed_and_step_alone(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        fit(Module(Talking(None, None), seed=seed), sampler(tmp_path / name), folder=tmp_path)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert len({*a.values(), *c.values()}) == 6


def test_continued_run_samples_at_the_same_validations(tmp_path):
    whole = sampler(tmp_path / "whole", every_n_validations=2)
    fit(Module(Talking(None, None)), whole, folder=tmp_path, max_epochs=4)
    first = fit(
        Module(Talking(None, None)), sampler(tmp_path / "parts", every_n_validations=2), folder=tmp_path, max_epochs=1
    )
    first.save_checkpoint(tmp_path / "one.ckpt")
    second = sampler(tmp_path / "parts", every_n_validations=2)
    fit(Module(Talking(None, None)), second, folder=tmp_path, max_epochs=4, ckpt=str(tmp_path / "one.ckpt"))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    torch.load(tmp_path / "one.ckpt", weights_only=True)


def test_images_become_one_grid(tmp_path):
    objective = Talking(None, None)
    objective.images = True
    fit(Module(objective), sampler(tmp_path, num_samples=5), folder=tmp_path, max_epochs=1)
    assert names(tmp_path) == ["step-00000004.png"]
    with Image.open(tmp_path / "samples" / "step-00000004.png") as image:
        assert image.size == (3 * (2 + 2) + 2, 2 * (2 + 2) + 2)


def test_texts_of_one_file_stand_apart_and_image_values_are_kept(tmp_path):
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 3, 3)
    text, image = write_samples(Samples(texts=["a\nb", "ü"], images=images), tmp_path / "new" / "step-00000001")
    assert text.read_text(encoding="utf-8") == f"a\nb{RULE}ü\n"
    with Image.open(image) as grid:
        assert {grid.getpixel((3, 3)), grid.getpixel((8, 3))} == {(0, 0, 0), (255, 255, 255)}
    assert sorted(path.name for path in text.parent.iterdir()) == ["step-00000001.png", "step-00000001.txt"]


def test_an_objective_without_samples_is_refused_before_training(tmp_path):
    module = Module(Mute(None, None))
    with pytest.raises(UnsupportedError) as error:
        fit(module, sampler(tmp_path), folder=tmp_path)
    assert str(error.value) == "callbacks=samples: objective Mute generates nothing; leave 'samples' out of callbacks"
    assert module.losses == []


def stopper(objective: tuple[str, bool] = ("val/score", False), **settings):
    return EarlyStopping(EarlyStoppingConfig(**settings)).build(Path(), objective)


@pytest.mark.parametrize(
    ("objective", "settings", "scores", "epochs"),
    [
        (("val/score", False), {"patience": 2}, [3.0, 2.0, 2.5, 2.0, 1.0, 1.0], 4),
        (("val/score", True), {"patience": 2}, [3.0, 2.0, 2.5, 4.0, 1.0, 1.0], 3),
        (("val/score", True), {"patience": 1, "min_delta": 0.5}, [0.1, 0.7, 1.1, 9.0, 9.0, 9.0], 3),
        (("val/other", True), {"patience": 1, "monitor": "val/score"}, [3.0, 2.0, 2.5, 1.0, 1.0, 1.0], 3),
        (
            ("val/other", False),
            {"patience": 1, "monitor": "val/score", "mode": "max"},
            [1.0, 2.0, 2.0, 3.0, 3.0, 3.0],
            3,
        ),
        (("val/score", False), {"patience": 3}, [1.0, math.nan, 1.0, 1.0, 1.0, 1.0], 2),
    ],
)
def test_training_ends_after_patience_validations_without_improvement(tmp_path, objective, settings, scores, epochs):
    trainer = fit(Module(Mute(None, None), scores), stopper(objective, **settings), folder=tmp_path, max_epochs=6)
    assert trainer.current_epoch == epochs


def test_continued_run_stops_where_the_whole_one_does(tmp_path):
    scores = [2.0, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5]
    whole = fit(Module(Mute(None, None), scores), stopper(patience=3), folder=tmp_path, max_epochs=7)
    first = fit(Module(Mute(None, None), scores), stopper(patience=3), folder=tmp_path, max_epochs=3)
    first.save_checkpoint(tmp_path / "three.ckpt")
    second = fit(
        Module(Mute(None, None), scores),
        stopper(patience=3),
        folder=tmp_path,
        max_epochs=7,
        ckpt=str(tmp_path / "three.ckpt"),
    )
    assert whole.current_epoch == second.current_epoch == 5


def test_a_metric_that_is_not_there_is_named_with_those_that_are(tmp_path):
    module = Module(Mute(None, None), [1.0] * 3)
    with pytest.raises(ConfigError) as error:
        fit(module, stopper(("val/scroe", False)), folder=tmp_path)
    assert str(error.value) == (
        "callbacks.early_stopping.monitor: there is no metric 'val/scroe'\n    choose one of val/score"
    )
