"""Noise schedules of flow models: Euler steps, and the multistep solver UniPC.

``settings`` and ``reading`` import nothing of torch, since planning reads the configuration too. Own ones rather than
those of diffusers, whose import takes seconds.
"""
