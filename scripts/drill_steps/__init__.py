"""What `scripts/drill` does, one step a module.

Read `run` first: it kills one run again and again and looks at what it left each time. `job` says what is trained,
`moments` when a run is killed and which of its processes, `record` what can be seen of a run in its folder, `command`
drills as many runs as it takes.
"""
