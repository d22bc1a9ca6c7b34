"""Every component keeps its contract: the suites that plugins run too, over all that is installed."""

import pytest

pytest.register_assert_rewrite(
    *(
        f"torchloom.testing.test_{name}"
        for name in ("architecture", "attention", "component", "dataset", "objective", "tokenizer", "training")
    )
)

from torchloom.testing.test_architecture import *  # noqa: E402, F403
from torchloom.testing.test_attention import *  # noqa: E402, F403
from torchloom.testing.test_component import *  # noqa: E402, F403
from torchloom.testing.test_dataset import *  # noqa: E402, F403
from torchloom.testing.test_objective import *  # noqa: E402, F403
from torchloom.testing.test_tokenizer import *  # noqa: E402, F403
from torchloom.testing.test_training import *  # noqa: E402, F403
