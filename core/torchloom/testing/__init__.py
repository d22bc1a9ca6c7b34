"""Contract suites: what every component of a kind is held to."""
