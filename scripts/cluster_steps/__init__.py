"""The form of the files in cluster/, against what is published of the systems they are for.

`command` brings schemas and linters, and runs tests/cluster_forms.py among them.
"""
