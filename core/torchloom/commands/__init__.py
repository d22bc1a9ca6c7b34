"""The commands of `torchloom`, one file each."""
