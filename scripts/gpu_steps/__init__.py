"""What `scripts/gpu-check` does, one step a module.

Read `parts` first: it says what is tried, on how many GPUs. `command` has the order of things, `found` and `probe` what
the machine has, `running` one part, `losses` and `report` what becomes of it.
"""
