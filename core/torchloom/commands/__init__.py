"""The commands of `torchloom`, one file each."""

import shutil

WIDTH = shutil.get_terminal_size((120, 24)).columns
"""Columns of the terminal; where there is none, enough for a table with a sentence in it."""
