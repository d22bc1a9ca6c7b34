"""Start-up time of the commands that need no torch, against a bare Hydra application.

    python benchmarks/startup.py [--rounds 15]

Every round starts each program once, in turn, so that whatever else the machine does falls on all alike. The table holds
medians and their ratio to the bare application, which composes an empty configuration and does nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import hydra
@hydra.main(version_base="1.3", config_path=None)
def main(config):
    pass
main()
"""
QUIET = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
PROGRAM = str(Path(sys.executable).with_name("torchloom"))
LIMIT = 1.3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        commands = {
            "bare Hydra application": [sys.executable, str(bare), *QUIET],
            "bare Hydra application, --help": [sys.executable, str(bare), "--help"],
            "torchloom --help": [PROGRAM, "--help"],
            "torchloom train --help": [PROGRAM, "train", "--help"],
            "torchloom list": [PROGRAM, "list"],
            "torchloom list architecture": [PROGRAM, "list", "architecture"],
            "torchloom show architecture/decoder": [PROGRAM, "show", "architecture/decoder"],
            "completion of 'torchloom tr'": [PROGRAM, "-sc", "query=bash"],
            "completion of 'torchloom train architecture='": [PROGRAM, "-sc", "query=bash"],
        }
        lines = {"completion of 'torchloom tr'": "torchloom tr"}
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(rounds + 1):
            for name, command in commands.items():
                line = lines.get(name, "torchloom train architecture=")
                environment = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
                if turn:  # the first round fills the file cache
                    times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found) for name, found in times.items()}
    base = medians["bare Hydra application"]
    print(f"Median of {rounds} alternating starts, Python {platform.python_version()}, {os.cpu_count()} CPU cores.\n")
    print("| program | seconds | times the bare application |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {median / base:.2f} |")
    return 0 if all(median <= LIMIT * base for name, median in medians.items() if "torchloom" in name) else 1


if __name__ == "__main__":
    sys.exit(main())
