"""A PBX made of code, for demos, tests and plugin authors."""
