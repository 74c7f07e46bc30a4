"""What `scripts/try-launchers` does, one step a module.

Read `cases` first: it says what is started how, and what must come of it. `trial` runs the programs of a case, `hosts`
makes machines of network namespaces, `sockets` tells who listens where, `packages` brings what Debian has.
"""
