"""Adversarial training: a generator that learns from a discriminator, and the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.contracts.architecture import AdversarialPair, Architecture
from torchloom.contracts.dataset import Batch
from torchloom.contracts.objective import GenerateRequest, LossSum, ManualObjective, Model, Samples
from torchloom.contracts.spec import ImageSpec, Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import Problem
from torchloom_objectives.configs import AdversarialConfig

EVALUATION_SEED = 0
CHUNK = 256
"""Images generated together."""


class Adversarial(ManualObjective):
    """The generator makes images from noise, the discriminator tells them from real ones; each step trains both.

    With logits ``r`` of real and ``f`` of generated images, means over the batch:

    ========  ======================================================  ==============
    loss      discriminator                                           generator
    ========  ======================================================  ==============
    bce       ``-log s(r) - log(1 - s(f))``: real is 1, generated 0   ``-log s(f)``
    hinge     ``max(0, 1 - r) + max(0, 1 + f)``                       ``-f``
    wgan_gp   ``f - r`` + penalty                                     ``-f``
    ========  ======================================================  ==============

    ``s`` is the sigmoid; the penalty is ``gradient_penalty * (|grad D(x)| - 1) ** 2`` with one norm a sample, at ``x``
    drawn evenly between a real and a generated image. Noise comes from torch's default random source. The step trains
    the discriminator on every batch and the generator on every ``n_critic``-th, each on noise of its own.

    With ``instance_noise`` the discriminator sees all images, real and generated, through normal noise, new each time;
    the penalty is taken between images as it sees them. A discriminator of few real images cannot learn them by heart
    then, and the generator keeps more kinds of them. Generated images and the loss to watch are without it.

    Source: Goodfellow et al., arXiv:1406.2661, section 3; Lim and Ye, arXiv:1705.02894; Gulrajani et al.,
    arXiv:1704.00028, algorithm 1; Sonderby et al., arXiv:1610.04490, appendix.
    """

    accepts = (ImageSpec,)
    protocol = "adversarial_pair"
    roles = ("discriminator", "generator")
    spec: ImageSpec
    config: AdversarialConfig

    def __init__(self, config: AdversarialConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.kind: str = config.loss
        self.n_critic: int = config.n_critic or (5 if config.loss == "wgan_gp" else 1)

    def check(self, architecture: Architecture) -> Sequence[Problem]:
        """Refuse batch normalisation under a penalty that is meant for each sample alone (section 4 of the paper)."""
        modules = cast(AdversarialPair, architecture).discriminator.modules()
        if self.kind == "wgan_gp" and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules):
            message = (
                "wgan_gp penalises each sample's gradient, but the discriminator's batch normalisation mixes samples"
            )
            return [Problem("objective.loss", message, "use a discriminator without it, or loss=bce or loss=hinge")]
        return ()

    def head(self, architecture: Architecture) -> nn.Module | None:
        """Return the count of batches if the generator learns only on some, so that a checkpoint carries it."""
        return BatchCount() if self.n_critic > 1 else None

    def parameters(self, model: Model, role: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the discriminator or of the generator."""
        yield from getattr(model.architecture, role).parameters()

    def optimizer_overrides(self, role: str) -> dict[str, Any]:
        """Return the role's own learning rate, if it has one."""
        lr = getattr(self.config, f"{role}_lr")
        return {} if lr is None else {"lr": lr}

    def step(
        self,
        model: Model,
        batch: Batch,
        backward: Callable[[Tensor], None],
        optimizer_step: Callable[[str], None],
    ) -> dict[str, Tensor]:
        """Train the discriminator, then, if it is its turn, the generator.

        Returns:
            ``d_loss``; ``d_real`` and ``d_fake``, the mean judgement of real and generated images (a probability for
            bce, else a logit); ``g_loss``, where the generator does not learn its loss on the discriminator's images.
        """
        generator, discriminator = _players(model)
        signed = _to_signed(batch["image"])

        real = self._seen(signed)
        with torch.no_grad():
            fake = self._seen(generator(self._latents(model, signed)))
        real_logits, fake_logits = discriminator(real), discriminator(fake)
        d_loss = self._discriminator_loss(real_logits, fake_logits)
        if self.kind == "wgan_gp":
            d_loss = d_loss + self.config.gradient_penalty * gradient_penalty(discriminator, real, fake)
        backward(d_loss)
        optimizer_step("discriminator")

        g_loss = self._generator_loss(fake_logits)
        count = cast("BatchCount | None", model.head)
        if count is None or count.tick() % self.n_critic == 0:
            with _frozen(discriminator):
                fake = self._seen(generator(self._latents(model, signed)))
                g_loss = self._generator_loss(discriminator(fake))
                backward(g_loss)
            optimizer_step("generator")
        judgement = self._judgement(real_logits, fake_logits)
        return {"d_loss": d_loss.detach(), "g_loss": g_loss.detach(), **judgement}

    def evaluate(self, model: Model, batch: Batch) -> LossSum:
        """Return how far generated images are from the batch's, and the players' losses beside it.

        Neither player's loss says whether the images are good, since each depends on the other. The loss to watch is
        the energy distance between real and generated images as points in pixel space: 0 in the mean when the two come
        from one distribution, larger otherwise. The noise is the same every time.

        Source: Szekely and Rizzo, Energy statistics, Journal of Statistical Planning and Inference 143 (2013), eq. 5.
        """
        real = _to_signed(batch["image"])
        source = torch.Generator().manual_seed(EVALUATION_SEED)
        generator, discriminator = _players(model)
        fake = generator(self._latents(model, real, source))
        real_logits, fake_logits = (discriminator(self._seen(images, source)) for images in (real, fake))
        count = len(real)
        metrics = {
            "d_loss": self._discriminator_loss(real_logits, fake_logits),
            "g_loss": self._generator_loss(fake_logits),
            **self._judgement(real_logits, fake_logits),
        }
        sums = {name: value * count for name, value in metrics.items()}
        return LossSum(energy_distance(real, fake) * count, float(count), sums)

    def generate(self, model: Model, request: GenerateRequest, tokenizer: Tokenizer | None = None) -> Samples:
        """Return ``num_samples`` images in ``[0, 1]`` from noise of the request's generator."""
        generator, _ = _players(model)
        device = next(generator.parameters()).device
        noise = torch.randn(request.num_samples, _latent_dim(model), generator=request.generator)
        made = [generator(part.to(device)).float().cpu() for part in torch.split(noise, CHUNK)]
        return Samples(images=((torch.cat(made) + 1) / 2).clamp(0, 1))

    def _latents(self, model: Model, like: Tensor, source: torch.Generator | None = None) -> Tensor:
        """Return the noise that as many images as ``like`` are made from."""
        return _noise((len(like), _latent_dim(model)), like, source)

    def _seen(self, images: Tensor, source: torch.Generator | None = None) -> Tensor:
        """Return images as the discriminator sees them."""
        deviation = self.config.instance_noise
        return images + deviation * _noise(images.shape, images, source) if deviation else images

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.kind == "bce":
            return _cross_entropy(real, 1.0) + _cross_entropy(fake, 0.0)
        if self.kind == "hinge":
            return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        return fake.mean() - real.mean()

    def _generator_loss(self, fake: Tensor) -> Tensor:
        return _cross_entropy(fake, 1.0) if self.kind == "bce" else -fake.mean()

    def _judgement(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        if self.kind == "bce":
            real, fake = real.sigmoid(), fake.sigmoid()
        return {"d_real": real.detach().mean(), "d_fake": fake.detach().mean()}


class BatchCount(nn.Module):
    """Counts training batches in a buffer, which a checkpoint saves."""

    batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def tick(self) -> int:
        """Count one batch and return how many there were."""
        self.batches += 1
        return int(self.batches)


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean over samples of ``(|gradient of the logit at a point between real and fake| - 1) ** 2``.

    Args:
        discriminator: Images to logits ``(batch,)``; differentiated twice, which torch.compile cannot do.
        real: ``(batch, channels, height, width)``.
        fake: Of the same shape, without gradient.

    Source: Gulrajani et al., arXiv:1704.00028, equation 3.
    """
    share = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
    between = torch.lerp(fake, real, share).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    norm: Tensor = torch.linalg.vector_norm(gradient.float().flatten(1), dim=1)
    return (norm - 1).square().mean()


def energy_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return ``2 E|x - y| - E|x - x'| - E|y - y'|`` over pairs of distinct rows, without bias.

    Args:
        first: ``(n, ...)``.
        second: ``(m, ...)``.
    """
    x, y = first.float().flatten(1), second.float().flatten(1)
    return 2 * torch.cdist(x, y).mean() - _mean_distance(x) - _mean_distance(y)


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _mean_distance(points: Tensor) -> Tensor:
    count = len(points)
    return torch.cdist(points, points).sum() / max(1, count * (count - 1))


def _players(model: Model) -> tuple[nn.Module, nn.Module]:
    pair = cast(AdversarialPair, model.architecture)
    return pair.generator, pair.discriminator


def _latent_dim(model: Model) -> int:
    return cast(AdversarialPair, model.architecture).latent_dim


def _noise(shape: Sequence[int], like: Tensor, source: torch.Generator | None) -> Tensor:
    """Return normal noise; from a source on the CPU if one is given."""
    if source is not None:
        return torch.randn(shape, generator=source).to(like)
    return torch.randn(shape, dtype=like.dtype, device=like.device)


def _to_signed(images: Tensor) -> Tensor:
    """Scale ``[0, 1]`` to ``[-1, 1]``, the range of the generator's tanh."""
    return images * 2 - 1


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Keep gradients from piling up in a module that they only pass through."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
