"""Grammars: they write episodes without a model. `<toolset>_train` for training, `<toolset>_heldout` for evaluation only."""
