"""The contract suites notice components that break their contracts."""

from collections.abc import Iterator

import faulty_components
import pytest

from torchloom import builtin, plugins, registry
from torchloom.component import Component
from torchloom.plugins import PluginManager, PluginSource
from torchloom.testing.test_architecture import TestArchitecture as ArchitectureSuite
from torchloom.testing.test_attention import TestAttention as AttentionSuite
from torchloom.testing.test_component import TestComponent as ComponentSuite
from torchloom.testing.test_dataset import TestDataset as DatasetSuite
from torchloom.testing.test_training import TestScheduler as SchedulerSuite


@pytest.fixture(autouse=True)
def _faulty() -> Iterator[None]:
    sources = [
        PluginSource("core", "torchloom", "0", lambda: builtin),
        PluginSource("faulty", "faulty", "0", lambda: faulty_components),
    ]
    with plugins.using(PluginManager(sources, strict=True)):
        yield


def component(kind: str, name: str) -> Component:
    return registry.current().get(kind, name)


def test_a_network_that_looks_ahead() -> None:
    with pytest.raises(AssertionError):
        ArchitectureSuite().test_the_future_does_not_reach_the_past(component("architecture", "looksahead"))


def test_a_state_that_carries_nothing() -> None:
    with pytest.raises(AssertionError):
        ArchitectureSuite().test_state_gives_what_the_whole_sequence_gives(component("architecture", "forgets"))


def test_a_network_that_mixes_the_examples_of_a_batch() -> None:
    with pytest.raises(AssertionError):
        ArchitectureSuite().test_examples_of_a_batch_do_not_see_each_other(component("architecture", "seesthebatch"))


def test_an_option_without_a_word() -> None:
    with pytest.raises(AssertionError):
        ComponentSuite().test_every_option_is_documented(component("architecture", "seesthebatch"))


def test_a_kernel_that_ignores_its_mask() -> None:
    with pytest.raises(AssertionError):
        AttentionSuite().test_honours_or_refuses_a_structure(component("attention", "ignoresmasks"), ("causal",))


def test_a_dataset_that_leaks() -> None:
    with pytest.raises(AssertionError, match=r"100.0% of the examples of val stand in train too"):
        DatasetSuite().test_no_example_stands_in_two_splits(component("dataset", "leaks"))


def test_a_schedule_above_the_peak() -> None:
    with pytest.raises(AssertionError):
        SchedulerSuite().test_factor_is_between_0_and_1(component("scheduler", "grows"), 7)
