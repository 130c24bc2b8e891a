"""The built-in lookups, one per file. The CRM handlers are lookups, too."""
