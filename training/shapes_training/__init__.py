"""Train the small text-to-image model that ships as the ``shapes-image`` demonstration.

The package draws its own data (coloured shapes with captions), trains an image
autoencoder and a text-conditioned transformer in the architecture of Qwen-Image,
judges the result with plain geometry and exports a diffusers model folder.
Run ``python -m shapes_training --help``.
"""
