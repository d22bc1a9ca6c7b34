"""torchloom: deep learning from components that are chosen by name."""

from torchloom.component import Component, Kind
from torchloom.hookspecs import hookimpl
from torchloom.options import option

__all__ = ["Component", "Kind", "hookimpl", "option"]

__version__ = "0.1.0"
