from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchloom.contracts.architecture import AdversarialPair
from torchloom.contracts.objective import GenerateRequest, Model
from torchloom.contracts.spec import ImageSpec
from torchloom_objectives.adversarial import Adversarial, energy_distance, gradient_penalty
from torchloom_objectives.configs import AdversarialConfig

SPEC = ImageSpec(channels=1, height=4, width=4)


class Pair(AdversarialPair):
    accepts = (ImageSpec,)
    latent_dim = width = 3

    def __init__(self, *, batch_norm: bool = False) -> None:
        super().__init__(None, SPEC)
        norm = nn.BatchNorm1d(8) if batch_norm else nn.Identity()
        self.generator = nn.Sequential(
            nn.Linear(3, 8, bias=False),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, 16),
            nn.Tanh(),
            nn.Unflatten(1, (1, 4, 4)),
        )
        self.discriminator = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8), norm, nn.Dropout(0.2), nn.Softplus(), nn.Linear(8, 1), nn.Flatten(0)
        )


class Training:
    """What the framework's module does around an objective's step, in plain PyTorch."""

    def __init__(self, **settings) -> None:
        torch.manual_seed(0)
        self.objective = Adversarial(AdversarialConfig(**settings), SPEC)
        architecture = Pair()
        self.model = Model(architecture, self.objective.head(architecture), self.objective.protocol).train()
        self.optimizers = {
            role: torch.optim.Adam(self.objective.parameters(self.model, role), lr=1e-2, betas=(0.5, 0.999))
            for role in self.objective.roles
        }
        self.moves: list[str] = []
        self.gradients: list[dict[str, bool]] = []

    def batch(self, number: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(1000 + number)
        return {"image": torch.rand(5, 1, 4, 4)}

    def step(self, number: int) -> dict[str, torch.Tensor]:
        batch = self.batch(number)
        torch.manual_seed(number)
        return self.objective.step(self.model, batch, lambda loss: loss.backward(), self.move)

    def move(self, role: str) -> None:
        self.moves.append(role)
        present = {
            name: any(p.grad is not None and bool(p.grad.any()) for p in self.objective.parameters(self.model, name))
            for name in self.objective.roles
        }
        self.gradients.append(present)
        self.optimizers[role].step()
        self.optimizers[role].zero_grad()


def state(module: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in module.state_dict().values()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def by_hand(
    loss: str, steps: int, n_critic: int, instance_noise: float | None = None
) -> tuple[Pair, list[tuple[float, float | None]]]:
    """Train a pair without any of the framework."""

    def seen(images):
        return images if instance_noise is None else images + instance_noise * torch.randn(5, 1, 4, 4)

    torch.manual_seed(0)
    pair = Pair().train()
    generator, discriminator = pair.generator, pair.discriminator
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2, betas=(0.5, 0.999))
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-2, betas=(0.5, 0.999))
    losses = []
    for number in range(steps):
        torch.manual_seed(1000 + number)
        images = torch.rand(5, 1, 4, 4) * 2 - 1
        torch.manual_seed(number)
        images = seen(images)
        fake = seen(generator(torch.randn(5, 3)).detach())
        real_logits, fake_logits = discriminator(images), discriminator(fake)
        if loss == "bce":
            ones, zeros = torch.ones(5), torch.zeros(5)
            bce = F.binary_cross_entropy_with_logits
            d_loss = bce(real_logits, ones) + bce(fake_logits, zeros)
        elif loss == "hinge":
            d_loss = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
        else:
            share = torch.rand(5, 1, 1, 1)
            between = (share * images + (1 - share) * fake).requires_grad_()
            logits = discriminator(between)
            (slope,) = torch.autograd.grad(logits, between, torch.ones_like(logits), create_graph=True)
            norm = slope.view(5, -1).norm(2, dim=1)
            d_loss = fake_logits.mean() - real_logits.mean() + 10 * ((norm - 1) ** 2).mean()
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        g_loss = None
        if (number + 1) % n_critic == 0:
            logits = discriminator(seen(generator(torch.randn(5, 3))))
            g_loss = F.binary_cross_entropy_with_logits(logits, torch.ones(5)) if loss == "bce" else -logits.mean()
            g_optimizer.zero_grad()
            g_loss.backward()
            g_optimizer.step()
        losses.append((d_loss.item(), None if g_loss is None else g_loss.item()))
    return pair, losses


@pytest.mark.parametrize("loss", ["bce", "hinge"])
def test_steps_equal_a_hand_written_gan_bit_for_bit(loss):
    training = Training(loss=loss)
    logs = [training.step(number) for number in range(6)]
    pair, losses = by_hand(loss, 6, 1)
    assert equal(state(training.model.architecture), state(pair))
    assert [(log["d_loss"].item(), log["g_loss"].item()) for log in logs] == losses


@pytest.mark.parametrize("loss", ["bce", "hinge", "wgan_gp"])
def test_with_instance_noise_the_discriminator_sees_every_image_through_new_noise(loss):
    training = Training(loss=loss, instance_noise=0.3, n_critic=2)
    logs = [training.step(number) for number in range(6)]
    pair, losses = by_hand(loss, 6, 2, instance_noise=0.3)
    for one, other in zip(state(training.model.architecture), state(pair), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert [log["d_loss"].item() for log in logs] == pytest.approx([d_loss for d_loss, _ in losses], rel=1e-4)


def test_instance_noise_is_only_for_the_discriminator():
    made = []
    for noise in (0.0, 0.5):
        training = Training(instance_noise=noise)
        training.model.eval()
        with torch.no_grad():
            request = GenerateRequest(num_samples=4, generator=torch.Generator().manual_seed(1))
            images = training.objective.generate(training.model, request).images
            loss = training.objective.evaluate(training.model, {"image": torch.full((5, 1, 4, 4), 0.5)})
        made.append((images, loss))
    (images, loss), (noisy_images, noisy_loss) = made
    assert torch.equal(images, noisy_images)
    assert torch.equal(loss.total, noisy_loss.total)
    assert loss.metrics["d_loss"] != noisy_loss.metrics["d_loss"]


def test_wgan_gp_steps_equal_a_hand_written_one_with_five_critic_steps():
    training = Training(loss="wgan_gp")
    logs = [training.step(number) for number in range(11)]
    pair, losses = by_hand("wgan_gp", 11, 5)
    for one, other in zip(state(training.model.architecture), state(pair), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert [log["d_loss"].item() for log in logs] == pytest.approx([d_loss for d_loss, _ in losses], rel=1e-4)
    assert training.moves == (["discriminator"] * 5 + ["generator"]) * 2 + ["discriminator"]
    assert all("g_loss" in log for log in logs)


@pytest.mark.parametrize("loss", ["bce", "hinge", "wgan_gp"])
def test_each_player_moves_alone_and_leaves_no_gradient_with_the_other(loss):
    training = Training(loss=loss, n_critic=1)
    pair = training.model.architecture
    seen = []

    def move(role):
        others = {name: state(getattr(pair, name)) for name in training.objective.roles}
        Training.move(training, role)
        for name in training.objective.roles:
            assert equal(others[name], state(getattr(pair, name))) is (name != role)
        seen.append(role)

    training.move = move
    training.step(0)
    assert seen == ["discriminator", "generator"]
    assert training.gradients == [
        {"discriminator": True, "generator": False},
        {"discriminator": False, "generator": True},
    ]
    assert all(parameter.requires_grad for parameter in pair.parameters())


def test_a_frozen_parameter_stays_frozen():
    training = Training()
    frozen = training.model.architecture.discriminator[1].weight.requires_grad_(False)
    training.step(0)
    assert not frozen.requires_grad


def test_count_of_batches_is_part_of_the_saved_model():
    training, other = Training(loss="wgan_gp"), Training(loss="wgan_gp")
    for number in range(3):
        training.step(number)
    other.model.load_state_dict(training.model.state_dict())
    other.step(3)
    other.step(4)
    assert other.moves == ["discriminator", "discriminator", "generator"]
    assert Training(loss="bce").model.head is None


def test_gradient_penalty_has_the_value_and_the_gradient_of_the_formula():
    class Quadratic(nn.Module):
        """D(x) = w |x|^2 / 2, whose gradient at x is w x."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

        def forward(self, images):
            return self.weight * images.flatten(1).square().sum(1) / 2

    torch.manual_seed(0)
    discriminator = Quadratic()
    real, fake = torch.randn(2, 6, 1, 2, 2, dtype=torch.float64)
    torch.manual_seed(1)
    penalty = gradient_penalty(discriminator, real, fake)
    torch.manual_seed(1)
    share = torch.rand(6, 1, 1, 1, dtype=torch.float64)
    norm = (share * real + (1 - share) * fake).flatten(1).norm(dim=1)
    assert penalty.item() == pytest.approx(((0.7 * norm - 1) ** 2).mean().item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(penalty, discriminator.weight)
    assert gradient.item() == pytest.approx((2 * (0.7 * norm - 1) * norm).mean().item(), rel=1e-6)


def test_judgement_is_a_probability_for_bce_and_a_logit_elsewhere():
    log = Training(loss="bce").step(0)
    assert 0 < log["d_real"] < 1
    assert 0 < log["d_fake"] < 1
    torch.manual_seed(0)
    objective = Adversarial(AdversarialConfig(loss="hinge"), SPEC)
    assert objective._judgement(torch.tensor([3.0, 5.0]), torch.tensor([-2.0]))["d_real"].item() == 4.0


@pytest.mark.parametrize("instance_noise", [0.0, 0.5])
def test_evaluation_is_the_same_each_time_and_leaves_the_random_state_alone(instance_noise):
    training = Training(instance_noise=instance_noise)
    training.model.eval()
    before = torch.get_rng_state()
    with torch.no_grad():
        batch = {"image": torch.linspace(0, 1, 80).view(5, 1, 4, 4)}
        first, second = (training.objective.evaluate(training.model, batch) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.total.item() == second.total.item()
    assert first.metrics == second.metrics
    assert first.weight == 5
    assert set(first.metrics) == {"d_loss", "g_loss", "d_real", "d_fake"}


def test_loss_to_watch_is_lower_for_a_generator_that_makes_the_data():
    class Perfect(nn.Module):
        def forward(self, noise):
            return torch.tanh(noise[:, :1, None, None].expand(-1, 1, 4, 4))

    class Collapsed(nn.Module):
        def forward(self, noise):
            return noise.new_zeros(len(noise), 1, 4, 4)

    training = Training()
    torch.manual_seed(9)
    data = (Perfect()(torch.randn(200, 3)) + 1) / 2
    values = []
    for generator in (Perfect(), Collapsed(), training.model.architecture.generator):
        training.model.architecture.generator = generator
        with torch.no_grad():
            loss = training.objective.evaluate(training.model.eval(), {"image": data})
        values.append(loss.total.item() / loss.weight)
    assert abs(values[0]) < 0.1 < min(values[1:])


def test_energy_distance_equals_the_sum_over_pairs():
    torch.manual_seed(0)
    x, y = torch.randn(4, 2, 3), torch.randn(6, 2, 3)

    def mean(first, second, same):
        pairs = [(a - b).norm() for i, a in enumerate(first) for j, b in enumerate(second) if not (same and i == j)]
        return torch.stack(pairs).mean()

    expected = 2 * mean(x, y, False) - mean(x, x, True) - mean(y, y, True)
    torch.testing.assert_close(energy_distance(x, y), expected)
    assert energy_distance(x[:1], y[:1]).item() == pytest.approx(2 * (x[0] - y[0]).norm().item(), rel=1e-5)


def test_generated_images_depend_on_the_generator_alone_and_lie_in_range():
    training = Training()
    training.model.eval()

    def make(count, seed):
        torch.manual_seed(seed + 50)
        request = GenerateRequest(num_samples=count, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return training.objective.generate(training.model, request).images

    images = make(300, 1)
    assert images.shape == (300, 1, 4, 4)
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(images, make(300, 1))
    assert not torch.equal(images[:5], make(5, 2))


def test_roles_have_learning_rates_of_their_own():
    objective = Adversarial(AdversarialConfig(generator_lr=1e-4), SPEC)
    assert objective.optimizer_overrides("generator") == {"lr": 1e-4}
    assert objective.optimizer_overrides("discriminator") == {}


def test_batch_normalisation_is_refused_under_a_gradient_penalty_only():
    pair = Pair(batch_norm=True)
    assert Adversarial(AdversarialConfig(loss="bce"), SPEC).check(pair) == ()
    assert Adversarial(AdversarialConfig(loss="wgan_gp"), SPEC).check(Pair()) == ()
    (problem,) = Adversarial(AdversarialConfig(loss="wgan_gp"), SPEC).check(pair)
    assert str(problem) == (
        "objective.loss: wgan_gp penalises each sample's gradient, but the discriminator's batch "
        "normalisation mixes samples\n"
        "    use a discriminator without it, or loss=bce or loss=hinge"
    )


def test_players_that_share_nothing_but_the_interface_are_enough():
    objective = Adversarial(AdversarialConfig(), SPEC)
    model = SimpleNamespace(architecture=Pair())
    counts = {role: sum(p.numel() for p in objective.parameters(model, role)) for role in objective.roles}
    assert counts == {"discriminator": 16 * 8 + 8 + 8 + 1, "generator": 3 * 8 + 16 + 8 * 16 + 16}
