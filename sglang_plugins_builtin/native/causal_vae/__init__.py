"""The causal 3-D autoencoder of Qwen-Image and Wan. Its ``config`` and ``memory`` need no torch."""
