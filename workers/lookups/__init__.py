"""The built-in lookups, one a file. Those of the CRMs are their handlers."""
