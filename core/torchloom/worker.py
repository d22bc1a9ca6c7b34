"""One process of a run of several: ``python -m torchloom.worker RUN``, started by torch's elastic launcher.

On many machines, start it by ``torchrun`` on each with the same run folder on a shared file system.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from torchloom import continuing, run, schema
from torchloom.errors import Interrupted, TorchloomError


def main(folder: Path) -> int:
    """Take part in the run whose resolved config lies in a folder; returns the exit status."""
    from omegaconf import OmegaConf

    saved = schema.to_plain(OmegaConf.load(folder / run.CONFIG))
    try:
        known = {key: value for key, value in run.read_summary(folder).items() if key in ("name", "job")}
        run.work(continuing.continue_config(saved, []), folder, **known)
    except Interrupted:
        return 130
    except Exception as error:
        if os.environ.get("TORCHLOOM_TRACEBACK") == "1" or not isinstance(error, TorchloomError):
            raise
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
