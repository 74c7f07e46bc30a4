"""What `scripts/setup` does, one step a module.

Read `sequence` first: it says what is missing, what that costs, and in which order it comes. `pins` holds every version
and checksum. Only Python's standard library is used, and pip as a command.
"""
