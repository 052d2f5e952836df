"""Train the small text-to-video model that ships as the ``shapes-video`` demonstration.

The package draws its own data (a coloured shape that moves, with captions), trains a
video autoencoder, a text encoder and a text-conditioned transformer in the architecture
of Wan, judges the result with plain geometry and exports a diffusers model folder. What
it shares with the image model comes from ``shapes_training``.
Run ``python -m clips_training --help``.
"""
