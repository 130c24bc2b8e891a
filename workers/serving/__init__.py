"""The server: one loop for many partitions, tenants and handlers."""
