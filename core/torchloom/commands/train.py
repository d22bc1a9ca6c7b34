"""`torchloom train`."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from torchloom import checkpoint
from torchloom.errors import Interrupted, TorchloomError


def run(config: DictConfig) -> int:
    """Train in Hydra's run folder and print the folder last.

    A failure is told on standard error and in the folder's ``summary.json``; it does not raise, so a sweep goes on.

    Returns:
        0; 2 for a mistake that a person can mend, 1 for any other failure, 130 where the person stopped it.
    """
    from torchloom import run as running

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    try:
        if config.ckpt:
            config = running.continued(config.ckpt, list(config.get("overrides") or []))
        running.train(config, folder)
    except (Interrupted, KeyboardInterrupt):
        if checkpoint.saved(folder):
            told = f"stopped; go on with\n    torchloom train ckpt=last hydra.run.dir={folder}"
        else:
            told = "stopped before there was a checkpoint; begin anew"
        print(f"torchloom: {told}", file=sys.stderr)
        print(folder)
        return 130
    except Exception as error:
        if os.environ.get("TORCHLOOM_TRACEBACK") == "1":
            traceback.print_exc()
        print(f"torchloom: error: {running.describe(error)}", file=sys.stderr)
        if not isinstance(error, TorchloomError):
            print("    set TORCHLOOM_TRACEBACK=1 for the whole traceback", file=sys.stderr)
        print(folder)
        return 2 if isinstance(error, TorchloomError) else 1
    print(folder)
    return 0
