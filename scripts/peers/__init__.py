"""mpt beside the programs that people would otherwise run: PyTorch and JAX on the same network and the same machine.

Read `comparison` first: it says in which order things happen. `catalogue` lists the programs, `goals` what mpt is meant
to reach. Those two libraries' own programs are `pytorch_single`, `pytorch_ddp`, `pytorch_hand_split` and `jax_sharded`;
each runs by itself under a Python that has the library, and shares with the others only `problem` (the same weights and
examples for all) and `measure` (the same clock and the same line of JSON). The rest needs nothing but Python.
"""
