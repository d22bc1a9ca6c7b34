"""Contract suites: what every component of a kind is held to, a third party's included.

Run them over everything installed with ``pytest --pyargs torchloom.testing``. A test's name carries distribution,
kind and name of the component, so ``-k my-distribution`` or ``-k lstm`` chooses. They need ``torchloom[test]``. What
cannot run on this machine (a device, a download) is skipped with the component's own reason.
"""
