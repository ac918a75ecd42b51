"""The trainer: from a toolset to published adapters, one runnable step per file. `python -m trainer --help` runs them all."""
