import pytest
import torch
from torch import nn

from torchloom.errors import ConfigError
from torchloom_training.configs import AdamConfig, AdamWConfig, SGDConfig
from torchloom_training.optimizers import SGD, Adam, AdamW

CASES = [
    (AdamW, AdamWConfig(lr=0.1, weight_decay=0.3, betas=[0.8, 0.9], eps=1e-6), torch.optim.AdamW),
    (Adam, AdamConfig(lr=0.1, weight_decay=0.3, betas=[0.8, 0.9], eps=1e-6), torch.optim.Adam),
    (SGD, SGDConfig(lr=0.1, weight_decay=0.3, momentum=0.5, nesterov=True), torch.optim.SGD),
    (SGD, SGDConfig(lr=0.1, weight_decay=0.3, momentum=0.0), torch.optim.SGD),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2, dtype=torch.float64)


def groups_of(net: nn.Module, decay: float) -> list[dict]:
    return [{"params": [net.weight], "weight_decay": decay}, {"params": [net.bias], "weight_decay": 0.0}]


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for number in steps:
        torch.manual_seed(number)
        net(torch.randn(4, 3, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(("cls", "config", "reference"), CASES)
def test_steps_equal_torchs_plain_loop_with_decay_of_matrices_alone(cls, config, reference):
    ours, theirs = network(), network()
    train(ours, cls(config).build(groups_of(ours, config.weight_decay)), range(8))
    names = {"betas", "eps", "momentum", "nesterov"} & set(vars(config))
    options = {name: getattr(config, name) for name in names}
    train(theirs, reference(groups_of(theirs, 0.3), lr=0.1, foreach=False, **options), range(8))
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


@pytest.mark.parametrize(("cls", "config", "reference"), CASES)
def test_saved_state_goes_on_bit_for_bit(cls, config, reference):
    whole, net = network(), network()
    train(whole, cls(config).build(groups_of(whole, 0.3)), range(6))
    first = cls(config).build(groups_of(net, 0.3))
    train(net, first, range(3))
    second = cls(config).build(groups_of(net, 0.3))
    second.load_state_dict(first.state_dict())
    train(net, second, range(3, 6))
    assert torch.equal(net.weight, whole.weight)
    assert torch.equal(net.bias, whole.bias)


def test_decoupled_decay_shrinks_the_weight_whatever_the_gradient_and_l2_does_not():
    nets = network(), network()
    for net, (cls, config) in zip(nets, [(AdamW, AdamWConfig(lr=0.1)), (Adam, AdamConfig(lr=0.1))], strict=True):
        optimizer = cls(config).build(groups_of(net, 0.5))
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    torch.testing.assert_close(nets[0].weight, network().weight * (1 - 0.1 * 0.5))
    assert (nets[1].weight - network().weight).abs().min().item() == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("betas", [[0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.99, 0.999]])
@pytest.mark.parametrize(("cls", "config_class"), [(AdamW, AdamWConfig), (Adam, AdamConfig)])
def test_betas_that_are_none_are_refused(cls, config_class, betas):
    with pytest.raises(ConfigError) as error:
        cls(config_class(betas=betas))
    assert str(error.value) == (
        f"optimizer.betas: {betas} are not two numbers in [0, 1)\n    give two, such as optimizer.betas=[0.9,0.999]"
    )


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ConfigError) as error:
        SGD(SGDConfig(momentum=0.0, nesterov=True))
    assert str(error.value) == (
        "optimizer.nesterov: Nesterov's step needs momentum, but it is 0\n    set optimizer.momentum"
    )
