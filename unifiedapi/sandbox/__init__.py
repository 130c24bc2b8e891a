"""A simulated PBX for demos, tests and plugin authors."""
