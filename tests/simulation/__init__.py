"""A deterministic simulation of receiver, inbox and servers: one seed, one run, one result.

`python -m tests.simulation --help` runs it; docs/performance.md and CONTRIBUTING.md say when to.
"""
