"""The memorisation gate: find synthetic images that repeat a training image."""
