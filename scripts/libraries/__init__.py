"""PyTorch and JAX, which mpt is compared with: `environment` brings them, `pytorch.txt` and `jax.txt` are their pins.

mpt itself needs neither. `scripts/parity` takes PyTorch, `scripts/compare-peers` both.
"""
