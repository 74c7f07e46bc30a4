"""Monitoring with Prometheus and Grafana: the dashboard and what it is made of, what it is checked against, the demo.

`panels` says what the dashboard shows, `dashboard` makes Grafana's JSON of it, `grafana` reads such a JSON back and
fills in variables as Grafana does, `promql` finds the selectors of a query, `lint` holds the rules of Grafana's linter.
`prometheus` brings and runs Debian's Prometheus, `training` runs of mpt with an endpoint, `check` tries every query on
them, `exposition` reads the endpoint's text with others' parsers, `demo` shows it all to a person,
`demonstration` tries that.
"""
