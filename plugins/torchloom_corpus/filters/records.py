"""What this room supplies, by name. Light."""

from torchloom import Component

COMPONENTS: list[Component] = []
